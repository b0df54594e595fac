import pandas as pd
import pytest

from pipeline import params
from pipeline.errors import UserError
from pipeline.experiments import seeds


def table(**accuracies):
    return pd.DataFrame(
        {"name": name, **dict.fromkeys(seeds.SCORES, value), "private_no_duplicate": "unknown"}
        for name, value in accuracies.items()
    )


def test_mean_and_deviation_by_hand(monkeypatch):
    monkeypatch.setattr(params, "document", lambda: {"seed": 1, "folds": [0, 1]})
    found = seeds.summary({1: table(a=0.5, b=0.25), 2: table(a=0.6, b=0.25), 5: table(a=0.7, b=0.25)})
    assert (found["seeds"], found["params"]) == ([1, 2, 5], {"folds": [0, 1]})
    assert list(found["submissions"]) == ["a", "b"]
    assert found["submissions"]["a"]["oof_accuracy"] == {"mean": 0.6, "deviation": 0.1, "values": [0.5, 0.6, 0.7]}
    assert found["submissions"]["b"]["private_accuracy"]["deviation"] == 0
    assert "private_no_duplicate" not in found["submissions"]["a"], "what is unknown has no mean"


@pytest.mark.parametrize("text", ["", "1", "1 1", "1 01", "1 two", "-1 2", f"1 {2**32}"])
def test_seeds_that_cannot_be_used_are_refused(monkeypatch, text):
    monkeypatch.setenv("SEEDS", text)
    with pytest.raises(UserError, match="must name two or more different whole numbers"):
        seeds.wanted()
