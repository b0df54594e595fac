"""The two blocks that the networks after Alizadeh & Fazel (arXiv 1704.06756) are stacked from."""

import itertools

import keras
from keras import layers

from pipeline.competition import CLASSES, SIDE


def convolution(filters: int, kernel: int, dropout: float, padding: str = "same") -> list[keras.Layer]:
    """Convolution, batch normalisation, ReLU, 2x2 max-pooling, dropout."""
    return [
        layers.Conv2D(filters, kernel, padding=padding),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.MaxPooling2D(2),
        layers.Dropout(dropout),
    ]


def dense(units: int, dropout: float) -> list[keras.Layer]:
    """Fully connected layer, batch normalisation, ReLU, dropout."""
    return [
        layers.Dense(units),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(dropout),
    ]


def stack(name: str, *blocks: list[keras.Layer]) -> keras.Model:
    """A network of `blocks` one after the other, from a picture [48, 48, 1] on."""
    return keras.Sequential([layers.Input((SIDE, SIDE, 1)), *itertools.chain(*blocks)], name=name)


def head(activation: str) -> list[keras.Layer]:
    """One output a class."""
    return [layers.Dense(len(CLASSES), activation=activation, dtype="float32")]  # under any precision


def deep() -> list[keras.Layer]:
    """The body that alizadeh_same and alizadeh_sigmoid share: four convolutions, two fully connected layers."""
    return [
        *convolution(64, 3, 0.25),
        *convolution(128, 5, 0.25),
        *convolution(512, 3, 0.25),
        *convolution(512, 3, 0.25),
        layers.Flatten(),
        *dense(256, 0.25),
        *dense(512, 0.25),
    ]
