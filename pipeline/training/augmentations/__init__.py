"""Augmentations that follow the affine map: one module each, used if the recipe enables it.

Each module has WIDTH, the count of numbers drawn per picture, and these functions:

- `draw(recipe, count, random) -> float32 [count, WIDTH]` draws the parameters with numpy;
- `apply(pictures, drawn, side) -> pictures` applies them to float32 [n, side, side, 1] on the device;
- `own_part(drawn) -> float32 [count, 1]` returns the part of each picture that is not from its mixing partner.
"""

import importlib
from types import ModuleType

from pipeline.config import Recipe


def names(recipe: Recipe) -> list[str]:
    """Return the names of the modules that a recipe uses, in the order in which they are applied."""
    return ["erasing"] * bool(recipe.random_erasing) + ["mixing"] * bool(recipe.mixup or recipe.cutmix)


def of(recipe: Recipe) -> list[ModuleType]:
    """Return the modules that a recipe uses, in the same order."""
    return [importlib.import_module(f"{__name__}.{name}") for name in names(recipe)]
