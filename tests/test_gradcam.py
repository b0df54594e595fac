"""Grad-CAM's maps are those of its formula, on networks of every shape."""

import keras
import numpy as np
import pytest
import tiny
from keras import ops

from pipeline import architectures
from pipeline.config import Recipe
from pipeline.data import synthetic
from pipeline.errors import UserError
from pipeline.training import attention, backend
from pipeline.training.models import Feed

pytestmark = pytest.mark.usefixtures("started")
PIXELS, LABELS, _ = synthetic.competition(training=14, test=7, seed=3)


def cam(name, **changes):
    backend.prepare(4, "float32")
    return attention.GradCam(Feed(PIXELS, Recipe(epochs=1, **changes)), architectures.build(name))


def test_under_global_pooling_the_weights_are_those_of_the_last_layer():
    """Where maps are only averaged before the last layer, Grad-CAM is CAM (Selvaraju et al. 2017, section 3.1)."""
    one = cam("thin_vgg")
    rows, classes = np.arange(20) % 28, np.arange(20) % 7  # more than a batch, and the last one not whole
    shown = (PIXELS[rows] / 255).astype("float32")[..., None]
    maps = ops.convert_to_numpy(one.body(shown, training=False))
    kernel = ops.convert_to_numpy(one.probe.last.kernel)
    weighed = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel[:, classes]), 0)
    wanted = ops.convert_to_numpy(ops.image.resize(weighed[..., None], (48, 48), "bilinear"))[..., 0]
    wanted /= np.maximum(wanted.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(one.maps(rows, classes), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["mini_xception", "vgg8"])
def test_one_step_of_training_gives_the_gradient_that_tensorflow_gives(name):
    import tensorflow as tf

    one = cam(name)
    assert one.body.output_shape[1:3] == {"vgg8": (5, 5), "mini_xception": (3, 3)}[name]  # the last maps before pooling
    maps = ops.convert_to_numpy(one.body((PIXELS[:16] / 255).astype("float32")[..., None], training=False))
    chosen = np.eye(7, dtype="float32")[LABELS[:16]]
    found = one.probe.gradient(maps, chosen)
    one.probe.offset.assign(np.zeros_like(maps))
    inputs = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        score = tf.reduce_sum(one.probe(inputs) * chosen) / 16
    wanted = tape.gradient(score, inputs).numpy()
    assert abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_the_crop_stands_in_the_middle_and_nothing_beyond_it():
    maps = cam("thin_vgg", crop=40).maps(np.arange(7), np.arange(7))
    assert maps.shape == (7, 48, 48)
    assert maps[:, :4].max() == maps[:, :, 44:].max() == 0
    assert ((maps.max(axis=(1, 2)) == 1) | (maps.max(axis=(1, 2)) == 0)).all()


def test_a_network_without_convolutions_has_no_maps():
    network = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten(), keras.layers.Dense(7)])
    with pytest.raises(UserError, match="no convolution"):
        attention.last_maps(network)
    feed = Feed(PIXELS, Recipe(epochs=1))
    assert not attention.class_maps(feed, network, np.arange(14), LABELS[:14]).any()


def test_a_class_map_is_the_mean_over_so_many_evenly_spread(monkeypatch):
    monkeypatch.setattr(attention, "MOST", 3)
    backend.prepare(4, "float32")
    feed, network = Feed(PIXELS, Recipe(epochs=1)), tiny.build()
    labels = np.repeat([1, 3], [8, 2])
    found = attention.class_maps(feed, network, np.arange(10, 20), labels)
    assert (found.dtype, found.shape) == ("uint8", (7, 48, 48))
    assert not found[[0, 2, 4, 5, 6]].any()
    one = attention.GradCam(feed, network)
    for label, rows in ((1, [10, 14, 17]), (3, [18, 19])):
        wanted = 255 * one.maps(np.array(rows), np.full(len(rows), label)).mean(axis=0)
        assert abs(found[label] - wanted).max() < 0.51
