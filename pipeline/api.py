"""Python interface for notebooks and scripts: prediction with trained networks, and the predictions of a run.

The parameter `project` of all functions is the folder of a clone; its default is the working directory.

Examples
--------
>>> from pipeline import api
>>> api.network(project="~/fer2013").predict(["face.png"])  # DataFrame: one row per picture, one column per class
>>> run = api.predictions("~/fer2013")
>>> mine = api.blend([run.oof["small_vgg"], run.oof["deep_vgg"]], weights=[1, 2])
>>> api.score(mine, run.labels)["accuracy"]
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline import config
from pipeline.apps import detect, light, networks, predict, sources
from pipeline.competition import CLASSES, SIDE
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics, submission

PICTURE = (str, Path, Image.Image)


@contextlib.contextmanager
def _inside(project: Path | str) -> Iterator[None]:
    """Change to the project's folder, because all paths of the pipeline are relative to it. UserError if it is none."""
    folder = Path(project).expanduser()
    if not (folder / config.PATH).is_file():
        raise UserError(f"project={str(project)!r} is not the folder of a clone: it contains no {config.PATH}")
    config.load.cache_clear()
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        config.load.cache_clear()


def grey(picture: Path | str | Image.Image) -> np.ndarray:
    """Convert a picture of one face to grey levels, uint8 [48, 48]: its central square, upright by its EXIF data."""
    try:
        if isinstance(picture, Image.Image):
            pixels = sources.plain(sources.upright(picture))
        else:
            pixels = sources.read(Path(picture).expanduser())
    except (UserError, ValueError, OSError) as error:
        raise UserError(f"{picture}: {error}") from None
    _, crops = detect.faces(pixels, None, None)
    return np.asarray(crops[0])


def grey_levels(pictures: Any) -> np.ndarray:
    """Convert pictures to uint8 [n, 48, 48].

    Parameters
    ----------
    pictures : [n, 48, 48] or [n, 48, 48, 1], uint8 or floats from 0 to 1. UserError for anything else.
    """
    array = np.asarray(pictures)
    if array.dtype.kind == "f" and ((array >= 0) & (array <= 1)).all():  # not for NaN
        array = (255 * array.astype("float64")).round().astype("uint8")
    if array.dtype != "uint8" or array.shape[1:] not in ((SIDE, SIDE), (SIDE, SIDE, 1)):
        raise UserError(f"pictures must have the shape [n, {SIDE}, {SIDE}], and be uint8 or floats from 0 to 1")
    return array.reshape(-1, SIDE, SIDE)


class Network:
    """Trained network, or several whose predictions are averaged."""

    def __init__(self, network: networks.Network | light.Network) -> None:
        self._network = network

    def predict(self, pictures: Any) -> pd.DataFrame:
        """Predict the probabilities of the seven classes, one row per picture.

        Parameters
        ----------
        pictures : [n, 48, 48] or [n, 48, 48, 1], uint8 or floats from 0 to 1; or a list of paths, PIL images or arrays
            [48, 48], each of one face; or one path or PIL image.

        Raises
        ------
        UserError : if an array has another shape, or a file is not a picture.
        """
        if isinstance(pictures, PICTURE):
            pictures = [pictures]
        if isinstance(pictures, list | tuple):
            levels = [grey(each) if isinstance(each, PICTURE) else grey_levels([each])[0] for each in pictures]
            pictures = np.array(levels, "uint8").reshape(-1, SIDE, SIDE)
        return pd.DataFrame(self._network.probabilities(grey_levels(pictures)), columns=list(CLASSES))


def network(which: str = networks.RELEASED, project: Path | str = ".") -> Network:
    """Load a network: "released", "ensemble", "speedrun", a model, or some of its folds: "deep_vgg-0,1".

    "released" runs in ONNX Runtime, or in Keras if that is missing; the others run in Keras. They need weights, which
    `make train` writes and git ignores. Raises UserError if there is no such network.
    """
    with _inside(project):
        return Network(predict.load(which, explain=False))


@dataclass(frozen=True)
class Predictions:
    """Predictions of a run.

    Parameters
    ----------
    oof, test : out-of-fold probabilities, float [n, 7], and those of the test rows, [k, 7]; keys are names of members.
    labels, fold_of : int [n], label and fold of each Training row.
    """

    oof: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    labels: np.ndarray
    fold_of: np.ndarray


def predictions(project: Path | str = ".") -> Predictions:
    """Load the predictions of all members and of the ensemble, which `dvc repro` has computed."""
    with _inside(project):
        data, settings = faces.load(), config.load()
        assignment = folds.load(data)
        names = (*settings.names, *settings.externals, config.ENSEMBLE)
        members = {name: ensemble.load(name, data, assignment) for name in names}
    oof, test = ({name: getattr(each, part) for name, each in members.items()} for part in ("oof", "test"))
    return Predictions(oof, test, data.labels[assignment.rows].astype(int), assignment.fold_of)


def _checked(probabilities: Any, rows: int | None = None) -> np.ndarray:
    """Return probabilities as an array. Raises UserError if they are not [rows, 7], or not from 0 to 1."""
    array = np.asarray(probabilities)
    if array.shape[1:] != (len(CLASSES),) or rows not in (None, len(array)):
        raise UserError(f"probabilities must have the shape [{rows or 'n'}, {len(CLASSES)}], not {[*array.shape]}")
    if not ((array >= 0) & (array <= 1 + 1e-5)).all():
        raise UserError("probabilities must be from 0 to 1, without NaN")
    return array


def blend(members: Sequence[Any] | dict[str, Any], weights: Sequence[float] | None = None) -> np.ndarray:
    """Return the weighted mean of probabilities, float [n, 7] each; by default with equal weights.

    Raises UserError for other shapes, no members, or weights that are negative or all 0.
    """
    arrays = [_checked(each) for each in (members.values() if isinstance(members, dict) else members)]
    if len(set(map(len, arrays))) != 1:
        raise UserError("blend needs one member or more, all with the same number of rows")
    used = np.ones(len(arrays)) if weights is None else np.asarray(weights, dtype=float)
    if used.shape != (len(arrays),) or not (used >= 0).all() or not 0 < used.sum() < np.inf:
        raise UserError("blend needs one weight of at least 0 for each member, and not only zeros")
    return np.asarray(np.average(arrays, axis=0, weights=used))


def score(probabilities: Any, labels: np.ndarray) -> dict[str, float]:
    """Compute accuracy with its 95 % interval, macro-F1, log-loss, Brier score and calibration error.

    Raises UserError unless there is one row of probabilities, float [n, 7], for each label, int [n].
    """
    probabilities = _checked(probabilities, len(labels))
    return {
        **metrics.accuracy(probabilities, labels), "macro_f1": metrics.macro_f1(probabilities, labels),
        **metrics.calibration(probabilities, labels),
    }  # fmt: skip


def save(test: Any, path: Path | str) -> None:
    """Write a submission from probabilities of all test rows, float [n, 7]. Raises UserError for other shapes.

    `make score FILE=path` checks the number of rows, and scores it.
    """
    submission.write(Path(path).expanduser(), _checked(test).argmax(axis=1))
