"""Scores of an external network on the test rows, computed like those of the pipeline's submissions.

Reads a complete Keras model (.keras, .h5 or .hdf5; also of Keras 2), the data, and the backend from params.yaml. Writes
the scores as JSON if a path is given. No code in the file is run: models with Lambda layers are refused. The user
states the picture side, scaling and class order; none of them is inferred.
"""

import itertools
import json
import re
import shutil
import tempfile
import textwrap
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from tabulate import tabulate

from pipeline import config, files
from pipeline.apps import detect
from pipeline.competition import CLASSES
from pipeline.data import faces
from pipeline.errors import UserError
from pipeline.evaluation import board, score, submission
from pipeline.training import backend, machine

if TYPE_CHECKING:
    import keras

BATCH = 64
INNER = "_layer_checkpoint_dependencies"  # the group in which Keras 2.13 stores the weights of a model's layers
# Layer keys that Keras 3 has dropped, by a part of the layer's class name.
KERNEL = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
DROPPED = {
    "": ("rng_type", "noise_shape", "query_shape", "key_shape", "value_shape", "softmax_robust_masking"),
    "SeparableConv": KERNEL, "DepthwiseConv": KERNEL, "Transpose": ("groups",), "SpatialDropout": ("trainable",),
}  # fmt: skip


def output_indices(text: str) -> list[int]:
    """Return the output index of each competition class; `text` names the outputs in order, "" is the competition's."""
    names = re.split(r"[\s,]+", text.strip()) if text.strip() else list(CLASSES)
    if sorted(names) != sorted(CLASSES):
        raise UserError(f"CLASSES={text!r}: name each of {', '.join(CLASSES)} once, in the order of the outputs")
    return [names.index(name) for name in CLASSES]


def modern(layers: Any) -> Any:
    """Convert a layer configuration of Keras 2 to one that Keras 3 can read.

    The dropped keys do not affect predictions, except time_major: if true, it stays, and Keras 3 refuses it.
    """
    if isinstance(layers, list):
        return [modern(each) for each in layers]
    if not isinstance(layers, dict):
        return layers
    layers = {key: modern(value) for key, value in layers.items()}
    inner, kind = layers.get("config"), str(layers.get("class_name"))
    if kind in ("Functional", "Model") and "module" in layers:
        layers["module"] = "keras.src.models.functional"
    if kind == "Sequential" and isinstance(inner, list):
        layers["config"] = {"name": "sequential", "layers": inner}
    elif isinstance(inner, dict):
        dropped = [key for part, keys in DROPPED.items() if part in kind for key in keys]
        inner = {key: value for key, value in inner.items() if key not in dropped and (key != "time_major" or value)}
        if kind != "InputLayer" and "batch_input_shape" in inner:
            inner["input_shape"] = inner.pop("batch_input_shape")[1:]  # Keras 3 would keep the batch axis
        if isinstance(axis := inner.get("axis"), list) and len(axis) == 1:
            inner["axis"] = axis[0]
        layers["config"] = inner
        if "input_layers" in inner:
            _rewire(inner)
    if kind != "Sequential":  # it lacks a shape in old attention layers; layers are built when called
        layers.pop("build_config", None)
    return layers


def _rewire(inner: dict[str, Any]) -> None:
    """Convert the layer calls of a functional model to the format of Keras 3.

    Keras 3 stores [layer, call, output] as a mapping and counts the calls of a nested model from 0. In Keras 2, call 0
    is the construction of the nested model.
    """
    if not any(isinstance(call, list) for each in inner["layers"] for call in each.get("inbound_nodes", [])):
        return
    kinds = {each["config"].get("name"): each["class_name"] for each in inner["layers"]}
    called = re.findall(r'\["([^"]+)", [1-9]', json.dumps([inner.get("output_layers"), inner["layers"]]))
    counted = {name for name in called if kinds.get(name) in ("Functional", "Model", "Sequential")}

    def tensor(value: Any, outputs: bool = False) -> Any:
        if isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str):
            name, call, output = value[:3]
            if outputs:  # Keras 3 adjusts those of functional models itself
                return [name, call - (name in counted and kinds[name] == "Sequential"), output]
            history = [name, call - (name in counted), output]
            config = {"shape": [], "dtype": "float32", "keras_history": history}
            return {"class_name": "__keras_tensor__", "config": config}
        return [tensor(each, outputs) for each in value] if isinstance(value, list) else value

    for each in inner["layers"]:
        each["inbound_nodes"] = [
            {
                "args": [tensor(call[0] if len(call) == 1 else call)],
                "kwargs": {key: tensor(value) for key, value in (*call[0], {})[3].items()},
            }
            for call in each["inbound_nodes"]
        ]
    inner["output_layers"] = tensor(inner["output_layers"], outputs=True)


def _renumber(group: Any) -> None:
    """Renumber the layers of each kind in a weights file to 0, 1, 2 as in Keras 3; Keras 2.13 leaves gaps."""
    names = [(*re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups("0"), name) for name in group]  # type: ignore[union-attr]
    for _, kind in itertools.groupby(sorted(names, key=lambda each: (each[0], int(each[1]))), lambda each: each[0]):
        for number, (base, _, name) in enumerate(kind):
            if name != (new := f"{base}_{number}" if number else base):
                group.move(name, new)
    for name in group:
        if _is_inside(group, name) and _is_inside(group[name], INNER):
            _renumber(group[name][INNER])


