"""The speedrun: what it trains on, what it tells, and that it goes on where it was stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small

from pipeline import config, files
from pipeline.apps import networks
from pipeline.competition import PRIVATE
from pipeline.data import faces, solution
from pipeline.errors import UserError
from pipeline.evaluation import board, score, submission
from pipeline.evaluation.score import Truth
from pipeline.experiments import runner, speedrun
from pipeline.training import executors

SECTION = {"model": "one", "networks": 2, "seeds": [5, 6], "override": {"epochs": 1}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.project(tmp_path, monkeypatch, speedrun=SECTION)
    data = faces.load()
    test = data.test_rows()
    solution.save(solution.table(test, data.usage[test], np.arange(len(test)) % 7))
    duplicates = {"row": range(len(data.usage)), "identical": 0, "near": 0}
    pd.DataFrame(duplicates).to_csv("data/duplicates.csv", index=False)
    files.write_json(Path("data/raw/PROVENANCE.json"), {"source": "synthetic", "official": False, "files": {}})
    return data


@pytest.fixture
def trained(monkeypatch):
    """The trainings that are started."""
    found = []
    results = executors.results

    def watched(work, data, tasks, *rest):
        found.extend(task for task, *_ in tasks.values())
        return results(work, data, tasks, *rest)

    monkeypatch.setattr(executors, "results", watched)
    return found


def test_every_seed_is_told_with_mean_and_deviation(project, capsys, trained):
    speedrun.main(1, every=True)
    assert [len(task.rows) for task in trained] == [168] * 4  # all Training rows
    assert all(task.labels[project.test_rows()].max() == -1 for task in trained)  # no test label
    assert len({task.seed for task in trained}) == 4
    found = json.loads(speedrun.RESULT.read_text())
    assert (list(found["by_seed"]), found["networks"], found["recipe"]["epochs"]) == (["5", "6"], 2, 1)
    for split in ("public_accuracy", "private_accuracy"):
        values = found[split]["values"]
        assert values == [found["by_seed"][seed][split] for seed in ("5", "6")]
        assert found[split]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert f"{found['private_accuracy']['mean']:.2%}" in capsys.readouterr().out


def test_one_seed_leaves_a_submission_and_its_networks_and_the_record_alone(project, capsys, trained):
    speedrun.main(1)
    assert len(trained) == 2
    assert not speedrun.RESULT.exists()
    (entry,) = json.loads(speedrun.OWN.read_text())["by_seed"].values()
    guesses = submission.read(speedrun.SUBMISSION, len(project.test_rows()))
    private = project.usage[project.test_rows()] == PRIVATE
    labels = np.arange(len(guesses)) % 7
    assert (guesses == labels)[private].mean() == pytest.approx(entry["private_accuracy"], abs=1e-5)
    network = networks.load("speedrun")
    assert len(network.members["speedrun"]) == 2
    again = network.probabilities(project.pixels[project.test_rows()])
    assert (again.argmax(axis=1) == guesses).mean() > 0.95  # probabilities are kept in half precision
    assert f"{entry['private_accuracy']:.2%}" in capsys.readouterr().out
    trained.clear()
    speedrun.main(1)
    assert trained == []


def test_the_record_is_shown_on_demand(project, capsys):
    with pytest.raises(UserError, match=r"results/speedrun\.json is missing"):
        speedrun.show_record()
    shutil.copy(Path(__file__).parent.parent / speedrun.RESULT, speedrun.RESULT)
    speedrun.show_record()
    assert "71.38% ± 0.39" in capsys.readouterr().out


def test_what_is_trained_is_not_trained_again(project, trained):
    speedrun.main(1, every=True)
    found = json.loads(speedrun.RESULT.read_text())
    trained.clear()
    small.write(speedrun=SECTION | {"seeds": [6, 7]})
    speedrun.main(1, every=True)
    assert len(trained) == 2  # the new seed's
    after = json.loads(speedrun.RESULT.read_text())["by_seed"]
    assert list(after) == ["6", "7"]
    assert after["6"] == found["by_seed"]["6"]
    assert not list(Path("artifacts/speedrun/states").glob("*.npz"))


@pytest.mark.parametrize("changed", ["recipe", "data", "code"])
def test_what_decides_the_scores_asks_for_new_ones(project, monkeypatch, changed):
    before = keys(project)
    if changed == "recipe":
        small.write(speedrun=SECTION | {"override": {"epochs": 1, "batch_size": 7}})
    elif changed == "data":
        project = faces.Faces(project.pixels[:, ::-1].copy(), project.labels, project.usage)
    else:
        monkeypatch.setattr(runner.plan, "code", lambda named: {"training.loop.fit": "0"})
    assert not before & keys(project)


def keys(project):
    planned = speedrun.plan(config.load(), project)
    return {task.key(project) for tasks in planned.values() for task in tasks.values()}


def test_a_seed_and_a_network_stay_when_the_next_one_fails(project, monkeypatch, trained):
    train = runner.train

    def failing(data, task, *rest):
        if task.name == "seed 6, network 2 of 2":
            raise UserError("the disk is full")
        return train(data, task, *rest)

    monkeypatch.setattr(runner, "train", failing)
    with pytest.raises(UserError, match="the disk is full"):
        speedrun.main(1, every=True)
    assert not speedrun.RESULT.exists()
    monkeypatch.setattr(runner, "train", train)
    trained.clear()
    speedrun.main(1, every=True)
    assert [task.name for task in trained] == ["seed 6, network 2 of 2"]


@pytest.mark.parametrize(("jobs", "minutes"), [(1, 9.0), (2, 6.0), (3, 3.0)])
def test_minutes_are_the_slowest_networks_as_often_as_they_follow_each_other(jobs, minutes):
    labels = np.arange(42) % 7
    truth = Truth(labels, np.repeat([1, 2], 21), (np.arange(42) == 21).astype(int), np.zeros(42, int), "drawn")
    same = np.eye(7, dtype="float16")[np.zeros(42, int)]
    results = [
        runner.Result(same, np.zeros(1), np.array(1), np.array(50.0 * number), np.array(10.0 * number),
                      np.array(json.dumps({"jobs": jobs})))
        for number in (1, 2, 3)
    ]  # fmt: skip
    entry = speedrun.judge(results, truth)
    assert entry["minutes"] == minutes
    assert entry["private_accuracy"] == pytest.approx(3 / 21, abs=1e-5)  # one class, of seven alike in number
    assert entry["private_low"] < 3 / 21 < entry["private_high"]
    alone = next(value for key, value in entry.items() if key.startswith("private_no_duplicate"))
    assert alone == pytest.approx(2 / 20, abs=1e-5)
    assert [about["jobs"] for about in entry["trained_with"]] == [jobs]


def test_means_are_over_the_seeds():
    entry = {"public_accuracy": 0.5, "private_accuracy": 0.25, "private_low": 0.1, "private_high": 0.4,
             board.SEED_SCORES[2]: "unknown", "minutes": 10.0}  # fmt: skip
    found = speedrun.summary({"1": entry, "2": entry | {"private_accuracy": 0.75, "minutes": 11.0}})
    assert found["minutes"] == 10.5
    assert "50.00% ± 35.36 " in speedrun.show(found)
    assert found["private_accuracy"] == {"mean": 0.5, "deviation": 0.353553, "values": [0.25, 0.75]}


def test_without_a_section_or_test_labels_it_says_so(project, monkeypatch):
    small.write()
    with pytest.raises(UserError, match="section speedrun"):
        speedrun.main(1, every=True)
    small.write(speedrun=SECTION)
    monkeypatch.setattr(solution, "load", lambda *_: pd.DataFrame(
        {"row": project.test_rows(), "emotion": pd.array([pd.NA] * len(project.test_rows()), dtype="Int64")}
    ))  # fmt: skip
    with pytest.raises(UserError, match="labels of all test rows"):
        speedrun.main(1, every=True)


def test_the_committed_results_are_read_as_they_are():
    root = Path(__file__).parent.parent
    found = json.loads((root / speedrun.RESULT).read_text())
    assert set(board.SEED_SCORES) <= found.keys()
    assert runner.record(root / speedrun.RESULT) == found
    assert config.Recipe.model_validate(found["recipe"]).epochs == 25
    assert score.UNKNOWN not in str(speedrun.show(found))
