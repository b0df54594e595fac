"""small_vgg with anti-aliased pooling (Zhang 2019, arXiv 1904.11486)."""

import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised
from pipeline.architectures._trial import blurred


def build() -> keras.Model:
    """Return the network, with 1,176,359 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters in (32, 64, 128, 256):
        x = x if filters == 32 else blurred(x)
        x = normalised(normalised(x, filters), filters)
    return classified(pictures, x, dropout=0.2)
