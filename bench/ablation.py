"""Ablation: the effect of each component of the recipe, of each network and of more epochs, one change at a time.

Reads ablation.yaml, the faces and seed as `train` does, and artifacts/blends/. All Training rows are assigned to five
folds. Every variant is trained on three of them, and evaluated on the other two. Writes results/ablation.json, the same
as tables in results/ablation.md, and results/ablation.png. The predictions of every variant are kept in
artifacts/ablation/ and in git. So another machine can continue, and the results in the table may come from different
versions of the code. The study is fastest on two cores with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 JOBS=2
before the command.

The recipes in `pairs` are trained with two seeds. From these, the score of infinitely many networks of each recipe and
the errors that recipes have in common are estimated (see pipeline/evaluation/limits.py).
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from ruamel.yaml import YAML
from tabulate import tabulate

from pipeline import config, files
from pipeline.command import guarded
from pipeline.competition import TRAINING
from pipeline.config import Recipe
from pipeline.data import faces, folds
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.evaluation import board, ensemble, figures, limits, metrics
from pipeline.evaluation.limits import Limits
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

FOLDER = Path("artifacts/ablation")
RESULT = Path("results/ablation.json")
TABLES, CHART = RESULT.with_suffix(".md"), RESULT.with_suffix(".png")
WATCHED = 512  # rows evaluated after each epoch, to monitor the training
NAME = "baseline"
STUDY = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
AGAIN = ", another seed"
POINTS = "{:+.2f} ({:+.2f} to {:+.2f})".format  # a difference and its interval
BASE: dict[str, Any] = STUDY["base"]
PAIRS: list[str] = STUDY["pairs"]
VARIANTS: dict[str, dict[str, Any]] = STUDY["variants"]
VARIANTS |= {name + AGAIN: VARIANTS[name] | {"seed": 1} for name in PAIRS}


def variant(name: str) -> tuple[str, Recipe, int]:
    """Return architecture, recipe and seed offset of a variant."""
    settings = BASE | VARIANTS[name]
    architecture, seed = settings.pop("architecture"), settings.pop("seed")
    return architecture, Recipe.model_validate(settings), seed


def plan(data: Faces) -> dict[str, Training]:
    """Return the trainings of all variants. Of five folds of all Training rows, three train and two evaluate."""
    settings, training = config.load(), data.rows(TRAINING)
    groups = faces.picture_groups(data.pixels[training])
    held_out = folds.assign(data.labels[training], groups, 5, settings.seed) < 2
    rows, evaluated, tasks = training[~held_out], training[held_out], {}
    for name in VARIANTS:
        architecture, recipe, seed = variant(name)
        tasks[name] = Training(
            name, architecture, recipe, settings.seed + seed, settings.backend, rows, data.labels,
            evaluated[:WATCHED], evaluated, coded=False,
        )  # fmt: skip
    return tasks


def paired(hits: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Compare the accuracies of two classifiers on the same rows, each as bool [n], whether a row is right.

    Returns
    -------
    The difference in percentage points, its 95 % interval (of paired proportions, with the variance of the rows that
    only one classifier has right; Fleiss, Levin & Paik 2003, section 13.1), and McNemar's exact p-value.
    """
    gained, lost = float((hits & ~base).mean()), float((base & ~hits).mean())
    difference = gained - lost
    half_width = 1.96 * np.sqrt((gained + lost - difference**2) / len(base))
    return {
        "points": round(100 * difference, 3),
        "points_95": [round(100 * (difference + side * half_width), 3) for side in (-1, 1)],
        "p_value": metrics.mcnemar(hits, base),
    }


def summary(results: dict[str, Result], labels: np.ndarray) -> dict[str, Any]:
    """Return the entries of the variants in results/ablation.json.

    Parameters
    ----------
    results : by variant. labels : int [n].
    """
    table: dict[str, dict[str, Any]] = {}
    base = results[NAME].probabilities.astype("float64")
    for name, result in results.items():
        predicted = result.probabilities.astype("float64")
        table[name] = {
            "rows": len(predicted),
            "oof_accuracy": round(float(metrics.right(predicted, labels).mean()), 6),
            "oof_log_loss": round(metrics.cross_entropy(predicted, labels), 6),
            "training_accuracy": round(float(result.accuracy), 4),
            "minutes": round(float(result.seconds) / 60, 1),
        }
        if name != NAME:
            hits, of_base, of_mean = (metrics.right(each, labels) for each in (predicted, base, predicted + base))
            table[name] |= paired(hits, of_base) | {"blended": paired(of_mean, of_base)}
    return table


