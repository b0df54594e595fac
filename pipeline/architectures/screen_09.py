"""Screening 9."""

import keras

from pipeline.architectures import _screen


def build() -> keras.Model:
    """Return the network."""
    return _screen.build({1, 2, 3, 7})
