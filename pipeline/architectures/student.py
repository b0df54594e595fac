"""The layers of deep_vgg, under a name of their own, to learn from other networks' answers.

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531): a network comes nearer to an ensemble when it learns what the ensemble
says than when it learns the labels alone. With the same layers, what the lesson gives can be read off. They stand here
once more because a cell depends on one network's file, its own.
"""

import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised


def build() -> keras.Model:
    """1,915,175 parameters."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters, convolutions in ((32, 2), (64, 2), (128, 3), (256, 3)):
        x = x if filters == 32 else layers.MaxPooling2D(2)(x)
        for _ in range(convolutions):
            x = normalised(x, filters)
    return classified(pictures, x, dropout=0.2)
