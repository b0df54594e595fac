"""The released network through ONNX Runtime, which starts in a fraction of the time that Keras takes.

`make release` writes its file, released/MODEL.onnx, in which contrast, test-time augmentation and temperature are.
"""

from typing import Any

import numpy as np

from pipeline import files
from pipeline.apps import packed
from pipeline.competition import CLASSES

BATCH = 128  # pictures at a time


class Network:
    """What networks.Network is, for probabilities alone.

    Parameters
    ----------
    session : of ONNX Runtime.
    """

    def __init__(self, session: Any) -> None:
        self.session = session

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Probabilities, at the temperature, of uint8 [n, 48, 48]: float32 [n, 7]."""
        starts = range(0, len(pictures), BATCH)
        parts = [self.session.run(None, {"pictures": pictures[start : start + BATCH]})[0] for start in starts]
        return np.concatenate([np.zeros((0, len(CLASSES)), "float32"), *parts])


def load() -> Network | None:
    """The released network; None where the ONNX file is not the one that its JSON file tells of, or nothing runs it.

    Raises UserError where released/ holds no whole network.
    """
    if not list(packed.FOLDER.glob("*.onnx")):
        return None
    about, _ = packed.read(packed.find())
    path = packed.FOLDER / f"{about.model}.onnx"
    if (
        not path.is_file()
        or path.stat().st_size > packed.LIMIT
        or files.sha256(content := path.read_bytes()) != about.onnx.get("sha256")
    ):
        return None  # Keras answers in its place
    try:
        import onnxruntime
    except ImportError:
        return None
    return Network(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]))
