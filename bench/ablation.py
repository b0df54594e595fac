"""What each ingredient of the recipe gives, each network, and more epochs: one change at a time, out of fold.

Reads ablation.yaml, and the faces, folds and seed as `train` does. The folds are dealt into two halves (of five folds
two and three); every variant is trained on each and judged on the other, so that all Training rows count. Writes
results/ablation.json, the same as tables in results/ablation.md, and results/ablation.png. What a variant predicts is
kept in artifacts/ablation/ and in git: another machine goes on there, and the table may be made of code of several
ages. It is fastest on two cores with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 JOBS=2 before it.

The recipes in `pairs` are trained with two seeds, so that it can be told what infinitely many networks of each would
score, and what they have in common (see pipeline/evaluation/limits.py).
"""

import contextlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from ruamel.yaml import YAML
from tabulate import tabulate

from pipeline import config, files
from pipeline.cells import store
from pipeline.command import guarded
from pipeline.competition import TRAINING
from pipeline.config import Recipe
from pipeline.data import faces, folds
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.errors import UserError
from pipeline.evaluation import board, figures, limits, metrics
from pipeline.evaluation.limits import Limits
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

FOLDER = Path("artifacts/ablation")
RESULT = Path("results/ablation.json")
TABLES, CHART = RESULT.with_suffix(".md"), RESULT.with_suffix(".png")
WATCHED = 512  # rows that are scored after each epoch, to see that it learns
NAME = "the base"
STUDY = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
AGAIN = ", another seed"
BASE: dict[str, Any] = STUDY["base"]
PAIRS: list[str] = STUDY["pairs"]
VARIANTS: dict[str, dict[str, Any]] = STUDY["variants"]
VARIANTS |= {name + AGAIN: VARIANTS[name] | {"seed": 1} for name in PAIRS}


