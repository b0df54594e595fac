"""Networks on trial: a VGG with few filters, and one ingredient more each."""

import keras
import numpy as np
from keras import layers, ops

from pipeline.architectures._blocks import classified


@keras.saving.register_keras_serializable("fer2013")
class StochasticDepth(layers.Layer):
    """Leave out a residual branch at random in training (Huang et al. 2016, arXiv 1603.09382)."""

    def __init__(self, rate: float, **other: object) -> None:
        super().__init__(**other)
        self.rate = rate
        self.seed = keras.random.SeedGenerator()

    def call(self, branch: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Return the branch, float [n, h, w, c], or zeros, row by row."""
        if not training:
            return branch
        shape = (ops.shape(branch)[0], 1, 1, 1)
        kept = ops.floor(keras.random.uniform(shape, seed=self.seed) + 1 - self.rate)
        return branch * kept / (1 - self.rate)


def blurred(x: keras.KerasTensor) -> keras.KerasTensor:
    """Halve the sides by max-pooling without stride and averaging (Zhang 2019, arXiv 1904.11486, "Rect-2")."""
    return layers.AveragePooling2D(2)(layers.MaxPooling2D(2, strides=1, padding="same")(x))


class Identity(keras.initializers.Initializer):
    """The first filters pass on their channel, the others are drawn as usual (Jordan 2024, arXiv 2404.00498)."""

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        """Return a kernel, float [h, w, in, out]."""
        kernel = np.array(keras.initializers.GlorotUniform()(shape))
        if shape[2] > 1:
            same = range(min(shape[2:]))
            kernel[..., : len(same)] = 0
            kernel[shape[0] // 2, shape[1] // 2, same, same] = 1
        return ops.convert_to_tensor(kernel, dtype)


def excited(x: keras.KerasTensor) -> keras.KerasTensor:
    """Scale the channels by a squeeze-and-excitation block with a sixteenth of them (Hu et al. 2018)."""
    filters = x.shape[-1]
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = layers.Conv2D(max(filters // 16, 8), 1, activation="relu")(scale)
    return x * layers.Conv2D(filters, 1, activation="sigmoid")(scale)


def network(
    squeeze: bool = False, blur: bool = False, depth: bool = False, dropout: bool = True, identity: bool = False
) -> keras.Model:  # fmt: skip
    """Return a VGG of 32, 48, 96 and 192 filters, with ingredients; the first convolution has a kernel of 5x5."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    for number, filters in enumerate((32, 48, 96, 192)):
        if number:
            x = blurred(x) if blur else layers.MaxPooling2D(2)(x)
        for step in range(2 if number else 1):
            start = Identity() if identity else "glorot_uniform"
            branch = layers.Conv2D(
                filters, 3 if number else 5, padding="same", use_bias=False, kernel_initializer=start
            )(x)
            branch = layers.Activation("relu")(layers.BatchNormalization()(branch))
            x = x + StochasticDepth(0.2)(branch) if depth and step else branch
        if squeeze and number:
            x = excited(x)
    return classified(pictures, x, dropout=0.2 if dropout else 0.0)
