"""deep_vgg with anti-aliased pooling (Zhang 2019, arXiv 1904.11486), see docs/ablation.md."""

import keras
from keras import layers

from pipeline.architectures._blocks import blurred, classified, normalised


def build() -> keras.Model:
    """Return the network, with 1,915,175 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters, convolutions in ((32, 2), (64, 2), (128, 3), (256, 3)):
        x = x if filters == 32 else blurred(x)
        for _ in range(convolutions):
            x = normalised(x, filters)
    return classified(pictures, x, dropout=0.2)
