"""A released network equals the trained one within half precision; wrong and damaged release files are refused."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import small
import tiny
from ruamel.yaml import YAML

from pipeline import config, files
from pipeline.apps import light, networks, packed, release
from pipeline.cells import store
from pipeline.cells import train as training
from pipeline.competition import CLASSES
from pipeline.data import faces, folds, solution, synthetic
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, submission
from pipeline.training import backend

pytestmark = pytest.mark.usefixtures("started")
ROOT = Path(__file__).parent.parent


def network(name="small", seed=1):
    backend.prepare(seed, "float32")
    return tiny.build(name)


def test_unpacked_weights_equal_the_packed_ones_within_half_precision():
    source, target = network(seed=1), network(seed=2)
    arrays = packed.pack(source)
    assert {path.rsplit("/", 1)[1] for path, values in arrays.items() if values.dtype == "float16"} == {"kernel"}
    packed.unpack(target, arrays)
    for expected, found in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("change", [
    lambda arrays: packed.pack(network("another")), lambda arrays: arrays | {"more": np.zeros(1, "float32")},
    lambda arrays: {path: values.astype("float64") for path, values in arrays.items()},
    lambda arrays: {path: values.astype("complex64") for path, values in arrays.items()},
    lambda arrays: {path: values * np.float16("nan") for path, values in arrays.items()},
], ids=["another network", "more", "float64", "complex64", "nan"])  # fmt: skip
def test_weights_of_another_shape_or_type_are_refused(change):
    with pytest.raises(ValueError, match="weights"):
        packed.unpack(network(), change(packed.pack(network())))


def test_scores_use_only_known_labels_and_are_also_computed_without_duplicates():
    usage = np.repeat([0, 1, 2], [4, 2, 4]).astype("uint8")
    labels = np.array([0, 1, 2, 3] + [-1] * 6, "int8")
    data = faces.Faces(np.zeros((10, 48, 48), "uint8"), labels, usage)
    truth = np.array([0, 1, 2, 3, -1, -1, 0, 1, 2, 3])
    probabilities = np.eye(7)[[0, 1, 0, 0, 0, 0, 0, 1, 2, 0]]  # wrong in rows 2, 3 and 9
    scores = release.scores(lambda rows: probabilities[rows], data, truth, np.array([1, 2]), np.arange(10) == 9)
    assert {name: (score["rows"], score["accuracy"]) for name, score in scores.items()} == {
        "held-out fold of Training": (2, 0.5), "PrivateTest": (4, 0.75), "PrivateTest without duplicates": (3, 1.0),
    }  # fmt: skip
    assert scores["PrivateTest"]["by_class"][CLASSES[3]]["recall"] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with one trained cell, and the results of later stages."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        small.project(folder, patch)
        training.main("one", "0", yes=True)
        small.judge()
        entry = {"folds": [0.5], "temperature": 1.5, "calibration": {}, "calibration_tempered": {},
                 "test_time_augmentation": None}  # fmt: skip
        submissions = dict.fromkeys(("two", "pupil", "ensemble"), entry) | {"one": entry | {"folds": [0.6]}}
        files.write_json(ensemble.RESULT, {"method": "mean", "weights": {}, "members": {}, "methods": {}, "without": {},
                                           "agreement": {}, "submissions": submissions})  # fmt: skip
        single = {"mean": 0.625, "deviation": 0.1, "no_duplicate_mean": 0.6, "agree": 0.5, "multiply_adds": 1}
        scores = {"paired": {}, "by_class": {}, "reliability": {}}
        files.write_json(submission.ANALYSIS, {"out of fold": scores, "single_networks": {"one": single},
                                               "trained_with": []})  # fmt: skip
    return folder


@pytest.fixture
def project(trained, monkeypatch):
    monkeypatch.chdir(trained)
    tiny.instead(monkeypatch)
    for path in packed.FOLDER.glob("*"):
        path.unlink()
    config.load.cache_clear()
    return faces.load()


def test_the_released_network_predicts_like_the_trained_one(project):
    release.main("", "0")
    about, _ = packed.read(packed.find())
    assignment = folds.load(project)
    cell = store.load(config.load(), "one", 0, project, assignment)
    released = networks.load()
    oof = released.members["one"][0].probabilities(project.pixels[assignment.held_out(0)])
    np.testing.assert_allclose(oof, cell.oof, atol=0.01)
    assert 0 < about.float16["largest_difference"] == pytest.approx(abs(oof - cell.oof).max(), abs=5e-4)
    graph = onnxruntime.InferenceSession("released/one.onnx")
    (calibrated,) = graph.run(None, {"pictures": project.pixels[:50]})
    np.testing.assert_allclose(calibrated, released.probabilities(project.pixels[:50]), atol=0.01)
    metadata = graph.get_modelmeta().custom_metadata_map
    assert (metadata["sha256"], metadata["temperature"]) == (about.sha256, "1.5")
    assert (about.model, about.architecture, about.temperature, about.fold) == ("one", "mini_xception", 1.5, 0)
    assert about.recipe == cell.about.plan.settings()
    held_out = about.scores["held-out fold of Training"]
    correct = oof.argmax(axis=1) == project.labels[assignment.held_out(0)]
    assert (held_out["rows"], held_out["accuracy"]) == (len(cell.rows), round(correct.mean(), 6))
    card = Path("released/README.md").read_text()
    for text in ("make release NAME=one FOLD=0", "62.50%", *(f"| {name} |" for name in CLASSES)):
        assert text in card


def test_a_release_replaces_the_previous_one(project):
    packed.FOLDER.mkdir(exist_ok=True)
    for name in ("before.safetensors", "before.onnx", "before.json", "notes.onnx"):
        (packed.FOLDER / name).write_text("{}")
    release.main("one", "0")
    names = {"one.safetensors", "one.json", "one.onnx", "README.md", "notes.onnx"}
    assert {path.name for path in packed.FOLDER.iterdir()} == names
    (packed.FOLDER / "another.json").write_text("{}")
    with pytest.raises(UserError, match="make release"):
        packed.find()


def test_the_card_leaves_out_rows_with_unknown_labels(project, monkeypatch):
    unknown = solution.load().assign(emotion=pd.NA)
    monkeypatch.setattr(solution, "load", lambda data: unknown)
    release.main("one", "0")
    card = Path("released/README.md").read_text()
    assert ("| held-out fold of Training |" in card, "PrivateTest |" in card) == (True, False)


def test_unknown_untrained_and_too_large_networks_cannot_be_released(project, monkeypatch):
    for words in (("one", "7"), ("one", "1"), ("three", "0")):
        with pytest.raises(UserError):
            release.main(*words)
    monkeypatch.setattr(release, "LIMIT", 1000)
    with pytest.raises(UserError, match="smaller network"):
        release.main("one", "0")


COMMITTED = json.loads((ROOT / "released/student.json").read_text())
RECIPE = COMMITTED["recipe"]


def copied(folder, content=None, **changes):
    """Write the committed network with other weights, or other metadata; return the path of its JSON file."""
    content = (ROOT / "released/student.safetensors").read_bytes() if content is None else content
    (folder / "student.safetensors").write_bytes(content)
    about = COMMITTED | {"sha256": files.sha256(content), "bytes": len(content)} | changes
    (path := folder / "student.json").write_text(json.dumps(about))
    return path


def refused(path, file):
    with pytest.raises(UserError, match=rf"{file} .*make release") as error:
        packed.read(path)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("change", [
    {"temperature": 0.0}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"temperature": "1.0"},
    {"classes": sorted(CLASSES)}, {"classes": list(range(7))}, {"architecture": "../x"}, {"architecture": 5},
    {"recipe": {"epochs": 1, "erase": 0.1}}, {"architecture": "alizadeh_same", "recipe": RECIPE | {"crop": 42}},
    {"bytes": 10**9}, {"more": 1}, {"model": "a/b"}, {"views": 10**400}, {"scores": [[1]]},
], ids=lambda change: str(change)[:40])  # fmt: skip
def test_invalid_metadata_are_refused(tmp_path, change):
    packed.read(copied(tmp_path))
    refused(copied(tmp_path, **change), "student.json")


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "student.json")
    refused(tmp_path / "student.json", "student.json")


@pytest.mark.parametrize("text", ["[" * 1000 + "]" * 1000, '{"a":' * 1000, "", "[]", " " * 6_000_000], ids=range(5))
def test_malformed_metadata_are_refused(tmp_path, text):
    (path := copied(tmp_path)).write_text(text)
    refused(path, "student.json")


@pytest.mark.parametrize("change", [
    {"sha256": "0" * 64}, {"recipe": RECIPE | {"crop": 42}}, {"recipe": RECIPE | {"scaling": "raw"}},
    {"temperature": 0.5}, {"views": 2},
], ids=str)  # fmt: skip
def test_metadata_that_contradict_the_weights_are_refused(tmp_path, change):
    refused(copied(tmp_path, **change), "student.safetensors")


def header(**tensors):
    """Return a .safetensors file of zeros with these types, shapes and sizes in bytes."""
    start, about = 0, {}
    for name, (kind, shape, size) in tensors.items():
        about[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, start := start + size]}
    text = json.dumps(about).encode()
    return len(text).to_bytes(8, "little") + text + bytes(min(start, 100))


@pytest.mark.parametrize("content", [
    b"", b"no weights", b"\xff" * 99, bytes(6_000_000), header(a=("F32", [10**12], 4 * 10**12)),
    header(a=("F32", [2**62, 8], 0)), header(a=("S4", [2], 8)), header(a=("BF16", [2], 4)), header(a=("F32", [2], 8)),
    (8).to_bytes(8, "little") + b"[" * 8,
], ids=lambda content: str(content[-30:]))  # fmt: skip
def test_damaged_and_too_large_weights_are_refused(tmp_path, content):
    refused(copied(tmp_path, content, bytes=99), "student.safetensors")


def test_the_committed_files_belong_to_one_network_and_predict_alike(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = packed.find()
    about, weights = packed.read(path)
    card = Path("released/README.md").read_text()
    assert card == release.card(about)
    head = YAML(typ="safe").load(card.split("---\n")[1])  # as Hugging Face reads it
    (model,) = head["model-index"]
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("mit", "keras", "image-classification")
    accuracies = {result["dataset"]["split"]: result["metrics"][0]["value"] for result in model["results"]}
    assert accuracies == {rows: score["accuracy"] for rows, score in about.scores.items()}
    assert sum(each.size for each in weights.values()) == about.parameters
    assert all(each.stat().st_size < packed.LIMIT for each in packed.FOLDER.iterdir())
    graph = onnxruntime.InferenceSession(path.with_suffix(".onnx"))
    notes = packed.notes(about, about.temperature, about.views)
    assert graph.get_modelmeta().custom_metadata_map == notes | {"sha256": about.sha256}
    pixels = synthetic.competition(0, 14, seed=3)[0]
    predicted = light.load().probabilities(pixels)
    network = networks.load("released", "tensorflow", "float32")
    np.testing.assert_allclose(predicted, network.probabilities(pixels), atol=0.005)
    assert light.load().probabilities(pixels[:0]).shape == (0, 7)
