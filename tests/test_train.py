"""A cell is trained from files to files: what identifies it, what it leaves behind, and nothing else."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pipeline.recipe import Recipe
from pipeline.stages import train
from pipeline.training.cells import PLACES
from ruamel.yaml import YAML

from pipeline import architectures, params
from pipeline.competition import CLASSES, PRIVATE, PUBLIC, TRAINING
from pipeline.data import folds
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.training import augment, backend, loop, machine

ROOT = Path(__file__).parent.parent
RECIPE = Recipe(
    epochs=2, batch_size=8, optimizer="adam", weight_decay=0.0, learning_rate=0.001, schedule="plateau", warmup=0.0,
    plateau_factor=0.5, plateau_patience=2, average=0.0, loss="categorical", label_smoothing=0.0, contrast="none",
    scaling="symmetric", crop=48, rotation=10.0, shift=0.1, zoom=0.1, flip=True, erase=0.2, mixup=0.2, cutmix=0.2,
    plain_epochs=0, early_epochs=0, early_side=36, flip_at_test=True, shift_at_test=2, zoom_at_test=0.1,
    recalibrate=False, precision="float32",
)  # fmt: skip
SEED, FOLD, NETWORK = 7, 1, "mini_xception"


def made_up() -> tuple[Faces, np.ndarray, np.ndarray]:
    """8 faces a class in each split, the splits shuffled, and the Training rows with the fold (0 or 1) of each."""
    chance = np.random.default_rng(0)
    usage = chance.permutation(np.repeat([TRAINING, PUBLIC, PRIVATE], 56)).astype("uint8")
    labels = np.full(168, -1, "int8")
    labels[usage == TRAINING] = chance.permutation(np.arange(56) % 7)
    data = Faces(chance.integers(0, 256, (168, 48, 48)).astype("uint8"), labels, usage)
    rows = data.rows(TRAINING)
    return data, rows, folds.deal(labels[rows], np.arange(56), 2, seed=0)


def planned(fold: int = FOLD, settings: Recipe = RECIPE, **changes: Any) -> train.Cell:
    """The cell that the tests train, as `train.plan` makes it."""
    data, _, fold_of = made_up()
    key = train.fingerprint(data, fold_of, settings, NETWORK, fold, SEED, "auto")
    code = train.code_digest(NETWORK)
    return replace(train.Cell(NETWORK, fold, SEED, "tensorflow", settings, key, code), **changes)


def key(**changes: Any) -> str:
    data, _, fold_of = made_up()
    facts = {
        "data": data, "fold_of": fold_of, "settings": RECIPE, "architecture": NETWORK, "fold": FOLD, "seed": SEED,
        "wanted": "auto",
    }  # fmt: skip
    return train.fingerprint(**facts | changes)


def changed(array: np.ndarray, place: Any, value: int) -> np.ndarray:
    copy = array.copy()
    assert copy[place] != value
    copy[place] = value
    return copy


# fingerprint


def test_fingerprint_is_sixteen_digits_and_the_same_for_equal_ingredients() -> None:
    assert key() == key(settings=Recipe.model_validate(RECIPE.model_dump()))
    assert len(key()) == 16
    assert int(key(), 16) >= 0


DATA, ROWS, FOLD_OF = made_up()
OTHER = {
    "a pixel": {"data": replace(DATA, pixels=changed(DATA.pixels, (167, 47, 47), DATA.pixels[167, 47, 47] ^ 1))},
    "a label": {"data": replace(DATA, labels=changed(DATA.labels, ROWS[0], (DATA.labels[ROWS[0]] + 1) % 7))},
    "a row's fold": {"fold_of": changed(FOLD_OF, 0, 1 - FOLD_OF[0])},
    "the architecture": {"architecture": "vgg8"},
    "the fold": {"fold": 0},
    "the seed": {"seed": 8},
    "the library": {"wanted": "jax"},
}
OTHER_RECIPE = {
    "epochs": 3, "batch_size": 9, "optimizer": "sgd", "weight_decay": 0.1, "learning_rate": 0.0010001,
    "schedule": "cosine", "warmup": 0.1, "plateau_factor": 0.6, "plateau_patience": 3, "average": 0.9, "loss": "binary",
    "label_smoothing": 0.1, "contrast": "local", "scaling": "raw", "crop": 47, "rotation": 11.0, "shift": 0.2,
    "zoom": 0.2, "flip": False, "erase": 0.1, "mixup": 0.1, "cutmix": 0.1, "plain_epochs": 1, "early_epochs": 1,
    "early_side": 24, "flip_at_test": False, "shift_at_test": 1, "zoom_at_test": 0.2, "recalibrate": True,
    "precision": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER.keys())
def test_fingerprint_changes_with_each_ingredient(other: dict[str, Any]) -> None:
    assert key(**other) != key()


@pytest.mark.parametrize("field", Recipe.model_fields)
def test_fingerprint_changes_with_each_field_of_the_recipe(field: str) -> None:
    assert key(settings=RECIPE.model_copy(update={field: OTHER_RECIPE[field]})) != key()


def test_fingerprint_swaps_of_fold_and_seed_differ() -> None:
    assert key(fold=1, seed=0) != key(fold=0, seed=1)


@pytest.mark.parametrize("module", [*train.CODE, f"architectures/{NETWORK}"])
def test_fingerprint_changes_with_each_module_that_has_a_part(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key()
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    monkeypatch.setattr(train, "__file__", str(tmp_path / "pipeline/stages/train.py"))
    assert key() == before
    with open(tmp_path / f"pipeline/{module}.py", "a") as file:
        file.write("# changed\n")
    assert key() != before


def test_fingerprint_stays_where_another_network_or_stage_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key()
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    monkeypatch.setattr(train, "__file__", str(tmp_path / "pipeline/stages/train.py"))
    for module in ("architectures/vgg8", "prepare"):
        (tmp_path / f"pipeline/{module}.py").write_text("")
    assert key() == before


def test_code_is_what_the_stage_depends_on_in_dvc_yaml() -> None:
    stage = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]["train"]
    modules = [path.removeprefix("pipeline/").removesuffix(".py") for path in stage["deps"] if path.endswith(".py")]
    assert sorted(modules) == sorted([*train.CODE, "architectures/${item.architecture}"])


# forget, span


@pytest.mark.parametrize(
    "change",
    [
        {"key": "0" * 16},
        {"settings": RECIPE.model_copy(update={"precision": "bfloat16"})},
        {"library": "keras"},  # stands for any other package that is installed
        {"fold": 0},
        {"architecture": "vgg8"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_checkpoint_is_another_for_other_settings_and_for_whatever_else_computes(change: dict[str, Any]) -> None:
    assert planned().checkpoint() == planned().checkpoint()
    assert replace(planned(), **change).checkpoint() != planned().checkpoint()


def test_forget_deletes_the_checkpoints_of_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Path("artifacts/checkpoints")
    checkpoints.mkdir(parents=True)
    own = {"vgg8-fold1-aa.npz", "vgg8-fold1-bb.npz", "vgg8-fold1-aa.npz.x.part"}
    others = {"vgg8-fold10-a.npz", "vgg8-fold0-aa.npz", "vgg80-fold1-aa.npz", "my_vgg8-fold1-a.npz"}
    for name in own | others:
        (checkpoints / name).touch()
    os.utime(checkpoints / "vgg8-fold1-aa.npz.x.part", (0, 0))
    being_written = {"vgg8-fold1-aa.npz.y.part"}
    (checkpoints / "vgg8-fold1-aa.npz.y.part").touch()

    def left() -> set[str]:
        return {path.name for path in checkpoints.iterdir()}

    train.forget("vgg8-fold1-*", keep=frozenset({checkpoints / "vgg8-fold1-bb.npz"}))
    assert left() == others | being_written | {"vgg8-fold1-bb.npz"}
    train.forget("vgg8-fold1-*")
    assert left() == others | being_written
    train.forget("*")
    assert left() == being_written


def test_forget_does_not_mind_a_file_that_another_process_has_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = [train.CHECKPOINTS / name for name in ("a.npz.x.part", "a.npz", "b.npz")]
    train.CHECKPOINTS.mkdir(parents=True)
    listed[2].touch()
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(listed))
    train.forget("*")
    assert not listed[2].exists()


def test_forget_has_nothing_to_do_where_no_checkpoint_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train.forget("*")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.4, "1 s"),
        (59.6, "60 s"),
        (89.9, "90 s"),
        (91, "2 min"),
        (3600, "60 min"),
        (5940, "99 min"),
        (6000, "1 h 40 min"),
        (7200, "2 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_span_says_a_duration_as_people_do(seconds: float, text: str) -> None:
    assert train.span(seconds) == text


# train, write, main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A cell that was trained and written without interruption: the folder, and the content of its files."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        contents = train.train(*made_up(), planned(), planned().checkpoint())
        train.write(planned(), contents)
    return folder / "artifacts", contents


def test_cell_judges_the_held_out_rows_and_all_test_rows(trained: tuple[Path, dict[str, bytes]]) -> None:
    _, rows, fold_of = made_up()
    with np.load(io.BytesIO(trained[1]["predictions"])) as saved:
        assert (saved["rows"] == rows[fold_of == FOLD]).all()
        for name, count in (("validation", 28), ("test", 112)):
            assert saved[name].shape == (count, 7)
            np.testing.assert_allclose(saved[name].sum(1), 1, rtol=1e-6)


def test_files_have_the_names_and_forms_that_others_rely_on(trained: tuple[Path, dict[str, bytes]]) -> None:
    artifacts, _ = trained
    assert {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()} == {
        "models/mini_xception/fold1.weights.h5",
        "models/mini_xception/fold1.json",
        "predictions/mini_xception/fold1.npz",
        "histories/mini_xception/fold1.csv",
        "timings/mini_xception/fold1.json",
    }
    with np.load(artifacts / "predictions/mini_xception/fold1.npz") as saved:
        assert {name: (saved[name].dtype.name, saved[name].shape) for name in saved} == {
            "rows": ("int32", (28,)),
            "validation": ("float32", (28, 7)),
            "test": ("float32", (112, 7)),
            "validation_plain": ("float32", (28, 7)),
            "test_plain": ("float32", (112, 7)),
        }
    about = json.loads((artifacts / "models/mini_xception/fold1.json").read_text())
    assert about == {"architecture": NETWORK, "classes": list(CLASSES), "recipe": RECIPE.model_dump(), "fold": FOLD,
                     "seed": SEED}  # fmt: skip
    history = pd.read_csv(artifacts / "histories/mini_xception/fold1.csv")
    assert tuple(history.columns) == loop.HISTORY
    assert history["epoch"].tolist() == [1, 2]
    assert np.isfinite(history.to_numpy()).all()
    timing = json.loads((artifacts / "timings/mini_xception/fold1.json").read_text())
    facts = {"parameters": 58_423, "key": planned().key, "precision": RECIPE.precision}
    facts |= machine.versions("tensorflow") | {"processor": machine.processor()}
    facts["weights"] = hashlib.sha256((artifacts / "models/mini_xception/fold1.weights.h5").read_bytes()).hexdigest()
    assert timing == {"seconds": timing["seconds"], **facts}
    assert timing["seconds"] > 0


def test_saved_weights_give_the_predictions_again(trained: tuple[Path, dict[str, bytes]]) -> None:
    artifacts, contents = trained
    data, _, _ = made_up()
    network = architectures.build(NETWORK)
    network.load_weights(artifacts / "models/mini_xception/fold1.weights.h5")
    again = loop.Predictor(loop.Feed(data.pixels, RECIPE), network)
    found = again.views(data.test_rows(), augment.views(RECIPE))
    assert len(found) == 14
    with np.load(io.BytesIO(contents["predictions"])) as saved:
        np.testing.assert_allclose(found.mean(axis=0), saved["test"], atol=1e-6)
        np.testing.assert_allclose(found[0], saved["test_plain"], atol=1e-6)
        assert abs(saved["test"] - saved["test_plain"]).max() > 1e-4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the command reads: params.yaml, data/faces.npz, data/folds.csv. The test stands in it."""
    monkeypatch.chdir(tmp_path)
    data, rows, fold_of = made_up()
    data.save()
    pd.DataFrame({"row": rows, "fold": fold_of}).to_csv("data/folds.csv", index=False)
    set_params()
    return tmp_path


