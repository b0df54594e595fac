"""Learning rate schedules per step (cosine, linear) and per epoch (plateau, constant)."""

import math

import keras
from keras import ops

from pipeline.config import Recipe


class Stepwise(keras.optimizers.schedules.LearningRateSchedule):
    """Linear increase during the recipe's `warmup`, then decrease to zero at the last step, linear or as half a cosine.

    Parameters
    ----------
    recipe : with learning_rate, the highest rate, and warmup, a fraction of all steps.
    steps : number of steps of the complete training.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps = steps

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """Return the rate of `step` (the first is 0)."""
        cycle = self.steps // max(1, self.recipe.cycles)
        done = (ops.cast(step % cycle, "float32") + 0.5) / cycle
        warmup = self.recipe.warmup
        left = ops.clip((1 - done) / (1 - warmup), 0, 1)
        if self.recipe.schedule == "cosine":
            left = (1 - ops.cos(math.pi * left)) / 2
        return self.recipe.learning_rate * (ops.minimum(left, done / warmup) if warmup else left)


def plateau(recipe: Recipe, losses: list[float]) -> float:
    """Return the rate of the next epoch, from the training losses of all earlier epochs.

    "plateau" is Keras's ReduceLROnPlateau with min_delta 0.0001 on the training loss: validation rows are scored later,
    so they must not affect the training. "constant" ignores the losses.
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
