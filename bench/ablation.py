"""What each ingredient of the recipe gives, each network, and more epochs: one change at a time, out of fold.

Reads faces, folds and seed, as `train` does. The folds are dealt into two parts, here called halves (of five folds two
and three); every variant is trained on each and judges the other, so that all Training rows count. Writes
results/ablation.json, and prints it as a table. What a variant says is kept in artifacts/ablation/ and in git: another
machine goes on there. With PATTERN only the base is trained, and variants in whose name this regular expression is
found. It is fastest on two cores with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 JOBS=2 before it.
"""

import hashlib
import json
import re
import time
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pipeline.stages import train
from tabulate import tabulate

from bench.precision import halves, paired
from pipeline import architectures, command, files, params, recipe
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import board, metrics
from pipeline.training import backend, executors, machine

FOLDER = Path("artifacts/ablation")
STATES = FOLDER / "states"
RESULT = Path("results/ablation.json")
WATCHED = 512  # rows that are judged after each epoch, to see that it learns
NAME = "the base"
# The budget, and what every variant starts from: small_resnet as params.yaml has it, but for the epochs and with every
# key written out, so that the table means the same when params.yaml changes. No keys of a recipe: the network, and
# what is added to the seed.
BASE: dict[str, Any] = {
    "network": "small_resnet", "seed": 0, "epochs": 16, "batch_size": 128, "optimizer": "muon", "weight_decay": 0.1,
    "learning_rate": 0.02,
    "schedule": "linear", "warmup": 0.2, "plateau_factor": 0.1, "plateau_patience": 10, "average": 0.0,
    "loss": "categorical", "label_smoothing": 0.1, "contrast": "none", "scaling": "unit", "crop": 44, "rotation": 15.0,
    "shift": 0.1, "zoom": 0.2, "flip": True, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0, "plain_epochs": 0,
    "early_epochs": 4, "early_side": 33, "flip_at_test": True, "shift_at_test": 0, "zoom_at_test": 0.15,
    "recalibrate": True, "precision": "auto",
}  # fmt: skip
WEAKER: dict[str, Any] = {"rotation": 9.0, "shift": 0.07, "zoom": 0.11}
VARIANTS: dict[str, dict[str, Any]] = {
    NAME: {},
    # how it is fitted
    "SGD, rate 0.1, weight decay 0.0005": {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0005},
    "SGD, rate 0.2, weight decay 0.001": {"optimizer": "sgd", "learning_rate": 0.2, "weight_decay": 0.001},
    "AdamW, rate 0.002, weight decay 0.05": {"optimizer": "adam", "learning_rate": 0.002, "weight_decay": 0.05},
    "rate 0.01": {"learning_rate": 0.01},
    "weight decay 0.3": {"weight_decay": 0.3},
    "without weight decay": {"weight_decay": 0.0},
    "without warm-up": {"warmup": 0.0},
    "cosine instead of linear decay": {"schedule": "cosine"},
    "without decay of the rate": {"schedule": "constant", "warmup": 0.0},
    "averaged weights (0.995)": {"average": 0.995},
    "batches of 64": {"batch_size": 64},
    "batches of 256": {"batch_size": 256},
    "without recalibration": {"recalibrate": False},
    # which labels
    "without label smoothing": {"label_smoothing": 0.0},
    "one yes/no question a class": {"loss": "binary"},
    # which pictures
    "the middle 40 pixels (0.8 times the work)": {"crop": 40, "early_side": 30},
    "the whole 48 pixels (1.2 times the work)": {"crop": 48, "early_side": 36},
    "without small pictures first (1.1 times the work)": {"early_epochs": 0},
    "20 epochs, 13 of them with small pictures (the same work)": {"epochs": 20, "early_epochs": 13},
    "local contrast": {"contrast": "local"},
    "histogram equalised": {"contrast": "histogram"},
    # how they vary
    "without mirroring, in training and test": {"flip": False, "flip_at_test": False},
    "without rotation": {"rotation": 0.0},
    "without shift": {"shift": 0.0},
    "without zoom": {"zoom": 0.0},
    "rotation 9, shift 0.07, zoom 0.11": WEAKER,
    "erasing in a quarter of the pictures": {"erase": 0.25},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix in half of the pictures": {"cutmix": 0.5},
    "the last 3 epochs plain": {"plain_epochs": 3},
    # what else could stand beside it
    "another seed": {"seed": 1},
    "preact_resnet": {"network": "preact_resnet"},
    "small_vgg": {"network": "small_vgg"},
    "small_coatnet": {"network": "small_coatnet"},
    "deep_vgg": {"network": "deep_vgg"},
    "deep_vgg, rotation 9, shift 0.07, zoom 0.11": {"network": "deep_vgg"} | WEAKER,
    # how long it takes, for the speedrun: "weaker" is rotation 9, shift 0.07, zoom 0.11
    "small_vgg, 50 epochs": {"network": "small_vgg", "epochs": 50, "early_epochs": 12},
    "small_vgg, 36 epochs": {"network": "small_vgg", "epochs": 36, "early_epochs": 9},
    "small_vgg, 25 epochs": {"network": "small_vgg", "epochs": 25, "early_epochs": 6},
    "small_vgg, 25 epochs, weaker": {"network": "small_vgg", "epochs": 25, "early_epochs": 6} | WEAKER,
    "small_vgg, 18 epochs, weaker": {"network": "small_vgg", "epochs": 18} | WEAKER,
    "small_vgg, 12 epochs, weaker": {"network": "small_vgg", "epochs": 12, "early_epochs": 3} | WEAKER,
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
    """Where what a variant says lies, by all that it depends on but code, versions and processor (and so precision)."""
    dealt = hashlib.sha256(rows.tobytes() + half_of.tobytes()).hexdigest()
    settings = variant.settings.model_dump(exclude={"precision"})
    facts = [variant.network, settings, variant.half, variant.seed, data.digest.hex(), dealt]
    return FOLDER / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}.npz"


