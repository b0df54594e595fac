"""Other people's networks are read without running their code, and scored as our own submissions."""

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

from pipeline.apps import outside
from pipeline.competition import CLASSES, PRIVATE, PUBLIC
from pipeline.data import faces, solution, synthetic
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.training import backend, machine


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start(machine.choose("auto"))


def tiny(side: int | None = 48, channels: int = 1, outputs: int = 7, activation: str = "softmax") -> keras.Model:
    backend.prepare(3, "float32")
    return keras.Sequential([
        keras.layers.Input((side, side, channels)),
        keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(outputs, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 2)),
    ])  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with drawn faces, whose test labels are known: the faces, all labels, and the duplicates."""
    monkeypatch.chdir(tmp_path)
    small.write()
    pixels, labels, usage = synthetic.competition(training=14, test=70, seed=2)
    usage = usage.astype("uint8")
    data = faces.Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage)
    data.save()
    test = data.test_rows()
    solution.table(test, usage[test], labels[test]).to_csv(solution.PATH, index=False)
    duplicates = pd.DataFrame({"row": range(len(labels)), "identical": 0, "near": 0})
    duplicates.loc[data.rows(PRIVATE)[:7], "identical"] = 1
    duplicates.loc[data.rows(PRIVATE)[5:20], "near"] = 1
    duplicates.to_csv("data/duplicates.csv", index=False)
    Path("data/raw").mkdir()
    Path("data/raw/PROVENANCE.json").write_text(json.dumps({"source": "synthetic", "official": False, "files": {}}))
    return data, labels, duplicates


def scored(name: str, side: int = 48, scaling: str = "raw", classes: str = "") -> dict[str, object]:
    outside.main(name, side, scaling, classes, "found.json")
    return json.loads(Path("found.json").read_text())


@pytest.mark.parametrize(("name", "side", "channels", "scaling", "factor", "offset"), [
    ("network.keras", 48, 1, "raw", 1, 0), ("network.h5", 64, 3, "symmetric", 1 / 127.5, -1),
    ("network.hdf5", 40, 1, "unit", 1 / 255, 0),
])  # fmt: skip
def test_the_scores_are_those_of_the_networks_predicted(project, name, side, channels, scaling, factor, offset, capsys):
    data, labels, duplicates = project
    network = tiny(side, channels)
    network.save(name)
    found = scored(name, side, scaling)
    resized = np.stack([cv2.resize(pixels, (side, side)) for pixels in data.pixels])
    pictures = np.repeat(resized[..., None].astype("float32") * factor + offset, channels, axis=3)
    predicted = np.maximum(network.predict(pictures, verbose=0), 1e-7)
    private, public = data.rows(PRIVATE), data.rows(PUBLIC)
    assert len(set(predicted[private].argmax(axis=1))) > 1
    alone = private[(duplicates["identical"][private] == 0)]
    apart = alone[(duplicates["near"][alone] == 0)]
    for key, rows in (("public_accuracy", public), ("private_accuracy", private), ("private_no_duplicate", alone),
                      ("private_no_near_duplicate", apart)):  # fmt: skip
        assert found[key] == pytest.approx((predicted.argmax(axis=1) == labels)[rows].mean(), abs=1e-5)
    entropy = metrics.cross_entropy(predicted[private], labels[private])
    assert found["private_log_loss"] == pytest.approx(entropy, abs=1e-4)
    assert {"private_low", "private_macro_f1", "rank_2013"} <= found.keys()
    assert not [key for key in found if key.startswith("oof")]
    assert (found["side"], found["scaling"], found["classes"]) == (side, scaling, list(CLASSES))
    assert "drawn faces" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["2.0", "2.2", "tf.keras 2"])
def test_a_file_of_keras_2_is_read(project, version):
    network = tiny()
    network.save("old.h5")
    convolution, pool, dense = (layer.name for layer in network.layers)
    initializers = {"kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0, "seed": None}},
                    "bias_initializer": {"class_name": "Zeros", "config": {}}}  # fmt: skip
    layers = [
        {"class_name": "Conv2D", "config": initializers | {
            "name": convolution, "batch_input_shape": [None, 48, 48, 1], "dtype": "float32", "filters": 4,
            "kernel_size": [5, 5], "strides": [3, 3], "data_format": "channels_last", "activation": "relu"}},
        {"class_name": "GlobalMaxPooling2D", "config": {"name": pool, "data_format": "channels_last"}},
        {"class_name": "Dense", "config": initializers | {"name": dense, "units": 7, "activation": "softmax"}},
    ]  # fmt: skip
    if version == "tf.keras 2":
        first = {"name": "input", "batch_input_shape": [None, 48, 48, 1], "dtype": "float32", "sparse": False}
        layers.insert(0, {"class_name": "InputLayer", "config": first})
    config = layers if version == "2.0" else {"name": "old", "layers": layers}
    with h5py.File("old.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config}).encode()
        file.attrs["keras_version"] = b"2.0.5"
    network.save("new.keras")
    old, new = scored("old.h5", 48, "unit"), scored("new.keras", 48, "unit")
    assert {key for key in new if old[key] != new[key]} == {"file", "sha256"}


def test_outputs_in_another_order_are_put_right_by_their_names(project):
    names, network = sorted(CLASSES), tiny()
    network.save("ours.keras")
    kernel, bias = network.layers[-1].get_weights()
    order = [CLASSES.index(name) for name in names]
    network.layers[-1].set_weights([kernel[:, order], bias[order]])
    network.save("theirs.keras")
    wanted, found = scored("ours.keras"), scored("theirs.keras", 48, "raw", " ".join(names))
    assert {key for key in wanted if wanted[key] != found[key]} == {"file", "sha256", "classes"}
    with pytest.raises(UserError, match="CLASSES"):
        scored("ours.keras", classes="angry,happy")


@pytest.mark.parametrize("name", ["network.keras", "network.h5"])
def test_code_in_a_file_is_refused_and_not_run(project, name):
    network = tiny()
    network.add(keras.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1]))
    network.save(name)
    Path("ran").unlink()
    with pytest.raises(UserError, match="Lambda"):
        scored(name)
    assert not Path("ran").exists()


def damaged(name: str) -> None:
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
    "five outputs": ("network.keras", lambda name: tiny(outputs=5).save(name)),
    "another side": ("network.keras", lambda name: tiny(64).save(name)),
    "four channels": ("network.keras", lambda name: tiny(channels=4).save(name)),
    "no softmax": ("network.keras", lambda name: tiny(activation="linear").save(name)),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_network_of_this_form_is_refused_by_its_name(project, case):
    name, make = BAD[case]
    make(name)
    with pytest.raises(UserError, match=rf"{name} .*SIDE|no probabilities") as refusal:
        scored(name)
    assert len(str(refusal.value)) < 400


def test_test_labels_must_be_known(project):
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(UserError, match=str(solution.PATH)):
        scored("x.h5")
