"""Adam (Kingma & Ba 2015, arXiv 1412.6980); with weight decay it is AdamW."""

from typing import Any

import keras


def build(**shared: Any) -> keras.Optimizer:
    """Return Adam with Keras's default betas, 0.9 and 0.999."""
    return keras.optimizers.Adam(**shared)
