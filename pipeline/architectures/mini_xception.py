"""Separable convolutions with residual shortcuts, from oarriaga/face_classification (arXiv 1710.07557)."""

import keras
from keras import layers

from pipeline.competition import CLASSES, SIDE


def _normalised(x: keras.KerasTensor, layer: keras.Layer, activation: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization()(layer(x))
    return layers.Activation("relu")(x) if activation else x


def build() -> keras.Model:
    """Return the network, with 58,423 parameters."""
    pictures = layers.Input((SIDE, SIDE, 1))
    x = pictures
    for _ in range(2):
        x = _normalised(x, layers.Conv2D(8, 3, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)))
    for filters in (16, 32, 64, 128):
        # The source's 1x1 convolution with stride 2, split into two layers. As one layer with 8 channels, oneDNN (in
        # TensorFlow and PyTorch) writes out of bounds if the batch is not divisible by the threads (its issue 6035).
        every_second = layers.MaxPooling2D(1, strides=2)(x)
        residual = _normalised(every_second, layers.Conv2D(filters, 1, use_bias=False), activation=False)
        x = _normalised(x, layers.SeparableConv2D(filters, 3, padding="same", use_bias=False))
        x = _normalised(x, layers.SeparableConv2D(filters, 3, padding="same", use_bias=False), activation=False)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = layers.Add()([x, residual])
    x = layers.Conv2D(len(CLASSES), 3, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(pictures, layers.Activation("softmax", dtype="float32")(x), name="mini_xception")
