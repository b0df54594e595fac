"""The notebook for Kaggle, executed as Kaggle would, on a drawn competition that stands for the mounted files."""

import copy
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import tiny
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from ruamel.yaml import YAML

from pipeline.competition import SLUG
from pipeline.data import synthetic
from pipeline.evaluation import submission

ROOT = Path(__file__).parent.parent
PIXELS, LABELS, USAGE = synthetic.competition(training=84, test=21, seed=5)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """What `make notebook` writes."""
    folder = tmp_path_factory.mktemp("notebooks")
    shutil.copyfile(ROOT / "notebooks/on_kaggle.py", folder / "on_kaggle.py")
    words = ["jupytext", "--quiet", "--to", "ipynb", "on_kaggle.py"]
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)
    found = nbformat.read(folder / "on_kaggle.ipynb", as_version=4)
    nbformat.validate(found)
    return found


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A machine as Kaggle's: the competition's files below input/, and nothing of ours."""
    monkeypatch.setenv("FER2013_INPUT", str(tmp_path / "input"))
    monkeypatch.setenv("FER2013_OUTPUT", str(tmp_path / "working"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    for name in ("FER2013_CODE", "KERAS_BACKEND", "JOBS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("working", "temp"):
        (tmp_path / name).mkdir()
    synthetic.write(tmp_path / "input" / SLUG, PIXELS, LABELS, USAGE)
    return tmp_path


def repository(folder):
    """The code, with a small network to train; its params.yaml names another source than the mounted files."""
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    document = YAML(typ="safe").load((ROOT / "pipeline/apps/demo.yaml").read_text())
    document["data"]["source"] = "kaggle"
    tiny.write(folder / "pipeline")
    recipe = {"architecture": tiny.NAME, "epochs": 2, "batch_size": 8}
    document["models"] = {"one": recipe}
    document["students"] = {"two": recipe | {"teachers": ["one"], "teacher_weight": 0.5}}
    document["ensemble"]["members"] = ["one", "two"]
    YAML(typ="safe").dump(document, folder / "params.yaml")
    return folder


def execute(notebook, folder, until=None):
    """Run its cells, up to that which contains `until`; return what they print, and the pictures that they show."""
    notebook = copy.deepcopy(notebook)
    if until:
        last = next(place for place, cell in enumerate(notebook.cells) if until in cell.source)
        notebook.cells = notebook.cells[: last + 1]
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data["image/png"] for output in outputs if output.output_type == "display_data"]
    return "".join(output.get("text", "") for output in outputs), shown


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


@pytest.mark.slow
def test_from_the_mounted_files_to_a_submission(notebook, kaggle, monkeypatch):
    code = repository(kaggle / "code")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], cwd=code, check=True)
    monkeypatch.setenv("FER2013_CODE", f"file://{code}")
    mounted = digests(kaggle / "input")
    text, shown = execute(notebook, kaggle / "working")
    assert "to install: nothing" in text
    assert "ensemble *" in text
    assert len(shown) == 4
    output = kaggle / "working"
    assert {path.name for path in output.iterdir()} == {"submission.csv", "scores.csv", "results", "artifacts"}
    guesses = submission.read(output / "submission.csv", 42)
    table = pd.read_csv(output / "scores.csv").set_index("name")
    assert set(table["data"]) == {"unofficial"}
    assert table.loc["ensemble", "sha256"] == submission.sha256(output / "submission.csv")
    assert table.loc["ensemble", "private_accuracy"] == pytest.approx(np.mean(guesses[21:] == LABELS[105:]), abs=1e-5)
    for name in ("weights/two/fold1.weights.h5", "cells/one/fold1/cell.json"):
        assert (output / "artifacts" / name).exists()
    assert digests(kaggle / "input") == mounted


def test_code_and_files_are_found_where_else_kaggle_mounts_them_and_what_is_missing_is_installed(notebook, kaggle):
    (kaggle / "input/competitions").mkdir()
    shutil.move(kaggle / "input" / SLUG, kaggle / "input/competitions" / SLUG)
    project = repository(kaggle / "input/datasets/somebody/fer2013-code/repository") / "pyproject.toml"
    text = project.read_text()
    for here, newer in (('"joblib>=1.5"', '"joblib>=99", "no_such_package>=1"'), ('"keras>=3.15,<4"', '"keras>=99"')):
        assert here in text
        text = text.replace(here, newer)
    project.write_text(text)
    offline = copy.deepcopy(notebook)
    (cell,) = [cell for cell in offline.cells if '"pip"' in cell.source]
    noted = "import sys; open('asked', 'w').write(' '.join(sys.argv[1:]))"
    cell.source = cell.source.replace('"-m", "pip"', f'"-c", "{noted}"')
    execute(offline, kaggle / "working", until="mounted =")
    assert (kaggle / "working/asked").read_text() == "install --quiet no_such_package>=1 keras>=99"
    incoming = kaggle / "temp/fer2013/data/incoming"
    assert digests(incoming) == digests(kaggle / "input/competitions" / SLUG)
    assert all(path.is_symlink() for path in incoming.iterdir())
    assert YAML().load((kaggle / "temp/fer2013/params.yaml").read_text())["data"]["source"] == "local"


@pytest.mark.parametrize(("lacks", "message"), [("code", "set CODE above"), ("competition", "Add Input")])
def test_what_was_not_attached_is_named(notebook, kaggle, monkeypatch, lacks, message):
    if lacks == "competition":
        shutil.rmtree(kaggle / "input" / SLUG)
        monkeypatch.setenv("FER2013_CODE", str(repository(kaggle / "code")))
    with pytest.raises(CellExecutionError, match=message):
        execute(notebook, kaggle / "working")
