"""Screening 5."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({8, 3, 5, 6})
