"""small_vgg with half the filters in its first block and three quarters in the others, all multiples of 16."""

import keras

from pipeline.architectures._blocks import vgg


def build() -> keras.Model:
    """Return the network, with 656,343 parameters."""
    return vgg((16, 2), (48, 2), (96, 2), (192, 2))
