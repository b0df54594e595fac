"""A released network is the trained one: the same answers within half precision, with what one must know to use it."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from pipeline.stages import train
from ruamel.yaml import YAML

from pipeline import architectures, command, recipe
from pipeline.apps import release
from pipeline.competition import CLASSES
from pipeline.data import faces, folds, solution, synthetic
from pipeline.evaluation import audit, ensemble, submission
from pipeline.training import augment, backend, loop, machine

ROOT = Path(__file__).parent.parent
NETWORK = "small_vgg"


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start(machine.choose("auto"))


def network(name: str = NETWORK, seed: int = 1):
    backend.prepare(seed, "float32")
    return architectures.build(name)


def test_packed_weights_come_back_within_half_precision(tmp_path):
    one, other = network(seed=1), network(seed=2)
    np.savez(tmp_path / "packed.npz", **release.pack(one))
    with np.load(tmp_path / "packed.npz", allow_pickle=False) as arrays:
        release.unpack(other, dict(arrays))
    for wanted, found in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


def test_kernels_alone_lose_precision():
    kinds = {path.rsplit("/", 1)[1]: values.dtype for path, values in release.pack(network()).items()}
    assert {kind for kind, dtype in kinds.items() if dtype == "float16"} == {"kernel"}
    assert {"gamma", "moving_mean", "moving_variance", "bias"} <= set(kinds)


@pytest.mark.parametrize("name", ["small_resnet", "mini_xception"])
def test_weights_of_another_network_are_refused(name):
    with pytest.raises(command.UserError, match="not those"):
        release.unpack(network(name), release.pack(network()))


def test_scores_are_of_known_rows_and_leave_duplicates_out():
    usage = np.repeat([0, 1, 2], [4, 2, 4]).astype("uint8")
    labels = np.array([0, 1, 2, 3] + [-1] * 6, "int8")
    data = faces.Faces(np.zeros((10, 48, 48), "uint8"), labels, usage)
    truth = np.array([0, 1, 2, 3, -1, -1, 0, 1, 2, 3])
    duplicates = np.zeros(10, bool)
    duplicates[9] = True
    answers = np.eye(7)[[0, 1, 0, 0, 0, 0, 0, 1, 2, 0]]  # wrong in rows 2, 3 and 9
    found = release.scores(lambda rows: answers[rows], data, truth, np.array([1, 2]), duplicates)
    assert {name: (score["rows"], score["accuracy"]) for name, score in found.items()} == {
        "held-out fold of Training": (2, 0.5), "PrivateTest": (4, 0.75), "PrivateTest without duplicates": (3, 1.0),
    }  # fmt: skip
    assert found["PrivateTest"]["by_class"][CLASSES[3]]["recall"] == 0
    everything = release.scores(lambda rows: answers[rows], data, truth, np.array([1, 2]), np.ones(10, bool))
    assert "PrivateTest without duplicates" not in everything


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder where fold 0 of small_vgg seems to be trained."""
    monkeypatch.chdir(tmp_path)
    tiny.instead(monkeypatch)
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    document |= {"folds": [0, 1], "architectures": {NETWORK: {"crop": 40}}, "students": {}, "seed": 5}
    document["ensemble"] |= {"members": [NETWORK]}
    YAML(typ="safe").dump(document, tmp_path / "params.yaml")
    pixels, labels, usage = synthetic.competition(training=56, test=28, seed=1)
    truth, usage = labels.astype("int64"), usage.astype("uint8")
    data = faces.Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage)
    data.save()
    rows = data.rows(0)
    pd.DataFrame({"row": rows, "fold": np.arange(len(rows)) % 2}).to_csv(folds.PATH, index=False)
    solution.table(data.test_rows(), usage[data.test_rows()], truth[data.test_rows()]).to_csv(
        solution.PATH, index=False
    )
    pd.DataFrame({"row": range(len(truth)), "identical": 0, "near": 0}).to_csv(audit.TWINS, index=False)
    ensemble.RESULT.parent.mkdir()
    ensemble.RESULT.write_text(json.dumps({"submissions": {NETWORK: {"temperature": 1.5, "folds": [0.5, 0.6]}}}))
    alone = {"mean": 0.625, "deviation": 0.01, "no_duplicate_mean": 0.6, "agree": 0.8}
    submission.ANALYSIS.write_text(json.dumps({"out of fold": {}, "single_networks": {NETWORK: alone}}))
    monkeypatch.setattr(release.provenance, "read", dict)
    monkeypatch.setattr(release.provenance, "standing", lambda found: "drawn")
    cell = train.plan(data, folds.load(data)[1], NETWORK, 0, machine.choose("auto"))
    trainer = loop.Trainer(network, data.pixels, cell.settings, seed=3, steps=1)
    held_out = rows[np.arange(len(rows)) % 2 == 0]
    before = trainer.predictor.views(held_out, augment.views(cell.settings)).mean(axis=0)
    predictions = io.BytesIO()
    np.savez(predictions, rows=held_out, validation=before, test=before)
    for path in cell.paths().values():
        path.parent.mkdir(parents=True, exist_ok=True)
    trainer.network.save_weights(cell.paths()["weights"])
    cell.paths()["about"].write_text(json.dumps(cell.about()))
    cell.paths()["predictions"].write_bytes(predictions.getvalue())
    cell.paths()["history"].write_text("")
    digest = hashlib.sha256(cell.paths()["weights"].read_bytes()).hexdigest()
    timing = {"key": cell.key, "weights": digest, "seconds": 1.5, "keras": "3.1", "processor": "one"}
    cell.paths()["timing"].write_text(json.dumps(timing))
    return data, held_out, before


