"""The interface for notebooks works from any folder, and agrees with the stages."""

import shutil
from pathlib import Path

import fake_run
import numpy as np
import pytest
from PIL import Image
from settings import ROOT, refuses

from pipeline import api
from pipeline.apps import detect
from pipeline.competition import CLASSES
from pipeline.evaluation import ensemble

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype("uint8")


@pytest.fixture(scope="module")
def released():
    return api.network(project=ROOT)


def test_arrays_paths_and_images_give_equal_predictions(released, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    table = released.predict(PIXELS)
    assert list(table) == list(CLASSES)
    for same in (PIXELS / 255.0, [str(path) for path in paths], [Image.open(path) for path in paths]):
        np.testing.assert_allclose(released.predict(same), table, atol=1e-6)
    np.testing.assert_allclose(released.predict([paths[0], PIXELS[1] / 255, PIXELS[2][..., None]]), table, atol=1e-6)
    np.testing.assert_allclose(released.predict(paths[0]), table[:1], atol=1e-6)
    assert released.predict([]).shape == (0, 7)
    many = released.predict(np.tile(PIXELS, (50, 1, 1)))
    np.testing.assert_allclose(many, np.tile(table, (50, 1)), atol=1e-6)


def test_large_coloured_pictures_are_converted_and_invalid_input_is_an_error(released, tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    bad = {r"a\.png": [tmp_path / "a.png"], "floats": Image.new("F", (48, 48)), "48": np.zeros((2, 32, 32), "uint8")}
    for message, wrong in bad.items():
        refuses(message, released.predict, wrong)
    large = Image.fromarray(PIXELS[0]).resize((120, 96)).convert("RGB")
    _, crops = detect.faces(np.asarray(large), None, 1)  # as with --no-detect
    np.testing.assert_array_equal(api.grey(large), crops[0])
    refuses("unknown network", api.network, "resnet", ROOT)
    refuses("not the folder of a clone", api.network, project=tmp_path / "elsewhere")


def test_predictions_are_loaded_blended_scored_and_saved(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    _, data, assignment = fake_run.build()
    ensemble.main()
    first, second = (ensemble.load(name, data, assignment) for name in fake_run.MODELS)
    monkeypatch.chdir(tmp_path)
    run = api.predictions(tmp_path / "project")
    np.testing.assert_array_equal(run.labels, data.labels[data.labels >= 0])
    mixed = api.blend([run.oof[name] for name in fake_run.MODELS], weights=[1, 3])
    assert (api.blend({name: run.oof[name] for name in fake_run.MODELS}, weights=[1, 3]) == mixed).all()
    np.testing.assert_allclose(mixed, 0.25 * first.oof + 0.75 * second.oof, rtol=1e-5)
    assert api.score(mixed, run.labels)["accuracy"] == (mixed.argmax(axis=1) == run.labels).mean()
    api.save(run.test["plain_net"], "mine.csv")
    assert Path("mine.csv").read_text().split() == [str(label) for label in first.test.argmax(axis=1)]
    oof, unknown = run.oof["plain_net"], run.oof["plain_net"] * np.nan
    for wrong in (
        lambda: api.save(unknown, "wrong.csv"), lambda: api.save(oof[:, :6], "wrong.csv"),
        lambda: api.score(oof[1:], run.labels), lambda: api.blend([oof, oof[1:]]), lambda: api.blend([]),
        lambda: api.blend("text"), lambda: api.blend([oof, oof], [1, -1.5]), lambda: api.blend([oof, oof], [0, 0]),
        lambda: api.score(-oof, run.labels),
    ):  # fmt: skip
        refuses(r"must|needs", wrong)
    assert not Path("wrong.csv").exists()
    shutil.rmtree("project/artifacts/blends")
    refuses("dvc repro", api.predictions, "project")
    assert Path.cwd() == tmp_path
