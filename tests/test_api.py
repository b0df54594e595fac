"""The interface for notebooks: it works from any folder, and answers as the stages do."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image

from pipeline import api, config
from pipeline.competition import CLASSES
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import ensemble

ROOT = Path(__file__).parent.parent
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype("uint8")


@pytest.fixture(scope="module")
def released():
    return api.network(project=ROOT)


def test_arrays_paths_and_images_give_the_same(released, tmp_path):
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    table = released.predict(PIXELS)
    assert list(table) == list(CLASSES)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    for same in (PIXELS / 255.0, paths, [str(path) for path in paths], [Image.open(path) for path in paths]):
        np.testing.assert_allclose(released.predict(same), table, atol=1e-6)


def test_large_coloured_pictures_are_taken_and_what_is_none_is_refused(released, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.png"):
        released.predict([tmp_path / "a.png"])
    large = Image.fromarray(PIXELS[0]).resize((96, 96), Image.Resampling.NEAREST).convert("RGB")
    np.testing.assert_array_equal(api.grey(large), PIXELS[0])
    with pytest.raises(UserError, match="48"):
        released.predict(np.zeros((2, 32, 32), "uint8"))
    with pytest.raises(UserError, match="unknown network"):
        api.network("resnet", ROOT)


def test_predictions_are_loaded_blended_scored_and_saved(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    small.project(tmp_path / "project", monkeypatch, students={}, ensemble={"members": ["one", "two"]})
    chance, data = np.random.default_rng(1), faces.load()
    made = {name: ensemble.Predictions(chance.dirichlet(np.ones(7), 168), chance.dirichlet(np.ones(7), 42))
            for name in ("one", "two", "ensemble")}  # fmt: skip
    for name, each in made.items():
        ensemble.save(name, each, data, folds.load(data))
    monkeypatch.chdir(tmp_path)
    run = api.predictions(tmp_path / "project")
    assert list(run.oof) == ["one", "two", "ensemble"]
    np.testing.assert_array_equal(run.labels, data.labels[data.labels >= 0])
    mixed = api.blend([run.oof["one"], run.oof["two"]], weights=[1, 3])
    np.testing.assert_allclose(mixed, 0.25 * made["one"].oof + 0.75 * made["two"].oof, rtol=1e-5)
    found = api.score(mixed, run.labels)
    assert found["low"] < found["accuracy"] == (mixed.argmax(axis=1) == run.labels).mean() < found["high"]
    assert {"macro_f1", "log_loss", "brier"} <= found.keys()
    api.save(run.test["one"], "mine.csv")
    assert Path("mine.csv").read_text().split() == [str(one) for one in made["one"].test.argmax(axis=1)]
    shutil.rmtree("project/artifacts/blends")
    with pytest.raises(UserError, match="dvc repro"):
        api.predictions("project")
    assert Path.cwd() == tmp_path
    config.load.cache_clear()
