"""small_vgg with a third convolution in each of its last two blocks, as in VGG-16 (Simonyan & Zisserman 2014).

VGG-16 (arXiv 1409.1556) has five blocks of 64 to 512 filters. Ten convolutions, 160 million multiply-adds.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised


def build() -> keras.Model:
    """Return the network, with 1,915,175 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters, convolutions in ((32, 2), (64, 2), (128, 3), (256, 3)):
        x = x if filters == 32 else layers.MaxPooling2D(2)(x)
        for _ in range(convolutions):
            x = normalised(x, filters)
    return classified(pictures, x, dropout=0.2)
