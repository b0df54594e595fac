"""What each ingredient of the recipe gives, and each network: one fixed budget, one change at a time, out of fold.

Reads faces, folds and seed, as `train` does. The folds are dealt into two parts, here called halves (of five folds two
and three); every variant is trained on each and judges the other, so that all Training rows count. Writes
results/ablation.json, and prints it as a table, with a second one of what each network adds to another. What is
finished stays in artifacts/ablation/: a second start goes on there, and keeps the lines of the table whose networks are
gone, if seed, base and processor are the same. With WORDS only variants with these in their name are trained. It is
fastest on two cores with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 JOBS=2 before it.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from bench.precision import halves, paired
from pipeline import (
    architectures,
    backend,
    command,
    engine,
    faces,
    files,
    folds,
    machine,
    metrics,
    params,
    recipe,
    train,
)
from pipeline.command import Refusal

FOLDER = Path("artifacts/ablation")
RESULT = Path("results/ablation.json")
WATCHED = 512  # rows that are judged after each epoch, to see that it learns
NAME = "the base"
# The budget, and what every variant starts from. No keys of a recipe: the network, and what is added to the seed.
BASE: dict[str, Any] = {
    "network": "small_resnet", "seed": 0, "epochs": 16, "batch_size": 128, "optimizer": "sgd", "weight_decay": 0.0005,
    "learning_rate": 0.1,
    "schedule": "linear", "warmup": 0.2, "plateau_factor": 0.1, "plateau_patience": 10, "average": 0.0,
    "loss": "categorical", "label_smoothing": 0.1, "contrast": "none", "scaling": "unit", "crop": 40, "rotation": 9.0,
    "shift": 0.07, "zoom": 0.11, "flip": True, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0, "plain_epochs": 0,
    "early_epochs": 4, "early_side": 30, "flip_at_test": True, "shift_at_test": 0, "zoom_at_test": 0.0,
    "recalibrate": True, "precision": "auto",
}  # fmt: skip
MUON = {"optimizer": "muon", "learning_rate": 0.02, "weight_decay": 0.1}
FIRST = "Muon, rate 0.02, weight decay 0.1"  # what every other network is joined with
VARIANTS: dict[str, dict[str, Any]] = {
    NAME: {},
    "mixup 0.2": {"mixup": 0.2},
    "erasing in half of the pictures": {"erase": 0.5},
    "weight decay 0.001": {"weight_decay": 0.001},
    "weight decay 0.002": {"weight_decay": 0.002},
    "rate 0.2, weight decay 0.001": {"learning_rate": 0.2, "weight_decay": 0.001},
    "stronger maps: rotation 15, shift 0.1, zoom 0.2": {"rotation": 15.0, "shift": 0.1, "zoom": 0.2},
    "the whole 48 pixels (1.4 times the work)": {"crop": 48, "early_side": 36},
    "cutmix in half of the pictures": {"cutmix": 0.5},
    "averaged weights (0.995)": {"average": 0.995},
    "local contrast": {"contrast": "local"},
    "histogram equalised": {"contrast": "histogram"},
    "the last 3 epochs plain": {"plain_epochs": 3},
    "cosine instead of linear decay": {"schedule": "cosine"},
    "AdamW, rate 0.002": {"optimizer": "adam", "learning_rate": 0.002, "weight_decay": 0.05},
    "Muon, rate 0.01, weight decay 0.1": {"optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.1},
    FIRST: MUON,
    f"{FIRST}, mixup 0.2": MUON | {"mixup": 0.2},
    f"{FIRST}, erasing in a quarter": MUON | {"erase": 0.25},
    "Muon, rate 0.02, weight decay 0.3": MUON | {"weight_decay": 0.3},
    f"{FIRST}, stronger maps": MUON | {"rotation": 15.0, "shift": 0.1, "zoom": 0.2},
    f"{FIRST}, another seed": MUON | {"seed": 1},
    f"{FIRST}, local contrast": MUON | {"contrast": "local"},
    f"{FIRST}, histogram equalised": MUON | {"contrast": "histogram"},
    f"{FIRST}, preact_resnet": MUON | {"network": "preact_resnet"},
    f"{FIRST}, small_coatnet": MUON | {"network": "small_coatnet"},
    f"{FIRST}, small_vgg": MUON | {"network": "small_vgg"},
    "20 epochs, 12 of them with small pictures (the same work)": {"epochs": 20, "early_epochs": 12},
    "batches of 64": {"batch_size": 64},
    "batches of 256, rate 0.2": {"batch_size": 256, "learning_rate": 0.2},
    "one yes/no question a class": {"loss": "binary"},
    "without label smoothing": {"label_smoothing": 0.0},
    "without weight decay": {"weight_decay": 0.0},
    "without decay of the rate": {"schedule": "constant", "warmup": 0.0},
    "without warm-up": {"warmup": 0.0},
    "without rotation, shift and zoom": {"rotation": 0.0, "shift": 0.0, "zoom": 0.0},
    "without mirroring, in training and test": {"flip": False, "flip_at_test": False},
    "without small pictures first (1.2 times the work)": {"early_epochs": 0},
    "without recalibration": {"recalibrate": False},
}


@dataclass(frozen=True)
class Variant:
    """One line of the table: a network and its recipe, trained on the rows outside `half` with `seed`."""

    name: str
    network: str
    settings: recipe.Recipe
    half: int
    seed: int


def path(variant: Variant, data: faces.Faces, rows: np.ndarray, half_of: np.ndarray) -> Path:
    """Where the predictions of a variant lie, by all that they depend on but code and versions."""
    dealt = hashlib.sha256(rows.tobytes() + half_of.tobytes()).hexdigest()
    facts = [variant.network, variant.settings.model_dump(), variant.half, variant.seed, data.digest.hex(), dealt]
    return FOLDER / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}.npz"


def judge(data: faces.Faces, rows: np.ndarray, half_of: np.ndarray, variant: Variant) -> None:
    """Train on the `rows` outside a half, and write what the network says of those inside: views [v, m, 7]."""
    backend.start("tensorflow")
    from pipeline import augment, fit

    settings, seed = variant.settings, variant.seed
    seen, judged = rows[half_of != variant.half], rows[half_of == variant.half]
    trainer = fit.Trainer(
        partial(architectures.build, variant.network), data.pixels, settings, seed, len(seen) // settings.batch_size
    )
    target = path(variant, data, rows, half_of)
    checkpoint = target.with_suffix(".state.npz")
    show = train.Display(f"{variant.name}, part {variant.half + 1}", settings.epochs, watched=False)
    watched = judged[:WATCHED]
    progress = fit.fit(
        trainer, seen, data.labels[seen], watched, data.labels[watched], seed, fit.Checkpoint(checkpoint), show.epoch
    )
    views = trainer.predictor.views(judged, augment.views(settings))
    fitted = {key: progress.history[-1][key] for key in ("loss", "accuracy")}
    files.replace(target, lambda file: np.savez(file, views=views, seconds=progress.seconds, **fitted))
    checkpoint.unlink(missing_ok=True)


def summary(
    found: dict[str, dict[int, dict[str, np.ndarray]]], labels: np.ndarray, half_of: np.ndarray
) -> dict[str, Any]:
    """What results/ablation.json holds of the variants.

    Parameters
    ----------
    found : by variant and half, the arrays that `judge` wrote. labels, half_of : int [n].
    """
    hits, table, joined = {}, {}, {}
    for name, parts in found.items():
        answers = np.full((len(labels), 7), np.nan)
        for half, part in parts.items():
            answers[half_of == half] = part["views"].mean(axis=0)
        known = np.isin(half_of, list(parts))
        right = np.zeros(len(labels), dtype=bool)
        right[known] = metrics.right(answers[known], labels[known])
        hits[name], joined[name] = (right, known), answers
        table[name] = {
            "rows": int(known.sum()), "oof_accuracy": round(float(right[known].mean()), 5),
            "oof_log_loss": round(metrics.cross_entropy(answers[known], labels[known]), 5),
            "training_accuracy": round(float(np.mean([part["accuracy"] for part in parts.values()])), 4),
            "minutes": round(sum(float(part["seconds"]) for part in parts.values()) / 60, 1),
        }  # fmt: skip
    base = hits[NAME]
    for name, (right, known) in hits.items():
        if name != NAME:
            both = known & base[1]
            table[name] |= paired(right[both], base[0][both])
        if name.startswith(f"{FIRST},") and FIRST in hits:
            both = known & hits[FIRST][1]
            mean = metrics.right(joined[name][both] + joined[FIRST][both], labels[both])
            better = paired(mean, hits[FIRST][0][both])
            table[name]["joined"] = {"rows": int(both.sum()), "oof_accuracy": round(float(mean.mean()), 5), **better}
    return table


def earlier(about: dict[str, Any]) -> dict[str, Any]:
    """The lines that results/ablation.json has already, if they were measured with all that `about` says."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    return before["variants"] if before and before == before | about else {}


