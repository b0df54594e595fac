"""A cell: one training of a model without one fold, and all that later stages need of it.

A cell is a folder with three files: predictions.npz, history.csv and cell.json. The last names the model, the fold,
the plan and the data that it was made from, and the digests of the other two. Weights are a by-product.

predictions.npz holds, for the test rows and the held-out Training rows:

| array | shape | what |
|---|---|---|
| rows | int32 [m] | the held-out rows |
| oof, test | float16 [m, 7], [k, 7] | probabilities with test-time augmentation |
| oof_plain, test_plain | float16 | the same without it |
| train | uint8 [t, 7] | 255 times the probabilities of the rows it was trained on, for students |
| attention | uint8 [7, 48, 48] | the mean Grad-CAM map of every class over held-out pictures |
"""

import hashlib
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline import architectures, files
from pipeline.competition import SIDE
from pipeline.config import Recipe
from pipeline.data.faces import Faces
from pipeline.training import backend, machine
from pipeline.training.plan import Plan

if TYPE_CHECKING:
    import keras

    from pipeline.training import checkpoint, loop

HISTORY = ("epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy")  # columns of history.csv
_trainers: dict[Any, "loop.Trainer"] = {}  # the last one alone
_one_at_a_time = threading.Lock()  # Keras's names and seeds belong to the process


@dataclass(frozen=True)
class Task:
    """One cell to train: all that a worker needs but the pictures.

    Parameters
    ----------
    rows, fold_of : int [n], the Training rows that take part, and the fold of each.
    plan : of the model.
    faces, folds : digests of the data, see data/faces.py and data/folds.py.
    library : the Keras backend; precision : "float32" or "bfloat16".
    soft_targets : for a student, float [m, 7], the teachers' mean probabilities of the rows outside of the fold.
    """

    rows: np.ndarray
    fold_of: np.ndarray
    fold: int
    plan: Plan
    faces: str
    folds: str
    library: str
    precision: str
    soft_targets: np.ndarray | None = None

    def __str__(self) -> str:
        return f"{self.plan.model} fold {self.fold}"

    @property
    def recipe(self) -> Recipe:
        """With the precision that is used."""
        return self.plan.settings().model_copy(update={"precision": self.precision})

    @property
    def key(self) -> str:
        """16 hexadecimal digits of all that decides the weights."""
        soft = b"" if self.soft_targets is None else self.soft_targets.tobytes()
        facts = [self.plan.training(), self.faces, self.folds, self.fold, hashlib.sha256(soft).hexdigest()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def checkpoint(self) -> str:
        """The file name of its state. Unlike `key` it tells what computes, too: bits from elsewhere do not mix."""
        facts = [self.key, self.precision, machine.versions(self.library), machine.device()]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.plan.model}-fold{self.fold}-{digest}.npz"

    @property
    def seed(self) -> int:
        """One a fold, the same for every architecture, and practically never that of another run."""
        return int(np.random.SeedSequence((self.plan.seed, self.fold)).generate_state(1)[0])


def distilled(labels: np.ndarray, soft: np.ndarray | None, weight: float) -> np.ndarray:
    """What a student learns: labels mixed with its teachers' mean probabilities, float32 [m, 7].

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531) at temperature 1: the cross-entropy with the mixture is the mixture
    of both cross-entropies.

    Parameters
    ----------
    labels : float [m, 7], one-hot.
    soft : float [m, 7]; None leaves the labels as they are.
    weight : of `soft`, 0 to 1.
    """
    if soft is None:
        return labels
    mixed: np.ndarray = ((1 - weight) * labels + weight * soft).astype("float32")
    return mixed


def trainer_for(task: Task, faces: Faces, steps: int) -> "loop.Trainer":
    """A trainer as new. Where the cell before had the same network, recipe, pictures and steps, its own, set back."""
    from pipeline.training import loop

    key = (task.plan.architecture, task.recipe.model_dump_json(), task.faces, steps)
    if key in _trainers:
        _trainers[key].reset(task.seed)
    else:
        _trainers.clear()  # and with it the device's memory
        build = partial(architectures.build, task.plan.architecture)
        _trainers[key] = loop.Trainer(build, faces.pixels, task.recipe, task.seed, steps)
    return _trainers[key]


