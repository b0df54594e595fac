"""The body of alizadeh_same under seven yes/no outputs: rishabh30/Facial-Expression-Recognition, cnn_major.py (2018).

Trained with binary cross-entropy; the outputs of a picture do not sum to 1, so fit.py normalises them.
"""

import keras

from pipeline.architectures._blocks import deep, head, stack


def build() -> keras.Model:
    """4,478,727 parameters."""
    return stack("alizadeh_sigmoid", deep(), head("sigmoid"))
