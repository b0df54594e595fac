"""Write every model's plan, and tell which cells are stale, why, and how long they will take.

Reads params.yaml and the code. Writes artifacts/plan/MODEL.json, whose content changes only where something that
computes does.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from pipeline import config, files
from pipeline.cells import progress, store
from pipeline.config import Config, Recipe
from pipeline.errors import UserError
from pipeline.training import plan
from pipeline.training.plan import Plan

PLANS = Path("artifacts/plan")


def path(name: str) -> Path:
    """Where the plan of a model lies."""
    return PLANS / f"{name}.json"


def load(name: str) -> Plan:
    """The plan of a model, as the stage wrote it."""
    with files.reading(path(name), "dvc repro plan"):
        return Plan.model_validate_json(path(name).read_bytes())


def main() -> None:
    """Run the stage."""
    settings = config.load()
    for name in settings.names:
        files.write_json(path(name), plan.make(settings, name).model_dump())
    for other in PLANS.glob("*.json"):
        if other.stem not in settings.names:
            other.unlink()
    cells = len(settings.names) * len(settings.folds)
    print(f"{PLANS}/: {len(settings.names)} models, {cells} cells; see what is stale: make plan")


def using_dvc() -> bool:
    """Whether this folder is a DVC project."""
    return Path(".dvc").is_dir() and Path("dvc.yaml").exists()


def dvc(*words: str, capture: bool = False) -> str:
    """Run DVC. Raises UserError where it fails (it has said why)."""
    lock = Path(".dvc/tmp/rwlock")
    if lock.exists() and not lock.stat().st_size:
        raise UserError(f"{lock} is empty, as a power cut leaves it; where no other DVC runs: rm {lock}")
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages take python from there
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], check=False, text=True, env=os.environ | {"PATH": here},
        stdout=subprocess.PIPE if capture else None,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"dvc {' '.join(words[:3])} failed: see above")
    return done.stdout or ""


def stale_stages(*targets: str) -> set[str]:
    """The stages among `targets` that DVC says are out of date, like "train@deep_vgg-0"."""
    text = dvc("status", "--json", *targets, capture=True)
    try:
        return set(json.loads(text[text.index("{") :]))
    except ValueError:
        raise UserError(f"dvc status said something else than expected: {text[:200]}") from None


def differences(now: Plan, then: Plan) -> str:
    """What changed between two plans, in words: keys of the recipe first, then definitions of the code."""
    pairs = [(now, then, ("architecture", "seed", "backend", "teachers", "teacher_weight"))]
    pairs = [(now.settings(), then.settings(), tuple(Recipe.model_fields)), *pairs]  # type: ignore[list-item]
    found = [
        f"{key} {getattr(old, key)} -> {getattr(new, key)}"
        for new, old, keys in pairs for key in keys if getattr(new, key) != getattr(old, key)
    ]  # fmt: skip
    changed = sorted(key for key in {*now.code, *then.code} if now.code.get(key) != then.code.get(key))
    if changed:
        more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
        found.append(f"code of {', '.join(key.rpartition('.')[2] for key in changed[:2])}{more}")
    return "; ".join(found)


SECONDS_A_ROW = 60 / 22967  # of an epoch, where no cell tells: a large network on one core


@dataclass(frozen=True)
class Timings:
    """How long an epoch takes, by the cells that are there: seconds by architecture."""

    by_architecture: dict[str, float]

    def seconds(self, model: Plan, rows: int = 22967) -> float:
        """What a cell of a model will take.

        By all architectures' cells where its own has none, and without any cells by the number of rows.
        """
        rates = self.by_architecture
        other = float(np.median(list(rates.values()))) if rates else rows * SECONDS_A_ROW
        return rates.get(model.architecture, other) * model.settings().epochs


def timings() -> Timings:
    """The median seconds an epoch of the cells that are there, by architecture."""
    found: dict[str, list[float]] = {}
    for file in [*store.CELLS.glob("*/*/cell.json"), *store.STUDENTS.glob("*/*/cell.json")]:
        about = store.about(file.parent)
        if about and about.seconds > 0:
            found.setdefault(about.plan.architecture, []).append(about.seconds / about.plan.settings().epochs)
    return Timings({name: float(np.median(each)) for name, each in found.items()})


OTHER_DATA = "other faces, folds or soft targets"


def why(settings: Config, name: str, fold: int, now: Plan) -> str:
    """Why a cell that DVC calls out of date is, and what will be done."""
    about = store.about(store.folder(settings, name, fold))
    if about is None:
        there = (store.folder(settings, name, fold) / "cell.json").exists()
        return "damaged; git checkout brings a committed one back" if there else "not trained yet"
    changed = differences(now, about.plan)
    if about.plan.training() == now.training():
        return f"{changed}: {_anew(name, fold, about)}" if changed else OTHER_DATA
    return changed


def _anew(name: str, fold: int, about: store.About) -> str:
    weights = store.weights(name, fold)
    there = weights.exists() and files.sha256(weights.read_bytes()) == about.weights_sha256
    return "predicted anew from its weights" if there else "its weights are gone, so it is trained anew"


def show() -> None:
    """Print a table of the models: stale cells, why, and how long they will take.

    A cell that DVC does not know yet is not stale if it is whole, as where it was copied from elsewhere.
    """
    from pipeline.cells import train  # which imports this module

    settings, took = config.load(), timings()
    dvc("repro", "--quiet", "plan", *(["folds"] if Path("data/raw").is_dir() else []))
    stale = stale_stages("train", *(["distill"] if settings.students else []))
    prepared = Path("data/folds.csv").exists()
    run = train.start() if prepared and stale else None
    lines, total, cells = [], 0.0, 0
    for name in settings.names:
        now = plan.make(settings, name)
        each = took.seconds(now)
        outdated = [fold for fold in settings.folds if store.stage(settings, name, fold) in stale]
        because = {fold: why(settings, name, fold, now) for fold in outdated if not (run and run.finished(name, fold))}
        folds = [fold for fold, reason in because.items() if prepared or reason != OTHER_DATA]
        reasons = dict.fromkeys(because[fold] for fold in folds)
        guessed = "" if now.architecture in took.by_architecture else " (guess)"
        expected = progress.duration(each * len(folds)) + guessed if folds else ""
        total, cells = total + each * len(folds), cells + len(folds)
        lines.append([name, f"{len(folds)} of {len(settings.folds)}", expected, "; ".join(reasons)])
    titles = ["model", "stale cells", "core time", "why"]
    print(tabulate(lines, titles, disable_numparse=True, maxcolwidths=[None, None, None, 28]))
    told = f"{progress.count(cells)} stale, about {progress.duration(total)} of one core; make train JOBS=2 THREADS=1"
    print(f"\n{told if cells else 'nothing is stale'}")
    if not prepared:
        print("The data is not prepared yet; cells of other data would be stale too. Then run: make repro")
