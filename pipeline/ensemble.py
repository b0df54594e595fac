"""Join the folds of every architecture, and the architectures with each other, looking at out-of-fold rows alone.

Reads data/faces.npz, data/folds.csv and artifacts/predictions/. Writes artifacts/bags/A.npz for every architecture A
and artifacts/bags/ensemble.npz (oof float32 [n,7] for the Training rows, test float32 [k,7]), and
results/ensemble.json: the members' weights, what every way of joining them gives out of fold, what each member and
test-time augmentation add, how far members agree, and every network's temperature.
"""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline import command, faces, files, folds, metrics, params, recipe, trained
from pipeline.command import Refusal
from pipeline.competition import CLASSES, TRAINING

BAGS = Path("artifacts/bags")
RESULT = Path("results/ensemble.json")
NAME = "ensemble"


class Ensemble(params.Section):
    """How the architectures are joined: section `ensemble` of params.yaml."""

    method: Literal["mean", "geometric", "weights"]
    members: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class Bag:
    """Predictions for all rows of the competition.

    Parameters
    ----------
    oof : float32 [n, 7], out-of-fold probabilities of the Training rows; NaN where no fold covers a row.
    test : float32 [k, 7], probabilities of the test rows, PublicTest before PrivateTest.
    """

    oof: np.ndarray
    test: np.ndarray

    def save(self, path: Path) -> None:
        """Write the arrays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, oof=self.oof, test=self.test)

    def over(self, rows: np.ndarray, training_rows: np.ndarray) -> "Bag":
        """The Bag of all `training_rows`, where this one's `oof` is of `rows`, some of them, alone."""
        oof = np.full((len(training_rows), len(CLASSES)), np.nan, dtype=np.float32)
        oof[np.searchsorted(training_rows, rows)] = self.oof
        return Bag(oof, self.test)


def read_params() -> Ensemble:
    """The section `ensemble`. Raises Refusal for a member that is not trained, or named twice."""
    settings = params.section(NAME, Ensemble)
    for member in settings.members:
        if member not in recipe.names():
            raise Refusal(
                f"{params.PATH}: ensemble.members names {member!r}, which is never trained; architectures has "
                f"{', '.join(recipe.names())}"
            )
    if NAME in recipe.names():
        raise Refusal(f"pipeline/architectures/{NAME}.py: the ensemble's own name; give the network another")
    if len(set(settings.members)) < len(settings.members):
        raise Refusal(f"{params.PATH}: ensemble.members names an architecture twice")
    return settings


def read_arrays(path: Path, names: tuple[str, ...], remedy: str) -> list[np.ndarray]:
    """Read arrays from an .npz file. Raises Refusal that ends with `remedy`."""
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        raise Refusal(f"{path} is missing or damaged; make it with: {remedy}") from None


def load(name: str) -> Bag:
    """Read artifacts/bags/NAME.npz."""
    return Bag(*read_arrays(BAGS / f"{name}.npz", ("oof", "test"), "dvc repro -f ensemble"))