def _is_inside(group: Any, name: str) -> bool:
    """Return whether a group contains this name itself, and not as a link, which may lead to another file."""
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def network(path: Path, folder: Path) -> "keras.Model":
    """Load the network in a Keras file; `folder` receives unpacked files. Keras must be started already.

    Raises an exception of any type if the file is something else. Keras's safe mode refuses files with code.
    """
    import keras

    if path.suffix != ".keras":
        copy = shutil.copyfile(path, folder / "network.h5")
        with h5py.File(copy, "r+") as file:
            if "model_config" not in file.attrs:
                raise ValueError("it contains only weights: load them into their network")
            file.attrs["model_config"] = json.dumps(modern(json.loads(file.attrs["model_config"])))
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
    weights = folder / "model.weights.h5"
    with zipfile.ZipFile(path) as archive:
        archive.extract(weights.name, folder)
        layers = modern(json.loads(archive.read("config.json")))
    with h5py.File(weights, "r+") as file:
        if _is_inside(file, INNER):
            _renumber(file[INNER])
    model: keras.Model = keras.saving.deserialize_keras_object(layers | {"compile_config": None})
    model.load_weights(weights)
    return model


def load(path: Path, side: int) -> "keras.Model":
    """Load a network that maps pictures of this `side` to seven outputs. Keras must be started already.

    Raises UserError if the file is something else, or contains code.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):  # deprecated arguments
            model = network(path, Path(folder))
        takes, gives = model.input_shape, model.output_shape
        if len(takes) != 4 or not {*takes[1:3]} <= {None, side} or takes[3] not in (1, 3) or gives[1:] != (7,):
            raise ValueError(f"its input shape is {takes}, its output shape {gives}")
        model.predict_on_batch(np.zeros((1, side, side, takes[3]), "float32"))
    except Exception as error:  # h5py, Keras and its backends have no common exception for unusable files
        cause = " ".join(str(error).rsplit("Exception encountered: ", 1)[-1].split())[:200]  # Keras puts it last
        raise UserError(
            f"{path} is not a complete Keras model for {side} x {side} pixels ({cause}); save the model with "
            "model.save(...), and set SIDE to its input size"
        ) from None
    return model


def predict(network: "keras.Model", pixels: np.ndarray, side: int, scaling: str) -> np.ndarray:
    """Return the network's probabilities of `pixels`, uint8 [n, 48, 48], normalised to a sum of 1: float32 [n, 7].

    Three channels get the same grey levels. Raises UserError if the outputs are not probabilities.
    """
    from pipeline.training import models

    factor, offset = models.SCALINGS[scaling]
    cv2, parts = detect.opencv(), []
    for start in range(0, len(pixels), BATCH):
        resized = np.stack([cv2.resize(each, (side, side)) for each in pixels[start : start + BATCH]])
        pictures = resized[..., None].astype("float32") * factor + offset
        parts.append(network.predict_on_batch(np.repeat(pictures, network.input_shape[3], axis=3)))
    outputs = np.concatenate(parts)
    if not (outputs.min() >= 0 and outputs.max() <= 1.001):  # also for NaN
        raise UserError(
            f"the outputs are not probabilities: they range from {outputs.min():.3g} to {outputs.max():.3g}; the last "
            "activation must be softmax or sigmoid"
        )
    outputs = np.maximum(outputs, 1e-7)
    return np.asarray(outputs / outputs.sum(axis=1, keepdims=True))


def main(file: str, side: int, scaling: str, classes: str, out: str) -> None:
    """Run the command."""
    indices, path = output_indices(classes), Path(file)
    if out and Path(out).suffix != ".json":
        raise UserError(f"OUT={out}: the scores are written as JSON; name a file that ends in .json")
    if not path.is_file():
        raise UserError(f"{path} is not a file; name a Keras file: make outside FILE=model.keras")
    data = faces.load()
    truth = score.read_truth(data).of(data.test_rows())
    backend.start(machine.choose(config.load().backend))
    backend.prepare(seed=0, precision="float32")
    model = load(path, side)
    predicted = predict(model, data.pixels[data.test_rows()], side, scaling)[:, indices]
    about = {
        "file": path.name, "sha256": submission.sha256(path), "parameters": model.count_params(), "side": side,
        "scaling": scaling, "classes": [CLASSES[indices.index(i)] for i in range(len(indices))], "data": truth.source,
    }  # fmt: skip
    columns = score.judge(predicted, predicted, truth)  # as in submissions/scores.csv
    scores = {key: columns[key] for key in columns if not key.startswith("oof") and not key.endswith("tempered")}
    print(tabulate(scores.items(), (path.name, ""), colalign=("left", "right")))
    print("\nIf the network was trained on test rows, these scores are too high.")
    if truth.source in board.NOTES:
        print(textwrap.fill(board.NOTES[truth.source], 80))
    if out:
        files.write_json(Path(out), about | scores)
        print(f"The scores are also in {out}.")
