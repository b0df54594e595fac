"""From Kaggle and back: `data.source: kaggle`, `dvc repro`, `make submit` and the board, on a competition that is small
but for its test rows, through the real client, DVC and Makefile."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny
from loopback import ALL, KEY, SIGNATURE, TOKEN, Server, Trouble
from ruamel.yaml import YAML

from pipeline.competition import SPLIT_ROWS
from pipeline.data import synthetic

pytestmark = pytest.mark.slow  # test_kaggle_download.py, test_pipeline.py and test_submit.py hold its parts
ROOT = Path(__file__).parent.parent
TRAINING, TEST = 84, SPLIT_ROWS[1]
PIXELS, LABELS, USAGE = synthetic.competition(training=TRAINING, test=TEST, seed=5)
SLUG = "small-faces"


class Judge(Server):
    """A Kaggle that scores what it is sent."""

    def ListSubmissions(self, asked):  # noqa: N802
        for each in self.submissions:
            guesses = np.array(each["bytes"].split(), dtype=int)
            right = guesses == LABELS[TRAINING:]
            each |= {"status": "COMPLETE", "publicScore": f"{right[:TEST].mean():.5f}",
                     "privateScore": f"{right[TEST:].mean():.5f}"}  # fmt: skip
        return super().ListSubmissions(asked)


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    server = Judge(SLUG)
    folder = tmp_path_factory.mktemp("kaggle")
    synthetic.write(folder, PIXELS, LABELS, USAGE, names={"icml_face_data.csv"})
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.zipped = set(server.files)
    yield server
    server.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout of the project, in git, with a small network and the small competition."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "home").mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if (ROOT / name).exists() and not name.startswith(("submissions/", "results/", "dvc.lock", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for path in (ROOT / "pipeline").rglob("*.py"):  # and what git does not know yet
        shutil.copyfile(path, folder / path.relative_to(ROOT))
    tiny.write(folder / "pipeline")
    (folder / "results").mkdir()
    (folder / "results/kaggle.json").write_text("{}\n")
    (folder / ".venv").symlink_to(Path(shutil.which("dvc")).parent.parent)
    (folder / ".git-exclude").write_text(".venv\nhome\n.git-exclude\n")
    path = folder / "params.yaml"
    document = YAML(typ="safe").load(path.read_text())
    document |= {"folds": [0, 1], "architectures": {tiny.NAME: {"epochs": 1, "batch_size": 8}}}
    document["data"] |= {"source": "kaggle", "slug": SLUG}
    document["ensemble"] = {"method": "mean", "members": [tiny.NAME]}
    with open(path, "w") as file:
        YAML().dump(document, file)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", f"core.excludesFile={folder}/.git-exclude"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


def command_lines() -> str:
    """What the process list shows."""
    shown = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            shown.append(path.read_bytes().decode(errors="replace"))
    return "\n".join(shown)


def run(kaggle: Server, project: Path, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess:
    """Run a command; what it prints, and what the process list shows meanwhile, knows no secret."""
    environment = kaggle.environment(project / "home", KAGGLE_API_TOKEN=token)
    path = f"{project}/.venv/bin{os.pathsep}{environment['PATH']}"
    process = subprocess.Popen(words, env=environment | {"PATH": path}, cwd=project, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    while True:
        try:
            out, err = process.communicate(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            assert token not in command_lines()
    for secret in (TOKEN, KEY, SIGNATURE, "Traceback"):
        assert secret not in out + err
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture(scope="module")
def through(kaggle, project):
    """What `dvc repro` asked of Kaggle on its way from the download to the scores."""
    done = run(kaggle, project, "dvc", "repro", "score")
    assert done.returncode == 0, done.stdout + done.stderr
    return list(kaggle.requests)


@pytest.fixture(scope="module")
def submitted(kaggle, project, through):
    # Make would install into .venv, which is another checkout's here, if its stamp were older than the lock.
    done = run(kaggle, project, "make", "submit", "--old-file=setup", "--assume-old=.venv/.installed")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_repro_downloads_from_kaggle_and_scores(kaggle, project, through):
    assert through == [
        "IntrospectToken", "DownloadDataFile fer2013.tar.gz", "DownloadDataFile icml_face_data.csv",
        "GET icml_face_data.csv.zip",
    ]  # fmt: skip
    provenance = json.loads((project / "data/raw/PROVENANCE.json").read_text())
    assert (provenance["source"], provenance["slug"], provenance["official"]) == ("kaggle", SLUG, False)
    scores = json.loads((project / "results/scores.json").read_text())
    assert {entry["data"] for entry in scores.values()} == {"unofficial"}
    assert json.loads((project / "results/data.json").read_text())["provenance"] == provenance


def test_a_second_repro_asks_nothing_of_kaggle(kaggle, project, through):
    asked = len(kaggle.requests)
    done = run(kaggle, project, "dvc", "repro", "score")
    assert "up to date" in done.stdout + done.stderr
    assert len(kaggle.requests) == asked


def test_a_changed_count_of_drawn_faces_does_not_fetch_again(kaggle, project, through):
    """It stands in the same section of params.yaml, so the stage runs; but what is there is as Kaggle has it."""
    asked, path = len(kaggle.requests), project / "params.yaml"
    original = path.read_text()
    path.write_text(original.replace("test_faces: 420", "test_faces: 421"))
    done = run(kaggle, project, "dvc", "repro", "prepare")
    assert "not fetched again" in done.stdout
    assert "Running stage 'prepare'" not in done.stdout
    path.write_text(original)
    run(kaggle, project, "dvc", "repro", "prepare")
    assert len(kaggle.requests) == asked


def test_make_submit_sends_the_ensemble_and_records_kaggles_score(kaggle, project, submitted):
    scores = json.loads((project / "results/scores.json").read_text())["ensemble"]
    (sent,) = kaggle.submissions
    assert sent["bytes"] == (project / "submissions/ensemble.csv").read_bytes()
    assert "out of fold" in sent["description"]
    assert "no git" not in sent["description"]
    (answer,) = json.loads((project / "submissions/kaggle.json").read_text())
    assert (answer["status"], answer["sha256"]) == ("COMPLETE", scores["sha256"])
    assert answer["private_score"] == pytest.approx(scores["private_accuracy"], abs=1e-5)
    assert answer["public_score"] == pytest.approx(scores["public_accuracy"], abs=1e-5)
    assert "submission 1001: COMPLETE" in submitted


def test_dvc_metrics_diff_shows_changes_of_both(kaggle, project, submitted):
    shown = json.loads(run(kaggle, project, "dvc", "metrics", "diff", "--json").stdout)
    assert set(shown) == {
        "results/kaggle.json",
        *(f"results/metrics/{name}.json" for name in ("ensemble", tiny.NAME)),
    }
    assert set(shown["results/kaggle.json"]) == {"ensemble.public_accuracy", "ensemble.private_accuracy"}
    scores = json.loads((project / "results/scores.json").read_text())["ensemble"]
    new = shown["results/kaggle.json"]["ensemble.private_accuracy"]["new"]
    assert new == pytest.approx(scores["private_accuracy"], abs=1e-5)


def test_the_board_shows_both(kaggle, project, submitted):
    done = run(kaggle, project, "make", "leaderboard", "REFRESH=1", "--old-file=setup", "--assume-old=.venv/.installed")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "ensemble *" in line]
    assert line.split()[-3] in ("+0.00", "-0.00")
    assert "not Kaggle's own" in done.stdout


def test_nothing_that_stays_knows_the_token(kaggle, project, submitted):
    files = [path for path in project.rglob("*") if path.is_file() and not path.is_relative_to(project / ".venv")]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in (TOKEN, KEY, SIGNATURE)), path


def test_what_kaggle_refuses_costs_nothing_that_was_there(kaggle, project, submitted):
    def files():
        return {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()}

    before = files()
    path = project / "params.yaml"
    original = path.read_text()
    path.write_text(original.replace(f"slug: {SLUG}", "slug: smal-faces"))
    done = run(kaggle, project, "dvc", "repro")
    path.write_text(original)
    assert done.returncode != 0
    assert "error: fer2013.tar.gz: HTTP 403" in done.stderr
    assert "data.slug" in done.stderr
    assert files() == before


@pytest.mark.parametrize("trouble", [None, Trouble(401, "Unauthenticated")], ids=["told", "refused"])
def test_a_bad_token_stops_repro_in_one_sentence(kaggle, project, submitted, trouble):
    path = project / "params.yaml"
    original = path.read_text()
    path.write_text(original.replace(f"slug: {SLUG}", "slug: smal-faces"))
    kaggle.script["IntrospectToken"] = ALL(trouble)
    done = run(kaggle, project, "dvc", "repro", token="a-bad-token")
    del kaggle.script["IntrospectToken"]
    path.write_text(original)
    assert done.returncode != 0
    assert "error: Kaggle" in done.stderr
    assert "does not accept the token in KAGGLE_API_TOKEN" in done.stderr
    assert "a-bad-token" not in done.stdout + done.stderr
