"""Train networks on all folds but one, and let them judge the rows that they have not seen: one cell, or all of them.

Reads data/faces.npz and data/folds.csv. Writes, under artifacts/ for architecture A and fold K:
models/A/foldK.weights.h5 and models/A/foldK.json (what one must know to use them), predictions/A/foldK.npz (rows int32
[m], validation float32 [m,7], test float32 [k,7], and validation_plain and test_plain, the same without test-time
augmentation), histories/A/foldK.csv, and timings/A/foldK.json, the only one that differs when the same cell is trained
again.
A cell's state after every epoch is kept in artifacts/checkpoints/ until it is done: a second start goes on from there.

Without ARCHITECTURE and FOLD every cell is trained whose files are missing or were made from something else (then let
DVC have them: dvc commit -f train). JOBS=n trains n cells at a time; BACKEND=loky (processes of this machine), dask or
ray says where, and ADDRESS=... names the cluster's scheduler (without it, Dask and Ray start one on this machine).
"""

import hashlib
import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline import architectures, command, files, params, recipe
from pipeline.command import Refusal
from pipeline.competition import CLASSES
from pipeline.data import faces, folds
from pipeline.data.faces import Faces
from pipeline.recipe import Recipe
from pipeline.training import backend, cells, executors, machine

if TYPE_CHECKING:
    pass

CHECKPOINTS = cells.ARTIFACTS / "checkpoints"
# Every module that has a part in a cell's result; dvc.yaml lists the same ones.
CODE = (
    "__init__", "architectures/__init__", "architectures/_blocks", "augment", "backend", "command", "competition",
    "engine", "faces", "files", "fit", "folds", "machine", "params", "recipe", "train", "trained",
)  # fmt: skip
_kept: dict[tuple[str, str, bytes, int], "fit.Trainer"] = {}  # the last one alone
_one_at_a_time = threading.Lock()  # Keras's names and seeds belong to the process


@dataclass(frozen=True)
class Cell:
    """One training: a network, the fold that it does not see, and all else that it depends on but the data and code.

    Parameters
    ----------
    library : what runs under Keras. settings : with a precision that is not "auto". key : see `fingerprint`.
    lesson : of a student.
    """

    architecture: str
    fold: int
    seed: int
    library: str
    settings: Recipe
    key: str = ""
    code: str = ""  # digest of the modules that have a part in it
    lesson: recipe.Lesson | None = None

    def __str__(self) -> str:
        return f"{self.architecture} fold {self.fold}"

    def paths(self) -> dict[str, Path]:
        """Where its files lie, in the order in which they are written."""
        return {kind: cells.path(kind, self.architecture, self.fold) for kind in cells.PLACES}

    def checkpoint(self) -> Path:
        """Where its state is kept. Unlike `key`, the name tells what computes, too: bits from elsewhere do not mix."""
        device = "gpu" if machine.gpus() else platform.machine()
        facts = [self.key, self.settings.precision, machine.versions(self.library), device]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return CHECKPOINTS / f"{self.checkpoints}{digest[:16]}.npz"

    @property
    def checkpoints(self) -> str:
        """How the names of all its checkpoints begin, under whatever settings."""
        return f"{'students/' if self.lesson else ''}{self.architecture}-fold{self.fold}-"

    def about(self) -> dict[str, Any]:
        """What goes with its weights."""
        return {
            "architecture": self.architecture, "classes": list(CLASSES), "recipe": self.settings.model_dump(),
            "fold": self.fold, "seed": self.seed,
            **(self.lesson.model_dump() if self.lesson else {}),
        }  # fmt: skip

    def done(self) -> bool:
        """Whether its files are there, belong together, and were made from what it depends on now."""
        paths = self.paths()
        try:
            timing = json.loads(paths["timing"].read_text())
            # Git brings all but the weights; those that lie here may be of another training.
            same = hashlib.sha256(paths["weights"].read_bytes()).hexdigest() == timing["weights"]
            return timing["key"] == self.key and same and all(map(Path.exists, paths.values()))
        except (OSError, ValueError, KeyError, TypeError):
            return False


