"""Networks with their input pipeline on the device: pictures, augmentation, test-time augmentation."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.competition import CLASSES
from pipeline.config import Recipe
from pipeline.training import augment, contrasts

PREDICTION_BATCH = 128
SCALINGS = {"unit": (1 / 255, 0.0), "symmetric": (2 / 255, -1.0), "raw": (1.0, 0.0)}  # factor, offset
Batch = tuple[keras.KerasTensor, keras.KerasTensor]


class Feed(keras.layers.Layer):
    """Layer from row numbers and augmentation parameters to network input. All pictures are on the device, as uint8.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48].
    recipe : determines contrast, scaling, crop and augmentation.
    """

    def __init__(self, pixels: np.ndarray, recipe: Recipe) -> None:
        super().__init__(dtype="float32")
        pixels = contrasts.normalise(pixels, recipe.contrast)
        self.pixels = keras.Variable(pixels[..., None], dtype="uint8", trainable=False, name="pixels")
        self.recipe = recipe

    def varied(self, batch: Batch, side: int) -> keras.KerasTensor:
        """Augment a batch of rows, int32 [n], and draws, float32 [n, k]; return float32 [n, side, side, 1]."""
        return self._scaled(augment.vary(self._pictures(batch[0]), batch[1], self.recipe, side))

    def shown(self, batch: Batch) -> keras.KerasTensor:
        """Map a batch of rows, int32 [n], and maps, float32 [n, 8]; return float32 [n, crop, crop, 1]."""
        return self._scaled(augment.show(self._pictures(batch[0]), batch[1], self.recipe.crop))

    def _pictures(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        return ops.cast(ops.take(self.pixels, rows, axis=0), "float32")

    def _scaled(self, pictures: keras.KerasTensor) -> keras.KerasTensor:
        factor, offset = SCALINGS[self.recipe.scaling]
        return pictures * factor + offset


class _Fed(keras.Model):
    """Base class of models that combine a feed and a network."""

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__()
        self.feed = feed
        self.network = network
        self.built = True  # its parts are built


class Learner(_Fed):
    """Model for training: from (rows int32 [n], draws float32 [n, k]) to the network's outputs, float32 [n, 7]."""

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__(feed, network)
        self.side = feed.recipe.crop
        self.train_function: Any = None
        self.programs: dict[int, Any] = {}  # compiled training programs by side

    def call(self, batch: Batch, training: bool = False) -> keras.KerasTensor:
        """Return the outputs for a batch, float32 [n, 7]."""
        return self.network(self.feed.varied(batch, self.side), training=training)

    def train_step(self, data: tuple[Any, Any]) -> dict[str, Any]:
        """Train one step; with `sharpness`, by the gradient at the worst point near the weights (arXiv 2010.01412)."""
        radius, part = self.feed.recipe.sharpness, self.feed.recipe.sharpness_part or 1.0
        if not radius:
            return super().train_step(data)
        import tensorflow as tf

        (rows, draws), targets = data
        count = round(part * self.feed.recipe.batch_size)
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=targets[:count], y_pred=self((rows[:count], draws[:count]), training=True))
        gradients = tape.gradient(loss, variables)
        scale = radius / (tf.linalg.global_norm(gradients) + 1e-12)
        steps = [gradient * scale for gradient in gradients]
        for variable, step in zip(variables, steps, strict=True):
            variable.assign_add(step)
        with tf.GradientTape() as tape:
            outputs = self((rows, draws), training=True)
            loss = self.compute_loss(y=targets, y_pred=outputs)
        gradients = tape.gradient(loss, variables)
        for variable, step in zip(variables, steps, strict=True):
            variable.assign_sub(step)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(targets)[0])
        return self.compute_metrics(None, targets, outputs)

    def see(self, side: int) -> None:
        """Switch to training on pictures of `side` x `side` pixels; each side is compiled once."""
        self.programs[self.side] = self.train_function
        self.side = side
        self.train_function = self.programs.get(side)


class Predictor(_Fed):
    """Model for prediction: from row numbers and one map for each to probabilities, which sum to 1."""

    def call(self, batch: Batch) -> keras.KerasTensor:
        """Return probabilities, float32 [n, 7], for a batch of rows, int32 [n], and maps, float32 [n, 8]."""
        outputs = ops.cast(self.network(self.feed.shown(batch), training=False), "float32")
        outputs = ops.maximum(outputs, 1e-7)  # all seven sigmoids can be 0
        return outputs / ops.sum(outputs, axis=1, keepdims=True)

    def views(self, rows: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """Return probabilities of `rows`, int [n], for each of `maps`, float32 [v, 8]: float32 [v, n, 7]."""
        if not len(rows):
            return np.zeros((len(maps), 0, len(CLASSES)), "float32")
        # Only complete batches: one compiled program, and an odd last batch can crash oneDNN's depthwise kernels.
        padded = np.resize(rows, math.ceil(len(rows) / PREDICTION_BATCH) * PREDICTION_BATCH).astype("int32")
        parts = [
            [
                self.predict_on_batch((batch, np.tile(view, (len(batch), 1))))
                for batch in padded.reshape(-1, PREDICTION_BATCH)
            ]
            for view in maps
        ]
        return np.stack([np.concatenate(view)[: len(rows)] for view in parts])

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities of `rows`, int [n], without test-time augmentation: float32 [n, 7]."""
        plain: np.ndarray = self.views(rows, augment.tta_maps(self.feed.recipe)[:1])[0]
        return plain


def layers_of(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield all layers of a network, including those of nested models."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)


class Recalibrator(_Fed):
    """Model that recomputes the statistics of batch normalisation with the current weights.

    It replaces the moving averages by means over some batches. Moving averages lag behind the weights, most of all at
    a high learning rate (Wu & Johnson 2021, arXiv 2105.07576, section 3, "PreciseBN").
    """

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__(feed, network)
        self.normalisers = [one for one in layers_of(network) if isinstance(one, keras.layers.BatchNormalization)]

    def call(self, batch: Batch) -> keras.KerasTensor:
        """Return the outputs for a batch as in training, with augmentation and dropout: float32 [n, 7]."""
        return self.network(self.feed.varied(batch, self.feed.recipe.crop), training=True)

    def measure(self, batches: np.ndarray, drawn: np.ndarray) -> None:
        """Set the averages to means over `batches`, int [k, b], augmented by `drawn`, float32 [k * b, d]."""
        averages = [v for one in self.normalisers for v in (one.moving_mean, one.moving_variance)]
        momenta = [one.momentum for one in self.normalisers]
        for one in self.normalisers:
            one.momentum = 0.0  # when the program is traced, so that a moving average is that of the last batch
        seen = []
        for rows, how in zip(batches.astype("int32"), drawn.reshape(*batches.shape, -1), strict=True):
            self.predict_on_batch((rows, how))
            seen.append([ops.convert_to_numpy(v) for v in averages])
        for one, momentum in zip(self.normalisers, momenta, strict=True):
            one.momentum = momentum
        for variable, values in zip(averages, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))
