"""Screening 4."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({2, 4, 5, 7, 8})
