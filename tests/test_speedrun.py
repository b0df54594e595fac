"""The speedrun: what it trains on, what it tells, and that it goes on where it was stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from ruamel.yaml import YAML

from pipeline import check, engine, faces, params, recipe, solution, speedrun, synthetic
from pipeline.command import Refusal

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
    set_section()
    tiny.instead(monkeypatch)
    return tmp_path


def test_every_seed_is_told_with_mean_and_deviation(project, capsys, monkeypatch):
    trained_on = []
    results = engine.results

    def watched(work, data, tasks, *rest):
        trained_on.extend((len(rows), (fold_of == cell.fold).sum()) for rows, fold_of, cell, *_ in tasks.values())
        return results(work, data, tasks, *rest)

    monkeypatch.setattr(engine, "results", watched)
    speedrun.main()
    assert trained_on == [(56, 0)] * 4  # all Training rows, and nothing else
    found = json.loads(speedrun.RESULT.read_text())
    assert (found["seeds"], found["networks"], found["recipe"]["epochs"]) == ([5, 6], 2, 1)
    for split in ("public_accuracy", "private_accuracy"):
        values = found[split]["values"]
        assert len(values) == 2
        assert found[split]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert found[split]["deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    told = capsys.readouterr().out
    assert f"{found['private_accuracy']['mean']:.2%}" in told
    assert "minutes a seed" in told
    trained_on.clear()
    monkeypatch.setenv("JOBS", "2")  # which is not how they were trained
    speedrun.main()  # all is there
    assert trained_on == []
    assert json.loads(speedrun.RESULT.read_text()) == found
    set_section(seeds=[6, 7])
    speedrun.main()
    assert len(trained_on) == 2  # the new seed's
    assert not list((project / "artifacts/speedrun/states").glob("*.npz"))


def test_networks_of_a_seed_differ(project):
    settings, own = recipe.speedrun()
    cells = speedrun.plan(settings, own, faces.load())
    assert list(cells) == [(5, 0), (5, 1), (6, 0), (6, 1)]
    assert len({cell.key for cell in cells.values()}) == 4


def test_minutes_are_those_of_a_seed():
    hits = {seed: {"public_accuracy": np.ones(2), "private_accuracy": np.arange(2)} for seed in (1, 2)}
    found = speedrun.summary(hits, [60.0, 120.0, 180.0, 240.0])
    assert found["minutes"] == 5.0
    assert found["private_accuracy"] == {"mean": 0.5, "deviation": 0.0, "values": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "vgg9"}, "speedrun.network = 'vgg9': must be one of alizadeh_same, "),
        ({"networks": 0}, "speedrun.networks = 0"),
        ({"seeds": [1]}, "speedrun.seeds = [1]"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"recipe": {"epoch": 3}}, "unknown key speedrun.recipe.epoch"),
        ({"recipe": {"early_epochs": 4, "epochs": 3}}, "speedrun.recipe.early_epochs = 4: it has 3 epochs"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(project, change, words):
    set_section(**change)
    assert any(words in mistake for mistake in check.mistakes())
    with pytest.raises(Refusal):
        check.main()


def test_unknown_test_labels_are_refused(project):
    table = solution.load()
    table["emotion"] = None
    table.to_csv(solution.PATH, index=False)
    with pytest.raises(Refusal, match="does not know the labels of all test rows"):
        speedrun.main()