def result(pick: Callable[[Any], Any]) -> Any:
    """What `pick` takes of results/ensemble.json. Raises Refusal where that is not there."""
    try:
        return pick(json.loads(RESULT.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Refusal(f"{RESULT} is missing or damaged; make it with: dvc repro -f ensemble") from None


def temperatures(names: list[str]) -> dict[str, float]:
    """The temperature of each of `names`, from results/ensemble.json."""
    found: dict[str, float] = result(
        lambda whole: {name: float(whole["submissions"][name]["temperature"]) for name in names}
    )
    return found


def join_folds(parts: list[list[np.ndarray]], wanted: np.ndarray, name: str) -> Bag:
    """Put the folds of one architecture together.

    Parameters
    ----------
    parts : for every fold, rows int [m], their probabilities [m, 7], and those of the test rows [k, 7].
    wanted : int [n], all rows that must be covered exactly once, in rising order. name : for messages.
    """
    rows = np.concatenate([part[0] for part in parts])
    covered, times = np.unique(rows, return_counts=True)
    if (times > 1).any():
        raise Refusal(f"{name}: row {covered[times > 1][0]} is predicted by two folds; train again: dvc repro -f train")
    if not np.array_equal(covered, wanted):
        odd = np.setxor1d(covered, wanted)
        raise Refusal(
            f"{name}: {len(odd):,} Training rows are in no fold or unknown, like {odd[0]}; run: dvc repro train"
        )
    oof = np.concatenate([part[1] for part in parts])[np.argsort(rows)].astype(np.float32)
    bag = Bag(oof, np.stack([part[2] for part in parts]).mean(axis=0, dtype=np.float32))
    for array in (bag.oof, bag.test):
        if not np.allclose(array.sum(axis=1), 1, atol=1e-3):
            raise Refusal(f"{name}: some probabilities do not sum to 1; train again: dvc repro -f train")
    return bag


def fit_weights(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find the weighted mean of the members with the least log-loss.

    The weights of a mixture whose parts are given are found by expectation maximisation (Dempster, Laird & Rubin 1977,
    4.3): each step makes the log-loss smaller, and as it is convex in the weights, the end is the best of all.

    Parameters
    ----------
    oof : float [members, n, 7]. labels : int [n].

    Returns
    -------
    float64 [members], from 0 up, with the sum 1.
    """
    likelihood = oof[:, np.arange(len(labels)), labels].astype(np.float64).clip(1e-12)
    weights = np.full(len(oof), 1 / len(oof))
    for _ in range(5000):
        share = weights[:, None] * likelihood
        updated = (share / share.sum(axis=0)).mean(axis=1)
        if np.abs(updated - weights).max() < 1e-7:
            break
        weights = updated
    return weights


def weighted_mean(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted arithmetic mean over the first axis of float [members, n, 7]."""
    mean: np.ndarray = np.einsum("m,mnc->nc", weights, members).astype(np.float32)
    return mean


def geometric_mean(members: np.ndarray) -> np.ndarray:
    """Geometric mean over the first axis of float [members, n, 7], made to sum to 1 again."""
    mean: np.ndarray = np.exp(np.log(members.astype(np.float64).clip(1e-12)).mean(axis=0))
    mean /= mean.sum(axis=1, keepdims=True)
    return mean.astype(np.float32)


def join_members(
    method: str, oof: np.ndarray, test: np.ndarray, labels: np.ndarray, fold: np.ndarray
) -> tuple[Bag, np.ndarray | None]:
    """Join several members' predictions, each brought to its own temperature first (metrics.fit_temperature).

    Otherwise a member that was taught soft labels, and so is less sure of what it has right, would be taken for a
    worse one. Temperatures and weights are nested: a fold's rows are judged with those fitted on the other folds'
    rows. (The networks that predicted those have seen this fold's labels; a handful of numbers carries next to nothing
    of them.) Test rows get those of all folds.

    Parameters
    ----------
    method : "mean", "geometric" or "weights".
    oof : float [members, n, 7]. test : float [members, k, 7]. labels, fold : int [n].

    Returns
    -------
    The ensemble's Bag, and the members' weights in it (None for "geometric").
    """

    def join(known: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Join `parts` of the members by what fits the `known` rows, bool [n]."""
        temperatures = [metrics.fit_temperature(each[known], labels[known]) for each in oof]
        even = at_temperatures(parts, temperatures)
        if method == "geometric":
            return geometric_mean(even), None
        weights = np.full(len(oof), 1 / len(oof))
        if method == "weights":
            weights = fit_weights(at_temperatures(oof[:, known], temperatures), labels[known])
        return weighted_mean(even, weights), weights

    blended = np.full(oof.shape[1:], np.nan, dtype=np.float32)
    for number in np.unique(fold):
        inside = fold == number
        blended[inside], _ = join(~inside, oof[:, inside])
    joint, weights = join(np.ones(len(labels), dtype=bool), test)
    return Bag(blended, joint), weights


def at_temperatures(members: np.ndarray, temperatures: list[float]) -> np.ndarray:
    """Every member's probabilities, float [members, n, 7], at its temperature: float64."""
    return np.stack([metrics.temper(each, at) for each, at in zip(members, temperatures, strict=True)])


def judge(oof: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and log-loss of float [n, 7]."""
    return {
        "oof_accuracy": round(float(metrics.right(oof, labels).mean()), 6),
        "oof_log_loss": round(metrics.cross_entropy(oof, labels), 6),
    }


def tempered(oof: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Every fold's probabilities, at the temperature that is fitted on the other folds: float64 [n, 7]."""
    result = np.full(oof.shape, np.nan)
    for number in np.unique(fold):
        inside = fold == number
        temperature = metrics.fit_temperature(oof[~inside], labels[~inside])
        result[inside] = metrics.temper(oof[inside], temperature)
    return result


def describe(bag: Bag, plain: Bag, labels: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    """What results/ensemble.json says of one network or the ensemble, from out-of-fold rows alone.

    Parameters
    ----------
    plain : the same without test-time augmentation. labels, fold : int [n].
    """
    hits = [metrics.right(each.oof, labels) for each in (bag, plain)]
    augmentation = {
        "accuracy_without": round(float(hits[1].mean()), 6),
        "accuracy_with": round(float(hits[0].mean()), 6),
        "p_value": float(f"{metrics.mcnemar(*hits):.3g}"),
    }
    return {
        "folds": [round(float(hits[0][fold == number].mean()), 6) for number in np.unique(fold)],
        "temperature": round(metrics.fit_temperature(bag.oof, labels), 4),
        "calibration": metrics.calibration(bag.oof, labels),
        "calibration_tempered": metrics.calibration(tempered(bag.oof, labels, fold), labels),
        "test_time_augmentation": None if np.array_equal(bag.oof, plain.oof) else augmentation,  # None: there was none
    }


def read_cell(architecture: str, fold: int, plain: bool = False) -> list[np.ndarray]:
    """Read what train@ARCHITECTURE-FOLD predicted: rows, validation, test; `plain`: without test-time augmentation."""
    path = trained.path("predictions", architecture, fold)
    names = ("rows", "validation_plain", "test_plain") if plain else ("rows", "validation", "test")
    return read_arrays(path, names, trained.remedy(architecture, fold))


def joined(method: str, bags: list[Bag], labels: np.ndarray, fold: np.ndarray) -> tuple[Bag, np.ndarray | None]:
    """As join_members, of Bags."""
    oof, test = (np.stack([getattr(bag, part) for bag in bags]) for part in ("oof", "test"))
    return join_members(method, oof, test, labels, fold)


def summary(
    settings: Ensemble, bags: dict[str, Bag], labels: np.ndarray, fold: np.ndarray
) -> tuple[Bag, dict[str, Any]]:
    """The ensemble's Bag, and what results/ensemble.json says of it and of the ways that were not taken."""
    members = [bags[name] for name in settings.members]
    ways = {way: joined(way, members, labels, fold) for way in ("mean", "geometric", "weights")}
    bag, weights = ways[settings.method]
    shares = [None] * len(members) if weights is None else weights.tolist()
    guesses = {name: bags[name].oof.argmax(axis=1) for name in settings.members}
    others = {
        name: [bags[other] for other in settings.members if other != name]
        for name in settings.members
        if len(settings.members) > 1
    }
    return bag, {
        "method": settings.method,
        "weights": dict(zip(settings.members, shares, strict=True)),
        "members": {name: judge(tempered(bags[name].oof, labels, fold), labels) for name in settings.members},
        "methods": {way: judge(one.oof, labels) for way, (one, _) in ways.items()},
        "without": {
            name: judge(joined(settings.method, rest, labels, fold)[0].oof, labels) for name, rest in others.items()
        },
        "agreement": {
            name: {other: round(float((mine == theirs).mean()), 4) for other, theirs in guesses.items()}
            for name, mine in guesses.items()
        },
    }


def main() -> None:
    """Run the stage."""
    settings, numbers = read_params(), folds.numbers()
    data = faces.load()
    rows, fold = folds.load(data)
    labels = data.labels[rows]
    bags, plain = {}, {}
    for name in recipe.names():
        cells = [read_cell(name, number) for number in numbers]
        for number, (cell_rows, _, test) in zip(numbers, cells, strict=True):
            if not np.array_equal(np.sort(cell_rows), rows[fold == number]) or len(test) != len(data.test_rows()):
                raise Refusal(f"{name}, fold {number} was trained on other data: {trained.remedy(name, number)}")
        bags[name] = join_folds(cells, rows, name)
        plain[name] = join_folds([read_cell(name, number, plain=True) for number in numbers], rows, name)
    bags[NAME], found = summary(settings, bags, labels, fold)
    plain[NAME] = joined(settings.method, [plain[name] for name in settings.members], labels, fold)[0]
    found["submissions"] = {name: describe(bag, plain[name], labels, fold) for name, bag in bags.items()}
    shutil.rmtree(BAGS, ignore_errors=True)  # with those of networks that are trained no more
    for name, bag in bags.items():
        bag.over(rows, data.rows(TRAINING)).save(BAGS / f"{name}.npz")
    files.write_json(RESULT, found)


if __name__ == "__main__":
    command.run(main, "python -m pipeline.ensemble")
