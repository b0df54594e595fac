"""From Kaggle and back, through the real client, DVC and Makefile: download and prepare, then submit and the board."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import settings
from loopback import ALL, KEY, SIGNATURE, TOKEN, Server, Trouble

from pipeline.competition import SPLIT_ROWS
from pipeline.data import synthetic
from pipeline.evaluation import submission

ROOT = Path(__file__).parent.parent
TRAINING, TEST = 84, SPLIT_ROWS[1]
SLUG = "small-faces"


@pytest.fixture(scope="module")
def drawn():
    return synthetic.competition(training=TRAINING, test=21, seed=5)


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory, drawn):
    server = Server(SLUG)
    folder = tmp_path_factory.mktemp("kaggle")
    synthetic.write(folder, *drawn, names={"icml_face_data.csv"})
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.zipped = set(server.files)
    server.verdicts = ALL({"status": "COMPLETE", "publicScore": "0.25", "privateScore": "0.50"})
    yield server
    server.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout of the project, in git, with one scored submission and none of the committed results."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "home").mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = ("pipeline/", ".dvc", ".git", ".ci", "Makefile", "dvc.yaml", "requirements.lock", "data/")
    for name in tracked.splitlines():
        if name.startswith(kept) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    with contextlib.chdir(folder):
        model = settings.LEAST["models"]["small_vgg"]
        student = model | {"teachers": ["small_vgg"], "teacher_weight": 0.5}
        settings.write({"source": "kaggle", "slug": SLUG}, students={"student": student})
        digest = submission.write(submission.FOLDER / "ensemble.csv", np.arange(2 * TEST) % 7)
    scores = {"name": "ensemble", "parameters": 1, "oof_accuracy": 0.5, "train_seconds": 1, "sha256": digest,
              "data": "unofficial", "rank_2013": 56, "public_accuracy": 0.25, "private_accuracy": 0.25,
              "private_low": 0.2, "private_high": 0.3, "private_no_duplicate": 0.25}  # fmt: skip
    pd.DataFrame([scores]).to_csv(folder / submission.TABLE, index=False)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "pipeline", "dvc.yaml"], ["commit", "-qm", "all"]):
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


def repro(kaggle: Server, project: Path, **more: str) -> subprocess.CompletedProcess:
    return run(kaggle, project, ".venv/bin/python", "-m", "dvc", "repro", "prepare", **more)


def make(kaggle: Server, project: Path, *words: str) -> str:
    done = run(kaggle, project, "make", "--old-file=setup", *words)  # .venv is another checkout's here
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # test_kaggle_download.py and test_submit.py hold its parts
def test_from_kaggle_and_back(kaggle, project, drawn):
    done = repro(kaggle, project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kaggle.requests == [
        "IntrospectToken", "DownloadDataFile fer2013.tar.gz", "DownloadDataFile icml_face_data.csv",
        "GET icml_face_data.csv.zip",
    ]  # fmt: skip
    with np.load(project / "data/faces.npz") as arrays:
        np.testing.assert_array_equal(arrays["pixels"], drawn[0])

    # A second run asks nothing, nor does one after a change in the same section of params.yaml that changes no file.
    asked, path = len(kaggle.requests), project / "params.yaml"
    assert "up to date" in repro(kaggle, project).stdout
    original = path.read_text()
    path.write_text(original.replace('"test_faces": 7', '"test_faces": 8'))
    assert "not fetched again" in repro(kaggle, project).stdout
    assert len(kaggle.requests) == asked

    # What Kaggle refuses costs nothing that was there.
    before = {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()}
    path.write_text(original.replace(SLUG, "smal-faces"))
    done = repro(kaggle, project)
    assert done.returncode != 0
    assert "error: fer2013.tar.gz: HTTP 403" in done.stderr
    for trouble in (None, Trouble(401, "Unauthenticated")):
        kaggle.script["IntrospectToken"] = ALL(trouble)
        done = repro(kaggle, project, token="a-bad-token")
        assert done.returncode != 0
        assert "does not accept the token in KAGGLE_API_TOKEN" in done.stderr
    kaggle.script.clear()
    path.write_text(original)
    assert {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()} == before

    assert "submission 1001: COMPLETE" in make(kaggle, project, "submit", "MESSAGE=costs $5 `id`")
    (sent,) = kaggle.submissions
    assert sent["bytes"] == (project / "submissions/ensemble.csv").read_bytes()
    assert sent["description"].endswith("] costs $5 `id`")
    (record,) = json.loads((project / "submissions/kaggle.json").read_text())
    assert (record["status"], record["public_score"], record["private_score"]) == ("COMPLETE", 0.25, 0.5)
    assert json.loads((project / "results/kaggle.json").read_text())["ensemble"]["private_accuracy"] == 0.5
    board = make(kaggle, project, "leaderboard", "REFRESH=1")
    assert [line.split()[-3] for line in board.splitlines() if "ensemble *" in line] == ["+25.00"]

    for path in project.rglob("*"):  # nothing that stays knows the token
        if path.is_file() and not path.is_relative_to(project / ".venv"):
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in (TOKEN, KEY, SIGNATURE)), path