def set_params(**changes: Any) -> None:
    """Write params.yaml with RECIPE, but for `changes`."""
    document = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    own = {"seed": SEED, "folds": [0, 1], "train": RECIPE.model_dump() | changes, "architectures": {NETWORK: None}}
    with open("params.yaml", "w") as file:
        YAML(typ="safe", pure=True).dump(document | own, file)
    params.document.cache_clear()


def written() -> dict[str, bytes]:
    """Every file under artifacts/ but the timings, by name."""
    found = {str(path.relative_to("artifacts")): path for path in Path("artifacts").rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("timings/")}


def same_as(trained: tuple[Path, dict[str, bytes]], names: dict[str, bytes]) -> bool:
    """Whether the files of `names` that fold 1 left are those of the uninterrupted training, byte for byte."""
    wanted = {f"{kind}/{NETWORK}/fold1.{end}" for kind, end in
              (("models", "weights.h5"), ("models", "json"), ("predictions", "npz"), ("histories", "csv"))}  # fmt: skip
    own = {name: content for name, content in names.items() if "fold1" in name}
    return set(own) == wanted and all((trained[0] / name).read_bytes() == content for name, content in own.items())


@pytest.mark.parametrize("held_out", [True, False])
def test_an_epochs_line_tells_of_held_out_rows_where_there_are_any(
    held_out: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    last = {"loss": 1.5, "accuracy": 0.4, "val_loss": 1.25, "val_accuracy": 0.5}
    train.Display("vgg8 fold 0", 10, watched=False, judged=held_out).epoch(loop.Progress([last], seconds=30.0))
    middle = "validation loss 1.2500  accuracy 50.00%  " if held_out else ""
    line = f"vgg8 fold 0  epoch  1/10  loss 1.5000  accuracy 40.00%  {middle}30 s an epoch, 4 min left\n"
    assert capsys.readouterr().out == line


def stop(display: train.Display, progress: loop.Progress) -> None:
    display.done = len(progress.history)
    raise KeyboardInterrupt


def test_command_says_where_it_was_stopped_and_goes_on_to_the_same_bytes(
    trained: tuple[Path, dict[str, bytes]],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train.Display, "epoch", stop)
        with pytest.raises(KeyboardInterrupt, match="mini_xception fold 1: 1 of 2 epochs are kept"):
            train.main(NETWORK, str(FOLD))
    assert {name.split("/")[0] for name in written()} == {"checkpoints"}
    train.main(NETWORK, str(FOLD))
    assert "mini_xception fold 1  went on from epoch 1\n" in capsys.readouterr().out
    assert same_as(trained, written())


def command(**environment: str) -> subprocess.Popen[str]:
    """The command without a cell, in a process group of its own."""
    words = [sys.executable, "-m", "pipeline.stages.train"]
    return subprocess.Popen(
        words, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def test_killed_at_random_moments_it_loses_an_epoch_at_most_and_ends_with_the_same_bytes(
    trained: tuple[Path, dict[str, bytes]], project: Path
) -> None:
    chance = random.Random()
    kills, epochs = [], []
    for _ in range(2):  # a finished run takes about ten seconds; most of these moments lie in it
        process = command()
        time.sleep(delay := chance.uniform(4, 12))
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0]
        kills.append(round(delay, 2))
        epochs.append([line for line in output.splitlines() if "epoch " in line])
        # What was reported is kept: no line of an epoch is ever seen twice.
        seen = [line.split("loss")[0].split("  epoch ") for run in epochs for line in run if "/2  loss" in line]
        assert len({tuple(line) for line in seen}) == len(seen), (kills, epochs)
    process = command()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, (kills, output)
    names = written()
    assert same_as(trained, names), (kills, epochs)
    assert not [name for name in names if name.startswith("checkpoints/")], kills
    done = command()
    assert "0 of 2 cells are out of date" in done.communicate(timeout=60)[0]


@pytest.mark.parametrize("where", ["loky", *(pytest.param(each, marks=pytest.mark.slow) for each in ("dask", "ray"))])
def test_two_workers_write_the_bytes_of_a_single_cell(
    where: str, trained: tuple[Path, dict[str, bytes]], project: Path
) -> None:
    process = command(JOBS="2", BACKEND=where)
    output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output
    assert "finished, cell 2 of 2" in output
    names = written()
    assert len(names) == 8
    assert same_as(trained, names)


def contents_of(cell: train.Cell) -> dict[str, bytes]:
    """The files of a cell, empty but for what says whose they are."""
    timing = {"key": cell.key, "weights": hashlib.sha256(b"").hexdigest()}
    return dict.fromkeys(PLACES, b"") | {"timing": json.dumps(timing).encode()}


def test_only_cells_that_are_out_of_date_are_trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pretend(data: Faces, rows: np.ndarray, fold_of: np.ndarray, cell: train.Cell, *rest: Any) -> dict[str, bytes]:
        asked.append(str(cell))
        return contents_of(cell)

    monkeypatch.setattr(train, "train", pretend)

    def ran() -> list[str]:
        asked.clear()
        params.document.cache_clear()
        train.main()
        return sorted(asked)

    both = ["mini_xception fold 0", "mini_xception fold 1"]
    assert ran() == both
    assert ran() == []
    for path in planned(0).paths().values():
        content = path.read_bytes()
        path.unlink()
        assert ran() == both[:1], path
        path.write_bytes(content)
    Path("artifacts/timings/mini_xception/fold1.json").write_text("{")
    assert ran() == both[1:]
    planned(0).paths()["weights"].write_bytes(b"of another training")  # git has brought the rest
    assert ran() == both[:1]
    stale = Path("artifacts/checkpoints/vgg8-fold0-0123456789abcdef.npz")
    stale.parent.mkdir(exist_ok=True)
    stale.touch()
    set_params(zoom=0.2)
    assert ran() == both
    assert not stale.exists()
    set_params(zoom=0.2, flip_at_test=False)
    train.main(NETWORK)
    assert len(asked) == 4


def test_worker_with_other_code_refuses(project: Path) -> None:
    with pytest.raises(UserError, match="has another version of the pipeline's code; install it there anew"):
        train.train(*made_up(), planned(code="0" * 16), planned().checkpoint())


def test_worker_without_the_projects_folder_keeps_its_state_elsewhere_and_leaves_nothing(
    trained: tuple[Path, dict[str, bytes]], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.tempfile, "tempdir", str(project / "tmp"))
    (project / "tmp").mkdir()
    contents = train.train(*made_up(), planned(), project / "nowhere" / planned().checkpoint())
    assert {kind: contents[kind] for kind in ("weights", "predictions", "history")} == {
        kind: trained[1][kind] for kind in ("weights", "predictions", "history")
    }
    assert not (project / "nowhere").exists()
    assert not [path for path in (project / "tmp").rglob("*") if path.is_file()]


def test_dvc_is_told_of_no_cell_that_params_yaml_has_left_behind(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".dvc").mkdir()
    Path("dvc.yaml").touch()
    told: list[list[str]] = []

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        told.append(words[-1:])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(train.subprocess, "run", run)
    cells = train.planned()[3]
    for cell in cells:
        train.write(cell, contents_of(cell))
    train.accept(cells[:1])
    assert told == [["train@mini_xception-0"]]
    set_params(zoom=0.2)
    train.accept(cells)
    assert len(told) == 1


def test_params_yaml_that_is_being_edited_stops_no_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train.subprocess, "run", lambda *words, **options: pytest.fail("DVC was told"))
    cells = train.planned()[3]
    for text in ("architectures: {", "seed: 1"):
        params.PATH.write_text(text)
        train.accept(cells)
        assert "what is finished is kept, and DVC hears of it at the next start" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["backend", "precision"])
