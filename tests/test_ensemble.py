import shutil
from pathlib import Path

import fake_run
import numpy as np
import pytest
from settings import refuses

from pipeline.config import ENSEMBLE
from pipeline.data import folds, solution
from pipeline.evaluation import ensemble
from pipeline.evaluation.ensemble import Predictions, blend, fit_weights, geometric_mean, weighted_mean
from pipeline.evaluation.metrics import cross_entropy


def skilled():
    """Return three members with independent errors that are mostly right, and the labels."""
    labels = np.arange(400) % 7
    return np.stack([fake_run.probabilities(skill, labels, skill) for skill in (1.2, 2.0, 2.5)]), labels


def seven(*first):
    """Return seven probabilities with the given first ones; the others share the rest."""
    return [*first, *[(1 - sum(first)) / (7 - len(first))] * (7 - len(first))]


def test_fit_weights_finds_the_optimum():
    """At the least log-loss, no member has a higher likelihood ratio to the mixture than 1 (Karush-Kuhn-Tucker)."""
    oof, labels = skilled()
    weights = fit_weights(oof, labels)
    own = oof[:, np.arange(400), labels]
    assert weights.sum() == pytest.approx(1)
    assert sorted(weights > 0) == [False, True, True]
    assert (own / (weights @ own)).mean(axis=1).max() == pytest.approx(1, abs=1e-6)
    assert fit_weights(oof[::-1], labels).tolist() == weights[::-1].tolist(), "rounding errors of the processor remain"


def test_equal_members_have_equal_weights_even_if_every_label_has_probability_zero():
    certain = np.eye(7)[None, [0, 1, 2]].repeat(2, axis=0)
    assert fit_weights(certain, np.array([1, 2, 3])).tolist() == [0.5, 0.5]


def test_means_by_hand():
    mean = weighted_mean(np.array([[seven(0.4, 0.6)], [seven(0.8, 0.1)]]), np.array([0.25, 0.75]))
    np.testing.assert_allclose(mean, [[0.7, 0.225, *[0.015] * 5]], rtol=1e-6)
    two = np.array([[[0.5, 0.3, 0.04, 0.04, 0.04, 0.04, 0.04]], [[0.02, 0.3, 0.04, 0.16, 0.16, 0.16, 0.16]]])
    roots = np.array([0.1, 0.3, 0.04, 0.08, 0.08, 0.08, 0.08])  # of the products
    np.testing.assert_allclose(geometric_mean(two), [roots / 0.76], rtol=1e-6)


@pytest.mark.parametrize("method", ensemble.METHODS)
def test_an_ensemble_is_better_than_its_members(method):
    oof, labels = skilled()
    blended, weights = blend(method, [Predictions(each, each[:50]) for each in oof], labels, np.arange(400) % 4)
    losses = [cross_entropy(each, labels) for each in oof]
    assert cross_entropy(blended.oof, labels) < (min(losses) if method == "weights" else np.mean(losses))
    np.testing.assert_allclose(blended.oof.sum(axis=1), 1, atol=1e-5)
    expected = geometric_mean(oof[:, :50]) if weights is None else weighted_mean(oof[:, :50], weights)
    np.testing.assert_allclose(blended.test, expected)
    assert method == "weights" or np.allclose(blended.oof[:50], expected)
    assert (weights is None) == (method == "geometric")


def test_the_labels_of_a_fold_change_neither_its_blend_nor_its_temperature():
    fold, (oof, labels) = 1, skilled()
    fold_of = np.random.default_rng(1).integers(0, 3, 400)
    own, members = fold_of == fold, [Predictions(each, each[:50]) for each in oof]
    scrambled = np.where(own, (labels + 1) % 7, labels)
    blends = [blend("weights", members, known, fold_of)[0].oof for known in (labels, scrambled)]
    temperatures = [ensemble.fit_temperatures(oof[0], known, fold_of) for known in (labels, scrambled)]
    assert (temperatures[0] == temperatures[1]).tolist() == [False, True, False, False]
    for before, after in (blends, [ensemble.tempered(oof[0], each, fold_of) for each in temperatures]):
        np.testing.assert_array_equal(before[own], after[own])
        assert not np.allclose(before[~own], after[~own], rtol=0, atol=1e-9), "other folds do change"


def test_describe_by_hand():
    oof = np.array([seven(0.6, 0.1), seven(0.6, 0.1), seven(0.1, 0.6), seven(0.1, 0.6)])
    plain = oof[[0, 2, 2, 3]]  # the second row is wrong without test-time augmentation
    labels, fold_of = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])
    entry = ensemble.describe(oof, plain, labels, fold_of)
    assert entry.folds == [1.0, 0.5]
    assert entry.test_time_augmentation == {"accuracy_without": 0.5, "accuracy_with": 0.75, "p_value": 1.0}
    assert entry.calibration["log_loss"] == pytest.approx(-(3 * np.log(0.6) + np.log(0.1)) / 4, abs=1e-5)
    assert 0.3 < entry.temperature < 2
    assert ensemble.describe(oof, oof, labels, fold_of).test_time_augmentation is None


@pytest.fixture
def run(stand):
    """Create a small run up to its cells in the working folder."""
    return fake_run.build()


def outputs():
    return {path: path.read_bytes() for folder in ("artifacts/blends", "results") for path in Path(folder).iterdir()}


