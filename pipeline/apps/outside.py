"""Scores of an external network on the test rows, computed like those of the pipeline's submissions.

Reads a complete Keras model (.keras, .h5 or .hdf5; by tf_keras if it is of Keras 1 or 2), the data, and the backend
from params.yaml. Writes the scores as JSON if a path is given. No code in the file is run: models with Lambda layers
are refused. The user states the picture side, scaling and class order; none of them is inferred.
"""

import json
import multiprocessing
import re
import resource
import textwrap
import warnings
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

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

BATCH = 64
LARGEST = 2**31  # bytes of a file
MEMORY = 4 * 2**30  # bytes for a network: even a file of a few kB can request any amount


def output_indices(text: str) -> list[int]:
    """Return the output index of each competition class; `text` names the outputs in order, "" is the competition's."""
    names = re.split(r"[\s,]+", text.strip()) if text.strip() else list(CLASSES)
    if sorted(names) != sorted(CLASSES):
        raise UserError(f"CLASSES={text!r}: name each of {', '.join(CLASSES)} once, in the order of the outputs")
    return [names.index(name) for name in CLASSES]


def bound(more: int) -> None:
    """Limit this process to `more` bytes of memory above its present use (on Linux only)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + more
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def refuse_code(layers: Any, known: set[str] | None = None) -> None:
    """Raise ValueError if a configuration of layers contains code, or names anything outside Keras.

    Parameters
    ----------
    known : the only classes that are allowed; None for all. Some undocumented layers of Keras 2 run any operation of
        TensorFlow, for example one that writes files.
    """
    if isinstance(layers, dict):
        name, module = layers.get("class_name"), layers.get("module")
        if name == "Lambda":
            raise ValueError("it has a Lambda layer; code in files is never run")
        if name and known and name not in known:
            raise ValueError(f"{name!r} is not a class of Keras")
        if module and module.split(".")[0] not in ("keras", "tf_keras", "builtins"):
            raise ValueError(f"it uses {module!r}; only classes of Keras are loaded")
    for each in layers.values() if isinstance(layers, dict) else layers if isinstance(layers, list) else ():
        refuse_code(each, known)


def network(path: Path) -> Any:
    """Load the network in a Keras file: keras.Model, or tf_keras.Model of a file of Keras 1 or 2.

    Keras must be started already. Raises an exception of any type if the file is something else, contains code, or is
    too large.
    """
    if path.is_dir():
        raise ValueError("a folder, such as a SavedModel, can contain code: save the model as .keras")
    if path.suffix == ".json":
        raise ValueError("JSON contains no weights: load them into the network, and save the model")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            if max(each.file_size for each in archive.infolist()) > LARGEST:
                raise ValueError(f"its weights are larger than {LARGEST:,} bytes")
            layers, about = (json.loads(archive.read(name)) for name in ("config.json", "metadata.json"))
            version = about["keras_version"]
    else:
        with h5py.File(path) as file:
            if "model_config" not in file.attrs:
                raise ValueError("it contains only weights: load them into their network, and save the model")
            layers, version = json.loads(file.attrs["model_config"]), file.attrs.get("keras_version", "1")
    if str(version).startswith("3."):
        import keras as library

        refuse_code(layers)
    else:
        import tf_keras as library

        parts = (library.layers, library.models, library.initializers, library.regularizers, library.constraints)
        refuse_code(
            layers, {"Functional", "Model", "function", "__tuple__", *(name for part in parts for name in dir(part))}
        )
    return library.saving.load_model(path, compile=False, safe_mode=True)


def load(path: Path, side: int) -> Any:
    """Load a network that maps pictures of this `side` to seven outputs. Keras must be started already.

    Raises UserError if the file is something else, or contains code.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # deprecated arguments
            model = network(path)
        takes, gives = model.input_shape, model.output_shape
        if len(takes) != 4 or not {*takes[1:3]} <= {None, side} or takes[3] not in (1, 3) or gives[1:] != (7,):
            raise ValueError(f"its input shape is {takes}, its output shape {gives}")
        model.predict_on_batch(np.zeros((1, side, side, takes[3]), "float32"))
    except Exception as error:  # h5py, Keras and its backends have no common exception for unusable files
        raise UserError(
            f"{path} is not a complete Keras model for {side} x {side} pixels ({_cause(error)}); save the model with "
            "model.save(...), and set SIDE to its input size"
        ) from None
    return model


