"""Mixup (Zhang et al. 2018, arXiv 1710.09412) and cutmix (Yun et al. 2019, arXiv 1905.04899).

Picture i of a batch of n is mixed with picture n - 1 - i.
"""

import keras
import numpy as np
from keras import ops

from pipeline.config import Recipe
from pipeline.training.augmentations import _rectangles as rectangles

WIDTH = 5  # the square from the partner (cutmix), and the picture's own weight where they are blended (mixup)


def draw(recipe: Recipe, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw a square and an own weight per picture, float32 [count, 5]; no picture has both cutmix and mixup."""
    patched = random.random(count) < recipe.cutmix
    drawn = np.zeros((count, WIDTH), "float32")
    drawn[:, 4] = 1
    if recipe.cutmix:
        width = np.sqrt(random.random(count))  # so that areas are uniform in [0, 1]
        drawn[:, :4] = rectangles.anywhere(width, width, random) * patched[:, None]
    if recipe.mixup:
        part = random.beta(recipe.mixup, recipe.mixup, count)
        drawn[:, 4] = np.where(patched, 1, np.maximum(part, 1 - part))
    return drawn


def apply(pictures: keras.KerasTensor, drawn: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Mix each picture with its partner, by `drawn`, float32 [n, 5]."""
    part = ops.where(rectangles.inside(drawn[:, :4], side), 0.0, drawn[:, 4:][:, None, None])
    return part * pictures + (1 - part) * ops.flip(pictures, axis=0)


def own_part(drawn: np.ndarray) -> np.ndarray:
    """Return the fraction of each picture, and of its label, that is its own: float32 [count, 1]."""
    left, top, right, bottom, part = drawn.T
    own: np.ndarray = (part * (1 - (right - left) * (bottom - top)))[:, None]
    return own
