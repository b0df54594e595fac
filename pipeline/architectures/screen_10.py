"""Screening 10."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({0, 2, 3, 4, 8})
