"""Convolutions followed by attention, as in CoAtNet (Dai et al. 2021, arXiv 2106.04803), for two CPU cores.

A stride and two poolings leave 6x6 places of 192 channels, few enough for global attention. Two transformer blocks with
pre-normalisation (Xiong et al. 2020, arXiv 2002.04745) follow. There is no position encoding, as padded convolutions
encode positions (Wu et al. 2021, arXiv 2103.15808), so pictures may have any size. 101 million multiply-adds.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import head, normalised

CHANNELS, HEADS = 192, 6


def _attended(x: keras.KerasTensor) -> keras.KerasTensor:
    """Apply a transformer block to [n, places, CHANNELS]."""
    inner = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(HEADS, CHANNELS // HEADS, dropout=0.1)(inner, inner)])
    inner = layers.LayerNormalization(epsilon=1e-6)(x)
    inner = layers.Dense(CHANNELS)(layers.Activation("gelu")(layers.Dense(4 * CHANNELS)(inner)))
    return layers.Add()([x, layers.Dropout(0.1)(inner)])


def build() -> keras.Model:
    """Return the network, with 1,697,463 parameters."""
    pictures = layers.Input((None, None, 1))
    x = normalised(normalised(pictures, 48, kernel=5, strides=2), 64)
    for filters in (128, CHANNELS):
        x = layers.MaxPooling2D(2)(x)
        x = normalised(x, filters)
        x = layers.Add()([x, normalised(x, filters)])
    x = layers.Reshape((-1, CHANNELS))(x)
    x = layers.LayerNormalization(epsilon=1e-6)(_attended(_attended(x)))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(pictures, head("softmax")[0](x))