def show_joined(table: dict[str, Any]) -> str:
    """What the mean of each variant's answers and FIRST's has right, best first, and what that adds to FIRST alone."""
    pairs = {name: line["joined"] for name, line in table.items() if "joined" in line}
    rows = [
        [name, f"{table[name]['oof_accuracy']:.2%}", f"{pair['oof_accuracy']:.2%}",
         "{:+.2f} ({:+.2f} to {:+.2f})".format(pair["points"], *pair["points_95"]), pair["p_value"]]
        for name, pair in sorted(pairs.items(), key=lambda item: -item[1]["oof_accuracy"])
    ]  # fmt: skip
    titles = ["joined", "alone", "both", "points", "p"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def show(table: dict[str, Any]) -> str:
    """The variants as a table, best first."""
    rows = []
    for name, line in sorted(table.items(), key=lambda item: -item[1]["oof_accuracy"]):
        difference = "{:+.2f} ({:+.2f} to {:+.2f})".format(line["points"], *line["points_95"]) if name != NAME else ""
        rows.append([
            name, f"{line['oof_accuracy']:.2%}", f"{line['oof_log_loss']:.4f}", difference, line.get("p_value", ""),
            f"{line['training_accuracy']:.1%}", line["minutes"], f"{line['rows']:,}",
        ])  # fmt: skip
    titles = ["variant", "out of fold", "log-loss", "points", "p", "training", "minutes", "rows"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def main(halves_wanted: str = "2", words: str = "") -> None:
    """Run the command; with 1 only the first half is judged, with 0 none: the table is made of what is finished."""
    if halves_wanted not in ("0", "1", "2"):
        raise Refusal(f"{halves_wanted!r}: must be 0, 1 or 2 halves")
    data, seed = faces.load(), params.seed()
    rows, fold_of = folds.load(data)
    half_of = halves(fold_of)
    every = []
    for half in range(2):
        for name, change in VARIANTS.items():
            own = BASE | change
            network, offset = own.pop("network"), own.pop("seed")
            own["precision"] = machine.products("auto", "tensorflow", network)
            every.append(Variant(name, network, params.parse(name, recipe.Recipe, own), half, seed + offset))
    tasks = {
        number: (rows, half_of, variant)
        for number, variant in enumerate(every)
        if variant.half < int(halves_wanted)
        and words in variant.name
        and not path(variant, data, rows, half_of).exists()
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for done, _ in enumerate(engine.results(judge, data, tasks, "loky", train.jobs(), None), start=1):
        left = (time.monotonic() - started) / done * (len(tasks) - done)
        print(f"{done} of {len(tasks)} trainings, about {train.span(left)} left", flush=True)
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for variant in every:
        if path(variant, data, rows, half_of).exists():
            with np.load(path(variant, data, rows, half_of)) as arrays:
                found.setdefault(variant.name, {})[variant.half] = dict(arrays)
    if NAME not in found:
        raise Refusal(f"{NAME} is not trained yet, and all others are compared with it")
    about = {"seed": seed, "base": BASE, "processor": machine.processor()}
    table = earlier(about) | summary(found, data.labels[rows], half_of)
    files.write_json(RESULT, about | {"variants": table})
    print(show(table), "", show_joined(table), sep="\n")


if __name__ == "__main__":
    from bench import ablation as importable  # what workers are sent must have a name that they know

    command.run(importable.main, "python -m bench.ablation [HALVES] [WORDS]")
