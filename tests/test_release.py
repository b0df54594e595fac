"""Released networks equal the trained ones except for rounded weights; wrong and damaged release files are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import small
import tiny
from ruamel.yaml import YAML
from settings import ROOT, refuses
from test_networks import write_result

from pipeline import config, files
from pipeline.apps import light, networks, packed, release
from pipeline.cells import store, train
from pipeline.competition import CLASSES
from pipeline.data import faces, folds, synthetic

pytestmark = pytest.mark.usefixtures("started")


@pytest.mark.parametrize(("shape", "axis"), [((3, 3, 4, 8), 3), ((3, 3, 8, 1), 2), ((8, 4, 3, 3), 0)])
def test_a_kernel_is_rounded_to_8_bits_of_each_output_channel(shape, axis):
    kernel = np.random.default_rng(1).normal(size=shape).astype("float32")
    kernel[:, :, 2] = 0
    levels, scale = packed.quantised(kernel, axis)
    assert (levels.dtype, scale.size, abs(levels).max()) == ("int8", 8, 127)
    assert (abs(levels * scale - kernel) <= 0.501 * scale).all()
    np.testing.assert_array_equal(packed.quantised(levels * scale, axis)[0], levels)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="fit"):
        packed.unpack([tiny.build("small")], packed.pack([tiny.build("another")]))


def test_scores_use_only_known_labels_and_are_also_computed_without_duplicates():
    truth = np.array([0, 1, 2, 3, -1, -1, 0, 1, 2, 3])
    probabilities = np.eye(7)[[0, 1, 0, 0, 0, 0, 0, 1, 2, 0]]  # wrong in rows 2, 3 and 9
    parts = {release.HELD_OUT: [1, 2], "PublicTest": [4, 5], "PrivateTest": [6, 7, 8, 9]}
    predictions = {name: (np.array(rows), probabilities[rows]) for name, rows in parts.items()}
    scores = release.scores(predictions, truth, np.arange(10) == 9)
    assert {name: (score["rows"], score["accuracy"]) for name, score in scores.items()} == {
        release.HELD_OUT: (2, 0.5), "PrivateTest": (4, 0.75), "PrivateTest without duplicates": (3, 1.0),
    }  # fmt: skip
    assert scores["PrivateTest"]["by_class"][CLASSES[3]]["recall"] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with two trained cells, the results of later stages, and a release that replaced another one."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        small.project(folder, patch)
        for fold in "01":
            train.main("one", fold, yes=True)
        small.judge()
        write_result()
        for name in ("before.safetensors", "before.onnx", "before.json", "notes.onnx"):
            files.write(packed.FOLDER / name, b"{}")
        release.main("", "0,1")
    return folder


@pytest.fixture
def project(trained, monkeypatch):
    monkeypatch.chdir(trained)
    tiny.instead(monkeypatch)
    return faces.load()


def test_the_released_networks_predict_like_the_trained_ones(project):
    about, weights = packed.read(packed.find())
    assert {path.rsplit("/", 1)[1] for path, values in weights.items() if values.dtype == "int8"} == {"kernel"}
    assignment = folds.load(project)
    cells = [store.load(config.load(), "one", fold, project, assignment) for fold in range(2)]
    released = networks.load()
    members = zip(released.members["one"], cells, strict=True)
    oof = np.concatenate([member.probabilities(project.pixels[cell.rows]) for member, cell in members])
    expected = np.concatenate([cell.oof for cell in cells])
    np.testing.assert_allclose(oof, expected, atol=0.02)
    assert 0 < about.rounding["largest_difference"] == pytest.approx(abs(oof - expected).max(), abs=5e-4)
    graph = onnxruntime.InferenceSession("released/one.onnx")
    (calibrated,) = graph.run(None, {"pictures": project.pixels[:50]})
    np.testing.assert_allclose(calibrated, released.probabilities(project.pixels[:50]), atol=0.01)
    assert (about.model, about.architecture, about.temperature, about.folds) == ("one", "mini_xception", 1.5, (0, 1))
    assert about.recipe == cells[0].about.plan.settings()
    correct = oof.argmax(axis=1) == project.labels[np.concatenate([cell.rows for cell in cells])]
    assert about.scores[release.HELD_OUT].items() >= {"rows": len(oof), "accuracy": round(correct.mean(), 7)}.items()
    assert "make release NAME=one FOLD=0,1" in Path("released/README.md").read_text()
    names = {"one.safetensors", "one.json", "one.onnx", "README.md", "notes.onnx"}
    assert {path.name for path in packed.FOLDER.iterdir()} == names, "the previous release is replaced"


def test_unknown_untrained_and_too_large_networks_cannot_be_released(project, monkeypatch):
    for name, fold, message in (("one", "0,7", "7"), ("two", "0", "cells/two/fold0"), ("three", "0", "three")):
        refuses(message, release.main, name, fold)
    monkeypatch.setattr(release, "LIMIT", 1000)
    refuses("fewer folds", release.main, "one", "0")


(RELEASED,) = (ROOT / "released").glob("*.json")


@pytest.mark.parametrize(("ending", "change"), [
    (".json", {"temperature": float("nan")}), (".json", {"architecture": "../x"}),
    (".safetensors", {"sha256": "0" * 64}),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_invalid_metadata_and_weights_of_another_network_are_refused(tmp_path, ending, change):
    shutil.copy(RELEASED.with_suffix(".safetensors"), tmp_path)
    (tmp_path / RELEASED.name).write_text(json.dumps(json.loads(RELEASED.read_text()) | change))
    refuses(rf"{RELEASED.stem}{ending} is damaged .*make release", packed.read, tmp_path / RELEASED.name)


def test_the_committed_files_belong_together_and_predict_alike(monkeypatch):
    monkeypatch.chdir(ROOT)
    about, weights = packed.read(RELEASED)
    card = Path("released/README.md").read_text()
    assert card == release.card(about)
    without_test_labels = {release.HELD_OUT: about.scores[release.HELD_OUT]}
    assert "PrivateTest |" not in release.card(about.model_copy(update={"scores": without_test_labels}))
    (model,) = YAML(typ="safe").load(card.split("---\n")[1])["model-index"]  # as Hugging Face reads it
    accuracies = {result["dataset"]["split"]: result["metrics"][0]["value"] for result in model["results"]}
    assert accuracies == {rows: score["accuracy"] for rows, score in about.scores.items()}
    assert sum(each.size for name, each in weights.items() if not name.endswith(packed.SCALE)) == about.parameters
    assert all(each.stat().st_size <= 5_000_000 for each in packed.FOLDER.iterdir())
    graph = onnxruntime.InferenceSession(RELEASED.with_suffix(".onnx"))
    notes = packed.notes(about, about.temperature, about.views, len(about.folds))
    assert graph.get_modelmeta().custom_metadata_map == notes | {"sha256": about.sha256}
    pixels = synthetic.competition(0, 14, seed=3)[0]
    expected = networks.load("released", "tensorflow", "float32").probabilities(pixels)
    np.testing.assert_allclose(light.load().probabilities(pixels), expected, atol=0.005)
    assert light.load().probabilities(pixels[:0]).shape == (0, 7)
