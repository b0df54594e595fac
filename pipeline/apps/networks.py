"""Trained networks loaded for prediction: the released network, an ensemble, a model, or one fold of a model.

Reads released/, or cells with their weights and results/ensemble.json. Nothing in these files is executed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import architectures, config, files
from pipeline.apps import packed
from pipeline.apps.packed import Facts
from pipeline.cells import store
from pipeline.competition import CLASSES, SIDE
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics
from pipeline.training import backend, machine, plan

if TYPE_CHECKING:
    import keras

    from pipeline.training.attention import GradCam

RELEASED = "released"
SPEEDRUN = Path("artifacts/speedrun/network.json")
CAPACITY = 128  # pictures on the device at a time
BATCHES = (16, 128)  # views per batch; the small size keeps a single face fast


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


class SpeedrunFacts(Facts, frozen=True):
    """A network of the speedrun; `weights` is the path of its weights file."""

    weights: str


class Member:
    """One trained network with its own recipe: pictures are preprocessed as in its training.

    Parameters
    ----------
    network : with its weights loaded.
    """

    def __init__(self, network: "keras.Model", facts: Facts) -> None:
        from pipeline.training import augment, models

        self.network = network
        self.facts = facts
        self.feed = models.Feed(np.zeros((CAPACITY, SIDE, SIDE), "uint8"), facts.recipe)
        self.predictor = models.Predictor(self.feed, network)
        self.views = augment.tta_maps(facts.recipe)

    @cached_property
    def cam(self) -> "GradCam":
        """Grad-CAM of the network."""
        from pipeline.training.attention import GradCam

        return GradCam(self.feed, self.network)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Return mean probabilities, float32 [n, 7], of uint8 [n, 48, 48] over all views."""
        parts = [self._predicted(part) for part in _parts(pictures)]
        return np.concatenate([np.zeros((0, len(CLASSES)), "float32"), *parts])

    def attention(self, pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the Grad-CAM map of each picture for its class (int [n]): float32 [n, 48, 48], 0 to 1."""
        maps = []
        for part, labels in zip(_parts(pictures), _parts(classes), strict=True):
            self._show(part)
            maps.append(self.cam.maps(np.arange(len(part)), labels))
        return np.concatenate(maps)

    def _show(self, pictures: np.ndarray) -> None:
        """Copy uint8 [n, 48, 48], n up to CAPACITY, into rows 0 to n - 1 of the feed."""
        from pipeline.training import contrasts

        filled = np.resize(pictures, (CAPACITY, SIDE, SIDE))
        self.feed.pixels.assign(contrasts.normalise(filled, self.feed.recipe.contrast)[..., None])

    def _predicted(self, pictures: np.ndarray) -> np.ndarray:
        """Compute `probabilities` of up to CAPACITY pictures."""
        self._show(pictures)
        rows = np.tile(np.arange(len(pictures), dtype="int32"), len(self.views))
        maps = np.repeat(self.views, len(pictures), axis=0)
        size = BATCHES[len(rows) > 4 * BATCHES[0]]
        outputs = []
        for start in range(0, len(rows), size):  # always full batches: one compiled program per size
            batch = np.arange(start, start + size) % len(rows)
            outputs.append(self.predictor.predict_on_batch((rows[batch], maps[batch])))
        every = np.concatenate(outputs)[: len(rows)].reshape(len(self.views), len(pictures), -1)
        return np.asarray(every.mean(axis=0))


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + CAPACITY] for start in range(0, len(array), CAPACITY))


@dataclass(frozen=True)
class Network:
    """One trained network, or a blend of several.

    Parameters
    ----------
    members : the networks of each model; their probabilities are averaged.
    method, shares : how the averages are blended (see evaluation/ensemble.py). temperature : of the blend.
    """

    members: dict[str, list[Member]]
    method: str
    shares: list[float | None]
    temperature: float

    def probabilities(self, pictures: Any) -> np.ndarray:
        """Return calibrated probabilities, float32 [n, 7], of pictures in any form that `grey_levels` accepts."""
        levels = grey_levels(pictures)
        means = [
            np.mean([each.probabilities(levels) for each in members], axis=0, dtype="float32")
            for members in self.members.values()
        ]
        if self.method in ensemble.UNWEIGHTED:
            blend = ensemble.UNWEIGHTED[self.method](np.stack(means))
        else:
            blend = ensemble.weighted_mean(np.stack(means), np.array(self.shares))
        return metrics.temper(blend, self.temperature).astype("float32")

    def attention(self, pictures: Any, classes: np.ndarray) -> np.ndarray:
        """Return the mean over all networks of their maps for each picture's class (int [n]): float32 [n, 48, 48]."""
        levels = grey_levels(pictures)
        networks = [each for members in self.members.values() for each in members]
        return np.asarray(np.mean([each.attention(levels, classes) for each in networks], axis=0))


def _cell(settings: config.Config, name: str, fold: int) -> tuple[Facts, Path, str, str]:
    """Return the facts about the trained network of a cell, and path, remedy and digest of its weights."""
    path = store.folder(settings, name, fold) / "cell.json"
    with files.reading(path, f"dvc repro {store.stage(settings, name)}"):
        about = store.About.model_validate_json(path.read_bytes())
        old, recipe = about.plan, about.plan.settings()
        facts = Facts.model_validate({
            "model": name, "architecture": old.architecture, "seed": old.seed, "recipe": recipe,
            "precision": about.precision,
        })  # fmt: skip
        code = plan.code(plan.ingredients(old.architecture, recipe))
        if any(code.get(key) != old.code[key] for key in old.code if key.startswith("architectures.")):
            raise ValueError(f"the code of {old.architecture} has changed since its training")
    remedy = f"python -m pipeline train {name} {fold} --retrain --yes"
    return facts, store.weights(name, fold), remedy, about.weights_sha256


def _restored(facts: Facts, path: Path, remedy: str, sha256: str | None = None) -> Member:
    """Build a network and load its weights, after a check of their digest. Keras must be started already."""
    network = architectures.build(facts.architecture)
    with files.reading(path, remedy):
        if sha256 and files.sha256(path.read_bytes()) != sha256:
            raise ValueError("its SHA-256 differs from cell.json")
        network.load_weights(path)
    return Member(network, facts)


def _prepare(trained: list[Facts], library: str, precision: str | None) -> None:
    """Start Keras in this precision; by default bfloat16 if all networks used it and it suits this machine."""
    backend.start(library)
    suitable = {machine.suitable(each.precision, library, each.architecture) for each in trained}
    backend.prepare(0, precision or (suitable.pop() if len(suitable) == 1 else "float32"))


def _released(library: str, precision: str | None) -> Network:
    path = packed.find()
    facts, weights = packed.read(path)
    _prepare([facts], library, precision)
    built = [architectures.build(facts.architecture) for _ in facts.folds]
    with files.reading(path.with_suffix(packed.WEIGHTS), packed.REMEDY):
        packed.unpack(built, weights)
    return Network({facts.model: [Member(network, facts) for network in built]}, "mean", [1.0], facts.temperature)


def _trained(which: str, library: str, precision: str | None) -> Network:
    settings = config.load()
    name, dash, fold = which.partition("-")
    method = "mean"
    shares: dict[str, float | None] = {name: 1.0}
    if which == config.ENSEMBLE:
        result = ensemble.result()
        method, shares = result.method, {each: share for each, share in result.weights.items() if share != 0}
    if unknown := [each for each in shares if each not in settings.names]:
        known = ", ".join([RELEASED, config.ENSEMBLE, "speedrun", *settings.names])
        wrong = ", ".join(unknown) if which == config.ENSEMBLE else which  # an external member has no network
        raise UserError(f"unknown network: {wrong}; name one of {known}, or some folds of a model: MODEL-0,1")
    folds = {each: settings.some_folds(each, fold) if dash else settings.folds_of(each) for each in shares}
    cells = {each: [_cell(settings, each, number) for number in folds[each]] for each in shares}
    lost = {name: [number for number, (_, path, *_) in zip(folds[name], parts, strict=True) if not path.exists()]
            for name, parts in cells.items()}  # fmt: skip
    if texts := [f"{name} {','.join(map(str, numbers))}" for name, numbers in lost.items() if numbers]:
        raise UserError(
            f"weights, which are not in git, are missing of these models and folds: {'; '.join(texts)}; train each "
            "again: python -m pipeline train NAME FOLDS --retrain"
        )
    _prepare([cell[0] for parts in cells.values() for cell in parts], library, precision)
    members = {each: [_restored(*cell) for cell in parts] for each, parts in cells.items()}
    return Network(members, method, list(shares.values()), ensemble.result([name]).submissions[name].temperature)


def _speedrun(library: str, precision: str | None) -> Network:
    """Load the network that `make speedrun` wrote."""
    with files.reading(SPEEDRUN, "make speedrun"):
        facts = SpeedrunFacts.model_validate_json(SPEEDRUN.read_bytes())
    _prepare([facts], library, precision)
    weights = Path(facts.weights)
    result = SPEEDRUN.with_name(weights.name.replace(".weights.h5", ".npz"))
    member = _restored(facts, weights, f"rm {result} && make speedrun")
    return Network({"speedrun": [member]}, "mean", [1.0], 1.0)


def load(which: str = RELEASED, library: str | None = None, precision: str | None = None) -> Network:
    """Load the network `which`.

    Parameters
    ----------
    which : "released", "ensemble", "speedrun", a model (the mean over all its folds), or some folds of a model, like
        "small_resnet-0" or "small_resnet-0,1".
    library, precision : of Keras; by default those that suit this machine.

    Raises
    ------
    UserError : if there is no such network, or its files are missing, damaged or do not belong together.
    """
    library = library or machine.choose(config.load().backend)
    if which == RELEASED:
        return _released(library, precision)
    if which == "speedrun":
        return _speedrun(library, precision)
    return _trained(which, library, precision)
