"""Trainings on arbitrary rows, outside the graph.

Writes FOLDER/KEY.npz with the predictions of each training, and its state after every epoch to FOLDER/states/. The key
is a digest of everything that determines the predictions, except the machine and versions. A training whose file exists
is not repeated.
"""

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


@dataclass(frozen=True)
class Training:
    """Settings and rows of one training.

    Parameters
    ----------
    backend : as in params.yaml.
    rows : int [m], faces to train on. labels : int [n], of all faces.
    watched : int [w], rows evaluated after every epoch. evaluated : int [k], rows predicted at the end.
    coded : whether the key includes the training code, so that changed code requires a new training.
    """

    name: str
    architecture: str
    recipe: Recipe
    seed: int
    backend: str
    rows: np.ndarray
    labels: np.ndarray
    watched: np.ndarray
    evaluated: np.ndarray
    coded: bool = True

    def key(self, faces: Faces, *more: object) -> str:
        """Return 16 hexadecimal digits: a digest of everything that determines the predictions, and of `more`."""
        arrays = (self.rows, self.labels[self.rows], self.watched, self.labels[self.watched], self.evaluated)
        digests = [files.sha256(each.astype("int64").tobytes()) for each in arrays]
        code = plan.code(plan.ingredients(self.architecture, self.recipe)) if self.coded else {}
        facts = [self.architecture, self.recipe.used(), self.seed, code, faces.digest, digests, more]
        return files.sha256(json.dumps(facts, sort_keys=True).encode())[:16]


@dataclass(frozen=True)
class Result:
    """Result of one training.

    Parameters
    ----------
    probabilities : float16 [k, 7], of the rows Training.evaluated, with test-time augmentation.
    hits : bool [epochs, w], which monitored rows were right; empty in files of an earlier version.
    accuracy : training accuracy of the last epoch. seconds, prediction_seconds : of training and of prediction.
    about : machine, versions and precision, as JSON.
    """

    probabilities: np.ndarray
    accuracy: np.ndarray
    seconds: np.ndarray
    prediction_seconds: np.ndarray
    about: np.ndarray
    hits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))


def load(path: Path) -> Result:
    """Read the Result of a training. Raises UserError where the file is damaged."""
    with files.reading(path, f"rm {path}, and the same command again"), np.load(path, allow_pickle=False) as arrays:
        return Result(**{key: arrays[key] for key in Result.__dataclass_fields__ if key in arrays})


class Hits:
    """Record of the monitored rows that are right after each epoch, in a file next to the training's state.

    Parameters
    ----------
    state : of the training. labels : int [w], of the monitored rows.
    """

    def __init__(self, state: "Checkpoint", labels: np.ndarray) -> None:
        self.path, self.labels = state.path.with_suffix(".hits.npy"), labels
        done = len(state.restore([]).history)
        with files.reading(self.path, f"rm {state.path}, and the same command again"):
            self.epochs: list[np.ndarray] = [*np.load(self.path)[:done]] if done else []

    def note(self, probabilities: np.ndarray) -> np.ndarray:
        """Record an epoch by its probabilities, float [w, 7], before its state is saved. Return the probabilities."""
        self.epochs.append(metrics.right(probabilities, self.labels))
        files.replace(self.path, partial(np.save, arr=self.epochs))
        return probabilities


def train(faces: Faces, task: Training, target: Path, jobs: int) -> None:
    """Train and predict in one of `jobs` parallel processes, and write the Result to `target`.

    An interrupted training continues after its last complete epoch, if machine and versions are the same.
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
    checkpoints, lock = checkpoint.Checkpoint(state), state.with_suffix(".lock")
    predict = trainer.predictor.probabilities
    with files.locked(lock, f"trains {task.name}"):
        hits = Hits(checkpoints, rows.labels)
        trainer.predictor.probabilities = lambda rows: hits.note(predict(rows))  # type: ignore[method-assign]

        def on_cycle() -> None:
            views = trainer.predictor.views(task.evaluated, augment.tta_maps(recipe)).mean(axis=0)
            np.save(target.with_suffix(".first.npy"), views.astype("float16"))

        progress = loop.fit(trainer, rows, task.seed, checkpoints, show.epoch, show.batch, on_cycle)
    started = time.perf_counter()
    probabilities = trainer.predictor.views(task.evaluated, augment.tta_maps(recipe)).mean(axis=0)
    about = {"processor": machine.processor(), "precision": precision, **versions, "jobs": jobs,
             "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "")}  # fmt: skip
    result = {
        "probabilities": probabilities.astype("float16"),
        "accuracy": progress.history[-1]["accuracy"],
        "seconds": progress.seconds,
        "prediction_seconds": time.perf_counter() - started,
        "about": json.dumps(about),
        "hits": hits.epochs[-len(progress.history) :],  # without the epochs before an unreadable state
    }
    trainer.network.save_weights(weights(faces, task, target.parent))
    files.replace(target, partial(np.savez_compressed, **result))
    for each in (state, hits.path, lock):
        each.unlink(missing_ok=True)


def weights(faces: Faces, task: Training, folder: Path) -> Path:
    """Return the path of the weights of a finished training, which are a by-product."""
    return folder / f"states/{task.key(faces)}.weights.h5"


def load_finished(faces: Faces, tasks: dict[Any, Training], folder: Path) -> dict[Any, Result]:
    """Return the Results of the finished `tasks` by their keys."""
    paths = {key: folder / f"{task.key(faces)}.npz" for key, task in tasks.items()}
    return {key: load(path) for key, path in paths.items() if path.exists()}


def run(faces: Faces, tasks: dict[Any, Training], folder: Path, jobs: int = 1) -> dict[Any, Result]:
    """Train the unfinished `tasks`, `jobs` at a time. Return the Results of all tasks by their keys."""
    (folder / "states").mkdir(parents=True, exist_ok=True)
    finished = load_finished(faces, tasks, folder)
    missing = {key: (task, (folder / f"{task.key(faces)}.npz").absolute(), jobs)
               for key, task in tasks.items() if key not in finished}  # fmt: skip
    started = time.monotonic()
    for done, (key, _) in enumerate(executors.results(train, faces, missing, "loky", jobs, None), start=1):
        left = duration((time.monotonic() - started) / done * (len(missing) - done))
        print(f"{tasks[key].name}  finished, {done} of {len(missing)}, {left} left", flush=True)
    return load_finished(faces, tasks, folder)
