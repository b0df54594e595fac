"""small_vgg with fewer filters and anti-aliased pooling (Zhang 2019, arXiv 1904.11486), for the speedrun.

Half of small_vgg's multiply-adds: 46 million at 44 pixels. docs/ablation.md compares their accuracies.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import blurred, classified, normalised


def build() -> keras.Model:
    """Return the network, with 656,343 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters in (16, 48, 96, 192):
        x = x if filters == 16 else blurred(x)
        x = normalised(normalised(x, filters), filters)
    return classified(pictures, x, dropout=0.2)
