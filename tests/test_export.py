"""What is exported answers as the pipeline does, without TensorFlow; what does not is deleted."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from pipeline.stages import train
from ruamel.yaml import YAML

from pipeline import architectures, command, params, recipe
from pipeline.apps import export, release
from pipeline.competition import CLASSES
from pipeline.data import faces, synthetic
from pipeline.training import backend, loop

ROOT = Path(__file__).parent.parent
DEFAULTS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["train"]
FILES = ["tiny.onnx", "tiny.tflite", "tiny-float16.tflite"]
RUN = """
import sys
import numpy as np
pictures = np.load("pictures.npy")
for count in (1, len(pictures)):
    part = pictures[:count]
    if sys.argv[1].endswith(".onnx"):
        import onnxruntime
        answer = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"pictures": part})[0]
    else:
        from ai_edge_litert.interpreter import Interpreter
        network = Interpreter(sys.argv[1])
        network.resize_tensor_input(network.get_input_details()[0]["index"], part.shape)
        network.allocate_tensors()
        network.set_tensor(network.get_input_details()[0]["index"], part)
        network.invoke()
        answer = network.get_tensor(network.get_output_details()[0]["index"])
    np.save(f"answer{count}.npy", answer)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start("tensorflow")


def tiny(name: str = "tiny") -> keras.Model:
    """A network for pictures of any size, whose answers are sure of themselves and differ from picture to picture."""
    pictures = keras.layers.Input((None, None, 1))
    x = keras.layers.Conv2D(8, 5, strides=2, activation="relu")(pictures)
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.BatchNormalization()(x))
    spread = keras.initializers.RandomNormal(stddev=3.0)
    return keras.Model(pictures, keras.layers.Dense(7, activation="softmax", kernel_initializer=spread)(x), name=name)


def settings(**changes: object) -> recipe.Recipe:
    return params.parse("recipe", recipe.Recipe, DEFAULTS | changes)


def expected(network: keras.Model, pixels: np.ndarray, wanted: recipe.Recipe) -> np.ndarray:
    return loop.Predictor(loop.Feed(pixels, wanted), network).probabilities(np.arange(len(pixels)))


@pytest.fixture(scope="module")
def pixels():
    return synthetic.competition(0, 16, seed=3)[0]


@pytest.mark.parametrize("contrast", ["none", "histogram", "local"])
@pytest.mark.parametrize(("crop", "scaling"), [(48, "unit"), (42, "symmetric"), (41, "raw")])
def test_the_graph_does_all_that_the_pipeline_does_to_a_picture(pixels, contrast, crop, scaling):
    backend.prepare(1, "float32")
    network, wanted = tiny(), settings(contrast=contrast, crop=crop, scaling=scaling)
    if scaling == "raw":
        network.set_weights([values / 128 for values in network.get_weights()[:1]] + network.get_weights()[1:])
    answers = np.asarray(export.whole(network, wanted)(pixels[..., None]))
    assert answers.std(axis=0).max() > 0.01
    np.testing.assert_allclose(answers, expected(network, pixels, wanted), atol=2e-3 if contrast == "local" else 1e-5)


def test_seven_sigmoids_come_out_as_probabilities(pixels):
    pictures = keras.layers.Input((48, 48, 1))
    outputs = keras.layers.Dense(7, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(pictures))
    answers = np.asarray(export.whole(keras.Model(pictures, outputs), settings())(pixels[..., None]))
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a released network, whose name is tiny, and the one of its fold 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(architectures, "build", tiny)
    monkeypatch.setattr(architectures, "names", lambda: ["tiny"])
    monkeypatch.setattr(export, "ROUNDS", 1)
    about = {"architecture": "tiny", "classes": list(CLASSES), "fold": 0, "seed": 5}
    for folder in ("released", "artifacts/models/tiny"):
        (tmp_path / folder).mkdir(parents=True)
    backend.prepare(1, "float32")
    np.savez("released/tiny.npz", **release.pack(tiny()))
    digest = hashlib.sha256(Path("released/tiny.npz").read_bytes()).hexdigest()
    released = about | {
        "sha256": digest,
        "temperature": 1.25,
        "recipe": settings(contrast="local", crop=42).model_dump(),
    }
    Path("released/tiny.json").write_text(json.dumps(released))
    backend.prepare(2, "float32")
    tiny().save_weights("artifacts/models/tiny/fold1.weights.h5")
    trained = train.Cell("tiny", 1, 5, "tensorflow", settings(scaling="symmetric")).about()
    Path("artifacts/models/tiny/fold1.json").write_text(json.dumps(trained))
    return tmp_path


