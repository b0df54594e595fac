"""Speedrun, claims of the sources, and runs with other seeds."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
from settings import ROOT, refuses

from pipeline import config, files
from pipeline.apps import networks
from pipeline.competition import PRIVATE
from pipeline.data import faces, solution
from pipeline.errors import UserError
from pipeline.evaluation import metrics, submission
from pipeline.evaluation.score import Truth
from pipeline.experiments import claims, runner, seeds, speedrun
from pipeline.experiments.claims import CLAIMS

SECTION = {"architecture": "mini_xception", "recipe": "short", "seeds": [5, 6], "epochs": 1}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Create a project with known test labels. Return its faces."""
    small.project(tmp_path, monkeypatch, speedrun=SECTION)
    for name, claim in CLAIMS.items():
        recipe = claim.recipe.model_copy(update={"batch_size": 16})
        monkeypatch.setitem(CLAIMS, name, claim.model_copy(update={"recipe": recipe}))
    return small.judge()


@pytest.fixture
def trained(monkeypatch):
    """Return a list that collects the started trainings."""
    started, train = [], runner.train
    monkeypatch.setattr(runner, "train", lambda data, task, *rest: started.append(task) or train(data, task, *rest))
    return started


# The speedrun


def test_one_seed_leaves_a_submission_and_a_network_and_all_seeds_a_record(project, capsys, trained):
    speedrun.main()
    assert not speedrun.RESULT.exists()
    (entry,) = json.loads(speedrun.OWN.read_text())["by_seed"].values()
    predicted = submission.read(speedrun.SUBMISSION, len(project.test_rows()))
    private = project.usage[project.test_rows()] == PRIVATE
    assert (predicted == np.arange(42) % 7)[private].mean() == pytest.approx(entry["private_accuracy"], abs=1e-5)
    again = networks.load("speedrun").probabilities(project.pixels[project.test_rows()])
    assert (again.argmax(axis=1) == predicted).mean() > 0.95  # probabilities are stored in half precision
    assert f"{entry['private_accuracy']:.2%}" in capsys.readouterr().out
    speedrun.main(every=True)
    assert [len(task.rows) for task in trained] == [168] * 2  # all Training rows
    assert all(task.labels[project.test_rows()].max() == -1 for task in trained)  # no test label
    record = json.loads(speedrun.RESULT.read_text())
    assert (list(record["by_seed"]), record["recipe"]["epochs"]) == (["5", "6"], 1)
    values = record["private_accuracy"]["values"]
    assert values == [record["by_seed"][seed]["private_accuracy"] for seed in ("5", "6")]
    assert record["private_accuracy"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    trained.clear()
    small.write(speedrun=SECTION | {"seeds": [6, 7]})
    speedrun.main(every=True)
    assert [task.name for task in trained] == ["seed 7"]
    after = json.loads(speedrun.RESULT.read_text())["by_seed"]
    assert (list(after), after["6"]) == (["6", "7"], record["by_seed"]["6"])
    assert not list(Path("artifacts/speedrun/states").glob("*.npz"))


def test_faces_recipe_and_code_change_the_keys_of_trainings(project, monkeypatch):
    def keys(data):
        return {task.key(data) for task in speedrun.plan(config.load(), data).values()}

    collected = [keys(project), keys(faces.Faces(project.pixels[:, ::-1].copy(), project.labels, project.usage))]
    small.write(speedrun=SECTION | {"batch_size": 7})
    collected.append(keys(project))
    monkeypatch.setattr(runner.plan, "code", lambda named: {"training.loop.fit": "0"})
    collected.append(keys(project))
    assert len(set.union(*collected)) == 4 * len(SECTION["seeds"])


def test_a_speedrun_is_scored_with_and_without_duplicates():
    truth = Truth(np.arange(42) % 7, np.repeat([1, 2], 21), np.arange(42) % 7, np.zeros(42, int), "drawn")
    always_0, about = np.eye(7)[np.zeros(42, int)], np.array(json.dumps({"jobs": 1}))
    entry = speedrun.judge(runner.Result(always_0, np.array(1), np.array(150.0), np.array(30.0), about), truth)
    assert entry["minutes"] == 3
    assert entry["private_accuracy"] == pytest.approx(3 / 21, abs=1e-5)
    assert entry["private_no_duplicate_accuracy"] == 1  # rows of class 0 have no duplicate
    assert entry["trained_with"] == [{"jobs": 1}]


# Claims of the sources


def test_a_claim_continues_after_an_interruption_and_is_trained_once(project, trained, monkeypatch, capsys):
    note, evaluated = runner.Hits.note, []

    def interrupted(self, probabilities):
        evaluated.append(note(self, probabilities))
        if len(evaluated) == 3:  # the epoch is recorded, but its state is not saved
            raise KeyboardInterrupt
        return probabilities

    monkeypatch.setattr(runner.Hits, "note", interrupted)
    with pytest.raises(KeyboardInterrupt):
        claims.main("mini_xception", 4)
    (lock,) = (claims.FOLDER / "states").glob("*.lock")
    with files.locked(lock, "trains it"), pytest.raises(UserError, match=r"trains mini_xception.*\.lock"):
        claims.main("mini_xception", 4)
    claims.main("mini_xception", 4)
    assert "resumes after epoch 2" in capsys.readouterr().out
    hits = np.array([metrics.right(each, np.arange(42) % 7) for each in [*evaluated[:2], *evaluated[3:]]])
    written = json.loads(claims.RESULT.read_text())
    entry, private = written["mini_xception"], project.usage[project.test_rows()] == PRIVATE
    best = int(hits.mean(axis=1).argmax())
    assert (entry["epochs"], entry["chosen_epoch"], entry["trained_rows"]) == (4, best + 1, {"official": 168})
    for part, mask in (("PrivateTest", private), ("PublicTest", ~private), ("their rows", private | ~private)):
        found, wanted = entry["scores"][part], hits[:, mask].mean(axis=1)
        assert found["rows"] == mask.sum()
        assert [found[key]["accuracy"] for key in ("last", "chosen")] == pytest.approx(wanted[[-1, best]], abs=1e-5)
    curve = pd.read_csv(claims.RESULT.with_suffix(".csv")).query("part == 'PrivateTest'")
    np.testing.assert_allclose(curve["accuracy"], hits[:, private].mean(axis=1), atol=1e-5)
    trained.clear()
    claims.main("mini_xception", 4)
    assert trained == []
    assert json.loads(claims.RESULT.read_text()) == written


@pytest.fixture
def finish(monkeypatch):
    """Return a function that makes trainings count as finished, with random hits; no network is trained."""
    rng = np.random.default_rng(1)

    def choose(finished):
        monkeypatch.setattr(runner, "load_finished", lambda data, tasks, folder: {
            key: runner.Result(*[np.zeros(1)] * 5, hits=rng.random((3, len(task.watched))) < 0.6)
            for key, task in tasks.items() if finished(task)
        })  # fmt: skip

    monkeypatch.setattr(runner, "run", lambda *_: None)
    monkeypatch.setattr(claims.figures, "draw", lambda table, path, **_: table.to_csv(path.with_suffix(".csv")))
    return choose


def test_results_contain_all_finished_networks(project, finish):
    finished = {("vgg8", CLAIMS["vgg8"].recipe.epochs), ("alizadeh_same", 2)}
    finish(lambda task: (task.architecture, task.recipe.epochs) in finished)
    claims.main("alizadeh_same", 2)
    assert list(json.loads(claims.RESULT.read_text())) == ["vgg8", "alizadeh_same"]
    claims.main("vgg8", None)
    assert list(json.loads(claims.RESULT.read_text())) == ["vgg8"]
    assert set(pd.read_csv(claims.RESULT.with_suffix(".csv"))["name"]) == {"vgg8"}


@pytest.mark.parametrize("name", ["vgg8", "alizadeh_shallow", "alizadeh_same"])
def test_the_points_sum_to_the_difference_from_the_claim(project, monkeypatch, finish, name):
    finish(lambda task: task.architecture == name)
    groups = faces.picture_groups(project.pixels)
    groups[project.test_rows()[:9]] = groups[project.rows(0)[:9]]  # duplicates
    monkeypatch.setattr(claims.faces, "picture_groups", lambda pixels: groups)
    claims.main(name, None)
    entry = json.loads(claims.RESULT.read_text())[name]
    honest, recent = (entry["scores"]["PrivateTest"][key] for key in ("last", "last_epochs"))
    assert recent["low"] <= honest["accuracy"] <= recent["high"]
    assert ("drawn" in entry["trained_rows"]) == (CLAIMS[name].held_out > 0)
    assert entry["scores"]["PublicTest"]["duplicates"] == 9
    assert ("their rows" in entry["scores"]) == ("points" in entry) == (name != "alizadeh_same")
    if "points" in entry:
        assert sum(entry["points"].values()) == pytest.approx(entry["claimed"] - 100 * honest["accuracy"], abs=0.03)
        assert entry["chosen_epoch"] in (1, 2, 3)
        theirs = entry["scores"]["their rows"]
        gain = theirs["chosen" if CLAIMS[name].chooses_epoch else "last"]["accuracy"] - theirs["last"]["accuracy"]
        assert entry["points"]["epoch"] == pytest.approx(100 * gain, abs=0.01)


def test_the_committed_claims_use_the_full_recipes():
    entries = json.loads((ROOT / claims.RESULT).read_text())
    assert entries.keys() <= CLAIMS.keys()
    for name, entry in entries.items():
        assert claims.Claim.model_validate({key: entry[key] for key in claims.Claim.model_fields}) == CLAIMS[name]
        assert entry["epochs"] == CLAIMS[name].recipe.epochs


# Other seeds


def table(accuracy):
    """Return the scores of a run whose labels without duplicates are unknown."""
    return pd.DataFrame([{"name": "a", **dict.fromkeys(seeds.SCORES, accuracy), "private_no_duplicate": "unknown"}])


def test_summary_by_hand():
    record = seeds.summary({1: table(0.5), 2: table(0.6), 5: table(0.7)}, {"seed": 1, "folds": 3})
    assert record["params"] == {"folds": 3}
    assert record["submissions"]["a"]["oof_accuracy"] == {"mean": 0.6, "deviation": 0.1, "values": [0.5, 0.6, 0.7]}
    assert "private_no_duplicate" not in record["submissions"]["a"]


def test_models_keep_the_differences_of_their_seeds(tmp_path, project):
    seeds.build(tmp_path / "seeds/9", 9)
    assert (tmp_path / "seeds/9/data/faces.npz").resolve() == tmp_path / "data/faces.npz"
    settings = config.parse(config.read(tmp_path / "seeds/9/params.yaml"))
    assert {name: settings.seed_of(name) for name in settings.names} == {"one": 9, "two": 10, "pupil": 9}


def test_a_run_executes_all_stages_and_stops_at_a_failure_or_a_missing_file(project, monkeypatch):
    ran, failing = [], []

    def run(*words, folder, YES):  # noqa: N803
        ran.append(words[1])
        table(0.5).to_csv(folder / "scores.csv")
        if ran[-1] in failing:
            raise UserError(f"{words[1]} failed in {folder}")

    monkeypatch.setattr(seeds, "python", run)
    monkeypatch.setattr(seeds.submission, "TABLE", "scores.csv")
    seeds.main([2, 1])
    assert ran == ["train", "ensemble", "score"] * 2
    assert seeds.RESULT.exists()
    failing.append("train")
    refuses("train failed in seeds/1", seeds.main, [1, 2])
    Path("data/duplicates.csv").unlink()
    refuses(r"data/duplicates\.csv is missing", seeds.main, [1, 2])


@pytest.mark.parametrize(("command", "message"), [
    (lambda: claims.main("", None), "lacks labels of test rows"),
    (lambda: claims.main("resnet", None), "no claim for 'resnet'"),
    (lambda: (small.write(), speedrun.main(every=True)), "section speedrun"),
    (lambda: seeds.main([1, 2, 1]), "two or more different seeds"),
])  # fmt: skip
def test_a_wrong_argument_or_a_missing_label_raises(project, command, message):
    solution.PATH.write_text(solution.PATH.read_text().strip()[:-1] + "\n")
    refuses(message, command)
