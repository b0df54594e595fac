"""The notebook for Kaggle, executed as on Kaggle, with drawn faces in place of the mounted files."""

import json
import shutil
import subprocess

import jupytext
import numpy as np
import pandas as pd
import pytest
import tiny
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from ruamel.yaml import YAML
from settings import LEAST, ROOT
from test_download import held

from pipeline.competition import SLUG
from pipeline.data import synthetic
from pipeline.evaluation import submission

PIXELS, LABELS, USAGE = synthetic.competition(training=84, test=21, seed=5)


@pytest.fixture
def notebook():
    """The notebook that `make notebook` writes."""
    return jupytext.read(ROOT / "notebooks/on_kaggle.py")


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A folder laid out as on Kaggle: the competition's files in input/, and empty working folders."""
    for variable, name in (("FER2013_INPUT", "input"), ("FER2013_OUTPUT", "working"), ("TMPDIR", "temp")):
        monkeypatch.setenv(variable, str(tmp_path / name))
        (tmp_path / name).mkdir()
    for variable in ("FER2013_CODE", "KERAS_BACKEND", "JOBS"):
        monkeypatch.delenv(variable, raising=False)
    names = {"train.csv", "test.csv", "fer2013.csv"}
    synthetic.write(tmp_path / "input" / SLUG, PIXELS, LABELS, USAGE, names)
    return tmp_path


def repository(folder):
    """Copy the code to `folder`, with a params.yaml that trains a tiny network and names another data source."""
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    tiny.write(folder / "pipeline")
    recipe = {"architecture": tiny.NAME, "epochs": 2, "batch_size": 8}
    document = LEAST | {
        "data": {"source": "kaggle"}, "models": {"one": recipe}, "ensemble": {"members": ["one", "two"]},
        "students": {"two": recipe | {"teachers": ["one"], "teacher_weight": 0.5}},
    }  # fmt: skip
    (folder / "params.yaml").write_text(json.dumps(document))
    return folder


def execute(notebook, folder, until=None):
    """Run the cells, up to the one that contains `until`; return the printed text and the number of pictures."""
    if until:
        last = next(index for index, cell in enumerate(notebook.cells) if until in cell.source)
        notebook.cells = notebook.cells[: last + 1]
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum(output.output_type == "display_data" for output in outputs)
    return "".join(output.get("text", "") for output in outputs), pictures


@pytest.mark.slow
def test_the_notebook_writes_a_submission(notebook, kaggle, monkeypatch):
    code, output, mounted = repository(kaggle / "code"), kaggle / "working", held(kaggle / "input")
    for words in ("init -q", "add .", "-c user.name=x -c user.email=x@x commit -qm all"):
        subprocess.run(["git", *words.split()], cwd=code, check=True)
    monkeypatch.setenv("FER2013_CODE", f"file://{code}")
    text, pictures = execute(notebook, output)
    assert ("to install: nothing" in text, "ensemble" in text, pictures) == (True, True, 3)
    assert {path.name for path in output.iterdir()} == {"submission.csv", "scores.csv", "results", "artifacts"}
    predicted = submission.read(output / "submission.csv", 42)
    scores = pd.read_csv(output / "scores.csv").set_index("name").loc["ensemble"]
    assert (scores["data"], scores["sha256"]) == ("unofficial", submission.sha256(output / "submission.csv"))
    assert scores["private_accuracy"] == pytest.approx(np.mean(predicted[21:] == LABELS[105:]), abs=1e-5)
    for name in ("weights/two/fold1.weights.h5", "cells/one/fold1/cell.json"):
        assert (output / "artifacts" / name).exists()
    assert held(kaggle / "input") == mounted


def test_code_and_data_are_found_in_newer_mount_points_and_missing_packages_are_installed(notebook, kaggle):
    (kaggle / "input/competitions").mkdir()
    shutil.move(kaggle / "input" / SLUG, kaggle / "input/competitions" / SLUG)
    project = repository(kaggle / "input/datasets/somebody/fer2013-code/repository") / "pyproject.toml"
    text = project.read_text().replace('"joblib>=1.5"', '"joblib>=99", "no_such_package>=1"')
    project.write_text(text.replace('"keras>=3.15,<4"', '"keras>=99"'))
    (cell,) = [cell for cell in notebook.cells if '"pip"' in cell.source]
    record = "import sys; open('arguments', 'w').write(' '.join(sys.argv[1:]))"
    cell.source = cell.source.replace('"-m", "pip"', f'"-c", "{record}"')
    execute(notebook, kaggle / "working", until="mounted =")
    assert (kaggle / "working/arguments").read_text() == "install --quiet no_such_package>=1 keras>=99"
    incoming = kaggle / "temp/fer2013/data/incoming"
    assert held(incoming) == held(kaggle / "input/competitions" / SLUG)
    assert all(path.is_symlink() for path in incoming.iterdir())
    assert YAML().load((kaggle / "temp/fer2013/params.yaml").read_text())["data"]["source"] == "local"


@pytest.mark.parametrize(("lacks", "message"), [("code", "set CODE above"), ("competition", "Add Input")])
def test_the_error_names_the_missing_input(notebook, kaggle, monkeypatch, lacks, message):
    if lacks == "competition":
        shutil.rmtree(kaggle / "input" / SLUG)
        monkeypatch.setenv("FER2013_CODE", str(repository(kaggle / "code")))
    with pytest.raises(CellExecutionError, match=message):
        execute(notebook, kaggle / "working")
