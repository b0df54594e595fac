"""Architectures: one module with one `build()` each, named as the architecture."""

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@cache
def names() -> list[str]:
    """Return the names of all architectures, sorted. Modules whose name starts with an underscore are not included."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def _source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")


def separable(name: str) -> bool:
    """Return whether a network has depthwise convolutions, judging by its source, without importing Keras."""
    return "SeparableConv" in _source(name) or "DepthwiseConv" in _source(name)


def fixed_size(name: str) -> bool:
    """Return whether a network accepts only 48x48 pictures, judging by its source, without importing Keras."""
    side = r"(?:[\w.]*SIDE|48)\s*,\s*"
    fixed = rf"Input\(\s*(?:shape\s*=\s*)?[(\[]\s*{side}{side}1\b|^\s*return (?:_blocks\.)?stack\("
    return bool(re.search(fixed, _source(name), re.MULTILINE))


def build(name: str) -> "keras.Model":
    """Return a new network from float [n, 48, 48, 1] to probabilities [n, 7].

    Raises ValueError with the list of known names if `name` is unknown.
    """
    if name not in names():
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(names())}")
    network: keras.Model = importlib.import_module(f"{__name__}.{name}").build()
    return network
