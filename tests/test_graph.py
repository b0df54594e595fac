"""The stages that DVC runs after each kind of change, on a small synthetic competition."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import fake_run
import numpy as np
import pandas as pd
import pytest
import small
import tiny
from settings import ROOT
from test_pictures import encoded

from pipeline.apps import demo
from pipeline.data import prepare, synthetic
from pipeline.files import sha256

PIXELS, LABELS, USAGE = synthetic.competition(training=84, test=21, seed=5)
MODELS = {"one": {"architecture": "tiny", "recipe": "short", "loss": "binary"}}
DOCUMENT = small.DOCUMENT | {
    "recipes": {"short": {"epochs": 1, "batch_size": 8, "precision": "float32"}},
    "models": MODELS,
    "students": {"pupil": {"architecture": "tiny", "recipe": "short", "teachers": ["one"], "teacher_weight": 0.5}},
    "ensemble": {"method": "weights", "members": ["one", "pupil"]},
}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # starts with the environment of the tests
CHEAP = {"download", "prepare", "folds", "plan", "audit", "soft_targets@pupil", "ensemble", "score", "report"}
CELLS = {*(f"train@{name}" for name in MODELS), "distill@pupil"}
# Only these files may depend on test labels.
MAY_CHANGE = re.compile(
    r"data/(incoming|raw)/.*|data/solution.csv|results/(data|analysis).json|results/metrics/.*|dvc.lock"
    r"|submissions/scores.csv|results/report.(html|md)|results/(plots/)?\w+.(png|csv)"
)


@dataclass
class Project:
    """DVC project in a folder, with a copy of the code."""

    folder: Path

    def run(self, *words, fails=False):
        """Run a module of Python in the project. Return its output."""
        done = subprocess.run(
            ["python", "-m", *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": "", "PATH": PATH},
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def repro(self, *words):
        """Run `dvc repro`. Return the names of the stages that ran."""
        return set(re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *words)))

    def outdated(self, *stages):
        """Return those of the stages that DVC would run."""
        output = self.run("dvc", "status", "--json", *stages)
        return set(json.loads(output[output.index("{") :]))

    def files(self):
        """Return the digest of every file, except those of DVC and the code."""
        names = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        return {name: sha256((self.folder / name).read_bytes()) for name in names
                if not name.startswith((".dvc", "pipeline"))}  # fmt: skip

    def scores(self, folder="."):
        """Return submissions/scores.csv by name."""
        return pd.read_csv(self.folder / folder / "submissions/scores.csv").set_index("name").to_dict(orient="index")

    def set(self, **changes):
        """Change sections of params.yaml."""
        (self.folder / "params.yaml").write_text(json.dumps(DOCUMENT | changes))  # JSON is valid YAML


def changed(before, after):
    """Return the names of the files that were changed, added or removed."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def bring(folder, labels=LABELS):
    synthetic.write(folder / "data/incoming", PIXELS, labels, USAGE, names=("fer2013.csv",))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Create a project, and run it once."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    for name in (".dvc", "data/incoming", "external", "artifacts/students", "artifacts/cells"):
        (folder / name).mkdir(parents=True)
    (folder / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\ncheck_update = false\n")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    tiny.write(folder / "pipeline")
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / ".dvcignore").write_text("__pycache__\n")
    drawn = encoded(np.zeros((9, 9, 3), "uint8"))  # the package that draws takes seconds
    stand_in = f"vegalite_to_png = lambda *_, **__: {drawn!r}\njavascript_bundle = lambda _: ''\n"
    (folder / "vl_convert.py").write_text(stand_in)
    bring(folder)
    project = Project(folder)
    project.set()
    assert project.repro() == CHEAP | CELLS
    return project


@pytest.fixture
def project(once, tmp_path):
    """Copy the project, so that a test may change it."""
    shutil.copytree(once.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def test_a_second_repro_runs_nothing(once):
    before = once.files()
    assert once.repro() == set()
    assert once.files() == before
    assert "nothing is stale" in once.run("pipeline", "plan", "--show")


def test_test_labels_affect_only_solution_audit_score_and_report(project):
    before = project.files()
    scrambled = LABELS.copy()
    scrambled[84:] = (scrambled[84:] + 1 + np.arange(42) % 5) % 7
    bring(project.folder, scrambled)
    assert project.repro() == {"download", "prepare", "audit", "score", "report"}
    # The other stages also give equal results if they are forced to run with the scrambled labels.
    assert project.repro("--single-item", "--force", "folds", "ensemble") == {"folds", "ensemble"}
    project.run("pipeline", "train", "one", "0", "--retrain")
    names = changed(before, project.files())
    assert {"data/solution.csv", "submissions/scores.csv"} <= names
    unexpected = {name for name in names if not MAY_CHANGE.fullmatch(name)}
    assert unexpected <= {"artifacts/cells/one/fold0/cell.json"}, "contains the training time"


def test_a_new_model_trains_only_its_own_cells(project):
    before = project.files()
    project.set(models=MODELS | {"three": {"architecture": "tiny", "recipe": "short", "seed": 9}})
    assert "2 cells stale" in project.run("pipeline", "plan", "--show")
    assert "2 of 2" in project.run("pipeline", "train")
    lock, known = project.folder / "dvc.lock", (project.folder / "dvc.lock").read_text()
    lock.write_text(known.split("  train@three:")[0])  # as if the cells were copied from another machine
    assert project.outdated("train") >= {"train@three"}
    assert "nothing is stale" in project.run("pipeline", "plan", "--show")
    lock.write_text(known)
    assert project.repro() == {"ensemble", "score", "report"}
    assert not [name for name in changed(before, project.files()) if "students" in name]
    assert "three" in project.scores()


def test_a_changed_teacher_makes_its_student_stale(project):
    project.set(models=MODELS | {"one": MODELS["one"] | {"learning_rate": 0.01}})
    assert "4 cells stale" in project.run("pipeline", "plan", "--show"), "two of them are the student's"
    assert project.repro("soft_targets") == {"train@one", "soft_targets@pupil"}
    assert project.outdated("distill") == {"distill@pupil"}


def test_quick_runs_on_every_fifth_face_and_replaces_the_files_of_an_earlier_run(stand, monkeypatch):
    monkeypatch.setattr(demo, "python", calls := Mock())
    Path("pipeline").mkdir()
    rows, incoming = np.r_[0:70:5, 70:84:5, 84:105:5], Path("quick/data/incoming")
    for known, names in ((True, ["fer2013.csv"]), (False, ["test.csv", "train.csv"])):
        _, data, _ = fake_run.build(known)
        demo.main(quick=True)
        assert sorted(path.name for path in incoming.iterdir()) == names
        taken = prepare.read_folder(incoming)
        np.testing.assert_array_equal(taken.pixels, data.pixels[rows])
        np.testing.assert_array_equal(taken.labels, np.where(known | (rows < 70), fake_run.labels()[rows], -1))
    assert [call.args[1] for call in calls.call_args_list] == ["repro", "train", "repro", "leaderboard"] * 2
    assert calls.call_args_list[1].kwargs == {"folder": Path("quick"), "YES": "1"}


@pytest.mark.slow
def test_the_demo_is_better_than_chance_and_a_second_run_does_nothing(tmp_path):
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    project = Project(tmp_path)
    project.run("pipeline", "demo")
    scores = project.scores("demo")
    assert scores["ensemble"]["private_accuracy"] > 0.7  # chance is one in seven
    assert {path.name for path in tmp_path.iterdir()} == {"pipeline", "dvc.yaml", "params.yaml", "demo"}
    assert "Running stage" not in project.run("pipeline", "demo")
