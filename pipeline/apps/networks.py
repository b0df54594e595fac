"""Trained networks loaded for prediction: the released network, an ensemble, a model, or one fold of a model.

Reads released/, or cells with their weights and results/ensemble.json. Nothing in these files is executed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

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
RETRAIN = "python -m pipeline train"
ALONE = partial(ensemble.weighted_mean, weights=np.ones(1))  # the blend of one model
CAPACITY = 128  # pictures on the device at a time
BATCHES = (16, 128)  # views per batch; the small size keeps a single face fast


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
    temperature : of the blend. blend : function of the averages, float [models, n, 7]; see evaluation/ensemble.py.
    """

    members: dict[str, list[Member]]
    temperature: float
    blend: Callable[[np.ndarray], np.ndarray] = ALONE

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float32 [n, 7], of pictures, uint8 [n, 48, 48]."""
        means = [
            np.mean([each.probabilities(pictures) for each in members], axis=0, dtype="float32")
            for members in self.members.values()
        ]
        return metrics.temper(self.blend(np.stack(means)), self.temperature).astype("float32")

    def attention(self, pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the mean over all networks of their maps for each picture's class (int [n]): float32 [n, 48, 48]."""
        networks = [each for members in self.members.values() for each in members]
        return np.asarray(np.mean([each.attention(pictures, classes) for each in networks], axis=0))


def _cell(settings: config.Config, name: str, fold: int) -> tuple[Facts, Path, bool]:
    """Return the facts about the trained network of a cell, the path of its weights, and whether they are usable."""
    path = store.folder(settings, name, fold) / "cell.json"
    with files.reading(path, f"dvc repro {store.stage(settings, name)}"):
        about = store.About.model_validate_json(path.read_bytes())
        old, recipe = about.plan, about.plan.settings()
        facts = Facts.model_validate(old.model_dump() | {"model": name, "recipe": recipe, "precision": about.precision})
        code = plan.code(plan.ingredients(old.architecture, recipe))
        if any(code.get(key) != old.code[key] for key in old.code if key.startswith("architectures.")):
            raise ValueError(f"the code of {old.architecture} has changed since its training")
    return facts, store.weights(name, fold), store.usable_weights(about) is not None


def _restored(facts: Facts, path: Path, remedy: str) -> Member:
    """Build a network and load its weights. Keras must be started already."""
    network = architectures.build(facts.architecture)
    with files.reading(path, remedy):
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
    return Network({facts.model: [Member(network, facts) for network in built]}, facts.temperature)


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
    lost = {name: [str(number) for number, (*_, usable) in zip(folds[name], parts, strict=True) if not usable]
            for name, parts in cells.items()}  # fmt: skip
    if commands := [f"{RETRAIN} {each} {','.join(numbers)} --retrain -y" for each, numbers in lost.items() if numbers]:
        wrong = "weights, which are not in git, are missing or of another training"
        raise UserError(f"{wrong}; train them again: {'; '.join(commands)}")
    _prepare([cell[0] for parts in cells.values() for cell in parts], library, precision)
    members = {
        each: [_restored(facts, path, f"{RETRAIN} {each} --retrain -y") for facts, path, _ in parts]
        for each, parts in cells.items()
    }
    temperature = ensemble.result([name]).submissions[name].temperature
    weighted = partial(ensemble.weighted_mean, weights=np.array([*shares.values()]))
    return Network(members, temperature, ensemble.UNWEIGHTED.get(method, weighted))


def _speedrun(library: str, precision: str | None) -> Network:
    """Load the network that `make speedrun` wrote."""
    with files.reading(SPEEDRUN, "make speedrun"):
        facts = SpeedrunFacts.model_validate_json(SPEEDRUN.read_bytes())
    _prepare([facts], library, precision)
    weights = Path(facts.weights)
    result = SPEEDRUN.with_name(weights.name.replace(".weights.h5", ".npz"))
    member = _restored(facts, weights, f"rm {result} && make speedrun")
    return Network({"speedrun": [member]}, 1.0)


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
