"""Cells: what a training leaves, whose it is, what it is trained on, and when it is trained again."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small

from pipeline import config, files
from pipeline.cells import pack, planning, progress, soft_targets, store, train
from pipeline.data import folds
from pipeline.data.faces import Faces, picture_groups
from pipeline.errors import UserError
from pipeline.training import cell, loop
from pipeline.training.cell import HISTORY
from pipeline.training.checkpoint import Progress

ROOT = Path(__file__).parent.parent
OTHER = Path("artifacts/cells/two/fold0")


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.project(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project whose cells of both models and the student are trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        small.project(folder, patch)
        train.main_all(1, "loky", None, yes=False)
    return folder


@pytest.fixture
def copy(trained, tmp_path, monkeypatch):
    """A copy of it, which a test may damage and stands in."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    small.tiny.instead(monkeypatch)
    config.load.cache_clear()
    return tmp_path / "copy"


def results(folder):
    """Everything of all cells but what tells the seconds and the plan."""
    paths = [path for path in (folder / "artifacts").rglob("*") if path.is_file()]
    names = {str(path.relative_to(folder / "artifacts")): path for path in paths if path.name != "cell.json"}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(("checkpoints", "plan"))}


def change(**changes):
    """Change the recipe of the model `one`."""
    small.write(models=small.DOCUMENT["models"] | {"one": small.DOCUMENT["models"]["one"] | changes})
    planning.main()


def load(name="one", fold=0):
    run = train.start()
    return store.load(run.settings, name, fold, run.faces, run.folds)


# What it holds


def test_a_cell_holds_what_later_stages_need(copy):
    run = train.start()
    for name in run.settings.names:
        for fold in run.settings.folds:
            one = load(name, fold)
            np.testing.assert_array_equal(one.rows, run.folds.held_out(fold))
            assert one.oof.shape == one.oof_plain.shape == (len(one.rows), 7)
            assert one.test.shape == one.test_plain.shape == (42, 7)
            assert one.train is not None
            assert one.train.shape == (168 - len(one.rows), 7)
            assert one.attention is not None
            assert one.attention.shape == (7, 48, 48)
            assert list(one.history) == list(HISTORY)
            assert one.about.plan == planning.load(name)
            assert files.sha256(store.weights(name, fold).read_bytes()) == one.about.weights_sha256
    assert not list((copy / "artifacts/checkpoints").glob("*.npz"))


def test_a_committed_cell_is_under_half_a_megabyte():
    folders = [path.parent for path in ROOT.glob("artifacts/*/*/*/cell.json")]
    assert max(sum(path.stat().st_size for path in folder.iterdir()) for folder in folders) < 2**19


def test_the_weights_give_the_predictions_again(copy):
    before, run = load(), train.start()
    task = run.task("one", 0)
    contents = cell.train(run.faces, task, Path("unused/state.npz"), weights=run.weights(task))
    after = np.load(io.BytesIO(contents["predictions.npz"]))
    np.testing.assert_array_equal(after["oof"], np.load("artifacts/cells/one/fold0/predictions.npz")["oof"])
    assert len(before.history) == 2


# Protocol


@pytest.mark.parametrize("choice", ["keep", "drop_test_duplicates", "drop_repeats"])
def test_every_row_is_predicted_once_by_a_network_that_saw_neither_it_nor_its_duplicate(project, monkeypatch, choice):
    small.write(duplicates=choice)
    folds.main()
    seen = []

    def watch(trainer, rows, *others):
        seen.append(rows)
        return Progress([dict.fromkeys(HISTORY, 1.0)], 1.0)

    monkeypatch.setattr(loop, "fit", watch)
    run = train.start()
    data, groups = run.faces, picture_groups(run.faces.pixels)
    for fold in run.settings.folds:
        contents = cell.train(data, run.task("one", fold), Path("state.npz").absolute())
        rows = seen[-1]
        np.testing.assert_array_equal(np.load(io.BytesIO(contents["predictions.npz"]))["rows"], rows.validation)
        assert not set(groups[rows.train]) & set(groups[rows.validation])
        assert set(data.usage[rows.train]) == set(data.usage[rows.validation]) == {0}
        assert {*rows.train, *rows.validation} == set(folds.kept(data, choice))
    every = np.concatenate([rows.validation for rows in seen])
    np.testing.assert_array_equal(np.sort(every), folds.kept(data, choice))
    if choice == "drop_test_duplicates":
        assert not set(groups[every]) & set(groups[data.test_rows()])


