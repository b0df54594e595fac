"""Random erasing (Zhong et al. 2020, arXiv 1708.04896): a random rectangle of some pictures becomes grey."""

import keras
import numpy as np
from keras import ops

from pipeline.config import Recipe
from pipeline.training.augmentations import _rectangles as rectangles

WIDTH = 4
GREY = 128.0
AREA, ASPECT = (0.02, 0.4), np.log(1 / 0.3)  # range of areas, log of the largest aspect (section 4.2)


def draw(recipe: Recipe, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw one rectangle per picture, empty if nothing is erased: float32 [count, 4]."""
    area = random.uniform(AREA[0], AREA[1], count)
    aspect = np.exp(random.uniform(-ASPECT, ASPECT, count))
    width, height = np.minimum(np.sqrt([area * aspect, area / aspect]), 1)
    chosen = random.random(count) < recipe.random_erasing
    return (rectangles.anywhere(width, height, random) * chosen[:, None]).astype("float32")


def apply(pictures: keras.KerasTensor, drawn: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Fill the rectangles, float32 [n, 4], with grey."""
    return ops.where(rectangles.inside(drawn, side), GREY, pictures)


def own_part(drawn: np.ndarray) -> np.ndarray:
    """Return ones, float32 [count, 1]: erasing mixes nothing."""
    return np.ones((len(drawn), 1), "float32")
