"""Grad-CAM's maps are those of its formula, on networks of every shape."""

from pathlib import Path

import numpy as np
import pytest
from pipeline.recipe import Recipe
from pipeline.stages import explain
from ruamel.yaml import YAML

from pipeline import architectures
from pipeline.data import synthetic
from pipeline.errors import UserError
from pipeline.evaluation import figures
from pipeline.training import backend, machine

ROOT = Path(__file__).parent.parent
SHARED = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["train"]
PIXELS, LABELS, _ = synthetic.competition(training=14, test=7, seed=3)


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start(machine.choose("auto"))


def cam(name, **changes):
    from pipeline.training import gradcam, loop

    backend.prepare(4, "float32")
    return gradcam.GradCam(loop.Feed(PIXELS, Recipe.model_validate(SHARED | changes)), architectures.build(name))


def test_under_global_pooling_the_weights_are_those_of_the_last_layer():
    """Where maps are only averaged before the last layer, Grad-CAM is CAM (Selvaraju et al. 2017, section 3.1)."""
    from keras import ops

    one = cam("small_vgg")
    rows, classes = np.arange(20) % 28, np.arange(20) % 7  # more than a batch, and the last one not whole
    shown = (PIXELS[rows] / 255).astype("float32")[..., None]
    maps = ops.convert_to_numpy(one.body(shown, training=False))
    kernel = ops.convert_to_numpy(one.probe.last.kernel)
    weighed = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel[:, classes]), 0)
    wanted = ops.convert_to_numpy(ops.image.resize(weighed[..., None], (48, 48), "bilinear"))[..., 0]
    wanted /= np.maximum(wanted.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(one.maps(rows, classes), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["alizadeh_same", "mini_xception", "small_resnet", "vgg8"])
def test_one_step_of_training_gives_the_gradient_that_tensorflow_gives(name):
    import tensorflow as tf
    from keras import ops

    one = cam(name)
    maps = ops.convert_to_numpy(one.body((PIXELS[:16] / 255).astype("float32")[..., None], training=False))
    chosen = np.eye(7, dtype="float32")[LABELS[:16]]
    found = one.probe.gradient(maps, chosen)
    again = one.probe.gradient(maps, chosen)
    one.probe.offset.assign(np.zeros_like(maps))
    inputs = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        score = tf.reduce_sum(one.probe(inputs) * chosen) / 16
    wanted = tape.gradient(score, inputs).numpy()
    assert abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(("name", "side"), [
    ("small_resnet", 6), ("small_vgg", 6), ("alizadeh_same", 6), ("vgg8", 5), ("mini_xception", 3),
])  # fmt: skip
def test_the_maps_are_the_last_before_pooling(name, side):
    from pipeline.training import gradcam

    network = architectures.build(name)
    import keras

    body = keras.Model(network.inputs, gradcam.last_maps(network))
    assert body.compute_output_shape((2, 48, 48, 1))[1:3] == (side, side)


def test_the_crop_stands_in_the_middle_and_nothing_beyond_it():
    maps = cam("small_vgg", crop=40).maps(np.arange(7), np.arange(7))
    assert maps.shape == (7, 48, 48)
    assert maps[:, :4].max() == maps[:, :, 44:].max() == 0
    assert ((maps.max(axis=(1, 2)) == 1) | (maps.max(axis=(1, 2)) == 0)).all()


def test_a_network_without_convolutions_is_refused():
    import keras

    from pipeline.training import gradcam

    with pytest.raises(UserError, match="no convolution"):
        gradcam.last_maps(keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(7)]))


def test_so_many_of_each_class_and_evenly_spread():
    rows = np.arange(1000, 2000)
    labels = np.repeat(np.arange(7), [400, 3, 0, 100, 197, 200, 100])
    found = explain.chosen(rows, labels)
    counts = np.bincount(labels[found - 1000], minlength=7)
    assert counts.tolist() == [50, 3, 0, 50, 50, 50, 50]
    assert {1000, 1399, 1400, 1402, 1999} <= set(found.tolist())
    assert np.diff(found[:50]).max() <= 9


def test_means_are_of_each_class():
    pictures = np.stack([np.full((48, 48), value, "uint8") for value in (10, 20, 30)])
    means = explain.class_means(pictures, np.array([1, 1, 6]))
    assert means[:, 0, 0].tolist() == [0, 15, 0, 0, 0, 0, 30]


def test_the_plot_is_drawn_the_same_way_every_time(tmp_path):
    maps = {"one": np.random.default_rng(0).random((7, 48, 48)), "two": np.zeros((7, 48, 48))}
    for name in ("a.png", "b.png"):
        figures.attention(maps, PIXELS[:7].astype(float), np.arange(7), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