def test_held_out_labels_steer_nothing_that_is_trained(project):
    """Neither an epoch, nor the rate, nor the weights: so the out-of-fold score is not optimistic."""
    run = train.start()
    task, found = run.task("one", 0), []
    held_out = run.folds.held_out(0)
    for shift in (0, 3):
        labels = run.faces.labels.copy()
        labels[held_out] = (labels[held_out] + shift) % 7
        changed = Faces(run.faces.pixels, labels, run.faces.usage)
        found.append(cell.train(changed, task, Path(f"{shift}.npz").absolute()))
    assert found[0]["weights"] == found[1]["weights"]
    arrays = [np.load(io.BytesIO(each["predictions.npz"])) for each in found]
    for name in ("oof", "test", "oof_plain", "test_plain", "train"):
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
    first, second = (pd.read_csv(io.BytesIO(each["history.csv"])) for each in found)
    assert first[["learning_rate", "loss", "accuracy"]].equals(second[["learning_rate", "loss", "accuracy"]])
    assert not first["val_loss"].equals(second["val_loss"])


def test_soft_targets_come_from_networks_that_saw_neither_the_fold_nor_its_duplicates(copy):
    run = train.start()
    groups = picture_groups(run.faces.pixels)
    for fold in run.settings.folds:
        soft = soft_targets.load("pupil", fold)
        seen = run.folds.seen(fold)
        assert not set(groups[seen]) & set(groups[run.folds.held_out(fold)])
        teachers = [load(name, fold) for name in ("one", "two")]
        assert all(np.array_equal(each.rows, run.folds.held_out(fold)) for each in teachers)
        wanted = np.mean([each.train for each in teachers], axis=0)
        np.testing.assert_allclose(soft, wanted, atol=0.01)
        assert len(soft) == len(seen)


def test_a_student_whose_teachers_lack_predictions_is_refused_and_one_that_is_trained_stays(copy):
    path = Path("artifacts/cells/one/fold1")
    arrays = dict(np.load(path / "predictions.npz"))
    del arrays["train"], arrays["attention"]
    rewrite(path, arrays)
    soft_targets.main("pupil")
    assert np.load(soft_targets.path("pupil"))["absent"].tolist() == ["one"]
    with pytest.raises(UserError, match="one"):
        train.main("pupil", "0")
    assert load("pupil", 0).about.model == "pupil"


