"""Four padded convolution blocks: nakulsingh1289/Projects, "Expression Recognition" (2021)."""

import keras

from pipeline.architectures._blocks import deep, head, stack


def build() -> keras.Model:
    """4,478,727 parameters."""
    return stack("alizadeh_same", deep(), head("softmax"))
