import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from pipeline.evaluation import metrics


def drawn(rows=20_000, seed=0):
    """Probabilities, and labels that follow them exactly: calibrated by construction."""
    chance = np.random.default_rng(seed)
    probabilities = chance.dirichlet(np.full(7, 0.4), rows)
    labels = (probabilities.cumsum(axis=1) < chance.random((rows, 1))).sum(axis=1).clip(0, 6)
    return probabilities, labels


def seven(**chances):
    """One row: what is named, the rest shared by the others."""
    row = np.full(7, (1 - sum(chances.values())) / (7 - len(chances)))
    for name, value in chances.items():
        row[int(name[1:])] = value
    return row


@pytest.mark.parametrize(("first", "second", "expected"), [(0, 0, 1.0), (1, 5, 2 * (1 + 6) / 64), (10, 0, 2 / 1024)])
def test_mcnemar_is_the_exact_test_of_the_rows_on_which_they_differ(first, second, expected):
    one = np.array([True] * first + [False] * second + [True] * 30 + [False] * 20)
    other = np.array([False] * first + [True] * second + [True] * 30 + [False] * 20)
    assert metrics.mcnemar(one, other) == metrics.mcnemar(other, one) == pytest.approx(expected)


def test_calibration_error_by_hand():
    # Two rows at 0.42 (one right), one at 1 (right): |0.42 - 0.5| for two thirds.
    rows, labels = np.array([seven(c0=0.42), seven(c1=0.42), seven(c2=1.0)]), np.array([0, 0, 2])
    assert metrics.calibration_error(rows, labels) == pytest.approx(0.08 * 2 / 3, abs=1e-4)
    bins = metrics.reliability(rows, labels)
    assert (sum(bins["rows"]), bins["rows"][6], bins["rows"][14]) == (3, 2, 1)


def test_reliability_is_that_of_scikit_learn():
    probabilities, labels = drawn(5000)
    bins = metrics.reliability(probabilities, labels)
    full = np.array(bins["rows"]) > 0
    wanted = calibration_curve(metrics.right(probabilities, labels), probabilities.max(axis=1), n_bins=metrics.BINS)
    np.testing.assert_allclose(np.array(bins["accuracy"])[full], wanted[0], atol=1e-5)
    np.testing.assert_allclose(np.array(bins["confidence"])[full], wanted[1], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_that_spoiled_calibrated_probabilities_is_found_again(temperature):
    probabilities, labels = drawn()
    spoiled = metrics.temper(probabilities, 1 / temperature)
    found = metrics.fit_temperature(spoiled, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    mended = metrics.temper(spoiled, found)
    assert metrics.cross_entropy(mended, labels) <= metrics.cross_entropy(spoiled, labels) + 1e-9
    np.testing.assert_array_equal(mended.argmax(axis=1), probabilities.argmax(axis=1))
    tempered = metrics.temper(np.array([seven(c0=1.0), seven(c0=0.0, c1=0.0)]), temperature)  # it bears zeros
    np.testing.assert_allclose(tempered.sum(axis=1), 1)


def test_by_class_by_hand():
    labels, guesses = np.array([0, 0, 0, 1, 1, 6]), np.eye(7)[[0, 0, 1, 1, 0, 1]]
    found = metrics.by_class(guesses, labels)
    assert found["angry"] == {"precision": 0.666667, "recall": 0.666667, "f1": 0.666667, "rows": 3}
    assert found["neutral"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 1}
    assert metrics.macro_f1(guesses, labels) == pytest.approx((2 / 3 + 0.4) / 7)
