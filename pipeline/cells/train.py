"""Training of some or all stale cells: train on all folds except one, and predict the held-out and test rows.

Reads data/faces.npz, data/folds/, the model's plan, and the soft targets of a student. Writes a cell (see
cells/store.py) and its weights. A checkpoint of each epoch is kept in artifacts/checkpoints/ until the cell is
complete, so an interrupted training resumes.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import config, files
from pipeline.cells import planning, soft_targets, store
from pipeline.cells.progress import Display, count, duration
from pipeline.competition import TRAINING
from pipeline.data import faces, folds
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.errors import UserError
from pipeline.training import cell, executors, machine, plan
from pipeline.training.cell import Task

CHECKPOINTS = Path("artifacts/checkpoints")
LONG = 600  # seconds; a longer training needs approval


@dataclass(frozen=True)
class Run:
    """Settings and data that all cells of a run share, with the folds of every model."""

    settings: config.Config
    faces: Faces
    folds: dict[str, Folds]

    def task(self, name: str, fold: int) -> Task:
        """Return the task of training a cell, according to the plan of its model."""
        model = planning.load(name)
        library = machine.choose(model.backend)
        precision = machine.products(model.settings().precision, library, model.architecture)
        assignment = self.folds[name]
        soft = soft_targets.load(name, fold, assignment.digest) if model.teachers else None
        return Task(
            assignment.rows, assignment.fold_of, fold, model, self.faces.digest, assignment.digest, library, precision,
            soft,
        )  # fmt: skip

    def is_complete(self, task: Task) -> bool:
        """Return whether a valid cell matching the task exists, including its test-time settings."""
        name = task.plan.model
        with suppress(UserError):
            about = store.load(self.settings, name, task.fold, self.faces, self.folds[name]).about
            return about.key == task.key and about.plan.recipe == task.plan.recipe
        return False

    def finished(self, name: str, fold: int) -> bool:
        """Return whether a cell is complete. A cell without plan or soft targets is not."""
        with suppress(UserError):
            return self.is_complete(self.task(name, fold))
        return False

    def keeps(self, name: str) -> bool:
        """Return whether a student that cannot be trained has valid cells of its plan and of the data."""
        if not soft_targets.absent(name):
            return False
        with suppress(UserError):
            cells = [store.load(self.settings, name, fold, self.faces, self.folds[name])
                     for fold in self.settings.folds_of(name)]  # fmt: skip
            return all(cell.about.plan == planning.load(name) for cell in cells)
        return False

    def weights(self, task: Task) -> bytes | None:
        """Return the weights of an earlier training matching the task, or None. They make a new training needless."""
        about = store.about(store.folder(self.settings, task.plan.model, task.fold))
        return store.usable_weights(about) if about and about.key == task.key else None

    def write(self, task: Task, contents: dict[str, bytes]) -> None:
        """Write a cell, and delete its checkpoints, including those with other settings."""
        name, fold = task.plan.model, task.fold
        folder = store.folder(self.settings, name, fold)
        if contents["history.csv"].count(b"\n") < 2:  # only predicted again: keep history and training time
            contents = _with_history(contents, folder)
        store.write(folder, store.weights(name, fold), contents)
        for path in CHECKPOINTS.glob(f"{name}-fold{fold}-*"):
            path.unlink(missing_ok=True)


def _with_history(contents: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """Return the contents of a cell that was predicted again, with history and facts of its original training."""
    history, new = (folder / "history.csv").read_bytes(), json.loads(contents["cell.json"])
    about = json.loads((folder / "cell.json").read_text())
    about |= {key: new[key] for key in ("plan", "weights_sha256", "sha256")}
    about["sha256"]["history.csv"] = files.sha256(history)
    return contents | {"history.csv": history, "cell.json": files.as_json(about)}


def start() -> Run:
    """Load the settings and data that all cells share. Raises UserError if the folds of a model are unusable."""
    settings, data = config.load(), faces.load()
    return Run(settings, data, {name: folds.load(data, name) for name in settings.names})


def work(data: Faces, task: Task, state: Path, watched: bool, weights: bytes | None) -> dict[str, bytes]:
    """Train one cell and return its files, on this machine or on a worker of a cluster."""
    if plan.code(plan.ingredients(task.plan.architecture, task.recipe)) != task.plan.code:
        raise UserError(f"{platform.node()} has another version of the pipeline's code; install this version there")
    shared = state.parent.parent.is_dir()  # a worker of a cluster may have no access to the project's folder
    if not shared:
        state = Path(tempfile.gettempdir()) / "fer2013-checkpoints" / state.name
    show = Display(str(task), task.recipe.epochs, watched)
    with files.locked(state.with_suffix(".lock"), f"trains {task}"):
        try:
            contents = cell.train(data, task, state, show.epoch, show.batch, weights)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{task}: {show.done} of {task.recipe.epochs} epochs are kept") from None
    if not shared:
        state.unlink(missing_ok=True)
        state.with_suffix(".lock").unlink()
    return contents


def require_approval(run: Run, tasks: list[Task], yes: bool, retrain: bool = False, alone: bool = False) -> None:
    """Raise UserError, with the number of cells and the estimated time, if a long training is not approved.

    Unless `alone`, the cells of students whose teachers will be trained are included.
    """
    waiting = [task.plan for task in tasks if retrain or run.weights(task) is None]
    changed = {model.model for model in waiting}
    for name, student in run.settings.students.items():
        if changed & {*student.teachers} and not alone:
            soft_targets.require(name, changed)
            waiting = [model for model in waiting if model.model != name]
            waiting += [planning.load(name)] * len(run.settings.folds_of(name))
    times, rows = planning.timings(), len(run.faces.rows(TRAINING))
    seconds = sum(planning.estimate(times, model, rows) for model in waiting)
    if seconds > LONG and not yes:
        raise UserError(
            f"{count(len(waiting))} to train, about {duration(seconds)} of one core by the last timings; existing "
            "cells are kept until the new ones are complete. To allow it: make train YES=1, make repro YES=1, "
            "YES=1 dvc repro, or python -m pipeline train with --yes"
        )


def stale(run: Run) -> list[Task]:
    """Return the tasks whose cells are not complete."""
    tasks = []
    for name, fold in run.settings.cells:
        with suppress(UserError):  # plan or soft targets are missing
            tasks.append(run.task(name, fold))
    return [task for task in tasks if not run.is_complete(task)]


def main(
    model: str, fold: str | None = None, jobs: int = 1, executor: str = "loky", address: str | None = None,
    retrain: bool = False, yes: bool = False,
) -> None:  # fmt: skip
    """Run the stage of a model: train its stale cells, or one of them. DVC is not told: it may have started this."""
    run = start()
    _require_current_plan(run, model)
    if run.keeps(model) and not retrain:
        print(f"up to date: {model}, which cannot be trained again before its teachers")
        return
    numbers = run.settings.some_folds(model, fold) if fold else run.settings.folds_of(model)
    tasks = [run.task(model, number) for number in numbers]
    wanted = [task for task in tasks if retrain or not run.is_complete(task)]
    if not wanted:
        print(f"up to date: {', '.join(map(str, tasks)) if fold else model}; to retrain, add --retrain")
        return
    alone = retrain or bool(fold)
    require_approval(run, wanted if alone else stale(run), yes, retrain, alone)
    for _ in trained(run, wanted, jobs, executor, address, retrain):
        pass


def _is_current(settings: config.Config, model: str) -> bool:
    """Return whether the plan of a model agrees with params.yaml and the code."""
    return plan.make(settings, model) == planning.load(model)


def _require_current_plan(run: Run, model: str) -> None:
    if not _is_current(run.settings, model):
        raise UserError(f"{planning.path(model)} is older than params.yaml or the code; make it with: dvc repro plan")


def adopt(model: str, fold: str, why: str) -> None:
    """Mark cells made by other code as up to date, and record the reason in their cell.json.

    Intended for changes of the code that do not change the numbers of this model. Raises UserError if anything else
    differs.
    """
    run = start()
    _require_current_plan(run, model)
    for task in [run.task(model, number) for number in run.settings.some_folds(model, fold)]:
        path = store.folder(run.settings, model, task.fold) / "cell.json"
        about = store.about(path.parent)
        if about is None:
            raise UserError(f"{path} is missing or damaged, or another file of the cell is; train the cell instead")
        then = about.plan.model_copy(update={"code": task.plan.code})
        if then != task.plan or replace(task, plan=about.plan).key != about.key:
            changes = planning.differences(task.plan, then) or "the data or the soft targets"
            raise UserError(f"{path} differs in more than the code: {changes}")
        adopted = about.model_copy(update={"plan": task.plan, "key": task.key, "carried_over": why})
        files.write_json(path, adopted.model_dump())
        print(f"{path}: marked as up to date ({why})")
    commit(run, [model])


def main_all(jobs: int, executor: str, address: str | None, yes: bool) -> None:
    """Train every stale cell, first of models, then of students, and commit each complete model to DVC.

    DVC determines which cells are stale. Outside a DVC project, all incomplete cells are stale.
    """
    executors.check(executor)
    if planning.using_dvc():
        planning.dvc("repro", "--quiet", "plan", "folds")
    else:
        planning.main()
        folds.main()
    run = start()
    for stage, names in (("train", list(run.settings.models)), ("distill", list(run.settings.students))):
        if names and stage == "distill":
            if planning.using_dvc():
                planning.dvc("repro", "--quiet", "soft_targets")
            else:
                for name in names:
                    soft_targets.main(name)
            names = [name for name in names if not run.keeps(name)]
        if names and planning.using_dvc():
            outdated = planning.stale_stages(stage)
            names = [name for name in names if store.stage(run.settings, name) in outdated]
        commit(run, names)  # finished, but not committed before a kill
        tasks = [run.task(name, fold) for name in names for fold in run.settings.folds_of(name)]
        tasks = [task for task in tasks if not run.is_complete(task)]
        require_approval(run, tasks, yes)
        print(f"{'models' if stage == 'train' else 'students'}: {count(len(tasks))} to train", flush=True)
        for task in trained(run, tasks, jobs, executor, address) if tasks else ():
            commit(run, [task.plan.model])


def trained(
    run: Run, tasks: list[Task], jobs: int, executor: str, address: str | None, retrain: bool = False
) -> Iterator[Task]:
    """Train these cells. Write and yield each one as soon as it is finished."""
    if address and any(task.plan.backend == "auto" or task.plan.settings().precision == "auto" for task in tasks):
        raise UserError("params.yaml: set backend and precision; auto selects them for this machine, not for a cluster")
    arguments = {
        number: (task, (CHECKPOINTS / task.checkpoint).absolute(), jobs == 1, None if retrain else run.weights(task))
        for number, task in enumerate(tasks)
    }
    started, done = time.monotonic(), 0
    try:
        for number, contents in executors.results(work, run.faces, arguments, executor, jobs, address):
            run.write(tasks[number], contents)
            done += 1
            elapsed = time.monotonic() - started
            left = duration(elapsed / done * (len(tasks) - done))
            print(f"{tasks[number]}  finished, {done} of {len(tasks)} in {duration(elapsed)}, {left} left", flush=True)
            yield tasks[number]
    except KeyboardInterrupt as interrupt:
        kept = str(interrupt) or "completed epochs are kept"
        raise KeyboardInterrupt(f"{done} of {len(tasks)} cells are finished; {kept}") from None


def commit(run: Run, names: list[str]) -> None:
    """Commit to DVC those of these models whose cells are all complete, by the present params.yaml and code."""
    config.load.cache_clear()
    try:
        now = replace(run, settings=config.load())
        complete = [
            name for name in names
            if name in now.settings.names and _is_current(now.settings, name)
            and all(now.finished(name, fold) for fold in now.settings.folds_of(name))
        ]  # fmt: skip
        if complete and planning.using_dvc():
            planning.dvc("commit", "--quiet", "--force", *(store.stage(now.settings, name) for name in complete))
    except UserError as error:  # a file is being edited, or DVC is busy, which must not stop running trainings
        print(f"{error}; finished cells are kept, and committed to DVC at the next start", file=sys.stderr)
