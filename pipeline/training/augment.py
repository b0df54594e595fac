"""Augmentation: random parameters are drawn with numpy, and applied to batches on the device.

A seed therefore gives the same pictures on every Keras backend. Crop, resizing, rotation, zoom, shift and mirroring are
combined into one affine map per picture, so each picture is resampled only once. The ranges of the last four have the
meaning of Keras's ImageDataGenerator, which the reference recipes used. Other augmentations are in augmentations/.
"""

import keras
import numpy as np
from keras import ops

from pipeline.competition import SIDE
from pipeline.config import Recipe
from pipeline.training import augmentations

MAP = 8  # numbers per affine map


def maps(
    crop: int, side: int, angle: np.ndarray, zoom: tuple[np.ndarray, np.ndarray], shift: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Compute affine maps from output to input coordinates.

    Parameters
    ----------
    crop : side of the central window, in input pixels.
    side : side of the output that the window is resampled to, in pixels.
    angle : float [n], radians.
    zoom : horizontal and vertical factors, float [n] each; negative factors mirror.
    shift : horizontal and vertical, float [n] each, in input pixels.

    Returns
    -------
    float32 [n, 8] : (a0, a1, a2, b0, b1, b2, 0, 0) as in keras.ops.image.affine_transform: the output pixel (x, y) is
        the input at (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    across, down = (factor * crop / side for factor in zoom)
    a0, a1 = np.cos(angle) * across, -np.sin(angle) * down
    b0, b1 = np.sin(angle) * across, np.cos(angle) * down
    middle, centre = (SIDE - 1) / 2, (side - 1) / 2  # the output's centre is the input's, plus the shift
    a2 = middle + shift[0] - centre * (a0 + a1)
    b2 = middle + shift[1] - centre * (b0 + b1)
    zero = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype("float32")


def draw(recipe: Recipe, count: int, random: np.random.Generator, side: int, plain: bool = False, mirrored: np.ndarray | None = None) -> np.ndarray:
    """Draw the augmentation parameters of `count` pictures.

    Parameters
    ----------
    side : side of the network's input, in pixels.
    plain : disable all augmentation except mirroring.

    Returns
    -------
    float32 [count, k] : an affine map (8 numbers), then the parameters of each augmentation that the recipe uses.
    """
    strength = 0.0 if plain else 1.0

    def uniform(reach: float) -> np.ndarray:
        return random.uniform(-reach, reach, count) * strength

    angle = uniform(np.radians(recipe.rotation))
    across, down = 1 + uniform(recipe.zoom), 1 + uniform(recipe.zoom)
    shift = uniform(recipe.shift * SIDE), uniform(recipe.shift * SIDE)
    if recipe.flip:
        across = across * np.where(random.random(count) < 0.5 if mirrored is None else mirrored, -1.0, 1.0)
    off = {"random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}  # still drawn: all batches have the same width
    more = [
        each.draw(recipe.model_copy(update=off) if plain else recipe, count, random)
        for each in augmentations.of(recipe)
    ]
    return np.concatenate([maps(recipe.crop, side, angle, (across, down), shift), *more], axis=1)


def own_part(recipe: Recipe, drawn: np.ndarray) -> np.ndarray:
    """Return the weight of each picture's own label, not that of its mixing partner: float32 [n, 1], 0 to 1."""
    part, start = np.ones((len(drawn), 1), "float32"), MAP
    for each in augmentations.of(recipe):
        part = part * each.own_part(drawn[:, start : start + each.WIDTH])
        start += each.WIDTH
    return part


def show(pictures: keras.KerasTensor, places: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Apply an affine map (`places`, float32 [n, 8]) to each of `pictures`, float32 [n, 48, 48, 1].

    Returns float32 [n, side, side, 1], by bilinear interpolation. Pixels beyond an edge have the value of the edge.
    """
    shown = ops.image.affine_transform(pictures, places, interpolation="bilinear", fill_mode="nearest")
    return shown[:, :side, :side]


def vary(pictures: keras.KerasTensor, drawn: keras.KerasTensor, recipe: Recipe, side: int) -> keras.KerasTensor:
    """Apply `drawn` (see `draw`) to `pictures`, float32 [n, 48, 48, 1]; return float32 [n, side, side, 1]."""
    shown, start = show(pictures, drawn[:, :MAP], side), MAP
    for each in augmentations.of(recipe):
        shown = each.apply(shown, drawn[:, start : start + each.WIDTH], side)
        start += each.WIDTH
    return shown


def tta_maps(recipe: Recipe) -> np.ndarray:
    """Return the maps of the test-time augmentation's views, float32 [v, 8]; the first view is unaltered."""
    step, zoom = recipe.tta_shift, recipe.tta_zoom
    views = [(0.0, 0.0, 1.0)]  # horizontal shift, vertical shift, zoom
    if step:
        views += [(x, y, 1.0) for x in (-step, step) for y in (-step, step)]
    if zoom:
        views += [(0.0, 0.0, 1 - zoom), (0.0, 0.0, 1 + zoom)]
    signs = [1, -1] if recipe.tta_flip else [1]
    x, y, factor, sign = np.array([(*view, sign) for view in views for sign in signs], "float64").T
    return maps(recipe.crop, recipe.crop, 0 * x, (sign * factor, factor), (x, y))
