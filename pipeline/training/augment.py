"""Augmentation: what happens to each picture is drawn by numpy and done in batches on the device.

So a seed stands for the same pictures on every Keras backend. Crop, resizing, rotation, zoom, shift and mirroring are
one affine map a picture, so each is resampled only once. The ranges of the last four mean what they mean in Keras's
ImageDataGenerator, which the reference recipes were written for. The rest is in augmentations/.
"""

import keras
import numpy as np
from keras import ops

from pipeline.competition import SIDE
from pipeline.config import Recipe
from pipeline.training import augmentations

MAP = 8  # numbers of an affine map


def maps(
    crop: int, side: int, angle: np.ndarray, zoom: tuple[np.ndarray, np.ndarray], shift: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Affine maps from output to input coordinates.

    Parameters
    ----------
    crop : pixels across of the window that is shown.
    side : pixels across that it is resampled into.
    angle : float [n], radians.
    zoom : factors across and down, float [n] each; negative ones mirror.
    shift : across and down, float [n] each, pixels.

    Returns
    -------
    float32 [n, 8] : (a0, a1, a2, b0, b1, b2, 0, 0); the output pixel (x, y) shows the input at
        (a0 x + a1 y + a2, b0 x + b1 y + b2), as keras.ops.image.affine_transform takes them.
    """
    across, down = (factor * crop / side for factor in zoom)
    a0, a1 = np.cos(angle) * across, -np.sin(angle) * down
    b0, b1 = np.sin(angle) * across, np.cos(angle) * down
    middle, centre = (SIDE - 1) / 2, (side - 1) / 2  # the input's middle is shown at the output's, but for the shift
    a2 = middle + shift[0] - centre * (a0 + a1)
    b2 = middle + shift[1] - centre * (b0 + b1)
    zero = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype("float32")


def draw(recipe: Recipe, count: int, random: np.random.Generator, side: int, plain: bool = False) -> np.ndarray:
    """Decide what happens to each of `count` pictures.

    Parameters
    ----------
    side : pixels across of what the network sees.
    plain : with no augmentation but mirroring.

    Returns
    -------
    float32 [count, k] : an affine map, and the numbers of each augmentation that the recipe uses.
    """
    strength = 0.0 if plain else 1.0

    def uniform(reach: float) -> np.ndarray:
        return random.uniform(-reach, reach, count) * strength

    angle = uniform(np.radians(recipe.rotation))
    across, down = 1 + uniform(recipe.zoom), 1 + uniform(recipe.zoom)
    shift = uniform(recipe.shift * SIDE), uniform(recipe.shift * SIDE)
    if recipe.flip:
        across = across * np.where(random.random(count) < 0.5, -1.0, 1.0)
    off = {"random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}  # they draw, so that every batch has the same width
    more = [
        each.draw(recipe.model_copy(update=off) if plain else recipe, count, random)
        for each in augmentations.of(recipe)
    ]
    return np.concatenate([maps(recipe.crop, side, angle, (across, down), shift), *more], axis=1)


def own_part(recipe: Recipe, drawn: np.ndarray) -> np.ndarray:
    """How much of each picture's label is its own, not its mate's: float32 [n, 1], 0 to 1."""
    part, start = np.ones((len(drawn), 1), "float32"), MAP
    for each in augmentations.of(recipe):
        part = part * each.own_part(drawn[:, start : start + each.WIDTH])
        start += each.WIDTH
    return part


def show(pictures: keras.KerasTensor, places: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """`pictures`, float32 [n, 48, 48, 1], under one of `maps` each: float32 [n, side, side, 1].

    Beyond a picture's edge stands the edge's value.
    """
    shown = ops.image.affine_transform(pictures, places, interpolation="bilinear", fill_mode="nearest")
    return shown[:, :side, :side]


def vary(pictures: keras.KerasTensor, drawn: keras.KerasTensor, recipe: Recipe, side: int) -> keras.KerasTensor:
    """Do to `pictures` (float32 [n, 48, 48, 1]) all that was drawn: float32 [n, side, side, 1]."""
    shown, start = show(pictures, drawn[:, :MAP], side), MAP
    for each in augmentations.of(recipe):
        shown = each.apply(shown, drawn[:, start : start + each.WIDTH], side)
        start += each.WIDTH
    return shown


def tta_maps(recipe: Recipe) -> np.ndarray:
    """The views of a picture that test-time augmentation averages, as maps: float32 [v, 8]; the first is as it is."""
    step, zoom = recipe.tta_shift, recipe.tta_zoom
    views = [(0.0, 0.0, 1.0)]  # shift across and down, zoom
    if step:
        views += [(x, y, 1.0) for x in (-step, step) for y in (-step, step)]
    if zoom:
        views += [(0.0, 0.0, 1 - zoom), (0.0, 0.0, 1 + zoom)]
    signs = [1, -1] if recipe.tta_flip else [1]
    x, y, factor, sign = np.array([(*view, sign) for view in views for sign in signs], "float64").T
    return maps(recipe.crop, recipe.crop, 0 * x, (sign * factor, factor), (x, y))
