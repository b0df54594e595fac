"""A fresh clone with the competition's data: it joins, scores and reports at once, and trains nothing unasked."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_graph import Project
from test_real_data import COPY, pytestmark  # noqa: F401 (skips where there is no copy of the data)

ROOT = Path(__file__).parent.parent


class Clone(Project):
    def git(self, *words):
        return self.run("git", *words)

    def changed(self):
        """What differs from the commit."""
        return {line[3:] for line in self.git("status", "--porcelain").splitlines()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The committed state, with another archive of the same pictures and a note."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    words = [sys.executable, str(COPY), str(folder / "data/incoming"), "--only", "fer2013.tar.gz"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "data/incoming/NOTE.txt").write_text("from a friend\n")
    made = Clone(folder)
    made.run("git", "config", "user.email", "a@example.org")
    made.run("git", "config", "user.name", "a")
    made.ran = made.repro()
    return made


def test_a_fresh_clone_trains_nothing_and_changes_no_submission(clone):
    assert not [stage for stage in clone.ran if stage.startswith(("train", "distill"))]
    assert not [name for name in clone.changed() if name.startswith(("artifacts/", "submissions/"))], clone.changed()


def test_an_experiment_joins_and_scores_anew_trains_nothing_and_leaves_the_file_readable(clone):
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
def test_what_makes_cells_stale_is_told_first_and_destroys_nothing(clone, old, new, cells):
    before = {name: digest for name, digest in clone.files().items() if name.startswith(("artifacts/cells", "submi"))}
    path = clone.folder / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    output = clone.run("python", "-m", "dvc", "repro", fails=True)
    told = re.search(r"error: (\d+) cells.* to train, about (.*) of one core", output)
    assert told, output
    count = len(list((clone.folder / "artifacts/cells").glob("*/*/cell.json")))
    assert int(told[1]) >= (count if cells == "all" else 1)
    assert " h " in told[2]
    after = clone.files()
    assert {name for name in before if before[name] != after.get(name)} == set()
    clone.git("checkout", "-q", ".")
    clone.repro("folds", "plan")
