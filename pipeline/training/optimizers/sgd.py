"""Stochastic gradient descent with Nesterov momentum."""

from typing import Any

import keras


def build(**shared: Any) -> keras.Optimizer:
    """Return SGD with Nesterov momentum 0.9."""
    return keras.optimizers.SGD(momentum=0.9, nesterov=True, **shared)
