"""A residual network for two CPU cores: 68 million multiply-adds, nearly all in dense 3x3 convolutions.

The shape is that of the networks that learn CIFAR-10 fastest (Page 2018, "How to train your ResNet"; Jordan 2024,
arXiv 2404.00498), with a first convolution of stride 2, since these pictures are larger and have one channel.
"""

import keras
from keras import layers

from pipeline.competition import CLASSES, SIDE


def _convolution(x: keras.KerasTensor, filters: int, kernel: int = 3, strides: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def build() -> keras.Model:
    """1,056,551 parameters."""
    pictures = layers.Input((SIDE, SIDE, 1))
    x = _convolution(pictures, 32, kernel=5, strides=2)
    x = _convolution(x, 48)
    for filters in (96, 192):
        x = layers.MaxPooling2D(2)(x)
        x = _convolution(x, filters)
        x = layers.Add()([x, _convolution(_convolution(x, filters), filters)])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(pictures, layers.Dense(len(CLASSES), activation="softmax", dtype="float32")(x))
