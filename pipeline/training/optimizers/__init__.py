"""Optimizers: one module with one `build()` each, named as in the recipe's `optimizer`."""

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.config import Recipe

if TYPE_CHECKING:
    import keras


def build(recipe: Recipe, rate: Any) -> "keras.Optimizer":
    """Return the recipe's optimizer with learning rate `rate`, a number or a schedule.

    Weight decay is decoupled from the gradient (Loshchilov & Hutter 2019, arXiv 1711.05101).
    """
    shared = {
        "learning_rate": rate,
        "weight_decay": recipe.weight_decay or None,
        "use_ema": recipe.ema > 0,
        "ema_momentum": recipe.ema,
    }
    found: keras.Optimizer = importlib.import_module(f"{__name__}.{recipe.optimizer}").build(**shared)
    return found
