"""Plans of all models, and the list of stale cells with reasons and estimated training time.

Reads params.yaml and the code. Writes artifacts/plan/MODEL.json, which changes only if a key in use or code that
computes the cells changes.
"""

import json
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

from pipeline import config, files
from pipeline.cells import progress, store
from pipeline.command import python
from pipeline.errors import UserError
from pipeline.training import plan
from pipeline.training.plan import Plan

if TYPE_CHECKING:
    from pipeline.cells.train import Run

PLANS = Path("artifacts/plan")


def path(name: str) -> Path:
    """Return the path of the plan of a model."""
    return PLANS / f"{name}.json"


def load(name: str) -> Plan:
    """Load the plan of a model. Raises UserError if it is missing or damaged."""
    with files.reading(path(name), "dvc repro plan"):
        return Plan.model_validate_json(path(name).read_bytes())


def main() -> None:
    """Run the stage."""
    settings = config.load()
    for name in settings.names:
        files.write_json(path(name), plan.make(settings, name).model_dump())
    files.remove_others(PLANS, ".json", settings.names)
    print(f"{PLANS}/: {len(settings.names)} models, {len(settings.cells)} cells")


def using_dvc() -> bool:
    """Return whether the working directory is a DVC project."""
    return Path(".dvc").is_dir() and Path("dvc.yaml").exists()


def dvc(*words: str, capture: bool = False) -> str:
    """Run DVC, and return its output if `capture`. Raises UserError if it fails; DVC prints the cause."""
    lock = Path(".dvc/tmp/rwlock")
    if lock.exists() and not lock.stat().st_size:
        raise UserError(f"{lock} is empty, probably after a power failure; if no other DVC is running: rm {lock}")
    return python("dvc", *words, capture=capture)


def stale_stages(*targets: str) -> set[str]:
    """Return the stages among `targets` that are out of date according to DVC, like "train@deep_vgg"."""
    text = dvc("status", "--json", *targets, capture=True)
    return set(json.loads(text[text.index("{") :]))


def differences(now: Plan, then: Plan) -> str:
    """Describe the differences between two plans: first keys of the recipe, then definitions in the code."""
    keys = (*config.Recipe.model_fields, "architecture", "seed", "backend", "teachers", "teacher_weight")
    try:
        new, old = (plan.model_dump() | plan.settings().model_dump() for plan in (now, then))
    except ValueError:
        return "a recipe of another version"
    found = [f"{key} {old[key]} -> {new[key]}" for key in keys if new[key] != old[key]]
    changed = sorted(key for key in {*now.code, *then.code} if now.code.get(key) != then.code.get(key))
    if changed:
        more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
        found.append(f"code of {', '.join(key.rpartition('.')[2] for key in changed[:2])}{more}")
    return "; ".join(found)


ROWS = 22967  # four of five folds of the competition's Training rows
SECONDS_A_ROW = 60 / ROWS  # per epoch, of a large network on one core; used while there are no cells


def timings() -> dict[str, float]:
    """Return the median seconds per epoch of the existing cells, by architecture and by model."""
    paths = [*store.CELLS.glob("*/*/cell.json"), *store.STUDENTS.glob("*/*/cell.json")]
    cells = [about for path in paths if (about := store.about(path.parent)) and about.seconds > 0]
    seconds = pd.Series([about.seconds / about.plan.recipe["epochs"] for about in cells], dtype=float)
    names = [[getattr(about.plan, key) for about in cells] for key in ("architecture", "model")]
    by_architecture, by_model = (dict(seconds.groupby(each).median()) for each in names)
    return by_architecture | by_model


def estimate(times: dict[str, float], model: Plan, rows: int = ROWS) -> float:
    """Estimate the seconds of training a cell.

    Without a cell of the model, those of its architecture are used, then those of all models, then SECONDS_A_ROW.

    Parameters
    ----------
    times : result of `timings`.
    """
    default = median(times.values()) if times else rows * SECONDS_A_ROW
    return times.get(model.model, times.get(model.architecture, default)) * model.settings().epochs


AGAIN = "predicted again with its weights"
OTHER_DATA = "different faces, folds or soft targets"


