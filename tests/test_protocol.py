"""Rules that make scores valid, with one test each.

Tested elsewhere: only audit and score read test labels (test_graph.py, test_contract.py); every row is predicted by a
network trained without it and without its duplicates, and held-out labels do not influence training (test_cells.py);
the labels of a fold change neither its blend nor its temperature (test_ensemble.py).
"""

import fake_run
import pytest

from pipeline.evaluation import ensemble


@pytest.mark.parametrize("method", ensemble.METHODS)
def test_weights_and_temperatures_depend_only_on_out_of_fold_rows(method, stand):
    """Predictions of test rows do not change them."""
    settings, data, assignment = fake_run.build(ensemble={"method": method, "members": list(fake_run.MODELS)})
    results = []
    for seed in (1, 2):
        for name, fold in settings.cells:
            test = fake_run.probabilities((seed, name, fold), fake_run.labels()[data.test_rows()], 1.0)
            fake_run.write_cell(settings, name, fold, data, assignment, test=test, test_plain=test)
        ensemble.main()
        results.append(fake_run.result("results/ensemble.json"))
    assert results[0] == results[1]
