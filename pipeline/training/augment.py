"""Chance variations of training pictures, and the fixed ones that are judged at test time.

What shall happen to each picture is drawn by numpy, on the host (`draw`), and done in batches on the device that trains
(`vary`): a seed stands for the same pictures under every library. Crop, resizing, rotation, zoom, shift and mirroring
are one affine map a picture, so that it is resampled only once; the ranges of the last four mean what they mean in
Keras's ImageDataGenerator, which the reference recipes were written for.
"""

import keras
import numpy as np
from keras import ops
from scipy import ndimage

from pipeline.competition import SIDE
from pipeline.recipe import Recipe

# The columns of a draw: the map, a rectangle to erase, one to take from another picture (left, top, right, bottom, as
# parts of the side), and the picture's share where it is blended with the other as a whole.
MAP, HOLE, PATCH, SHARE = slice(0, 8), slice(8, 12), slice(12, 16), slice(16, 17)
WIDTH = 17
GREY = 128.0  # of what is erased
ERASED_AREA, ERASED_ASPECT = (0.02, 0.4), np.log(1 / 0.3)  # Zhong et al. 2020, arXiv 1708.04896, section 4.2
NEIGHBOURHOOD = 13  # pixels across, over which local contrast is measured: about an eye


def contrast(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Normalise each picture's contrast by itself: uint8 [n, 48, 48] to the same.

    Parameters
    ----------
    kind : "none"; "histogram" (equalised: every grey level equally frequent); or "local" (less the mean around each
        pixel, divided by the deviation there, as Jarrett et al. 2009, "What is the best multi-stage architecture").
    """
    if kind == "none":
        return pixels
    result = np.empty_like(pixels)
    for start in range(0, len(pixels), 1024):  # small parts: the float copies are large
        part = pixels[start : start + 1024]
        if kind == "histogram":
            levels = np.arange(len(part))[:, None] * 256 + part.reshape(len(part), -1)
            counts = np.bincount(levels.ravel(), minlength=256 * len(part)).reshape(-1, 256)
            ranks = (np.cumsum(counts, axis=1) - counts / 2) / (SIDE * SIDE)  # the middle of a level's ranks
            result[start : start + 1024] = (255 * ranks.ravel()[levels]).round().reshape(part.shape)
        else:
            size = (0, NEIGHBOURHOOD, NEIGHBOURHOOD)
            mean = ndimage.uniform_filter(part.astype("float32"), size)
            square = ndimage.uniform_filter(part.astype("float32") ** 2, size)
            deviation = np.sqrt(np.maximum(square - mean**2, 0)) + 8  # flat regions stay flat
            result[start : start + 1024] = np.clip(128 + 48 * (part - mean) / deviation, 0, 255).round()
    return result


def maps(
    crop: int, side: int, angle: np.ndarray, zoom: tuple[np.ndarray, np.ndarray], shift: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Maps from output to input coordinates.

    Parameters
    ----------
    crop : pixels across of the window that is shown. side : pixels that it is resampled into.
    angle : float [n], radians. zoom : across and down, float [n] each, negative to mirror. shift : likewise, pixels.

    Returns
    -------
    float32 [n, 8] : (a0, a1, a2, b0, b1, b2, 0, 0); the output pixel (x, y) shows the input at
        (a0 x + a1 y + a2, b0 x + b1 y + b2), as keras.ops.image.affine_transform takes them.
    """
    across, down = (factor * crop / side for factor in zoom)
    a0, a1 = np.cos(angle) * across, -np.sin(angle) * down
    b0, b1 = np.sin(angle) * across, np.cos(angle) * down
    middle, centre = (SIDE - 1) / 2, (side - 1) / 2  # the one is shown at the other, but for the shift
    a2 = middle + shift[0] - centre * (a0 + a1)
    b2 = middle + shift[1] - centre * (b0 + b1)
    none = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, none, none], axis=1).astype("float32")


