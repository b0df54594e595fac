"""A network that was brought back predicts as it did where it was trained, whatever form the pictures have."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small

from pipeline import architectures, config, files
from pipeline.apps import networks, packed
from pipeline.cells import store
from pipeline.data import synthetic
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics
from pipeline.training import augment, backend, machine, plan

ROOT = Path(__file__).parent.parent
MODELS = {
    "one": {"architecture": "small_vgg", "epochs": 1, "crop": 42, "contrast": "local", "tta_shift": 2},
    "two": {"architecture": "mini_xception", "epochs": 1, "scaling": "symmetric"},
}
PIXELS, LABELS, USAGE = synthetic.competition(training=56, test=70, seed=1)
TEMPERATURES = {"one": 1.5, "two": 0.7, "ensemble": 0.8}


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start(machine.choose("auto"))


def write_cell(settings, name, fold):
    """The cell of a network as it was drawn, without its predictions; returns these of the test rows."""
    from pipeline.training import models

    made = plan.make(settings, name)
    backend.prepare(fold + 1, "float32")
    network = architectures.build(made.architecture)
    path = store.weights(name, fold)
    path.parent.mkdir(parents=True, exist_ok=True)
    network.save_weights(path)
    about = {
        "model": name, "fold": fold, "key": "", "faces": "", "folds": "", "seconds": 1.0, "parameters": 1,
        "multiply_adds": 1, "precision": "float32", "backend": "", "processor": "", "sha256": {},
        "weights_sha256": files.sha256(path.read_bytes()), "plan": made.model_dump(),
    }  # fmt: skip
    files.write_json(store.folder(settings, name, fold) / "cell.json", about)
    pixels = PIXELS[USAGE > 0]
    predictor = models.Predictor(models.Feed(pixels, made.settings()), network)
    return predictor.views(np.arange(len(pixels)), augment.tta_maps(made.settings())).mean(axis=0)


def write_result(method="weights", weights=(0.75, 0.25)):
    entry = {"folds": [], "calibration": {}, "calibration_tempered": {}, "test_time_augmentation": None}
    result = {
        "method": method, "weights": dict(zip(MODELS, weights, strict=True)),
        "members": {}, "methods": {}, "without": {}, "agreement": {},
        "submissions": {name: entry | {"temperature": value} for name, value in TEMPERATURES.items()},
    }  # fmt: skip
    files.write_json(ensemble.RESULT, result)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with two folds of two models, and what these predict of its test rows."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ensemble_of_all = {"method": "mean", "members": [*MODELS]}
        small.write(folds=[0, 1], models=MODELS, students={}, ensemble=ensemble_of_all)
        settings = config.load()
        return folder, {(name, fold): write_cell(settings, name, fold) for name in MODELS for fold in (0, 1)}


@pytest.fixture
def predicted(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    write_result()
    return trained[1]


TEST = PIXELS[USAGE > 0]


def mean(predicted, name):
    return metrics.temper((predicted[name, 0] + predicted[name, 1]) / 2, TEMPERATURES[name])


@pytest.mark.parametrize("name", MODELS)
def test_a_fold_gives_test_rows_the_probabilities_that_its_cell_has(predicted, name):
    found = networks.load(f"{name}-1").probabilities(TEST)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, metrics.temper(predicted[name, 1], TEMPERATURES[name]), atol=1e-5)


def test_a_prediction_does_not_depend_on_the_pictures_beside_it(predicted):
    one = networks.load("one-0")
    together = one.probabilities(TEST)
    for count in (0, 1, 6, 7, 129):
        np.testing.assert_allclose(one.probabilities(TEST[:count]), together[:count], atol=1e-5)


def test_a_model_is_the_mean_of_its_folds(predicted):
    np.testing.assert_allclose(networks.load("one").probabilities(TEST), mean(predicted, "one"), atol=1e-5)


@pytest.mark.parametrize(("method", "weights"), [
    ("weights", (0.75, 0.25)), ("bagged", (0.0, 1.0)), ("geometric", (None, None)),
])  # fmt: skip
def test_the_ensemble_blends_as_the_stage_does(predicted, method, weights):
    write_result(method, weights)
    means = np.stack([mean(predicted, name) for name in MODELS])
    blend = ensemble.geometric_mean(means) if method == "geometric" else ensemble.weighted_mean(means, weights)
    network = networks.load("ensemble")
    found = network.probabilities(TEST[:20])
    np.testing.assert_allclose(found, metrics.temper(blend, TEMPERATURES["ensemble"])[:20], atol=1e-5)
    assert list(network.members) == (["two"] if method == "bagged" else ["one", "two"])  # no weight: not asked
    maps = network.attention(TEST[:3], found[:3].argmax(axis=1))
    assert maps.shape == (3, 48, 48)
    assert 0 <= maps.min() < maps.max() <= 1


@pytest.fixture(scope="module")
def released():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config.load.cache_clear()
        return networks.load()


def test_the_released_network_comes_with_its_own_temperature(released, monkeypatch):
    monkeypatch.chdir(ROOT)
    about, _ = packed.read(packed.find())
    assert released.temperature == about.temperature
    assert released.members["student"][0].facts.architecture == "deep_vgg"
    assert released.probabilities(PIXELS[:2]).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize("form", [
    lambda x: x[..., None], lambda x: x / 255, lambda x: (x / 255).astype("float32"), lambda x: x.astype("float32"),
    lambda x: (x / 255).astype("float16")[..., None], lambda x: x[..., None].astype("float64"),
])  # fmt: skip
def test_every_form_of_the_same_pictures_gives_the_same_probabilities(released, form):
    np.testing.assert_array_equal(released.probabilities(form(PIXELS[:9])), released.probabilities(PIXELS[:9]))


@pytest.mark.parametrize("wrong", [
    PIXELS[0], PIXELS[:2, :47], PIXELS[None, :2], np.zeros((2, 2304), "uint8"), np.zeros((2, 64, 64)),
    PIXELS[:2].astype("int64"), PIXELS[:2] > 9, PIXELS[:2] / 255 - 0.1, PIXELS[:2] / 100, PIXELS[:2] * 2.0,
    np.full((1, 48, 48), np.nan), np.full((1, 48, 48), np.inf), np.zeros((1, 48, 48, 3)), 7,
])  # fmt: skip
def test_what_is_no_picture_is_an_error_of_one_sentence(wrong):
    with pytest.raises(UserError, match=r"^pictures [^\n]*$"):
        networks.grey_levels(wrong)


@pytest.mark.parametrize(("which", "words"), [
    ("vgg9", "no network 'vgg9'.*like one-0"), ("one-7", "no fold '7'"), ("../one", "no network"), ("", "no network"),
    ("released", "make release"),
])  # fmt: skip
def test_a_network_that_is_not_there_is_an_error(predicted, which, words):
    with pytest.raises(UserError, match=words):
        networks.load(which)


def test_an_ensemble_with_another_system_in_it_is_an_error(predicted):
    result = json.loads(ensemble.RESULT.read_text())
    result["weights"] = {"one": 0.5, "theirs": 0.5}
    result["submissions"]["theirs"] = result["submissions"]["one"]
    files.write_json(ensemble.RESULT, result)
    with pytest.raises(UserError, match="theirs"):
        networks.load("ensemble")


@pytest.mark.parametrize(("file", "change", "remedy"), [
    ("cell.json", lambda content: b"{", "dvc repro train@one-0"),
    ("cell.json", lambda content: content.replace(b'"crop"', b'"corp"'), "dvc repro train@one-0"),
    ("cell.json", lambda content: content.replace(b'"small_vgg"', b'"os.system"'), "dvc repro train@one-0"),
    ("cell.json", lambda content: content.replace(b'"fold": 0', b'"fold": 1'), "dvc repro train@one-0"),
    ("cell.json", lambda content: content.replace(b"small_vgg.build", b"small_vgg.built"), "code of small_vgg"),
    ("weights", lambda content: content[:500], "python -m pipeline train one 0 --anew"),
    ("weights", lambda content: None, "missing; .* python -m pipeline train one 0 --anew"),
])  # fmt: skip
def test_damaged_files_are_told_with_the_way_to_make_them_again(predicted, file, change, remedy):
    path = store.weights("one", 0) if file == "weights" else store.CELLS / "one/fold0/cell.json"
    content = path.read_bytes()
    changed = change(content)
    path.unlink() if changed is None else path.write_bytes(changed)
    try:
        with pytest.raises(UserError, match=remedy):
            networks.load("one-0")
    finally:
        path.write_bytes(content)


@pytest.mark.slow
def test_jax_predicts_and_looks_as_tensorflow_does(predicted):
    code = """
import io
import sys
import numpy as np
from pipeline.apps import networks
network = networks.load("one-1")
pixels = np.load(io.BytesIO(sys.stdin.buffer.read()))
np.savez(sys.argv[1], network.probabilities(pixels), network.attention(pixels, np.arange(7)))
"""
    content = io.BytesIO()
    np.save(content, TEST[:7])
    for library in ("jax", "tensorflow"):
        done = subprocess.run(
            [sys.executable, "-c", code, f"{library}.npz"], input=content.getvalue(), capture_output=True,
            env=os.environ | {"KERAS_BACKEND": library, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
    with np.load("jax.npz") as one, np.load("tensorflow.npz") as other:
        for name in one:
            np.testing.assert_allclose(one[name], other[name], atol=1e-3)
