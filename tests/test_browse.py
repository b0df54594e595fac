import json

import browser
import fake_run
import numpy as np
import pandas as pd
import pytest
from settings import refuses

from pipeline.evaluation import audit, browse, ensemble, figures

chromium = browser.chromium

PREDICTED = [0, 1, 1, 1, 2, 0]
LABELS = np.array([0, 0, 0, 1, 2, 1])
CONFIDENCE = np.array([0.9, 0.5, 0.8, 0.9, 0.9, 0.7])


def probabilities(predicted=PREDICTED):
    """Return float [6, 7] with CONFIDENCE for the predicted classes; the others share the rest."""
    return np.where(np.eye(7, dtype=bool)[predicted], CONFIDENCE[:, None], (1 - CONFIDENCE[:, None]) / 6)


def test_mistakes_are_sorted_by_class_pairs_by_frequency_and_rows_by_agreement():
    assert list(browse.worst(probabilities(), LABELS)) == [2, 1, 5]  # row 2 gives its label 0.033, row 1 0.083
    assert browse.confused(probabilities(), LABELS) == [(0, 1, [2, 1]), (1, 0, [5])]
    models = [probabilities(), probabilities([0, 1, 2, 1, 2, 1]), probabilities([0, 1, 3, 1, 2, 1])]
    assert browse.split(np.stack(models)).tolist()[:2] == [2, 5]


@pytest.fixture
def run(stand, monkeypatch):
    """Create a small run; rows 11 and 40 are one picture with two labels."""
    monkeypatch.setattr(figures, "draw", lambda *words, **options: None)
    fake_run.build()
    audit.main()
    ensemble.main()


def test_the_page_contains_only_training_rows_and_is_self_contained(run):
    browse.main()
    page = browse.PAGE.read_text()
    content = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    rows = content["row"]
    assert max(rows) < fake_run.ROWS[0]
    assert content["label"] == [row % 7 for row in rows]
    assert [(rows[first], rows[second], how) for first, second, how in content["torn"]] == [(11, 40, "identical")]
    assert "http" not in page
    audit.PAIRS.write_text("first,second\n3,4\n")
    refuses(r"^data/pairs\.csv .*make it with: dvc repro -f audit$", browse.main)


def test_a_browser_shows_and_filters_the_rows(run, chromium):
    browse.main()
    chromium.get(browse.PAGE.resolve().as_uri())
    fold_of = pd.read_csv("data/folds.csv")["fold"].to_numpy()
    blend = np.load("artifacts/blends/deep_net.npz")["oof"]
    wrong = blend.argmax(axis=1) != fake_run.labels()[:70]

    def rows(**chosen):
        for name, value in chosen.items():
            chromium.execute_script(
                "const control = document.getElementById(arguments[0]); control.value = arguments[1];"
                "control.dispatchEvent(new Event('change', { bubbles: true }))", name, value)  # fmt: skip
        texts = [each.text for each in chromium.find_elements("css selector", "article small")]
        return sorted(int(text.split()[1].strip(",")) for text in texts if text.startswith("row"))

    assert rows(model="2") == np.flatnonzero(wrong).tolist()
    assert rows(fold="1") == np.flatnonzero(wrong & (fold_of == 1)).tolist()
    assert rows(fold="", **{"class": "3"}) == np.flatnonzero(wrong & (fake_run.labels()[:70] == 3)).tolist()
    assert rows(view="torn") == []
    assert rows(**{"class": ""}) == [11, 40]
    assert rows(view="confused", pair="1") == sorted(browse.confused(blend, fake_run.labels()[:70])[1][2])
    assert browser.width(chromium, 390) == 390
    assert chromium.get_log("browser") == []
