"""Released networks equal the trained ones except for rounded weights; wrong and damaged release files are refused."""

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
from pipeline.evaluation import ensemble

pytestmark = pytest.mark.usefixtures("started")
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("shape", "axis"), [((3, 3, 4, 8), 3), ((3, 3, 8, 1), 2), ((8, 4, 3, 3), 0)])
def test_a_kernel_is_rounded_to_8_bits_of_each_output_channel(shape, axis):
    kernel = np.random.default_rng(1).normal(size=shape).astype("float32")
    kernel[:, :, 2] = 0
    levels, scale = packed.quantised(kernel, axis)
    assert (levels.dtype, scale.size, abs(levels).max()) == ("int8", 8, 127)
    assert (abs(levels * scale - kernel) <= 0.501 * scale).all()
    np.testing.assert_array_equal(packed.quantised(levels * scale, axis)[0], levels)


def test_weights_of_other_networks_and_those_that_are_not_finite_are_refused():
    built = [tiny.build("small"), tiny.build("small")]
    right, others = packed.pack(built), packed.pack([tiny.build("another"), tiny.build("another")])
    diverged = {path: values * np.float32("nan") for path, values in right.items()}
    without = {path: values for path, values in right.items() if not path.endswith(packed.SCALE)}
    one = packed.pack(built[:1])
    for weights, message in ((others, "fit"), (diverged, "finite"), (without, "scale"), (one, "fit")):
        with pytest.raises(ValueError, match=message):
            packed.unpack(built, weights)
    packed.unpack(built, right)


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
            training.main("one", fold, yes=True)
        small.judge()
        entry = {"folds": [0.5], "temperature": 1.5, "calibration": {}, "calibration_tempered": {},
                 "test_time_augmentation": None}  # fmt: skip
        submissions = dict.fromkeys(("two", "pupil", "ensemble"), entry) | {"one": entry | {"folds": [0.6]}}
        files.write_json(ensemble.RESULT, {"method": "mean", "weights": {}, "members": {}, "methods": {}, "without": {},
                                           "agreement": {}, "submissions": submissions})  # fmt: skip
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
    held_out = np.concatenate([cell.rows for cell in cells])
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
    correct = oof.argmax(axis=1) == project.labels[held_out]
    score = about.scores[release.HELD_OUT]
    assert (score["rows"], score["accuracy"]) == (len(held_out), round(correct.mean(), 6))
    card = Path("released/README.md").read_text()
    assert "make release NAME=one FOLD=0,1" in card


def test_a_release_replaces_the_previous_one(project):
    names = {"one.safetensors", "one.json", "one.onnx", "README.md", "notes.onnx"}
    assert {path.name for path in packed.FOLDER.iterdir()} == names


def test_unknown_untrained_and_too_large_networks_cannot_be_released(project, monkeypatch):
    for words in (("one", "0,7"), ("one", "0,0"), ("two", "0"), ("three", "0")):
        with pytest.raises(UserError):
            release.main(*words)
    monkeypatch.setattr(release, "LIMIT", 1000)
    with pytest.raises(UserError, match="fewer folds"):
        release.main("one", "0")


(RELEASED,) = (ROOT / "released").glob("*.json")
NAME, COMMITTED = RELEASED.stem, json.loads(RELEASED.read_text())
RECIPE = COMMITTED["recipe"]


def copied(folder, content=None, **changes):
    """Write the committed network with other weights, or other metadata; return the path of its JSON file."""
    content = RELEASED.with_suffix(".safetensors").read_bytes() if content is None else content
    (folder / f"{NAME}.safetensors").write_bytes(content)
    about = COMMITTED | {"sha256": files.sha256(content), "bytes": len(content)} | changes
    (path := folder / f"{NAME}.json").write_text(json.dumps(about))
    return path


def refused(path, file, cause=""):
    with pytest.raises(UserError, match=rf"{file} is damaged .*{cause}.*make release") as error:
        packed.read(path)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("change", [
    {"temperature": 0.0}, {"temperature": float("nan")}, {"classes": sorted(CLASSES)}, {"architecture": "../x"},
    {"architecture": "alizadeh_same", "recipe": RECIPE | {"crop": 42}}, {"folds": []}, {"more": 1},
], ids=lambda change: str(change)[:40])  # fmt: skip
def test_invalid_metadata_are_refused(tmp_path, change):
    packed.read(copied(tmp_path))
    refused(copied(tmp_path, **change), f"{NAME}.json")


@pytest.mark.parametrize(
    "change", [{"sha256": "0" * 64}, {"recipe": RECIPE | {"scaling": "raw"}}, {"temperature": 0.5}, {"folds": [0]}]
)
def test_metadata_that_contradict_the_weights_are_refused(tmp_path, change):
    refused(copied(tmp_path, **change), f"{NAME}.safetensors")


@pytest.mark.parametrize(("content", "cause"), [
    (b"no weights", ""), (bytes(packed.LIMIT + 1), "larger than 5,000,000 bytes"),
    (safetensors.numpy.save({"weights": np.zeros(2, "float32")}), ""),
], ids=["damaged", "too large", "without metadata"])  # fmt: skip
def test_damaged_and_too_large_weights_and_those_of_others_are_refused(tmp_path, content, cause):
    refused(copied(tmp_path, content, bytes=99), f"{NAME}.safetensors", cause)


def test_the_card_leaves_out_rows_with_unknown_labels():
    about, _ = packed.read(RELEASED)
    card = release.card(about.model_copy(update={"scores": {release.HELD_OUT: about.scores[release.HELD_OUT]}}))
    assert (f"| {release.HELD_OUT} |" in card, "PrivateTest |" in card) == (True, False)


def test_the_committed_files_belong_together_and_predict_alike(monkeypatch):
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
    assert sum(each.size for name, each in weights.items() if not name.endswith(packed.SCALE)) == about.parameters
    assert all(each.stat().st_size < packed.LIMIT for each in packed.FOLDER.iterdir())
    graph = onnxruntime.InferenceSession(path.with_suffix(".onnx"))
    notes = packed.notes(about, about.temperature, about.views, len(about.folds))
    assert graph.get_modelmeta().custom_metadata_map == notes | {"sha256": about.sha256}
    pixels = synthetic.competition(0, 14, seed=3)[0]
    predicted = light.load().probabilities(pixels)
    network = networks.load("released", "tensorflow", "float32")
    np.testing.assert_allclose(predicted, network.probabilities(pixels), atol=0.005)
    assert light.load().probabilities(pixels[:0]).shape == (0, 7)
