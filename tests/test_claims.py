"""The sources' protocols: their rows, their recipes, and what is told of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import small

from pipeline.config import Recipe
from pipeline.data import faces, solution
from pipeline.errors import UserError
from pipeline.experiments import claims, runner
from pipeline.experiments.claims import CLAIMS

USAGE = np.repeat([0, 1, 2], (80, 10, 10))


@pytest.mark.parametrize("part", [0.1, 0.2])
def test_a_random_split_takes_all_rows_apart_whatever_their_split(part):
    trained, judged = claims.split("random", part, USAGE, seed=1)
    assert len(judged) == round(100 * part)
    np.testing.assert_array_equal(np.sort(np.concatenate([trained, judged])), np.arange(100))
    assert (USAGE[trained] > 0).any()
    assert not np.array_equal(judged, claims.split("random", part, USAGE, seed=2)[1])


@pytest.mark.parametrize(("protocol", "judged"), [("official", np.arange(80, 100)), ("private", np.arange(90, 100))])
def test_the_official_splits_train_on_training(protocol, judged):
    found = claims.split(protocol, 0.0, USAGE, seed=1)
    np.testing.assert_array_equal(found[0], np.arange(80))
    np.testing.assert_array_equal(found[1], judged)


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.project(tmp_path, monkeypatch)
    data = faces.load()
    test = data.test_rows()
    solution.save(solution.table(test, data.usage[test], np.arange(len(test)) % 7))
    for name, claim in CLAIMS.items():
        monkeypatch.setitem(
            CLAIMS, name, claim.model_copy(update={"recipe": claim.recipe.model_copy(update={"batch_size": 16})})
        )


def test_a_protocol_is_run_and_not_run_again_while_nothing_changes(project, monkeypatch, capsys):
    claims.main("mini_xception", 2)
    found = json.loads(claims.RESULT.read_text())
    assert list(found) == ["mini_xception"]
    entry, printed = found["mini_xception"], capsys.readouterr().out
    shown = {
        protocol: [float(line.split("val")[1].split("%")[0]) / 100 for line in printed.splitlines()
                   if line.startswith(f"mini_xception, {protocol}") and "val" in line]
        for protocol in ("official", "private")
    }  # fmt: skip
    assert entry["theirs_here"] == {
        "epochs": 2, "trained_rows": 168, "rows": 42, "best_epoch": pytest.approx(max(shown["official"]), abs=1e-4),
        "last_epoch": pytest.approx(shown["official"][-1], abs=1e-4),
    }  # fmt: skip
    assert entry["honest"] == {
        "epochs": 2, "trained_rows": 168, "rows": 21, "best_epoch": None,
        "last_epoch": pytest.approx(shown["private"][-1], abs=1e-4),
    }  # fmt: skip
    assert entry["epochs_there"] == 110
    monkeypatch.setattr(runner, "train", lambda *_: pytest.fail("it was trained again"))
    claims.main("mini_xception", 2)
    assert json.loads(claims.RESULT.read_text()) == found
    claims.RESULT.write_text("{")
    with pytest.raises(UserError, match=r"git checkout results/claims\.json"):
        claims.main("mini_xception", None)


@pytest.mark.parametrize(("name", "protocols"), [
    ("alizadeh_valid", ["private"]), ("alizadeh_same", ["private"]), ("vgg8", ["private", "random"]),
])  # fmt: skip
def test_each_network_is_trained_by_its_protocol_and_by_the_honest_one(project, monkeypatch, name, protocols):
    ran = []

    def run(data, tasks, folder):
        ran.extend(tasks)
        return {key: runner.Result(*[np.array([0.25, 0.5, 0.375])] * 6) for key in tasks}

    monkeypatch.setattr(runner, "run", run)
    claims.main(name, 1)
    entry = json.loads(claims.RESULT.read_text())[name]
    assert ran == protocols
    assert entry["recipe"]["epochs"] == 1
    assert entry["honest"]["last_epoch"] == 0.375
    assert (entry["theirs_here"] is None) == (name == "alizadeh_same")
    if name == "alizadeh_valid":  # nothing chose its epoch
        assert entry["theirs_here"] == entry["honest"]
    if name == "vgg8":
        assert entry["theirs_here"]["best_epoch"] == 0.5


def test_without_test_labels_and_for_an_unknown_network_it_says_so(project):
    with pytest.raises(UserError, match="no source claims anything for 'resnet'"):
        claims.main("resnet", None)
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(UserError, match="does not know the labels of all test rows"):
        claims.main("", None)


def test_the_committed_results_are_read_as_they_are():
    found = runner.record(Path(__file__).parent.parent / claims.RESULT)
    assert found.keys() <= CLAIMS.keys()
    assert all(Recipe.model_validate(entry["recipe"]).epochs == entry["honest"]["epochs"] for entry in found.values()
               if entry["honest"])  # fmt: skip
