"""The released network through ONNX Runtime, which starts in a fraction of the time that Keras takes.

`main` writes released/MODEL.onnx beside the two files that it is made of. It takes pictures, uint8 [n, 48, 48], and
gives probabilities, float32 [n, 7]: contrast, all views of test-time augmentation, their mean and the temperature are
inside it. Kernels are in half precision, as in the .npz file; all else is computed in float32.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.apps import packed
from pipeline.competition import CLASSES, SIDE

if TYPE_CHECKING:
    import keras

    from pipeline.apps import networks

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
    """The released network, or None where it has no ONNX file of these very weights, or ONNX Runtime is missing.

    Raises UserError where released/ holds no whole network.
    """
    if not list(packed.FOLDER.glob("*.onnx")):
        return None
    about, _ = packed.read(packed.find())
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(
            packed.FOLDER / f"{about.model}.onnx", providers=["CPUExecutionProvider"]
        )
    except Exception:  # its many errors have no common class; Keras answers in its place
        return None
    fits = session.get_modelmeta().custom_metadata_map.get("sha256") == about.sha256
    return Network(session) if fits else None


def resampling(scale: np.ndarray, offset: np.ndarray, side: int) -> np.ndarray:
    """Bilinear interpolation along one axis, as matrices: float32 [v, side, 48]; beyond the edge stands its value.

    Row i of a matrix takes its input at `scale * i + offset`, float [v] each.
    """
    places = np.clip(scale[:, None] * np.arange(side) + offset[:, None], 0, SIDE - 1)
    weights: np.ndarray = np.maximum(0, 1 - np.abs(places[..., None] - np.arange(SIDE)))
    return weights.astype("float32")


def whole(network: "networks.Network") -> "keras.Model":
    """One released network with all that happens before and after it: uint8 [n, 48, 48] to float32 [n, 7]."""
    import keras
    from keras import ops

    from pipeline.apps.export import contrasted
    from pipeline.training import models

    ((member,),) = network.members.values()
    recipe, maps = member.facts.recipe, member.views
    # A view neither turns nor shears, so that it is a product of two matrices with the picture.
    down, across = resampling(maps[:, 4], maps[:, 5], recipe.crop), resampling(maps[:, 0], maps[:, 2], recipe.crop)
    pictures = keras.Input((SIDE, SIDE), dtype="uint8", name="pictures")
    x = contrasted(pictures[..., None], recipe.contrast)[:, None, :, :, 0]
    x = ops.matmul(ops.matmul(down[None], x), across.transpose(0, 2, 1)[None])
    factor, offset = models.SCALINGS[recipe.scaling]
    x = ops.reshape(x, (-1, recipe.crop, recipe.crop, 1)) * factor + offset
    outputs = ops.maximum(member.network(x, training=False), 1e-7)
    outputs = ops.reshape(outputs / ops.sum(outputs, axis=1, keepdims=True), (-1, len(maps), len(CLASSES)))
    outputs = ops.mean(outputs, axis=1) ** (1 / network.temperature)
    outputs = keras.layers.Identity(name="probabilities")(outputs / ops.sum(outputs, axis=1, keepdims=True))
    model = keras.Model(pictures, {"probabilities": outputs})
    model(np.zeros((1, SIDE, SIDE), "uint8"))  # Keras exports what was called once
    return model


def write(network: "networks.Network", path: Path, sha256: str) -> None:
    """Write a network as an ONNX file that says of which weights it is, kernels in half precision."""
    import onnx

    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of tf2onnx, about numpy
        whole(network).export(path, format="onnx", verbose=False)
    model = onnx.load(path)
    for each in model.graph.initializer:
        values = onnx.numpy_helper.to_array(each)
        if values.dtype == "float32" and values.ndim > 1 and SIDE not in values.shape:  # the views stay exact
            name = each.name
            each.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}/half"))
            model.graph.node.insert(
                0, onnx.helper.make_node("Cast", [f"{name}/half"], [name], to=onnx.TensorProto.FLOAT)
            )
    onnx.helper.set_model_props(model, {"sha256": sha256})
    files.write(path, model.SerializeToString())


def main() -> None:
    """Write the released network's ONNX file."""
    from pipeline.apps import networks

    path = packed.find()
    about, _ = packed.read(path)
    write(networks.load(networks.RELEASED, "tensorflow", "float32"), path.with_suffix(".onnx"), about.sha256)
