"""deep_vgg with 1.5 times the filters: ten convolutions, 360 million multiply-adds."""

import keras

from pipeline.architectures._blocks import vgg


def build() -> keras.Model:
    """Return the network, with 4,303,543 parameters."""
    return vgg((48, 2), (96, 2), (192, 3), (384, 3))
