"""The sources' protocols: their rows, their recipes, and what is told of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import small

from pipeline.config import Recipe
from pipeline.data import solution
from pipeline.errors import UserError
from pipeline.experiments import claims, runner
from pipeline.experiments.claims import CLAIMS

USAGE = np.repeat([0, 1, 2], (80, 10, 10))


def test_splits_are_those_of_the_protocols():
    for part in (0.1, 0.2):
        trained, judged = claims.split("random", part, USAGE, seed=1)
        assert len(judged) == round(100 * part)
        np.testing.assert_array_equal(np.sort(np.concatenate([trained, judged])), np.arange(100))
        assert (USAGE[trained] > 0).any()
        assert not np.array_equal(judged, claims.split("random", part, USAGE, seed=2)[1])
    for protocol, first in (("official", 80), ("private", 90)):
        trained, judged = claims.split(protocol, 0.0, USAGE, seed=1)
        assert (trained.tolist(), judged.tolist()) == ([*range(80)], [*range(first, 100)])


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.project(tmp_path, monkeypatch)
    small.judge()
    for name, claim in CLAIMS.items():
        recipe = claim.recipe.model_copy(update={"batch_size": 16})
        monkeypatch.setitem(CLAIMS, name, claim.model_copy(update={"recipe": recipe}))


def test_a_protocol_is_run_and_not_run_again_while_nothing_changes(project, monkeypatch, capsys):
    claims.main("mini_xception", 2)
    found = json.loads(claims.RESULT.read_text())
    assert list(found) == ["mini_xception"]
    entry, printed = found["mini_xception"], capsys.readouterr().out
    for key, protocol, rows in (("theirs_here", "official", 42), ("honest", "private", 21)):
        shown = [float(line.split("val")[1].split("%")[0]) / 100 for line in printed.splitlines()
                 if line.startswith(f"mini_xception, {protocol}") and "val" in line]  # fmt: skip
        best = pytest.approx(max(shown), abs=1e-4) if protocol == "official" else None
        assert entry[key] == {"epochs": 2, "trained_rows": 168, "rows": rows, "best_epoch": best,
                              "last_epoch": pytest.approx(shown[-1], abs=1e-4)}  # fmt: skip
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
    found = runner.entries(Path(__file__).parent.parent / claims.RESULT)
    assert found.keys() <= CLAIMS.keys()
    assert all(Recipe.model_validate(entry["recipe"]).epochs == entry["honest"]["epochs"] for entry in found.values()
               if entry["honest"])  # fmt: skip
