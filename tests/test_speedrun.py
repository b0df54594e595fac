"""The speedrun: what it trains on, what it tells, and that it goes on where it was stopped."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from pipeline.stages import check
from ruamel.yaml import YAML

from pipeline import params, recipe
from pipeline.data import faces, solution, synthetic
from pipeline.errors import UserError
from pipeline.evaluation import audit
from pipeline.experiments import speedrun
from pipeline.training import executors

ROOT = Path(__file__).parent.parent
SECTION = {"network": "mini_xception", "networks": 2, "seeds": [5, 6], "recipe": {"epochs": 1, "batch_size": 8}}


def set_section(**changes):
    document = YAML(typ="safe").load((ROOT / "pipeline/demo.yaml").read_text())
    document["speedrun"] = SECTION | changes
    with open(params.PATH, "w") as file:
        YAML().dump(document, file)
    params.document.cache_clear()


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, labels, usage = synthetic.competition(training=56, test=14, seed=1)
    faces.Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage.astype("uint8")).save()
    test = np.flatnonzero(usage)
    solution.table(test, usage[test], labels[test]).to_csv(solution.PATH, index=False)
    duplicates = {"row": range(len(usage)), "identical": [0] * 83 + [1], "near": 0}
    pd.DataFrame(duplicates).to_csv(audit.TWINS, index=False)
    set_section()
    tiny.instead(monkeypatch)
    return tmp_path


def ready():
    """The networks of seed 5, and what `speedrun.run` wants beside."""
    settings, own = recipe.speedrun()
    data = faces.load()
    rows = data.rows(0)
    speedrun.FOLDER.mkdir(parents=True, exist_ok=True)
    truth = solution.join(data.labels, solution.load())
    duplicates = (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy()
    return speedrun.plan(settings, own, data, rows)[5], data, rows, truth, duplicates


@pytest.fixture
def trained_on(monkeypatch):
    """How many rows each training was given, and how many of them it was to leave out."""
    found = []
    results = executors.results

    def watched(work, data, tasks, *rest):
        found.extend((len(rows), int((fold_of == cell.fold).sum())) for rows, fold_of, cell, *_ in tasks.values())
        return results(work, data, tasks, *rest)

    monkeypatch.setattr(executors, "results", watched)
    return found


def test_every_seed_is_told_with_mean_and_deviation(project, capsys, monkeypatch, trained_on):
    speedrun.main()
    assert trained_on == [(56, 0)] * 4  # all Training rows, and nothing else
    found = json.loads(speedrun.RESULT.read_text())
    assert (list(found["by_seed"]), found["networks"], found["recipe"]["epochs"]) == (["5", "6"], 2, 1)
    for split in ("public_accuracy", "private_accuracy"):
        values = found[split]["values"]
        assert values == [found["by_seed"][seed][split] for seed in ("5", "6")]
        assert found[split]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert found[split]["deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    told = capsys.readouterr().out
    assert f"{found['private_accuracy']['mean']:.2%}" in told
    trained_on.clear()
    shutil.rmtree(project / "artifacts")
    monkeypatch.setenv("JOBS", "2")  # which is not how they were trained
    speedrun.main()  # the scores are there, though the networks are gone
    assert trained_on == []
    assert json.loads(speedrun.RESULT.read_text()) == found
    set_section(seeds=[6, 7])
    speedrun.main()
    assert len(trained_on) == 2  # the new seed's
    after = json.loads(speedrun.RESULT.read_text())["by_seed"]
    assert list(after) == ["6", "7"]
    assert after["6"] == found["by_seed"]["6"]
    assert not list((project / "artifacts/speedrun/states").glob("*.npz"))
    set_section(seeds=[6, 7], recipe=SECTION["recipe"] | {"batch_size": 7})
    trained_on.clear()
    speedrun.main()
    assert len(trained_on) == 4  # another recipe


def test_a_seed_is_kept_when_the_next_one_fails(project, capsys, monkeypatch, trained_on):
    run = speedrun.run

    def failing(cells, *rest):
        if cells[0].seed == 6:
            raise UserError("the disk is full")
        return run(cells, *rest)

    monkeypatch.setattr(speedrun, "run", failing)
    with pytest.raises(UserError, match="the disk is full"):
        speedrun.main()
    found = json.loads(speedrun.RESULT.read_text())
    assert list(found["by_seed"]) == ["5"]
    assert "private_accuracy" not in found  # one seed has no deviation


def test_a_finished_network_of_a_seed_is_not_trained_again(project, trained_on):
    cells, *rest = ready()
    first = speedrun.run(cells, *rest, 1)
    trained_on.clear()
    speedrun.place(cells[1]).unlink()
    again = speedrun.run(cells, *rest, 1)
    assert len(trained_on) == 1
    assert again | {"minutes": 0} == first | {"minutes": 0}


def test_networks_of_a_seed_differ(project):
    settings, own = recipe.speedrun()
    data = faces.load()
    cells = speedrun.plan(settings, own, data, data.rows(0))
    assert [(cell.seed, cell.fold) for seed in cells for cell in cells[seed]] == [(5, 0), (5, 1), (6, 0), (6, 1)]
    assert len({cell.key for seed in cells for cell in cells[seed]}) == 4


@pytest.mark.parametrize(("jobs", "minutes"), [(1, 9.0), (2, 6.0), (3, 3.0)])
def test_minutes_are_the_slowest_networks_as_often_as_they_follow_each_other(project, monkeypatch, jobs, minutes):
    set_section(networks=3)
    cells, data, *rest = ready()
    said = np.eye(7, dtype="float32")[np.zeros(len(data.test_rows()), dtype=int)]
    arrays = io.BytesIO()
    np.savez(arrays, test=said)
    for number, cell in enumerate(cells):
        timing = json.dumps({"seconds": 60 * (number + 1)}).encode()
        speedrun.write(cell, {"predictions": arrays.getvalue(), "timing": timing}, jobs)
    entry = speedrun.run(cells, data, *rest, jobs)
    assert entry["minutes"] == minutes
    assert entry["private_accuracy"] == pytest.approx(2 / 14, abs=1e-5)  # one class, of seven alike in number
    assert entry["private_low"] < 2 / 14 < entry["private_high"]
    alone = np.setdiff1d(np.arange(70, 84), [83])  # the last row has a duplicate
    right = (solution.join(data.labels, solution.load())[alone] == 0).mean()
    assert entry["private_no_duplicate_accuracy"] == pytest.approx(right, abs=1e-5)
    assert [about["jobs"] for about in entry["trained_with"]] == [jobs]


def test_means_are_over_the_seeds():
    entry = {"public_accuracy": 0.5, "private_accuracy": 0.25, "private_low": 0.1, "private_high": 0.4,
             "private_no_duplicate_accuracy": "unknown", "minutes": 10.0}  # fmt: skip
    found = speedrun.summary({1: entry, 2: entry | {"private_accuracy": 0.75, "minutes": 11.0}})
    assert found["minutes"] == 10.5
    assert "50.00% ± 35.36 " in speedrun.show(found)
    assert found["private_accuracy"] == {"mean": 0.5, "deviation": 0.353553, "values": [0.25, 0.75]}


@pytest.mark.parametrize("text", ["{", "[]", '{"seeds": [1]}'])
def test_results_that_are_none_of_ours_are_refused(project, text):
    speedrun.RESULT.parent.mkdir()
    speedrun.RESULT.write_text(text)
    with pytest.raises(UserError, match="delete it, or bring it back from git"):
        speedrun.main()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "vgg9"}, "speedrun.network = 'vgg9': must be one of alizadeh_same, "),
        ({"networks": 0}, "speedrun.networks = 0"),
        ({"seeds": [1]}, "speedrun.seeds = [1]"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"recipe": {"epoch": 3}}, "unknown key speedrun.recipe.epoch"),
        ({"recipe": {"plain_epochs": 4, "epochs": 3}}, "speedrun.recipe.plain_epochs = 4: it has 3 epochs"),
        (
            {"recipe": {"crop": 40}},
            "speedrun.recipe.crop = 40: mini_xception takes whole pictures only",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_runs(project, change, words):
    set_section(**change)
    assert any(words in mistake for mistake in check.mistakes())
    with pytest.raises(UserError):
        check.main()


def test_unknown_test_labels_are_refused(project):
    table = solution.load()
    table["emotion"] = None
    table.to_csv(solution.PATH, index=False)
    with pytest.raises(UserError, match="does not know the labels of all test rows"):
        speedrun.main()
