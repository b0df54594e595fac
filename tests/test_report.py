import json
import re
import shutil
import sys
from pathlib import Path

import browser
import fake_run
import numpy as np
import pytest
import vl_convert
from settings import ROOT, refuses
from test_pictures import encoded

from pipeline import config
from pipeline.evaluation import audit, ensemble, report, score, submission

chromium = browser.chromium


@pytest.fixture(scope="module", params=[True])
def made(request, tmp_path_factory):
    """Create a small run up to its scores, with another system as a member; the parameter: whether labels are known."""
    known, folder = request.param, tmp_path_factory.mktemp("run")
    picture = encoded(np.zeros((9, 9, 3), "uint8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fake_run.external("other", np.arange(70), 3.0)
        members = [*fake_run.MODELS, fake_run.STUDENT, "other"]
        speedrun = {"architecture": "small_vgg", "seeds": [1, 2, 3], "epochs": 3}
        fake_run.build(known, ensemble={"method": "weights", "members": members}, speedrun=speedrun)
        patch.setattr(vl_convert, "vegalite_to_png", lambda *words, **options: picture)  # drawing is slow
        for stage in (audit, ensemble, score):
            stage.main()
    return known, folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """Copy the run into the working folder. Return whether its test labels are known."""
    shutil.copytree(made[1], tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return made[0]


@pytest.fixture
def without_script(monkeypatch):
    """Leave out the script of the learning curves, which takes seconds to bundle."""
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda words: "")


def written():
    """Write the report. Return its text."""
    report.main()
    return Path("results/report.md").read_text()


def lines(text, heading):
    """Return the rows of the table after a heading, by their first cell."""
    rows = text[text.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(rows) if line.startswith("|:"))
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[start + 1 : rows.index("", start)]]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("made", [True, False], ids=["known", "unknown"], indirect=True)
def test_main_writes_one_page_without_keras(run, without_script, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    text, page = written(), Path("results/report.html").read_text()
    scores = {entry["name"]: entry for entry in submission.scores()}
    order = sorted(scores, key=lambda name: -scores[name]["oof_accuracy"])
    for heading in ("**Without duplicates", "<summary>McNemar", "**Test-time augmentation", "**Recall", "**Out of fold",
                    "**PrivateTest"):  # fmt: skip
        assert list(lines(text, heading)) == order, heading
    weights = ensemble.result().weights
    shown = [(name, cells[0]) for name, cells in lines(text, "**Members").items()]
    assert shown == [(name, f"{weights[name]:.3f}") for name in order if name != config.ENSEMBLE]
    assert list(lines(text, "## Models")) == [name for name in order if name not in ("other", config.ENSEMBLE)]
    submissions = lines(text, "**Our submissions")
    assert submissions["other"][-2:] == submissions[config.ENSEMBLE][-2:] == ["", ""], "their costs are unknown"
    assert list(submissions)[: len(order)] == order
    best = [name for name in order if scores[name]["oof_accuracy"] == scores[order[0]]["oof_accuracy"]]
    assert [name for name, cells in submissions.items() if cells[0].startswith("**")] == best
    private = f"{scores['other']['private_accuracy']:.2%}" if run else "unknown"
    assert lines(text, "**Without duplicates")["other"][1].strip("*") == private
    assert "not trained here: other" in text
    assert not re.search(r"\b(nan|None|Undefined)\b", text)
    assert config.PATH.read_text().strip() in text
    assert page.count("<table>") == len(re.findall(r"^\|[:-]", text, re.MULTILINE))
    assert page.count("data:image/png;base64,") == text.count("![") - 1, "learning curves are not a picture in the page"
    assert page.count("<details>") == page.count("</details>") == text.count("<details>") > 3
    assert 'src="plots' not in page


def test_html_in_the_markdown_is_escaped(without_script):
    page = report.page("## First & last\n\n<b>bold</b>\n", {})
    assert "<h2>First &amp; last</h2>\n<p>&lt;b&gt;bold" in page


def test_a_browser_draws_the_learning_curves_without_overflow(run, chromium):
    report.main()
    chromium.get(Path("results/report.html").resolve().as_uri())
    chromium.implicitly_wait(20)
    text = chromium.find_element("css selector", "#curves svg").text
    assert all(name in text for name in (*fake_run.MODELS, fake_run.STUDENT, "%"))
    from selenium.webdriver.support.ui import WebDriverWait

    chromium.find_element("css selector", "#curves option[value=val_loss]").click()
    shown = "return document.querySelector('#curves svg')?.textContent || '%'"
    WebDriverWait(chromium, 20).until(lambda _: "%" not in chromium.execute_script(shown))
    assert [browser.width(chromium, width) for width in (390, 1280)] == [390, 1280]
    assert [line for line in chromium.get_log("browser") if "favicon" not in line["message"]] == []


@pytest.mark.parametrize("name", ["ensemble", "analysis", "data", "claims"])
def test_results_that_are_missing_or_damaged_raise(run, name):
    path = report.RESULTS / f"{name}.json"
    for content in ("{", '{"vgg8": {"claimed": "65 %"}}', None):
        path.write_text(content) if content else path.unlink()
        if content or name != "claims":  # claims are optional
            refuses("results/", report.main)


def test_scores_of_another_run_raise(run):
    fake_run.params(ensemble={"method": "mean", "members": ["plain_net"]})  # without the other system
    refuses(r"^submissions/scores\.csv .*other submissions", report.main)


def test_claims_seeds_and_speedrun_are_shown_if_they_exist(run, without_script):
    assert "## Speedrun" not in written()
    claims, speedrun = (json.loads((ROOT / f"results/{name}.json").read_text()) for name in ("claims", "speedrun"))
    speedrun |= {"architecture": "small_vgg", "recipe": config.load().speedrun.resolved().model_dump()}
    worse, better = ({"oof_accuracy": {"mean": mean, "deviation": 0.01}} for mean in (0.6, 0.7))
    seeds = {"seeds": [1, 2], "params": {key: each for key, each in config.read().items() if key != "seed"},
             "submissions": {"worse": worse, "better": better}}  # fmt: skip
    for name, content in {"claims": claims, "speedrun": speedrun, "seeds": seeds}.items():
        (report.RESULTS / f"{name}.json").write_text(json.dumps(content))
    shutil.copy("results/plots/board.png", "results/claims.png")
    text = written()
    honest = {name: each["scores"]["PrivateTest"] for name, each in claims.items()}
    assert {name: (cells[2], cells[5]) for name, cells in lines(text, "## Claimed").items()} == {
        name: (f"{each['last']['accuracy']:.2%}", f"{each['without_duplicates']['accuracy']:.2%}")
        for name, each in honest.items()
    }
    assert lines(text, "**Difference").keys() == {name for name, each in claims.items() if "points" in each}
    private = speedrun["private_accuracy"]
    assert [cells[1] for cells in lines(text, "## Speedrun").values()] == [
        *(f"{value:.2%}" for value in private["values"]), f"{private['mean']:.2%} ± {100 * private['deviation']:.2f}"
    ]  # fmt: skip
    assert lines(text, "## Seeds") == {"better": ["70.00% ± 1.00"], "worse": ["60.00% ± 1.00"]}
    assert "another params.yaml" not in text
    for name, content in {"speedrun": speedrun, "seeds": seeds}.items():
        (report.RESULTS / f"{name}.json").write_text(json.dumps(content | {"architecture": "vgg8", "params": {}}))
    assert written().count("another params.yaml") == 2
    assert report.of_other_params(config.load(), speedrun | {"by_seed": {"4": {}}}, None)["speedrun"]
