"""Eight convolutions in four VGG blocks, from RajwardhanShinde/Facial-Expression-Recognition (2019)."""

import keras
from keras import layers

from pipeline.architectures._blocks import head, stack


def _pool() -> list[keras.Layer]:
    return [layers.BatchNormalization(), layers.MaxPooling2D(2), layers.Dropout(0.5)]


def _pair(filters: int) -> list[keras.Layer]:
    return [
        layers.Conv2D(filters, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.Conv2D(filters, 3, padding="same", activation="relu"),
        *_pool(),
    ]


def build() -> keras.Model:
    """Return the network, with 5,905,863 parameters. Only the first convolution is regularised, and not normalised."""
    return stack(
        "vgg8",
        [layers.Conv2D(64, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01))],
        [layers.Conv2D(64, 3, padding="same", activation="relu"), *_pool()],
        _pair(128),
        _pair(256),
        _pair(512),
        [layers.Flatten()],
        [layers.Dense(512, activation="relu"), layers.Dropout(0.4)],
        [layers.Dense(256, activation="relu"), layers.Dropout(0.4)],
        [layers.Dense(128, activation="relu"), layers.Dropout(0.5)],
        head("softmax"),
    )
