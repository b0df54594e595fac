"""The released network in ONNX Runtime, which starts much faster than Keras.

Reads released/MODEL.onnx, written by `make release`. The graph includes contrast, test-time augmentation and
temperature scaling.
"""

import contextlib
from pathlib import Path

import numpy as np

from pipeline import files
from pipeline.apps import packed
from pipeline.competition import CLASSES

CAPACITY = 128  # pictures in memory at a time, each with all its views


class Network:
    """ONNX counterpart of networks.Network, without attention maps.

    Parameters
    ----------
    model : ONNX file, or its content.
    """

    def __init__(self, model: Path | bytes) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, float32 [n, 7], of pictures, uint8 [n, 48, 48]."""
        parts = [pictures[start : start + CAPACITY] for start in range(0, len(pictures), CAPACITY)]
        outputs = [self.session.run(None, {"pictures": part})[0] for part in parts]
        return np.concatenate([np.zeros((0, len(CLASSES)), "float32"), *outputs])


def load() -> Network | None:
    """Load the released network; return None if ONNX Runtime or an ONNX file that matches the JSON file is missing.

    Raises UserError if released/ contains no complete network.
    """
    about, _ = packed.read(packed.find())
    with contextlib.suppress(ImportError, FileNotFoundError):
        content = (packed.FOLDER / f"{about.model}.onnx").read_bytes()
        if files.sha256(content) == about.onnx.get("sha256"):
            return Network(content)
    return None  # the caller then uses Keras