def in_common(results: dict[str, Result], labels: np.ndarray, groups: np.ndarray) -> str:
    """Return tables of the limits of the recipes trained with two seeds, and of the common errors of two trainings.

    Parameters
    ----------
    results : by variant, all evaluated on the same rows. labels, groups : int [n]; groups of identical pictures.
    """
    pairs = {name: [results[name], results[name + AGAIN]] for name in PAIRS if {name, name + AGAIN} <= results.keys()}
    if not pairs:
        return ""
    recipes = {name: limits.tempered([part.probabilities for part in pair], labels) for name, pair in pairs.items()}
    hours = np.array([min(float(part.seconds) for part in pair) / 3600 for pair in pairs.values()])  # less disturbed
    titles = ["first", "second", "in common", "difference from the first line (95 %)", "accuracy of the mean"]
    mixed = ""
    for section in STUDY["mixed"]:
        lines, shared = [], []
        for pair in section:
            if results.keys() >= set(pair):
                first, second = limits.tempered([results[name].probabilities for name in pair], labels)
                shared.append(limits.products([first, second], labels)[:, 0, 1])
                difference = shared[-1] - shared[0]
                low, high = limits.interval_95(limits.bootstrap(difference, groups))
                text = f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f})" if shared[1:] else ""
                accuracy = metrics.right(first + second, labels).mean()
                lines.append([*pair, f"{shared[-1].mean():.4f}", text, f"{accuracy:.2%}"])
        mixed += f"\n{tabulate(lines, titles, tablefmt='github', disable_numparse=True)}\n"
    measured = limits.measure(recipes, labels, groups)
    chart(measured, hours)
    return f"\n# Trained with two seeds\n\n{limits.table(measured, hours)}\n\n# Two trainings\n{mixed}"


