"""Train one network on all folds but one, and let it judge the rows that it has not seen.

Reads data/faces.npz and data/folds.csv. Writes, under artifacts/ for architecture A and fold K:
models/A/foldK.weights.h5, predictions/A/foldK.npz (rows int32 [m], validation float32 [m,7], test float32 [k,7]),
histories/A/foldK.csv, and timings/A/foldK.json, the only one that differs when the same cell is trained again.
Its state after every epoch is kept in artifacts/checkpoints/ until it is done: the same command goes on from there.
"""

import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import architectures, backend, command, faces, fit, folds, params, recipe
from pipeline.command import Refusal
from pipeline.competition import TRAINING
from pipeline.faces import Faces
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    import keras

ARTIFACTS = Path("artifacts")
# Every module that has a part in a cell's result; dvc.yaml lists the same ones.
CODE = (
    "__init__", "architectures/__init__", "architectures/_blocks", "augment", "backend", "command", "competition",
    "faces", "fit", "folds", "params", "recipe", "train",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one training gives.

    Parameters
    ----------
    rows : int32 [m], the held-out Training rows. validation : float32 [m, 7], their probabilities.
    test : float32 [k, 7], probabilities of all test rows: PublicTest, then PrivateTest.
    """

    network: "keras.Model"
    rows: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    progress: fit.Progress


def paths(architecture: str, fold: int) -> dict[str, Path]:
    """Where the files of a cell lie: weights, predictions, history, timing."""
    return {
        "weights": ARTIFACTS / f"models/{architecture}/fold{fold}.weights.h5",
        "predictions": ARTIFACTS / f"predictions/{architecture}/fold{fold}.npz",
        "history": ARTIFACTS / f"histories/{architecture}/fold{fold}.csv",
        "timing": ARTIFACTS / f"timings/{architecture}/fold{fold}.json",
    }


def fingerprint(data: Faces, fold_of: np.ndarray, settings: Recipe, architecture: str, fold: int, seed: int) -> str:
    """16 hexadecimal digits of all that a cell's result depends on: data, folds, recipe, seed, code, versions."""
    digest = hashlib.sha256()
    for part in (data.pixels, data.labels, fold_of):
        digest.update(hashlib.sha256(part.tobytes()).digest())
    for module in (*CODE, f"architectures/{architecture}"):
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
    facts = [architecture, fold, seed, settings.model_dump(), backend.versions()]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def train(
    data: Faces, rows: np.ndarray, fold_of: np.ndarray, architecture: str, fold: int, settings: Recipe, seed: int
) -> Cell:
    """Train `architecture` on the `rows` of every fold but `fold`.

    Parameters
    ----------
    rows, fold_of : int [n], the Training rows of `data` and the fold of each.
    """
    held_out = fold_of == fold
    seen, unseen = rows[~held_out], rows[held_out]
    # One seed a fold, the same for every architecture, and practically never that of another run.
    cell_seed = int(np.random.SeedSequence((seed, fold)).generate_state(1)[0])
    backend.prepare(cell_seed, settings.precision)
    key = fingerprint(data, fold_of, settings, architecture, fold, seed)
    checkpoint = fit.Checkpoint(ARTIFACTS / f"checkpoints/{architecture}-fold{fold}-{key}.npz")
    forget(architecture, fold, keep=checkpoint.path)
    network = architectures.build(architecture)
    show = Display(f"{architecture} fold {fold}", settings.epochs)
    predictor, progress = fit.fit(
        network, data.pixels, seen, data.labels[seen], unseen, data.labels[unseen],
        settings, cell_seed, checkpoint, show.epoch, show.batch,
    )  # fmt: skip
    started = time.perf_counter()
    validation, test = (predictor.probabilities(part, settings.flip_at_test) for part in (unseen, data.test_rows()))
    progress.seconds += time.perf_counter() - started
    return Cell(network, unseen.astype(np.int32), validation, test, progress)


def forget(architecture: str, fold: int, keep: Path | None = None) -> None:
    """Delete the checkpoints of a cell, but `keep`: those of a finished training, or of other settings."""
    for path in (ARTIFACTS / "checkpoints").glob(f"{architecture}-fold{fold}-*"):
        if path != keep:
            path.unlink()


class Display:
    """Says how far a training is: one line an epoch, and within it a percentage where a person watches."""

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.epochs = epochs
        self.done = 0
        self.started = time.monotonic()
        self.shown = 0.0

    def batch(self, part: float) -> None:
        """Overwrite the line with the finished part of this epoch, at most five times a second."""
        now = time.monotonic()
        if sys.stdout.isatty() and now - self.shown > 0.2:
            self.shown = now
            print(f"\r{self.name}  epoch {self.done + 1}/{self.epochs}  {part:4.0%} ", end="", flush=True)

    def epoch(self, progress: fit.Progress) -> None:
        """Print the line of the epoch that has just ended, with the time that the others will take."""
        if not self.done and len(progress.history) > 1:
            print(f"{self.name}  went on from epoch {len(progress.history) - 1}")
        self.done = len(progress.history)
        last = progress.history[-1]
        mean = progress.seconds / self.done
        start = "\r" if sys.stdout.isatty() else ""
        print(
            f"{start}{self.name}  epoch {self.done:>{len(str(self.epochs))}}/{self.epochs}  "
            f"loss {last['loss']:.4f}  accuracy {last['accuracy']:6.2%}  "
            f"validation loss {last['val_loss']:.4f}  accuracy {last['val_accuracy']:6.2%}  "
            f"{mean:.0f} s an epoch, {span(mean * (self.epochs - self.done))} left",
            flush=True,
        )


def span(seconds: float) -> str:
    """A duration as people say it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def write(cell: Cell, files: dict[str, Path]) -> None:
    """Write a cell's files, the timing last."""
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    cell.network.save_weights(files["weights"])
    np.savez(files["predictions"], rows=cell.rows, validation=cell.validation, test=cell.test)
    pd.DataFrame(cell.progress.history).to_csv(files["history"], index=False, float_format="%.6g")
    timing = {
        "seconds": round(cell.progress.seconds, 1),
        "parameters": cell.network.count_params(),
        **backend.versions(),
    }
    files["timing"].write_text(json.dumps(timing, indent=2) + "\n")


def main(architecture: str, fold: str) -> None:
    """Run one cell of the stage."""
    numbers = folds.numbers()
    if fold not in map(str, numbers):
        raise Refusal(f"there is no fold {fold!r}; {params.PATH} has {', '.join(map(str, numbers))}")
    settings, number = recipe.read(architecture), int(fold)
    rows, fold_of = folds.load()
    data = faces.load()
    if not np.array_equal(rows, data.rows(TRAINING)):
        raise Refusal(f"{folds.PATH} is not of these faces; make it again with: dvc repro -f folds")
    cell = train(data, rows, fold_of, architecture, number, settings, params.seed())
    write(cell, paths(architecture, number))
    forget(architecture, number)


if __name__ == "__main__":
    command.run(main, "python -m pipeline.train ARCHITECTURE FOLD")
