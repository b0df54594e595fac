"""Screening 0."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({0, 1, 3, 4, 5})
