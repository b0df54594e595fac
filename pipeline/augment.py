"""Chance variations of training pictures, in batches, on the device that trains.

Rotation, zoom, shift and mirroring are composed into one affine map a picture, so that it is resampled only once. The
ranges mean what they mean in Keras's ImageDataGenerator, which the reference recipes were written for.
"""

import math

import keras
from keras import ops

from pipeline.competition import SIDE
from pipeline.recipe import Recipe


def transforms(count: int, recipe: Recipe, chance: keras.random.SeedGenerator) -> keras.KerasTensor:
    """Draw one map from output to input coordinates for each of `count` pictures.

    Returns
    -------
    float32 [count, 8] : (a0, a1, a2, b0, b1, b2, 0, 0); the output pixel (x, y) shows the input at
        (a0 x + a1 y + a2, b0 x + b1 y + b2), as keras.ops.image.affine_transform takes them.
    """

    def uniform(reach: float) -> keras.KerasTensor:
        return keras.random.uniform((count,), -reach, reach, seed=chance)

    angle = uniform(math.radians(recipe.rotation))
    zoom_x, zoom_y = 1 + uniform(recipe.zoom), 1 + uniform(recipe.zoom)
    shift_x, shift_y = uniform(recipe.shift * SIDE), uniform(recipe.shift * SIDE)
    if recipe.flip:
        zoom_x = zoom_x * ops.where(uniform(1.0) < 0, -1.0, 1.0)
    a0, a1 = ops.cos(angle) * zoom_x, -ops.sin(angle) * zoom_y
    b0, b1 = ops.sin(angle) * zoom_x, ops.cos(angle) * zoom_y
    middle = (SIDE - 1) / 2  # stays where it is, but for the shift
    a2 = middle + shift_x - middle * (a0 + a1)
    b2 = middle + shift_y - middle * (b0 + b1)
    none = ops.zeros_like(a0)
    return ops.stack([a0, a1, a2, b0, b1, b2, none, none], axis=1)


def vary(pictures: keras.KerasTensor, recipe: Recipe, chance: keras.random.SeedGenerator) -> keras.KerasTensor:
    """`pictures` (float32 [n, 48, 48, 1]) under one random map each; beyond the edge stands the edge's value."""
    if not (recipe.rotation or recipe.zoom or recipe.shift or recipe.flip):
        return pictures
    maps = transforms(ops.shape(pictures)[0], recipe, chance)
    return ops.image.affine_transform(pictures, maps, interpolation="bilinear", fill_mode="nearest")
