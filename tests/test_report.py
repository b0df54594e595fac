import io
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
from PIL import Image

from pipeline import config
from pipeline.config import ENSEMBLE
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, report, score

chromium = browser.chromium
PNG = io.BytesIO()
Image.new("RGBA", (9, 9)).save(PNG, "PNG")
PNG = PNG.getvalue()
pytestmark = pytest.mark.filterwarnings("ignore:F-score is ill-defined")  # few rows do not have all classes


@pytest.fixture(scope="module", params=[True, False], ids=["known", "unknown"])
def made(request, tmp_path_factory):
    """Create a small run up to its scores, with the predictions of another system as a member."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fake_run.external("other", np.arange(70), 3.0)
        members = [*fake_run.MODELS, fake_run.STUDENT, "other"]
        speedrun = {"model": fake_run.MODELS[0], "seeds": [1, 2], "override": {"flip": True}}
        fake_run.build(request.param, ensemble={"method": "weights", "members": members}, speedrun=speedrun)
        patch.setattr(vl_convert, "vegalite_to_png", lambda *words, **options: PNG)  # drawing is slow
        for stage in (audit, ensemble, score):
            stage.main()
    return request.param, folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """Copy the run into the working folder. Return whether its test labels are known."""
    shutil.copytree(made[1], tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return made[0]


known_only = pytest.mark.parametrize("made", [True], indirect=True)


def lines(text, heading):
    """Return the rows of the table after a heading, by their first cell."""
    rows = text[text.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(rows) if line.startswith("|:"))
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[start + 1 : rows.index("", start)]]
    return {row[0]: row[1:] for row in cells}


def test_main_writes_one_page_without_keras(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    report.main()
    text, page = (Path(f"results/report.{kind}").read_text() for kind in ("md", "html"))
    scores = fake_run.result("results/scores.json")
    order = sorted(scores, key=lambda name: -scores[name]["oof_accuracy"])
    for heading in ("**Without duplicates", "<summary>McNemar", "**Test-time augmentation", "**Recall", "**Out of fold",
                    "**PrivateTest"):  # fmt: skip
        assert list(lines(text, heading)) == order, heading
    assert list(lines(text, "**Members")) == [name for name in order if name != ENSEMBLE]
    assert list(lines(text, "## Models")) == [name for name in order if name not in ("other", ENSEMBLE)]
    assert {"architecture", "seed", "teachers", "epochs"} < set(lines(text, "<summary>Recipes"))
    submissions = lines(text, "**Our submissions")
    assert list(submissions)[: len(order)] == order
    for column in (0, 1, 2):  # out of fold, PublicTest, PrivateTest
        texts = {name: cells[column] for name, cells in submissions.items()}
        values = {name: float(cell.strip("*%")) for name, cell in texts.items() if cell not in ("", "unknown")}
        best = {name for name in values if values[name] == max(values.values())}
        assert {name for name in texts if texts[name].startswith("**")} == best
    weights = {name: cells[0] for name, cells in lines(text, "**Members").items()}
    assert weights == {name: f"{weight:.3f}" for name, weight in ensemble.result().weights.items()}
    assert lines(text, "**Without duplicates")["other"][1].strip("*") == (
        f"{scores['other']['private_accuracy']:.2%}" if run else "unknown"
    )
    assert "not trained here: other" in text
    assert not re.search(r"\b(nan|None|Undefined)\b", text)
    assert config.PATH.read_text().strip() in text
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert page.count("<table>") == len(re.findall(r"^\|[:-]", text, re.MULTILINE))
    assert page.count("data:image/png;base64,") == text.count("![") - 1, "learning curves are not a picture in the page"
    assert page.count("<details>") == page.count("</details>") == text.count("<details>") > 3
    assert 'src="plots' not in page


def test_html_in_the_markdown_is_escaped():
    page = report.page("# A page\n\n## First & last\n\n<b>bold</b>\n\n| | one |\n|:--|--:|\n| <i> | 2 |\n", {})
    assert "<h2>First &amp; last</h2>" in page
    assert "&lt;b&gt;bold" in page
    assert "&lt;i&gt;" in page


@known_only
def test_a_browser_draws_the_learning_curves_without_overflow(run, chromium):
    report.main()
    chromium.get(f"file://{Path('results/report.html').resolve()}")
    chromium.implicitly_wait(20)
    text = chromium.find_element("css selector", "#curves svg").text
    assert all(name in text for name in (*fake_run.MODELS, fake_run.STUDENT))
    assert [browser.width(chromium, width) for width in (390, 1280)] == [390, 1280]
    assert [line for line in chromium.get_log("browser") if "favicon" not in line["message"]] == []


@known_only
def test_results_that_are_missing_damaged_or_of_another_run_raise(run):
    for name in ("ensemble", "analysis", "data"):
        path = report.RESULTS / f"{name}.json"
        good = path.read_bytes()
        for content in (b"{", b"{}", None):
            path.write_bytes(content) if content else path.unlink()
            with pytest.raises(UserError, match="results/"):
                report.main()
        path.write_bytes(good)
    for content in ("{", '{"vgg8": {"claimed": "65 %"}}'):
        (report.RESULTS / "claims.json").write_text(content)
        with pytest.raises(UserError, match="results/"):
            report.main()
    fake_run.params(ensemble={"method": "mean", "members": ["plain_net"]})  # without the other system
    with pytest.raises(UserError, match=r"^submissions/scores\.csv .*other submissions"):
        report.main()


SHARE = {"accuracy": 0.66, "low": 0.6, "high": 0.7}
PART = {"rows": 8000, "duplicates": 500, "last": SHARE, "without_duplicates": SHARE | {"accuracy": 0.65},
        "last_epochs": {"low": 0.61, "high": 0.67}}  # fmt: skip
CLAIM = {"claimed": 65.5, "measured_on": "a split", "chooses_epoch": True, "epochs": 3, "chosen_epoch": 2,
         "recipe": {"epochs": 100}, "points": {"not_reached": -9.5, "epoch": 5.0, "duplicates": 0.25, "rows": 1.0},
         "scores": {"PrivateTest": PART, "their rows": PART | {"chosen": SHARE | {"accuracy": 0.75}}}}  # fmt: skip
SEED = {"public_accuracy": 0.7, "private_accuracy": 0.72, "private_no_duplicate_accuracy": 0.71, "private_low": 0.7,
        "private_high": 0.74, "minutes": 40.0, "trained_with": [{"processor": "abacus"}]}  # fmt: skip


@known_only
def test_claims_seeds_and_speedrun_are_shown_if_they_exist(run):
    report.main()
    assert "## Speedrun" not in Path("results/report.md").read_text()
    settings = config.load()
    spreads = {split: {"mean": SEED[split], "deviation": 0.002} for split in board.SEED_SCORES}
    worse, better = ({"oof_accuracy": {"mean": mean, "deviation": 0.01}} for mean in (0.6, 0.7))
    results = {
        "claims": {"vgg8": CLAIM, "vgg9": CLAIM | {"scores": {"PrivateTest": PART}, "points": None}},
        "speedrun": {"model": "plain_net", "networks": 1, "recipe": settings.speedrun_recipe().model_dump(),
                     "minutes": 40.0, "by_seed": {"1": SEED, "2": SEED}} | spreads,
        "seeds": {"seeds": [1, 2], "params": {key: each for key, each in config.read().items() if key != "seed"},
                  "submissions": {"worse": worse, "better": better}},
    }  # fmt: skip
    for name, content in results.items():
        (report.RESULTS / f"{name}.json").write_text(json.dumps(content))
    shutil.copy("results/plots/board.png", "results/claims.png")
    report.main()
    text = Path("results/report.md").read_text()
    honest = ["66.00%", "60.00% to 70.00%", "61.00% to 67.00%", "65.00%", "3 of 100"]
    assert lines(text, "## Claimed") == {"vgg8": ["65.5%", "75.00%", *honest], "vgg9": ["65.5%", "", *honest]}
    assert lines(text, "**Difference") == {"vgg8": ["-9.50", "+5.00", "+0.25", "+1.00"]}
    assert "| vgg8 | their rows | a split | 500 of 8,000 | 66.00% | 65.00% | 75.00% in epoch 2 |" in text
    seed = ["70.00%", "72.00%", "70.00% to 74.00%", "71.00%", "40.0"]
    mean = ["70.00% ± 0.20", "72.00% ± 0.20", "", "71.00% ± 0.20", "40.0"]
    assert lines(text, "## Speedrun") == {"1": seed, "2": seed, "mean": mean}
    assert "Trained on: abacus." in text
    assert "except: flip True." in text
    assert lines(text, "## Seeds") == {"better": ["70.00% ± 1.00"], "worse": ["60.00% ± 1.00"]}
    assert "another params.yaml" not in text
    for name in ("speedrun", "seeds"):
        (report.RESULTS / f"{name}.json").write_text(json.dumps(results[name] | {"networks": 3, "params": {}}))
    report.main()
    assert Path("results/report.md").read_text().count("another params.yaml") == 2
