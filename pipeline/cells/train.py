"""Train networks on all folds but one, and predict the rows that they have not seen: one cell, or all stale ones.

Reads data/faces.npz, data/folds.csv, the model's plan, and a student's soft targets. Writes a cell (see cells/store.py)
and its weights. The state after every epoch is kept in artifacts/checkpoints/ until the cell is whole, so a second
start goes on from there.
"""

import json
import os
import platform
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline import config, files
from pipeline.cells import planning, soft_targets, store
from pipeline.cells.progress import Display, count, duration
from pipeline.config import Config
from pipeline.data import faces, folds
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.errors import UserError
from pipeline.training import cell, executors, machine, plan
from pipeline.training.cell import Task
from pipeline.training.plan import Plan

CHECKPOINTS = Path("artifacts/checkpoints")
AGREED = CHECKPOINTS / "agreed.json"  # keys of the cells whose training was agreed to
LONG = 600  # seconds: what takes longer is told, and asked for, first


@dataclass(frozen=True)
class Run:
    """What all cells of a run have in common."""

    settings: Config
    faces: Faces
    folds: Folds

    def task(self, name: str, fold: int) -> Task:
        """A cell, as the plan has it."""
        made = planning.load(name)
        library = machine.choose(made.backend)
        precision = machine.products(made.settings().precision, library, made.architecture)
        soft = soft_targets.load(name, fold) if made.teachers else None
        return Task(
            self.folds.rows, self.folds.fold_of, fold, made, self.faces.digest, self.folds.digest, library, precision,
            soft,
        )  # fmt: skip

    def whole(self, task: Task) -> bool:
        """Whether the cell is there, sound, and of this very task, test-time settings included."""
        try:
            found = store.load(self.settings, task.plan.model, task.fold, self.faces, self.folds).about
        except UserError:
            return False
        return found.key == task.key and found.plan.recipe == task.plan.recipe

    def finished(self, name: str, fold: int) -> bool:
        """Whether a cell is whole; one whose soft targets are missing is not."""
        with suppress(UserError):
            return self.whole(self.task(name, fold))
        return False

    def about(self, task: Task) -> store.About | None:
        """What the cell that lies there says of itself."""
        return store.about(store.folder(self.settings, task.plan.model, task.fold))

    def weights(self, task: Task) -> bytes | None:
        """The weights of an earlier training of this very task: then it need not train, only predict."""
        found, file = self.about(task), store.weights(task.plan.model, task.fold)
        if found is None or found.key != task.key or not file.exists():
            return None
        content = file.read_bytes()
        return content if files.sha256(content) == found.weights_sha256 else None

    def write(self, task: Task, contents: dict[str, bytes]) -> None:
        """Write a cell and delete its checkpoints, of whatever settings."""
        name, fold = task.plan.model, task.fold
        if not json.loads(contents["cell.json"])["seconds"]:
            raise ValueError(f"{task}: no time was taken")
        folder = store.folder(self.settings, name, fold)
        if contents["history.csv"].count(b"\n") < 2:  # it only predicted anew: history and time are the old ones
            contents = _with_history(contents, folder)
        store.write(folder, store.weights(name, fold), contents)
        for path in CHECKPOINTS.glob(f"{name}-fold{fold}-*"):
            with suppress(FileNotFoundError):
                path.unlink()


