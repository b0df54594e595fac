"""narrow VGG blurred."""
import keras
from keras import layers

from pipeline.architectures._blocks import classified, normalised
from pipeline.architectures._trial import blurred


def build() -> keras.Model:
    """Return the network."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for filters in (16, 48, 96, 192):
        x = x if filters == 16 else blurred(x)
        x = normalised(normalised(x, filters), filters)
    return classified(pictures, x, dropout=0.0)
