"""A residual network for two CPU cores: 123 million multiply-adds, nearly all in dense 3x3 convolutions.

The shape is that of the networks that learn CIFAR-10 fastest (Page 2018, "How to train your ResNet"; Jordan 2024,
arXiv 2404.00498), with a first convolution of stride 2, since these pictures are larger and have one channel.
"""

import keras

from pipeline.architectures._blocks import compact_resnet


def build() -> keras.Model:
    """1,878,903 parameters."""
    return compact_resnet()
