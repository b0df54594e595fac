"""Local contrast: each pixel minus the local mean, divided by the local standard deviation.

Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?", section 2.
"""

import numpy as np
from scipy import ndimage

NEIGHBOURHOOD = 13  # side in pixels: about the size of an eye
FLOOR = 8  # grey levels, added to the standard deviation so that flat regions stay flat
SPREAD = 48  # grey levels per standard deviation


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Normalise uint8 [n, h, w] to whole numbers from 0 to 255, float32 [n, h, w]; the local mean becomes 128."""
    size = (0, NEIGHBOURHOOD, NEIGHBOURHOOD)
    mean = ndimage.uniform_filter(pixels.astype("float32"), size)
    square = ndimage.uniform_filter(pixels.astype("float32") ** 2, size)
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + FLOOR
    local: np.ndarray = np.clip(128 + SPREAD * (pixels - mean) / deviation, 0, 255).round()
    return local
