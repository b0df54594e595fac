"""The rules that make a score worth believing, a test each. What is tested elsewhere too is so with real DVC.

Labels of test rows reach nothing but audit and score: test_pipeline.py
(test_scrambled_test_labels_change_nothing_but_solution_audit_and_score) and test_contract.py
(test_only_audit_and_score_may_see_the_test_labels).
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from pipeline.stages import train
from ruamel.yaml import YAML

from pipeline import params
from pipeline.data import folds, synthetic
from pipeline.data.faces import Faces, picture_groups
from pipeline.evaluation import ensemble
from pipeline.training import cells, loop

ROOT = Path(__file__).parent.parent
MEMBERS = ("mini_xception", "small_resnet")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with drawn faces, some of them duplicates, in three folds. The test stands in it."""
    monkeypatch.chdir(tmp_path)
    document = YAML(typ="safe").load((ROOT / "pipeline/demo.yaml").read_text())
    document["architectures"] = {name: {"epochs": 1, "batch_size": 8} for name in MEMBERS}
    document["students"] = {}
    tiny.instead(monkeypatch)
    document["ensemble"] = {"method": "weights", "members": list(MEMBERS)}
    with open(params.PATH, "w") as file:
        YAML().dump(document, file)
    params.document.cache_clear()
    pixels, labels, usage = synthetic.competition(training=168, test=21, seed=3)
    pixels[5], pixels[11] = pixels[40], pixels[170]  # a duplicate inside Training, and one among the test rows
    data = Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage.astype("uint8"))
    data.save()
    folds.main()
    return data


@pytest.mark.parametrize("choice", folds.TWINS)
def test_every_row_is_predicted_once_by_a_network_that_saw_neither_it_nor_its_duplicate(project, monkeypatch, choice):
    text = params.PATH.read_text()
    params.PATH.write_text(text.replace("duplicates: keep", f"duplicates: {choice}"))
    params.document.cache_clear()
    folds.main()
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(trainer, train_rows, train_labels, validation_rows, *others):
        seen.append((train_rows, validation_rows))
        return loop.Progress([dict.fromkeys(loop.HISTORY, 1.0)], 1.0)

    monkeypatch.setattr(loop, "fit", watch)
    data, rows, fold_of, cells = train.planned()
    groups = picture_groups(data.pixels)
    for cell in cells[: len(folds.numbers())]:  # of one network
        contents = train.train(data, rows, fold_of, cell, cell.checkpoint().absolute())
        trained, held_out = seen[-1]
        saved = np.load(io.BytesIO(contents["predictions"]))
        np.testing.assert_array_equal(saved["rows"], held_out)
        assert not set(groups[trained]) & set(groups[held_out])
        assert set(data.usage[trained]) == set(data.usage[held_out]) == {0}
        assert set(trained) | set(held_out) == set(folds.kept(data, choice))
    every = np.concatenate([held_out for _, held_out in seen])
    np.testing.assert_array_equal(np.sort(every), folds.kept(data, choice))
    if choice == "drop_test_duplicates":
        assert not set(groups[every]) & set(groups[data.test_rows()])


def test_held_out_labels_steer_nothing_that_is_trained(project):
    """Neither an epoch, nor the rate, nor the weights: so the out-of-fold score is not optimistic."""
    data, rows, fold_of, cells = train.planned()
    cell = cells[0]
    results = []
    for shift in (0, 3):
        labels = data.labels.copy()
        held_out = rows[fold_of == cell.fold]
        labels[held_out] = (labels[held_out] + shift) % 7
        changed = Faces(data.pixels, labels, data.usage)
        results.append(train.train(changed, rows, fold_of, cell, Path(f"a/b/{shift}.npz").absolute()))
    for kind in ("weights", "predictions"):
        assert results[0][kind] == results[1][kind]
    first, second = (pd.read_csv(io.BytesIO(result["history"])) for result in results)
    assert first[["learning_rate", "loss", "accuracy"]].equals(second[["learning_rate", "loss", "accuracy"]])
    assert not first["val_loss"].equals(second["val_loss"])


def predictions(data, seed, test_seed):
    """Write what all cells could have predicted: validation rows by `seed`, test rows by `test_seed`."""
    rows, fold = folds.load(data)
    for member, name in enumerate(MEMBERS):
        for number in folds.numbers():
            path = cells.path("predictions", name, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            held_out = rows[fold == number]
            chances = [
                np.random.default_rng((base, member, number)).dirichlet(np.ones(7), count).astype("float32")
                for base, count in ((seed, len(held_out)), (test_seed, 42))
            ]
            chances[0] = (0.7 * chances[0] + 0.3 * np.eye(7)[data.labels[held_out]]).astype("float32")  # some skill
            chances[1] = (0.1 * chances[1] + 0.9 / 7).astype("float32")  # folds that agree, by and large
            np.savez(path, rows=held_out, validation=chances[0], test=chances[1], validation_plain=chances[0],
                     test_plain=chances[1])  # fmt: skip


def without_expectations(found):
    """What results/ensemble.json says of the labelled rows alone: what test pictures have a part in is left out."""
    if isinstance(found, dict):
        return {
            key: without_expectations(each) for key, each in found.items() if key not in ("expected_brier", "bagged")
        }
    return found


@pytest.mark.parametrize("method", ["mean", "geometric", "weights", "bagged"])
def test_weights_and_temperatures_come_from_out_of_fold_rows_alone(project, method):
    """But for "bagged" weights, in which what networks say of test pictures has a part. Test labels have in none."""
    text = params.PATH.read_text()
    params.PATH.write_text(text.replace("method: weights", f"method: {method}"))
    params.document.cache_clear()
    found = []
    for test_seed in (1, 2):
        predictions(project, seed=5, test_seed=test_seed)
        ensemble.main()
        found.append(without_expectations(json.loads(ensemble.RESULT.read_text())))
    assert (found[0] == found[1]) == (method != "bagged")
    one, two = ({name: each["submissions"][name] for name in MEMBERS} for each in found)
    assert one == two
    if method in ("mean", "geometric"):
        return
    predictions(project, seed=6, test_seed=2)
    ensemble.main()
    other = json.loads(ensemble.RESULT.read_text())
    assert other["weights"] != found[0]["weights"]
    assert other["submissions"]["small_resnet"]["temperature"] != found[0]["submissions"]["small_resnet"]["temperature"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_folds_labels_cannot_change_the_temperature_that_it_is_judged_at(number):
    chance = np.random.default_rng(0)
    oof, labels, fold = chance.dirichlet(np.ones(7), 90), chance.integers(0, 7, 90), np.arange(90) % 3
    scrambled = np.where(fold == number, (labels + 1) % 7, labels)
    before, after = (ensemble.tempered(oof, each, fold)[fold == number] for each in (labels, scrambled))
    np.testing.assert_array_equal(before, after)
    others = [ensemble.tempered(oof, each, fold)[fold != number] for each in (labels, scrambled)]
    assert not np.array_equal(*others)
