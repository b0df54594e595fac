"""Train recipes on rows of one's own choice, outside the graph, and keep what the networks predict.

Writes FOLDER/KEY.npz for each training, and its state after every epoch to FOLDER/states/ until then. The key stands
for all that decides the predictions but the machine and its versions: what is there is not trained again.
"""

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import architectures, files
from pipeline.cells.progress import Display, duration
from pipeline.config import Recipe
from pipeline.data.faces import Faces
from pipeline.evaluation import metrics
from pipeline.training import backend, executors, machine, plan

if TYPE_CHECKING:
    from pipeline.training.checkpoint import Checkpoint
    from pipeline.training.loop import Trainer


@dataclass(frozen=True)
class Training:
    """One training.

    Parameters
    ----------
    backend : as in params.yaml.
    rows : int [m], of the faces, that it is trained on. labels : int [n], of all faces.
    watched : int [w], rows that are scored after every epoch. judged : int [k], rows that are predicted at the end.
    coded : whether a change of the code that computes asks for a new training.
    """

    name: str
    architecture: str
    recipe: Recipe
    seed: int
    backend: str
    rows: np.ndarray
    labels: np.ndarray
    watched: np.ndarray
    judged: np.ndarray
    coded: bool = True

    def key(self, faces: Faces, *more: object) -> str:
        """16 hexadecimal digits of what decides the predictions, and of `more`."""
        arrays = (self.rows, self.labels[self.rows], self.watched, self.labels[self.watched], self.judged)
        digests = [files.sha256(each.astype("int64").tobytes()) for each in arrays]
        code = plan.code(plan.ingredients(self.architecture, self.recipe)) if self.coded else {}
        facts = [self.architecture, self.recipe.used(), self.seed, code, faces.digest, digests, more]
        return files.sha256(json.dumps(facts, sort_keys=True).encode())[:16]


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Parameters
    ----------
    probabilities : float16 [k, 7], of the judged rows, with test-time augmentation.
    watched : float64 [epochs], accuracy on the watched rows after each epoch.
    hits : bool [epochs, w], which of them were right; empty in files of an earlier version.
    accuracy : of the last epoch, in training. seconds, prediction_seconds : of training, and of the judged rows.
    about : what computed it, as JSON.
    """

    probabilities: np.ndarray
    watched: np.ndarray
    accuracy: np.ndarray
    seconds: np.ndarray
    prediction_seconds: np.ndarray
    about: np.ndarray
    hits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))


def load(path: Path) -> Result:
    """Read what a training gave. Raises UserError where the file is damaged."""
    with files.reading(path, f"rm {path}, and the same command again"), np.load(path, allow_pickle=False) as arrays:
        found = Result(**{key: arrays[key] for key in Result.__dataclass_fields__ if key in arrays})
        if found.hits.ndim != 2 or len(found.hits) not in (0, len(found.watched)):
            raise ValueError("it has hits of other epochs")
        return found


class Hits:
    """Notes which of the watched rows are right after each epoch, in a file beside the training's state.

    Parameters
    ----------
    labels : int [w], of the watched rows.
    """

    def __init__(self, path: Path, labels: np.ndarray) -> None:
        self.path = path
        self.labels = labels
        self.epochs: list[np.ndarray] = []

    def go_on(self, done: int) -> bool:
        """Read what is noted of so many finished epochs; whether all is there."""
        with contextlib.suppress(*files.DAMAGE):
            found = np.load(self.path, allow_pickle=False)[:done]
            if found.shape == (done, len(self.labels)):
                self.epochs = [*found]
        return len(self.epochs) == done

    def note(self, probabilities: np.ndarray) -> np.ndarray:
        """Note an epoch by its probabilities, float [w, 7], before its state is saved, and return them."""
        self.epochs.append(metrics.right(probabilities, self.labels))
        files.replace(self.path, partial(np.save, arr=self.epochs))
        return probabilities


def watch(trainer: "Trainer", state: "Checkpoint", labels: np.ndarray) -> Hits:
    """Let a trainer's every look at the watched rows be noted; without the notes of a state it begins anew."""
    hits, ask = Hits(state.path.with_suffix(".hits.npy"), labels), trainer.predictor.probabilities
    if not hits.go_on(len(state.restore([]).history)):
        print(f"{hits.path} is missing or damaged, so this training begins anew", flush=True)
        state.path.unlink()
    trainer.predictor.probabilities = lambda rows: hits.note(ask(rows))  # type: ignore[method-assign]
    return hits


