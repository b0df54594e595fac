"""Local contrast: each pixel less the mean around it, divided by the deviation there.

Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?", section 2.
"""

import numpy as np
from scipy import ndimage

NEIGHBOURHOOD = 13  # pixels across: about an eye
FLOOR = 8  # grey levels added to the deviation, so that flat regions stay flat
SPREAD = 48  # grey levels of one deviation


def normalise(pixels: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w] to float32 of the same shape, 0 to 255."""
    size = (0, NEIGHBOURHOOD, NEIGHBOURHOOD)
    mean = ndimage.uniform_filter(pixels.astype("float32"), size)
    square = ndimage.uniform_filter(pixels.astype("float32") ** 2, size)
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + FLOOR
    local: np.ndarray = np.clip(128 + SPREAD * (pixels - mean) / deviation, 0, 255).round()
    return local
