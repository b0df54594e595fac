"""Two trainings of each recipe predict the Brier score of infinitely many networks."""

import fake_run
import numpy as np
import pytest
from settings import refuses

from pipeline.cells import store
from pipeline.evaluation import ensemble, limits, metrics

LABELS = np.random.default_rng(0).integers(0, 7, 4000)
GROUPS = np.arange(4000) // 2


def trainings(skill, noise, count, seed):
    """Return networks of a recipe: a common mean plus independent noise; rows sum to 1."""
    rng = np.random.default_rng(seed)
    mean = (1 - skill) * rng.dirichlet(np.ones(7), 4000) + skill * np.eye(7)[LABELS]
    errors = rng.normal(0, noise, (count, 4000, 7))
    return [*(mean + errors - errors.mean(axis=2, keepdims=True))]


def test_two_trainings_predict_the_mean_of_many():
    every = trainings(0.4, 0.1, 52, seed=1)
    measured = limits.measure({"a": every[:2]}, LABELS, GROUPS)
    many = metrics.brier(np.mean(every[2:], axis=0), LABELS)
    assert measured.common[0, 0] == pytest.approx(many, abs=0.003)
    low, high = limits.interval_95(measured.spread[:, 0, 0])
    assert low < many < high
    assert high - low < 0.03


def test_weights_use_different_recipes_and_the_whole_budget():
    recipes = {name: trainings(0.4, 0.05, 2, seed=seed) for seed, name in enumerate("ab")}
    measured = limits.measure(recipes, LABELS, GROUPS)
    hours = np.ones(2)
    weights, networks, score = limits.best(measured, hours, 8.0)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0.3).all()
    assert networks @ hours == pytest.approx(8)
    assert score > limits.best(measured, hours, None)[2]
    expensive, _, _ = limits.best(measured, np.array([1.0, 50.0]), 8.0)
    assert expensive[0] > weights[0]


def test_the_limits_of_a_run_exclude_the_covariance_of_its_networks_and_are_printed(stand, capsys):
    run, data, _ = fake_run.build()
    labels, errors, deviations = np.arange(70) % 7, [], []
    for cells in [store.load_all(run, name, data) for name in fake_run.MODELS]:
        oof = ensemble.averaged(cells).oof
        heat = metrics.fit_temperature(oof, labels)
        errors.append(metrics.temper(oof, heat) - np.eye(7)[labels])
        # Test rows 0 and 14 have a duplicate in Training.
        deviations.append(np.subtract(*(np.delete(metrics.temper(cell.test, heat), [0, 14], 0) for cell in cells)))
    products, shared = (np.einsum("anc,bnc->ab", each, each) / len(each[0]) for each in (errors, deviations))
    measured, hours = limits.limits_of_run(list(fake_run.MODELS))
    np.testing.assert_allclose(measured.common, products - shared / 2, atol=1e-5)  # two folds
    np.testing.assert_allclose([*measured.single, *hours], [*np.diag(products), *[60.5 / 3600] * 2], atol=1e-5)
    limits.main(list(fake_run.MODELS), [1.0])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("| plain_net ", f"{measured.common[0, 0]:.4f}", "no limit"))
    refuses("no model 'nope'", limits.main, ["nope"], [1.0])
