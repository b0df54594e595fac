"""A released network equals the trained one within half precision; wrong and damaged release files are refused."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import small
import tiny
from ruamel.yaml import YAML

from pipeline import config, files
from pipeline.apps import light, networks, packed, release
from pipeline.cells import store
from pipeline.cells import train as training
from pipeline.competition import CLASSES
from pipeline.data import faces, folds, synthetic
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, submission

pytestmark = pytest.mark.usefixtures("started")
ROOT = Path(__file__).parent.parent


def test_weights_of_another_network_and_those_that_are_not_finite_are_refused():
    network = tiny.build("small")
    diverged = {path: values * np.float16("nan") for path, values in packed.pack(network).items()}
    for weights, message in ((packed.pack(tiny.build("another")), "do not fit"), (diverged, "not finite")):
        with pytest.raises(ValueError, match=message):
            packed.unpack(network, weights)


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
    """A project with one trained cell, the results of later stages, and a release that replaced another one."""
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
        for name in ("before.safetensors", "before.onnx", "before.json", "notes.onnx"):
            files.write(packed.FOLDER / name, b"{}")
        release.main("", "0")
    return folder


@pytest.fixture
def project(trained, monkeypatch):
    monkeypatch.chdir(trained)
    tiny.instead(monkeypatch)
    return faces.load()


def test_the_released_network_predicts_like_the_trained_one(project):
    about, weights = packed.read(packed.find())
    assert {path.rsplit("/", 1)[1] for path, values in weights.items() if values.dtype == "float16"} == {"kernel"}
    assignment = folds.load(project)
    cell = store.load(config.load(), "one", 0, project, assignment)
    released = networks.load()
    held_out = assignment.held_out(0)
    oof = released.members["one"][0].probabilities(project.pixels[held_out])
    np.testing.assert_allclose(oof, cell.oof, atol=0.01)
    assert 0 < about.float16["largest_difference"] == pytest.approx(abs(oof - cell.oof).max(), abs=5e-4)
    graph = onnxruntime.InferenceSession("released/one.onnx")
    (calibrated,) = graph.run(None, {"pictures": project.pixels[:50]})
    np.testing.assert_allclose(calibrated, released.probabilities(project.pixels[:50]), atol=0.01)
    assert (about.model, about.architecture, about.temperature, about.fold) == ("one", "mini_xception", 1.5, 0)
    assert about.recipe == cell.about.plan.settings()
    correct = oof.argmax(axis=1) == project.labels[held_out]
    score = about.scores["held-out fold of Training"]
    assert (score["rows"], score["accuracy"]) == (len(held_out), round(correct.mean(), 6))
    card = Path("released/README.md").read_text()
    assert ("make release NAME=one FOLD=0" in card, "62.50%" in card) == (True, True)


def test_a_release_replaces_the_previous_one(project):
    names = {"one.safetensors", "one.json", "one.onnx", "README.md", "notes.onnx"}
    assert {path.name for path in packed.FOLDER.iterdir()} == names


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


def refused(path, file, cause=""):
    with pytest.raises(UserError, match=rf"{file} is damaged .*{cause}.*make release") as error:
        packed.read(path)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("change", [
    {"temperature": 0.0}, {"temperature": float("nan")}, {"classes": sorted(CLASSES)}, {"architecture": "../x"},
    {"architecture": "alizadeh_same", "recipe": RECIPE | {"crop": 42}}, {"more": 1},
], ids=lambda change: str(change)[:40])  # fmt: skip
def test_invalid_metadata_are_refused(tmp_path, change):
    packed.read(copied(tmp_path))
    refused(copied(tmp_path, **change), "student.json")


@pytest.mark.parametrize(
    "change", [{"sha256": "0" * 64}, {"recipe": RECIPE | {"scaling": "raw"}}, {"temperature": 0.5}]
)
def test_metadata_that_contradict_the_weights_are_refused(tmp_path, change):
    refused(copied(tmp_path, **change), "student.safetensors")


@pytest.mark.parametrize(("content", "cause"), [
    (b"no weights", ""), (bytes(packed.LIMIT + 1), "larger than 5,000,000 bytes"),
    (safetensors.numpy.save({"weights": np.zeros(2, "float32")}), ""),
], ids=["damaged", "too large", "without metadata"])  # fmt: skip
def test_damaged_and_too_large_weights_and_those_of_others_are_refused(tmp_path, content, cause):
    refused(copied(tmp_path, content, bytes=99), "student.safetensors", cause)


def test_the_card_leaves_out_rows_with_unknown_labels():
    about, _ = packed.read(ROOT / "released/student.json")
    known = {"held-out fold of Training": about.scores["held-out fold of Training"]}
    card = release.card(about.model_copy(update={"scores": known, "mean_over_folds": "unknown"}))
    assert ("| held-out fold of Training |" in card, "PrivateTest |" in card) == (True, False)


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
