"""A released network is the trained one within half precision, with what one must know to use it."""

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


def test_packed_weights_come_back_within_half_precision():
    one, other = network(seed=1), network(seed=2)
    arrays = packed.pack(one)
    assert {path.rsplit("/", 1)[1] for path, values in arrays.items() if values.dtype == "float16"} == {"kernel"}
    packed.unpack(other, arrays)
    for wanted, found in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("case", ["another network", "more", "float64", "complex64", "nan"])
def test_weights_that_are_not_the_networks_are_refused(case):
    arrays = packed.pack(network("another" if case == "another network" else "small"))
    arrays |= {"more": np.zeros(1, "float32")} if case == "more" else {}
    if case in ("float64", "complex64", "nan"):
        arrays = {path: values * np.float16("nan") if case == "nan" else values.astype(case)
                  for path, values in arrays.items()}  # fmt: skip
    with pytest.raises(ValueError, match="weights"):
        packed.unpack(network(), arrays)


def test_scores_are_of_known_rows_and_leave_duplicates_out():
    usage = np.repeat([0, 1, 2], [4, 2, 4]).astype("uint8")
    labels = np.array([0, 1, 2, 3] + [-1] * 6, "int8")
    data = faces.Faces(np.zeros((10, 48, 48), "uint8"), labels, usage)
    truth = np.array([0, 1, 2, 3, -1, -1, 0, 1, 2, 3])
    probabilities = np.eye(7)[[0, 1, 0, 0, 0, 0, 0, 1, 2, 0]]  # wrong in rows 2, 3 and 9
    found = release.scores(lambda rows: probabilities[rows], data, truth, np.array([1, 2]), np.arange(10) == 9)
    assert {name: (score["rows"], score["accuracy"]) for name, score in found.items()} == {
        "held-out fold of Training": (2, 0.5), "PrivateTest": (4, 0.75), "PrivateTest without duplicates": (3, 1.0),
    }  # fmt: skip
    assert found["PrivateTest"]["by_class"][CLASSES[3]]["recall"] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with one trained cell, and what the later stages say of it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        small.project(folder, patch)
        training.main("one", "0", yes=True)
        small.judge()
        entry = {"folds": [0.5], "temperature": 1.5, "calibration": {}, "calibration_tempered": {},
                 "test_time_augmentation": None}  # fmt: skip
        result = {"method": "mean", "weights": {}, "members": {}, "methods": {}, "without": {}, "agreement": {},
                  "submissions": dict.fromkeys(("two", "pupil", "ensemble"), entry)}  # fmt: skip
        result["submissions"]["one"] = entry | {"folds": [0.6]}
        files.write_json(ensemble.RESULT, result)
        single = {"mean": 0.625, "deviation": 0.1, "no_duplicate_mean": 0.6, "agree": 0.5, "multiply_adds": 1}
        judged = {"paired": {}, "by_class": {}, "reliability": {}}
        files.write_json(submission.ANALYSIS, {"out of fold": judged, "single_networks": {"one": single},
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


def test_what_is_released_predicts_as_the_trained_network(project, capsys):
    settings, dealt = config.load(), folds.load(project)
    release.main("", "0")
    about, _ = packed.read(packed.find())
    cell = store.load(settings, "one", 0, project, dealt)
    found = networks.load()
    after = found.members["one"][0].probabilities(project.pixels[dealt.held_out(0)])
    np.testing.assert_allclose(after, cell.oof, atol=0.01)
    assert 0 < about.float16["largest_difference"] == pytest.approx(abs(after - cell.oof).max(), abs=5e-4)
    graph = onnxruntime.InferenceSession("released/one.onnx")
    (tempered,) = graph.run(None, {"pictures": project.pixels[:50]})
    np.testing.assert_allclose(tempered, found.probabilities(project.pixels[:50]), atol=0.01)
    own = graph.get_modelmeta().custom_metadata_map
    assert (own["sha256"], own["classes"], own["temperature"]) == (about.sha256, " ".join(CLASSES), "1.5")
    assert (about.model, about.architecture, about.temperature, about.fold) == ("one", "mini_xception", 1.5, 0)
    assert about.recipe == cell.about.plan.settings()
    held_out = about.scores["held-out fold of Training"]
    right = after.argmax(axis=1) == project.labels[dealt.held_out(0)]
    assert (held_out["rows"], held_out["accuracy"]) == (len(cell.rows), round(right.mean(), 6))
    card = Path("released/README.md").read_text()
    assert "make release NAME=one FOLD=0" in card
    assert "62.50%" in card
    assert all(f"| {name} |" in card for name in CLASSES)
    assert "released/" in capsys.readouterr().out


def test_one_network_is_released_and_the_one_before_goes(project):
    packed.FOLDER.mkdir(exist_ok=True)
    for name in ("before.safetensors", "before.onnx", "before.json", "notes.onnx"):
        (packed.FOLDER / name).write_text("{}")
    release.main("one", "0")
    assert {path.name for path in packed.FOLDER.iterdir()} == {
        "one.safetensors", "one.json", "one.onnx", "README.md", "notes.onnx",
    }  # fmt: skip
    (packed.FOLDER / "another.json").write_text("{}")
    with pytest.raises(UserError, match="make release"):
        packed.find()


def test_unknown_test_labels_leave_their_rows_out_of_the_card(project, monkeypatch):
    unknown = solution.load().assign(emotion=pd.NA)
    monkeypatch.setattr(solution, "load", lambda data: unknown)
    release.main("one", "0")
    card = Path("released/README.md").read_text()
    assert "| held-out fold of Training |" in card
    assert "PrivateTest |" not in card


def test_what_cannot_be_released_is_an_error(project, monkeypatch):
    for words in (("one", "7"), ("one", "1"), ("three", "0")):
        with pytest.raises(UserError):
            release.main(*words)
    monkeypatch.setattr(release, "LIMIT", 1000)
    with pytest.raises(UserError, match="smaller network"):
        release.main("one", "0")


def copied(folder, content=None, **changes):
    """The committed network with other weights, or other metadata."""
    source = ROOT / "released/student.safetensors"
    content = source.read_bytes() if content is None else content
    facts = {"sha256": files.sha256(content), "bytes": len(content)} | changes
    (folder / "student.safetensors").write_bytes(content)
    about = json.loads(source.with_suffix(".json").read_text())
    (folder / "student.json").write_text(json.dumps(about | facts))
    return folder / "student.json"


def refused(path, file):
    with pytest.raises(UserError, match=rf"{file} .*make release") as refusal:
        packed.read(path)
    assert len(str(refusal.value)) < 400


RECIPE = json.loads((ROOT / "released/student.json").read_text())["recipe"]


@pytest.mark.parametrize("change", [
    {"temperature": 0.0}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"temperature": "1.0"},
    {"classes": sorted(CLASSES)}, {"classes": CLASSES[:3]}, {"classes": [*CLASSES, "x", "y"]},
    {"classes": list(range(7))}, {"classes": dict.fromkeys(CLASSES, 0)}, {"architecture": "../x"}, {"architecture": 5},
    {"recipe": {"epochs": 1, "erase": 0.1}}, {"architecture": "alizadeh_same", "recipe": RECIPE | {"crop": 42}},
    {"bytes": 10**9}, {"more": 1}, {"model": "a/b"}, {"views": 10**400}, {"scores": [[1]]},
], ids=lambda change: str(change)[:40])  # fmt: skip
def test_metadata_that_is_wrong_is_an_error(tmp_path, change):
    packed.read(copied(tmp_path))
    refused(copied(tmp_path, **change), "student.json")


def test_a_pipe_in_its_place_is_an_error_that_waits_for_nobody(tmp_path):
    os.mkfifo(tmp_path / "student.json")
    refused(tmp_path / "student.json", "student.json")


@pytest.mark.parametrize("text", ["[" * 1000 + "]" * 1000, '{"a":' * 1000, "", "[]", " " * 6_000_000], ids=range(5))
def test_metadata_that_is_none_is_an_error(tmp_path, text):
    (path := copied(tmp_path)).write_text(text)
    refused(path, "student.json")


@pytest.mark.parametrize("change", [
    {"sha256": "0" * 64}, {"recipe": RECIPE | {"crop": 42}}, {"recipe": RECIPE | {"scaling": "raw"}},
    {"temperature": 0.5}, {"views": 2},
], ids=str)  # fmt: skip
def test_metadata_that_is_not_of_the_weights_is_an_error(tmp_path, change):
    refused(copied(tmp_path, **change), "student.safetensors")


def header(**tensors):
    """A .safetensors file whose weights have these types, shapes and numbers of bytes, all zero."""
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
def test_weights_that_are_damaged_or_too_large_are_an_error(tmp_path, content):
    refused(copied(tmp_path, content, bytes=99), "student.safetensors")


def test_the_committed_files_are_of_one_network_and_predict_alike(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = packed.find()
    about, weights = packed.read(path)
    card = Path("released/README.md").read_text()
    assert card == release.card(about)
    head = YAML(typ="safe").load(card.split("---\n")[1])  # as hubs read it
    (model,) = head["model-index"]
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("mit", "keras", "image-classification")
    found = {one["dataset"]["split"]: one["metrics"][0]["value"] for one in model["results"]}
    assert found == {rows: score["accuracy"] for rows, score in about.scores.items()}
    assert sum(each.size for each in weights.values()) == about.parameters
    assert all(each.stat().st_size < packed.LIMIT for each in packed.FOLDER.iterdir())
    graph = onnxruntime.InferenceSession(path.with_suffix(".onnx"))
    notes = packed.notes(about, about.temperature, about.views)
    assert graph.get_modelmeta().custom_metadata_map == notes | {"sha256": about.sha256}
    pixels = synthetic.competition(0, 14, seed=3)[0]
    (found,) = graph.run(None, {"pictures": pixels})
    network = networks.load("released", "tensorflow", "float32")
    np.testing.assert_allclose(found, network.probabilities(pixels), atol=0.005)
    without_keras = light.load()
    np.testing.assert_allclose(without_keras.probabilities(pixels), found, atol=1e-6)
    assert without_keras.probabilities(pixels[:0]).shape == (0, 7)