def test_auto_is_refused_for_a_cluster(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("ADDRESS", "tcp://127.0.0.1:1")
    if name == "precision":
        monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
        set_params(precision="auto")
    with pytest.raises(UserError, match="backend and precision must not be auto for a cluster"):
        train.main()


def test_full_disk_is_told_in_one_sentence_and_leaves_nothing_half_written(project: Path) -> None:
    """A file may grow to 500 kB, then the system refuses, as it does on a full disk: mini_xception's state is 1 MB."""
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000));"
        "sys.argv = ['train', 'mini_xception', '1']; runpy.run_module('pipeline.stages.train', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: File too large (artifacts/checkpoints/mini_xception-fold1-"), done.stderr
    assert "Traceback" not in done.stderr
    assert not written()


def test_weights_file_is_the_same_whatever_the_process_built_before(tmp_path: Path) -> None:
    files = [tmp_path / "first.weights.h5", tmp_path / "again.weights.h5"]
    for file in files:
        backend.prepare(SEED, "float32")
        architectures.build(NETWORK).save_weights(file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("fold", ["2", "-1", "01", "", "x"])
def test_command_refuses_a_fold_that_params_yaml_does_not_have(fold: str, project: Path) -> None:
    with pytest.raises(UserError, match=rf"there is no fold '{fold}'; params.yaml has 0, 1"):
        train.main(NETWORK, fold)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_command_refuses_a_number_of_jobs_that_is_none(
    text: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS", text)
    with pytest.raises(UserError, match=f"JOBS={text}: must be a whole number from 1 up"):
        train.main()
