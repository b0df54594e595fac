"""Architecture of the project: imports go one way, and the graph declares the dependencies of every stage."""

import ast
import functools
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from settings import ROOT

from pipeline import config

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
# Each folder may import the folders to its right; all may import the modules at the top of pipeline/.
LAYERS = ("apps", "experiments", "kaggle", "evaluation", "cells", "training", "architectures", "data")


def module_file(dotted):
    """Return the file of a module of the pipeline, relative to the root; None if it is not a module."""
    path = Path(*dotted.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if (ROOT / file).exists()), None)


@functools.cache
def imported(file):
    """Return the pipeline's files that `file` imports, including imports inside functions."""
    imports = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            imports |= {module_file(node.module), *(module_file(f"{node.module}.{each.name}") for each in node.names)}
    return imports - {None}


def closure(file):
    """Return `file` and all files of the pipeline that it imports, directly or indirectly."""
    reached, todo = set(), {file}
    while todo:
        reached |= todo
        todo = set().union(*map(imported, todo)) - reached
    return reached


def module_of(stage):
    """Return the file of the module that a stage runs."""
    (path,) = (ROOT / "pipeline").glob(f"*/{'planning' if stage == 'plan' else stage}.py")
    return path.relative_to(ROOT)


def layer(file):
    """Return the folder of a file, "" for the top."""
    return file.parts[1] if len(file.parts) > 2 else ""


def test_imports_go_one_way():
    """Modules at the top import only the folder architectures, except the entry points __main__ and api."""
    for path in (ROOT / "pipeline").rglob("*.py"):
        file = path.relative_to(ROOT)
        others = {layer(other) for other in imported(file)} - {""}
        if layer(file):
            assert others <= {*LAYERS[LAYERS.index(layer(file)) :]}, file
        elif path.name not in ("__main__.py", "api.py"):
            assert others <= {"architectures"}, file


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"train", "distill", "plan", "soft_targets"}))
def test_a_cheap_stage_depends_on_the_code_of_its_folder(stage):
    """A stage depends on other folders through data files: cells, faces, folds."""
    module = module_of(stage)
    deps = [Path(dep) for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")]
    for file in closure(module):
        if layer(file) == layer(module) and file.name != "__init__.py":
            assert any(file == dep or dep in file.parents for dep in deps), f"{stage} must depend on {file}"


def test_a_cell_depends_only_on_its_plan_and_data():
    for stage in ("train", "distill"):
        assert not [dep for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")]
        assert "params" not in STAGES[stage]
        assert not re.search("-y|YES", STAGES[stage]["cmd"]), "the user approves long trainings"
    for folder in ("architectures", "training", "config.py"):
        assert f"pipeline/{folder}" in STAGES["plan"]["deps"]


def test_weights_are_no_dependency_of_a_stage():
    assert "weights" not in (ROOT / "dvc.yaml").read_text()


def test_only_audit_and_score_may_see_the_test_labels():
    assert {stage for stage in STAGES if "data/solution.csv" in STAGES[stage]["deps"]} == {"audit", "score"}
    assert {stage for stage in STAGES if "data/raw" in STAGES[stage]["deps"]} == {"prepare"}
    paths = [*map(module_of, ("folds", "plan", "train", "soft_targets", "ensemble", "limits"))]
    for path in (*paths, Path("bench/ablation.py"), Path("bench/joining.py")):  # their results choose the next model
        assert Path("pipeline/data/solution.py") not in closure(path), path


def test_every_key_of_a_recipe_is_read():
    code = "\n".join(path.read_text() for path in (ROOT / "pipeline/training").rglob("*.py"))
    for key in config.Recipe.model_fields:
        assert re.search(rf"\b(recipe|self\.recipe|settings\(\))\.{key}\b", code), key
