"""Screening 7."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({0, 1, 5, 7, 8})
