"""Two convolution blocks, from rishabh30/Facial-Expression-Recognition, cnn_major_shallow.py, "Shallow CNN" (2018)."""

import keras
from keras import layers

from pipeline.architectures._blocks import convolution, dense, head, stack


def build() -> keras.Model:
    """Return the network, with 4,928,007 parameters."""
    return stack(
        "alizadeh_shallow",
        convolution(64, 3, 0.25),
        convolution(128, 5, 0.25),
        [layers.Flatten()],
        dense(256, 0.25),
        head("sigmoid"),
    )
