"""deep_vgg, half as wide again: ten convolutions, 360 million multiply-adds."""

import keras

from pipeline.architectures._blocks import vgg


def build() -> keras.Model:
    """4,303,543 parameters."""
    return vgg((48, 2), (96, 2), (192, 3), (384, 3))
