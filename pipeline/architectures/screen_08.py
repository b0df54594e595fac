"""Network of a trial with several ingredients."""

import keras

from pipeline.architectures._trial import network


def build() -> keras.Model:
    """Return the network."""
    return network(squeeze=True, blur=True, depth=True)
