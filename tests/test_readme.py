"""README says what the committed results say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.evaluation import submission

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMITTED = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "submissions", "results", "params.yaml"], cwd=ROOT)
pytestmark = pytest.mark.skipif(COMMITTED.returncode != 0, reason="the results here are not the committed ones")


@pytest.fixture(scope="module")
def scores():
    return pd.read_csv(ROOT / "submissions/scores.csv")


def test_the_board_in_readme_is_the_one_that_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "pipeline.kaggle.leaderboard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for line in printed.splitlines():
        assert line.rstrip() in README


def test_scores_as_table_and_as_metrics_are_the_same(scores):
    nested = json.loads((ROOT / "results/scores.json").read_text())
    for entry in scores.to_dict(orient="records"):
        for key, value in nested[entry.pop("name")].items():
            assert str(entry[key]) == str(value)


def test_every_committed_submission_is_the_one_that_was_scored(scores):
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert list(scores["name"]) == [*document["architectures"], *document["students"], "ensemble"]
    for entry in scores.itertuples():
        path = ROOT / f"submissions/{entry.name}.csv"
        assert len(submission.read(path, 7178)) == 7178
        assert submission.sha256(path) == entry.sha256


def test_the_verbs_in_readme_exist():
    verbs = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for verb in ("demo", "repro", "test", "submit", "leaderboard", "predict"):
        assert f"make {verb}" in README
        assert f"make {verb} " in verbs


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/howto.md", "docs/claims.md", "docs/protocol.md", "bench/README.md", "released/README.md"],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        titles = re.findall(r"(?m)^#+ (.*)", target.read_text()) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles], link


@pytest.mark.parametrize("plot", ["board.png", "confusion.png", "curves.png", "classes.png"])
def test_the_committed_plots_are_there(plot):
    assert (ROOT / "results/plots" / plot).read_bytes().startswith(b"\x89PNG")
