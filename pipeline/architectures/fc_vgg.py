"""The convolutions of deep_vgg followed by a fully connected layer, as in VGG (Simonyan & Zisserman 2014).

VGG (arXiv 1409.1556) has two such layers of 4,096 units. Global pooling discards positions; here each of 3x3 places has
its own weights, as the faces are aligned. The pictures must have one size. 160 million multiply-adds.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import head, normalised
from pipeline.competition import SIDE


def build() -> keras.Model:
    """Return the network, with 2,506,023 parameters."""
    pictures = layers.Input((SIDE, SIDE, 1))
    x = pictures
    for filters, convolutions in ((32, 2), (64, 2), (128, 3), (256, 3)):
        x = x if filters == 32 else layers.MaxPooling2D(2)(x)
        for _ in range(convolutions):
            x = normalised(x, filters)
    x = layers.Dropout(0.2)(layers.Flatten()(layers.MaxPooling2D(2)(x)))
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Dense(256, use_bias=False)(x)))
    return keras.Model(pictures, head("softmax")[0](layers.Dropout(0.4)(x)))
