"""Learning rate schedules: step by step (cosine, linear), and epoch by epoch (plateau)."""

import math

import keras
from keras import ops

from pipeline.config import Recipe


class Stepwise(keras.optimizers.schedules.LearningRateSchedule):
    """A climb over the recipe's `warmup`, then down to zero at the last step, in a line or a half cosine.

    Parameters
    ----------
    steps : of the whole training.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps = steps

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """The rate of `step`, from 0 up."""
        done = (ops.cast(step, "float32") + 0.5) / self.steps
        warmup = self.recipe.warmup
        left = ops.clip((1 - done) / (1 - warmup), 0, 1)
        if self.recipe.schedule == "cosine":
            left = (1 - ops.cos(math.pi * left)) / 2
        return self.recipe.learning_rate * (ops.minimum(left, done / warmup) if warmup else left)


def plateau(recipe: Recipe, losses: list[float]) -> float:
    """The rate for the epoch that follows those with these training losses.

    "plateau" is Keras's ReduceLROnPlateau (a fall below 0.0001 is none) on the training loss: validation rows are
    scored later, and so may not steer the training. Under "constant" the losses do not matter.
    """
    rate, best, waited = recipe.learning_rate, math.inf, 0
    if recipe.schedule == "plateau":
        for loss in losses:
            if loss < best - 1e-4:
                best, waited = loss, 0
            else:
                waited += 1
                if waited == recipe.plateau_patience:
                    rate, waited = rate * recipe.plateau_factor, 0
    return rate
