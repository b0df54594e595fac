"""From Kaggle and back, through the real client, DVC and Makefile: download and prepare, then submit and the board."""

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
from loopback import ALL, SECRETS, TOKEN, Server

from pipeline.competition import SPLIT_ROWS
from pipeline.data import synthetic
from pipeline.evaluation import submission

ROOT = Path(__file__).parent.parent
SLUG = "small-faces"
DRAWN = synthetic.competition(training=84, test=21, seed=5)


@pytest.fixture
def kaggle(tmp_path):
    server = Server(SLUG)
    synthetic.write(tmp_path / "kaggle", *DRAWN, names={"icml_face_data.csv"})
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "kaggle").iterdir()}
    server.zipped = set(server.files)
    server.verdicts = ALL({"status": "COMPLETE", "publicScore": "0.25", "privateScore": "0.50"})
    yield server
    server.close()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout of the project with one scored submission and none of the committed results."""
    folder = tmp_path / "checkout"
    (folder / "home").mkdir(parents=True)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = ("pipeline/", ".dvc", ".git", ".ci", "Makefile", "dvc.yaml", "requirements.lock", "data/")
    for name in tracked.splitlines():
        if name.startswith(kept) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(folder)
    student = settings.LEAST["models"]["small_vgg"] | {"teachers": ["small_vgg"], "teacher_weight": 0.5}
    settings.write({"source": "kaggle", "slug": SLUG}, students={"student": student})
    digest = submission.write(submission.FOLDER / "ensemble.csv", np.arange(2 * SPLIT_ROWS[1]) % 7)
    scores = {"name": "ensemble", "parameters": 1, "oof_accuracy": 0.5, "train_seconds": 1, "sha256": digest,
              "data": "unofficial", "rank_2013": 56, "public_accuracy": 0.25, "private_accuracy": 0.25,
              "private_low": 0.2, "private_high": 0.3, "private_no_duplicate": 0.25}  # fmt: skip
    pd.DataFrame([scores]).to_csv(submission.TABLE, index=False)
    subprocess.run(["git", "init", "-q"], check=True)
    return folder


def run(kaggle: Server, project: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a command; what it prints knows no secret."""
    environment = kaggle.environment(project / "home", KAGGLE_API_TOKEN=TOKEN)
    path = f"{project}/.venv/bin{os.pathsep}{environment['PATH']}"
    done = subprocess.run(words, env=environment | {"PATH": path}, cwd=project, text=True, capture_output=True)
    assert not any(secret in done.stdout + done.stderr for secret in (*SECRETS, "Traceback"))
    return done


@pytest.mark.slow  # test_kaggle_download.py and test_submit.py hold its parts
def test_from_kaggle_and_back(kaggle, project):
    repro = (".venv/bin/python", "-m", "dvc", "repro", "prepare")
    make = ("make", "--old-file=setup")  # .venv is another checkout's here
    assert run(kaggle, project, *repro).returncode == 0
    with np.load(project / "data/faces.npz") as arrays:
        np.testing.assert_array_equal(arrays["pixels"], DRAWN[0])
    asked = len(kaggle.requests)
    assert "up to date" in run(kaggle, project, *repro).stdout
    assert len(kaggle.requests) == asked

    before = {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()}
    original = Path("params.yaml").read_text()
    Path("params.yaml").write_text(original.replace(SLUG, "smal-faces"))
    done = run(kaggle, project, *repro)
    assert done.returncode != 0
    assert "error: fer2013.tar.gz: HTTP 403" in done.stderr
    assert {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()} == before
    Path("params.yaml").write_text(original)

    assert "submission 1001: COMPLETE" in run(kaggle, project, *make, "submit", "MESSAGE=costs $5 `id`").stdout
    (sent,) = kaggle.submissions
    assert sent["bytes"] == Path("submissions/ensemble.csv").read_bytes()
    assert sent["description"].endswith("] costs $5 `id`")
    assert json.loads(Path("results/kaggle.json").read_text())["ensemble"]["private_accuracy"] == 0.5
    assert "+25.00" in run(kaggle, project, *make, "leaderboard", "REFRESH=1").stdout
    for path in project.rglob("*"):  # nothing that stays knows the token
        if path.is_file() and not path.is_relative_to(project / ".venv"):
            assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path
