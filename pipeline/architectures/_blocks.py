"""Blocks shared by several networks: those after Alizadeh & Fazel (arXiv 1704.06756), and our own."""

import itertools

import keras
from keras import layers

from pipeline.competition import CLASSES, SIDE


def convolution(filters: int, kernel: int, dropout: float, padding: str = "same") -> list[keras.Layer]:
    """Return convolution, batch normalisation, ReLU, 2x2 max-pooling and dropout."""
    return [
        layers.Conv2D(filters, kernel, padding=padding),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.MaxPooling2D(2),
        layers.Dropout(dropout),
    ]


def dense(units: int, dropout: float) -> list[keras.Layer]:
    """Return fully connected layer, batch normalisation, ReLU and dropout."""
    return [
        layers.Dense(units),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(dropout),
    ]


def stack(name: str, *blocks: list[keras.Layer]) -> keras.Model:
    """Return a sequential network of `blocks`, with input [n, 48, 48, 1]."""
    return keras.Sequential([layers.Input((SIDE, SIDE, 1)), *itertools.chain(*blocks)], name=name)


def head(activation: str) -> list[keras.Layer]:
    """Return the last layer, with one output per class."""
    return [layers.Dense(len(CLASSES), activation=activation, dtype="float32")]  # float32 at any precision


def deep() -> list[keras.Layer]:
    """Return the body of alizadeh_same and alizadeh_sigmoid: four convolution blocks and two fully connected ones."""
    return [
        *convolution(64, 3, 0.25),
        *convolution(128, 5, 0.25),
        *convolution(512, 3, 0.25),
        *convolution(512, 3, 0.25),
        layers.Flatten(),
        *dense(256, 0.25),
        *dense(512, 0.25),
    ]


def normalised(x: keras.KerasTensor, filters: int, kernel: int = 3, strides: int = 1) -> keras.KerasTensor:
    """Apply convolution without bias, batch normalisation and ReLU to `x`, [n, height, width, channels]."""
    x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def classified(pictures: keras.KerasTensor, x: keras.KerasTensor, dropout: float) -> keras.Model:
    """Return the network from `pictures`, of any size, to class probabilities, by global average pooling of `x`."""
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(pictures, head("softmax")[0](x))


def blurred(x: keras.KerasTensor) -> keras.KerasTensor:
    """Halve the sides by anti-aliased max-pooling (Zhang 2019, arXiv 1904.11486): the stride is that of a 2x2 mean."""
    return layers.AveragePooling2D(2)(layers.MaxPooling2D(2, strides=1, padding="same")(x))
