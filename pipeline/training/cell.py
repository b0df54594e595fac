"""Training of a cell: one model without one fold, with all results that later stages need.

A cell is a folder with three files: predictions.npz, history.csv and cell.json. The file cell.json contains the model,
fold, plan and data digests, and the digests of the other two files. Weights are a by-product.

predictions.npz contains, for the test rows and the held-out Training rows:

| array | dtype and shape | content |
|---|---|---|
| rows | int32 [m] | the held-out rows |
| oof, test | float16 [m, 7], [k, 7] | probabilities with test-time augmentation |
| oof_plain, test_plain | float16 | probabilities without test-time augmentation |
| train | uint8 [t, 7] | 255 times the probabilities of the rows that it was trained on, for students |
| attention | uint8 [7, 48, 48] | mean Grad-CAM map of each class over held-out pictures |
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
_trainers: dict[Any, "loop.Trainer"] = {}  # at most one: the last
_one_at_a_time = threading.Lock()  # Keras's layer names and seeds are global to the process


@dataclass(frozen=True)
class Task:
    """Task of training one cell: all inputs except the pictures.

    Parameters
    ----------
    rows, fold_of : int [n], the Training rows that are used, and the fold of each.
    fold : the fold that is held out.
    plan : plan of the model.
    faces, folds : digests of the data, see data/faces.py and data/folds.py.
    library : Keras backend.
    precision : "float32" or "bfloat16".
    soft_targets : float [m, 7], the teachers' mean probabilities of the rows outside of the fold; None if the model is
        not a student.
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
        """Recipe of the plan, with the precision of this task."""
        return self.plan.settings().model_copy(update={"precision": self.precision})

    @property
    def key(self) -> str:
        """Digest of plan, data, fold and soft targets, which determine the weights: 16 hexadecimal digits."""
        soft = b"" if self.soft_targets is None else self.soft_targets.tobytes()
        facts = [self.plan.training(), self.faces, self.folds, self.fold, hashlib.sha256(soft).hexdigest()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def checkpoint(self) -> str:
        """File name of the checkpoint. Its digest includes library, versions and device, so their states never mix."""
        facts = [self.key, self.precision, machine.versions(self.library), machine.device()]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.plan.model}-fold{self.fold}-{digest}.npz"

    @property
    def seed(self) -> int:
        """Seed of the fold: the same for every architecture, and different for different seeds of the plan."""
        return int(np.random.SeedSequence((self.plan.seed, self.fold)).generate_state(1)[0])


def distilled(labels: np.ndarray, soft: np.ndarray | None, weight: float) -> np.ndarray:
    """Return the targets of a student: a mixture of labels and the teachers' mean probabilities, float32 [m, 7].

    This is distillation (Hinton, Vinyals & Dean 2015, arXiv 1503.02531) at temperature 1. The cross-entropy with the
    mixture equals the mixture of both cross-entropies.

    Parameters
    ----------
    labels : float [m, 7], one-hot.
    soft : float [m, 7]; None returns the labels unchanged.
    weight : weight of `soft`, 0 to 1.
    """
    if soft is None:
        return labels
    mixed: np.ndarray = ((1 - weight) * labels + weight * soft).astype("float32")
    return mixed


def trainer_for(task: Task, faces: Faces, steps: int) -> "loop.Trainer":
    """Return a new trainer, or the last cell's after a reset if network, recipe, pictures and steps are the same."""
    from pipeline.training import loop

    key = (task.plan.architecture, task.recipe.model_dump_json(), task.faces, steps)
    if key in _trainers:
        _trainers[key].reset(task.seed)
    else:
        _trainers.clear()  # frees the device's memory
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
    """Train a cell, and return the contents of its files by name, with its weights under "weights".

    Parameters
    ----------
    state : path of the checkpoint, saved after each epoch; training resumes from an existing one.
    on_epoch, on_batch : see loop.fit.
    weights : content of a weights file with the same key; the cell is then predicted from it without training.
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
    """Return the content of predictions.npz.

    Parameters
    ----------
    seen : int [t], rows that the network was trained on.
    unseen : int [m], held-out rows.
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
    network = trainer.build()  # a copy, as Grad-CAM freezes its network
    network.set_weights(trainer.network.get_weights())
    arrays["attention"] = attention.class_maps(trainer.feed, network, unseen, labels)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, rows=unseen.astype("int32"), **arrays)
    return content.getvalue()


def describe(
    task: Task, network: "keras.Model", seconds: float, weights: bytes, contents: dict[str, bytes]
) -> dict[str, Any]:
    """Return the content of cell.json."""
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
    """Count the multiply-adds of one 48x48 picture in convolutions, dense layers and attention; ignore the rest."""
    import keras

    total = 0
    for layer in keras.models.clone_model(network, input_tensors=keras.Input((SIDE, SIDE, 1))).layers:
        places = int(np.prod(layer.output.shape[1:-1]))  # each kernel is applied once per place
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
