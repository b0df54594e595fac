"""Grad-CAM maps equal those of the formula, on networks of several shapes."""

import keras
import numpy as np
import pytest
import tiny
from keras import ops

from pipeline import architectures
from pipeline.config import Recipe
from pipeline.data import synthetic
from pipeline.training import attention, backend
from pipeline.training.models import Feed

pytestmark = pytest.mark.usefixtures("started")
PIXELS, LABELS, _ = synthetic.competition(training=14, test=7, seed=3)


def cam(name, **changes):
    backend.prepare(4, "float32")
    return attention.GradCam(Feed(PIXELS, Recipe(epochs=1, **changes)), architectures.build(name))


def test_with_global_pooling_the_weights_are_those_of_the_last_layer():
    """If the maps are only averaged before the last layer, Grad-CAM equals CAM (Selvaraju et al. 2017, section 3.1)."""
    gradcam = cam("small_vgg")
    rows, classes = np.arange(20) % 28, np.arange(20) % 7  # the second batch is incomplete
    shown = (PIXELS[rows] / 255).astype("float32")[..., None]
    maps = ops.convert_to_numpy(gradcam.body(shown, training=False))
    kernel = ops.convert_to_numpy(gradcam.probe.last.kernel)
    weighted = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel[:, classes]), 0)
    expected = ops.convert_to_numpy(ops.image.resize(weighted[..., None], (48, 48), "bilinear"))[..., 0]
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(gradcam.maps(rows, classes), expected, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("mini_xception", (3, 3)), ("vgg8", (5, 5))])
def test_the_maps_are_the_last_ones_before_pooling_or_flattening(name, size):
    assert cam(name).body.output_shape[1:3] == size


def test_maps_are_zero_outside_the_central_crop():
    maps = cam("small_vgg", crop=40).maps(np.arange(7), np.arange(7))
    assert maps[:, :4].max() == maps[:, :, 44:].max() == 0
    assert {*maps.max(axis=(1, 2)).tolist()} - {0} == {1}


def test_a_network_without_convolutions_has_no_maps():
    network = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten(), keras.layers.Dense(7)])
    feed = Feed(PIXELS, Recipe(epochs=1))
    assert not attention.class_maps(feed, network, np.arange(14), LABELS[:14]).any()


def test_a_class_map_is_the_mean_over_evenly_spaced_rows(monkeypatch):
    monkeypatch.setattr(attention, "MOST", 3)
    backend.prepare(4, "float32")
    feed, network = Feed(PIXELS, Recipe(epochs=1)), tiny.build()
    labels = np.repeat([1, 3], [8, 2])
    found = attention.class_maps(feed, network, np.arange(10, 20), labels)
    assert (found.dtype, found.shape) == ("uint8", (7, 48, 48))
    assert not found[[0, 2, 4, 5, 6]].any()
    gradcam = attention.GradCam(feed, network)
    for label, rows in ((1, [10, 14, 17]), (3, [18, 19])):
        expected = 255 * gradcam.maps(np.array(rows), np.full(len(rows), label)).mean(axis=0)
        assert abs(found[label] - expected).max() < 0.51
