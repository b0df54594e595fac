"""Score a network that was trained elsewhere on the test rows, as the pipeline's own submissions are scored.

Reads a whole Keras model (.keras, or .h5 or .hdf5, of Keras 2 too), the data and params.yaml (its backend). Writes the
scores as JSON where it is told to. No code in the file is run: a model with Lambda layers is refused. Nothing is
guessed: pixels across, scaling and the order of the classes are the user's to say.
"""

import json
import re
import shutil
import tempfile
import textwrap
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from tabulate import tabulate

from pipeline import config, files
from pipeline.apps import detect
from pipeline.competition import CLASSES
from pipeline.data import faces, solution
from pipeline.errors import UserError
from pipeline.evaluation import board, score, submission
from pipeline.training import backend, machine

if TYPE_CHECKING:
    import keras

BATCH = 128


def order(text: str) -> list[int]:
    """Where a file that gives its classes in the order of `text` has each of the competition's; "" is that order."""
    names = re.split(r"[\s,]+", text.strip()) if text.strip() else list(CLASSES)
    if sorted(names) != sorted(CLASSES):
        raise UserError(f"CLASSES={text!r} must name each of {', '.join(CLASSES)} once, in the order of the outputs")
    return [names.index(name) for name in CLASSES]


def modern(layers: Any) -> Any:
    """A configuration that old Keras 2 wrote, as Keras 3 can read it (which takes a batch's shape for a picture's)."""
    if isinstance(layers, list):
        return [modern(each) for each in layers]
    if not isinstance(layers, dict):
        return layers
    layers = {key: modern(value) for key, value in layers.items()}
    inner, kind = layers.get("config"), layers.get("class_name")
    if kind == "Sequential" and isinstance(inner, list):
        layers["config"] = {"name": "sequential", "layers": inner}
    elif isinstance(inner, dict) and kind != "InputLayer" and "batch_input_shape" in inner:
        inner["input_shape"] = inner.pop("batch_input_shape")[1:]
    return layers


def configuration(path: Path) -> Any:
    """What a Keras file says of its layers. Raises ValueError where they hold code."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("config.json"))
    else:
        with h5py.File(path) as file:
            found = json.loads(file.attrs["model_config"])
    if '"class_name": "Lambda"' in json.dumps(found):
        raise ValueError("it has a Lambda layer, which is code, and no code in a file is run")
    return found


def load(path: Path, side: int) -> "keras.Model":
    """The network in a file, from pictures of this `side` to seven outputs. Keras must run already.

    Raises UserError where it is something else, or holds code.
    """
    import keras

    try:
        layers = configuration(path)
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(path, Path(folder) / path.name)
            if path.suffix != ".keras":
                with h5py.File(copy, "r+") as file:
                    file.attrs["model_config"] = json.dumps(modern(layers))
            network: keras.Model = keras.saving.load_model(copy, compile=False, safe_mode=True)
        takes, gives = network.input_shape, network.output_shape
        if len(takes) != 4 or not {*takes[1:3]} <= {None, side} or takes[3] not in (1, 3) or gives[1:] != (7,):
            raise ValueError(f"it takes {takes} and gives {gives}")
        network.predict_on_batch(np.zeros((1, side, side, takes[3]), "float32"))
    except Exception as trouble:  # h5py, Keras and its backends have no error of their own for a file they cannot use
        cause = " ".join(str(trouble).split())[:200]
        raise UserError(
            f"{path} is no whole Keras model for {side} x {side} pixels ({cause}); save it by model.save(...), and "
            "name the SIDE that it takes"
        ) from None
    return network


def ask(network: "keras.Model", pixels: np.ndarray, side: int, scaling: str) -> np.ndarray:
    """The network's probabilities of `pixels`, uint8 [n, 48, 48], made to sum to 1: float32 [n, 7].

    Three channels get the same grey levels. Raises UserError where the outputs are no probabilities.
    """
    from pipeline.training import models

    factor, offset = models.SCALINGS[scaling]
    cv2, parts = detect.opencv(), []
    for start in range(0, len(pixels), BATCH):
        resized = np.stack([cv2.resize(each, (side, side)) for each in pixels[start : start + BATCH]])
        pictures = resized[..., None].astype("float32") * factor + offset
        parts.append(network.predict_on_batch(np.repeat(pictures, network.input_shape[3], axis=3)))
    outputs = np.concatenate(parts)
    if not (outputs.min() >= 0 and outputs.max() <= 1.001):  # NaN is neither
        raise UserError(
            f"the outputs go from {outputs.min():.3g} to {outputs.max():.3g}, so they are no probabilities; let the "
            "network end in softmax or sigmoid"
        )
    outputs = np.maximum(outputs, 1e-7)
    probabilities: np.ndarray = outputs / outputs.sum(axis=1, keepdims=True)
    return probabilities


def main(file: str, side: int, scaling: str, classes: str, out: str) -> None:
    """Run the command."""
    places, path, data = order(classes), Path(file), faces.load()
    truth = score.read_truth(data, np.zeros(0, "int64"))
    if (truth.labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, so nothing can be scored on them")
    backend.start(machine.choose(config.load().backend))
    backend.prepare(seed=0, precision="float32")
    network = load(path, side)
    probabilities = ask(network, data.pixels[data.test_rows()], side, scaling)[:, places]
    about = {
        "file": path.name, "sha256": submission.sha256(path), "parameters": network.count_params(), "side": side,
        "scaling": scaling, "classes": [CLASSES[places.index(i)] for i in range(len(places))], "data": truth.source,
    }  # fmt: skip
    columns = score.judge(probabilities, probabilities, truth)  # as in submissions/scores.csv
    found = {key: columns[key] for key in columns if not key.startswith("oof") and not key.endswith("tempered")}
    print(tabulate(found.items(), (path.name, ""), colalign=("left", "right")))
    print("\nIf test rows were in its training, which is not known here, these figures are too high.")
    if truth.source in board.NOTES:
        print(textwrap.fill(board.NOTES[truth.source], 80))
    if out:
        files.write_json(Path(out), about | found)
        print(f"They stand in {out} too.")
