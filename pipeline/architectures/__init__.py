"""The networks: one file, one `build()`, one network; the file's name is the network's name."""

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
    """The known architectures, sorted. Files whose name starts with an underscore are not one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def _source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")


def separable(name: str) -> bool:
    """Whether a network has depthwise convolutions, by its file's text: known before any library is imported."""
    return "SeparableConv" in _source(name) or "DepthwiseConv" in _source(name)


def fixed_size(name: str) -> bool:
    """Whether a network takes 48x48 pictures alone, by its file's text: known before any library is imported."""
    side = r"(?:[\w.]*SIDE|48)\s*,\s*"
    fixed = rf"Input\(\s*(?:shape\s*=\s*)?[(\[]\s*{side}{side}1\b|^\s*return (?:_blocks\.)?stack\("
    return bool(re.search(fixed, _source(name), re.MULTILINE))


def build(name: str) -> "keras.Model":
    """A fresh network: float [n, 48, 48, 1] in, probabilities [n, 7] out.

    Raises ValueError that lists the known names where `name` is none of them.
    """
    if name not in names():
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(names())}")
    network: keras.Model = importlib.import_module(f"{__name__}.{name}").build()
    return network
