"""Mixup (Zhang et al. 2018, arXiv 1710.09412) and cutmix (Yun et al. 2019, arXiv 1905.04899).

A picture is mixed with the one that stands as far from the batch's end as it does from its beginning.
"""

import keras
import numpy as np
from keras import ops

from pipeline.config import Recipe
from pipeline.training.augmentations import _rectangles as rectangles

WIDTH = 5  # a square that comes from the other picture, and the part of its own where they are blended


def draw(recipe: Recipe, count: int, random: np.random.Generator) -> np.ndarray:
    """A square and a part for each picture; a picture with a square is not blended as well."""
    patched = random.random(count) < recipe.cutmix
    drawn = np.zeros((count, WIDTH), "float32")
    drawn[:, 4] = 1
    if recipe.cutmix:
        width = np.sqrt(random.random(count))  # so that areas are even
        drawn[:, :4] = rectangles.anywhere(width, width, random) * patched[:, None]
    if recipe.mixup:
        part = random.beta(recipe.mixup, recipe.mixup, count)
        drawn[:, 4] = np.where(patched, 1, np.maximum(part, 1 - part))
    return drawn


def apply(pictures: keras.KerasTensor, drawn: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Mix each picture with its mate."""
    part = ops.where(rectangles.inside(drawn[:, :4], side), 0.0, drawn[:, 4:][:, None, None])
    return part * pictures + (1 - part) * ops.flip(pictures, axis=0)


def own_part(drawn: np.ndarray) -> np.ndarray:
    """How much of each picture, and so of its label, is its own."""
    left, top, right, bottom, part = drawn.T
    own: np.ndarray = (part * (1 - (right - left) * (bottom - top)))[:, None]
    return own
