"""Bring trained networks back, with all that one must know to ask them: the one place that knows which network answers.

Reads released/, or what was trained, with results/ensemble.json. Nothing in these files is executed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import architectures, params
from pipeline.apps import release
from pipeline.competition import SIDE
from pipeline.data import folds
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics
from pipeline.recipe import Recipe
from pipeline.training import backend, cells, machine

if TYPE_CHECKING:
    import keras

    from pipeline.training.gradcam import GradCam

RELEASED = "released"
CAPACITY = 128  # pictures that lie on the device at a time
BATCHES = (16, 128)  # views that are judged together: the small one so that a single face need not wait


class Member:
    """One trained network that sees pictures as in its training: recipe, views and scaling are its own.

    Parameters
    ----------
    network : with its weights. recipe : what it was trained by.
    """

    def __init__(self, network: "keras.Model", recipe: Recipe) -> None:
        from pipeline.training import augment, loop

        self.network = network
        self.feed = loop.Feed(np.zeros((CAPACITY, SIDE, SIDE), "uint8"), recipe)
        self.predictor = loop.Predictor(self.feed, network)
        self.views = augment.views(recipe)
        self.cam: GradCam | None = None

    def show(self, pictures: np.ndarray) -> None:
        """Put uint8 [n, 48, 48], n up to CAPACITY, where `predictor` and `cam` find them: in rows 0 to n - 1."""
        from pipeline.training import augment

        whole = np.resize(pictures, (CAPACITY, *pictures.shape[1:]))
        self.feed.pixels.assign(augment.contrast(whole, self.feed.recipe.contrast)[..., None])

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """The mean over all views of uint8 [n, 48, 48], n up to CAPACITY: float32 [n, 7]."""
        self.show(pictures)
        rows = np.tile(np.arange(len(pictures), dtype="int32"), len(self.views))
        maps = np.repeat(np.stack(self.views), len(pictures), axis=0)
        size = BATCHES[len(rows) > 4 * BATCHES[0]]
        answers = []
        for start in range(0, len(rows), size):  # whole batches: one compiled program a size
            batch = np.arange(start, start + size) % len(rows)
            answers.append(self.predictor.predict_on_batch((rows[batch], maps[batch])))
        views = np.concatenate(answers)[: len(rows)].reshape(len(self.views), len(pictures), -1)
        mean: np.ndarray = views.mean(axis=0)
        return mean

    def attention(self, pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Where it looks for each picture's class (int [n]), by Grad-CAM: float32 [n, 48, 48], 0 to 1."""
        from pipeline.training.gradcam import GradCam

        self.cam = self.cam or GradCam(self.feed, self.network)
        self.show(pictures)
        return self.cam.maps(np.arange(len(pictures)), classes)


@dataclass(frozen=True)
class Network:
    """What answers: one trained network, or several joined.

    Parameters
    ----------
    members : the networks of every architecture, whose answers are averaged. temperatures : of these averages, before
        they are joined. method : how (see ensemble.join_members). shares : of each, where that is a weighted mean.
    temperature : of what comes out.
    classes : what the probabilities are of, in their order.
    """

    members: dict[str, list[Member]]
    temperatures: list[float]
    method: str
    shares: list[float]
    temperature: float
    classes: tuple[str, ...]

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Probabilities, at the temperature, of uint8 [n, 48, 48]: float32 [n, 7]."""
        if not len(pictures):
            return np.zeros((0, len(self.classes)), "float32")
        return np.concatenate([self._judged(part) for part in _parts(pictures)])

    def _judged(self, pictures: np.ndarray) -> np.ndarray:
        means = np.stack([
            np.stack([each.probabilities(pictures) for each in members]).mean(axis=0, dtype="float32")
            for members in self.members.values()
        ])  # fmt: skip
        even = ensemble.at_temperatures(means, self.temperatures)
        if self.method == "geometric":
            joined = ensemble.geometric_mean(even)
        else:
            joined = ensemble.weighted_mean(even, np.array(self.shares))
        return metrics.temper(joined, self.temperature).astype("float32")

    def attention(self, pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The mean over all networks of where each looks for a picture's class (int [n]): float32 [n, 48, 48]."""
        everyone = [each for members in self.members.values() for each in members]
        parts = zip(_parts(pictures), _parts(classes), strict=True)
        return np.concatenate([np.mean([each.attention(*part) for each in everyone], axis=0) for part in parts])


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + CAPACITY] for start in range(0, len(array), CAPACITY))


