"""Random rectangles inside a picture: left, top, right and bottom, as fractions of its side."""

import keras
import numpy as np
from keras import ops


def anywhere(width: np.ndarray, height: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw uniform positions of rectangles with the given sizes (float [n] each, 0 to 1); return float [n, 4]."""
    left, top = random.random(len(width)) * (1 - width), random.random(len(width)) * (1 - height)
    return np.stack([left, top, left + width, top + height], axis=1)


def inside(boxes: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Return which pixels have their centre inside each of `boxes`, [n, 4]: bool [n, side, side, 1]."""
    centres = (ops.arange(side, dtype="float32") + 0.5) / side
    left, top, right, bottom = (boxes[:, i, None] for i in range(4))
    across = ops.logical_and(centres >= left, centres < right)
    down = ops.logical_and(centres >= top, centres < bottom)
    return ops.logical_and(down[:, :, None], across[:, None, :])[..., None]
