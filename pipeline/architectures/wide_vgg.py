"""deep_vgg, half as wide again: ten convolutions, 360 million multiply-adds."""

import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised


def build() -> keras.Model:
    """4,303,543 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters, convolutions in ((48, 2), (96, 2), (192, 3), (384, 3)):
        x = x if filters == 48 else layers.MaxPooling2D(2)(x)
        for _ in range(convolutions):
            x = normalised(x, filters)
    return classified(pictures, x, dropout=0.2)
