"""Trials for the speedrun."""

import keras
from keras import layers, ops

from pipeline.architectures._blocks import blurred, classified


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


def build(activations=("relu",) * 4, local=True, widths=(16, 48, 96, 192), counts=(2, 2, 2, 2), stem=0):
    def unit(x, filters, act, kernel=3, strides=1):
        x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
        return layers.Activation(act)(layers.BatchNormalization()(x))

    pictures = layers.Input((None, None, 1))
    x = LocalContrast()(pictures) if local else pictures
    if stem:
        x = unit(x, widths[0], activations[0], stem, 2)
    for i, (filters, count) in enumerate(zip(widths, counts)):
        x = blurred(x) if i and not (stem and i == 1) else x
        for _ in range(count):
            x = unit(x, filters, activations[i])
    return classified(pictures, x, dropout=0.2)
