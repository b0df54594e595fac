"""Attention maps by Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), on any Keras backend."""

import keras
import numpy as np
from keras import ops

from pipeline.competition import CLASSES, SIDE
from pipeline.errors import UserError
from pipeline.training import augment
from pipeline.training.models import Feed

BATCH = 16
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D)


def last_maps(network: keras.Model) -> keras.KerasTensor:
    """Return the feature maps after the last convolution, symbolic [n, height, width, channels].

    They include the layers that follow the convolution, up to the next pooling or flattening.
    Raises UserError if `network` has no convolution.
    """
    places = [place for place, layer in enumerate(network.layers) if isinstance(layer, CONVOLUTIONS)]
    if not places:
        raise UserError(f"{network.name} has no convolution, and so no maps in which Grad-CAM could see where it looks")
    found = network.layers[places[-1]].output
    for layer in network.layers[places[-1] :]:
        if len(layer.output.shape) != 4 or "Pooling" in type(layer).__name__:
            break
        found = layer.output
    return found


class Probe(keras.Model):
    """Model from the last feature maps to the class scores before softmax, with a trainable offset on the maps.

    The only gradient that Keras computes on every backend is that of training. One step of gradient descent from
    offset 0, at learning rate 1 on the negative mean score, makes the offset the gradient of the score, divided by
    BATCH.
    """

    def __init__(self, maps: keras.KerasTensor, network: keras.Model, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.last = network.layers[-1]
        self.head = keras.Model(maps, self.last.input)
        self.head.trainable = self.last.trainable = False
        self.offset = self.add_weight(shape=shape, initializer="zeros", dtype="float32", name="offset")
        self.built = True  # all its parts are built
        self.compile(keras.optimizers.SGD(1.0), lambda chosen, scores: -ops.sum(chosen * scores, axis=1))
        self.jit_compile = keras.backend.backend() == "jax"

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        """Map feature maps, float32 [BATCH, height, width, channels], to scores, float32 [BATCH, 7]."""
        scores = ops.cast(self.head(maps + self.offset, training=False), "float32")
        return ops.matmul(scores, self.last.kernel) + self.last.bias if hasattr(self.last, "kernel") else scores

    def gradient(self, maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the gradient of the `chosen` scores (one-hot float32 [BATCH, 7]) by `maps`, in the shape of `maps`."""
        self.offset.assign(np.zeros(self.offset.shape, "float32"))
        self.train_on_batch(maps, chosen)
        found: np.ndarray = ops.convert_to_numpy(self.offset)
        return found


MOST = 50  # pictures per class: enough for a mean, and computed in a second


def class_maps(feed: Feed, network: keras.Model, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean attention map of each class.

    Parameters
    ----------
    rows : int [n], held-out rows of the feed.
    labels : int [n], their classes.

    Returns
    -------
    uint8 [7, 48, 48] : 255 times the means of `GradCam.maps` over at most MOST pictures per class. All 0 for a class
        without rows, and for a network without convolutions.
    """
    parts = [np.flatnonzero(labels == label) for label in range(len(CLASSES))]
    spread = [np.unique(np.linspace(0, len(part) - 1, min(MOST, len(part))).round().astype(int)) for part in parts]
    chosen = np.concatenate([part[place] for part, place in zip(parts, spread, strict=True)])
    means = np.zeros((len(CLASSES), SIDE, SIDE))
    try:
        maps = GradCam(feed, network).maps(rows[chosen], labels[chosen])
    except UserError:  # the network has no convolution
        return means.astype("uint8")
    for label in np.unique(labels[chosen]):
        means[label] = maps[labels[chosen] == label].mean(axis=0)
    scaled: np.ndarray = (255 * means).round().astype("uint8")
    return scaled


class GradCam:
    """Grad-CAM of `network` for pictures in `feed`. It freezes the network, which must not be trained afterwards."""

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        self.feed = feed
        maps = last_maps(network)
        self.body = keras.Model(network.inputs[0], maps)
        side = feed.recipe.crop
        shape = self.body.compute_output_shape((BATCH, side, side, 1))
        self.probe = Probe(maps, network, shape)

    def maps(self, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the attention of `rows` (int [n]) of the feed for `classes` (int [n]): float32 [n, 48, 48], 0 to 1.

        A map is 0 outside of the recipe's crop, and 0 everywhere if nothing supports the class; else its maximum is 1.
        """
        plain = np.tile(augment.tta_maps(self.feed.recipe)[0], (BATCH, 1))
        chosen = np.eye(len(CLASSES), dtype="float32")[classes]
        parts = []
        for start in range(0, len(rows), BATCH):
            batch = np.arange(start, start + BATCH) % len(rows)
            shown = self.feed.shown((rows[batch].astype("int32"), plain))
            maps = ops.convert_to_numpy(self.body(shown, training=False)).astype("float32")
            weights = self.probe.gradient(maps, chosen[batch]).mean(axis=(1, 2), keepdims=True)
            parts.append(np.maximum((weights * maps).sum(axis=3, keepdims=True), 0))
        side = self.feed.recipe.crop
        seen = ops.convert_to_numpy(ops.image.resize(np.concatenate(parts)[: len(rows)], (side, side), "bilinear"))
        left = (SIDE - side) // 2
        edges = (left, SIDE - side - left)
        whole = np.pad(seen[..., 0], ((0, 0), edges, edges))
        scaled: np.ndarray = whole / np.maximum(whole.max(axis=(1, 2), keepdims=True), 1e-12)
        return scaled
