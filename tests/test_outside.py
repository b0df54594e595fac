"""External networks are loaded without running their code, and scored like the pipeline's submissions."""

import json
import zipfile
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import small

from pipeline import files
from pipeline.apps import outside
from pipeline.competition import CLASSES, PRIVATE, PUBLIC
from pipeline.data import faces, provenance, solution, synthetic
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
    """A folder with drawn faces and known test labels; returns the faces, all labels, and the duplicates."""
    small.write()
    pixels, labels, usage = synthetic.competition(training=14, test=70, seed=2)
    usage = usage.astype("uint8")
    data = faces.Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage)
    data.save()
    test = data.test_rows()
    solution.save(solution.table(test, usage[test], labels[test]))
    duplicates = pd.DataFrame({"row": range(len(labels)), "identical": 0, "near": 0})
    duplicates.loc[data.rows(PRIVATE)[:7], "identical"] = 1
    duplicates.loc[data.rows(PRIVATE)[5:20], "near"] = 1
    duplicates.to_csv("data/duplicates.csv", index=False)
    files.write_json(provenance.PATH, {"source": "synthetic", "official": False, "files": {}})
    return data, labels, duplicates


@pytest.fixture
def inside(monkeypatch):
    """Predict in this process, which is faster than in a new one."""
    monkeypatch.setattr(
        outside, "predict_in_process", lambda path, side, scaling, _: outside.probabilities(path, side, scaling)
    )


def scores(name, side=48, scaling="raw", classes=""):
    outside.main(name, side, scaling, classes, "scores.json")
    return json.loads(Path("scores.json").read_text())


@pytest.mark.parametrize(("name", "side", "channels", "scaling", "factor", "offset"), [
    ("network.keras", 48, 1, "raw", 1, 0), ("network.h5", 64, 3, "symmetric", 1 / 127.5, -1),
    ("network.hdf5", 40, 1, "unit", 1 / 255, 0),
])  # fmt: skip
@pytest.mark.usefixtures("inside")
def test_the_scores_are_those_of_the_predicted_labels(project, name, side, channels, scaling, factor, offset, capsys):
    data, labels, duplicates = project
    network = tiny(side, channels)
    network.save(name)
    found = scores(name, side, scaling)
    resized = np.stack([cv2.resize(pixels, (side, side)) for pixels in data.pixels])
    pictures = np.repeat(resized[..., None].astype("float32") * factor + offset, channels, axis=3)
    predicted = np.maximum(network.predict(pictures, verbose=0), 1e-7)
    private, public = data.rows(PRIVATE), data.rows(PUBLIC)
    assert len(set(predicted[private].argmax(axis=1))) > 1
    unique = private[(duplicates["identical"][private] == 0)]
    distinct = unique[(duplicates["near"][unique] == 0)]
    for key, rows in (("public_accuracy", public), ("private_accuracy", private), ("private_no_duplicate", unique),
                      ("private_no_near_duplicate", distinct)):  # fmt: skip
        assert found[key] == pytest.approx((predicted.argmax(axis=1) == labels)[rows].mean(), abs=1e-5)
    entropy = metrics.cross_entropy(predicted[private], labels[private])
    assert found["private_log_loss"] == pytest.approx(entropy, abs=1e-4)
    assert {"private_low", "private_macro_f1", "rank_2013"} <= found.keys()
    assert not [key for key in found if key.startswith("oof")]
    assert (found["side"], found["scaling"], found["classes"]) == (side, scaling, list(CLASSES))
    assert "drawn faces" in capsys.readouterr().out


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("version", ["2.0", "2.2", "tf.keras 2"])
def test_files_of_keras_2_are_read(project, version):
    network = tiny()
    network.save("old.h5")
    convolution, pool, dense = (layer.name for layer in network.layers)
    initializers = {"kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0, "seed": None}},
                    "bias_initializer": {"class_name": "Zeros", "config": {}}}  # fmt: skip
    layers = without_modules([
        old_layer("Conv2D", convolution, batch_input_shape=[None, 48, 48, 1], filters=4, kernel_size=[5, 5],
                  strides=[3, 3], data_format="channels_last", activation="relu", **initializers),
        old_layer("GlobalMaxPooling2D", pool, data_format="channels_last"),
        old_layer("Dense", dense, units=7, activation="softmax", **initializers),
    ])  # fmt: skip
    if version == "tf.keras 2":
        layers.insert(0, without_modules(old_layer("InputLayer", "input", **FIRST)))
    config = layers if version == "2.0" else {"name": "old", "layers": layers}
    with h5py.File("old.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config}).encode()
        file.attrs["keras_version"] = b"2.0.5"
    network.save("new.keras")
    old, new = scores("old.h5", 48, "unit"), scores("new.keras", 48, "unit")
    assert {key for key in new if old[key] != new[key]} == {"file", "sha256"}


@pytest.mark.usefixtures("inside")
def test_outputs_in_another_order_are_sorted_by_their_names(project):
    names, network = sorted(CLASSES), tiny()
    network.save("ours.keras")
    kernel, bias = network.layers[-1].get_weights()
    order = [CLASSES.index(name) for name in names]
    network.layers[-1].set_weights([kernel[:, order], bias[order]])
    network.save("theirs.keras")
    ours, theirs = scores("ours.keras"), scores("theirs.keras", 48, "raw", " ".join(names))
    assert {key for key in ours if ours[key] != theirs[key]} == {"file", "sha256", "classes"}
    with pytest.raises(UserError, match="CLASSES"):
        scores("ours.keras", classes="angry,happy")


@pytest.mark.parametrize("name", ["network.keras", "network.h5"])
def test_code_in_files_is_refused_and_not_run(project, name):
    network = tiny()
    network.add(keras.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1]))
    network.save(name)
    Path("ran").unlink()
    with pytest.raises(UserError, match="Lambda"):
        outside.load(Path(name), 48)
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
         old_layer("Dense", "dense", units=7, activation="softmax", batch_input_shape=[None, 6])]}},
)  # fmt: skip