def halves(fold_of: np.ndarray) -> np.ndarray:
    """The folds dealt into two, so that identical pictures stay together: int [n], 0 or 1."""
    return (fold_of >= len(np.unique(fold_of)) // 2).astype(fold_of.dtype)


def deal(data: Faces) -> Folds:
    """All Training rows in five folds, whatever params.yaml says of folds and duplicates."""
    rows = data.rows(TRAINING)
    groups = faces.picture_groups(data.pixels[rows])
    return Folds(rows, folds.deal(data.labels[rows], groups, 5, config.load().seed))


def variant(name: str) -> tuple[str, Recipe, int]:
    """Architecture and recipe of a variant, and what is added to the seed."""
    own = BASE | VARIANTS[name]
    return own.pop("architecture"), Recipe.model_validate({key: own[key] for key in own if key != "seed"}), own["seed"]


def plan(data: Faces, dealt: Folds) -> dict[tuple[str, int], Training]:
    """All trainings, by variant and the half that they are judged on."""
    half_of, settings, found = halves(dealt.fold_of), config.load(), {}
    for half in range(2):
        rows, judged = dealt.rows[half_of != half], dealt.rows[half_of == half]
        for name in VARIANTS:
            architecture, recipe, seed = variant(name)
            found[name, half] = Training(
                f"{name}, half {half + 1}", architecture, recipe, settings.seed + seed, settings.backend, rows,
                data.labels, judged[:WATCHED], judged, coded=False,
            )  # fmt: skip
    return found


def paired(hits: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """How many points the accuracy of bool [n] lies above that of `base`.

    Returns
    -------
    The points, their 95 % interval (of paired proportions: its variance is that of the rows that only one has right;
    Fleiss, Levin & Paik 2003, section 13.1), and McNemar's exact p-value.
    """
    gained, lost = float((hits & ~base).mean()), float((base & ~hits).mean())
    difference = gained - lost
    reach = 1.96 * np.sqrt((gained + lost - difference**2) / len(base))
    return {
        "points": round(100 * difference, 3),
        "points_95": [round(100 * (difference - reach), 3), round(100 * (difference + reach), 3)],
        "p_value": float(f"{metrics.mcnemar(hits, base):.3g}"),
    }


def joined(parts: dict[int, Result], half_of: np.ndarray) -> np.ndarray:
    """What a variant predicts, float [n, 7], of its parts by half; NaN for a half that is not there."""
    predicted = np.full((len(half_of), 7), np.nan)
    for half, part in parts.items():
        predicted[half_of == half] = part.probabilities
    return predicted


def summary(found: dict[tuple[str, int], Result], labels: np.ndarray, half_of: np.ndarray) -> dict[str, Any]:
    """What results/ablation.json holds of the variants.

    Parameters
    ----------
    found : by variant and half. labels, half_of : int [n].
    """
    table: dict[str, dict[str, Any]] = {}
    base = joined({half: part for (name, half), part in found.items() if name == NAME}, half_of)
    for name in dict.fromkeys(name for name, _ in found):
        parts = {half: part for (variant, half), part in found.items() if variant == name}
        one = joined(parts, half_of)
        known = ~np.isnan(one[:, 0])
        both = known & ~np.isnan(base[:, 0])
        table[name] = {
            "rows": int(known.sum()),
            "oof_accuracy": round(float(metrics.right(one[known], labels[known]).mean()), 6),
            "oof_log_loss": round(metrics.cross_entropy(one[known], labels[known]), 6),
            "training_accuracy": round(float(np.mean([part.accuracy for part in parts.values()])), 4),
            "minutes": round(sum(float(part.seconds) for part in parts.values()) / 60, 1),
        }
        if name != NAME and both.any():
            alone, of_base, of_mean = (metrics.right(each[both], labels[both]) for each in (one, base, one + base))
            table[name] |= paired(alone, of_base) | {"joined": paired(of_mean, of_base)}
    return table


def in_common(found: dict[str, Result], labels: np.ndarray, groups: np.ndarray) -> str:
    """Tables of the limits of the recipes that are trained with two seeds, and of what two trainings have in common.

    Parameters
    ----------
    found : by variant, all judged on the same rows. labels, groups : int [n], the latter of identical pictures.
    """
    both = {name: [found[name], found[name + AGAIN]] for name in PAIRS if {name, name + AGAIN} <= found.keys()}
    if not both:
        return ""
    recipes = {name: limits.tempered([part.probabilities for part in pair], labels) for name, pair in both.items()}
    hours = np.array([np.mean([float(part.seconds) for part in pair]) / 3600 for pair in both.values()])
    lines, shared = [], []
    for pair in STUDY["mixed"]:
        if found.keys() >= set(pair):
            one, other = limits.tempered([found[name].probabilities for name in pair], labels)
            shared.append(limits.products([one, other], labels)[:, 0, 1])
            further = shared[-1] - shared[0]
            low, high = limits.middle(limits.bootstrap(further, groups, 0))
            more = f"{further.mean():+.4f} ({low:+.4f} to {high:+.4f})" if shared[1:] else ""
            right = metrics.right(one + other, labels).mean()
            lines.append([*pair, f"{shared[-1].mean():.4f}", more, f"{right:.2%}"])
    titles = ["one", "other", "in common", "against the first two (95 %)", "accuracy of the mean"]
    mixed = tabulate(lines, titles, tablefmt="github", disable_numparse=True)
    measured = limits.measure(recipes, labels, groups)
    chart(measured, hours)
    return f"\n# Trained with two seeds\n\n{limits.table(measured, hours)}\n\n# Two trainings\n\n{mixed}\n"


def of_run(data: Faces, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What the run's models of the study's `rows` predict out of fold of int [n] rows, by their share of the folds.

    Models of another recipe, and those whose cells are not all there, are left out.
    """
    settings, found = config.load(), {}
    count = len(settings.folds)
    for name in set(STUDY["rows"]["models"]) & set(settings.models):
        with contextlib.suppress(UserError):
            dealt = folds.load(data)
            cells = [store.load(settings, name, fold, data, dealt) for fold in settings.folds]
            known = np.concatenate([cell.rows for cell in cells])
            if settings.model(name).used() == variant(STUDY["rows"]["recipe"])[1].used() and np.isin(rows, known).all():
                at = np.argsort(known)[np.searchsorted(np.sort(known), rows)]
                found[f"{count - 1} of {count} folds"] = [np.concatenate([cell.oof for cell in cells])[at]]
    return found


def more_rows(known: dict[str, list[np.ndarray]], labels: np.ndarray, groups: np.ndarray) -> str:
    """A table of what networks of one recipe gain where they are trained on more rows.

    Parameters
    ----------
    known : by share of the rows, the least first: what each training predicts of the same n rows, float [n, 7].
    labels, groups : int [n], the latter of identical pictures.
    """
    lines: list[list[str]] = []
    base = np.empty(0)
    for name, trainings in known.items():
        errors = limits.products(limits.tempered(trainings, labels), labels)
        each = np.stack([np.diagonal(errors, axis1=1, axis2=2).mean(axis=1),
                         100 * np.mean([metrics.right(one, labels) for one in trainings], axis=0)], axis=1)  # fmt: skip
        base = base if lines else each
        low, high = np.quantile(limits.bootstrap(each - base, groups, 0), [0.025, 0.975], axis=0)
        brier, accuracy = each.mean(axis=0)
        less, more = (each - base).mean(axis=0)
        lines.append([name, f"{brier:.4f}", f"{less:+.4f} ({low[0]:+.4f} to {high[0]:+.4f})",
                      f"{accuracy:.2f}%", f"{more:+.2f} ({low[1]:+.2f} to {high[1]:+.2f})"])  # fmt: skip
    titles = ["trained on", "Brier", "against the first (95 %)", "accuracy", "points (95 %)"]
    return f"\n# More rows\n\n{tabulate(lines, titles, tablefmt='github', disable_numparse=True)}\n"


def chart(found: Limits, hours: np.ndarray) -> None:
    """Draw what the pairs cost and reach."""
    assert found.accuracy is not None
    lines = [("accuracy of one network", *found.accuracy[[i, i, i], 0]) for i in range(len(found.names))]
    lines += [("B-infinity (less is better)", found.common[i, i], *limits.middle(found.spread[:, i, i]))
              for i in range(len(found.names))]  # fmt: skip
    table = pd.DataFrame(lines, columns=["cost", "accuracy", "low", "high"])
    table = table.assign(cost=table["cost"] + " by core-hours", name=found.names * 2, value=np.tile(hours, 2))
    figures.draw(table, CHART.with_suffix(""), template="points")


def show(table: dict[str, Any]) -> str:
    """The variants as a table, best first."""
    rows = []
    for name, line in sorted(table.items(), key=lambda item: -item[1]["oof_accuracy"]):
        alone, joined = (
            "{:+.2f} ({:+.2f} to {:+.2f})".format(found["points"], *found["points_95"]) if found else ""
            for found in ((line, line["joined"]) if "joined" in line else ({}, {}))
        )
        chance = board.p_value(line["p_value"]) if "p_value" in line else ""
        rows.append([
            name, f"{line['oof_accuracy']:.2%}", f"{line['oof_log_loss']:.4f}", alone, chance, joined,
            f"{line['training_accuracy']:.1%}", line["minutes"], f"{line['rows']:,}",
        ])  # fmt: skip
    titles = ["variant", "out of fold", "log-loss", "points", "p", "joined with it", "training", "minutes", "rows"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def main(
    wanted_halves: Annotated[int, typer.Argument(help="How many halves to judge; 0: train nothing.", min=0, max=2)] = 2,
    pattern: Annotated[str, typer.Argument(help="Train only variants in whose name this is found.")] = "",
    jobs: Annotated[int, typer.Option(help="How many to train at a time.", min=1, envvar="JOBS")] = 1,
) -> None:
    """What each ingredient of the recipe gives: one change at a time, out of fold."""
    try:
        wanted = {NAME, *filter(re.compile(pattern).search, VARIANTS)}
    except re.error as trouble:
        raise UserError(f"{pattern!r} is no regular expression: {trouble}") from None
    data = faces.load()
    dealt = deal(data)
    half_of = halves(dealt.fold_of)
    tasks = plan(data, dealt)
    todo = {(name, half): task for (name, half), task in tasks.items() if half < wanted_halves and name in wanted}
    runner.run(data, todo, FOLDER, jobs)
    found = runner.kept(data, tasks, FOLDER)
    if NAME not in {name for name, _ in found}:
        raise UserError(f"{NAME} is not trained yet, and all others are compared with it")
    table = summary(found, data.labels[dealt.rows], half_of)
    processors = sorted({json.loads(str(part.about))["processor"] for part in found.values()})
    about = {"seed": config.load().seed, "base": BASE, "processors": processors}
    files.write_json(RESULT, about | {"variants": table})
    rows = dealt.rows[half_of == 0]
    labels, groups = data.labels[rows].astype(int), faces.picture_groups(data.pixels)[rows]
    first = {name: part for (name, half), part in found.items() if half == 0}
    tables = f"# Every variant\n\n{show(table)}\n{in_common(first, labels, groups)}"
    recipe = STUDY["rows"]["recipe"]
    if {recipe, recipe + AGAIN} <= first.keys():
        pair = {STUDY["rows"]["share"]: [first[name].probabilities for name in (recipe, recipe + AGAIN)]}
        tables += more_rows(pair | of_run(data, rows), labels, groups)
    files.write(TABLES, tables.encode())
    print(tables)


if __name__ == "__main__":
    typer.run(guarded(main))
