"""Other people's networks are read without running their code, and scored as our own submissions."""

import hashlib
import json
import zipfile
from pathlib import Path

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
from pipeline.evaluation import metrics, score
from pipeline.training import backend, machine

# The first digits of the SHA-256 of what cv2.resize (OpenCV 4.14, INTER_LINEAR) made of `noise`, by side.
OPENCV = {
    24: "be217f3109c58b67", 40: "34c3836425a8bb7a", 64: "a01a5697a64da861", 96: "c15e9c721230bc1b",
    224: "01190f401476bd0a", 227: "54f15c51386c48a1",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start(machine.choose("auto"))


@pytest.mark.parametrize("side", OPENCV)
def test_pictures_are_resized_as_opencv_does_it_to_the_bit(side):
    noise = np.random.default_rng(5).integers(0, 256, (4, 48, 48), dtype="uint8")
    assert hashlib.sha256(outside.resize(noise, side).tobytes()).hexdigest()[:16] == OPENCV[side]


def test_pictures_of_the_right_size_stay_as_they_are():
    noise = np.random.default_rng(6).integers(0, 256, (2, 48, 48), dtype="uint8")
    np.testing.assert_array_equal(outside.resize(noise, 48), noise)


def tiny(side: int | None = 48, channels: int = 1, outputs: int = 7, activation: str = "softmax") -> keras.Model:
    backend.prepare(3, "float32")
    return keras.Sequential([
        keras.layers.Input((side, side, channels)),
        keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(outputs, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 2)),
    ])  # fmt: skip


