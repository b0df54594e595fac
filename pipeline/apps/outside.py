"""Score a network that was trained elsewhere on the test rows, as the pipeline's own submissions are scored.

Reads a whole Keras model (.keras, or .h5 or .hdf5, of Keras 2 too), the data and params.yaml (its backend). Writes the
scores as JSON where it is told to. No code in the file is run: a model with Lambda layers is refused. Faces are resized
as cv2.resize does it. Nothing is guessed: pixels across, scaling and the order of the classes are the user's to say.
"""

import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from tabulate import tabulate

from pipeline import config, files
from pipeline.competition import CLASSES, PRIVATE, PUBLIC
from pipeline.data import faces, solution
from pipeline.errors import UserError
from pipeline.evaluation import board, metrics, score, submission
from pipeline.evaluation.score import Truth
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.training import backend, machine

if TYPE_CHECKING:
    import keras

BATCH = 128
STEPS = 2048  # OpenCV's weights are whole parts of this


def resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """What cv2.resize makes of each picture by default (INTER_LINEAR), to the bit.

    Pixels have their middles at halves, and weights and sums are whole numbers; plain rounding would leave one pixel in
    eight a grey level off.

    Parameters
    ----------
    pixels : uint8 [n, s, s].

    Returns
    -------
    uint8 [n, side, side]
    """
    source = pixels.shape[1]
    place = ((np.arange(side) + 0.5) * (1 / (side / source)) - 0.5).astype("float32")
    part = place - np.floor(place)
    low, high = (np.clip(np.floor(place).astype(int) + step, 0, source - 1) for step in (0, 1))
    one, other = (np.rint(share * STEPS).astype("int32") for share in (1 - part, part))
    across = (pixels[:, :, low] * one + pixels[:, :, high] * other) >> 4
    both = (across[:, low] * one[:, None] >> 16) + (across[:, high] * other[:, None] >> 16)
    resized: np.ndarray = ((both + 2) >> 2).astype("uint8")
    return resized


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
    """What a Keras file says of its layers. Raises UserError where it is something else, or holds code."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; name a whole Keras model: make outside FILE=...")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(f"{path} is no Keras file by its name; they end in .keras, .h5 or .hdf5")
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                found = json.loads(archive.read("config.json"))
        else:
            with h5py.File(path) as file:
                found = json.loads(file.attrs["model_config"])
    except KeyError:
        raise UserError(f"{path} holds no network, but weights alone perhaps; save it whole: model.save(...)") from None
    except (*files.DAMAGE, RuntimeError) as trouble:
        raise UserError(f"{path} is not a Keras file ({trouble})") from None
    if '"class_name": "Lambda"' in json.dumps(found):
        raise UserError(f"{path} has a Lambda layer, which is code, and no code in a file is run; build it without")
    return found


def load(path: Path, side: int) -> "keras.Model":
    """The network in a file, from pictures of this `side` to seven outputs. Keras must run already.

    Raises UserError where it is something else, or holds code.
    """
    import keras

    layers = configuration(path)
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(path, Path(folder) / path.name)
            if path.suffix != ".keras":
                with h5py.File(copy, "r+") as file:
                    file.attrs["model_config"] = json.dumps(modern(layers))
            network: keras.Model = keras.saving.load_model(copy, compile=False, safe_mode=True)
        takes, gives = network.input_shape, network.output_shape
    except Exception as trouble:  # Keras has no error of its own for a file that it cannot build
        raise UserError(f"Keras cannot build the network in {path} ({_first(trouble)})") from None
    if len(takes) != 4 or takes[0] or not {*takes[1:3]} <= {None, side} or takes[3] not in (1, 3):
        raise UserError(
            f"{path} takes {takes}, not (None, {side}, {side}, 1) or three channels; name the SIDE it takes"
        )
    if gives != (None, len(CLASSES)):
        raise UserError(f"{path} gives {gives}, not (None, {len(CLASSES)}), a probability for each class")
    try:
        network.predict_on_batch(np.zeros((1, side, side, takes[3]), "float32"))
    except Exception as trouble:  # every library has its own
        raise UserError(
            f"{path} cannot take {side} x {side} pixels ({_first(trouble)}); name the SIDE it takes"
        ) from None
    return network


def _first(trouble: Exception) -> str:
    return str(trouble).strip().split("\n")[0][:200]


def ask(network: "keras.Model", pixels: np.ndarray, side: int, scaling: str) -> np.ndarray:
    """The network's probabilities of `pixels`, uint8 [n, 48, 48], made to sum to 1: float32 [n, 7].

    Three channels get the same grey levels. Raises UserError where the outputs are no probabilities.
    """
    from pipeline.training import models

    factor, offset = models.SCALINGS[scaling]
    parts = []
    for start in range(0, len(pixels), BATCH):
        part = np.resize(pixels[start : start + BATCH], (BATCH, *pixels.shape[1:]))  # whole batches: one program
        pictures = resize(part, side)[..., None].astype("float32") * factor + offset
        parts.append(network.predict_on_batch(np.repeat(pictures, network.input_shape[3], axis=3)))
    outputs = np.concatenate(parts)[: len(pixels)]
    if not (outputs.min() >= 0 and outputs.max() <= 1.001):  # NaN is neither
        raise UserError(
            f"the outputs go from {outputs.min():.3g} to {outputs.max():.3g}, so they are no probabilities; let the "
            "network end in softmax or sigmoid"
        )
    outputs = np.maximum(outputs, 1e-7)
    probabilities: np.ndarray = outputs / outputs.sum(axis=1, keepdims=True)
    return probabilities


def judge(probabilities: np.ndarray, truth: Truth) -> dict[str, Any]:
    """The columns of submissions/scores.csv that test rows alone decide; how many are right, and recall by class.

    Parameters
    ----------
    probabilities : [k, 7], of the test rows, as is `truth`.
    """
    columns = score.judge(probabilities, probabilities, truth)
    found: dict[str, Any] = {
        key: value for key, value in columns.items() if not key.startswith("oof") and not key.endswith("tempered")
    }
    for split, name in ((PUBLIC, "public"), (PRIVATE, "private")):
        mine = truth.usage == split
        labels = truth.labels[mine]
        found[f"{name}_right"] = int(metrics.right(probabilities[mine], labels).sum())
        found[f"{name}_rows"] = len(labels)
        classes = metrics.by_class(probabilities[mine], labels) if len(labels) else {}  # folders may lack PublicTest
        found[f"{name}_recall"] = {label: classes[label]["recall"] if classes else UNKNOWN for label in CLASSES}
    return found


def report(found: dict[str, Any]) -> str:
    """What `judge` found, as tables of text."""
    lines = []
    for title, key in (("PublicTest", "public"), ("PrivateTest", "private"),
                       ("its rows without a duplicate", "private_no_duplicate"),
                       ("nor a near duplicate", "private_no_near_duplicate")):  # fmt: skip
        interval = f"{percent(found[f'{key}_low'])} to {percent(found[f'{key}_high'])}"
        right, rows = (found.get(f"{key}_{what}", "") for what in ("right", "rows"))
        lines.append((title, right, rows, percent(found.get(f"{key}_accuracy", found.get(key))), interval))
    more = ("private_macro_f1", "private_top_2", "private_log_loss", "private_brier", "private_calibration_error")
    recalls = [
        (name, *(percent(found[f"{split}_recall"][name]) for split in ("public", "private"))) for name in CLASSES
    ]
    options: dict[str, Any] = {"disable_numparse": True}
    return "\n\n".join([
        tabulate(lines, ("", "right", "of", "accuracy", "95 % interval"), colalign=("left", *["right"] * 4), **options),
        tabulate(
            [(*(f"{found[key]:.4f}" for key in more), found["rank_2013"])],
            ("macro-F1", "top 2", "log-loss", "Brier score", "calibration error", "rank in 2013"),
            colalign=["right"] * 6, **options,
        ),
        tabulate(recalls, ("recall", "PublicTest", "PrivateTest"), colalign=("left", "right", "right"), **options),
    ])  # fmt: skip


def main(file: str, side: int, scaling: str, classes: str, out: str) -> None:
    """Run the command."""
    if out and Path(out).suffix != ".json":
        raise UserError(f"OUT={out}: must end in .json")
    places, path, data = order(classes), Path(file), faces.load()
    truth = score.read_truth(data, np.zeros(0, "int64"))
    if (truth.labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, so nothing can be scored on them")
    backend.start(machine.choose(config.load().backend))
    backend.prepare(seed=0, precision="float32")
    network = load(path, side)
    found = judge(ask(network, data.pixels[data.test_rows()], side, scaling)[:, places], truth)
    print(f"{path.name}: {network.count_params():,} parameters\n\n{report(found)}\n")
    print("What it was trained on is not known here: if test rows were among it, these figures are too high.")
    if truth.source in board.NOTES:
        print(board.NOTES[truth.source])
    if out:
        about = {
            "file": path.name, "sha256": submission.sha256(path), "parameters": network.count_params(), "side": side,
            "scaling": scaling, "classes": [CLASSES[places.index(i)] for i in range(len(places))],
            "data": truth.source, **found,
        }  # fmt: skip
        files.write_json(Path(out), about)
        print(f"They stand in {out} too.")
