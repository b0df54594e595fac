"""What is exported predicts as the pipeline does, without TensorFlow; what does not is deleted."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest

from pipeline import files
from pipeline.apps import export, networks
from pipeline.apps.packed import Facts
from pipeline.competition import CLASSES
from pipeline.config import Recipe
from pipeline.data import faces, synthetic
from pipeline.errors import UserError
from pipeline.training import backend

FILES = ["tiny.onnx", "tiny.tflite", "tiny-float16.tflite"]
RUN = """
import sys
import numpy as np
pictures = np.load("pictures.npy")
for count in (1, len(pictures)):
    part = pictures[:count]
    if sys.argv[1].endswith(".onnx"):
        import onnxruntime
        found = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"pictures": part})[0]
    else:
        from ai_edge_litert.interpreter import Interpreter
        network = Interpreter(sys.argv[1])
        network.resize_tensor_input(network.get_input_details()[0]["index"], part.shape)
        network.allocate_tensors()
        network.set_tensor(network.get_input_details()[0]["index"], part)
        network.invoke()
        found = network.get_tensor(network.get_output_details()[0]["index"])
    np.save(f"found{count}.npy", found)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start("tensorflow")


def tiny() -> keras.Model:
    """A network for pictures of any size, whose predictions are sure of themselves and differ between pictures."""
    pictures = keras.layers.Input((None, None, 1))
    x = keras.layers.Conv2D(8, 5, strides=2, activation="relu")(pictures)
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.BatchNormalization()(x))
    spread = keras.initializers.RandomNormal(stddev=3.0)
    return keras.Model(pictures, keras.layers.Dense(7, activation="softmax", kernel_initializer=spread)(x))


def member(network: keras.Model, **recipe: object) -> networks.Member:
    return networks.Member(network, Facts(model="tiny", architecture="small_vgg", fold=0, seed=5,
                                          recipe=Recipe(epochs=1, **recipe), precision="float32"))  # fmt: skip


@pytest.fixture(scope="module")
def pixels():
    return synthetic.competition(0, 16, seed=3)[0]


@pytest.mark.parametrize("contrast", ["none", "histogram", "local"])
@pytest.mark.parametrize(("crop", "scaling"), [(48, "unit"), (42, "symmetric"), (41, "raw")])
def test_the_graph_does_all_that_the_pipeline_does_to_a_picture(pixels, contrast, crop, scaling):
    backend.prepare(1, "float32")
    network = tiny()
    if scaling == "raw":
        network.set_weights([values / 128 for values in network.get_weights()[:1]] + network.get_weights()[1:])
    one = member(network, contrast=contrast, crop=crop, scaling=scaling)
    found = np.asarray(export.whole(network, one.facts.recipe)(pixels[..., None]))
    assert found.std(axis=0).max() > 0.01
    near = 2e-3 if contrast == "local" else 1e-5
    np.testing.assert_allclose(found, one.probabilities(pixels, one.views[:1]), atol=near)


def test_seven_sigmoids_come_out_as_probabilities(pixels):
    pictures = keras.layers.Input((48, 48, 1))
    outputs = keras.layers.Dense(7, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(pictures))
    found = np.asarray(export.whole(keras.Model(pictures, outputs), Recipe(epochs=1))(pixels[..., None]))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder in which every network that is asked for is a tiny one."""
    monkeypatch.chdir(tmp_path)
    backend.prepare(1, "float32")
    one = member(tiny(), contrast="local", crop=42)
    asked = []
    monkeypatch.setattr(networks, "load", lambda *words: asked.append(words) or networks.Network(
        {"tiny": [one]}, [1.0], "mean", [1.0], 1.25))  # fmt: skip
    return one, asked


def test_the_files_run_without_tensorflow_and_predict_as_keras(project, pixels, capsys):
    one, asked = project
    export.main("", "")
    assert asked == [("released", "tensorflow", "float32")]
    shown = capsys.readouterr().out
    assert "420 pictures: drawn faces" in shown
    assert "refused" not in shown
    wanted = one.probabilities(pixels, one.views[:1])
    np.save("pictures.npy", pixels[..., None])
    text = json.loads((export.FOLDER / "tiny.json").read_text())
    for name in FILES:
        assert name in shown
        subprocess.run([sys.executable, "-c", RUN, str(export.FOLDER / name)], check=True, capture_output=True)
        near = 0.02 if "float16" in name else 2e-3
        for count in (1, len(pixels)):
            np.testing.assert_allclose(np.load(f"found{count}.npy"), wanted[:count], atol=near)
        assert text["checked"][name]["largest_difference"] < near
    assert sorted(path.name for path in export.FOLDER.iterdir()) == sorted([*FILES, "tiny.json"])
    inside = {entry.key: json.loads(entry.value) for entry in onnx.load(export.FOLDER / "tiny.onnx").metadata_props}
    assert {key: inside[key] for key in ("model", "classes", "temperature", "inside")} == {
        "model": "tiny", "classes": list(CLASSES), "temperature": 1.25,
        "inside": {"contrast": "local", "crop": 42, "scaling": "unit"},
    }  # fmt: skip
    assert inside["input"] == text["input"]


def test_a_trained_network_is_checked_on_the_test_rows(project, pixels, capsys):
    usage = np.repeat([0, 1, 2], [10, 12, 10]).astype("uint8")
    faces.Faces(pixels, np.where(usage == 0, 3, -1).astype("int8"), usage).save()
    export.main("tiny", "1")
    assert project[1] == [("tiny-1", "tensorflow", "float32")]
    assert "22 pictures: the test rows of data/faces.npz" in capsys.readouterr().out
    assert {path.name for path in export.FOLDER.glob("tiny-fold1*")} == {f"tiny-fold1{ending}" for ending in
                                                                           (".json", *export.LIMITS)}  # fmt: skip


def test_a_file_that_is_too_far_from_keras_is_deleted_and_so_is_an_older_one(project, monkeypatch, capsys):
    files.write(export.FOLDER / "tiny.onnx", b"an older one")
    right = export.write
    broken = export.whole(tiny(), Recipe(epochs=1, scaling="symmetric"))
    monkeypatch.setattr(
        export, "write", lambda model, path, about: right(broken if path.suffix == ".onnx" else model, path, about)
    )
    with pytest.raises(UserError, match=r"deleted: tiny\.onnx$"):
        export.main("", "")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if "refused" in line] == ["tiny.onnx"]
    assert sorted(path.name for path in export.FOLDER.iterdir()) == sorted([*FILES[1:], "tiny.json"])
    assert set(json.loads((export.FOLDER / "tiny.json").read_text())["checked"]) == {"against", *FILES[1:]}


def test_predictions_that_are_no_numbers_are_refused(project, monkeypatch):
    monkeypatch.setattr(export, "write", lambda model, path, about: path.write_bytes(b""))
    monkeypatch.setattr(export, "runtime", lambda path: lambda pictures: np.full((len(pictures), 7), np.nan, "float32"))
    with pytest.raises(UserError, match="too far from Keras"):
        export.main("", "")
    assert [path.name for path in export.FOLDER.iterdir()] == ["tiny.json"]


def test_what_is_missing_is_named(project, monkeypatch):
    with pytest.raises(UserError, match="FOLD=1: of which model"):
        export.main("", "1")
    with pytest.raises(UserError, match="cannot be exported"):
        export.contrasted(np.zeros((1, 48, 48, 1)), "another")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "ai_edge_litert" else object())
    with pytest.raises(UserError, match=r"pip install ai-edge-litert$"):
        export.main("", "")
