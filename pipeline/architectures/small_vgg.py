"""Four VGG blocks with global pooling, half as wide as the network of Khaireddin & Chen 2021 (arXiv 2105.03588).

Their network has two convolutions each of 64, 128, 256 and 512 filters, and fully connected layers of 4,096 units. This
one has no such layers and a quarter of the multiply-adds (81 million at their 40 pixels), to suit two CPU cores.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised


def build() -> keras.Model:
    """Return the network, with 1,176,359 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters in (32, 64, 128, 256):
        x = x if filters == 32 else layers.MaxPooling2D(2)(x)
        x = normalised(normalised(x, filters), filters)
    return classified(pictures, x, dropout=0.2)