def of_run(data: Faces, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return the out-of-fold predictions of the run's models for int [n] rows, by the share of folds trained on.

    Of the models named in the study's section `rows`, those with another recipe are left out, and all models if the
    run does not use all of the rows.
    """
    settings, assignment, predictions = config.load(), folds.load(data), {}
    for name in STUDY["rows"]["models"] if np.isin(rows, assignment.rows).all() else ():
        if name in settings.names and settings.model(name).used() == variant(STUDY["rows"]["recipe"])[1].used():
            count, oof = len(settings.folds_of(name)), ensemble.load(name, data, assignment).oof
            predictions[f"{count - 1} of {count} folds"] = [oof[np.isin(assignment.rows, rows)]]
    return predictions


def gains(known: dict[str, list[np.ndarray]], labels: np.ndarray, groups: np.ndarray, first: str) -> str:
    """Return a table of Brier scores and accuracies, each at its own temperature, and of the gains over the first line.

    Parameters
    ----------
    known : by title of the line, predictions of one or more trainings for the same n rows, float [n, 7] each.
    labels, groups : int [n]; groups of identical pictures. first : title of the first column.
    """
    lines: list[list[str]] = []
    base = np.empty(0)
    for name, trainings in known.items():
        errors = limits.products(limits.tempered(trainings, labels), labels)
        hits = 100 * np.mean([metrics.right(each, labels) for each in trainings], axis=0)
        scores = np.stack([np.diagonal(errors, axis1=1, axis2=2).mean(axis=1), hits], axis=1)
        base = base if lines else scores
        low, high = limits.interval_95(limits.bootstrap(scores - base, groups))
        brier, accuracy = scores.mean(axis=0)
        less, more = (scores - base).mean(axis=0)
        differences = [f"{less:+.4f} ({low[0]:+.4f} to {high[0]:+.4f})", POINTS(more, low[1], high[1])]
        fewer, points = differences if lines else ["", ""]
        lines.append([name, f"{brier:.4f}", fewer, f"{accuracy:.2f}%", points])
    titles = [first, "Brier", "difference from the first line (95 %)", "accuracy", "points (95 %)"]
    return tabulate(lines, titles, tablefmt="github", disable_numparse=True)


def chart(measured: Limits, hours: np.ndarray) -> None:
    """Draw accuracy and B-infinity of the pairs by core-hours."""
    assert measured.accuracy is not None
    assert measured.accuracy_spread is not None
    common = np.diag(measured.common), np.diagonal(measured.spread, axis1=1, axis2=2)
    panels = {"accuracy of one network": (measured.accuracy[:, 0], measured.accuracy_spread[:, :, 0]),
              "B-infinity (lower is better)": common}  # fmt: skip
    tables = []
    for cost, (values, spread) in panels.items():
        low, high = limits.interval_95(spread)
        columns = {"cost": f"{cost}, by core-hours", "accuracy": values, "low": low, "high": high}
        tables.append(pd.DataFrame(columns | {"name": measured.names, "value": hours}))
    title = "Trained with two seeds, with 95 % intervals; logarithmic scale of core-hours"
    figures.draw(pd.concat(tables), CHART.with_suffix(""), template="points", title=title)


def show(table: dict[str, Any]) -> str:
    """Return the variants as a table, best first."""
    rows = []
    for name, line in sorted(table.items(), key=lambda item: -item[1]["oof_accuracy"]):
        gain = ["", "", ""]  # the baseline has none
        if name != NAME:
            points, blended = (POINTS(each["points"], *each["points_95"]) for each in (line, line["blended"]))
            gain = [points, board.p_value(line["p_value"]), blended]
        rows.append([name, f"{line['oof_accuracy']:.2%}", f"{line['oof_log_loss']:.4f}", *gain,
                     f"{line['training_accuracy']:.1%}", line["minutes"]])  # fmt: skip
    titles = ["variant", "out of fold", "log-loss", "points", "p", "blended with it", "training", "minutes"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def main(
    pattern: Annotated[str, typer.Argument(help="Train only variants whose name contains this text.")] = "",
    jobs: Annotated[
        int, typer.Option(help="Number of simultaneous trainings; 0: train nothing.", min=0, envvar="JOBS")
    ] = 1,
) -> None:
    """Measure the effect of each component of the recipe: one change at a time, out of fold."""
    data = faces.load()
    tasks = plan(data)
    if not any(pattern in name for name in tasks):
        raise UserError(f"no variant's name contains {pattern!r}")
    if jobs:
        wanted = {name: task for name, task in tasks.items() if pattern in name or name == NAME}
        runner.run(data, wanted, FOLDER, jobs)
    results, rows = runner.load_finished(data, tasks, FOLDER), tasks[NAME].evaluated
    if NAME not in results:
        raise UserError(f"{FOLDER}/ has no {NAME} on these faces; train it: python -m bench.ablation {NAME}")
    labels, groups = data.labels[rows].astype(int), faces.picture_groups(data.pixels)[rows]
    table = summary(results, labels)
    processors = sorted({json.loads(str(result.about))["processor"] for result in results.values()})
    about = {"seed": config.load().seed, "base": BASE, "processors": processors}
    files.write_json(RESULT, about | {"variants": table})
    tables = "[docs/ablation.md](../docs/ablation.md) explains these tables; out of fold are "
    tables += f"{len(rows):,} rows.\n\n# Every variant\n\n{show(table)}\n{in_common(results, labels, groups)}"
    recipe = STUDY["rows"]["recipe"]
    if {recipe, recipe + AGAIN} <= results.keys():
        pair = {STUDY["rows"]["share"]: [results[name].probabilities for name in (recipe, recipe + AGAIN)]}
        tables += f"\n# More rows\n\n{gains(pair | of_run(data, rows), labels, groups, 'trained on')}\n"
    files.write(TABLES, tables.encode())
    print(tables)


if __name__ == "__main__":
    typer.run(guarded(main))
