import json
import re
import sys
from pathlib import Path

import fake_run
import numpy as np
import pandas as pd
import pytest

from pipeline import config
from pipeline.config import ENSEMBLE
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, figures, report, score

pytestmark = pytest.mark.filterwarnings("ignore:F-score is ill-defined")  # few rows do not have all classes


def blank(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG picture")
    figures.plt.close(figure)


@pytest.fixture(params=[True, False], ids=["known", "unknown"])
def run(request, tmp_path, monkeypatch):
    """A folder with a small run up to its scores, with another system's predictions as a member."""
    monkeypatch.chdir(tmp_path)
    fake_run.external("other", np.arange(70), 3.0)
    members = [*fake_run.MODELS, fake_run.STUDENT, "other"]
    fake_run.build(request.param, ensemble={"method": "bagged", "members": members})
    monkeypatch.setattr(figures, "_save", blank)
    monkeypatch.setattr(score, "draw_attention", lambda *words: None)
    audit.main()
    ensemble.main()
    score.main()
    return request.param


def first_cells(text, heading):
    """The first column of the table that follows a text."""
    lines = text[text.index(heading) :].splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("|:"))
    rows = lines[start + 1 : lines.index("", start)]
    return [row.split("|")[1].strip().strip("*") for row in rows]


def test_main_writes_one_page_twice_without_keras(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    report.main()
    text, page = (Path(f"results/report.{kind}").read_text() for kind in ("md", "html"))
    scores = fake_run.result("results/scores.json")
    order = sorted(scores, key=lambda name: -scores[name]["oof_accuracy"])
    models = [name for name in order if name not in ("other", ENSEMBLE)]
    for heading in ("**Our submissions", "**Without duplicates", "**McNemar", "**Test-time augmentation", "**Recall",
                    "**Out of fold", "**PrivateTest"):  # fmt: skip
        assert first_cells(text, heading) == order, heading
    assert first_cells(text, "**Members") == [name for name in order if name != ENSEMBLE]
    assert first_cells(text, "## Models") == models
    assert {"architecture", "seed", "teachers", "epochs"} < set(first_cells(text, "**Recipes"))
    assert "not trained here: other" in text
    assert not re.search(r"\b(nan|None)\b", text)
    assert config.PATH.read_text().strip() in text
    assert "## Attention" not in text
    assert page.startswith("<!doctype html>")
    assert page.count("<table>") == len(re.findall(r"^\|[:-]", text, re.MULTILINE))
    assert page.count("data:image/png;base64,") == text.count("![")
    assert 'src="plots' not in page
    assert "<script" not in page


def test_html_in_what_is_shown_stays_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = report.page("# A page\n\n## First & last\n\n<b>bold</b>\n\n| | one |\n|:--|--:|\n| <i> | 2 |\n")
    assert '<h2 id="part1">First &amp; last</h2>' in page
    assert '<a href="#part1">First &amp; last</a>' in page
    assert "&lt;b&gt;bold" in page
    assert "&lt;i&gt;" in page


def test_a_table_has_a_line_for_each_of_its_frame():
    frame = pd.DataFrame({"a|b": ["1", "x|y"]}, index=["first", "second"])
    header, rule, *lines = report.table(frame.rename(columns={"a|b": "ab"})).splitlines()
    assert [cell.strip() for cell in header.split("|")] == ["", "", "ab", ""]
    assert rule.startswith("|:")
    assert lines[1].replace(" ", "") == r"|second|x\|y|"


def test_numbers_are_shown_as_people_write_them():
    assert [board.p_value(p) for p in (1.0, 0.05, 0.001, 0.0009)] == ["1.000", "0.050", "0.001", "< 0.001"]
    assert [report.points(d) for d in (0.0123, -0.002, 0.0, -1e-9, float("nan"))] == [
        "+1.23",
        "-0.20",
        "+0.00",
        "+0.00",
        "",
    ]
    assert [report.number(n) for n in (0.12345, "unknown", -1e-9, None)] == ["0.123", "unknown", "0.000", ""]


@pytest.mark.parametrize("run", [True], indirect=True)
def test_results_that_are_missing_damaged_or_of_another_run_are_refused_by_their_name(run):
    assert report.read().order
    for name in ("scores", "ensemble", "analysis", "data"):
        path = report.RESULTS / f"{name}.json"
        good = path.read_text()
        for content in (None, "{", "[1]", "{}"):
            path.unlink() if content is None else path.write_text(content)
            with pytest.raises(UserError, match=rf"(?s)^results/{name}\.json .*make it with: dvc repro"):
                report.read()
        path.write_text(good)
    fake_run.params(ensemble={"method": "mean", "members": ["plain_net"]})  # without the other system
    with pytest.raises(UserError, match=r"^results/scores\.json .*other submissions"):
        report.read()


OPTIONAL = {
    "claims": report.claims,
    "seeds": report.seeds,
    "speedrun": lambda found: report.speedrun(fake_run.params(), found),
}


@pytest.mark.parametrize(
    ("name", "content"),
    [("claims", "{"), ("claims", "[1]"), ("claims", '{"vgg8": {"claimed": "65 %"}}'), ("seeds", '{"seeds": [1, 2]}'),
     ("speedrun", '{"minutes": 1}')],
)  # fmt: skip
def test_what_another_version_wrote_is_refused_with_what_to_do(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    report.RESULTS.mkdir()
    assert report.optional(f"{name}.json", name, OPTIONAL[name]) is None
    (report.RESULTS / f"{name}.json").write_text(content)
    with pytest.raises(UserError, match=rf"^results/{name}\.json .*make it with: make {name}$"):
        report.optional(f"{name}.json", name, OPTIONAL[name])


@pytest.mark.parametrize("private", [0.72, "unknown"])
def test_the_seeds_of_the_speedrun_stand_above_their_mean(tmp_path, monkeypatch, private):
    monkeypatch.chdir(tmp_path)
    wanted = {"model": "plain_net", "networks": 2, "seeds": [1, 2], "override": {"flip": True}}
    settings = fake_run.params(speedrun=wanted)
    scores = {"public_accuracy": 0.7, "private_accuracy": private, "private_no_duplicate_accuracy": private,
              "private_low": private, "private_high": private}  # fmt: skip
    entry = scores | {"minutes": 40.0, "trained_with": [{"processor": "abacus"}]}
    spreads = {split: {"mean": 0.7, "deviation": 0.002} for split in list(scores)[:3]} if private == 0.72 else {}
    about = {"model": "plain_net", "networks": 2, "recipe": settings.speedrun_recipe().model_dump(), "minutes": 40.0}
    found = about | spreads | {"by_seed": {"1": entry, "2": entry}}
    shown = report.speedrun(settings, found)
    assert (shown["epochs"], shown["machines"], shown["changed"]) == (2, "abacus", False)
    one, over = ("72.00%", "70.00% ± 0.20") if spreads else ("unknown", "")
    interval = f"{one} to {one}" if spreads else "unknown"
    seed = ["70.00%", one, interval, one, "40.0"]
    assert shown["table"].to_numpy().tolist() == [seed, seed, [over, over, "", over, "40.0"]]
    assert list(shown["table"].index) == ["1", "2", "mean"]
    assert report.speedrun(fake_run.params(speedrun=wanted | {"networks": 3}), found)["changed"]
    assert report.speedrun(fake_run.params(), found)["changed"]


def test_the_seeds_of_whole_runs_are_shown_with_their_deviation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_run.params()
    same = {key: value for key, value in fake_run.document().items() if key != "seed"}
    worse, better = ({"oof_accuracy": {"mean": mean, "deviation": 0.01}} for mean in (0.6, 0.7))
    found = {"seeds": [1, 2], "params": same, "submissions": {"worse": worse, "better": better}}
    shown = report.seeds(json.loads(json.dumps(found)))
    assert shown["table"]["oof accuracy"].to_dict() == {"better": "70.00% ± 1.00", "worse": "60.00% ± 1.00"}
    assert list(shown["table"].index) == ["better", "worse"]
    assert not shown["changed"]
    assert report.seeds(found | {"params": same | {"folds": [0, 1, 2]}})["changed"]


def test_claims_stand_beside_what_their_protocol_and_ours_give():
    ours = {"epochs": 3, "trained_rows": 80, "rows": 20, "best_epoch": 0.75, "last_epoch": 0.7}
    entry = {"claimed": "65 %", "measured_on": "a split", "epochs_there": 100, "theirs_here": ours,
             "honest": ours | {"best_epoch": None, "last_epoch": 0.66}}  # fmt: skip
    first, second = report.claims({"vgg8": entry, "alizadeh_same": entry | {"theirs_here": None}}).to_numpy().tolist()
    assert first == ["65 %", "a split", 100, 3, "75.00%", "70.00%", "80", "66.00%"]
    assert second == ["65 %", "a split", 100, 3, "", "", "80", "66.00%"]
