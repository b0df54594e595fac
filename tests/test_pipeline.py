"""The whole pipeline through real `dvc repro`, on a tiny competition of drawn faces that lies in data/incoming."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from ruamel.yaml import YAML

from pipeline.apps import demo
from pipeline.data import synthetic

ROOT = Path(__file__).parent.parent
PIXELS, LABELS, USAGE = synthetic.competition(training=84, test=21, seed=5)
CELLS = {f"train@{name}-{fold}" for name in ("mini_xception", "tiny") for fold in (0, 1)}
TEACH = {f"teach@{fold}" for fold in (0, 1)}
# A scrambled label may reach nothing but these.
MAY_CHANGE = re.compile(
    r"data/(incoming|raw)/.*|data/solution.csv|results/(data|scores|analysis).json|results/metrics/.*"
    r"|submissions/scores.csv|results/report.(html|md)|results/plots/(board|classes|calibration|splits).png"
    r"|artifacts/odd_pictures.png|dvc.lock|artifacts/timings/.*"
)


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def repro(self, *words: str) -> set[str]:
        """Run `dvc repro`; the stages that ran."""
        done = subprocess.run(["dvc", "repro", *words], cwd=self.folder, capture_output=True, text=True)
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        return set(re.findall(r"Running stage '([^']+)'", self.output))

    def files(self) -> dict[str, str]:
        """Every file but DVC's own and the code, with its digest."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        names = {str(path.relative_to(self.folder)): path for path in paths}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in names.items()
            if not name.startswith((".dvc", "pipeline"))
        }

    def scores(self) -> dict:
        return json.loads((self.folder / "results/scores.json").read_text())

    def set(self, change) -> None:
        """Change params.yaml."""
        path = self.folder / "params.yaml"
        document = YAML(typ="safe").load(path.read_text())
        change(document)
        with open(path, "w") as file:
            YAML().dump(document, file)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project of its own, once through. It holds a copy of the code, which tests may change."""
    base = tmp_path_factory.mktemp("whole")
    for name in ("pipeline", "dvc.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, base / name)
    tiny.write(base / "pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        demo.build(Path("work"), ROOT / "pipeline/demo.yaml")
    project = Project(base / "work")

    def small(document):
        document["data"]["source"] = "local"
        document["folds"] = [0, 1]
        document["train"]["epochs"] = 1
        document["architectures"] = {
            "mini_xception": {"epochs": 2, "batch_size": 8},
            "tiny": {"epochs": 1, "batch_size": 8, "loss": "binary"},
        }
        document["students"] = {}  # test_teach.py has some, and the demo
        document["ensemble"] = {"method": "weights", "members": ["mini_xception", "tiny"]}

    project.set(small)
    synthetic.write(project.folder / "data/incoming", PIXELS, LABELS, USAGE, names={"fer2013.tar.gz"})
    ran = project.repro()
    once = {"check", "download", "prepare", "folds", "audit", "explain", "ensemble", "score", "report"}
    assert ran == once | CELLS | TEACH
    return project


def test_every_file_has_the_documented_form(project):
    folder = project.folder
    faces = np.load(folder / "data/faces.npz")
    assert (faces["labels"][84:] == -1).all()
    np.testing.assert_array_equal(faces["labels"][:84], LABELS[:84])
    for name in ("mini_xception", "tiny", "ensemble"):
        bag = np.load(folder / f"artifacts/bags/{name}.npz")
        assert (bag["oof"].shape, bag["oof"].dtype) == ((84, 7), np.float32)
        assert (bag["test"].shape, bag["test"].dtype) == ((42, 7), np.float32)
        lines = (folder / f"submissions/{name}.csv").read_bytes().split(b"\n")
        assert lines.pop() == b""
        np.testing.assert_array_equal([int(line) for line in lines], bag["test"].argmax(axis=1))
    table = pd.read_csv(folder / "submissions/scores.csv")
    assert list(table["name"]) == ["mini_xception", "tiny", "ensemble"]
    right = [int(line) for line in lines[21:]] == LABELS[84 + 21 :]
    assert table["private_accuracy"].iloc[-1] == pytest.approx(right.mean(), abs=1e-5)


def test_the_report_tells_of_every_submission_and_needs_nothing_beside_it(project):
    page = (project.folder / "results/report.html").read_text()
    duplicate = (project.folder / "results/report.md").read_text()
    for name, entry in project.scores().items():
        for text in (page, duplicate):
            assert name in text
            assert entry["sha256"] in text
            assert f"{entry['oof_accuracy']:.2%}" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png;base64,|#)", page)
    assert not re.findall(r"<script|@import|url\(", page)
    drawn = sorted(path.name for path in (project.folder / "results/plots").glob("*.png"))
    assert len(re.findall(r"<img ", page)) == len(drawn) >= 7
    assert sorted(re.findall(r"\(plots/(\w+\.png)\)", duplicate)) == drawn


def test_a_second_time_nothing_runs(project):
    before = project.files()
    assert project.repro() == set()
    assert "up to date" in project.output
    assert project.files() == before


def test_scrambled_test_labels_change_nothing_but_solution_audit_and_score(project):
    before = project.files()
    scrambled = LABELS.copy()
    scrambled[84:] = (scrambled[84:] + 1 + np.arange(42) % 5) % 7
    synthetic.write(project.folder / "data/incoming", PIXELS, scrambled, USAGE, names={"fer2013.tar.gz"})
    assert project.repro() == {"download", "prepare", "audit", "score", "report"}
    # Nor do the other stages give anything else when they are made to run, with the scrambled labels lying there.
    assert project.repro("--single-item", "--force", "folds") == {"folds"}
    for path in (project.folder / "artifacts/timings").rglob("*.json"):
        path.unlink()
    words = ["python", "-m", "pipeline.stages.train"]
    done = subprocess.run(words, cwd=project.folder, capture_output=True, text=True, check=True)
    assert "4 of 4 cells are out of date" in done.stdout
    assert project.repro("--single-item", "--force", "ensemble") == {"ensemble"}
    after = project.files()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {"data/solution.csv", "submissions/scores.csv", "results/scores.json"} <= changed
    assert {name for name in changed if not MAY_CHANGE.fullmatch(name)} == set()


@pytest.mark.slow
def test_train_and_test_csv_alone_give_the_same_submissions_and_unknown_scores(project):
    before = project.files()
    incoming = project.folder / "data/incoming"
    (incoming / "fer2013.tar.gz").unlink()
    synthetic.write(incoming, PIXELS, LABELS, USAGE, names={"train.csv", "test.csv"})
    assert not project.repro() & CELLS
    assert project.files()["submissions/ensemble.csv"] == before["submissions/ensemble.csv"]
    for entry in project.scores().values():
        assert {entry["private_accuracy"], entry["public_accuracy"], entry["rank_2013"]} == {"unknown"}
        assert 0 <= entry["oof_accuracy"] <= 1
    board = subprocess.run(
        ["python", "-m", "pipeline.kaggle.leaderboard"], cwd=project.folder, capture_output=True, text=True, check=True
    )
    assert board.stdout.count("unknown") > 3


def test_a_change_of_one_network_runs_its_cells_alone(project):
    network = project.folder / "pipeline/architectures/mini_xception.py"
    original = network.read_text()
    network.write_text(original + "# changed\n")
    assert project.repro("--dry") & CELLS == {cell for cell in CELLS if "mini_xception" in cell}
    network.write_text(original)
    project.set(lambda document: document["architectures"]["tiny"].update(learning_rate=0.002))
    assert project.repro("--dry") & CELLS == {cell for cell in CELLS if "tiny" in cell}
    project.set(lambda document: document["architectures"]["tiny"].pop("learning_rate"))
    assert project.repro("--dry") & CELLS == set()


def test_dvc_takes_the_cells_that_were_trained_in_one_process(project):
    project.set(lambda document: document["architectures"]["tiny"].update(learning_rate=0.002))
    words = ["python", "-m", "pipeline.stages.train"]
    done = subprocess.run(words, cwd=project.folder, capture_output=True, text=True, check=True)
    assert "2 of 4 cells are out of date" in done.stdout
    # check reads all of params.yaml.
    assert project.repro("--dry") == {"check", "explain", "ensemble", "score", "report"} | TEACH
    before = project.files()
    assert project.repro("--single-item", "--force", "train@tiny-1") == {"train@tiny-1"}
    after = project.files()
    assert {name for name in before if after[name] != before[name]} <= {
        "dvc.lock", "artifacts/timings/tiny/fold1.json"
    }  # fmt: skip


def test_a_new_architecture_is_one_file_and_one_entry(project):
    tiny.write(project.folder / "pipeline", "another")
    project.set(lambda document: document["architectures"].update(another={}))
    project.set(lambda document: document["ensemble"]["members"].append("another"))
    assert project.repro("train@another-0") == {"check", "train@another-0"}
    rest = {"train@another-1", "ensemble", "score"}
    assert project.repro("--dry") == rest | {"explain", "report"} | TEACH
    assert project.repro("score") == rest
    assert list(project.scores()) == ["mini_xception", "tiny", "another", "ensemble"]


def test_a_clone_joins_and_scores_anew_without_weights_or_training(project, tmp_path):
    project.repro()
    base = project.folder.parent
    git = ["git", f"--git-dir={tmp_path}/git", f"--work-tree={project.folder}"]
    subprocess.run([*git, "init", "-q"], check=True)
    words = [*git, "ls-files", "--others", f"--exclude-from={ROOT}/.gitignore"]
    listed = subprocess.run(words, cwd=project.folder, capture_output=True, text=True, check=True).stdout.split()
    clone = Project(tmp_path / "work")
    for name in ("pipeline", "dvc.yaml"):
        (tmp_path / name).symlink_to(base / name)
    for name in listed:
        (clone.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project.folder / name, clone.folder / name, follow_symlinks=False)
    shutil.copytree(project.folder / "data/incoming", clone.folder / "data/incoming")
    assert {path.name for path in (clone.folder / "artifacts").iterdir()} == {"predictions", "histories", "timings"}
    assert clone.repro("audit", "folds") == {"check", "download", "prepare", "folds", "audit"}
    clone.set(lambda document: document["ensemble"].update(method="mean"))
    assert clone.repro("--allow-missing") == {"check", "ensemble", "score", "report"}
    assert json.loads((clone.folder / "results/ensemble.json").read_text())["method"] == "mean"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["ensemble"]["members"].append("vgg8"), "'vgg8', which is never trained"),
        (lambda d: d["architectures"].update(vgg9={}), "unknown architecture 'vgg9'"),
        (lambda d: d["train"].update(epoch=3), "unknown key"),
        (lambda d: d.update(folds=[0]), "at least two folds"),
    ],
    ids=["member_never_trained", "unknown_architecture", "unknown_key", "one_fold"],
)
def test_a_mistake_in_params_stops_in_one_sentence_and_costs_nothing(project, change, words):
    path = project.folder / "params.yaml"
    original, before = path.read_bytes(), project.files()
    project.set(change)
    done = subprocess.run(["python", "-m", "pipeline.stages.check"], cwd=project.folder, capture_output=True, text=True)
    path.write_bytes(original)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.startswith("error: params.yaml")
    assert len(done.stderr.splitlines()) == 1
    assert project.files() == before


def test_bad_input_stops_in_one_sentence_and_what_was_good_stays(project):
    incoming = project.folder / "data/incoming"
    good = {path: path.read_bytes() for path in incoming.iterdir()}
    before = project.files()
    for path in good:
        path.unlink()
    synthetic.write(incoming, PIXELS, LABELS, USAGE, names={"train.csv", "test.csv"})
    text = (incoming / "train.csv").read_text().splitlines()
    text[40] = text[40].replace(" ", " 256 ", 1)
    (incoming / "train.csv").write_text("\n".join(text) + "\n")
    done = subprocess.run(["dvc", "repro"], cwd=project.folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "error: data/raw/train.csv, row 40: the pixel '256' is not a whole number" in done.stderr
    assert "Traceback" not in done.stderr
    after = project.files()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith(("data/incoming/", "data/raw/", "dvc.lock"))} == set()
    for path, content in good.items():
        path.write_bytes(content)