def _rectangles(count: int, width: np.ndarray, height: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Rectangles of these sizes anywhere inside the picture: float [count, 4]."""
    left, top = chance.random(count) * (1 - width), chance.random(count) * (1 - height)
    return np.stack([left, top, left + width, top + height], axis=1)


def draw(recipe: Recipe, count: int, chance: np.random.Generator, side: int, plain: bool = False) -> np.ndarray:
    """Decide what happens to each of `count` pictures: float32 [count, WIDTH].

    Parameters
    ----------
    side : pixels across of what the network sees. plain : with nothing but mirroring.
    """
    strength = 0.0 if plain else 1.0

    def uniform(reach: float) -> np.ndarray:
        return chance.uniform(-reach, reach, count) * strength

    angle = uniform(np.radians(recipe.rotation))
    across, down = 1 + uniform(recipe.zoom), 1 + uniform(recipe.zoom)
    shift = uniform(recipe.shift * SIDE), uniform(recipe.shift * SIDE)
    if recipe.flip:
        across = across * np.where(chance.random(count) < 0.5, -1.0, 1.0)
    drawn = np.zeros((count, WIDTH), "float32")
    drawn[:, MAP] = maps(recipe.crop, side, angle, (across, down), shift)
    drawn[:, SHARE] = 1
    if recipe.erase and not plain:
        area = chance.uniform(ERASED_AREA[0], ERASED_AREA[1], count)
        aspect = np.exp(chance.uniform(-ERASED_ASPECT, ERASED_ASPECT, count))
        width, height = np.minimum(np.sqrt([area * aspect, area / aspect]), 1)
        chosen = chance.random(count) < recipe.erase
        drawn[:, HOLE] = _rectangles(count, width, height, chance) * chosen[:, None]
    patched = chance.random(count) < recipe.cutmix * strength
    if recipe.cutmix:  # Yun et al. 2019, arXiv 1905.04899: the area that is left is drawn evenly
        width = np.sqrt(chance.random(count))
        drawn[:, PATCH] = _rectangles(count, width, width, chance) * patched[:, None]
    if recipe.mixup and not plain:  # Zhang et al. 2018, arXiv 1710.09412; a patched picture is not blended as well
        share = chance.beta(recipe.mixup, recipe.mixup, count)
        drawn[:, SHARE] = np.where(patched, 1, np.maximum(share, 1 - share))[:, None]
    return drawn


def own(drawn: np.ndarray) -> np.ndarray:
    """How much of each picture is its own, and not its mate's: float32 [n, 1], 0 to 1."""
    left, top, right, bottom = drawn[:, PATCH].T
    kept: np.ndarray = drawn[:, SHARE] * (1 - (right - left) * (bottom - top))[:, None]
    return kept


def _inside(boxes: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Which pixels have their middle in each of `boxes`, [n, 4]: bool [n, side, side, 1]."""
    middles = (ops.arange(side, dtype="float32") + 0.5) / side
    left, top, right, bottom = (boxes[:, i, None] for i in range(4))
    across = ops.logical_and(middles >= left, middles < right)
    down = ops.logical_and(middles >= top, middles < bottom)
    return ops.logical_and(down[:, :, None], across[:, None, :])[..., None]


def show(pictures: keras.KerasTensor, places: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """`pictures`, float32 [n, 48, 48, 1], under one of `maps` each: float32 [n, side, side, 1].

    Beyond a picture's edge stands the edge's value.
    """
    shown = ops.image.affine_transform(pictures, places, interpolation="bilinear", fill_mode="nearest")
    return shown[:, :side, :side]


def vary(pictures: keras.KerasTensor, drawn: keras.KerasTensor, recipe: Recipe, side: int) -> keras.KerasTensor:
    """Do to `pictures` (float32 [n, 48, 48, 1]) all that was `drawn`: float32 [n, side, side, 1].

    The mate that a picture is mixed with is the one that stands as far from the batch's end as it does from its
    beginning.
    """
    shown = show(pictures, drawn[:, MAP], side)
    if recipe.erase:
        shown = ops.where(_inside(drawn[:, HOLE], side), GREY, shown)
    if recipe.mixup or recipe.cutmix:
        share = ops.where(_inside(drawn[:, PATCH], side), 0.0, drawn[:, SHARE][:, None, None])
        shown = share * shown + (1 - share) * ops.flip(shown, axis=0)
    return shown


def views(recipe: Recipe) -> list[np.ndarray]:
    """What is judged of a picture at test time, each view a map, float32 [8]; the first is the picture as it is."""
    step, zoom = recipe.shift_at_test, recipe.zoom_at_test
    looks = [(0.0, 0.0, 1.0)]  # shift across and down, zoom
    if step:
        looks += [(x, y, 1.0) for x in (-step, step) for y in (-step, step)]
    if zoom:
        looks += [(0.0, 0.0, 1 - zoom), (0.0, 0.0, 1 + zoom)]
    signs = [1, -1] if recipe.flip_at_test else [1]
    x, y, factor, sign = np.array([(*look, sign) for look in looks for sign in signs], "float64").T
    return list(maps(recipe.crop, recipe.crop, 0 * x, (sign * factor, factor), (x, y)))
