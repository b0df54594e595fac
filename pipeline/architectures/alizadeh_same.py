"""Four padded convolution blocks, from nakulsingh1289/Projects, "Expression Recognition" (2021)."""

import keras

from pipeline.architectures._blocks import deep, head, stack


def build() -> keras.Model:
    """Return the network, with 4,478,727 parameters."""
    return stack("alizadeh_same", deep(), head("softmax"))
