"""The released network in ONNX Runtime, which starts much faster than Keras.

Reads released/MODEL.onnx, written by `make release`. The graph includes contrast, test-time augmentation and
temperature scaling.
"""

from typing import Any

import numpy as np

from pipeline import files
from pipeline.apps import packed
from pipeline.competition import CLASSES

BATCH = 128  # pictures at a time


class Network:
    """ONNX counterpart of networks.Network, without attention maps.

    Parameters
    ----------
    session : of ONNX Runtime.
    """

    def __init__(self, session: Any) -> None:
        self.session = session

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, float32 [n, 7], of pictures, uint8 [n, 48, 48]."""
        starts = range(0, len(pictures), BATCH)
        parts = [self.session.run(None, {"pictures": pictures[start : start + BATCH]})[0] for start in starts]
        return np.concatenate([np.zeros((0, len(CLASSES)), "float32"), *parts])


def load() -> Network | None:
    """Load the released network; return None if ONNX Runtime or an ONNX file that matches the JSON file is missing.

    Raises UserError if released/ contains no complete network.
    """
    if not list(packed.FOLDER.glob("*.onnx")):
        return None
    about, _ = packed.read(packed.find())
    path = packed.FOLDER / f"{about.model}.onnx"
    if not path.is_file() or path.stat().st_size > packed.LIMIT:
        return None
    if files.sha256(content := path.read_bytes()) != about.onnx.get("sha256"):
        return None  # the caller then uses Keras
    try:
        import onnxruntime
    except ImportError:
        return None
    return Network(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]))
