"""Whole runs with other seeds, and what is told of them."""

import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest
import small

from pipeline import config
from pipeline.errors import UserError
from pipeline.experiments import seeds


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.project(tmp_path, monkeypatch)
    for name in ("pipeline", "data/raw"):
        (tmp_path / name).mkdir()
    for name in ("data/solution.csv", "data/duplicates.csv"):
        (tmp_path / name).write_text("")
    return tmp_path


def table(**accuracies):
    return pd.DataFrame(
        {"name": name, **dict.fromkeys(seeds.SCORES, value), "private_no_duplicate": "unknown"}
        for name, value in accuracies.items()
    )


def test_mean_and_deviation_by_hand(project):
    found = seeds.summary({1: table(a=0.5, b=0.25), 2: table(a=0.6, b=0.25), 5: table(a=0.7, b=0.25)})
    assert found["seeds"] == [1, 2, 5]
    assert found["params"] == {key: value for key, value in small.DOCUMENT.items() if key != "seed"}
    assert list(found["submissions"]) == ["a", "b"]
    assert found["submissions"]["a"]["oof_accuracy"] == {"mean": 0.6, "deviation": 0.1, "values": [0.5, 0.6, 0.7]}
    assert found["submissions"]["b"]["private_accuracy"]["deviation"] == 0
    assert "private_no_duplicate" not in found["submissions"]["a"], "what is unknown has no mean"


def test_every_model_of_a_run_has_another_seed(project):
    seeds.build(project / "seeds/9", 9)
    assert (project / "seeds/9/data/faces.npz").resolve() == project / "data/faces.npz"
    settings = config.parse(config.read(project / "seeds/9/params.yaml"))
    assert {name: settings.seed_of(name) for name in settings.names} == {"one": 9, "two": 10, "pupil": 9}


def test_a_run_does_all_that_the_graph_does_and_stops_where_that_fails(project, monkeypatch):
    ran, failing = [], []

    def run(words, cwd, check):
        ran.append(words[3:])
        table(a=0.5).to_csv(cwd / "scores.csv")
        return SimpleNamespace(returncode=int(words[3:] in failing))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(seeds.submission, "TABLE", "scores.csv")
    seeds.main([2, 1])
    assert ran[: len(ran) // 2] == ran[len(ran) // 2 :]
    verbs = [" ".join(words) for words in ran[: len(ran) // 2]]
    assert verbs[:2] + verbs[-2:] == ["folds", "plan", "ensemble", "score"]
    assert verbs.index("train two 1 --yes") < verbs.index("soft-targets pupil") < verbs.index("train pupil 0 --yes")
    assert seeds.RESULT.exists()
    failing.append(["plan"])
    with pytest.raises(UserError, match="plan failed in seeds/1/"):
        seeds.main([1, 2])


def test_what_cannot_be_used_or_is_missing_is_named(project):
    for numbers in ([1], [1, 1], [1, 2, 1]):
        with pytest.raises(UserError, match="two or more different seeds"):
            seeds.main(numbers)
    (project / "data/duplicates.csv").unlink()
    with pytest.raises(UserError, match=r"data/duplicates\.csv is missing"):
        seeds.main([1, 2])