def _with_history(contents: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """A cell that was predicted anew, with the learning curve and the seconds of its training."""
    history, about = (folder / "history.csv").read_bytes(), json.loads(contents["cell.json"])
    about["seconds"] = json.loads((folder / "cell.json").read_text())["seconds"]
    about["sha256"]["history.csv"] = files.sha256(history)
    return contents | {"history.csv": history, "cell.json": files.as_json(about)}


def start() -> Run:
    """Read what all cells have in common."""
    settings, data = config.load(), faces.load()
    return Run(settings, data, folds.load(data))


def work(data: Faces, task: Task, state: Path, watched: bool, weights: bytes | None) -> dict[str, bytes]:
    """Train one cell; runs anywhere that has the package."""
    here = plan.code(plan.ingredients(task.plan.architecture, task.recipe))
    if here != task.plan.code:
        raise UserError(f"{platform.node()} has another version of the pipeline's code; install it there anew")
    shared = state.parent.parent.is_dir()  # the project's folder, or a worker of a cluster has none of it
    if not shared:
        state = Path(tempfile.gettempdir()) / "fer2013-checkpoints" / state.name
    show = Display(str(task), task.recipe.epochs, watched)
    with files.alone(state.with_suffix(".lock"), f"trains {task}"):
        try:
            contents = cell.train(data, task, state, show.epoch, show.batch, weights)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{task}: {show.done} of {task.recipe.epochs} epochs are kept") from None
    if not shared:
        state.unlink(missing_ok=True)
        state.with_suffix(".lock").unlink()
    return contents


def agree(run: Run, tasks: list[Task], yes: bool) -> None:
    """Say how many cells are to be trained and for how long; ask where it is long and a person watches.

    What was agreed to once is not asked again. Raises UserError where nobody agrees.
    """
    agreed = set()
    with suppress(*files.DAMAGE):
        agreed = set(json.loads(AGREED.read_text()))
    waiting = [task for task in tasks if run.weights(task) is None]
    took, students = planning.timings(), later(run, waiting)
    each = [took.seconds(made, len(run.folds.rows)) for made in [*(task.plan for task in waiting), *students]]
    if sum(each) < LONG or {task.key for task in waiting} <= agreed:
        return
    more = f" ({len(students)} of them of students, after the others)" if students else ""
    text = f"{count(len(each))}{more} to train, about {duration(sum(each))} of one core by the last timings"
    if not yes and sys.stdin.isatty():
        answer = input(f"{text}. Committed cells stay until new ones are whole. Go on? [y/N] ")
        yes = answer.strip().lower() in ("y", "yes")
    if not yes:
        raise UserError(f"{text}; no cell was changed. To do it: YES=1, as in YES=1 dvc repro, or make train YES=1")
    files.write_json(AGREED, sorted(agreed | {task.key for task in waiting}))


def later(run: Run, tasks: list[Task]) -> list[Plan]:
    """The plans, one a cell, of students that will be stale once these cells are trained, or are so by their plan."""
    changed, found = {task.plan.model for task in tasks}, []
    for name in set(run.settings.students) - changed:
        made = planning.load(name)
        for fold in run.settings.folds:
            about = store.about(store.folder(run.settings, name, fold))
            if changed & set(made.teachers) or about is None or about.plan.training() != made.training():
                found.append(made)
    return found


def stale(run: Run, names: list[str]) -> list[Task]:
    """The cells of these models that are not whole."""
    tasks = []
    for name in names:
        for fold in run.settings.folds:
            with suppress(UserError):  # no plan, or no soft targets yet
                tasks.append(run.task(name, fold))
    return [task for task in tasks if not run.whole(task)]


def main(model: str, fold: str, anew: bool = False, yes: bool = False) -> None:
    """Run one cell of the stage."""
    run = start()
    run.settings.model(model)
    task = run.task(model, run.settings.fold(fold))
    if run.whole(task) and not anew:
        print(f"{task} is trained already, of this very plan and data (train it all the same: --anew)")
        return
    agree(run, stale(run, run.settings.names), yes or os.environ.get("YES") == "1")
    weights = None if anew else run.weights(task)
    run.write(task, work(run.faces, task, (CHECKPOINTS / task.checkpoint).absolute(), True, weights))
    print(f"{task}: {store.folder(run.settings, model, task.fold)}")


def adopt(model: str, fold: str, why: str) -> None:
    """Take a cell that other code made as one of this code, and note why in its cell.json.

    For a change of the code that computes the same numbers, as far as this model uses it. Raises UserError where more
    than the code differs.
    """
    run = start()
    run.settings.model(model)
    task = run.task(model, run.settings.fold(fold))
    path, found = store.folder(run.settings, model, task.fold) / "cell.json", run.about(task)
    if found is None:
        raise UserError(f"{path} is missing, or its files are not those that it tells of")
    then = found.plan.model_copy(update={"code": task.plan.code})
    if then != task.plan or (found.faces, found.folds) != (task.faces, task.folds):
        raise UserError(f"{path} differs in more than the code: {planning.differences(task.plan, then) or 'the data'}")
    about = found.model_copy(update={"plan": task.plan, "key": task.key, "carried_over": why})
    files.write_json(path, about.model_dump())
    commit([task])
    print(f"{path}: taken as it is ({why})")


def main_all(jobs: int, executor: str, address: str | None, yes: bool) -> None:
    """Train every cell that is out of date, models first, then students, and let DVC have each one.

    DVC says what is out of date. Without a DVC project it is what lacks a whole cell.
    """
    executors.check(executor)
    if planning.using_dvc():
        planning.dvc("repro", "--quiet", "plan", "folds")
    else:
        planning.main()
    run = start()
    yes = yes or os.environ.get("YES") == "1"
    for stage, names in (("train", list(run.settings.models)), ("distill", list(run.settings.students))):
        if stage == "distill":
            _bring_soft_targets(names)
        cells = [(name, fold) for name in names for fold in run.settings.folds]
        if cells and planning.using_dvc():
            outdated = planning.stale_stages(stage)
            cells = [each for each in cells if store.stage(run.settings, *each) in outdated]
        wanted = [run.task(*each) for each in cells]
        commit([task for task in wanted if run.whole(task)])  # finished before a kill
        train_all(run, [task for task in wanted if not run.whole(task)], jobs, executor, address, yes)


def _bring_soft_targets(students: list[str]) -> None:
    for name in students:
        if planning.using_dvc():
            planning.dvc("repro", "--quiet", f"soft_targets@{name}")
        else:
            soft_targets.main(name)


def train_all(run: Run, tasks: list[Task], jobs: int, executor: str, address: str | None, yes: bool) -> None:
    """Train these cells, and write and commit each one as soon as it is finished."""
    print(f"{count(len(tasks))} to train", flush=True)
    if not tasks:
        return
    agree(run, tasks, yes)
    if address and any(task.plan.backend == "auto" or task.plan.settings().precision == "auto" for task in tasks):
        raise UserError(
            "params.yaml: backend and precision must not be auto for a cluster: it suits this machine alone"
        )
    words = {
        number: (task, (CHECKPOINTS / task.checkpoint).absolute(), jobs == 1, run.weights(task))
        for number, task in enumerate(tasks)
    }
    started, done = time.monotonic(), 0
    try:
        for number, contents in executors.results(work, run.faces, words, executor, jobs, address):
            run.write(tasks[number], contents)
            commit([tasks[number]])
            done += 1
            took = time.monotonic() - started
            left = duration(took / done * (len(tasks) - done))
            print(f"{tasks[number]}  finished, {done} of {len(tasks)} in {duration(took)}, {left} left", flush=True)
    except KeyboardInterrupt as stop:
        rest = str(stop) or "every whole epoch is kept"
        raise KeyboardInterrupt(f"{done} of {len(tasks)} cells are finished; {rest}") from None


def commit(tasks: list[Task]) -> None:
    """Tell DVC that these cells are what it would have made; not those that params.yaml or the code has left behind."""
    config.load.cache_clear()
    try:
        settings = config.load()
        now = {name: plan.make(settings, name) for name in settings.names}
    except UserError as trouble:  # a file is being edited; the cells that still train lose nothing by it
        print(f"{trouble}; what is finished is kept, and DVC hears of it at the next start", file=sys.stderr)
        return
    names = [
        store.stage(settings, task.plan.model, task.fold) for task in tasks if now.get(task.plan.model) == task.plan
    ]
    if names and planning.using_dvc():
        planning.dvc("commit", "--quiet", "--force", *names)
