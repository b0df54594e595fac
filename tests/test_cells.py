"""Cells: content, validation, training protocol, and when a cell is trained again."""

import dataclasses
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock, patch

import fake_run
import numpy as np
import pandas as pd
import pytest
import small
from settings import ROOT, refuses
from test_graph import changed

from pipeline import config, files
from pipeline.cells import pack, planning, progress, soft_targets, store, train
from pipeline.data import folds
from pipeline.data.faces import Faces, picture_groups
from pipeline.errors import UserError
from pipeline.training import cell, loop, plan
from pipeline.training.checkpoint import Progress
from pipeline.training.plan import Plan

OTHER = Path("artifacts/cells/two/fold0")


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.project(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Create a project, and train all cells of both models and the student."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        small.project(folder, patch)
        train.main_all(1, "loky", None, yes=False)
    return folder


@pytest.fixture
def copy(trained, tmp_path, monkeypatch):
    """Change to a copy of the trained project, which a test may modify."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    small.tiny.instead(monkeypatch)
    return tmp_path / "copy"


def results(folder):
    """Return all files of cells, weights and soft targets, except cell.json, which contains seconds and plan."""
    paths = [path for path in (folder / "artifacts").rglob("*") if path.is_file() and path.name != "cell.json"]
    names = {str(path.relative_to(folder / "artifacts")): path.read_bytes() for path in paths}
    return {name: content for name, content in names.items() if not name.startswith(("checkpoints", "plan"))}


def change(**changes):
    """Change keys of the model `one`."""
    small.write(models=small.DOCUMENT["models"] | {"one": small.DOCUMENT["models"]["one"] | changes})
    planning.main()


def load(name="one", fold=0):
    run = train.start()
    return store.load(run.settings, name, fold, run.faces, run.folds[name])


# Protocol


@pytest.mark.parametrize("choice", ["keep", "drop_test_duplicates"])
def test_every_row_is_predicted_once_by_a_network_trained_without_it_and_its_duplicates(project, monkeypatch, choice):
    small.write(duplicates=choice)
    folds.main()
    monkeypatch.setattr(loop, "fit", fit := Mock(return_value=Progress([dict.fromkeys(cell.HISTORY, 1.0)], 1.0)))
    run = train.start()
    data, groups = run.faces, picture_groups(run.faces.pixels)
    for fold in run.settings.folds_of("one"):
        contents = cell.train(data, run.task("one", fold), Path("state.npz").absolute())
        rows = fit.call_args.args[1]
        arrays = np.load(io.BytesIO(contents["predictions.npz"]))
        np.testing.assert_array_equal(arrays["rows"], rows.validation)
        assert (arrays["train"].shape, arrays["attention"].shape) == ((len(rows.train), 7), (7, 48, 48))
        assert not set(groups[rows.train]) & set(groups[rows.validation])
        assert set(data.usage[rows.train]) == set(data.usage[rows.validation]) == {0}
        assert {*rows.train, *rows.validation} == set(folds.kept(data, choice))
    every = np.concatenate([call.args[1].validation for call in fit.call_args_list])
    np.testing.assert_array_equal(np.sort(every), folds.kept(data, choice))


def test_targets_of_a_student_mix_labels_and_the_mean_of_teachers_with_the_same_held_out_fold(copy, monkeypatch):
    small.write(students={"pupil": small.DOCUMENT["students"]["pupil"] | {"teacher_weight": 0.7}})
    planning.main()
    monkeypatch.setattr(loop, "fit", fit := Mock(return_value=Progress([dict.fromkeys(cell.HISTORY, 1.0)], 1.0)))
    run = train.start()
    for fold in (0, 1):
        cell.train(run.faces, run.task("pupil", fold), Path("state.npz").absolute())
        rows = fit.call_args.args[1]
        soft = np.mean([load(name, fold).train for name in ("one", "two")], axis=0)
        expected = 0.3 * np.eye(7)[run.faces.labels[rows.train]] + 0.7 * soft
        np.testing.assert_allclose(rows.targets, expected, atol=0.01)
    refuses("different folds", soft_targets.load, "pupil", 0, "of others")


def test_training_time_is_estimated_from_existing_cells(stand):
    run, *_ = fake_run.build()
    times, made = planning.timings(), plan.make(run, "plain_net")
    assert times["plain_net"] == times["vgg8"] == 30.25  # seconds per epoch
    assert planning.estimate(times, made) == 60.5
    assert planning.estimate({}, made, 1000) == 2000 * planning.SECONDS_A_ROW


def test_held_out_rows_affect_neither_weights_nor_learning_rates(project):
    """Otherwise the out-of-fold score would be biased."""
    # This schedule depends on a loss; the learning rate is so high that no loss falls steadily.
    change(schedule="plateau", plateau_patience=1, learning_rate=0.3, epochs=6)
    run, cells = train.start(), []
    labels, pixels, held_out = run.faces.labels.copy(), run.faces.pixels.copy(), run.folds["one"].held_out(0)
    for state in ("first.npz", "second.npz"):
        cell._trainers.clear()  # it keeps the pictures of the last training
        cells.append(cell.train(Faces(pixels, labels, run.faces.usage), run.task("one", 0), Path(state).absolute()))
        labels[held_out], pixels[held_out] = (labels[held_out] + 3) % 7, 255 - pixels[held_out]
    assert cells[0]["weights"] == cells[1]["weights"]
    first, second = (pd.read_csv(io.BytesIO(each["history.csv"])) for each in cells)
    assert first[["learning_rate", "loss", "accuracy"]].equals(second[["learning_rate", "loss", "accuracy"]])
    assert not first["val_loss"].equals(second["val_loss"])
    assert first["learning_rate"].nunique() > 1


def with_dvc(*stages):
    """Let the commands take these stages for the ones that DVC reports as stale."""
    return patch.multiple(planning, using_dvc=lambda: True, dvc=Mock(), stale_stages=lambda *names: {*stages})


def test_without_predictions_of_its_teachers_a_student_cannot_be_trained_but_stays_valid(copy, monkeypatch, capsys):
    path = Path("artifacts/cells/one/fold1")
    arrays = np.load(path / "predictions.npz")
    rewrite(path, {name: arrays[name] for name in arrays if name not in ("train", "attention")})
    train.main_all(1, "loky", None, yes=False)  # without DVC, too
    small.write(students={"pupil": small.DOCUMENT["students"]["pupil"] | {"teacher_weight": 0.6}})
    refuses("pupil cannot be trained", train.main_all, 1, "loky", None, yes=True)
    with with_dvc("distill@pupil"):
        planning.show()
    assert "pipeline train one --retrain" in capsys.readouterr().out
    small.write()
    planning.main()
    assert np.load(soft_targets.path("pupil"))["absent"].tolist() == ["one"]
    train.main("pupil")  # DVC starts this stage if the bytes of data/faces.npz differ, but not its content
    with with_dvc("distill@pupil"):
        train.main_all(1, "loky", None, yes=False)
        planning.show()
    assert "nothing is stale" in capsys.readouterr().out
    refuses("pupil cannot be trained: the cells of one are", train.main, "pupil", "0", retrain=True)
    assert load("pupil", 0).about.model == "pupil"
    small.write(models=small.DOCUMENT["models"] | {"two": small.DOCUMENT["models"]["two"] | {"epochs": 3}})
    planning.main()
    refuses(r"retrain each: .* or remove pupil", train.main, "two", yes=True)  # before the other teacher is trained


def rewrite(path, arrays, **about):
    """Replace arrays and keys of a cell, with correct digests."""
    np.savez(path / "predictions.npz", **arrays)
    about = json.loads((path / "cell.json").read_text()) | about
    about["sha256"] = {name: files.sha256((path / name).read_bytes()) for name in store.FILES[:-1]}
    (path / "cell.json").write_text(json.dumps(about))


# Validation


DAMAGE = {
    "cell of another model": lambda path, arrays: shutil.copytree(OTHER, path, dirs_exist_ok=True),
    "other faces": lambda path, arrays: rewrite(path, arrays, faces="0" * 16),
    "truncated history": lambda path, arrays: os.truncate(path / "history.csv", 90),
    "cell.json": lambda path, arrays: (path / "cell.json").write_text("[]"),
    "a missing row": lambda path, arrays: rewrite(path, arrays | {"oof": arrays["oof"][1:]}),
    "a sum of 2": lambda path, arrays: rewrite(path, arrays | {"oof": arrays["oof"] * 2}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cell_is_an_error_with_its_file_and_is_incomplete(copy, damage):
    path = Path("artifacts/cells/one/fold0")
    damage(path, dict(np.load(path / "predictions.npz")))
    refuses(r"artifacts/cells/one/fold0.*dvc repro train@one", load)
    assert not train.start().finished("one", 0)


# Training


def test_a_complete_cell_is_retrained_only_on_demand(copy, monkeypatch):
    before = results(copy)
    with patch.object(train, "work", lambda *arguments: pytest.fail("it was trained")):
        train.main("one", "0")
        train.main_all(1, "loky", None, yes=False)
    for place in ("cells/one/fold0/history.csv", "weights/one/fold0.weights.h5"):  # of a killed process
        Path(f"artifacts/{place}.abc.part").touch()
    monkeypatch.setattr(loop, "fit", fit := Mock(wraps=loop.fit))
    train.main("one", "0", retrain=True)
    fit.assert_called_once()
    assert results(copy) == before, "the same bytes"


def test_other_test_time_settings_predict_again_or_retrain_without_weights(copy, monkeypatch, capsys):
    path = store.CELLS / "one/fold0"
    rewrite(path, dict(np.load(path / "predictions.npz")), processor="abacus", carried_over="moved only")
    before, old = results(copy), load()
    change(tta_zoom=0.1)
    run = train.start()
    assert not run.finished("one", 0)
    with with_dvc("train@one"):
        planning.show()
    assert re.search(r"(?s)one +2 of 2 +tta_zoom .*\n2 cells stale, about 0 s", capsys.readouterr().out)
    with patch.object(loop, "fit", lambda *arguments: pytest.fail("it was trained")):
        train.main("one", "0")
    assert run.finished("one", 0)
    soft_targets.main("pupil")  # its bytes are the same, so the student is not stale
    assert changed(before, results(copy)) == {"cells/one/fold0/predictions.npz"}
    np.testing.assert_array_equal(load().oof_plain, old.oof_plain)
    kept = {"seconds", "processor", "carried_over", "key"}
    assert load().about.model_dump(include=kept) == old.about.model_dump(include=kept)
    store.weights("one", 1).unlink()
    assert "retrained" in planning.why(run.settings, "one", 1, planning.load("one"))
    train.main("one", "1")
    assert store.weights("one", 1).exists()


def test_long_training_needs_approval(copy, monkeypatch):
    Path("artifacts/students/pupil/fold1/cell.json").unlink()
    change(epochs=3)
    before = results(copy)
    monkeypatch.setattr(planning, "timings", lambda: {"one": 201.0})  # seconds per epoch; three exceed ten minutes
    refuses(r"^1 cell to train", train.main, "one", "0")
    for start in (lambda: train.main("one"), lambda: train.main_all(1, "loky", None, yes=False)):
        refuses(r"^4 cells to train, about .*YES=1", start)  # including the student's
    assert results(copy) == before
    train.main("one", "0", yes=True)


def test_cells_with_an_outdated_plan_are_not_committed_to_dvc(copy, monkeypatch, capsys):
    monkeypatch.setattr(planning, "using_dvc", lambda: True)
    monkeypatch.setattr(planning, "dvc", dvc := Mock())
    run, plan = train.start(), planning.path("one").read_bytes()
    shutil.rmtree("artifacts/students/pupil/fold1")  # incomplete
    change(epochs=3)
    planning.path("one").write_bytes(plan)
    train.commit(run, ["two", "one", "pupil"])
    planning.path("two").unlink()
    train.commit(run, ["two"])
    config.PATH.write_text("models: [")  # it is being edited
    train.commit(run, ["two"])
    dvc.assert_called_once_with("commit", "--quiet", "--force", "train@two")
    small.write()
    planning.main()
    dvc.side_effect = UserError("DVC is busy")
    train.commit(run, ["two"])
    assert "DVC is busy; finished cells are kept" in capsys.readouterr().err


def test_a_cell_of_other_code_can_be_adopted_but_not_one_of_another_recipe(copy):
    path = Path("artifacts/cells/one/fold0/cell.json")
    about, task = json.loads(path.read_text()), train.start().task("one", 0)
    about["plan"]["code"]["training.loop.fit"] = "0" * 8
    about["key"] = dataclasses.replace(task, plan=Plan.model_validate(about["plan"])).key
    path.write_text(json.dumps(about))
    assert not train.start().finished("one", 0)
    train.adopt("one", "0,1", "fit was only split in two")
    assert train.start().finished("one", 0)
    assert "split in two" in load().about.carried_over
    about["plan"]["recipe"]["epochs"] = 3
    path.write_text(json.dumps(about))
    refuses("epochs 3 -> 2", train.adopt, "one", "0", "nearly the same")
    about["plan"]["recipe"]["epochs"] = 2
    path.write_text(json.dumps(about | {"key": "0" * 16}))
    refuses("soft targets", train.adopt, "one", "0", "other teachers")
    small.write(models=small.DOCUMENT["models"] | {"one": small.DOCUMENT["models"]["one"] | {"epochs": 3}})
    for start in (lambda: train.adopt("one", "0", "a plan of other parameters"), lambda: train.main("one")):
        refuses(r"artifacts/plan/one\.json is older .*dvc repro plan", start)


def test_a_worker_refuses_other_code_and_uses_a_temporary_checkpoint_without_the_projects_folder(copy, monkeypatch):
    monkeypatch.setattr(train.tempfile, "tempdir", str(copy / "tmp"))
    (copy / "tmp").mkdir()
    run = train.start()
    task = run.task("one", 0)
    other = task.plan.model_copy(update={"code": task.plan.code | {"training.loop.fit": "0" * 8}})
    with pytest.raises(UserError, match="another version"):
        train.work(run.faces, dataclasses.replace(task, plan=other), Path("state.npz"), False, None)
    contents = train.work(run.faces, task, copy / "nowhere/down/state.npz", False, None)
    assert contents["weights"] == store.weights("one", 0).read_bytes()
    assert not (copy / "nowhere").exists()
    assert not list((copy / "tmp").rglob("*.npz"))


def test_a_packed_run_is_trained_elsewhere_and_its_valid_cells_are_imported(copy, tmp_path, monkeypatch, capsys):
    before = results(copy)
    rewrite(OTHER, {}, key="0" * 16)  # of another plan
    outdated = (OTHER / "cell.json").read_bytes()
    for name in ("one/fold0", "two/fold1"):
        shutil.rmtree(f"artifacts/cells/{name}")
    shutil.copytree(ROOT / "pipeline", "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree("data/folds")  # as after an edit of params.yaml
    shutil.rmtree("artifacts/students/pupil/fold0")
    soft_targets.path("pupil").unlink()
    pack.pack(tmp_path / "run.tar.gz")
    shutil.unpack_archive(tmp_path / "run.tar.gz", tmp_path / "there", filter="data")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "there")
        train.main_all(1, "loky", None, yes=True)
        shutil.make_archive(tmp_path / "complete", "gztar", ".", "artifacts")
        rewrite(OTHER, {})  # damaged
        another = Path("artifacts/cells/two/fold1")
        rewrite(another, dict(np.load(another / "predictions.npz")), key="0" * 16)
        shutil.make_archive(tmp_path / "cells", "gztar", ".", "artifacts")
    pack.unpack(tmp_path / "cells.tar.gz")
    pupil = "artifacts/students/pupil/fold0"  # of incomplete teachers; fold 1 is the same here and there
    assert f": {OTHER}, artifacts/cells/two/fold1, {pupil}\n" in capsys.readouterr().err
    new = {f"cells/two/{each}" for each in ("fold0/predictions.npz", "fold1/predictions.npz", "fold1/history.csv")}
    assert {name for name in changed(before, results(copy)) if name.startswith("cells")} == new
    assert (OTHER / "cell.json").read_bytes() == outdated
    pack.unpack(tmp_path / "complete.tar.gz")
    assert results(copy).keys() == before.keys()
    assert train.start().finished("pupil", 0)
    refuses("is damaged or cannot be unpacked", pack.unpack, Path("params.yaml"))
    refuses(r"make unpack FILE=", pack.unpack, Path())
    shutil.make_archive(tmp_path / "deeper", "gztar", tmp_path, "there/artifacts")
    refuses("neither artifacts/cells", pack.unpack, tmp_path / "deeper.tar.gz")


# Interruptions


def test_two_processes_cannot_train_the_same_cell(project):
    lock = (train.CHECKPOINTS / train.start().task("one", 0).checkpoint).with_suffix(".lock")
    with files.locked(lock, "tests"), pytest.raises(UserError, match=r"trains one fold 0.*\.lock"):
        train.main("one", "0")


def test_a_full_disk_while_a_cell_is_written_loses_no_epoch(project, monkeypatch):
    write = files.write

    def full(path, content):
        if path.name == "cell.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    with patch.object(files, "write", full), pytest.raises(OSError, match="No space left"):
        train.main("one", "0")
    assert not train.start().finished("one", 0)
    monkeypatch.setattr(progress.Display, "batch", lambda *_: pytest.fail("a batch was trained again"))
    train.main("one", "0")
    assert train.start().finished("one", 0)


def test_an_empty_lock_of_dvc_is_an_error_with_its_remedy(stand):
    files.write(Path(".dvc/tmp/rwlock"), b"")
    refuses(r"rm \.dvc/tmp/rwlock", planning.dvc, "status")


def test_an_interrupted_training_resumes_after_its_last_epoch(project, monkeypatch, capsys):
    def stop(display, state):
        display.done = len(state.history)
        raise KeyboardInterrupt

    with patch.object(progress.Display, "epoch", stop), pytest.raises(KeyboardInterrupt, match="one fold 0: 1 of 2"):
        train.main("one", "0")
    assert not store.folder(train.start().settings, "one", 0).exists()
    train.main("one", "0")
    assert "resumes after epoch 1" in capsys.readouterr().out
    assert load().about.model == "one"


EXECUTORS = ["loky", *(pytest.param(each, marks=pytest.mark.slow) for each in ("dask", "ray"))]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_training_killed_at_a_random_time_resumes_and_gives_equal_bytes(executor, trained, tmp_path, monkeypatch):
    """Runs two worker processes in a copy of the code with tiny networks."""
    small.project(tmp_path, monkeypatch, students={}, ensemble={"members": ["one"]})
    shutil.copytree(ROOT / "pipeline", "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    small.tiny.write(tmp_path / "pipeline", "mini_xception")
    words = [sys.executable, "-m", "pipeline", "train", "--jobs", "2", "--executor", executor, "--yes"]
    seed = random.randrange(10**6)
    epochs = []
    for delay in (random.Random(seed).uniform(0, 1), None):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            for line in process.stdout:
                if "/2  loss" in line:
                    epochs.append(line.split("loss")[0])
                    if delay is not None and len(epochs) == 1:
                        time.sleep(delay)
                        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    assert len(set(epochs)) == len(epochs), f"an epoch was trained twice (seed {seed}): {epochs}"
    assert len(results(tmp_path)) == 12
    assert results(tmp_path).items() <= results(trained).items(), f"seed {seed}"
    assert not list(Path("artifacts/checkpoints").glob("*fold*"))
