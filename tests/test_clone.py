"""A fresh clone with the competition's data blends, scores and reports without any training."""

import json
import re
import subprocess
import sys

import pytest
from settings import ROOT
from test_graph import Project

from pipeline import competition
from pipeline.apps import networks, packed
from pipeline.data import faces, solution

COPY = ROOT.parent / "shared/fer2013/make_competition.py"
pytestmark = pytest.mark.skipif(not COPY.exists(), reason="no copy of the competition's data next to the project")


def git(project, *words):
    """Run git in the project. Return its output."""
    return subprocess.run(["git", *words], cwd=project.folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Clone the committed state, add an archive of the pictures and a note, and run `dvc repro`."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    words = [sys.executable, str(COPY), str(folder / "data/incoming"), "--only", "fer2013.tar.gz"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "data/incoming/NOTE.txt").write_text("a copy\n")
    made = Project(folder)
    for key in ("email", "name"):  # for `dvc exp run`
        git(made, "config", f"user.{key}", "a@example.org")
    made.ran = made.repro()
    return made


def test_a_fresh_clone_trains_nothing_and_changes_no_submission(clone):
    assert not [stage for stage in clone.ran if stage.startswith(("train", "distill"))]
    assert git(clone, "status", "--porcelain", "artifacts", "submissions") == ""


def test_the_real_data_has_the_published_counts_and_the_known_duplicates(clone):
    assert "audit" in clone.ran, "these are not the committed results"
    result = json.loads((clone.folder / "results/data.json").read_text())
    assert tuple(result["rows"].values()) == competition.SPLIT_ROWS
    assert result["classes_as_published"]
    assert result["constant_pictures"] == {"Training": 11, "PublicTest": 1, "PrivateTest": 0}
    identical = result["identical_pictures"]
    counts = [identical[key] for key in ("groups", "extra_copies", "groups_with_conflicting_labels")]
    assert counts == [1518, 1855, 59]
    assert identical["PrivateTest in Training"]["rows"] == 288


def test_plan_in_a_fresh_clone_finds_nothing_stale(clone):
    for path in (clone.folder / "artifacts/soft_targets").glob("*.npz"):
        path.unlink()
    assert "nothing is stale" in clone.run("pipeline", "plan", "--show")


def test_an_experiment_blends_and_scores_again_and_keeps_params_yaml_readable(clone):
    git(clone, "stash", "-q")
    output = clone.run("dvc", "exp", "run", "-S", "ensemble.method=geometric", "score")
    assert not re.search(r"Running stage '(train|distill|folds|plan)", output)
    assert json.loads((clone.folder / "results/ensemble.json").read_text())["method"] == "geometric"
    assert git(clone, "diff", "--numstat", "params.yaml").split() == ["1", "1", "params.yaml"]
    assert "oof_accuracy" in clone.run("dvc", "metrics", "diff")
    git(clone, "checkout", "-q", ".")


@pytest.mark.slow
def test_the_released_network_has_the_accuracy_on_its_card(clone, monkeypatch):
    monkeypatch.chdir(clone.folder)
    data, card = faces.load(), json.loads(packed.find().read_text())["scores"]["PrivateTest"]
    rows = data.rows(competition.PRIVATE)
    predicted = networks.load().probabilities(data.pixels[rows]).argmax(axis=1)
    # The rounding depends on the processor and the precision.
    assert (predicted == solution.load(data)[rows]).mean() == pytest.approx(card["accuracy"], abs=0.002)
