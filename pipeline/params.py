"""Reads params.yaml and holds it to its word: an unknown key or a wrong type is refused by name.

Each section is described where it is used, as a subclass of Section; `python -m pipeline.stages.check` tries them all.
"""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.command import Refusal

PATH = Path("params.yaml")
SECTIONS = ("seed", "backend", "data", "folds", "twins", "train", "architectures", "students", "ensemble", "speedrun")
BACKENDS = ("tensorflow", "jax", "torch")


class Section(pydantic.BaseModel):
    """One section of params.yaml: every key is declared, every type is exact."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


AnySection = TypeVar("AnySection", bound=Section)


@cache
def document(path: Path = PATH) -> dict[str, Any]:
    """The whole file as dictionaries. Raises Refusal where it is missing, no YAML, or has wrong sections."""
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number (in PyYAML's YAML 1.1 it is a string).
        found = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise Refusal(f"{path} is missing here; run from the project's folder") from None
    except (YAMLError, ValueError) as trouble:
        raise Refusal(f"{path} is not valid YAML: {trouble}") from None
    if not isinstance(found, dict):
        raise Refusal(f"{path} must be a mapping with the sections {', '.join(SECTIONS)}")
    for name in found:
        if name not in SECTIONS:
            raise Refusal(f"{path}: unknown section {name!r}; the known ones are {', '.join(SECTIONS)}")
    for name in SECTIONS:
        if name not in found:
            raise Refusal(f"{path}: section {name!r} is missing")
    return found


def parse(where: str, model: type[AnySection], values: object) -> AnySection:
    """`values` as a `model`. Raises Refusal that names `where`, the key, and what was expected."""
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as trouble:
        problems = []
        for error in trouble.errors():
            key = ".".join([where, *map(str, error["loc"])])
            if error["type"] == "extra_forbidden":
                problems.append(f"unknown key {key}; the known ones are {', '.join(model.model_fields)}")
            elif error["type"] == "missing":
                problems.append(f"{key} is missing")
            else:
                problems.append(f"{key} = {error['input']!r}: {error['msg']}")
        raise Refusal(f"{PATH}: {'; '.join(problems)}") from None


def section(name: str, model: type[AnySection]) -> AnySection:
    """Section `name` of params.yaml as a `model`."""
    return parse(name, model, document()[name])


def but_seed() -> dict[str, Any]:
    """All of params.yaml but the seed: what runs with several seeds have in common."""
    return {name: found for name, found in document().items() if name != "seed"}


def seed() -> int:
    """The number that every random choice starts from."""
    value = document()["seed"]
    if type(value) is not int or not 0 <= value < 2**32:
        raise Refusal(f"{PATH}: seed = {value!r}: must be a whole number from 0 to {2**32 - 1}")
    return value


def backend() -> str:
    """What shall run under Keras: one of BACKENDS, or "auto"."""
    value = document()["backend"]
    if value not in ("auto", *BACKENDS):
        raise Refusal(f"{PATH}: backend = {value!r}: must be auto, {', '.join(BACKENDS)}")
    return str(value)