def train(
    faces: Faces,
    task: Task,
    state: Path,
    on_epoch: Callable[["checkpoint.Progress"], None] = lambda progress: None,
    on_batch: Callable[[float], None] = lambda part: None,
    weights: bytes | None = None,
) -> dict[str, bytes]:
    """Train a cell, and return the content of its files by name, its weights under "weights".

    Parameters
    ----------
    state : where the state after each epoch goes; a state that lies there is gone on from.
    on_epoch, on_batch : see loop.fit.
    weights : of an earlier training with the same key: it predicts anew, and trains nothing.
    """
    with _one_at_a_time:
        machine.claim_gpu()
        backend.start(task.library, cache=state.parent.absolute() / "compiled")
        from pipeline.training import checkpoint, loop

        held_out = task.fold_of == task.fold
        seen, unseen = task.rows[~held_out], task.rows[held_out]
        targets = distilled(loop.one_hot(faces.labels[seen].astype(int)), task.soft_targets, task.plan.teacher_weight)
        trainer = trainer_for(task, faces, len(seen) // task.recipe.batch_size)
        progress = checkpoint.Progress()
        if weights is not None:
            _load(trainer.network, weights)
        else:
            rows = loop.Rows(seen, targets, unseen, faces.labels[unseen].astype(int))
            progress = loop.fit(trainer, rows, task.seed, checkpoint.Checkpoint(state), on_epoch, on_batch)
        started = time.perf_counter()
        saved = _saved(trainer.network)
        predictions = predict(trainer, faces, seen, unseen)
        progress.seconds += time.perf_counter() - started
        history = pd.DataFrame(progress.history).to_csv(index=False, float_format="%.6g").encode()
        contents = {"predictions.npz": predictions, "history.csv": history}
        about = describe(task, trainer.network, progress.seconds, saved, contents)
        return {"weights": saved, **contents, "cell.json": files.as_json(about)}


def predict(trainer: "loop.Trainer", faces: Faces, seen: np.ndarray, unseen: np.ndarray) -> bytes:
    """The content of predictions.npz.

    Parameters
    ----------
    seen, unseen : int [t] and int [m], the rows that it was trained on, and those held out.
    """
    from pipeline.training import attention, augment

    recipe, predictor = trainer.recipe, trainer.predictor
    arrays: dict[str, np.ndarray] = {}
    for name, rows in (("oof", unseen), ("test", faces.test_rows())):
        views = predictor.views(rows, augment.tta_maps(recipe))
        arrays |= {name: views.mean(axis=0).astype("float16"), f"{name}_plain": views[0].astype("float16")}
    mirrored = recipe.model_copy(update={"tta_flip": True, "tta_shift": 0, "tta_zoom": 0.0})
    known = predictor.views(seen, augment.tta_maps(mirrored)).mean(axis=0)
    arrays["train"] = (255 * known).round().astype("uint8")
    labels = faces.labels[unseen].astype(int)
    network = trainer.build()  # Grad-CAM freezes the network that it looks into
    network.set_weights(trainer.network.get_weights())
    arrays["attention"] = attention.class_maps(trainer.feed, network, unseen, labels)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, rows=unseen.astype("int32"), **arrays)
    return content.getvalue()


def describe(
    task: Task, network: "keras.Model", seconds: float, weights: bytes, contents: dict[str, bytes]
) -> dict[str, Any]:
    """The content of cell.json."""
    return {
        "model": task.plan.model,
        "fold": task.fold,
        "key": task.key,
        "faces": task.faces,
        "folds": task.folds,
        "seconds": round(seconds, 1),
        "parameters": network.count_params(),
        "multiply_adds": multiply_adds(network),
        "precision": task.precision,
        **machine.versions(task.library),
        "processor": machine.processor(),
        "weights_sha256": files.sha256(weights),
        "sha256": {name: files.sha256(content) for name, content in contents.items()},
        "plan": task.plan.model_dump(),
    }


def multiply_adds(network: "keras.Model") -> int:
    """Multiply-adds of one 48x48 picture's way through convolutions and dense layers; all else is small change."""
    import keras

    total = 0
    for layer in keras.models.clone_model(network, input_tensors=keras.Input((SIDE, SIDE, 1))).layers:
        places = int(np.prod(layer.output.shape[1:-1]))  # each takes all kernels once
        total += places * sum(int(np.prod(v.shape)) for v in layer.weights if v.name.endswith("kernel"))
        if type(layer).__name__ == "MultiHeadAttention":
            total += 2 * places**2 * layer.num_heads * layer.key_dim
    return total


def _saved(network: "keras.Model") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cell.weights.h5"
        network.save_weights(path)
        return path.read_bytes()


def _load(network: "keras.Model", weights: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cell.weights.h5"
        path.write_bytes(weights)
        network.load_weights(path)
