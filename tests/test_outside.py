"""External networks are loaded without running their code, and scored like the pipeline's submissions."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import h5py
import keras
import numpy as np
import pytest
import small
from settings import refuses

from pipeline.apps import outside
from pipeline.competition import CLASSES, PRIVATE, PUBLIC
from pipeline.data import solution
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.training import backend

pytestmark = pytest.mark.usefixtures("started")
NOISE = np.random.default_rng(2).random((5, 48, 48, 1), "float32")


def tiny(side=48, channels=1, outputs=7, activation="softmax"):
    backend.prepare(3, "float32")
    return keras.Sequential([
        keras.layers.Input((side, side, channels)), keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(outputs, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 2)),
    ])  # fmt: skip


@pytest.fixture
def project(stand):
    """A folder with drawn faces and known test labels; returns the faces and all labels."""
    small.write()
    small.faces().save()
    data = small.judge()
    return data, solution.load(data)


def scores(name, side=48, scaling="raw", classes=""):
    outside.main(name, side, scaling, classes, "scores.json")
    return json.loads(Path("scores.json").read_text())


def test_the_scores_are_those_of_the_predicted_labels(project, capsys):
    data, labels = project
    network = tiny(side=64, channels=3)
    network.save("network.hdf5")
    found = scores("network.hdf5", 64, "symmetric")
    resized = np.stack([cv2.resize(pixels, (64, 64)) for pixels in data.pixels])
    pictures = np.repeat(resized[..., None].astype("float32") / 127.5 - 1, 3, axis=3)
    predicted, private = np.maximum(network.predict(pictures, verbose=0), 1e-7), data.rows(PRIVATE)
    assert len(set(predicted[private].argmax(axis=1))) > 1
    for key, rows in (("public_accuracy", data.rows(PUBLIC)), ("private_accuracy", private)):
        assert found[key] == pytest.approx((predicted.argmax(axis=1) == labels)[rows].mean(), abs=1e-5)
    entropy = metrics.cross_entropy(predicted[private], labels[private])
    assert found["private_log_loss"] == pytest.approx(entropy, abs=1e-4)
    assert not [key for key in found if key.startswith("oof")]
    assert (found["side"], found["scaling"], found["classes"]) == (64, "symmetric", list(CLASSES))
    assert "drawn faces" in capsys.readouterr().out


def predicts_alike(path, network):
    """Assert that the network in a file predicts like `network`, and not the same for all pictures."""
    found, expected = outside.load(path, 48).predict(NOISE, verbose=0), network.predict(NOISE, verbose=0)
    assert expected.std(axis=0).max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_sequential_model_of_keras_2_0_is_read(tmp_path):
    network, path = tiny(), tmp_path / "old.h5"
    network.save(path)
    convolution, pool, dense = (layer.name for layer in network.layers)
    layers = without_modules([
        old_layer("Conv2D", convolution, batch_input_shape=[None, 48, 48, 1], filters=4, kernel_size=[5, 5],
                  strides=[3, 3], data_format="channels_last", activation="relu"),
        old_layer("GlobalMaxPooling2D", pool, data_format="channels_last"),
        old_layer("Dense", dense, units=7, activation="softmax"),
    ])  # fmt: skip
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers}).encode()
    predicts_alike(path, network)


def test_outputs_in_another_order_are_sorted_by_their_names(project, monkeypatch):
    Path("network.keras").touch()
    names, outputs = sorted(CLASSES), np.random.default_rng(1).dirichlet(np.ones(7), 42)
    monkeypatch.setattr(outside, "load", lambda *_: Mock(count_params=lambda: 1))
    monkeypatch.setattr(outside, "predict", lambda *_: outputs)
    ours = scores("network.keras")
    outputs = outputs[:, [CLASSES.index(name) for name in names]]
    theirs = scores("network.keras", classes=" ".join(names))
    assert {key for key in ours if ours[key] != theirs[key]} == {"classes"}
    refuses("CLASSES", scores, "network.keras", classes="angry,happy")


@pytest.mark.parametrize("name", ["network.keras", "network.h5"])
def test_code_in_files_is_refused_and_not_run(project, name):
    network = tiny()
    network.add(keras.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1]))
    network.save(name)
    Path("ran").unlink()
    refuses("Lambda", outside.load, Path(name), 48)
    assert not Path("ran").exists()


def ref(name, call=0, **options):
    return [[[name, call, 0, options]]]


def old_layer(kind, name, node=None, **config):
    """Return a layer as Keras 2.15 writes it to .keras; .h5 has no modules."""
    return {"class_name": kind, "module": "keras.layers", "registered_name": None, "name": name,
            "config": {"name": name, "trainable": True, "dtype": "float32"} | config,
            "inbound_nodes": node or []}  # fmt: skip


def old_model(name, takes, gives, *layers):
    config = {"name": name, "trainable": True, "layers": list(layers), "input_layers": [[takes, 0, 0]],
              "output_layers": [gives]}  # fmt: skip
    return {"class_name": "Functional", "module": "keras.src.engine.functional", "registered_name": "Functional",
            "name": name, "config": config, "build_config": {"input_shape": [None, 48, 48, 1]}}  # fmt: skip


KERNEL = {"groups": 1, "kernel_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
          "kernel_constraint": None}  # fmt: skip
FIRST = {"batch_input_shape": [None, 48, 48, 1], "sparse": False, "ragged": False}
OLD = old_model(
    "whole", "pictures", ["last", 1, 0],
    old_layer("InputLayer", "pictures", **FIRST),
    old_layer("RandomFlip", "flip", ref("pictures"), mode="horizontal", rng_type="stateful", seed=None),
    old_model("base", "seen", ["normal", 0, 0],
              old_layer("InputLayer", "seen", **FIRST),
              old_layer("SeparableConv2D", "wide", ref("seen"), filters=3, kernel_size=[3, 3], **KERNEL),
              old_layer("BatchNormalization", "normal", ref("wide"), axis=[3]),
              ) | {"inbound_nodes": ref("flip", training=False)},
    old_layer("SpatialDropout2D", "drop", ref("base", 1), rate=0.5, noise_shape=None),
    old_layer("DepthwiseConv2D", "deep", ref("drop"), kernel_size=[7, 7], strides=[4, 4], **KERNEL),
    old_layer("Reshape", "rows", ref("deep"), target_shape=[10, 30]),
    old_layer("LSTM", "memory", ref("rows"), units=6, time_major=False),
    {"class_name": "Sequential", "module": "keras", "registered_name": None, "name": "last",
     "inbound_nodes": ref("memory"), "config": {"name": "last", "layers": [
         old_layer("InputLayer", "before", batch_input_shape=[None, 6]),
         old_layer("Dense", "hidden", units=8, batch_input_shape=[None, 6]),
         old_layer("Dense", "dense", units=7, activation="softmax")]}},
)  # fmt: skip


def now():
    """Return the network of OLD, built in Keras 3 with random weights."""
    backend.prepare(4, "float32")
    layers, pictures, seen = keras.layers, keras.Input((48, 48, 1)), keras.Input((48, 48, 1))
    base = keras.Model(seen, layers.BatchNormalization()(layers.SeparableConv2D(3, 3)(seen)), name="base")
    x = layers.SpatialDropout2D(0.5)(base(layers.RandomFlip("horizontal")(pictures), training=False))
    x = layers.Reshape((10, 30))(layers.DepthwiseConv2D(7, strides=4)(x))
    last = keras.Sequential([layers.Input((6,)), layers.Dense(8), layers.Dense(7, activation="softmax")], name="last")
    network = keras.Model(pictures, last(layers.LSTM(6)(x)))
    rng = np.random.default_rng(1)
    for each in network.weights:
        each.assign(rng.uniform(0.5 if "variance" in each.path else -1, 1, each.shape))
    return network


def without_modules(config):
    if isinstance(config, dict):
        return {key: without_modules(each) for key, each in config.items() if key not in ("module", "registered_name")}
    return [without_modules(each) for each in config] if isinstance(config, list) else config


@pytest.mark.parametrize("form", [".keras", ".h5", "2.13.keras"])
def test_layers_and_nested_models_of_keras_2_predict_like_those_of_keras_3(tmp_path, form):
    network, path = now(), tmp_path / f"old{form}"
    network.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(without_modules(OLD))
    else:
        shutil.unpack_archive(path, tmp_path / "inside", "zip")
        (tmp_path / "inside/config.json").write_text(json.dumps(OLD))
    if form == "2.13.keras":
        with h5py.File(tmp_path / "inside/model.weights.h5", "r+") as file:
            for old, new in (("dense_1", "dense_10"), ("dense", "dense_2")):  # Keras 2.13 leaves gaps
                file["layers/sequential/layers"].move(old, new)
            for place in ("layers/functional/layers", "layers/sequential/layers", "layers"):
                file.move(place, place[:-6] + outside.INNER)
    if path.suffix == ".keras":
        Path(shutil.make_archive(tmp_path / "old", "zip", tmp_path / "inside")).rename(path)
    predicts_alike(path, network)


def test_a_model_of_keras_3_that_is_called_twice_is_unchanged(tmp_path):
    backend.prepare(5, "float32")
    layers, pictures = keras.layers, keras.Input((48, 48, 1))
    part = keras.Sequential([layers.Input((7,)), layers.Dense(7, activation="softmax")])
    network = keras.Model(pictures, part(part(layers.Dense(7)(layers.Flatten()(pictures)))))
    network.save(tmp_path / "new.keras")
    predicts_alike(tmp_path / "new.keras", network)


def damaged(name):
    tiny().save("network.h5")
    with h5py.File("network.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Wonder"')


BAD = {
    "no HDF5": ("network.onnx", lambda name: Path(name).write_bytes(b"x")),
    "unknown layer": ("network.h5", damaged),
    "weights alone": ("network.weights.h5", lambda name: tiny().save_weights(name)),
    "a folder": ("saved", lambda name: Path(name).mkdir()),
    "five outputs": ("network.keras", lambda name: tiny(outputs=5).save(name)),
    "another side": ("network.keras", lambda name: tiny(64).save(name)),
    "no softmax": ("network.keras", lambda name: tiny(activation="linear").save(name)),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_and_networks_of_another_shape_are_refused(project, case):
    name, make = BAD[case]
    make(name)
    message = {"unknown layer": "Wonder.*SIDE", "no softmax": "not probabilities"}.get(case, rf"{name} .*SIDE")
    with pytest.raises(UserError, match=message):
        outside.predict(outside.load(Path(name), 48), small.faces().pixels, 48, "raw")


def test_a_missing_file_is_an_error(project):
    refuses(r"none\.keras is not a file", scores, "none.keras")
    tiny().save("network.keras")
    refuses(r"params\.yaml.*\.json", outside.main, "network.keras", 48, "raw", "", "params.yaml")
