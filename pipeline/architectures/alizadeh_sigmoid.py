"""The body of alizadeh_same with seven sigmoids, from rishabh30/Facial-Expression-Recognition, cnn_major.py (2018).

It is trained with binary cross-entropy. Its outputs do not sum to 1; training.models.Predictor normalises them.
"""

import keras

from pipeline.architectures._blocks import deep, head, stack


def build() -> keras.Model:
    """Return the network, with 4,478,727 parameters."""
    return stack("alizadeh_sigmoid", deep(), head("sigmoid"))