def fingerprint(
    data: Faces, fold_of: np.ndarray, settings: Recipe, architecture: str, fold: int, seed: int, wanted: str,
    lesson: recipe.Lesson | None = None,
) -> str:  # fmt: skip
    """16 hexadecimal digits of all that a cell depends on in this project, as DVC sees it: data, folds, params, code.

    Parameters
    ----------
    settings, wanted : recipe and backend, as params.yaml has them. lesson : see Cell.
    """
    digest = hashlib.sha256(data.digest + fold_of.tobytes())
    facts = [code_digest(architecture), architecture, fold, seed, wanted, settings.model_dump()]
    if lesson:
        path = cells.lessons(fold)
        facts += [lesson.model_dump(), hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def code_digest(architecture: str) -> str:
    """16 hexadecimal digits of all modules that have a part in a cell of `architecture`."""
    folder = Path(__file__).parent
    modules = [folder / f"{module}.py" for module in (*CODE, f"architectures/{architecture}")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()[:16]


def plan(data: Faces, fold_of: np.ndarray, architecture: str, fold: int, library: str) -> Cell:
    """The cell of `architecture` and `fold` as params.yaml describes it, to be trained by `library`."""
    settings, seed = recipe.read(architecture), params.seed()
    lesson = recipe.lesson(architecture)
    key = fingerprint(data, fold_of, settings, architecture, fold, seed, params.backend(), lesson)
    exact = settings.model_copy(update={"precision": machine.products(settings.precision, library, architecture)})
    return Cell(architecture, fold, seed, library, exact, key, code_digest(architecture), lesson)


def answers(labels: np.ndarray, said: np.ndarray, taught: float) -> np.ndarray:
    """What a student learns: the labels, with its teachers' answers mixed in, float32 [m, 7].

    This is Hinton, Vinyals & Dean 2015 (arXiv 1503.02531) at temperature 1: the cross-entropy with the mixture is the
    mixture of both cross-entropies.

    Parameters
    ----------
    labels : int [m]. said : float [m, 7], probabilities. taught : their part, 0 to 1.
    """
    mixed: np.ndarray = (1 - taught) * np.eye(len(CLASSES), dtype="float32")[labels] + taught * said
    return mixed.astype("float32")


def _trainer(cell: Cell, data: Faces, seed: int, steps: int) -> "fit.Trainer":
    """A trainer as new: where the cell before had the same network, recipe, pictures and steps, its own, set back."""
    from pipeline.training import loop

    key = (cell.architecture, cell.settings.model_dump_json(), data.digest, steps)
    if key in _kept:
        _kept[key].reset(seed)
    else:
        _kept.clear()  # and with it the device's memory
        _kept[key] = loop.Trainer(
            lambda: architectures.build(cell.architecture), data.pixels, cell.settings, seed, steps
        )
    return _kept[key]


def train(
    data: Faces, rows: np.ndarray, fold_of: np.ndarray, cell: Cell, checkpoint: Path, watched: bool = False,
    said: np.ndarray | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """Train `cell` on the `rows` of every fold but its own. Runs anywhere that has the package.

    Parameters
    ----------
    rows, fold_of : int [n], the Training rows of `data` that take part, and the fold of each.
    checkpoint : where the state after each epoch goes; a state that lies there is gone on from.
    watched : whether the finished part of each epoch shall be shown too.
    said : for a student, float [m, 7], what its teachers say of those rows.

    Returns
    -------
    The content of the cell's files, in the order of cells.PLACES.
    """
    with _one_at_a_time, ExitStack() as stack:
        if cell.code != code_digest(cell.architecture):
            raise Refusal(f"{platform.node()} has another version of the pipeline's code; install it there anew")
        if not checkpoint.parents[2].is_dir():  # a worker that does not share the project's folder
            checkpoint = Path(tempfile.gettempdir()) / "fer2013-checkpoints" / checkpoint.name
            stack.callback(checkpoint.unlink, missing_ok=True)
        machine.claim_gpu()
        backend.start(cell.library, cache_folder=checkpoint.parent.absolute() / "compiled")
        from pipeline.training import augment, loop

        held_out = fold_of == cell.fold
        seen, unseen = rows[~held_out], rows[held_out]
        # One seed a fold, the same for every architecture, and practically never that of another run.
        seed = int(np.random.SeedSequence((cell.seed, cell.fold)).generate_state(1)[0])
        learned = data.labels[seen]
        if (cell.lesson is None) != (said is None):
            raise ValueError(f"{cell}: a student, and nobody else, learns from what its teachers say")
        if cell.lesson is not None and said is not None:
            learned = answers(learned, said, cell.lesson.taught)
        trainer = _trainer(cell, data, seed, len(seen) // cell.settings.batch_size)
        show = Display(str(cell), cell.settings.epochs, watched, judged=len(unseen) > 0)
        try:
            progress = loop.fit(
                trainer, seen, learned, unseen, data.labels[unseen], seed, loop.Checkpoint(checkpoint),
                show.epoch, show.batch,
            )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{cell}: {show.done} of {cell.settings.epochs} epochs are kept") from None
        started = time.perf_counter()
        views = {
            part: trainer.predictor.views(numbers, augment.views(cell.settings))
            for part, numbers in (("validation", unseen), ("test", data.test_rows()))
        }
        progress.seconds += time.perf_counter() - started
        predictions = io.BytesIO()
        arrays = {part: view.mean(axis=0) for part, view in views.items()}
        plain = {f"{part}_plain": view[0] for part, view in views.items()}
        np.savez(predictions, rows=unseen.astype(np.int32), **arrays, **plain)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "cell.weights.h5"
            trainer.network.save_weights(weights)
            timing = {
                "seconds": round(progress.seconds, 1),
                "parameters": trainer.network.count_params(),
                "key": cell.key,
                "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
                "precision": cell.settings.precision,
                **machine.versions(cell.library),
                "processor": machine.processor(),
            }
            contents = (
                weights.read_bytes(),
                files.as_json(cell.about()),
                predictions.getvalue(),
                pd.DataFrame(progress.history).to_csv(index=False, float_format="%.6g").encode(),
                files.as_json(timing),
            )
        return dict(zip(cells.PLACES, contents, strict=True))


class Display:
    """Says how far a training is: one line an epoch, and within it a percentage where a person watches.

    Parameters
    ----------
    judged : whether there are held-out rows, to tell of.
    """

    def __init__(self, name: str, epochs: int, watched: bool, judged: bool = True) -> None:
        self.name = name
        self.epochs = epochs
        self.watched = watched and sys.stdout.isatty()
        self.judged = judged
        self.done = 0
        self.shown = 0.0

    def batch(self, part: float) -> None:
        """Overwrite the line with the finished part of this epoch, at most five times a second."""
        now = time.monotonic()
        if self.watched and now - self.shown > 0.2:
            self.shown = now
            print(f"\r{self.name}  epoch {self.done + 1}/{self.epochs}  {part:4.0%} ", end="", flush=True)

    def epoch(self, progress: "fit.Progress") -> None:
        """Print the line of the epoch that has just ended, with the time that the others will take."""
        if not self.done and len(progress.history) > 1:
            print(f"{self.name}  went on from epoch {len(progress.history) - 1}")
        self.done = len(progress.history)
        last = progress.history[-1]
        mean = progress.seconds / self.done
        start = "\r" if self.watched else ""
        held_out = f"validation loss {last['val_loss']:.4f}  accuracy {last['val_accuracy']:6.2%}  "
        print(
            f"{start}{self.name}  epoch {self.done:>{len(str(self.epochs))}}/{self.epochs}  "
            f"loss {last['loss']:.4f}  accuracy {last['accuracy']:6.2%}  "
            f"{held_out if self.judged else ''}"
            f"{mean:.0f} s an epoch, {span(mean * (self.epochs - self.done))} left",
            flush=True,
        )


def span(seconds: float) -> str:
    """A duration as people say it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def write(cell: Cell, contents: dict[str, bytes]) -> None:
    """Write a cell's files, the timing last, and delete its checkpoint."""
    cell.paths()["timing"].unlink(missing_ok=True)  # it would speak for files that are not its own
    for kind, path in cell.paths().items():
        files.write(path, contents[kind])
    forget(f"{cell.checkpoints}*")


def forget(pattern: str, keep: frozenset[Path] = frozenset()) -> None:
    """Delete the checkpoints with such a name but `keep`: those of finished trainings, and of other settings."""
    for path in CHECKPOINTS.glob(pattern):
        # A file that is being written belongs to somebody, for a while.
        with suppress(FileNotFoundError):  # it may have become a checkpoint since
            left_over = path.suffix == ".part" and time.time() - path.stat().st_mtime > 3600
            if path not in keep and (path.suffix == ".npz" or left_over):
                path.unlink()


def said(cell: Cell, rows: np.ndarray, fold_of: np.ndarray) -> np.ndarray | None:
    """What the teachers of `cell` say of the rows that it sees; None where it has none."""
    return cells.said(cell.fold, cell.lesson.teachers, rows[fold_of != cell.fold]) if cell.lesson else None


def train_all(
    data: Faces, rows: np.ndarray, fold_of: np.ndarray, cells: list[Cell], where: str, jobs: int, address: str | None
) -> None:
    """Train `cells` (see `executors.results` for the rest), and write each one's files as soon as it is finished."""
    tasks = {
        number: (rows, fold_of, cell, cell.checkpoint().absolute(), jobs == 1, said(cell, rows, fold_of))
        for number, cell in enumerate(cells)
    }
    started, done = time.monotonic(), 0
    try:
        for number, contents in executors.results(train, data, tasks, where, jobs, address):
            write(cells[number], contents)
            accept([cells[number]])
            done += 1
            took = time.monotonic() - started
            print(
                f"{cells[number]}  finished, cell {done} of {len(cells)} in {span(took)}, "
                f"about {span(took / done * (len(cells) - done))} left",
                flush=True,
            )
    except KeyboardInterrupt as stop:
        rest = str(stop) or "every whole epoch is kept"
        raise KeyboardInterrupt(f"{done} of {len(cells)} cells are finished; {rest}") from None


def accept(cells: list[Cell]) -> None:
    """Tell DVC, where it is in use, that the files of those `cells` that are done are what it would have made.

    Not of those that params.yaml, the data or the code have left behind while they were trained.
    """
    params.document.cache_clear()
    try:
        names = [name for name in recipe.names() if name in {cell.architecture for cell in cells}]
        now = {(cell.architecture, cell.fold): cell.key for cell in planned(names)[3]}
    except Refusal as trouble:  # a file is being edited; the cells that still train lose nothing by it
        print(f"{trouble}; what is finished is kept, and DVC hears of it at the next start", file=sys.stderr)
        return
    done = [
        f"{'distill' if cell.lesson else 'train'}@{cell.architecture}-{cell.fold}"
        for cell in cells
        if cell.done() and now.get((cell.architecture, cell.fold)) == cell.key
    ]
    if done and Path(".dvc").is_dir() and Path("dvc.yaml").exists() and importlib.util.find_spec("dvc"):
        words = [sys.executable, "-m", "dvc", "commit", "--quiet", "--force", *done]
        if subprocess.run(words, check=False).returncode:
            print(f"DVC did not take what is finished; later run: dvc commit -f {' '.join(done)}", file=sys.stderr)


def planned(names: list[str] | None = None) -> tuple[Faces, np.ndarray, np.ndarray, list[Cell]]:
    """The faces, the Training rows, the fold of each, and the cells of `names` (None: of all but students)."""
    library, names = machine.choose(params.backend()), recipe.untaught() if names is None else names
    data = faces.load()
    rows, fold_of = folds.load(data)
    cells = [plan(data, fold_of, name, number, library) for name in names for number in folds.numbers()]
    return data, rows, fold_of, cells


def run(known: list[str], name: str | None, fold: str | None) -> None:
    """Train a cell of `name`, or without `fold` all of its cells that are out of date, or without `name` of `known`."""
    if name is not None and name not in known:
        raise Refusal(f"{params.PATH} has no architecture {name!r} here; there are {', '.join(known) or 'none'}")
    number = None if fold is None else folds.number(fold)
    where, address, at_a_time = os.environ.get("BACKEND") or "loky", os.environ.get("ADDRESS") or None, jobs()
    executors.check(where)
    data, rows, fold_of, every = planned(known)
    cells = [cell for cell in every if name in (None, cell.architecture) and number in (None, cell.fold)]
    if number is not None:
        (cell,) = cells
        forget(f"{cell.checkpoints}*", keep=frozenset({cell.checkpoint()}))
        heard = said(cell, rows, fold_of)
        write(cell, train(data, rows, fold_of, cell, cell.checkpoint(), watched=True, said=heard))
        return
    stale = [cell for cell in cells if not cell.done()]
    wanted = {recipe.read(cell.architecture).precision for cell in stale}
    if address and "auto" in {os.environ.get("KERAS_BACKEND") or params.backend(), *wanted}:
        raise Refusal(
            f"{params.PATH}: backend and precision must not be auto for a cluster: it suits this machine alone"
        )
    beginning = "students/" if cells and cells[0].lesson else ""
    forget(f"{beginning}{name + '-fold' if name else ''}*", frozenset(cell.checkpoint() for cell in stale))
    print(f"{len(stale)} of {len(cells)} cells are out of date", flush=True)
    accept(cells)  # what was finished when an earlier run was killed
    train_all(data, rows, fold_of, stale, where, at_a_time, address)


def main(architecture: str | None = None, fold: str | None = None) -> None:
    """Run one cell of the stage, or all that are out of date."""
    run(recipe.untaught(), architecture, fold)


def jobs() -> int:
    """How many cells to train at a time, from the environment's JOBS."""
    text = os.environ.get("JOBS") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(f"JOBS={text}: must be a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    from pipeline.stages import train as importable

    command.run(importable.main, "python -m pipeline.stages.train [ARCHITECTURE] [FOLD]")
