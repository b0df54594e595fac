"""A cell is trained from files to files: what identifies it, what it leaves behind, and nothing else."""

from pipeline import backend  # isort: skip  (before Keras, whose start it quiets)

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline import architectures, fit, folds, params, train
from pipeline.command import Refusal
from pipeline.competition import PRIVATE, PUBLIC, TRAINING
from pipeline.faces import Faces
from pipeline.recipe import Recipe

ROOT = Path(__file__).parent.parent
RECIPE = Recipe(
    epochs=2, batch_size=8, optimizer="adam", learning_rate=0.001, schedule="plateau", plateau_factor=0.5,
    plateau_patience=2, loss="categorical", scaling="symmetric", rotation=10.0, shift=0.1, zoom=0.1, flip=True,
    flip_at_test=True, recalibrate=False, precision="bfloat16",
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


def key(**changes: Any) -> str:
    data, _, fold_of = made_up()
    facts = {
        "data": data, "fold_of": fold_of, "settings": RECIPE, "architecture": NETWORK, "fold": FOLD, "seed": SEED,
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
}
OTHER_RECIPE = {
    "epochs": 3, "batch_size": 9, "optimizer": "sgd", "learning_rate": 0.0010001, "schedule": "cosine",
    "plateau_factor": 0.6, "plateau_patience": 3, "loss": "binary", "scaling": "raw", "rotation": 11.0, "shift": 0.2,
    "zoom": 0.2, "flip": False, "flip_at_test": False, "recalibrate": True,
    "precision": "float32",
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
    monkeypatch.setattr(train, "__file__", str(tmp_path / "pipeline/train.py"))
    assert key() == before
    with open(tmp_path / f"pipeline/{module}.py", "a") as file:
        file.write("# changed\n")
    assert key() != before


def test_fingerprint_stays_where_another_network_or_stage_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key()
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    monkeypatch.setattr(train, "__file__", str(tmp_path / "pipeline/train.py"))
    for module in ("architectures/vgg8", "prepare"):
        (tmp_path / f"pipeline/{module}.py").write_text("")
    assert key() == before


def test_code_is_what_the_stage_depends_on_in_dvc_yaml() -> None:
    stage = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]["train"]
    modules = [path.removeprefix("pipeline/").removesuffix(".py") for path in stage["deps"] if path.endswith(".py")]
    assert sorted(modules) == sorted([*train.CODE, "architectures/${item.architecture}"])


# forget, span


def test_forget_deletes_the_checkpoints_of_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Path("artifacts/checkpoints")
    checkpoints.mkdir(parents=True)
    own = {"vgg8-fold1-aa.npz", "vgg8-fold1-bb.npz", "vgg8-fold1-aa.part"}
    others = {"vgg8-fold10-aa.npz", "vgg8-fold0-aa.npz", "vgg80-fold1-aa.npz", "my_vgg8-fold1-aa.npz", "vgg8-fold11-a"}
    for name in own | others:
        (checkpoints / name).touch()

    def left() -> set[str]:
        return {path.name for path in checkpoints.iterdir()}

    train.forget("vgg8", 1, keep=checkpoints / "vgg8-fold1-bb.npz")
    assert left() == others | {"vgg8-fold1-bb.npz"}
    train.forget("vgg8", 1)
    assert left() == others


def test_forget_has_nothing_to_do_where_no_checkpoint_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train.forget("vgg8", 1)
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
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, train.Cell]:
    """A cell that was trained and written without interruption, and the folder it was written in."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data, rows, fold_of = made_up()
        cell = train.train(data, rows, fold_of, NETWORK, FOLD, RECIPE, SEED)
        train.write(cell, train.paths(NETWORK, FOLD))
    return folder / "artifacts", cell


def test_cell_judges_the_held_out_rows_and_all_test_rows(trained: tuple[Path, train.Cell]) -> None:
    _, rows, fold_of = made_up()
    _, cell = trained
    assert (cell.rows == rows[fold_of == FOLD]).all()
    assert cell.rows.dtype == "int32"
    for probabilities, count in ((cell.validation, len(cell.rows)), (cell.test, 112)):
        assert probabilities.shape == (count, 7)
        assert probabilities.dtype == "float32"
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)


def test_files_have_the_names_and_forms_that_others_rely_on(trained: tuple[Path, train.Cell]) -> None:
    artifacts, cell = trained
    names = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("checkpoints/")} == {
        "models/mini_xception/fold1.weights.h5",
        "predictions/mini_xception/fold1.npz",
        "histories/mini_xception/fold1.csv",
        "timings/mini_xception/fold1.json",
    }
    with np.load(artifacts / "predictions/mini_xception/fold1.npz") as saved:
        assert {name: (saved[name].dtype.name, saved[name].shape) for name in saved} == {
            "rows": ("int32", (28,)),
            "validation": ("float32", (28, 7)),
            "test": ("float32", (112, 7)),
        }
        assert all((saved[name] == getattr(cell, name)).all() for name in saved)
    history = pd.read_csv(artifacts / "histories/mini_xception/fold1.csv")
    assert tuple(history.columns) == fit.HISTORY
    assert history["epoch"].tolist() == [1, 2]
    assert np.isfinite(history.to_numpy()).all()
    timing = json.loads((artifacts / "timings/mini_xception/fold1.json").read_text())
    assert timing == {"seconds": timing["seconds"], "parameters": 58_423, **backend.versions()}
    assert timing["seconds"] > 0


def test_saved_weights_give_the_predictions_again(trained: tuple[Path, train.Cell]) -> None:
    artifacts, cell = trained
    data, _, _ = made_up()
    network = architectures.build(NETWORK)
    network.load_weights(artifacts / "models/mini_xception/fold1.weights.h5")
    again = fit.Predictor(fit.Feed(data.pixels, RECIPE), network)
    np.testing.assert_allclose(again.probabilities(data.test_rows(), RECIPE.flip_at_test), cell.test, atol=1e-6)


def weights(file: Path) -> list[bytes]:
    network = architectures.build(NETWORK)
    network.load_weights(file)
    return [weight.tobytes() for weight in network.get_weights()]


def stop(display: train.Display, progress: fit.Progress) -> None:
    raise KeyboardInterrupt


def project(folder: Path) -> None:
    """What the command reads: params.yaml, data/faces.npz, data/folds.csv."""
    data, rows, fold_of = made_up()
    data.save(folder / "data/faces.npz")
    pd.DataFrame({"row": rows, "fold": fold_of}).to_csv(folder / "data/folds.csv", index=False)
    document = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    own = {"seed": SEED, "folds": [0, 1], "train": RECIPE.model_dump(), "architectures": {NETWORK: None}}
    with open(folder / "params.yaml", "w") as file:
        YAML(typ="safe", pure=True).dump(document | own, file)


def test_command_gives_the_same_bytes_and_keeps_no_checkpoint_even_if_it_was_stopped_on_the_way(
    trained: tuple[Path, train.Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    params.document.cache_clear()
    project(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train.Display, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            train.main(NETWORK, str(FOLD))
    assert [path.parent.name for path in tmp_path.rglob("artifacts/**/*") if path.is_file()] == ["checkpoints"]
    train.main(NETWORK, str(FOLD))
    params.document.cache_clear()
    assert "mini_xception fold 1  went on from epoch 1\n" in capsys.readouterr().out

    written = {path.relative_to(tmp_path / "artifacts") for path in tmp_path.rglob("artifacts/**/*") if path.is_file()}
    assert {path.parts[0] for path in written} == {"models", "predictions", "histories", "timings"}
    for path in written:
        first, again = trained[0] / path, tmp_path / "artifacts" / path
        if path.parts[0] == "models":
            assert weights(first) == weights(again)  # for the file's own bytes see the next test
        elif path.parts[0] != "timings":
            assert first.read_bytes() == again.read_bytes(), path


def test_weights_file_is_the_same_whatever_the_process_built_before(tmp_path: Path) -> None:
    files = [tmp_path / "first.weights.h5", tmp_path / "again.weights.h5"]
    for file in files:
        backend.prepare(SEED, "float32")
        architectures.build(NETWORK).save_weights(file)
    assert weights(files[0]) == weights(files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("fold", ["2", "-1", "01", "", "x"])
def test_command_refuses_a_fold_that_params_yaml_does_not_have(
    fold: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params.document.cache_clear()
    project(tmp_path)
    with pytest.raises(Refusal, match=rf"there is no fold '{fold}'; params.yaml has 0, 1"):
        train.main(NETWORK, fold)
    params.document.cache_clear()
