"""A loaded network predicts as it did in its training; damaged files and unknown names are errors."""

import fake_run
import keras
import numpy as np
import pytest
import small
from settings import ROOT, python, refuses

from pipeline import api, architectures, config, files
from pipeline.apps import networks
from pipeline.cells import store
from pipeline.data import synthetic
from pipeline.evaluation import ensemble, metrics
from pipeline.training import augment, backend, plan

pytestmark = pytest.mark.usefixtures("started")
MODELS = {
    "one": {"architecture": "small_vgg", "epochs": 1, "crop": 42, "contrast": "local", "tta_shift": 2},
    "two": {"architecture": "mini_xception", "epochs": 1, "scaling": "symmetric"},
}
PIXELS, LABELS, USAGE = synthetic.competition(training=56, test=14, seed=1)
TEST = PIXELS[USAGE > 0]
TEMPERATURES = {"one": 1.5, "two": 0.7, "ensemble": 0.8, "theirs": 1.0, "pupil": 1.0}


def test_keras_starts_without_the_settings_of_the_users_keras_json():
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    backend.start(keras.config.backend())
    assert (keras.config.image_data_format(), keras.config.floatx()) == ("channels_last", "float32")


def write_cell(settings, name, fold):
    """Write the cell of an untrained network without its predictions; return those of the test rows."""
    from pipeline.training import models

    made = plan.make(settings, name)
    backend.prepare(fold + 1, "float32")
    network = architectures.build(made.architecture)
    path = store.weights(name, fold)
    files.write(path, b"")  # makes the folder
    network.save_weights(path)
    about = fake_run.about(made, fold, weights_sha256=files.sha256(path.read_bytes()))
    files.write_json(store.folder(settings, name, fold) / "cell.json", about)
    predictor = models.Predictor(models.Feed(TEST, made.settings()), network)
    return predictor.views(np.arange(len(TEST)), augment.tta_maps(made.settings())).mean(axis=0)


def write_result(method="weights", **weights):
    """Write results/ensemble.json with TEMPERATURES, where model "one" is the best."""
    entry = {"calibration": {}, "calibration_tempered": {}, "test_time_augmentation": None}
    submissions = {name: entry | {"folds": [value / 2], "temperature": value} for name, value in TEMPERATURES.items()}
    files.write_json(ensemble.RESULT, {"method": method, "weights": weights, "members": {}, "methods": {},
                                       "without": {}, "agreement": {}, "submissions": submissions})  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with two folds of two models, and their predictions of the test rows."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small.write(folds=2, models=MODELS, students={}, ensemble={"method": "mean", "members": [*MODELS]})
        settings = config.load()
        return folder, {(name, fold): write_cell(settings, name, fold) for name in MODELS for fold in (0, 1)}


@pytest.fixture
def predicted(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    write_result(one=0.75, two=0.25)
    return trained[1]


@pytest.mark.parametrize("name", MODELS)
def test_a_fold_predicts_like_its_cell_and_a_model_the_mean_of_its_folds(predicted, name):
    network = networks.load(f"{name}-1")
    found = network.probabilities(TEST)
    np.testing.assert_allclose(found, metrics.temper(predicted[name, 1], TEMPERATURES[name]), atol=1e-5)
    for count in (0, 7):  # predictions do not depend on the other pictures
        np.testing.assert_allclose(network.probabilities(TEST[:count]), found[:count], atol=1e-5)
    mean = metrics.temper((predicted[name, 0] + predicted[name, 1]) / 2, TEMPERATURES[name])
    np.testing.assert_allclose(networks.load(name).probabilities(TEST), mean, atol=1e-5)


@pytest.mark.parametrize(("method", "weights"), [("weights", (0.0, 1.0)), ("geometric", (None, None))])
def test_the_ensemble_blends_like_its_stage(predicted, method, weights):
    write_result(method, one=weights[0], two=weights[1])
    means = np.stack([(predicted[name, 0] + predicted[name, 1]) / 2 for name in MODELS])
    blend = ensemble.geometric_mean(means) if method == "geometric" else ensemble.weighted_mean(means, weights)
    network = networks.load("ensemble")
    found = network.probabilities(TEST)
    np.testing.assert_allclose(found, metrics.temper(blend, TEMPERATURES["ensemble"]), atol=1e-5)
    assert list(network.members) == (["two"] if method == "weights" else ["one", "two"])  # without weight 0
    maps = network.attention(TEST[:3], found[:3].argmax(axis=1))
    assert (maps.shape, 0 <= maps.min() < maps.max() <= 1) == ((3, 48, 48), True)


def test_pictures_of_all_forms_give_equal_grey_levels_and_others_are_errors():
    for form in (PIXELS[..., None], (PIXELS / 255).astype("float16"), np.maximum(PIXELS - 0.4, 0) / 255):
        np.testing.assert_array_equal(api.grey_levels(form), PIXELS)
    for wrong in (PIXELS[0], np.zeros((1, 48, 48, 3)), PIXELS.astype("int64"), PIXELS * 2.0):
        refuses("pictures must", api.grey_levels, wrong)


def test_unknown_networks_lost_weights_and_ensembles_with_external_members_are_errors(predicted, monkeypatch):
    messages = {"vgg9": "vgg9.*one, two", "ensemble-1": "ensemble-1", "one-7": "7", "released": "make release"}
    for which, message in messages.items():
        refuses(message, networks.load, which)
    write_result(one=0.75, theirs=0.25)
    refuses("theirs", networks.load, "ensemble")
    monkeypatch.setattr(store, "WEIGHTS", ROOT / "gone")
    write_result(one=0.75, two=0.25)
    refuses("train one 0,1 --retrain -y; .*train two 0,1 --retrain -y$", networks.load, "ensemble")


CELL, WEIGHTS = "dvc repro train@one", "python -m pipeline train one 0 --retrain"


@pytest.mark.parametrize(("remedy", "change"), [
    (CELL, lambda content: content.replace(b"small_vgg.build", b"thin_vgg.built")),
    (WEIGHTS, lambda content: store.weights("one", 1).read_bytes()),
], ids=["other code", "weights of another fold"])  # fmt: skip
def test_the_error_for_damaged_files_contains_the_remedy(predicted, remedy, change):
    path = store.weights("one", 0) if remedy == WEIGHTS else store.CELLS / "one/fold0/cell.json"
    content = path.read_bytes()
    path.write_bytes(change(content))
    refuses(remedy, networks.load, "one-0")
    path.write_bytes(content)


@pytest.mark.slow
def test_predictions_and_attention_maps_in_jax_equal_those_in_tensorflow(predicted):
    code = """
import numpy as np
from pipeline.apps import networks
network, pixels = networks.load("one-1"), np.load("pixels.npy")
np.save("probabilities.npy", network.probabilities(pixels))
np.save("attention.npy", network.attention(pixels, np.arange(7)))
"""
    np.save("pixels.npy", TEST[:7])
    python(code, KERAS_BACKEND="jax")
    network = networks.load("one-1", "tensorflow")
    np.testing.assert_allclose(np.load("probabilities.npy"), network.probabilities(TEST[:7]), atol=1e-3)
    np.testing.assert_allclose(np.load("attention.npy"), network.attention(TEST[:7], np.arange(7)), atol=1e-3)
