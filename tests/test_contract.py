"""What the layout promises: the graph names what a stage depends on, and params.yaml says nothing that is not read."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from ruamel.yaml import YAML

from pipeline import architectures, params, recipe
from pipeline.apps import demo
from pipeline.data import download, folds, prepare
from pipeline.evaluation import audit, ensemble, report, score
from pipeline.stages import check, distill, explain, teach, train

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
MAINS = {
    module.__name__.split(".")[1]: module.main
    for module in (check, download, prepare, folds, audit, explain, ensemble, score, report)
}


def module_file(dotted: str) -> Path | None:
    """The file of a module of the pipeline, relative to the root; None for what is no module."""
    path = Path(*dotted.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if (ROOT / file).exists()), None)


def imported(file: Path) -> set[Path]:
    """The pipeline's files that `file` imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {module_file(name) for name in names if name.split(".")[0] == "pipeline"}
    return found - {None}


def closure(file: Path) -> set[Path]:
    """`file` and all of the pipeline's files that are imported because of it."""
    reached, todo = set(), {file}
    while todo:
        reached |= todo
        todo = set().union(*map(imported, todo)) - reached
    return reached


def code_deps(stage: str) -> set[Path]:
    """The pipeline's files among the deps of `stage`, with vgg8 for the matrix's architecture or student."""
    deps = [re.sub(r"\$\{item\.(architecture|student)\}", "vgg8", dep) for dep in STAGES[stage]["deps"]]
    return {Path(dep) for dep in deps if dep.startswith("pipeline/")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(stage):
    needed = closure(Path(f"pipeline/{stage}.py")) | {Path("pipeline/__init__.py")}
    if stage in ("train", "distill"):  # imports the network by its name
        needed |= closure(Path("pipeline/architectures/vgg8.py"))
    if stage == "report":  # shows every network's layers
        needed -= {Path("pipeline/architectures/__init__.py")}
        needed |= {Path("pipeline") / name for name in ("architectures", "report.html.j2", "report.md.j2")}
    assert code_deps(stage) == needed


@pytest.mark.parametrize("name", architectures.names())
def test_an_architecture_imports_nothing_that_train_does_not_depend_on(name):
    assert closure(Path(f"pipeline/architectures/{name}.py")) - {
        Path(f"pipeline/architectures/{name}.py")
    } <= code_deps("train")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_described_and_runs_its_own_module(stage):
    assert STAGES[stage]["desc"].endswith(".")
    assert STAGES[stage]["cmd"].startswith(f"python -m pipeline.{stage}")


def test_only_audit_and_score_may_see_the_test_labels():
    assert {stage for stage in STAGES if "data/solution.csv" in STAGES[stage]["deps"]} == {"audit", "score"}
    assert {stage for stage in STAGES if "data/raw" in STAGES[stage]["deps"]} == {"prepare"}
    for stage in set(STAGES) - {"audit", "score", "prepare"}:
        assert Path("pipeline/data/solution.py") not in closure(Path(f"pipeline/{stage}.py"))


def test_tensorflow_is_imported_in_one_small_module_and_to_convert_alone():
    users = {
        file.name
        for file in (ROOT / "pipeline").rglob("*.py")
        if re.search(r"import tensorflow|from tensorflow", file.read_text())
    }
    assert users == {"backend.py", "export.py"}
    assert not any(Path("pipeline/apps/export.py") in closure(Path(f"pipeline/{stage}.py")) for stage in STAGES)
    assert len((ROOT / "pipeline/training/backend.py").read_text().splitlines()) <= 180


@pytest.mark.parametrize("section", [recipe.Recipe, download.Data, ensemble.Ensemble], ids=lambda model: model.__name__)
def test_every_key_of_a_section_is_read(section):
    code = "\n".join(file.read_text() for file in (ROOT / "pipeline").glob("*.py"))
    for key in section.model_fields:
        assert re.search(rf"\b(settings|recipe|self\.recipe)\.{key}\b", code), key


class Watched(dict):
    """A params.yaml that remembers which sections were looked at."""

    seen: set[str]

    def __getitem__(self, key):
        self.seen.add(key)
        return super().__getitem__(key)


@pytest.fixture(scope="module")
def small_project(tmp_path_factory):
    """A folder with params for a small competition of drawn faces."""
    folder = tmp_path_factory.mktemp("project")
    text = (ROOT / "pipeline/demo.yaml").read_text()
    document = YAML(typ="safe").load(text)
    document["architectures"] = {"mini_xception": {"epochs": 1, "batch_size": 8}}
    document["students"] = {"student": {"teachers": ["mini_xception"], "taught": 0.5, "epochs": 1, "batch_size": 8}}
    document["ensemble"] = {"method": "weights", "members": ["mini_xception", "student"]}
    document["folds"] = [0, 1]
    document["data"] |= {"training_faces": 56, "test_faces": 14}
    with open(folder / "params.yaml", "w") as file:
        YAML().dump(document, file)
    return folder


def test_each_stage_reads_the_params_and_files_that_it_declares_and_no_others(small_project, monkeypatch):
    monkeypatch.chdir(small_project)
    tiny.instead(monkeypatch)
    original = params.document
    cells = [("train", lambda fold=fold: train.main("mini_xception", fold)) for fold in ("0", "1")]
    cells += [("teach", lambda fold=fold: teach.main(fold)) for fold in ("0", "1")]
    cells += [("distill", lambda fold=fold: distill.main("student", fold)) for fold in ("0", "1")]
    order = [*((name, MAINS[name]) for name in ("check", "download", "prepare", "folds")), *cells,
             *((name, MAINS[name]) for name in ("audit", "explain", "ensemble", "score", "report"))]  # fmt: skip
    opened: set[str] = set()
    sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
    for stage, main in order:
        watched = Watched(original())
        watched.seen = set()
        monkeypatch.setattr(params, "document", lambda watched=watched: watched)
        opened.clear()
        main()
        declared = {name.split(".")[0] for name in STAGES[stage].get("params", [])}
        assert declared == (set(params.SECTIONS) if stage == "report" else watched.seen), stage  # it shows the file
        # Every file of the project that it opened, by whatever means, is among its deps and outs.
        inside = {path.removeprefix(f"{small_project}/") for path in opened}
        touched = {path for path in inside if path.startswith(("data/", "artifacts/", "results/", "submissions/"))}
        assert {path for path in touched if not path.startswith(allowed(stage))} == set(), stage
        assert touched or stage == "check"
    assert np.load("artifacts/bags/ensemble.npz")["oof"].shape == (56, 7)


def allowed(stage: str) -> tuple[str, ...]:
    """How the paths of the files may begin that a stage reads or writes."""
    outs = [STAGES[stage].get(kind, []) for kind in ("outs", "metrics", "plots")]
    paths = [
        *STAGES[stage]["deps"],
        *(out if isinstance(out, str) else next(iter(out)) for out in itertools.chain(*outs)),
    ]
    more = {
        "download": ["data/.raw-"],
        "score": ["submissions/mini_xception.csv", "submissions/student.csv", "results/metrics/"],
        "train": ["artifacts/checkpoints/"],
        "distill": ["artifacts/checkpoints/"],
    }
    return tuple(re.sub(r"\$\{item\.\w+\}.*", "", path) for path in [*paths, *more.get(stage, [])])


def test_the_matrix_has_a_cell_for_every_architecture_and_fold(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    demo.build(tmp_path / "sandbox", ROOT / "params.yaml")
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only", "train"],
        cwd=tmp_path / "sandbox",
        capture_output=True,
        text=True,
        check=True,
    )
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    cells = {f"train@{name}-{fold}" for name in document["architectures"] for fold in document["folds"]}
    assert set(listed.stdout.split()) == cells


def test_the_committed_params_of_the_demo_are_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "pipeline/demo.yaml").read_text())
    for name in recipe.names():
        recipe.read(name)
    assert len(recipe.names()) >= 3
    assert len(folds.numbers()) == 2
    assert set(ensemble.read_params().members) == set(recipe.names())
    assert download.read_params().source == "synthetic"
