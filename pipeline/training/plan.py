"""Plan of a model: everything that determines the bytes of its cells, except the faces and the folds.

A plan contains the resolved recipe and a digest of every definition that computes: those that `cell.train` and the
architecture reach by imports and names inside pipeline/training and pipeline/architectures. Comments, docstrings, type
hints and error messages are ignored. Definitions that the model does not reach (another optimizer, another network's
block) are ignored too.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import pipeline
from pipeline.config import IDLE, Config, Recipe, Student
from pipeline.training import augmentations

ROOT = Path(pipeline.__file__).parent
INSIDE = ("pipeline.training", "pipeline.architectures")
ENTRY = "pipeline.training.cell.train"
DESCRIBES = "pipeline.training.cell.describe"  # changes no number of a cell, so it is ignored
TEST_TIME = ("tta_flip", "tta_shift", "tta_zoom")
IGNORED = {"type_comment", "returns", "annotation", "kind", "ctx", "type_params"}


class Plan(BaseModel, frozen=True, extra="forbid"):
    """Content of artifacts/plan/MODEL.json.

    Parameters
    ----------
    recipe : all keys except those that are disabled, see Recipe.used.
    code : digests by the name of the definition, 8 hexadecimal digits each.
    """

    model: str
    architecture: str
    seed: int
    backend: str
    recipe: dict[str, Any]
    teachers: list[str] = []
    teacher_weight: float = 0.0
    code: dict[str, str]

    def settings(self) -> Recipe:
        """Return the complete recipe."""
        off = {
            key: "none" if isinstance(field.default, str) else type(field.default)(0)
            for key, field in Recipe.model_fields.items()
            if key not in self.recipe and key not in IDLE
        }
        return Recipe.model_validate(off | self.recipe)

    def training(self) -> dict[str, Any]:
        """Return the part that determines the weights: everything except the name and the test-time settings."""
        found = self.model_dump(exclude={"model"})
        found["recipe"] = {key: value for key, value in self.recipe.items() if key not in TEST_TIME}
        return found


def make(config: Config, name: str) -> Plan:
    """Return the plan of a model in params.yaml."""
    model = config.model(name)
    lesson: dict[str, Any] = {}
    if isinstance(model, Student):
        lesson = {"teachers": model.teachers, "teacher_weight": model.teacher_weight}
    return Plan(
        model=name, architecture=model.architecture, seed=config.seed_of(name), backend=config.backend,
        recipe=model.used(), code=code(ingredients(model.architecture, model)), **lesson,
    )  # fmt: skip


def ingredients(architecture: str, recipe: Recipe) -> list[str]:
    """Return the names of the definitions that are imported by name, as params.yaml selects them."""
    found = [f"pipeline.architectures.{architecture}.build", f"pipeline.training.optimizers.{recipe.optimizer}.build"]
    if recipe.contrast != "none":
        found.append(f"pipeline.training.contrasts.{recipe.contrast}.normalise")
    for name in augmentations.names(recipe):
        found += [f"pipeline.training.augmentations.{name}.{part}" for part in ("WIDTH", "draw", "apply", "own_part")]
    return found


def code(named: list[str]) -> dict[str, str]:
    """Return digests of all definitions that ENTRY and the `named` ones reach, sorted by name."""
    reached: dict[str, str] = {}
    waiting = [ENTRY, *named]
    while waiting:
        name = waiting.pop()
        if name in reached or name == DESCRIBES:
            continue
        module, _, own = name.rpartition(".")
        found = _definitions(module)
        if own not in found:  # the module only re-exports it
            waiting.append(_imports(_tree(module), module)[own])
            continue
        digest, references = found[own]
        reached[name] = digest
        waiting += references
        waiting += [f"{module}.{other}" for other in found if other.startswith("<")]  # statements that run on import
    return {name.removeprefix("pipeline."): reached[name] for name in sorted(reached)}


def _file(module: str) -> Path | None:
    """Return the file of a module of the pipeline, or None if the name is not a module."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    path = _file(module)
    assert path is not None, module
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _definitions(module: str) -> dict[str, tuple[str, list[str]]]:
    """Return, for every top-level definition of a module, its digest and the full names of definitions it refers to.

    Other statements, which run on import, are named "<number>".
    """
    tree = _tree(module)
    imported = _imports(tree, module)
    own: dict[str, ast.stmt] = {}
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for each in targets for part in getattr(each, "elts", [each])]  # also A, B = 1, 2
            own |= {part.id: node for part in parts if isinstance(part, ast.Name)}
        elif not isinstance(node, ast.Import | ast.ImportFrom) and not _is_text(node) and not _types_only(node):
            own[f"<{number}>"] = node
    local = {name: f"{module}.{name}" for name in own if not name.startswith("<")}
    return {name: (_digest(node), sorted(_references(node, imported | local))) for name, node in own.items()}


def _imports(tree: ast.Module, module: str) -> dict[str, str]:
    """Return the full names of the modules and definitions in INSIDE that a module imports, by their local names."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
            for each in node.names:
                full = f"{node.module}.{each.name}"
                if full.startswith(INSIDE):
                    found[each.asname or each.name] = full
    return found


def _references(node: ast.AST, names: dict[str, str]) -> set[str]:
    """Return the definitions of the pipeline that a node refers to; all of a module that is used as an object."""
    found: set[str] = set()
    children = list(_computing(node))
    parents = {id(child.value): child for child in children if isinstance(child, ast.Attribute)}
    for child in children:
        if not isinstance(child, ast.Name) or child.id not in names:
            continue
        full = names[child.id]
        attribute: Any = child
        while _file(full) and id(attribute) in parents:
            attribute = parents[id(attribute)]
            full = f"{full}.{attribute.attr}"
        if _file(full):
            found |= {f"{full}.{each}" for each in _definitions(full)}
        elif full.startswith(INSIDE):
            found.add(full)
    return found


def _computing(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all its descendants except type hints."""
    yield node
    for key, value in ast.iter_fields(node):
        if key not in IGNORED:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _computing(child)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _digest(node: ast.stmt) -> str:
    return hashlib.sha256(repr(_shape(node)).encode()).hexdigest()[:8]


def _shape(node: Any, silent: bool = False) -> Any:
    """Return the part of a node that computes, in a form that is the same on every version of Python.

    Parameters
    ----------
    silent : whether the node is inside a `raise`, where strings are messages.
    """
    if isinstance(node, list):
        return [_shape(each, silent) for each in node if not isinstance(each, ast.stmt) or not _is_text(each)]
    if isinstance(node, ast.JoinedStr) and silent:
        return "text"
    if isinstance(node, ast.Constant):
        return "text" if silent and isinstance(node.value, str) else repr(node.value)
    if not isinstance(node, ast.AST):
        return repr(node)
    silent = silent or isinstance(node, ast.Raise)
    fields = {
        key: _shape(value, silent)
        for key, value in ast.iter_fields(node)
        if value not in (None, []) and key not in IGNORED
    }
    return (type(node).__name__, sorted(fields.items()))
