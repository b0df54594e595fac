"""Write a trained network for ONNX and LiteRT, and hold each file to what Keras predicts of the same pictures.

Reads what lies in released/, or a trained cell; for the check the test rows of data/faces.npz, or drawn faces where it
is missing. Writes into artifacts/exported/: NAME.onnx and NAME-float16.tflite, whose weights are in float16,
NAME.tflite, and NAME.json, what one must know to use them.

A file takes pictures, uint8 [n, 48, 48], grey levels 0 to 255, and gives probabilities, float32 [n, 7], as the pipeline
does: contrast, crop, scaling, test-time augmentation and temperature are inside it. What is too far from Keras is
deleted.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from tabulate import tabulate

from pipeline import files
from pipeline.apps import networks, packed
from pipeline.competition import CLASSES, SIDE
from pipeline.data import faces, synthetic
from pipeline.errors import UserError
from pipeline.evaluation.submission import percent

if TYPE_CHECKING:
    import keras

FOLDER = Path("artifacts/exported")
# What is written, and how far it may be from Keras: largest difference of a probability, least part of equal labels.
LIMITS = {".onnx": (0.005, 0.999), ".tflite": (0.005, 0.999), "-float16.tflite": (0.05, 0.99)}
BATCH = 128  # pictures at a time
CHECKED = 1024  # pictures that a file is held to Keras by: LiteRT takes long
KERNEL = 256  # numbers from which on an array of an ONNX file is kept in float16

Ask = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 48, 48] to probabilities [n, 7]


def contrasted(pictures: "keras.KerasTensor", kind: str) -> "keras.KerasTensor":
    """What contrasts.normalise does, as a graph: uint8 [n, 48, 48] to whole numbers, float32 of that shape.

    Local means are products of matrices, whose rounding puts one pixel in 40,000 a grey level off.
    """
    from keras import ops

    from pipeline.training.contrasts import local

    x = ops.cast(pictures, "float32")
    if kind == "local":
        weights = ndimage.uniform_filter1d(np.eye(SIDE), local.NEIGHBOURHOOD, axis=0).astype("float32")

        def around(values: "keras.KerasTensor") -> "keras.KerasTensor":
            return ops.matmul(ops.matmul(weights, values), weights.T)

        x = x - 128  # small numbers, for the squares' sake
        mean = around(x)
        deviation = ops.sqrt(ops.maximum(around(x * x) - mean * mean, 0)) + local.FLOOR
        x = ops.round(ops.clip(128 + local.SPREAD * (x - mean) / deviation, 0, 255))
    elif kind == "histogram":
        levels = ops.one_hot(ops.reshape(ops.cast(pictures, "int32"), (-1, SIDE * SIDE)), 256)
        counts = ops.sum(levels, axis=1)
        ranks = (ops.cumsum(counts, axis=1) - counts / 2) / (SIDE * SIDE)
        x = ops.reshape(ops.round(255 * ops.matmul(levels, ranks[..., None])), (-1, SIDE, SIDE))
    return x


def resampled(step: float, start: float, crop: int) -> np.ndarray:
    """The matrix float32 [crop, 48] that shows 48 pixels at `start`, `start + step` and so on, as augment.show."""
    places = np.clip(start + step * np.arange(crop), 0, SIDE - 1)
    weights: np.ndarray = np.maximum(1 - abs(places[:, None] - np.arange(SIDE)), 0).astype("float32")
    return weights


def whole(found: networks.Network) -> "keras.Model":
    """All that a Network of one member does to pictures, as one model: uint8 [n, 48, 48] to float32 [n, 7]."""
    import keras
    from keras import ops

    from pipeline.training import models

    ((member,),) = found.members.values()
    crop, maps = member.facts.recipe.crop, member.views
    factor, offset = models.SCALINGS[member.facts.recipe.scaling]
    pictures = keras.Input((SIDE, SIDE), dtype="uint8", name="pictures")
    x = contrasted(pictures, member.facts.recipe.contrast)
    views = [
        ops.matmul(ops.matmul(resampled(down, top, crop), x), resampled(across, left, crop).T)
        for across, _, left, _, down, top, *_ in maps
    ]
    outputs = member.network(ops.concatenate(views)[..., None] * factor + offset, training=False)
    outputs = ops.maximum(outputs, 1e-7)
    outputs = outputs / ops.sum(outputs, axis=1, keepdims=True)
    mean = ops.mean(ops.reshape(outputs, (len(maps), -1, len(CLASSES))), axis=0)
    model = keras.Model(pictures, ops.softmax(ops.log(mean) / found.temperature))
    model(np.zeros((1, SIDE, SIDE), "uint8"))  # Keras exports what was called once
    return model


def write(model: "keras.Model", path: Path, about: dict[str, str]) -> None:
    """Write `model` in the form that the end of `path` names; an ONNX file holds `about`."""
    options: dict[str, Any] = {"format": "onnx" if path.suffix == ".onnx" else "litert"}
    if "float16" in path.name:
        from tensorflow import float16, lite  # the converter is TensorFlow's

        options |= {"optimizations": [lite.Optimize.DEFAULT], "target_spec": {"supported_types": [float16]}}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of tf2onnx, about numpy
        model.export(path, verbose=False, **options)
    if path.suffix == ".onnx":
        _finish(path, about)


def _finish(path: Path, about: dict[str, str]) -> None:
    """Name what goes in and out of an ONNX file, keep its large arrays in float16, and let it tell of itself."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph, casts = model.graph, []
    for array in graph.initializer:
        views = len(array.dims) == 2 and SIDE in array.dims  # what resamples pictures stays exact
        if array.data_type == onnx.TensorProto.FLOAT and np.prod(array.dims) >= KERNEL and not views:
            half = numpy_helper.from_array(numpy_helper.to_array(array).astype("float16"), f"{array.name}/float16")
            casts.append(helper.make_node("Cast", [half.name], [array.name], to=onnx.TensorProto.FLOAT))
            array.CopyFrom(half)
    ((output,), last) = graph.output, graph.node[-1]
    assert list(last.output) == [output.name]
    output.name = last.output[0] = "probabilities"
    for each in (*graph.input, output):
        each.type.tensor_type.shape.dim[0].dim_param = "n"
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.name = about["model"]
    helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    onnx.save(model, path)


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
    """Pictures to hold files to Keras by, uint8 [n, 48, 48], and what they are."""
    if faces.PATH.exists():
        data = faces.load()
        return data.pixels[data.test_rows()[:CHECKED]], f"the first test rows of {faces.PATH}"
    return synthetic.competition(0, 210, seed=1)[0], f"drawn faces, as {faces.PATH} is missing"


