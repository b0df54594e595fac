"""Pre-activation residual network (He et al. 2016, arXiv 1603.05027), eleven convolutions deep, for two CPU cores.

The original for CIFAR-10 has three groups of 16, 32 and 64 filters, and starts with 32x32 pixels. This one starts with
24x24 pixels and 48 filters, and has fewer blocks. 110 million multiply-adds.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import classified


def _activated(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def _convolved(x: keras.KerasTensor, filters: int, kernel: int, strides: int = 1) -> keras.KerasTensor:
    return layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)


def build() -> keras.Model:
    """Return the network, with 1,523,767 parameters."""
    pictures = layers.Input((None, None, 1))
    x = _convolved(pictures, 48, kernel=5, strides=2)
    for filters, blocks in ((48, 1), (96, 2), (192, 2)):
        for number in range(blocks):
            strides = 2 if filters > 48 and number == 0 else 1
            active = _activated(x)
            way = _convolved(active, filters, kernel=1, strides=strides) if strides > 1 else x
            inner = _activated(_convolved(active, filters, kernel=3, strides=strides))
            x = layers.Add()([way, _convolved(inner, filters, kernel=3)])
    return classified(pictures, _activated(x), dropout=0.2)