def judge(data: faces.Faces, rows: np.ndarray, half_of: np.ndarray, variant: Variant) -> None:
    """Train on the `rows` outside a half, and write what the network says of those inside.

    The file has `said`, float16 [m, 7], the mean over all views; `accuracy`, of the last epoch in training; `seconds`;
    and `about`, what computed it.
    """
    backend.start("tensorflow")
    import keras

    from pipeline.training import augment, loop

    settings, seed = variant.settings, variant.seed
    seen, judged = rows[half_of != variant.half], rows[half_of == variant.half]
    trainer = loop.Trainer(
        partial(architectures.build, variant.network), data.pixels, settings, seed, len(seen) // settings.batch_size
    )
    target = path(variant, data, rows, half_of)
    checkpoint = STATES / target.name
    show = train.Display(f"{variant.name}, part {variant.half + 1}", settings.epochs, watched=False)
    watched = judged[:WATCHED]
    progress = loop.fit(
        trainer, seen, data.labels[seen], watched, data.labels[watched], seed, loop.Checkpoint(checkpoint), show.epoch
    )
    said = trainer.predictor.views(judged, augment.views(settings)).mean(axis=0)
    about = {
        "variant": variant.name, "processor": machine.processor(), "precision": settings.precision,
        "keras": keras.__version__,
    }  # fmt: skip
    kept = {
        "said": np.nan_to_num(said, nan=1 / said.shape[1]).astype("float16"),  # who has diverged says nothing
        "accuracy": progress.history[-1]["accuracy"], "seconds": progress.seconds, "about": json.dumps(about),
    }  # fmt: skip
    files.replace(target, lambda file: np.savez_compressed(file, **kept))
    checkpoint.unlink(missing_ok=True)


def read(path: Path) -> dict[str, np.ndarray]:
    """What `judge` wrote."""
    try:
        with np.load(path) as arrays:
            return {key: arrays[key] for key in ("said", "accuracy", "seconds", "about")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as trouble:
        raise UserError(f"{path} cannot be read ({trouble}); delete it, and run this again") from None


def summary(
    found: dict[str, dict[int, dict[str, np.ndarray]]], labels: np.ndarray, half_of: np.ndarray
) -> dict[str, Any]:
    """What results/ablation.json holds of the variants.

    Parameters
    ----------
    found : by variant and half, the arrays that `judge` wrote. labels, half_of : int [n].
    """
    answers, hits, table = {}, {}, {}
    for name, parts in found.items():
        said = np.full((len(labels), 7), np.nan)
        for half, part in parts.items():
            said[half_of == half] = part["said"]
        known = np.isin(half_of, list(parts))
        right = np.zeros(len(labels), dtype=bool)
        right[known] = metrics.right(said[known], labels[known])
        answers[name], hits[name] = said, (right, known)
        table[name] = {
            "rows": int(known.sum()), "oof_accuracy": round(float(right[known].mean()), 6),
            "oof_log_loss": round(metrics.cross_entropy(said[known], labels[known]), 6),
            "training_accuracy": round(float(np.mean([part["accuracy"] for part in parts.values()])), 4),
            "minutes": round(sum(float(part["seconds"]) for part in parts.values()) / 60, 1),
        }  # fmt: skip
    base, judged = hits[NAME]
    for name, (right, known) in hits.items():
        both = known & judged
        if name != NAME and both.any():
            mean = metrics.right(answers[name][both] + answers[NAME][both], labels[both])
            table[name] |= paired(right[both], base[both])
            table[name]["joined"] = paired(mean, base[both])
    return table


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


def main(halves_wanted: str = "2", pattern: str = "") -> None:
    """Run the command; with 1 only the first half is judged, with 0 none: the table is made of what is finished."""
    if halves_wanted not in ("0", "1", "2"):
        raise UserError(f"{halves_wanted!r}: must be 0, 1 or 2 halves")
    try:
        wanted = {NAME, *filter(re.compile(pattern).search, VARIANTS)}
    except re.error as trouble:
        raise UserError(f"{pattern!r} is no regular expression: {trouble}") from None
    if pattern and not re.search(pattern, NAME) and wanted == {NAME}:
        raise UserError(f"{pattern!r} is found in the name of no variant: {', '.join(VARIANTS)}")
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
        and variant.name in wanted
        and not path(variant, data, rows, half_of).exists()
    }
    STATES.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for done, _ in enumerate(executors.results(judge, data, tasks, "loky", train.jobs(), None), start=1):
        left = (time.monotonic() - started) / done * (len(tasks) - done)
        print(f"{done} of {len(tasks)} trainings, about {train.span(left)} left", flush=True)
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for variant in every:
        if (file := path(variant, data, rows, half_of)).exists():
            found.setdefault(variant.name, {})[variant.half] = read(file)
    if NAME not in found:
        raise UserError(f"{NAME} is not trained yet, and all others are compared with it")
    table = summary(found, data.labels[rows], half_of)
    about = [json.loads(str(part["about"])) for parts in found.values() for part in parts.values()]
    processors = sorted({one["processor"] for one in about})
    files.write_json(RESULT, {"seed": seed, "base": BASE, "processors": processors, "variants": table})
    print(show(table))


if __name__ == "__main__":
    from bench import ablation as importable  # what workers are sent must have a name that they know

    command.run(importable.main, "python -m bench.ablation [HALVES] [PATTERN]")