def train(faces: Faces, task: Training, target: Path, jobs: int) -> None:
    """Train and predict beside `jobs` - 1 others, and write the Result to `target`.

    It goes on after the last whole epoch, if it was interrupted on a machine like this one.
    """
    machine.claim_gpu()
    library = machine.choose(task.backend)
    backend.start(library, cache=target.parent / "states/compiled")
    from pipeline.training import augment, checkpoint, loop

    precision, versions = machine.products(task.recipe.precision, library, task.architecture), machine.versions(library)
    recipe = task.recipe.model_copy(update={"precision": precision})
    state = target.parent / f"states/{task.key(faces, versions, precision, machine.device())}.npz"
    build = partial(architectures.build, task.architecture)
    trainer = loop.Trainer(build, faces.pixels, recipe, task.seed, len(task.rows) // recipe.batch_size)
    rows = loop.Rows(task.rows, loop.one_hot(task.labels[task.rows]), task.watched, task.labels[task.watched])
    show = Display(task.name, recipe.epochs, jobs == 1)
    kept = checkpoint.Checkpoint(state)
    hits = watch(trainer, kept, rows.labels)
    progress = loop.fit(trainer, rows, task.seed, kept, show.epoch, show.batch)
    started = time.perf_counter()
    probabilities = trainer.predictor.views(task.judged, augment.tta_maps(recipe)).mean(axis=0)
    about = {"processor": machine.processor(), "precision": precision, **versions, "jobs": jobs,
             "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "")}  # fmt: skip
    found = {
        "probabilities": probabilities.astype("float16"),
        "watched": [epoch["val_accuracy"] for epoch in progress.history],
        "accuracy": progress.history[-1]["accuracy"],
        "seconds": progress.seconds,
        "prediction_seconds": time.perf_counter() - started,
        "about": json.dumps(about),
        "hits": hits.epochs[-len(progress.history) :],  # without those of a state that could not be read
    }
    trainer.network.save_weights(weights(faces, task, target.parent))
    files.replace(target, partial(np.savez_compressed, **found))
    for each in (state, hits.path):
        each.unlink(missing_ok=True)


def weights(faces: Faces, task: Training, folder: Path) -> Path:
    """Where the weights of a finished training lie: a by-product."""
    return folder / f"states/{task.key(faces)}.weights.h5"


def kept(faces: Faces, tasks: dict[Any, Training], folder: Path) -> dict[Any, Result]:
    """The Results of those of `tasks` that are finished, by their keys."""
    places = {key: folder / f"{task.key(faces)}.npz" for key, task in tasks.items()}
    return {key: load(place) for key, place in places.items() if place.exists()}


def run(faces: Faces, tasks: dict[Any, Training], folder: Path, jobs: int = 1) -> dict[Any, Result]:
    """The Results of `tasks`, by their keys; those that are not there are trained, `jobs` at a time."""
    (folder / "states").mkdir(parents=True, exist_ok=True)
    missing = {key: (task, (folder / f"{task.key(faces)}.npz").absolute(), jobs)
               for key, task in tasks.items() if key not in kept(faces, {key: task}, folder)}  # fmt: skip
    started = time.monotonic()
    for done, (key, _) in enumerate(executors.results(train, faces, missing, "loky", jobs, None), start=1):
        left = duration((time.monotonic() - started) / done * (len(missing) - done))
        print(f"{tasks[key].name}  finished, {done} of {len(missing)}, {left} left", flush=True)
    return kept(faces, tasks, folder)
