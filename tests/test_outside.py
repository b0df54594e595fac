"""External networks are loaded without running their code, and scored like the pipeline's submissions."""

import json
import zipfile
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest
import small
import tf_keras

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
        keras.layers.Input((side, side, channels)),
        keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(outputs, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 2)),
    ])  # fmt: skip


@pytest.fixture
def project(stand):
    """A folder with drawn faces and known test labels; returns the faces and all labels."""
    small.write()
    small.faces().save()
    data = small.judge()
    return data, solution.join(data.labels, solution.load())


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


def test_outputs_in_another_order_are_sorted_by_their_names(project, monkeypatch):
    Path("network.keras").touch()
    names, outputs = sorted(CLASSES), np.random.default_rng(1).dirichlet(np.ones(7), 42)
    monkeypatch.setattr(outside, "predict_in_process", lambda *_: (outputs, 1))
    ours = scores("network.keras")
    outputs = outputs[:, [CLASSES.index(name) for name in names]]
    theirs = scores("network.keras", classes=" ".join(names))
    assert {key for key in ours if ours[key] != theirs[key]} == {"classes"}
    with pytest.raises(UserError, match="CLASSES"):
        scores("network.keras", classes="angry,happy")


@pytest.mark.parametrize("library", [keras, tf_keras])
@pytest.mark.parametrize("name", ["network.keras", "network.h5"])
def test_code_in_files_is_refused_and_not_run(project, name, library):
    network = library.Sequential([
        library.layers.Input((48, 48, 1)), library.layers.Flatten(), library.layers.Dense(7, activation="softmax"),
        library.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1]),
    ])  # fmt: skip
    network.save(name)
    Path("ran").unlink()
    with pytest.raises(UserError, match="Lambda"):
        outside.load(Path(name), 48)
    assert not Path("ran").exists()


def old():
    """Return a network of Keras 2 with nested models and random weights."""
    layers, pictures, seen = tf_keras.layers, tf_keras.Input((48, 48, 1)), tf_keras.Input((48, 48, 1))
    base = tf_keras.Model(seen, layers.BatchNormalization()(layers.SeparableConv2D(3, 3)(seen)), name="base")
    x = layers.SpatialDropout2D(0.5)(base(layers.RandomFlip("horizontal")(pictures), training=False))
    x = layers.Reshape((10, 30))(layers.DepthwiseConv2D(7, strides=4, kernel_regularizer="l2")(x))
    last = tf_keras.Sequential([layers.Input((6,)), layers.Dense(8), layers.Dense(7, activation="softmax")])
    network = tf_keras.Model(pictures, last(layers.LSTM(6)(x)))
    rng = np.random.default_rng(1)
    for each in network.weights:
        if each.dtype == "float32":  # not the state of RandomFlip
            each.assign(rng.uniform(0.5 if "variance" in each.name else -1, 1, each.shape))
    return network


def as_of_2015(text):
    """Return JSON of tf_keras as Keras 2.15 wrote it."""
    return text.replace("tf_keras", "keras").replace('"2.21.0"', '"2.15.0"')


def replace(path, name, content):
    """Replace one member of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for each, old in members.items():
            archive.writestr(each, content if each == name else old)


@pytest.mark.parametrize("name", ["old.keras", "old.h5"])
def test_a_network_of_keras_2_is_read(tmp_path, name):
    network, path = old(), tmp_path / name
    network.save(path)
    if name == "old.keras":
        for part in ("config.json", "metadata.json"):
            with zipfile.ZipFile(path) as archive:
                text = archive.read(part).decode()
            replace(path, part, as_of_2015(text).encode())
    else:
        with h5py.File(path, "r+") as file:
            del file.attrs["keras_version"]  # as in the oldest files
    predicts_alike(path, network)


@pytest.mark.parametrize("name", ["old.keras", "old.h5"])
def test_keras_2_operations_of_tensorflow_are_refused(tmp_path, name):
    pictures = tf_keras.Input((48, 48, 1))  # such an operation could write files
    outputs = tf_keras.layers.Dense(7, activation="softmax")(tf_keras.layers.Flatten()(pictures))
    tf_keras.Model(pictures, outputs / 2.0).save(tmp_path / name)
    with pytest.raises(UserError, match="'TFOpLambda' is not a class of Keras"):
        outside.load(tmp_path / name, 48)


def test_a_model_of_keras_3_that_is_called_twice_is_unchanged(tmp_path):
    backend.prepare(5, "float32")
    layers, pictures = keras.layers, keras.Input((48, 48, 1))
    part = keras.Sequential([layers.Input((7,)), layers.Dense(7, activation="softmax")])
    network = keras.Model(pictures, part(part(layers.Dense(7)(layers.Flatten()(pictures)))))
    network.save(tmp_path / "new.keras")
    predicts_alike(tmp_path / "new.keras", network)


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_a_class_outside_keras_is_refused(tmp_path, library):
    layers, path = library.layers, tmp_path / "network.keras"
    network = library.Sequential([layers.Input((48, 48, 1)), layers.Flatten(), layers.Dense(7, activation="softmax")])
    network.save(path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    replace(path, "config.json", config.replace('"module": "keras.layers"', '"module": "os"').encode())
    with pytest.raises(UserError, match="'os'"):
        outside.load(path, 48)


def damaged(name):
    tiny().save("network.h5")
    with h5py.File("network.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Wonder"')


BAD = {
    "no HDF5": ("network.onnx", lambda name: Path(name).write_bytes(b"x")),
    "unknown layer": ("network.h5", damaged),
    "weights alone": ("network.weights.h5", lambda name: tiny().save_weights(name)),
    "a folder": ("saved", lambda name: Path(name).mkdir()),
    "JSON": ("network.json", lambda name: Path(name).write_text(tiny().to_json())),
    "five outputs": ("network.keras", lambda name: tiny(outputs=5).save(name)),
    "another side": ("network.keras", lambda name: tiny(64).save(name)),
    "no softmax": ("network.keras", lambda name: tiny(activation="linear").save(name)),
}


def test_a_network_that_needs_too_much_memory_is_refused(project):
    network = tiny()
    network.save("network.keras")
    config = network.to_json().replace('"filters": 4', '"filters": 200000000')
    replace("network.keras", "config.json", config.encode())
    with pytest.raises(UserError, match=r"GiB of memory|too much memory"):
        scores("network.keras")


def test_the_end_of_the_reading_process_without_an_answer_is_an_error(monkeypatch):
    monkeypatch.setattr(outside, "_answer", print)
    with pytest.raises(UserError, match=r"network\.keras crashed the process"):
        outside.predict_in_process(Path("network.keras"), 48, "raw", "tensorflow")


@pytest.mark.parametrize("case", BAD)
def test_other_files_and_networks_of_another_shape_are_refused(project, case):
    name, make = BAD[case]
    make(name)
    message = {"unknown layer": "Wonder.*SIDE", "no softmax": "not probabilities"}.get(case, rf"{name} .*SIDE")
    with pytest.raises(UserError, match=message):
        outside.probabilities(Path(name), 48, "raw")


def test_a_missing_file_unknown_test_labels_and_an_output_file_that_is_not_json_are_errors(project):
    with pytest.raises(UserError, match=r"none\.keras does not exist"):
        scores("none.keras")
    tiny().save("network.keras")
    with pytest.raises(UserError, match=r"params\.yaml.*\.json"):
        outside.main("network.keras", 48, "raw", "", "params.yaml")
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(UserError, match=str(solution.PATH)):
        scores("network.keras")
