"""The pipeline from Python, for notebooks and scripts: networks that predict, and the run's predictions.

`project` is the folder of a clone everywhere; by default the one that Python runs in.

Examples
--------
>>> from pipeline import api
>>> api.network(project="~/fer2013").predict(["face.png"])  # a table: a row a picture, a column a class
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
from pipeline.apps import networks, sources
from pipeline.competition import CLASSES, SIDE
from pipeline.config import ENSEMBLE
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics, submission


@contextlib.contextmanager
def _inside(project: Path | str) -> Iterator[None]:
    """In the project's folder, which all paths of the pipeline start from."""
    config.load.cache_clear()
    try:
        with contextlib.chdir(Path(project).expanduser()):
            yield
    finally:
        config.load.cache_clear()


def grey(picture: Path | str | Image.Image) -> np.ndarray:
    """A picture that shows one face, as uint8 [48, 48]: turned as its EXIF says, grey, and resized."""
    if isinstance(picture, Image.Image):
        pixels = sources.plain(sources.upright(picture))
    else:
        try:
            pixels = sources.read(Path(picture).expanduser())
        except UserError as trouble:
            raise UserError(f"{picture}: {trouble}") from None
    return np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


class Network:
    """Trained networks that predict."""

    def __init__(self, found: networks.Network) -> None:
        self.found = found

    def predict(self, pictures: Any) -> pd.DataFrame:
        """Probabilities of the seven classes, a row a picture.

        Parameters
        ----------
        pictures : [n, 48, 48] or [n, 48, 48, 1], uint8 or floats from 0 to 1; or a list of paths or of PIL images,
            each of one face.

        Raises
        ------
        UserError : for arrays of another form, and for a file that is no picture.
        """
        if isinstance(pictures, list) and pictures and isinstance(pictures[0], str | Path | Image.Image):
            pictures = np.stack([grey(one) for one in pictures])
        return pd.DataFrame(self.found.probabilities(pictures), columns=list(CLASSES))


def network(which: str = networks.RELEASED, project: Path | str = ".") -> Network:
    """Load the released network, "ensemble", a model, or one fold of a model, like "deep_vgg-0".

    All but the released one need weights, which `make train` leaves on its machine and git does not hold. Raises
    UserError where there is no such network.
    """
    with _inside(project):
        return Network(networks.load(which))


@dataclass(frozen=True)
class Predictions:
    """What the run predicts.

    Parameters
    ----------
    oof, test : by name of a model or of the ensemble, float [n, 7] of the Training rows, and [k, 7] of the test rows.
    labels, fold_of : int [n], of the Training rows.
    """

    oof: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    labels: np.ndarray
    fold_of: np.ndarray


def predictions(project: Path | str = ".") -> Predictions:
    """Load the predictions of all members and of the ensemble, as `dvc repro` left them."""
    with _inside(project):
        data, settings = faces.load(), config.load()
        dealt = folds.load(data)
        found = {name: ensemble.load(name, data, dealt) for name in (*settings.names, *settings.externals, ENSEMBLE)}
    labels = data.labels[dealt.rows].astype(int)
    return Predictions(
        {name: each.oof for name, each in found.items()}, {name: each.test for name, each in found.items()}, labels,
        dealt.fold_of,
    )  # fmt: skip


def blend(members: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """The mean of probabilities float [n, 7], by default with equal weights."""
    mean: np.ndarray = np.average(np.stack(members), axis=0, weights=weights)
    return mean


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy with its 95 % interval, macro-F1, log-loss, Brier score and calibration error."""
    return {
        **metrics.accuracy(probabilities, labels), "macro_f1": metrics.macro_f1(probabilities, labels),
        **metrics.calibration(probabilities, labels),
    }  # fmt: skip


def save(test: np.ndarray, path: Path | str) -> None:
    """Write a submission of probabilities float [7178, 7]; `make score FILE=path` scores it."""
    submission.write(Path(path).expanduser(), test.argmax(axis=1))
