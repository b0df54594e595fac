"""Score a network that was trained elsewhere on the test rows, as the pipeline's own submissions are scored.

Reads a whole Keras model (.keras, or .h5 or .hdf5, of Keras 2 too), the data and params.yaml (its backend). Writes the
scores as JSON where it is told to. No code in the file is run: a model with Lambda layers is refused. Nothing is
guessed: pixels across, scaling and the order of the classes are the user's to say.
"""

import itertools
import json
import multiprocessing
import re
import resource
import shutil
import tempfile
import textwrap
import warnings
import zipfile
from multiprocessing.connection import Connection
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

BATCH = 64
INNER = "_layer_checkpoint_dependencies"  # where Keras 2.13 keeps the weights of a model's layers
LARGEST = 2**31  # bytes of a file
MEMORY = 4 * 2**30  # bytes that a network may take, as a file of some kB can ask for any number
# Keys of a layer that Keras 3 does not know any more, by what the layer's name holds.
KERNEL = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
DROPPED = {
    "": ("rng_type", "noise_shape", "query_shape", "key_shape", "value_shape", "softmax_robust_masking"),
    "SeparableConv": KERNEL, "DepthwiseConv": KERNEL, "Transpose": ("groups",), "SpatialDropout": ("trainable",),
}  # fmt: skip


def order(text: str) -> list[int]:
    """Where a file that gives its classes in the order of `text` has each of the competition's; "" is that order."""
    names = re.split(r"[\s,]+", text.strip()) if text.strip() else list(CLASSES)
    if sorted(names) != sorted(CLASSES):
        raise UserError(f"CLASSES={text!r} must name each of {', '.join(CLASSES)} once, in the order of the outputs")
    return [names.index(name) for name in CLASSES]


def modern(layers: Any) -> Any:
    """A configuration that Keras 2 wrote, as Keras 3 can read it.

    What Keras 3 dropped means nothing to a prediction. But time_major, where it is true, stays and is refused.
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
        gone = [key for ending, keys in DROPPED.items() if ending in kind for key in keys]
        inner = {key: value for key, value in inner.items() if key not in gone and (key != "time_major" or value)}
        if kind != "InputLayer" and "batch_input_shape" in inner:
            inner["input_shape"] = inner.pop("batch_input_shape")[1:]  # Keras 3 takes a batch's for a picture's
        if isinstance(axis := inner.get("axis"), list) and len(axis) == 1:
            inner["axis"] = axis[0]
        layers["config"] = inner
        if "input_layers" in inner:
            _rewire(inner)
    if kind != "Sequential":
        layers.pop(
            "build_config", None
        )  # of old attention layers it lacks a shape; and a layer that is called is built
    return layers


def _rewire(inner: dict[str, Any]) -> None:
    """Let the layers of a functional model call each other as in Keras 3.

    There [layer, call, output] is a mapping, and the calls of a model count from 0; in Keras 2 its own making is its
    first call.
    """
    if not any(isinstance(call, list) for each in inner["layers"] for call in each.get("inbound_nodes", [])):
        return
    kinds = {each["config"].get("name"): each["class_name"] for each in inner["layers"]}
    called = re.findall(r'\["([^"]+)", [1-9]', json.dumps([inner.get("output_layers"), inner["layers"]]))
    counted = {name for name in called if kinds.get(name) in ("Functional", "Model", "Sequential")}

    def tensor(found: Any, outputs: bool = False) -> Any:
        if isinstance(found, list) and len(found) in (3, 4) and isinstance(found[0], str):
            name, call, output = found[:3]
            if outputs:  # Keras 3 itself counts those of a functional model
                return [name, call - (name in counted and kinds[name] == "Sequential"), output]
            history = [name, call - (name in counted), output]
            config = {"shape": [], "dtype": "float32", "keras_history": history}
            return {"class_name": "__keras_tensor__", "config": config}
        return [tensor(each, outputs) for each in found] if isinstance(found, list) else found

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
    """Number the layers of each kind in a file of weights 0, 1, 2, as Keras 3 does; Keras 2.13 leaves numbers out."""
    names = [(*re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups("0"), name) for name in group]  # type: ignore[union-attr]
    for _, kind in itertools.groupby(sorted(names, key=lambda each: (each[0], int(each[1]))), lambda each: each[0]):
        for number, (base, _, name) in enumerate(kind):
            if name != (new := f"{base}_{number}" if number else base):
                group.move(name, new)
    for layer in group.values():
        if INNER in layer:
            _renumber(layer[INNER])


def bound(more: int) -> None:
    """Let this process take at most `more` bytes of memory than it has, where the system can hold it to that."""
    table = Path("/proc/self/statm")
    if table.exists():
        most = int(table.read_text().split()[0]) * resource.getpagesize() + more
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _layers(text: Any) -> Any:
    """What a configuration says of layers, as Keras 3 reads it. Raises ValueError where it holds code."""
    layers = json.loads(text)
    if '"class_name": "Lambda"' in json.dumps(layers):
        raise ValueError("it has a Lambda layer, which is code, and no code in a file is run")
    return modern(layers)


def network(path: Path, folder: Path) -> "keras.Model":
    """The network in a Keras file; what is unpacked is put into `folder`. Keras must run already.

    Raises an error of any kind where it is something else, holds code, or is too large for what it is.
    """
    import keras

    if path.is_dir():
        raise ValueError("a folder, as of a SavedModel, holds code: load it where it was made")
    if path.suffix == ".json":
        raise ValueError("JSON is a network without weights: load both where they were made")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it takes more than {LARGEST:,} bytes")
    if path.suffix != ".keras":
        copy = shutil.copyfile(path, folder / "network.h5")
        with h5py.File(copy, "r+") as file:
            if "model_config" not in file.attrs:
                raise ValueError("it has weights alone: load them into their network where they were made")
            file.attrs["model_config"] = json.dumps(_layers(file.attrs["model_config"]))
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
    weights = folder / "model.weights.h5"
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(weights.name).file_size > LARGEST:
            raise ValueError(f"its weights take more than {LARGEST:,} bytes")
        archive.extract(weights.name, folder)
        with h5py.File(weights, "r+") as file:
            layers = _layers(archive.read("config.json"))
            if INNER in file:
                _renumber(file[INNER])
    found: keras.Model = keras.saving.deserialize_keras_object(layers | {"compile_config": None})
    found.load_weights(weights)
    return found


def load(path: Path, side: int) -> "keras.Model":
    """The network in a file, from pictures of this `side` to seven outputs. Keras must run already.

    Raises UserError where it is something else, or holds code.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):  # of old arguments
            found = network(path, Path(folder))
        takes, gives = found.input_shape, found.output_shape
        if len(takes) != 4 or not {*takes[1:3]} <= {None, side} or takes[3] not in (1, 3) or gives[1:] != (7,):
            raise ValueError(f"it takes {takes} and gives {gives}")
        found.predict_on_batch(np.zeros((1, side, side, takes[3]), "float32"))
    except Exception as trouble:  # h5py, Keras and its backends have no error of their own for a file they cannot use
        raise UserError(
            f"{path} is no whole Keras model for {side} x {side} pixels ({_cause(trouble)}); save it by "
            "model.save(...), and name the SIDE that it takes"
        ) from None
    return found


