"""Export of a trained network to ONNX and LiteRT, with a comparison of each file's predictions with those of Keras.

Reads released/ or a trained cell; for the comparison, the test rows of data/faces.npz, or drawn faces if that file is
missing. Writes into artifacts/exported/: NAME.onnx and NAME-float16.tflite, both with weights in float16 or fewer bits,
NAME.tflite, and NAME.json, a description of the files.

An exported file maps pictures, uint8 [n, 48, 48], grey levels 0 to 255, to probabilities, float32 [n, 7]. It includes
contrast, crop, scaling, test-time augmentation and temperature scaling. Files that differ too much from Keras are
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
from pipeline.apps import light, networks, packed
from pipeline.competition import CLASSES, SIDE
from pipeline.data import faces, synthetic
from pipeline.errors import UserError

if TYPE_CHECKING:
    import keras
    import onnx

FOLDER = Path("artifacts/exported")
# Limits of the comparison with Keras: largest difference of a probability, lowest share of equal labels.
LIMITS = {".onnx": (0.005, 0.999), ".tflite": (0.005, 0.999), "-float16.tflite": (0.05, 0.99)}
CHECKED = 1024  # pictures for the comparison with Keras; more take too long in LiteRT
KERNEL = 256  # elements: smallest array that an ONNX file stores in fewer bits

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 48, 48] to probabilities [n, 7]


def contrasted(pictures: "keras.KerasTensor", kind: str) -> "keras.KerasTensor":
    """Build contrasts.normalise as a Keras graph: uint8 [n, 48, 48] to integers in float32 [n, 48, 48].

    Local means are matrix products; their rounding changes one pixel in 40,000 by one grey level.
    """
    from keras import ops

    from pipeline.training.contrasts import local

    x = ops.cast(pictures, "float32")
    if kind == "local":
        weights = ndimage.uniform_filter1d(np.eye(SIDE), local.NEIGHBOURHOOD, axis=0).astype("float32")

        def local_mean(values: "keras.KerasTensor") -> "keras.KerasTensor":
            return ops.matmul(ops.matmul(weights, values), weights.T)

        x = x - 128  # keeps the squares small, and so their rounding errors
        mean = local_mean(x)
        deviation = ops.sqrt(ops.maximum(local_mean(x * x) - mean * mean, 0)) + local.FLOOR
        x = ops.round(ops.clip(128 + local.SPREAD * (x - mean) / deviation, 0, 255))
    elif kind == "histogram":
        levels = ops.one_hot(ops.reshape(ops.cast(pictures, "int32"), (-1, SIDE * SIDE)), 256)
        counts = ops.sum(levels, axis=1)
        ranks = (ops.cumsum(counts, axis=1) - counts / 2) / (SIDE * SIDE)
        x = ops.reshape(ops.round(255 * ops.matmul(levels, ranks[..., None])), (-1, SIDE, SIDE))
    return x


def resampled(step: float, start: float, crop: int) -> np.ndarray:
    """Return the matrix float32 [crop, 48] that samples 48 pixels at start, start + step, ..., like augment.show."""
    positions = np.clip(start + step * np.arange(crop), 0, SIDE - 1)
    return np.asarray(np.maximum(1 - abs(positions[:, None] - np.arange(SIDE)), 0), "float32")


def build_graph(network: networks.Network) -> "keras.Model":
    """Build one Keras model of all that the networks of one model compute: uint8 [n, 48, 48] to float32 [n, 7]."""
    import keras
    from keras import ops

    from pipeline.training import models

    (members,) = network.members.values()
    recipe, maps = members[0].facts.recipe, members[0].views
    factor, offset = models.SCALINGS[recipe.scaling]
    pictures = keras.Input((SIDE, SIDE), dtype="uint8", name="pictures")
    x = contrasted(pictures, recipe.contrast)
    views = [
        ops.matmul(ops.matmul(resampled(down, top, recipe.crop), x), resampled(across, left, recipe.crop).T)
        for across, _, left, _, down, top, *_ in maps
    ]
    shown, parts = ops.concatenate(views)[..., None] * factor + offset, []
    for number, member in enumerate(members):
        member.network.name = f"network{number}"  # Keras requires different names
        outputs = ops.maximum(member.network(shown, training=False), 1e-7)
        parts.append(outputs / ops.sum(outputs, axis=1, keepdims=True))
    mean = ops.mean(ops.reshape(ops.concatenate(parts), (len(members) * len(maps), -1, len(CLASSES))), axis=0)
    model = keras.Model(pictures, ops.softmax(ops.log(mean) / network.temperature))
    model(np.zeros((1, SIDE, SIDE), "uint8"))  # Keras exports only models that were called
    return model


def write(model: "keras.Model", path: Path, about: dict[str, str]) -> None:
    """Write `model` in the format given by the suffix of `path`; an ONNX file also contains `about`."""
    options: dict[str, Any] = {"format": "onnx" if path.suffix == ".onnx" else "litert"}
    if "float16" in path.name:
        from tensorflow import float16, lite  # Keras converts with TensorFlow's converter

        options |= {"optimizations": [lite.Optimize.DEFAULT], "target_spec": {"supported_types": [float16]}}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # tf2onnx uses deprecated numpy
        model.export(path, verbose=False, **options)
    if path.suffix == ".onnx":
        _finish(path, about)


def _compressed(array: "onnx.TensorProto", graph: "onnx.GraphProto") -> "list[onnx.NodeProto]":
    """Replace a large array by one of fewer bits, and return the nodes that restore it.

    A kernel whose values have 8 bits, as in a release, becomes int8 with scales, another array float16. The nodes are
    Cast and Mul, which ONNX Runtime evaluates once, when it loads the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    resampling = len(array.dims) == 2 and SIDE in array.dims  # these matrices stay exact
    if array.data_type != TensorProto.FLOAT or np.prod(array.dims) < KERNEL or resampling:
        return []
    values, name = numpy_helper.to_array(array), array.name
    if values.ndim == 4:
        levels, scale = packed.quantised(values, axis=0)
        if (abs(levels * scale - values) < 0.01 * scale).all():
            array.CopyFrom(numpy_helper.from_array(levels, f"{name}/int8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}/scale"))
            cast = helper.make_node("Cast", [array.name], [f"{name}/levels"], to=TensorProto.FLOAT)
            return [cast, helper.make_node("Mul", [f"{name}/levels", f"{name}/scale"], [name])]
    array.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}/float16"))
    return [helper.make_node("Cast", [array.name], [name], to=TensorProto.FLOAT)]


