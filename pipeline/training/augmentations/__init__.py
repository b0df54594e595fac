"""Augmentations of what an affine map shows: one file each, of which a recipe takes what it names.

Each file has WIDTH, the numbers that it draws for a picture, and these functions:

- `draw(recipe, count, random) -> float32 [count, WIDTH]` decides what happens to each picture, by numpy;
- `apply(pictures, drawn, side) -> pictures` does it, on the device;
- `own_part(drawn) -> float32 [count, 1]` tells how much of each picture is still its own.
"""

import importlib
from types import ModuleType

from pipeline.config import Recipe


def names(recipe: Recipe) -> list[str]:
    """The files that a recipe uses, in the order in which they are applied."""
    return ["erasing"] * bool(recipe.random_erasing) + ["mixing"] * bool(recipe.mixup or recipe.cutmix)


def of(recipe: Recipe) -> list[ModuleType]:
    """The modules that a recipe uses."""
    return [importlib.import_module(f"{__name__}.{name}") for name in names(recipe)]
