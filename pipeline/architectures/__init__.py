"""The networks: one file, one `build()`, one network; the file's name is the network's name."""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def names() -> list[str]:
    """The known architectures, sorted. Files whose name starts with an underscore are not one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def separable(name: str) -> bool:
    """Whether a network has depthwise convolutions, by its file's text: known before any library is imported."""
    source = (Path(__file__).parent / f"{name}.py").read_text()
    return "SeparableConv" in source or "DepthwiseConv" in source


def build(name: str) -> "keras.Model":
    """A fresh network: float [n, 48, 48, 1] in, probabilities [n, 7] out.

    Raises ValueError that lists the known names where `name` is none of them.
    """
    if name not in names():
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(names())}")
    network: keras.Model = importlib.import_module(f"{__name__}.{name}").build()
    return network