def why(settings: config.Config, name: str, fold: int, now: Plan) -> str:
    """Return the reason why a cell that DVC reports as outdated is stale, and what training will do."""
    about = store.about(store.folder(settings, name, fold))
    if about is None:
        exists = (store.folder(settings, name, fold) / "cell.json").exists()
        return "damaged; restore a committed cell with git checkout" if exists else "not trained yet"
    changed = differences(now, about.plan)
    if changed and about.plan.training() == now.training():
        lost = "retrained, as its weights are missing or different"
        return f"{changed}: {AGAIN if store.usable_weights(about) else lost}"
    return changed or OTHER_DATA


def _add_soft_targets(settings: config.Config) -> None:
    """Compute missing soft targets, as in a clone, of the students whose teachers are complete."""
    from pipeline.cells import soft_targets  # which imports this module

    for name, student in settings.students.items():
        cells = [store.folder(settings, each, fold) for each in student.teachers for fold in settings.folds_of(each)]
        if not soft_targets.path(name).exists() and all(map(store.about, cells)):
            with suppress(UserError):  # cells of other folds
                dvc("repro", "--quiet", "--single-item", f"soft_targets@{name}")


def show() -> None:
    """Print a table of the models: stale cells, reasons, and estimated training time.

    A valid cell that DVC does not know yet, for example one copied from another machine, is not stale.
    """
    from pipeline.cells import soft_targets, train  # which import this module

    settings, times, retrained = config.load(), timings(), set[str]()
    dvc("repro", "--quiet", "plan", *(["folds"] if Path("data/raw").is_dir() else []))
    prepared = Path("data/folds.csv").exists()
    if prepared:
        _add_soft_targets(settings)
    stale = stale_stages("train", *(["distill"] if settings.students else []))
    run = train.start() if prepared and stale else None
    lines, total, cells, first = [], 0.0, 0, list[str]()
    for name in settings.names:
        now = plan.make(settings, name)
        each = estimate(times, now)
        valid = store.stage(settings, name) not in stale or (run and run.keeps(name))
        reasons = [] if valid else _reasons(settings, run, now)
        if any(teacher in retrained for teacher in now.teachers):
            reasons = ["its teachers are retrained"] * len(settings.folds_of(name))
        if reasons and (older := [each for each in soft_targets.absent(name) if each not in retrained]):
            reasons = [f"{reason}; first retrain {', '.join(older)}" for reason in reasons]
            first += older
        trainings = sum(not reason.endswith(AGAIN) for reason in reasons)
        retrained |= {name} if trainings else set()
        expected = progress.duration(each * trainings) + " (guess)" * (now.architecture not in times)
        total, cells = total + each * trainings, cells + len(reasons)
        lines.append([name, f"{len(reasons)} of {len(settings.folds_of(name))}", expected * bool(trainings),
                      "; ".join(dict.fromkeys(reasons))])  # fmt: skip
    print(tabulate(lines, ["model", "stale cells", "core time", "why"], disable_numparse=True,
                   maxcolwidths=[None, None, None, 28]))  # fmt: skip
    if cells:
        print(f"\n{progress.count(cells)} stale, about {progress.duration(total)} on one core; to train them:")
        _print_commands(settings, times, first)
    else:
        print(f"\nnothing is stale{'' if prepared else ' by parameters or code'}")
    if not prepared:
        print("No data yet: put the files into data/incoming/, run dvc repro folds, and this again.")


def _reasons(settings: config.Config, run: "Run | None", now: Plan) -> list[str]:
    """Return the reasons of the stale cells of a model that DVC reports as stale; without data, `run` is None."""
    folds = [fold for fold in settings.folds_of(now.model) if not (run and run.finished(now.model, fold))]
    reasons = [why(settings, now.model, fold, now) for fold in folds]
    return [reason for reason in reasons if run or reason != OTHER_DATA]


def _print_commands(settings: config.Config, times: dict[str, float], first: list[str]) -> None:
    """Print the commands that train the stale cells, after the teachers that must be retrained `first`."""
    for name in dict.fromkeys(first):
        needed = progress.duration(estimate(times, plan.make(settings, name)) * len(settings.folds_of(name)))
        print(f".venv/bin/python -m pipeline train {name} --retrain -y # {needed}")
    print("make train JOBS=2 THREADS=1 YES=1")
