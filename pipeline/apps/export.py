"""Write a trained network for ONNX and LiteRT, and hold each file to what Keras predicts of the same pictures.

Reads what lies in released/, or a trained cell; for the check the test rows of data/faces.npz, or drawn faces where it
is missing. Writes into artifacts/exported/: NAME.onnx, NAME.tflite, NAME-float16.tflite (half as large), and NAME.json,
what one must know to use them.

A file takes pictures, uint8 [n, 48, 48, 1], grey levels 0 to 255, and gives probabilities, float32 [n, 7]: contrast,
crop, scaling and normalisation are inside it. It sees each picture once: the mean over views, and the temperature, are
left to who uses it. A file that is too far from Keras is deleted.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from tabulate import tabulate

from pipeline import files
from pipeline.apps import networks
from pipeline.competition import CLASSES, SIDE
from pipeline.config import Recipe
from pipeline.data import faces, synthetic
from pipeline.errors import UserError
from pipeline.evaluation.submission import percent

if TYPE_CHECKING:
    import keras

FOLDER = Path("artifacts/exported")
# What is written, and how far it may be from Keras: largest difference of a probability, least part of equal labels.
LIMITS = {".onnx": (0.005, 0.999), ".tflite": (0.005, 0.999), "-float16.tflite": (0.05, 0.99)}
BATCH = 128  # pictures at a time

Ask = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 48, 48, 1] to probabilities [n, 7]


def describe(member: networks.Member, temperature: float) -> dict[str, Any]:
    """What one must know to use an exported file."""
    return member.facts.model_dump(include={"model", "architecture", "fold", "seed"}) | {
        "classes": CLASSES,
        "input": f"pictures, uint8 [n, {SIDE}, {SIDE}, 1]: grey levels 0 to 255 of faces cut out as in FER2013",
        "output": f"float32 [n, {len(CLASSES)}]: probabilities that sum to 1, in the order of classes",
        "inside": {key: getattr(member.facts.recipe, key) for key in ("contrast", "crop", "scaling")},
        "views": f"one, the picture as it is; the pipeline's scores are of means over {len(member.views)}",
        "temperature": temperature,  # not inside: p ** (1 / temperature), made to sum to 1
    }


def contrasted(pictures: "keras.KerasTensor", kind: str) -> "keras.KerasTensor":
    """What contrasts.normalise does, as a graph: uint8 [n, 48, 48, 1] to whole numbers, float32 of that shape.

    Local means are products of matrices, whose rounding puts one pixel in 40,000 a grey level off.
    """
    from keras import ops

    from pipeline.training.contrasts import local

    x = ops.cast(pictures, "float32")
    if kind == "local":
        weights = ndimage.uniform_filter1d(np.eye(SIDE), local.NEIGHBOURHOOD, axis=0).astype("float32")

        def around(values: "keras.KerasTensor") -> "keras.KerasTensor":
            return ops.matmul(ops.matmul(weights, values), weights.T)

        x = x[..., 0] - 128  # small numbers, for the squares' sake
        mean = around(x)
        deviation = ops.sqrt(ops.maximum(around(x * x) - mean * mean, 0)) + local.FLOOR
        x = ops.round(ops.clip(128 + local.SPREAD * (x - mean) / deviation, 0, 255))[..., None]
    elif kind == "histogram":
        levels = ops.one_hot(ops.reshape(ops.cast(pictures, "int32"), (-1, SIDE * SIDE)), 256)
        counts = ops.sum(levels, axis=1)
        ranks = (ops.cumsum(counts, axis=1) - counts / 2) / (SIDE * SIDE)
        x = ops.reshape(ops.round(255 * ops.matmul(levels, ranks[..., None])), (-1, SIDE, SIDE, 1))
    return x


def whole(network: "keras.Model", recipe: Recipe) -> "keras.Model":
    """`network` with all that models.Predictor does before and after it to a picture's first view."""
    import keras
    from keras import ops

    from pipeline.training import models

    pictures = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="pictures")
    x = contrasted(pictures, recipe.contrast)
    # Of an odd crop the middle falls between two pixels: the mean of two windows, which are else the same.
    margin = SIDE - recipe.crop
    near, far = (slice(low, low + recipe.crop) for low in (margin // 2, (margin + 1) // 2))
    x = (x[:, near] + x[:, far]) / 2
    x = (x[:, :, near] + x[:, :, far]) / 2
    factor, offset = models.SCALINGS[recipe.scaling]
    outputs = ops.maximum(network(x * factor + offset, training=False), 1e-7)
    model = keras.Model(pictures, outputs / ops.sum(outputs, axis=1, keepdims=True))
    model(np.zeros((1, SIDE, SIDE, 1), "uint8"))  # Keras exports what was called once
    return model


def write(model: "keras.Model", path: Path) -> None:
    """Write `model` in the form that the end of `path` names."""
    options: dict[str, Any] = {"format": "onnx" if path.suffix == ".onnx" else "litert"}
    if "float16" in path.name:
        from tensorflow import float16, lite  # the converter is TensorFlow's

        options |= {"optimizations": [lite.Optimize.DEFAULT], "target_spec": {"supported_types": [float16]}}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of tf2onnx, about numpy
        model.export(path, verbose=False, **options)


def runtime(path: Path) -> Ask:
    """What asks the network in an exported file, by ONNX Runtime or LiteRT, on all cores."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda pictures: session.run(None, {"pictures": pictures})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def ask(pictures: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(source["index"], pictures.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], pictures)
        interpreter.invoke()
        found: np.ndarray = interpreter.get_tensor(target["index"])
        return found

    return ask


def predicted(ask: Ask, pictures: np.ndarray) -> np.ndarray:
    """Probabilities of all `pictures`, asked in batches."""
    return np.concatenate([ask(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)])


def check_pictures() -> tuple[np.ndarray, str]:
    """Pictures to hold files to Keras by, uint8 [n, 48, 48, 1], and what they are."""
    if faces.PATH.exists():
        data = faces.load()
        return data.pixels[data.test_rows()][..., None], f"the test rows of {faces.PATH}"
    return synthetic.competition(0, 210, seed=1)[0][..., None], f"drawn faces, as {faces.PATH} is missing"


def export(member: networks.Member, stem: str, pictures: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    """Write a network in every form: how near each file is to Keras, and which were too far, and so deleted."""
    model = whole(member.network, member.facts.recipe)
    wanted = predicted(lambda part: member.probabilities(part[..., 0], member.views[:1]), pictures)
    checked, refused = {}, []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for ending, (furthest, least) in LIMITS.items():
        path = FOLDER / f"{stem}{ending}"
        write(model, path)
        found = predicted(runtime(path), pictures)
        off = float(np.abs(found - wanted).max())
        equal = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
        checked[path.name] = {"bytes": path.stat().st_size, "largest_difference": off, "equal_labels": equal}
        if not (off <= furthest and equal >= least):  # NaN is not
            path.unlink()
            refused.append(path.name)
    return checked, refused


def main(name: str, fold: str) -> None:
    """Run the command."""
    if fold and not name:
        raise UserError(f"FOLD={fold}: of which model? Name it: make export NAME=... FOLD={fold}")
    network = networks.load(f"{name}-{fold or 0}" if name else networks.RELEASED, "tensorflow", "float32")
    ((member,),) = network.members.values()
    stem = f"{name}-fold{fold or 0}" if name else member.facts.model
    pictures, told = check_pictures()
    try:
        checked, refused = export(member, stem, pictures)
    except ImportError as missing:
        raise UserError(f"{missing}; make export needs: .venv/bin/python -m pip install -e '.[export]'") from None
    files.write_json(FOLDER / f"{stem}.json", describe(member, network.temperature) | {"checked": checked})
    lines = [
        (file, f"{of['bytes'] / 1e6:.2f}", f"{of['largest_difference']:.1e}", percent(of["equal_labels"]))
        for file, of in checked.items()
    ]
    print(tabulate(lines, ("", "MB", "difference", "equal labels"), disable_numparse=True,
                   colalign=("left", *["right"] * 3)))  # fmt: skip
    print(f"\nThe largest difference from Keras, on {len(pictures):,} pictures: {told}.")
    print(f"How to use them: {FOLDER / stem}.json")
    if refused:
        raise UserError(f"too far from Keras, and so deleted: {', '.join(refused)}")
