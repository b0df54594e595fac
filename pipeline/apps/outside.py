"""Score a network that was trained elsewhere on the test rows, as the pipeline's own submissions are scored.

Outside the graph. Reads FILE (a whole Keras model: .keras, or .h5 or .hdf5, of Keras 2 too), data/faces.npz,
data/solution.csv, data/duplicates.csv, data/raw/PROVENANCE.json and params.yaml (its backend). Writes nothing but OUT, JSON,
where that is given. No code in FILE is run: a model with Lambda layers is refused.

SIDE is the pixels across that the network takes; faces are resized as cv2.resize does it. SCALING is what it takes grey
levels as: unit (0 to 1), symmetric (-1 to 1) or raw (0 to 255). CLASSES names its outputs in their order; without it,
that is the competition's: angry,disgust,fear,happy,sad,surprise,neutral. Nothing is guessed.
"""

import json
import re
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
from tabulate import tabulate

from pipeline import files, params
from pipeline.competition import CLASSES, PRIVATE, PUBLIC, TRAINING
from pipeline.data import faces, provenance, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, metrics, score, submission
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


def modern(config: Any) -> Any:
    """A configuration that old Keras 2 wrote, as Keras 3 can read it (which takes a batch's shape for a picture's)."""
    if isinstance(config, list):
        return [modern(each) for each in config]
    if not isinstance(config, dict):
        return config
    config = {key: modern(value) for key, value in config.items()}
    inner, kind = config.get("config"), config.get("class_name")
    if kind == "Sequential" and isinstance(inner, list):
        config["config"] = {"name": "sequential", "layers": inner}
    elif isinstance(inner, dict) and kind != "InputLayer" and "batch_input_shape" in inner:
        inner["input_shape"] = inner.pop("batch_input_shape")[1:]
    return config


def load(path: Path, side: int) -> "keras.Model":
    """The network in a file, from pictures of this `side` to seven outputs. Keras must run already.

    Raises UserError where it is something else, or holds code.
    """
    import keras

    if not path.is_file():
        raise UserError(f"there is no file {path}; name a whole Keras model: make outside FILE=...")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(f"{path} is no Keras file by its name; they end in .keras, .h5 or .hdf5")
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
        else:
            with h5py.File(path) as file:
                config = json.loads(file.attrs["model_config"])
    except KeyError:
        raise UserError(f"{path} holds no network, but weights alone perhaps; save it whole: model.save(...)") from None
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as trouble:
        raise UserError(f"{path} is not a Keras file ({trouble})") from None
    if '"class_name": "Lambda"' in json.dumps(config):
        raise UserError(f"{path} has a Lambda layer, which is code, and no code in a file is run; build it without")
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(path, Path(folder) / path.name)
            if path.suffix != ".keras":
                with h5py.File(copy, "r+") as file:
                    file.attrs["model_config"] = json.dumps(modern(config))
            network: keras.Model = keras.saving.load_model(copy, compile=False, safe_mode=True)
        takes, gives = network.input_shape, network.output_shape
    except Exception as trouble:  # Keras has no error of its own for a file that it cannot build
        reason = str(trouble).strip().split("\n")[0][:200]
        raise UserError(f"Keras cannot build the network in {path} ({reason})") from None
    if len(takes) != 4 or takes[0] or not {*takes[1:3]} <= {None, side} or takes[3] not in (1, 3):
        raise UserError(
            f"{path} takes {takes}, not (None, {side}, {side}, 1) or three channels; name the SIDE it takes"
        )
    if gives != (None, len(CLASSES)):
        raise UserError(f"{path} gives {gives}, not (None, {len(CLASSES)}), a probability for each class")
    try:
        network.predict_on_batch(np.zeros((1, side, side, takes[3]), "float32"))
    except Exception as trouble:  # every library has its own
        reason = str(trouble).strip().split("\n")[0][:200]
        raise UserError(f"{path} cannot take {side} x {side} pixels ({reason}); name the SIDE it takes") from None
    return network


def ask(network: "keras.Model", pixels: np.ndarray, side: int, scaling: str) -> np.ndarray:
    """The network's probabilities of `pixels`, uint8 [n, 48, 48], made to sum to 1: float32 [n, 7].

    Three channels get the same grey levels. Raises UserError where the outputs are no probabilities.
    """
    from pipeline.training import loop

    factor, offset = loop.SCALINGS[scaling]
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


def judge(probabilities: np.ndarray, data: faces.Faces, truth: np.ndarray, duplicates: pd.DataFrame) -> dict[str, Any]:
    """The columns of submissions/scores.csv that test rows alone decide; right answers, rows, and recall by class.

    Parameters
    ----------
    probabilities : [k, 7], of the test rows. truth : int [n], labels of all rows. duplicates : [n], see audit.load_duplicates.
    """
    training, test = data.rows(TRAINING), data.test_rows()
    unseen = ensemble.Bag(np.full((len(training), len(CLASSES)), np.nan), probabilities)
    columns = score.judge(unseen, 1.0, truth[training], truth[test], data.usage[test], duplicates)
    found: dict[str, Any] = {
        key: value for key, value in columns.items() if not key.startswith("oof") and not key.endswith("tempered")
    }
    for split, name in ((PUBLIC, "public"), (PRIVATE, "private")):
        mine = data.usage[test] == split
        labels = truth[test][mine]
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


def main(name: str, side: str, scaling: str, classes: str = "", out: str = "") -> None:
    """Run the command."""
    if not (side.isdecimal() and 8 <= int(side) <= 1024):
        raise UserError(f"SIDE={side}: must be the pixels across that the network takes, 8 to 1024")
    if scaling not in ("unit", "symmetric", "raw"):
        raise UserError(f"SCALING={scaling}: must be unit (grey levels 0 to 1), symmetric (-1 to 1) or raw (0 to 255)")
    if out and Path(out).suffix != ".json":
        raise UserError(f"OUT={out}: must end in .json")
    places, path = order(classes), Path(name)
    data, worth = faces.load(), provenance.standing(provenance.read())
    truth, duplicates = solution.join(data.labels, solution.load(data)), audit.load_duplicates(len(data.labels))
    if (truth < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, so nothing can be scored on them")
    backend.start(machine.choose(params.backend()))
    backend.prepare(seed=0, precision="float32")
    network = load(path, int(side))
    found = judge(ask(network, data.pixels[data.test_rows()], int(side), scaling)[:, places], data, truth, duplicates)
    if worth == provenance.OTHER_SPLIT:
        found["rank_2013"] = "none"
    print(f"{path.name}: {network.count_params():,} parameters\n\n{report(found)}\n")
    print("What it was trained on is not known here: if test rows were among it, these figures are too high.")
    if worth in board.NOTES:
        print(board.NOTES[worth])
    if out:
        about = {
            "file": path.name, "sha256": submission.sha256(path), "parameters": network.count_params(),
            "side": int(side), "scaling": scaling, "classes": [CLASSES[places.index(i)] for i in range(len(places))],
            "data": worth, **found,
        }  # fmt: skip
        files.write_json(Path(out), about)
        print(f"They stand in {out} too.")
