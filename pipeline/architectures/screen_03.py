"""Screening 3."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({1, 3, 4, 6, 7, 8})