def relabelled(network: keras.Model, names: list[str]) -> keras.Model:
    """The same network with its outputs in the order of `names`."""
    kernel, bias = network.layers[-1].get_weights()
    order = [CLASSES.index(name) for name in names]
    network.layers[-1].set_weights([kernel[:, order], bias[order]])
    return network


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with drawn faces, whose test labels are known."""
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


def run(name: str, side: int = 48, scaling: str = "raw", classes: str = "", out: str = "") -> None:
    outside.main(name, side, scaling, classes, out)


def scored(*words: object) -> dict[str, object]:
    run(*words, out="found.json")
    return json.loads(Path("found.json").read_text())


@pytest.mark.parametrize("name", ["network.keras", "network.h5", "network.hdf5"])
@pytest.mark.parametrize(("side", "channels", "scaling", "factor", "offset"), [
    (48, 1, "raw", 1, 0), (64, 3, "symmetric", 1 / 127.5, -1), (40, 1, "unit", 1 / 255, 0),
])  # fmt: skip
def test_the_scores_are_those_of_the_networks_predicted(project, name, side, channels, scaling, factor, offset, capsys):
    data, labels, duplicates = project
    network = tiny(side, channels)
    network.save(name)
    found = scored(name, side, scaling)
    pictures = outside.resize(data.pixels, side)[..., None].astype("float32") * factor + offset
    predicted = np.maximum(network.predict(np.repeat(pictures, channels, axis=3), verbose=0), 1e-7)  # as fit.Predictor
    private, public = data.rows(PRIVATE), data.rows(PUBLIC)
    assert len(set(predicted[private].argmax(axis=1))) > 1
    alone = private[(duplicates["identical"][private] == 0)]
    apart = alone[(duplicates["near"][alone] == 0)]
    assert (len(alone), len(apart)) == (63, 50)
    for key, rows in (("public_accuracy", public), ("private_accuracy", private), ("private_no_duplicate", alone),
                      ("private_no_near_duplicate", apart)):  # fmt: skip
        assert found[key] == pytest.approx((predicted.argmax(axis=1) == labels)[rows].mean(), abs=1e-5)
    assert found["private_right"] == (predicted.argmax(axis=1) == labels)[private].sum()
    assert found["private_macro_f1"] == pytest.approx(metrics.macro_f1(predicted[private], labels[private]), abs=1e-5)
    assert found["private_log_loss"] == pytest.approx(
        metrics.cross_entropy(predicted[private], labels[private]), abs=1e-4
    )
    sad = private[labels[private] == CLASSES.index("sad")]
    assert found["private_recall"]["sad"] == pytest.approx((predicted[sad].argmax(axis=1) == 4).mean(), abs=1e-5)
    assert (found["side"], found["scaling"], found["classes"]) == (side, scaling, list(CLASSES))
    shown = capsys.readouterr().out
    assert "Measured on drawn faces" in shown
    assert f"{found['private_accuracy']:.2%}" in shown


def test_the_figures_are_those_that_score_gives_its_own_submissions(project):
    predicted = np.random.default_rng(1).dirichlet(np.ones(7), 140)
    truth = score.read_truth(project[0], np.zeros(0, int))
    theirs, ours = score.judge(predicted, predicted, truth), outside.judge(predicted, truth)
    assert {key: ours[key] for key in theirs if key in ours} == {
        key: value for key, value in theirs.items() if not key.startswith("oof") and "tempered" not in key
    }
    assert {"private_low", "private_no_near_duplicate_high", "private_log_loss", "rank_2013"} <= ours.keys()


@pytest.mark.parametrize("version", ["2.0", "2.2", "tf.keras 2"])
def test_a_file_of_keras_2_is_read(project, version):
    network = tiny()
    network.save("old.h5")
    convolution, pool, dense = (layer.name for layer in network.layers)
    glorot = {"class_name": "VarianceScaling",
              "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}}  # fmt: skip
    shared = {"trainable": True, "kernel_initializer": glorot, "use_bias": True,
              "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
              "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None,
              "bias_constraint": None}  # fmt: skip
    layers = [
        {"class_name": "Conv2D", "config": shared | {
            "name": convolution, "batch_input_shape": [None, 48, 48, 1], "dtype": "float32", "filters": 4,
            "kernel_size": [5, 5], "strides": [3, 3], "padding": "valid", "data_format": "channels_last",
            "dilation_rate": [1, 1], "activation": "relu"}},
        {"class_name": "GlobalMaxPooling2D", "config": {
            "name": pool, "trainable": True, "data_format": "channels_last"}},
        {"class_name": "Dense", "config": shared | {"name": dense, "units": 7, "activation": "softmax"}},
    ]  # fmt: skip
    if version == "tf.keras 2":
        first = {"name": "input", "batch_input_shape": [None, 48, 48, 1], "dtype": "float32", "sparse": False}
        layers.insert(0, {"class_name": "InputLayer", "config": first})
    config = layers if version == "2.0" else {"name": "old", "layers": layers}
    with h5py.File("old.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config}).encode()
        file.attrs["keras_version"] = b"2.0.5"
    network.save("new.keras")
    keys = ("private_accuracy", "private_log_loss", "public_recall")
    assert [scored("old.h5", 48, "unit")[key] for key in keys] == [scored("new.keras", 48, "unit")[key] for key in keys]


def test_outputs_in_another_order_are_put_right_by_their_names(project):
    names = sorted(CLASSES)
    tiny().save("ours.keras")
    relabelled(tiny(), names).save("theirs.keras")
    wanted, found = scored("ours.keras", 48, "raw"), scored("theirs.keras", 48, "raw", " ".join(names))
    assert found["classes"] == names
    assert {key for key in wanted if wanted[key] != found[key]} == {"file", "sha256", "classes"}
    assert scored("theirs.keras", 48, "raw")["private_recall"] != wanted["private_recall"]


@pytest.mark.parametrize("name", ["network.keras", "network.h5"])
def test_code_in_a_file_is_refused_and_not_run(project, name):
    network = tiny()
    network.add(keras.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1]))
    network.save(name)
    Path("ran").unlink()
    with pytest.raises(UserError, match="Lambda layer, which is code"):
        run(name)
    assert not Path("ran").exists()


@pytest.mark.parametrize(("network", "message"), [
    (lambda: tiny(outputs=5), r"gives \(None, 5\), not \(None, 7\)"),
    (lambda: tiny(64), r"takes \(None, 64, 64, 1\), not \(None, 48, 48, 1\)"),
    (lambda: tiny(channels=4), r"takes \(None, 48, 48, 4\)"),
    (lambda: tiny(activation="linear"), "let the network end in softmax or sigmoid"),
    (lambda: keras.Sequential([keras.layers.Input((2304,)), keras.layers.Dense(7)]), r"takes \(None, 2304\)"),
])  # fmt: skip
def test_a_network_of_another_form_is_refused(project, network, message):
    network().save("network.keras")
    with pytest.raises(UserError, match=message):
        run("network.keras")


def test_a_network_for_pictures_of_any_size_takes_the_side_that_is_named(project):
    tiny(None).save("any.keras")
    tiny(56).save("fixed.keras")
    assert scored("any.keras", 56, "unit")["private_log_loss"] == scored("fixed.keras", 56, "unit")["private_log_loss"]


def test_a_side_that_the_network_cannot_take_is_refused(project):
    layers = [keras.layers.Conv2D(4, 5) for _ in range(3)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7, activation="softmax")]
    keras.Sequential([keras.layers.Input((None, None, 1)), *layers, *head]).save("network.keras")
    with pytest.raises(UserError, match=r"cannot take 8 x 8 pixels .*; name the SIDE it takes"):
        run("network.keras", 8)


def test_damage_inside_of_a_file_is_refused(project):
    with zipfile.ZipFile("network.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional"}) * 20)
    content = Path("network.keras").read_bytes()
    start = 30 + len("config.json")
    Path("network.keras").write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])
    with h5py.File("network.h5", "w") as file:
        file.attrs["model_config"] = 7
    for name in ("network.keras", "network.h5"):
        with pytest.raises(UserError, match=f"{name} is not a Keras file"):
            run(name)


def test_weights_alone_are_refused(project):
    tiny().save_weights("network.weights.h5")
    with zipfile.ZipFile("network.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    for name in ("network.weights.h5", "network.keras"):
        with pytest.raises(UserError, match="holds no network"):
            run(name)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("none.h5", None, "there is no file none.h5"),
    ("", None, "there is no file"),
    ("network.onnx", b"x", "no Keras file by its name"),
    ("network.h5", b"no HDF5", "is not a Keras file"),
    ("network.keras", b"no zip", "is not a Keras file"),
])  # fmt: skip
def test_what_is_no_keras_file_is_refused(project, name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(name)


def test_a_layer_that_keras_does_not_know_is_refused(project):
    tiny().save("network.h5")
    with h5py.File("network.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Wonder"')
    with pytest.raises(UserError, match=r"Keras cannot build the network in network\.h5") as refusal:
        run("network.h5")
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("words", [
    {"classes": "angry,happy"}, {"classes": "angry disgust fear happy sad surprise surprise"}, {"out": "x.h5"},
])  # fmt: skip
def test_words_that_say_nothing_are_errors(project, words):
    with pytest.raises(UserError, match=r"must (name each of angry|end in \.json)"):
        run("x.h5", **words)


def test_test_labels_must_be_known(project):
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(UserError, match="does not know the labels of all test rows"):
        run("x.h5")


def test_nothing_is_written_where_no_file_is_named(project):
    tiny().save("network.keras")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    run("network.keras")
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_another_split_without_public_rows_is_scored_and_has_no_rank(project, capsys):
    data = faces.load()
    usage = np.where(data.usage == PUBLIC, PRIVATE, data.usage).astype("uint8")
    hidden = solution.load().assign(usage="PrivateTest")
    faces.Faces(data.pixels, data.labels, usage).save()
    solution.save(hidden)
    about = {"source": "folders", "official": False, "official_split": False, "split": "by the folders", "files": {}}
    Path("data/raw/PROVENANCE.json").write_text(json.dumps(about))
    tiny().save("some.keras")
    run("some.keras", out="found.json")
    found = json.loads(Path("found.json").read_text())
    assert (found["public_rows"], found["public_accuracy"], found["rank_2013"]) == (0, "unknown", "none")
    assert found["private_rows"] == 140
    assert set(found["public_recall"].values()) == {"unknown"}
    assert "unknown" in capsys.readouterr().out
