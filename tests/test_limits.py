"""Brier scores of infinitely many networks are foretold from two trainings of each recipe."""

import numpy as np
import pytest

from pipeline.evaluation import limits

LABELS = np.random.default_rng(0).integers(0, 7, 4000)
GROUPS = np.arange(4000) // 2


def trainings(skill, noise, count, seed):
    """Networks of a recipe: the same sharp mean, and noise of each one's own; rows sum to 1."""
    chance = np.random.default_rng(seed)
    mean = (1 - skill) * chance.dirichlet(np.ones(7), 4000) + skill * np.eye(7)[LABELS]
    return [mean + noise * (each := chance.normal(size=(4000, 7))) - noise * each.mean(axis=1, keepdims=True)
            for _ in range(count)]  # fmt: skip


def brier(probabilities):
    return float(((probabilities - np.eye(7)[LABELS]) ** 2).sum(axis=1).mean())


def test_two_trainings_foretell_the_mean_of_many():
    every = trainings(0.4, 0.1, 202, seed=1)
    found = limits.measure({"a": every[:2]}, LABELS, GROUPS)
    many = brier(np.mean(every[2:], axis=0))
    assert found.common[0, 0] == pytest.approx(many, abs=0.003)
    assert found.single[0] == pytest.approx(np.mean([brier(each) for each in every[:2]]), rel=1e-5)
    low, high = found.interval(np.ones(1))
    assert low < many < high
    assert high - low < 0.03
    with pytest.raises(ValueError, match="two trainings"):
        limits.measure({"a": every[:1]}, LABELS, GROUPS)


def test_a_mean_of_five_is_foretold_exactly():
    """With B-infinity from all pairs, the score of the mean of k networks is B-infinity + (single - B-infinity) / k."""
    five = trainings(0.4, 0.1, 5, seed=3)
    found = limits.measure({"a": five}, LABELS, GROUPS)
    foretold = found.common[0, 0] + (found.single[0] - found.common[0, 0]) / 5
    assert foretold == pytest.approx(brier(np.mean(five, axis=0)), abs=1e-5)


def test_weights_join_what_differs_and_spend_the_budget():
    recipes = {name: trainings(0.4, 0.05, 2, seed=seed) for seed, name in enumerate("abc")}
    recipes["c"] = recipes["a"][::-1]  # nothing new
    found = limits.measure({name: recipes[name] for name in "ab"}, LABELS, GROUPS)
    hours = np.array([1.0, 1.0])
    weights, networks, score = limits.best(found, hours, 8.0)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0.3).all()
    assert networks @ hours == pytest.approx(8)
    assert score > limits.best(found, hours, None)[2]
    assert limits.best(found, hours, 1e9)[2] == pytest.approx(limits.best(found, hours, None)[2], abs=1e-6)
    dear, _, _ = limits.best(found, np.array([1.0, 50.0]), 8.0)
    assert dear[0] > weights[0]