def test_the_files_run_without_tensorflow_and_answer_as_keras(project, pixels, capsys):
    export.main()
    shown = capsys.readouterr().out
    assert "420 pictures: drawn faces" in shown
    assert "refused" not in shown
    network, about = release.load()
    wanted = expected(network, pixels, settings(**about["recipe"]))
    np.save("pictures.npy", pixels[..., None])
    text = json.loads((export.FOLDER / "tiny.json").read_text())
    for name in FILES:
        assert name in shown
        subprocess.run([sys.executable, "-c", RUN, str(export.FOLDER / name)], check=True, capture_output=True)
        near = 0.02 if "float16" in name else 2e-3
        for count in (1, len(pixels)):
            np.testing.assert_allclose(np.load(f"answer{count}.npy"), wanted[:count], atol=near)
        assert text["checked"][name]["largest_difference"] < near
    assert sorted(path.name for path in export.FOLDER.iterdir()) == sorted([*FILES, "tiny.json"])
    inside = {entry.key: json.loads(entry.value) for entry in onnx.load(export.FOLDER / "tiny.onnx").metadata_props}
    assert inside.items() <= text.items()
    assert inside["classes"] == list(CLASSES)
    assert inside["temperature"] == 1.25
    assert inside["inside"] == {"contrast": "local", "crop": 42, "scaling": "unit"}
    assert "uint8 [n, 48, 48, 1]" in inside["input"]


def test_a_trained_network_is_checked_on_the_test_rows(project, pixels, capsys):
    usage = np.repeat([0, 1, 2], [10, 12, 10]).astype("uint8")
    labels = np.where(usage == 0, 3, -1).astype("int8")
    faces.Faces(pixels, labels, usage).save()
    Path("results").mkdir()
    Path("results/ensemble.json").write_text(json.dumps({"submissions": {"tiny": {"temperature": 0.75}}}))
    export.main("tiny", "1")
    assert "22 pictures: the test rows of data/faces.npz" in capsys.readouterr().out
    text = json.loads((export.FOLDER / "tiny-fold1.json").read_text())
    assert (text["fold"], text["temperature"], text["inside"]["scaling"]) == (1, 0.75, "symmetric")
    assert (export.FOLDER / "tiny-fold1.onnx").exists()


def test_a_file_that_is_too_far_from_keras_is_deleted_and_so_is_an_older_one(project, monkeypatch, capsys):
    export.FOLDER.mkdir(parents=True)
    (export.FOLDER / "tiny.onnx").write_text("an older one")
    right = export.write
    broken = export.whole(tiny(), settings(scaling="symmetric"))
    monkeypatch.setattr(
        export, "write", lambda model, path, about: right(broken if path.suffix == ".onnx" else model, path, about)
    )
    with pytest.raises(command.UserError, match=r"deleted: tiny\.onnx$"):
        export.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if "refused" in line] == ["tiny.onnx"]
    assert sorted(path.name for path in export.FOLDER.iterdir()) == sorted([*FILES[1:], "tiny.json"])
    assert set(json.loads((export.FOLDER / "tiny.json").read_text())["checked"]) == {"against", *FILES[1:]}


def test_answers_that_are_no_numbers_are_refused(project, monkeypatch):
    monkeypatch.setattr(export, "write", lambda model, path, about: path.write_bytes(b""))
    monkeypatch.setattr(export, "runtime", lambda path: lambda pictures: np.full((len(pictures), 7), np.nan, "float32"))
    with pytest.raises(command.UserError, match="too far from Keras"):
        export.main()
    assert [path.name for path in export.FOLDER.iterdir()] == ["tiny.json"]


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "ai_edge_litert" else object())
    with pytest.raises(command.UserError, match=r"pip install ai-edge-litert$"):
        export.main()


def test_what_is_not_there_or_not_named_is_told(project):
    Path("released/tiny.json").unlink()
    with pytest.raises(
        command.UserError, match="released/ holds 0 networks instead of one; make it with: make release"
    ):
        export.main()
    with pytest.raises(command.UserError, match="FOLD=1: of which network"):
        export.main("", "1")
    with pytest.raises(command.UserError, match=r"artifacts/models/tiny/fold0\.json cannot be used"):
        export.main("tiny")


@pytest.mark.parametrize(("ending", "content"), [
    ("json", None), ("json", b"{"), ("json", b"[]"), ("json", b"{}"), ("weights.h5", None), ("weights.h5", b"no HDF5"),
])  # fmt: skip
def test_a_trained_network_that_cannot_be_read_is_refused(project, ending, content):
    path = Path(f"artifacts/models/tiny/fold1.{ending}")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(command.UserError, match=r"fold1\.(json|weights\.h5) cannot be used"):
        export.main("tiny", "1")


def test_weights_of_another_network_are_refused(project):
    keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)]).save_weights(
        "artifacts/models/tiny/fold1.weights.h5"
    )
    with pytest.raises(command.UserError, match="cannot be used"):
        export.main("tiny", "1")
