"""Exported files predict like the pipeline, without TensorFlow; files that differ too much are deleted."""

import json

import numpy as np
import onnxruntime
import pytest
import settings
import tiny
from settings import refuses

from pipeline import files
from pipeline.apps import export, networks
from pipeline.apps.packed import Facts
from pipeline.competition import CLASSES
from pipeline.config import Recipe
from pipeline.data import faces, synthetic
from pipeline.training import backend

pytestmark = pytest.mark.usefixtures("started")
LIMITS = {"tiny.onnx": 0.02, "tiny.tflite": 2e-3, "tiny-float16.tflite": 0.02}  # of the difference from Keras
RUN = """
import sys
import numpy as np
from pipeline.apps import export
pictures = np.load("pictures.npy")
for path in export.FOLDER.glob("*.[ot]*"):
    predict = export.runtime(path)
    np.save(f"{path}.npy", np.concatenate([predict(pictures[:1]), predict(pictures[1:])]))
assert not {"tensorflow", "keras"} & {*sys.modules}
"""


PIXELS = synthetic.competition(0, 16, seed=3)[0]


def network(temperature, **recipe):
    """Return two tiny networks whose mean predictions are confident and differ between pictures."""
    built = []
    for seed in (4, 5):
        backend.prepare(seed, "float32")
        built.append(tiny.build())
        dense = built[-1].layers[-1]
        dense.kernel.assign(dense.kernel * (0.25 if recipe.get("scaling") == "raw" else 30))
    facts = Facts(model="tiny", architecture="small_vgg", seed=5, recipe=Recipe(epochs=1, **recipe),
                  precision="float32")  # fmt: skip
    return networks.Network({"tiny": [networks.Member(each, facts) for each in built]}, temperature)


@pytest.mark.parametrize(("contrast", "crop", "scaling"), [("histogram", 42, "raw"), ("local", 41, "symmetric")])
def test_the_graph_predicts_like_the_pipeline(contrast, crop, scaling):
    expected = network(0.8, contrast=contrast, crop=crop, scaling=scaling, tta_shift=1, tta_zoom=0.1)
    found = np.asarray(export.build_graph(expected)(PIXELS))
    assert found.std(axis=0).max() > 0.01
    np.testing.assert_allclose(found, expected.probabilities(PIXELS), atol=5e-3 if contrast == "local" else 1e-5)


@pytest.fixture
def project(stand, monkeypatch):
    """A folder in which every loaded network is a tiny one, and the arguments of these calls."""
    loaded, calls = network(1.25, contrast="local", crop=42), []
    monkeypatch.setattr(networks, "load", lambda *arguments: calls.append(arguments) or loaded)
    return loaded, calls


def test_the_files_run_without_tensorflow_and_predict_like_keras(project):
    loaded, calls = project
    export.main("", "")
    assert calls == [("released", "tensorflow", "float32")]
    assert {path.name for path in export.FOLDER.iterdir()} == {*LIMITS, "tiny.json"}
    np.save("pictures.npy", PIXELS)
    settings.python(RUN)
    about = json.loads((export.FOLDER / "tiny.json").read_text())
    for name, limit in LIMITS.items():
        predicted = np.load(export.FOLDER / f"{name}.npy")
        np.testing.assert_allclose(predicted, loaded.probabilities(PIXELS), atol=limit)
        assert about["checked"][name]["largest_difference"] < limit
    facts = {"temperature": "1.25", "contrast": "local", "crop": "42", "classes": " ".join(CLASSES)}
    assert about.items() >= facts.items()
    graph = onnxruntime.InferenceSession(export.FOLDER / "tiny.onnx")
    assert graph.get_modelmeta().custom_metadata_map.items() <= about.items()
    ends = [(end.name, end.shape) for end in (*graph.get_inputs(), *graph.get_outputs())]
    assert ends == [("pictures", ["n", 48, 48]), ("probabilities", ["n", 7])]


@pytest.mark.parametrize("error", [np.nan, 0.01])
def test_files_that_differ_too_much_on_the_test_rows_are_deleted(project, monkeypatch, error):
    settings.write(models={"tiny": {"architecture": "small_vgg", "epochs": 1}}, ensemble={"members": ["tiny"]})
    usage = np.repeat([0, 1, 2], [10, 12, 10]).astype("uint8")
    faces.Faces(PIXELS, np.where(usage == 0, 3, -1).astype("int8"), usage).save()
    files.write(export.FOLDER / "tiny-fold1.onnx", b"an older file")
    monkeypatch.setattr(export, "write", lambda model, path, about: path.write_bytes(b""))
    wrong = project[0].probabilities(PIXELS[10:])
    wrong[0, wrong[0].argmax()] += error  # every label stays equal
    monkeypatch.setattr(export, "runtime", lambda path: lambda pictures: wrong)
    refuses(r"tiny-fold1\.onnx is deleted", export.main, "tiny", "1")
    assert project[1] == [("tiny-1", "tensorflow", "float32")]
    assert not list(export.FOLDER.iterdir())
    refuses("FOLD=1", export.main, "", "1")
