"""A fresh clone with the competition's data blends, scores and reports without any training."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_graph import Project
from test_real_data import COPY, pytestmark  # noqa: F401 (skips without a copy of the data)

ROOT = Path(__file__).parent.parent


class Clone(Project):
    def git(self, *words):
        return self.run("git", *words)

    def changed(self):
        """Return the files that differ from the commit."""
        return {line[3:] for line in self.git("status", "--porcelain").splitlines()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Clone the committed state, add an archive of the pictures and a note, and run `dvc repro`."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    words = [sys.executable, str(COPY), str(folder / "data/incoming"), "--only", "fer2013.tar.gz"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "data/incoming/NOTE.txt").write_text("a copy\n")
    made = Clone(folder)
    made.run("git", "config", "user.email", "a@example.org")
    made.run("git", "config", "user.name", "a")
    made.ran = made.repro()
    return made


def test_a_fresh_clone_trains_nothing_and_changes_no_submission(clone):
    assert not [stage for stage in clone.ran if stage.startswith(("train", "distill"))]
    assert not [name for name in clone.changed() if name.startswith(("artifacts/", "submissions/"))], clone.changed()


def test_an_experiment_blends_and_scores_again_and_keeps_params_yaml_readable(clone):
    clone.git("stash", "-q")
    output = clone.run("python", "-m", "dvc", "exp", "run", "-S", "ensemble.method=geometric")
    assert not re.search(r"Running stage '(train|distill|folds|plan)", output)
    assert clone.json("results/ensemble.json")["method"] == "geometric"
    changed = clone.git("diff", "--unified=0", "params.yaml").splitlines()
    lines = [line for line in changed if re.match(r"[+-](?![+-])", line)]
    assert len(lines) == 2, lines
    for words, wanted in (("metrics diff", "oof_accuracy"), ("params diff", "ensemble.method")):
        assert wanted in clone.run("python", "-m", "dvc", *words.split())
    assert json.loads(clone.run("python", "-m", "dvc", "exp", "show", "--json"))
    clone.git("checkout", "-q", ".")


@pytest.mark.parametrize(
    ("old", "new", "cells"),
    [("duplicates: keep", "duplicates: drop_repeats", "all"), ("rotation: 15.0", "rotation: 14.0", "some")],
)
def test_training_of_stale_cells_needs_approval_and_changes_nothing_before(clone, old, new, cells):
    before = {name: digest for name, digest in clone.files().items() if name.startswith(("artifacts/cells", "submi"))}
    path = clone.folder / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    output = clone.run("python", "-m", "dvc", "repro", fails=True)
    estimate = re.search(r"error: (\d+) cells.* to train, about (.*) of one core", output)
    assert estimate, output
    count = len(list((clone.folder / "artifacts/cells").glob("*/*/cell.json")))
    assert int(estimate[1]) >= (count if cells == "all" else 1)
    assert " h " in estimate[2]
    assert before.items() <= clone.files().items()
    clone.git("checkout", "-q", ".")
    clone.repro("folds", "plan")