def test_release_writes_a_network_that_answers_as_the_trained_one(project, tmp_path, capsys):
    data, held_out, before = project
    release.main()
    assert (tmp_path / f"released/{NETWORK}.npz").stat().st_size < 5_000_000
    loaded, about = release.load()
    predictor = loop.Predictor(loop.Feed(data.pixels, recipe.read(NETWORK)), loaded)
    after = predictor.views(held_out, augment.views(recipe.read(NETWORK))).mean(axis=0)
    np.testing.assert_allclose(after, before, atol=0.01)
    assert about["float16"]["largest_difference"] == pytest.approx(abs(after - before).max(), abs=2e-5)
    assert about["classes"] == list(CLASSES)
    assert about["input"] == {"side": 40, "scaling": "unit", "contrast": "none"}
    assert about["temperature"] == 1.5
    assert about["trained_with"] == {"keras": "3.1", "processor": "one"}  # not what packs it
    card = (tmp_path / "released/README.md").read_text()
    assert f"make release NAME={NETWORK} FOLD=0" in card
    assert "An expression is not a feeling" in card
    assert all(f"| {name} |" in card for name in CLASSES)
    assert "have 62.50% of PrivateTest right on average" in card
    assert "released/" in capsys.readouterr().out


def test_unknown_test_labels_leave_their_rows_out_of_the_card(project, tmp_path):
    table = pd.read_csv(solution.PATH)
    table.assign(emotion=np.nan).to_csv(solution.PATH, index=False)
    release.main()
    card = (tmp_path / "released/README.md").read_text()
    assert "| held-out fold of Training |" in card
    assert "PrivateTest" not in card
    assert all(f"| {name} |" in card for name in CLASSES)


def test_one_network_is_released_and_the_one_before_goes(project, tmp_path):
    for name in ("vgg8.npz", "vgg8.json", "labels.json.txt", "notes.npz"):
        (tmp_path / "released").mkdir(exist_ok=True)
        (tmp_path / "released" / name).write_text("{}")
    release.main()
    there = {path.name for path in (tmp_path / "released").iterdir()}
    assert there == {f"{NETWORK}.npz", f"{NETWORK}.json", "README.md", "labels.json.txt", "notes.npz"}
    (tmp_path / "released/another.json").write_text("{}")
    with pytest.raises(command.UserError, match=r"^released/ holds 2 networks instead of one; make it with"):
        release.load()


def test_the_committed_card_is_that_of_the_committed_network(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert Path("released/README.md").read_text() == release.card(json.loads(release.find().read_text()))


def test_the_card_of_a_student_names_its_teachers():
    about = json.loads(next((ROOT / "released").glob("*.json")).read_text())
    lesson = {"teachers": ["vgg8", "small_vgg"], "taught": 0.7}
    about["mean_over_folds"] = "unknown"
    card = release.card(about | {"lesson": lesson, "fold": 3})
    assert "70 % of each label that it learned is what its teachers, vgg8, small_vgg, say on average" in card
    assert "without fold 3, too." in card
    assert "teachers" not in release.card(about | {"lesson": None})


def test_weights_that_another_release_has_put_there_are_refused(project, tmp_path):
    release.main()
    np.savez(tmp_path / f"released/{NETWORK}.npz", **release.pack(network(seed=2)))
    with pytest.raises(command.UserError, match="not those that its JSON file tells of"):
        release.load()


@pytest.mark.parametrize(("words", "message"), [
    ((NETWORK, "7"), "no fold '7'"), ((NETWORK, "1"), "not trained"), (("vgg8",), "no architecture"),
])  # fmt: skip
def test_what_cannot_be_released_is_refused(project, words, message):
    with pytest.raises(command.UserError, match=message):
        release.main(*words)


def test_too_large_a_network_is_refused(project, monkeypatch):
    monkeypatch.setattr(release, "LIMIT", 1000)
    with pytest.raises(command.UserError, match="name a smaller network"):
        release.main()


@pytest.mark.parametrize("content", [b"", b"no zip"])
def test_damaged_files_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(release, "FOLDER", tmp_path)
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(command.UserError, match=r"x cannot be read .*make release"):
        release.load()