def _prepared(recipes: list[tuple[str, Recipe]], library: str) -> None:
    """Start Keras in float32, or in bfloat16 where all of these networks were trained so, and this machine suits it.

    Parameters
    ----------
    recipes : with the name of the architecture.
    """
    backend.start(library)
    precisions = {machine.suitable(recipe.precision, library, name) for name, recipe in recipes}
    backend.prepare(0, precisions.pop() if len(precisions) == 1 else "float32")


def _released(library: str) -> Network:
    about, recipe = cells.metadata(release.find(), "make release")
    name = about["architecture"]
    _prepared([(name, recipe)], library)
    network, _ = release.load()
    return Network(
        {name: [Member(network, recipe)]}, [1.0], "mean", [1.0], about["temperature"], tuple(about["classes"])
    )


def _cells(which: str) -> tuple[dict[str, list[int]], str, list[float]]:
    """The folds of every architecture that `which` stands for, and how architectures are joined, with their shares."""
    numbers, known = folds.numbers(), architectures.names()
    if which == ensemble.NAME:
        method, weights = ensemble.result(lambda whole: (whole["method"], dict(whole["weights"])))
        shares = {name: weight for name, weight in weights.items() if weight != 0}  # who has no say is not asked
        return dict.fromkeys(shares, numbers), method, list(shares.values())
    name, _, fold = which.partition("-")
    if name not in known or (fold and fold not in map(str, numbers)):
        raise UserError(
            f"there is no network {which!r}: it must be {RELEASED}, {ensemble.NAME}, an architecture "
            f"({', '.join(known)}) or one fold of it, like {known[-1]}-{numbers[0]}; {params.PATH} has the folds "
            f"{', '.join(map(str, numbers))}"
        )
    return {name: [int(fold)] if fold else numbers}, "mean", [1.0]


def _trained(which: str, library: str) -> Network:
    cells, method, shares = _cells(which)
    submission = which.partition("-")[0]
    temperature = ensemble.temperatures([submission])[submission]
    inside = list(ensemble.temperatures(list(cells)).values()) if which == ensemble.NAME else [1.0]
    found = [(name, fold) for name, numbers in cells.items() for fold in numbers]
    known = [cells.metadata(cells.path("about", *cell), cells.remedy(*cell)) for cell in found]
    classes = {tuple(about["classes"]) for about, _ in known}
    if len(classes) > 1:
        raise UserError(f"the networks of {which} do not know the same classes in the same order; run: make repro")
    _prepared([(about["architecture"], recipe) for about, recipe in known], library)
    members: dict[str, list[Member]] = {name: [] for name in cells}
    for cell, (_, recipe) in zip(found, known, strict=True):
        network = cells.restore(cell[0], cells.path("weights", *cell), cells.remedy(*cell))
        members[cell[0]].append(Member(network, recipe))
    return Network(members, inside, method, shares, temperature, classes.pop())


def load(which: str = RELEASED) -> Network:
    """The network `which`, over the library that suits this machine.

    Parameters
    ----------
    which : "released", "ensemble", an architecture (the mean of all its folds), or one fold of it, like
        "small_resnet-0".

    Raises
    ------
    UserError : where there is no such network, or its files are missing, damaged or another's.
    """
    library = machine.choose(params.backend())
    return _released(library) if which == RELEASED else _trained(which, library)