def rewrite(path, arrays, history=None, **about):
    """Write other arrays into a cell, which tells of them rightly."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    (path / "predictions.npz").write_bytes(content.getvalue())
    if history is not None:
        (path / "history.csv").write_bytes(history)
    whole = json.loads((path / "cell.json").read_text()) | about
    whole["sha256"] = {name: files.sha256((path / name).read_bytes()) for name in store.FILES[:-1]}
    (path / "cell.json").write_text(json.dumps(whole))


# Whose it is, and damage


DAMAGE = {
    "another model's": lambda path, arrays: shutil.copytree(OTHER, path, dirs_exist_ok=True),
    "another model's predictions": lambda path, arrays: shutil.copy(OTHER / "predictions.npz", path),
    "other faces": lambda path, arrays: rewrite(path, arrays, faces="0" * 16),
    "truncated history": lambda path, arrays: rewrite(path, arrays, (path / "history.csv").read_bytes()[:90]),
    "cell.json": lambda path, arrays: (path / "cell.json").write_text("[]"),
    "gone": lambda path, arrays: (path / "history.csv").unlink(),
    "NaN": lambda path, arrays: rewrite(path, arrays | {"oof": arrays["oof"] * np.float16("nan")}),
    "a sum of 2": lambda path, arrays: rewrite(path, arrays | {"oof": arrays["oof"] * 2}),
    "eight columns": lambda path, arrays: rewrite(path, arrays | {"oof": np.full((len(arrays["oof"]), 8), 1 / 8)}),
    "a row less": lambda path, arrays: rewrite(path, arrays | {"oof": arrays["oof"][1:]}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cell_is_refused_by_its_file_and_trained_anew(copy, damage):
    path, run = Path("artifacts/cells/one/fold0"), train.start()
    damage(path, dict(np.load(path / "predictions.npz")))
    with pytest.raises(UserError, match=r"artifacts/cells/one/fold0.*dvc repro train@one-0"):
        load()
    assert not run.whole(run.task("one", 0))


# When it is trained


def test_a_whole_cell_is_not_trained_again_but_on_demand(copy, monkeypatch):
    before = results(copy)
    monkeypatch.setattr(train, "work", lambda *words: pytest.fail("it was trained"))
    train.main("one", "0")
    train.main_all(1, "loky", None, yes=False)
    monkeypatch.undo()
    monkeypatch.chdir(copy)
    small.tiny.instead(monkeypatch)
    train.main("one", "0", anew=True)
    assert results(copy) == before, "the same bytes"


def test_test_time_settings_predict_anew_from_weights_and_train_where_they_are_gone(copy, monkeypatch):
    before, seconds = results(copy), load().about.seconds
    change(tta_zoom=0.1)
    run = train.start()
    assert not run.whole(run.task("one", 0))
    assert "predicted anew" in planning.why(run.settings, "one", 0, run.task("one", 0).plan)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", lambda *words: pytest.fail("it was trained"))
        train.main("one", "0")
    assert run.whole(run.task("one", 0))
    after = results(copy)
    assert {name for name in before if before[name] != after[name]} == {"cells/one/fold0/predictions.npz"}
    assert load().about.seconds == seconds
    store.weights("one", 1).unlink()
    assert "gone" in planning.why(run.settings, "one", 1, run.task("one", 1).plan)
    trained = []
    fit = loop.fit
    monkeypatch.setattr(loop, "fit", lambda *words: trained.append(1) or fit(*words))
    train.main("one", "1")
    assert trained == [1]


def test_long_training_is_told_and_wants_a_yes_once(copy, monkeypatch):
    change(epochs=3)
    before = results(copy)
    monkeypatch.setattr(train, "LONG", 1e-6)
    monkeypatch.delenv("YES", raising=False)
    for start in (lambda: train.main("one", "0"), lambda: train.main_all(1, "loky", None, yes=False)):
        with pytest.raises(UserError, match=r"^4 cells \(2 of .*YES=1"):  # the student's, too
            start()
    assert results(copy) == before
    train.main("one", "0", yes=True)
    train.main("one", "1")  # agreed to with the first


def test_without_timings_it_goes_by_the_rows(project, monkeypatch):
    run = train.start()
    train.agree(run, train.stale(run, ["one"]), yes=False)  # 168 rows take no ten minutes
    monkeypatch.setattr(planning, "SECONDS_A_ROW", 10.0)
    with pytest.raises(UserError, match="YES=1"):
        train.agree(run, train.stale(run, ["one"]), yes=False)


def test_timings_scale_with_the_epochs(copy):
    took = planning.timings()
    made = planning.load("one")
    longer = made.model_copy(update={"recipe": made.recipe | {"epochs": 20}})
    assert took.seconds(longer) == pytest.approx(10 * took.seconds(made))
    assert planning.Timings({}).seconds(made, 22967) == pytest.approx(120)


def test_dvc_is_told_of_no_cell_that_params_yaml_has_left_behind(copy, monkeypatch):
    told = []
    monkeypatch.setattr(planning, "using_dvc", lambda: True)
    monkeypatch.setattr(planning, "dvc", lambda *words: told.append(words))
    run = train.start()
    tasks = [run.task("two", 0), run.task("one", 0)]
    change(epochs=3)
    train.commit(tasks)
    assert told == [("commit", "--quiet", "--force", "train@two-0")]
    config.PATH.write_text("models: [")  # it is being edited
    train.commit(tasks)
    assert len(told) == 1


def test_a_cell_of_other_code_is_adopted_with_a_reason_and_one_of_another_recipe_is_not(copy):
    path = Path("artifacts/cells/one/fold0/cell.json")
    about = json.loads(path.read_text())
    about["plan"]["code"]["training.loop.fit"], about["key"] = "0" * 8, "0" * 16
    path.write_text(json.dumps(about))
    run = train.start()
    assert not run.whole(run.task("one", 0))
    train.adopt("one", "0", "fit was only split in two")
    assert run.whole(run.task("one", 0))
    assert "split in two" in load().about.carried_over
    about["plan"]["recipe"]["epochs"] = 3
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="epochs 3 -> 2"):
        train.adopt("one", "0", "nearly the same")


def test_a_worker_with_other_code_refuses(project):
    run = train.start()
    task = run.task("one", 0)
    other = task.plan.model_copy(update={"code": task.plan.code | {"training.loop.fit": "0" * 8}})
    with pytest.raises(UserError, match="another version"):
        train.work(run.faces, cell.Task(**{**task.__dict__, "plan": other}), Path("state.npz"), False, None)


def test_a_worker_without_the_projects_folder_keeps_its_state_elsewhere_and_leaves_nothing(copy, monkeypatch):
    monkeypatch.setattr(train.tempfile, "tempdir", str(copy / "tmp"))
    (copy / "tmp").mkdir()
    run = train.start()
    contents = train.work(run.faces, run.task("one", 0), copy / "nowhere/down/state.npz", False, None)
    assert contents["weights"] == store.weights("one", 0).read_bytes()
    assert not (copy / "nowhere").exists()
    assert not list((copy / "tmp").rglob("*.npz"))


def test_a_packed_run_trains_elsewhere_and_its_cells_come_home(copy, tmp_path, monkeypatch):
    before = results(copy)
    for name in ("one/fold0", "two/fold1"):
        shutil.rmtree(f"artifacts/cells/{name}")
    shutil.copytree(ROOT / "pipeline", "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    pack.pack(tmp_path / "run.tar.gz")
    (tmp_path / "there").mkdir()
    with tarfile.open(tmp_path / "run.tar.gz") as tar:
        tar.extractall(tmp_path / "there", filter="data")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "there")
        train.main_all(1, "loky", None, yes=True)
        about = json.loads(Path("artifacts/cells/two/fold1/cell.json").read_text())
        Path("artifacts/cells/two/fold1/cell.json").write_text(json.dumps(about | {"key": "0" * 16}))
        with tarfile.open(tmp_path / "cells.tar.gz", "w:gz") as tar:
            tar.add("artifacts/cells")
    pack.unpack(tmp_path / "cells.tar.gz")
    assert Path("artifacts/cells/one/fold0/cell.json").exists()
    assert not Path("artifacts/cells/two/fold1").exists(), "it is of another plan"
    after = results(copy)
    lost = {f"cells/two/fold1/{file}" for file in store.FILES[:2]}
    assert {name for name in before if before[name] != after.get(name)} == lost
    with pytest.raises(UserError, match="cannot be unpacked"):
        pack.unpack(Path("params.yaml"))
    with pytest.raises(UserError, match=r"make unpack FILE="):
        pack.unpack(Path())


def test_a_cell_of_an_archive_that_is_not_what_it_tells_replaces_nothing(copy, tmp_path, capsys):
    place = Path("artifacts/cells/two/fold0")
    about = json.loads((place / "cell.json").read_text())
    shutil.copytree(place, tmp_path / place)
    (tmp_path / place / "predictions.npz").write_bytes(b"none")
    told = about | {"sha256": about["sha256"] | {"predictions.npz": files.sha256(b"none")}}
    (tmp_path / place / "cell.json").write_text(json.dumps(told))
    with tarfile.open(tmp_path / "cells.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "artifacts", "artifacts")
    (place / "cell.json").write_text(json.dumps(about | {"key": "0" * 16}))  # of another plan, but sound
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    pack.unpack(tmp_path / "cells.tar.gz")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert f"{place} (damaged)" in capsys.readouterr().err


# Interruptions


def test_two_processes_do_not_train_one_cell(project):
    run = train.start()
    task = run.task("one", 0)
    with (
        files.alone((train.CHECKPOINTS / task.checkpoint).with_suffix(".lock"), "tests"),
        pytest.raises(UserError, match=r"trains one fold 0.*\.lock"),
    ):
        train.main("one", "0")
    train.main("one", "0")
    assert not list(train.CHECKPOINTS.glob("one*"))


def test_it_says_where_it_was_stopped_and_goes_on_to_the_same_bytes(trained, project, monkeypatch, capsys):
    def stop(display, at):
        display.done = len(at.history)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Display, "epoch", stop)
        with pytest.raises(KeyboardInterrupt, match="one fold 0: 1 of 2 epochs are kept"):
            train.main("one", "0")
    assert not store.folder(train.start().settings, "one", 0).exists()
    train.main("one", "0")
    assert "goes on after epoch 1" in capsys.readouterr().out
    assert results(project).items() <= results(trained).items()
    assert len(results(project)) == 3


@pytest.mark.parametrize(
    "executor", ["loky", *(pytest.param(each, marks=pytest.mark.slow) for each in ("dask", "ray"))]
)
def test_killed_at_a_random_moment_and_on_two_workers_it_ends_with_the_same_bytes(
    executor, trained, tmp_path, monkeypatch
):
    """As processes in a copy of the code, in which the networks are as tiny as in this one."""
    small.project(tmp_path, monkeypatch, students={}, ensemble={"members": ["one"]})
    shutil.copytree(ROOT / "pipeline", "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    small.tiny.write(tmp_path / "pipeline", "mini_xception")
    words = [sys.executable, "-m", "pipeline", "train", "--jobs", "2", "--executor", executor, "--yes"]
    seed = random.randrange(10**6)
    lines = []
    for moment in (random.Random(seed).uniform(0, 1), None):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            if moment is not None:
                lines.append(next(line for line in process.stdout if "/2  loss" in line))
                time.sleep(moment)
                os.killpg(process.pid, signal.SIGKILL)
            lines += [line for line in process.stdout if "/2  loss" in line]
    assert process.returncode == 0
    epochs = [line.split("loss")[0] for line in lines]
    assert len(set(epochs)) == len(epochs), f"an epoch was trained twice (seed {seed}): {epochs}"
    found, wanted = results(tmp_path), results(trained)
    assert len(found) == 12
    assert found == {name: wanted[name] for name in found}, f"seed {seed}"
    assert not list(Path("artifacts/checkpoints").glob("*.npz"))
