"""Residual network for two CPU cores: 123 million multiply-adds, nearly all in dense 3x3 convolutions.

The layout follows the networks that learn CIFAR-10 fastest (Page 2018, "How to train your ResNet"; Jordan 2024,
arXiv 2404.00498). The first convolution has stride 2, since these pictures are larger and have one channel.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised


def build() -> keras.Model:
    """Return the network, with 1,878,903 parameters."""
    pictures = layers.Input((None, None, 1))
    x = normalised(pictures, 48, kernel=5, strides=2)
    x = normalised(x, 64)
    for filters in (128, 256):
        x = layers.MaxPooling2D(2)(x)
        x = normalised(x, filters)
        x = layers.Add()([x, normalised(normalised(x, filters), filters)])
    return classified(pictures, x, dropout=0.2)