def now():
    """Return the network of OLD, built in Keras 3 with random weights."""
    backend.prepare(4, "float32")
    layers, pictures, seen = keras.layers, keras.Input((48, 48, 1)), keras.Input((48, 48, 1))
    base = keras.Model(seen, layers.BatchNormalization()(layers.SeparableConv2D(3, 3)(seen)), name="base")
    x = layers.SpatialDropout2D(0.5)(base(layers.RandomFlip("horizontal")(pictures), training=False))
    x = layers.Reshape((10, 30))(layers.DepthwiseConv2D(7, strides=4)(x))
    last = keras.Sequential([layers.Input((6,)), layers.Dense(7, activation="softmax")], name="last")
    network = keras.Model(pictures, last(layers.LSTM(6)(x)))
    rng = np.random.default_rng(1)
    for each in network.weights:
        each.assign(rng.uniform(0.5 if "variance" in each.path else -1, 1, each.shape))
    return network


def without_modules(config):
    if isinstance(config, dict):
        return {key: without_modules(each) for key, each in config.items() if key not in ("module", "registered_name")}
    return [without_modules(each) for each in config] if isinstance(config, list) else config


def replace(source, target, members):
    """Copy a .keras file and replace some members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, members.get(name) or old.read(name))


@pytest.mark.parametrize("form", [".keras", ".h5", "2.13.keras"])
def test_layers_and_nested_models_of_keras_2_predict_like_those_of_keras_3(tmp_path, form):
    network, path = now(), tmp_path / f"old{form}"
    if path.suffix == ".h5":
        network.save(path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(without_modules(OLD))
    else:
        network.save(tmp_path / "new.keras")
        members = {"config.json": json.dumps(OLD).encode()}
        if form == "2.13.keras":
            with zipfile.ZipFile(tmp_path / "new.keras") as archive:
                archive.extract("model.weights.h5", tmp_path)
            with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
                for place in ("layers/functional/layers", "layers/sequential/layers", "layers"):
                    file.move(place, place[:-6] + outside.INNER)
            members["model.weights.h5"] = (tmp_path / "model.weights.h5").read_bytes()
        replace(tmp_path / "new.keras", path, members)
    found, expected = outside.load(path, 48).predict(NOISE, verbose=0), network.predict(NOISE, verbose=0)
    assert expected.std(axis=0).max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["new.keras", "new.h5"])
def test_a_model_of_keras_3_that_is_called_twice_is_unchanged(tmp_path, name):
    backend.prepare(5, "float32")
    layers, pictures = keras.layers, keras.Input((48, 48, 1))
    part = keras.Sequential([layers.Input((7,)), layers.Dense(7, activation="softmax")])
    network = keras.Model(pictures, part(part(layers.Dense(7)(layers.Flatten()(pictures)))))
    network.save(tmp_path / name)
    found = outside.load(tmp_path / name, 48).predict(NOISE, verbose=0)
    np.testing.assert_allclose(found, network.predict(NOISE, verbose=0), atol=1e-6)


def test_layer_numbers_of_keras_2_13_become_consecutive(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in ("conv2d", "conv2d_2", "conv2d_10", "dense", "inner/" + outside.INNER + "/add_4"):
            file.create_group(name).attrs["old"] = name
        outside._renumber(file)
        names = {name: file[name].attrs["old"] for name in file if name != "inner"}
        assert names == {"conv2d": "conv2d", "conv2d_1": "conv2d_2", "conv2d_2": "conv2d_10", "dense": "dense"}
        assert list(file["inner"][outside.INNER]) == ["add"]


def wide(name):
    tiny().save("small.keras")
    with zipfile.ZipFile("small.keras") as archive:
        text = archive.read("config.json").replace(b'"filters": 4', b'"filters": 200000000')
    replace("small.keras", name, {"config.json": text})


def hollow(name):
    """Write a small file with a layer of 40 GB and without its weights."""
    tiny().save(name)
    with h5py.File(name, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][-1]["config"] |= {"units": 10**10}
        file.attrs["model_config"] = json.dumps(config)


def swollen(name):
    """Write a small file whose network needs 1.6 GB per picture."""
    keras.Sequential([
        keras.Input((48, 48, 1)), keras.layers.Resizing(20_000, 20_000), keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(7, activation="softmax"),
    ]).save(name)  # fmt: skip


def damaged(name):
    tiny().save("network.h5")
    with h5py.File("network.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Wonder"')


BAD = {
    "missing": ("none.h5", lambda name: None),
    "another suffix": ("network.onnx", lambda name: Path(name).write_bytes(b"x")),
    "no HDF5": ("network.h5", lambda name: Path(name).write_bytes(b"no HDF5")),
    "unknown layer": ("network.h5", damaged),
    "empty": ("network.keras", lambda name: zipfile.ZipFile(name, "w").close()),
    "weights alone": ("network.weights.h5", lambda name: tiny().save_weights(name)),
    "a folder": ("saved", lambda name: Path(name).mkdir()),
    "JSON": ("network.json", lambda name: Path(name).write_text(tiny().to_json())),
    "five outputs": ("network.keras", lambda name: tiny(outputs=5).save(name)),
    "another side": ("network.keras", lambda name: tiny(64).save(name)),
    "four channels": ("network.keras", lambda name: tiny(channels=4).save(name)),
    "no softmax": ("network.keras", lambda name: tiny(activation="linear").save(name)),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_and_networks_of_another_shape_are_refused(project, case):
    name, make = BAD[case]
    make(name)
    with pytest.raises(UserError, match=rf"{name} .*SIDE|not probabilities") as error:
        outside.probabilities(Path(name), 48, "raw")
    assert len(str(error.value)) < 400
    assert "Wonder" in str(error.value) or case != "unknown layer"  # the cause, which Keras puts last


@pytest.mark.parametrize(("make", "name"), [
    (wide, "network.keras"), (hollow, "network.h5"), pytest.param(swollen, "network.keras", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_small_file_that_needs_much_memory_or_crashes_its_reader_is_refused(project, make, name):
    make(name)
    with pytest.raises(UserError, match=r"GiB of memory|too much memory"):
        scores(name)


def test_a_missing_file_is_an_error(project):
    with pytest.raises(UserError, match=r"none\.keras does not exist"):
        outside.main("none.keras", 48, "raw", "", "")


def test_unknown_test_labels_and_an_output_file_that_is_not_json_are_errors(project):
    tiny().save("network.keras")
    Path("params.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"params\.yaml.*\.json"):
        outside.main("network.keras", 48, "raw", "", "params.yaml")
    assert Path("params.yaml").read_text() == "mine"
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(UserError, match=str(solution.PATH)):
        scores("network.keras")
