"""The layers of small_resnet, under a name of their own, to learn from other networks' answers.

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531): a small network comes nearer to an ensemble when it learns what the
ensemble says than when it learns the labels alone. With the same layers, what the lesson gives can be read off.
"""

import keras

from pipeline.architectures._blocks import compact_resnet


def build() -> keras.Model:
    """1,878,903 parameters."""
    return compact_resnet()
