"""Parametric trial networks."""
import keras
from keras import layers
from pipeline.architectures._blocks import classified

def act(x, name):
    return layers.Activation(name)(x)

class Dirac(keras.initializers.Initializer):
    """The first filters pass their channel through; the others are drawn (airbench)."""

    def __call__(self, shape, dtype=None):
        import numpy as np
        drawn = keras.random.uniform(shape, -1, 1, seed=keras.random.SeedGenerator(int(np.prod(shape)))) * (6 / (shape[0] * shape[1] * (shape[2] + shape[3]))) ** 0.5
        kernel = np.array(drawn)
        n = min(shape[2], shape[3])
        if shape[2] > 1:
            kernel[:, :, :, :n] = 0
            kernel[shape[0] // 2, shape[1] // 2, range(n), range(n)] = 1
        return keras.ops.convert_to_tensor(kernel, dtype)

def conv(x, f, k=3, a="relu", dirac=False):
    x = layers.Conv2D(f, k, padding="same", use_bias=False, kernel_initializer=Dirac() if dirac else "glorot_uniform")(x)
    return act(layers.BatchNormalization()(x), a)

def se(x, ratio=8):
    f = x.shape[-1]
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(max(f // ratio, 8), 1, activation="relu")(s)
    s = layers.Conv2D(f, 1, activation="sigmoid")(s)
    return x * s

def net(spec, stem=5, a="relu", squeeze=False, dropout=0.2, residual=False, dirac=False):
    """spec: list of lists of filters; blocks separated by pooling; the first conv uses kernel `stem`."""
    pictures = layers.Input((None, None, 1))
    x = pictures
    first = True
    for number, block in enumerate(spec):
        x = layers.MaxPooling2D(2)(x) if number else x
        for i, f in enumerate(block):
            y = conv(x, f, stem if first else 3, a, dirac)
            if residual and i and x.shape[-1] == f:
                y = y + x
            x = y
            first = False
        if squeeze and number:
            x = se(x)
    return classified(pictures, x, dropout=dropout)
