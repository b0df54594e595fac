"""Networks of the second screening: narrow_vgg with some of nine ingredients of its layers."""

import keras
from keras import layers, ops

from pipeline.architectures._blocks import head

SILU, WIDE, PLACE, BOTH, SCALES, SPATIAL, DENSE, STEM, LOCAL = range(9)


@keras.saving.register_keras_serializable()
class Coordinates(layers.Layer):
    """Append two channels: row and column, from -1 to 1."""

    def call(self, x):
        n, h, w, _ = ops.shape(x)
        rows = ops.cast(ops.linspace(-1.0, 1.0, h), x.dtype)[None, :, None, None]
        columns = ops.cast(ops.linspace(-1.0, 1.0, w), x.dtype)[None, None, :, None]
        one = ops.ones_like(x[..., :1])
        return ops.concatenate([x, one * rows, one * columns], -1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] + 2)


@keras.saving.register_keras_serializable()
class LocalContrast(layers.Layer):
    """Append a channel: the picture normalised by mean and deviation of 9x9 windows."""

    def call(self, x):
        mean = ops.average_pool(x, 9, 1, "same")
        centred = x - mean
        deviation = ops.sqrt(ops.average_pool(ops.square(centred), 9, 1, "same") + 0.01)
        return ops.concatenate([x, centred / deviation], -1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] + 1)


def build(on: set[int]) -> keras.Model:
    """Return narrow_vgg with the ingredients `on`."""
    activation = "silu" if SILU in on else "relu"

    def unit(x, filters, kernel=3):
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=False)(x)
        return layers.Activation(activation)(layers.BatchNormalization()(x))

    def half(x):
        x = layers.MaxPooling2D(2, strides=1, padding="same")(x)
        return layers.AveragePooling2D(3, strides=2, padding="same")(x) if WIDE in on else layers.AveragePooling2D(2)(x)

    pictures = layers.Input((None, None, 1))
    x = pictures
    if LOCAL in on:
        x = LocalContrast()(x)
    ends = []
    for filters in (16, 48, 96, 192):
        if filters > 16:
            x = half(x)
            if SPATIAL in on:
                x = layers.SpatialDropout2D(0.1)(x)
        if PLACE in on:
            x = Coordinates()(x)
        x = unit(x, filters, 5 if filters == 16 and STEM in on else 3)
        x = unit(x, filters)
        ends.append(x)
    pooled = []
    for end in ends[-2:] if SCALES in on else ends[-1:]:
        pooled.append(layers.GlobalAveragePooling2D()(end))
        if BOTH in on:
            pooled.append(layers.GlobalMaxPooling2D()(end))
    x = layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    if DENSE in on:
        x = layers.Dense(256, use_bias=False)(layers.Dropout(0.2)(x))
        x = layers.Activation(activation)(layers.BatchNormalization()(x))
    return keras.Model(pictures, head("softmax")[0](layers.Dropout(0.2)(x)))