def _cause(error: Exception) -> str:
    """Return the cause of an error in one line. Keras puts it last; each backend words lack of memory differently."""
    text = " ".join(str(error).rsplit("Exception encountered: ", 1)[-1].split())
    if isinstance(error, MemoryError) or re.search("OOM|allocat|memory", text, re.IGNORECASE):
        return f"it needs more than {MEMORY / 2**30:.0f} GiB of memory"
    return text[:200]


def predict(network: Any, pixels: np.ndarray, side: int, scaling: str) -> np.ndarray:
    """Return the network's probabilities of `pixels`, uint8 [n, 48, 48], normalised to a sum of 1: float32 [n, 7].

    Three channels get the same grey levels. Raises UserError if the outputs are not probabilities.
    """
    from pipeline.training import models

    factor, offset = models.SCALINGS[scaling]
    cv2, parts = detect.opencv(), []
    for start in range(0, len(pixels), BATCH):
        resized = np.stack([cv2.resize(each, (side, side)) for each in pixels[start : start + BATCH]])
        pictures = resized[..., None].astype("float32") * factor + offset
        try:
            parts.append(network.predict_on_batch(np.repeat(pictures, network.input_shape[3], axis=3)))
        except Exception as error:  # the backends have no common exception for lack of memory
            raise UserError(f"the network cannot predict {len(pictures)} pictures ({_cause(error)})") from None
    outputs = np.concatenate(parts)
    if not (outputs.min() >= 0 and outputs.max() <= 1.001):  # also for NaN
        raise UserError(
            f"the outputs are not probabilities: they range from {outputs.min():.3g} to {outputs.max():.3g}; the last "
            "activation must be softmax or sigmoid"
        )
    outputs = np.maximum(outputs, 1e-7)
    probabilities: np.ndarray = outputs / outputs.sum(axis=1, keepdims=True)
    return probabilities


def probabilities(path: Path, side: int, scaling: str) -> tuple[np.ndarray, int]:
    """Return the probabilities of the test rows, float32 [n, 7], by the network in a file, and its parameter count.

    Raises UserError if the file contains no such network.
    """
    data = faces.load()
    model = load(path, side)
    return predict(model, data.pixels[data.test_rows()], side, scaling), model.count_params()


def _answer(pipe: Connection, path: Path, side: int, scaling: str, chosen: str) -> None:
    """Send the result of `probabilities`, or its UserError, from a process with limited memory."""
    backend.start(chosen)
    backend.prepare(seed=0, precision="float32")
    bound(MEMORY)
    try:
        pipe.send(probabilities(path, side, scaling))
    except UserError as error:
        pipe.send(error)


def predict_in_process(path: Path, side: int, scaling: str, chosen: str) -> tuple[np.ndarray, int]:
    """Run `probabilities` in a separate process: a file can request any amount of memory, or crash its reader.

    Parameters
    ----------
    chosen : the backend.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=_answer, args=(sender, path, side, scaling, chosen), daemon=True).start()
    sender.close()  # so that recv fails when the process ends
    try:
        result: tuple[np.ndarray, int] | UserError = receiver.recv()
    except EOFError:
        raise UserError(f"{path} crashed the process that read it: it is damaged, or needs too much memory") from None
    if isinstance(result, UserError):
        raise result
    return result


def main(file: str, side: int, scaling: str, classes: str, out: str) -> None:
    """Run the command."""
    if not file:
        raise UserError("FILE is missing; name a Keras file: make outside FILE=model.keras")
    if out and Path(out).suffix != ".json":
        raise UserError(f"OUT={out}: the scores are written as JSON; name a file that ends in .json")
    indices, path = output_indices(classes), Path(file)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    truth = score.read_truth(faces.load(), np.zeros(0, "int64"))
    if (truth.labels < 0).any():
        raise UserError(f"{solution.PATH}: labels of test rows are missing, so no scores can be computed")
    predicted, parameters = predict_in_process(path, side, scaling, machine.choose(config.load().backend))
    predicted = predicted[:, indices]
    about = {
        "file": path.name, "sha256": submission.sha256(path), "parameters": parameters, "side": side,
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
