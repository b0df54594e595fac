"""Losses for noisy labels."""

import keras
from keras import ops


class _Smoothed(keras.losses.Loss):
    """Loss of probabilities with label smoothing."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing

    def smoothed(self, targets: keras.KerasTensor) -> keras.KerasTensor:
        """Spread a fraction of each label over all classes: float [n, 7]."""
        return targets * (1 - self.smoothing) + self.smoothing / targets.shape[-1]


class Generalised(_Smoothed):
    """Generalised cross-entropy, (1 - p**q) / q with q = 0.7 (Zhang & Sabuncu 2018, arXiv 1805.07836)."""

    def call(self, targets: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of every row, float [n]. Smoothing weights the losses of all classes."""
        losses = (1 - ops.power(ops.clip(outputs, 1e-7, 1.0), 0.7)) / 0.7
        return ops.sum(self.smoothed(targets) * losses, axis=-1)


class Symmetric(_Smoothed):
    """Symmetric cross-entropy with alpha 1, beta 1 and log 0 = -4 (Wang et al. 2019, arXiv 1908.06112)."""

    def call(self, targets: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of every row, float [n]: cross-entropy, and the reverse one of the labels themselves."""
        outputs = ops.clip(outputs, 1e-7, 1.0)
        forward = -ops.sum(self.smoothed(targets) * ops.log(outputs), axis=-1)
        reverse = -ops.sum(outputs * ops.maximum(ops.log(ops.clip(targets, 1e-7, 1.0)), -4.0), axis=-1)
        return forward + reverse
