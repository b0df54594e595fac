"""Four convolution blocks, the last without padding, from jaydeepthik/kaggle-facial-expression-recognition (2019)."""

import keras
from keras import layers

from pipeline.architectures._blocks import convolution, dense, head, stack


def build() -> keras.Model:
    """Return the network, with 3,823,367 parameters."""
    return stack(
        "alizadeh_valid",
        convolution(64, 3, 0.20),
        convolution(128, 5, 0.20),
        convolution(512, 3, 0.20),
        convolution(512, 3, 0.25, padding="valid"),
        [layers.Flatten()],
        dense(256, 0.5),
        dense(512, 0.5),
        head("softmax"),
    )