def check(path: Path, pictures: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Size and digest of a file, and how near it is to `wanted`, the network's probabilities of `pictures`."""
    found = predicted(runtime(path), pictures)
    return {
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path.read_bytes()),
        "largest_difference": float(f"{np.abs(found - wanted).max():.2g}"),
        "equal_labels": round(float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean()), 6),
    }


def export(
    found: networks.Network, base: Path, endings: Iterable[str], about: dict[str, str]
) -> tuple[dict[str, dict[str, Any]], str]:
    """Write a network of one member beside `base`: of each file what `check` says, and which pictures it was held to.

    Raises UserError where files are too far from Keras, and so deleted, or what writes them is missing.
    """
    pictures, told = check_pictures()
    wanted, checked, refused = found.probabilities(pictures), {}, []
    base.parent.mkdir(parents=True, exist_ok=True)
    try:
        model = whole(found)
        for ending in endings:
            path = base.with_name(base.name + ending)
            write(model, path, about)
            checked[path.name] = of = check(path, pictures, wanted)
            if not (
                of["largest_difference"] <= LIMITS[ending][0] and of["equal_labels"] >= LIMITS[ending][1]
            ):  # or NaN
                path.unlink()
                refused.append(path.name)
    except ImportError as missing:
        raise UserError(f"{missing}; it needs: .venv/bin/python -m pip install -e '.[export]'") from None
    if refused:
        raise UserError(f"too far from Keras, and so deleted: {', '.join(refused)}")
    return checked, f"{len(pictures):,} pictures, {told}"


def main(name: str, fold: str) -> None:
    """Run the command."""
    if fold and not name:
        raise UserError(f"FOLD={fold}: of which model? Name it: make export NAME=... FOLD={fold}")
    network = networks.load(f"{name}-{fold or 0}" if name else networks.RELEASED, "tensorflow", "float32")
    ((member,),) = network.members.values()
    base = FOLDER / (f"{name}-fold{fold or 0}" if name else member.facts.model)
    about = packed.notes(member.facts, network.temperature, len(member.views))
    checked, told = export(network, base, LIMITS, about)
    files.write_json(base.with_name(f"{base.name}.json"), about | {"checked": checked})
    lines = [
        (file, f"{of['bytes'] / 1e6:.2f}", f"{of['largest_difference']:.1e}", percent(of["equal_labels"]))
        for file, of in checked.items()
    ]
    print(tabulate(lines, ("", "MB", "difference", "equal labels"), disable_numparse=True,
                   colalign=("left", *["right"] * 3)))  # fmt: skip
    print(f"\nThe largest difference from Keras, on {told}. How to use them: {base}.json")
