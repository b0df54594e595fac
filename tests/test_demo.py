"""`make demo`, as its user runs it: the whole pipeline on drawn faces, in a folder of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what git would check out, as far as the demo needs it."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def run_demo(folder):
    done = subprocess.run([sys.executable, "-m", "pipeline", "demo"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # tests/test_graph.py takes the same road, with smaller networks
def test_the_demo_beats_chance_by_far_and_a_second_time_does_nothing(checkout):
    first = run_demo(checkout)
    scores = json.loads((checkout / "demo/results/scores.json").read_text())
    assert len(scores) == 4  # three networks and the ensemble
    assert scores["ensemble"]["private_accuracy"] > 0.7  # chance is one in seven
    assert all(entry["oof_accuracy"] > 0.25 for entry in scores.values())
    assert "The submission: demo/submissions/ensemble.csv" in first
    assert (checkout / "demo/submissions/ensemble.csv").exists()
    assert {path.name for path in checkout.iterdir()} == {"pipeline", "dvc.yaml", "params.yaml", "demo"}
    second = run_demo(checkout)
    assert "up to date" in second
    assert "Running stage" not in second
