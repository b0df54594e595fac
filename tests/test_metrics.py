import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from pipeline.evaluation import metrics


def drawn(rows=20_000):
    """Return probabilities and labels drawn from them: calibrated by construction."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(7, 0.4), rows)
    labels = (probabilities.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(0, 6)
    return probabilities, labels


@pytest.mark.parametrize(("only_first", "only_second", "expected"), [(0, 0, 1.0), (1, 5, 0.219), (10, 0, 0.00195)])
def test_mcnemar_is_the_exact_test_of_the_differing_rows(only_first, only_second, expected):
    first = np.repeat([True, False, True, False], [only_first, only_second, 30, 20])
    second = np.repeat([False, True, True, False], [only_first, only_second, 30, 20])
    assert metrics.mcnemar(first, second) == metrics.mcnemar(second, first) == expected


def test_reliability_matches_scikit_learn():
    probabilities, labels = drawn(5000)
    bins = metrics.reliability(probabilities, labels)
    full = np.array(bins["rows"]) > 0
    expected = calibration_curve(metrics.right(probabilities, labels), probabilities.max(axis=1), n_bins=metrics.BINS)
    np.testing.assert_allclose(np.array(bins["accuracy"])[full], expected[0], atol=1e-5)
    np.testing.assert_allclose(np.array(bins["confidence"])[full], expected[1], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_fit_temperature_recovers_a_known_temperature(temperature):
    probabilities, labels = drawn()
    scaled = metrics.temper(probabilities, 1 / temperature)
    fitted = metrics.fit_temperature(scaled, labels)
    assert fitted == pytest.approx(temperature, rel=0.03)
    restored = metrics.temper(scaled, fitted)
    np.testing.assert_array_equal(restored.argmax(axis=1), probabilities.argmax(axis=1))
    assert metrics.temper(np.eye(7), temperature).sum() == pytest.approx(7), "zeros are allowed"