def _cause(trouble: Exception) -> str:
    """What an error says, in one line. Keras puts the cause last; the backends each say in their way what is full."""
    text = " ".join(str(trouble).rsplit("Exception encountered: ", 1)[-1].split())
    if isinstance(trouble, MemoryError) or re.search("OOM|allocat|memory", text, re.IGNORECASE):
        return f"it takes more than {MEMORY / 2**30:.0f} GiB of memory"
    return text[:200]


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
        try:
            parts.append(network.predict_on_batch(np.repeat(pictures, network.input_shape[3], axis=3)))
        except Exception as trouble:  # the backends have no error of their own for too little memory
            raise UserError(f"the network cannot be asked about {len(pictures)} pictures ({_cause(trouble)})") from None
    outputs = np.concatenate(parts)
    if not (outputs.min() >= 0 and outputs.max() <= 1.001):  # NaN is neither
        raise UserError(
            f"the outputs go from {outputs.min():.3g} to {outputs.max():.3g}, so they are no probabilities; let the "
            "network end in softmax or sigmoid"
        )
    outputs = np.maximum(outputs, 1e-7)
    probabilities: np.ndarray = outputs / outputs.sum(axis=1, keepdims=True)
    return probabilities


def probabilities(path: Path, side: int, scaling: str) -> tuple[np.ndarray, int]:
    """What the network in a file makes of the test rows, float32 [n, 7], and how many parameters it has.

    Raises UserError where it is no such network.
    """
    data = faces.load()
    found = load(path, side)
    return ask(found, data.pixels[data.test_rows()], side, scaling), found.count_params()


def _answer(line: Connection, path: Path, side: int, scaling: str, chosen: str) -> None:
    """Send `probabilities`, or the UserError, from a process with an end to its memory."""
    backend.start(chosen)
    backend.prepare(seed=0, precision="float32")
    bound(MEMORY)
    try:
        line.send(probabilities(path, side, scaling))
    except UserError as refusal:
        line.send(refusal)


def asked(path: Path, side: int, scaling: str, chosen: str) -> tuple[np.ndarray, int]:
    """As `probabilities`, in a process of its own: a file can ask for any memory, and can crash what reads it.

    Parameters
    ----------
    chosen : the backend.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    context.Process(target=_answer, args=(theirs, path, side, scaling, chosen), daemon=True).start()
    theirs.close()  # so that the process's end ends the line
    try:
        answer: tuple[np.ndarray, int] | UserError = ours.recv()
    except EOFError:
        raise UserError(f"{path} ends the process that reads it: it is damaged, or takes too much memory") from None
    if isinstance(answer, UserError):
        raise answer
    return answer


def main(file: str, side: int, scaling: str, classes: str, out: str) -> None:
    """Run the command."""
    if not file:
        raise UserError("name a Keras file: make outside FILE=model.keras")
    if out and Path(out).suffix != ".json":
        raise UserError(f"OUT={out}: the scores are written as JSON, so name a file that ends in .json")
    places, path = order(classes), Path(file)
    truth = score.read_truth(faces.load(), np.zeros(0, "int64"))
    if (truth.labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, so nothing can be scored on them")
    predicted, parameters = asked(path, side, scaling, machine.choose(config.load().backend))
    predicted = predicted[:, places]
    about = {
        "file": path.name, "sha256": submission.sha256(path), "parameters": parameters, "side": side,
        "scaling": scaling, "classes": [CLASSES[places.index(i)] for i in range(len(places))], "data": truth.source,
    }  # fmt: skip
    columns = score.judge(predicted, predicted, truth)  # as in submissions/scores.csv
    found = {key: columns[key] for key in columns if not key.startswith("oof") and not key.endswith("tempered")}
    print(tabulate(found.items(), (path.name, ""), colalign=("left", "right")))
    print("\nIf test rows were in its training, which is not known here, these figures are too high.")
    if truth.source in board.NOTES:
        print(textwrap.fill(board.NOTES[truth.source], 80))
    if out:
        files.write_json(Path(out), about | found)
        print(f"They stand in {out} too.")
