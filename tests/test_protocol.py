"""The rules that make a score worth believing, a test each.

Tested elsewhere: labels of test rows reach nothing but audit and score (test_graph.py, test_contract.py); every row is
predicted by a network that saw neither it nor its duplicate, and held-out labels steer nothing (test_cells.py); a
fold's labels cannot change how it is blended (test_ensemble.py).
"""

import fake_run
import numpy as np
import pytest

from pipeline.evaluation import ensemble


@pytest.mark.parametrize("method", ensemble.METHODS)
def test_weights_and_temperatures_come_from_out_of_fold_rows_alone(method, stand):
    """Nor from what networks say of test pictures."""
    settings, data, dealt = fake_run.build(ensemble={"method": method, "members": list(fake_run.MODELS)})
    found = []
    for seed in (1, 2):
        for name in settings.names:
            for fold in settings.folds:
                test = fake_run.probabilities((seed, name, fold), fake_run.labels()[data.test_rows()], 1.0)
                fake_run.write_cell(settings, name, fold, data, dealt, test=test, test_plain=test)
        ensemble.main()
        found.append(fake_run.result("results/ensemble.json"))
    assert found[0] == found[1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_folds_labels_cannot_change_the_temperature_that_it_is_judged_at(number):
    chance = np.random.default_rng(0)
    oof, labels, fold = chance.dirichlet(np.ones(7), 90), chance.integers(0, 7, 90), np.arange(90) % 3
    scrambled = np.where(fold == number, (labels + 1) % 7, labels)

    def judged(known):
        return ensemble.tempered(oof, ensemble.fit_temperatures(oof, known, fold), fold)

    before, after = judged(labels), judged(scrambled)
    np.testing.assert_array_equal(before[fold == number], after[fold == number])
    assert not np.array_equal(before[fold != number], after[fold != number])