def test_main_blends_every_model_and_is_deterministic(run):
    _, data, assignment = run
    settings = fake_run.params(ensemble={"method": "mean", "members": [*fake_run.MODELS]})
    ensemble.BLENDS.mkdir(parents=True)
    (ensemble.BLENDS / "gone.npz").write_bytes(b"of a removed model")
    ensemble.main()
    written = outputs()
    names, (first, second) = [*settings.names, ENSEMBLE], fake_run.MODELS
    assert {path.name for path in written} == {*(f"{name}.npz" for name in names), "ensemble.json"}
    members, _ = ensemble.read(settings, data, assignment)
    expected = np.mean([members[first].oof, members[second].oof], axis=0)
    np.testing.assert_allclose(ensemble.load(ENSEMBLE, data, assignment).oof, expected, rtol=1e-5)
    result = ensemble.result(names)
    assert list(result.weights) == list(result.members) == [first, second], "the student is no member"
    assert result.methods["mean"] == ensemble.scores(expected, data.labels[assignment.rows])
    assert set(result.methods) == set(ensemble.METHODS)
    assert result.without == {first: result.members[second], second: result.members[first]}
    assert result.agreement[first][first] == 1 > result.agreement[first][second] == result.agreement[second][first]
    ensemble.main()
    assert outputs() == written


@pytest.mark.parametrize("count", [2, 3])
def test_every_training_row_has_the_prediction_of_the_fold_that_holds_it_out(stand, count):
    model = {"architecture": "vgg8", "epochs": 2}
    models = {"plain_net": model | {"folds": count}, "deep_net": model | {"seed": 5}}
    _, data, assignment = fake_run.build(models=models, students={}, ensemble={"members": [*models]})
    solution.PATH.unlink()  # no test label is read
    ensemble.main()
    predictions, own = ensemble.load("plain_net", data, assignment), folds.load(data, "plain_net")
    for fold in range(count):
        expected = fake_run.probabilities(("plain_net", fold, "oof", ""), data.labels[own.held_out(fold)])
        np.testing.assert_allclose(predictions.oof[own.fold_of == fold], expected, rtol=1e-6)
    tests = [fake_run.probabilities(("plain_net", fold, "test", ""), fake_run.labels()[70:]) for fold in range(count)]
    np.testing.assert_allclose(predictions.test, np.mean(tests, axis=0), rtol=1e-5)
    assert [len(ensemble.result().submissions[name].folds) for name in models] == [count, 2]


@pytest.mark.parametrize("rows", ["kept", "all"])
def test_another_system_can_be_a_member(stand, rows):
    members = {"method": "weights", "members": ["plain_net", "other"]}
    oof = fake_run.probabilities("other", fake_run.labels()[:70], 3.0)
    fake_run.external("other", np.arange(70), oof=oof)
    _, data, assignment = fake_run.build(duplicates="drop_repeats", ensemble=members)
    if rows == "kept":
        fake_run.external("other", np.arange(70), oof=oof[assignment.rows])
    ensemble.main()
    np.testing.assert_array_equal(ensemble.load(ENSEMBLE, data, assignment).cost, ensemble.UNKNOWN)
    assert ensemble.result(["other"]).weights["other"] > 0.2
    np.testing.assert_allclose(ensemble.load("other", data, assignment).oof, oof[assignment.rows])


@pytest.mark.parametrize(("rows", "factor"), [(69, 1), (70, np.nan), (70, 1.03)])
def test_an_invalid_file_of_another_system_raises_and_nothing_is_written(run, rows, factor):
    oof = fake_run.probabilities("other", fake_run.labels()[:rows])
    fake_run.external("other", np.arange(rows), oof=factor * oof)
    fake_run.params(ensemble={"method": "mean", "members": ["plain_net", "other"]})
    refuses(r"^external/other\.npz .*external/README\.md", ensemble.main)
    assert not ensemble.RESULT.exists()
    assert not ensemble.BLENDS.exists()


def test_a_member_without_weight_adds_no_parameters():
    members = {size: ensemble.Predictions(np.empty(0), np.empty(0), np.array([2.0, size, 9])) for size in (10, 90)}
    assert ensemble.total(members, {10: 1.0, 90: 0.0}).tolist() == [4, 10, 18]


def test_a_blend_or_result_that_is_missing_damaged_or_of_another_run_raises(run):
    _, data, assignment = run
    ensemble.main()
    path = ensemble.BLENDS / "plain_net.npz"
    for damage in (lambda: shutil.copy(ensemble.BLENDS / "deep_net.npz", path), path.unlink):
        damage()
        refuses(r"^artifacts/blends/plain_net\.npz .*dvc repro ensemble", ensemble.load, "plain_net", data, assignment)
    refuses(r"^results/ensemble\.json .*lacks other", ensemble.result, ["other"])
    ensemble.RESULT.write_text(ensemble.RESULT.read_text().replace('"temperature": ', '"temperature": -'))
    refuses(r"(?s)^results/ensemble\.json .*dvc repro ensemble", ensemble.result)


def test_weights_and_temperatures_depend_only_on_out_of_fold_rows(run):
    """Predictions of test rows do not change them: a rule of docs/protocol.md."""
    settings, data, assignment = run
    ensemble.main()
    before = fake_run.result("results/ensemble.json")
    for name, fold in settings.cells:
        test = fake_run.probabilities((name, fold), fake_run.labels()[data.test_rows()], 1.0)
        fake_run.write_cell(settings, name, fold, data, assignment, test=test, test_plain=test)
    ensemble.main()
    assert fake_run.result("results/ensemble.json") == before