def _finish(path: Path, about: dict[str, str]) -> None:
    """Name input, output and batch axis of an ONNX file, compress its large arrays, and add metadata."""
    import onnx
    from onnx import helper

    model = onnx.load(path)
    graph = model.graph
    compressed = [nodes for array in list(graph.initializer) for nodes in _compressed(array, graph)]
    ((output,), last) = graph.output, graph.node[-1]
    assert list(last.output) == [output.name]
    output.name = last.output[0] = "probabilities"
    for each in (*graph.input, output):
        each.type.tensor_type.shape.dim[0].dim_param = "n"
    nodes = [*compressed, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.name = about["model"]
    helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def runtime(path: Path) -> Predict:
    """Load an exported file in ONNX Runtime or LiteRT, on all cores, and return its prediction function."""
    if path.suffix == ".onnx":
        return light.Network(path).probabilities
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=os.cpu_count()).get_signature_runner()
    (name,) = run.get_input_details()
    return lambda pictures: next(iter(run(**{name: pictures}).values()))


def check_pictures() -> tuple[np.ndarray, str]:
    """Return pictures for the comparison with Keras, uint8 [n, 48, 48], and their description."""
    if faces.PATH.exists():
        data = faces.load()
        return data.pixels[data.test_rows()[:CHECKED]], f"the first test rows of {faces.PATH}"
    return synthetic.competition(0, 210, seed=1)[0], f"drawn faces, as {faces.PATH} is missing"


def check(path: Path, pictures: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Return size and digest of a file, and compare its probabilities of `pictures` with the `expected` ones."""
    predict = runtime(path)
    found = np.concatenate([predict(pictures[start : start + 128]) for start in range(0, len(pictures), 128)])
    return {
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path.read_bytes()),
        "largest_difference": float(f"{np.abs(found - expected).max():.2g}"),
        "equal_labels": round(float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()), 6),
    }


def export(
    network: networks.Network, base: Path, endings: Iterable[str], about: dict[str, str]
) -> tuple[dict[str, dict[str, Any]], str]:
    """Write the networks of one model to the files `base` + ending.

    Returns
    -------
    The result of `check` by file name, and a description of the pictures.

    Raises
    ------
    UserError : if a file differs too much from Keras (it is deleted), or a converter is not installed.
    """
    pictures, description = check_pictures()
    expected, checked = network.probabilities(pictures), {}
    base.parent.mkdir(parents=True, exist_ok=True)
    try:
        model = build_graph(network)
        for ending in endings:
            path = base.with_name(base.name + ending)
            print(f"{path}: convert, and compare with Keras on {len(pictures):,} pictures", flush=True)
            write(model, path, about)
            checked[path.name] = result = check(path, pictures, expected)
            difference, equal = LIMITS[ending]
            if not (result["largest_difference"] <= difference and result["equal_labels"] >= equal):  # also for NaN
                path.unlink()
                raise UserError(f"{path.name} is deleted, because its predictions differ too much from Keras")
    except ImportError as missing:
        raise UserError(f"{missing}; install the converters: .venv/bin/python -m pip install -e '.[export]'") from None
    return checked, f"{len(pictures):,} pictures, {description}"


def main(name: str, fold: str) -> None:
    """Run the command."""
    if fold and not name:
        raise UserError(f"FOLD={fold} needs a model: make export NAME=... FOLD={fold}")
    network = networks.load(f"{name}-{fold or 0}" if name else networks.RELEASED, "tensorflow", "float32")
    (members,) = network.members.values()
    facts, views = members[0].facts, members[0].views
    base = FOLDER / (f"{name}-fold{fold or 0}" if name else facts.model)
    about = packed.notes(facts, network.temperature, len(views), len(members))
    checked, description = export(network, base, LIMITS, about)
    files.write_json(base.with_name(f"{base.name}.json"), about | {"checked": checked})
    lines = [
        (file, each["bytes"] / 1e6, each["largest_difference"], each["equal_labels"]) for file, each in checked.items()
    ]
    print(tabulate(lines, ("", "MB", "difference", "equal labels"), floatfmt=("", ".2f", ".1e", ".2%")))
    print(f"\nLargest difference from Keras, on {description}. Usage notes: {base}.json")
