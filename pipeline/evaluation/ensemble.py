"""Join the folds of every architecture, and the architectures with each other, without a look at a test label.

Reads data/faces.npz, data/folds.csv and artifacts/predictions/. Writes artifacts/bags/A.npz for every architecture A
and artifacts/bags/ensemble.npz (oof float32 [n,7] for the Training rows, test float32 [k,7]), and
results/ensemble.json: the members' weights, what every way of joining them gives out of fold, and what it can be
expected to give where folds are averaged, what each member and test-time augmentation add, how far members agree, and
every network's temperature.
"""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from pipeline import files, params, recipe
from pipeline.competition import CLASSES, TRAINING
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.training import cells

BAGS = Path("artifacts/bags")
RESULT = Path("results/ensemble.json")
NAME = "ensemble"
Method = Literal["mean", "geometric", "weights", "bagged"]


class Ensemble(params.Section):
    """How the architectures are joined: section `ensemble` of params.yaml."""

    method: Method
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
    """The section `ensemble`. Raises UserError for a member that is not trained, or named twice."""
    settings = params.section(NAME, Ensemble)
    for member in settings.members:
        if member not in recipe.names():
            raise UserError(
                f"{params.PATH}: ensemble.members names {member!r}, which is never trained; architectures has "
                f"{', '.join(recipe.names())}"
            )
    if NAME in recipe.names():
        raise UserError(f"pipeline/architectures/{NAME}.py: the ensemble's own name; give the network another")
    if len(set(settings.members)) < len(settings.members):
        raise UserError(f"{params.PATH}: ensemble.members names an architecture twice")
    return settings


def read_arrays(path: Path, names: tuple[str, ...], remedy: str) -> list[np.ndarray]:
    """Read arrays from an .npz file. Raises UserError that ends with `remedy`."""
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{path} is missing or damaged; make it with: {remedy}") from None


def load(name: str) -> Bag:
    """Read artifacts/bags/NAME.npz."""
    return Bag(*read_arrays(BAGS / f"{name}.npz", ("oof", "test"), "dvc repro -f ensemble"))


def result(pick: Callable[[Any], Any]) -> Any:
    """What `pick` takes of results/ensemble.json. Raises UserError where that is not there."""
    try:
        return pick(json.loads(RESULT.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{RESULT} is missing or damaged; make it with: dvc repro -f ensemble") from None


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
        raise UserError(
            f"{name}: row {covered[times > 1][0]} is predicted by two folds; train again: dvc repro -f train"
        )
    if not np.array_equal(covered, wanted):
        odd = np.setxor1d(covered, wanted)
        raise UserError(
            f"{name}: {len(odd):,} Training rows are in no fold or unknown, like {odd[0]}; run: dvc repro train"
        )
    oof = np.concatenate([part[1] for part in parts])[np.argsort(rows)].astype(np.float32)
    bag = Bag(oof, np.stack([part[2] for part in parts]).mean(axis=0, dtype=np.float32))
    for array in (bag.oof, bag.test):
        if not np.allclose(array.sum(axis=1), 1, atol=1e-3):
            raise UserError(f"{name}: some probabilities do not sum to 1; train again: dvc repro -f train")
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


def ambiguity(answers: np.ndarray) -> np.ndarray:
    """How much less squared error the mean of all folds' networks has than one of them, known without any label.

    Krogh & Vedelsby 1995 (NIPS 7): the squared error of a mean of networks is the mean of their squared errors less
    their ambiguity, which is their mean squared distance from what they say together. A mean of members by the
    weights w has the ambiguity w'Aw.

    Parameters
    ----------
    answers : float [members, folds, k, 7], what every fold's network of each member says of rows that none has seen.

    Returns
    -------
    A, float64 [members, members].
    """
    answers = answers.astype(np.float64)
    apart = (answers - answers.mean(axis=1, keepdims=True)).reshape(len(answers), -1)
    found: np.ndarray = apart @ apart.T / max(1, answers.shape[1] * answers.shape[2])
    return found


def fit_bagged(oof: np.ndarray, labels: np.ndarray, ambiguous: np.ndarray) -> np.ndarray:
    """Find the weighted mean of the members with the least squared error to be expected of means over folds.

    Out of fold one network of each member has judged a row; a test row gets the mean of all folds' networks. So what
    the folds' networks of one member do for each other, other members need not do: that is taken off the squared
    error out of fold, w'Cw, as w'Aw (see `ambiguity`), and w'(C - A)w made the least. As C and A come from different
    rows, C - A may have small negative eigenvalues; they count as 0. With a factor R'R of it the weights are those of
    the non-negative least squares of Rw = 0 and sum(w) = 1, made to sum to 1 (scipy): scaling w does not change which
    is the best.

    Parameters
    ----------
    oof : float [members, n, 7]. labels : int [n]. ambiguous : A, float [members, members].

    Returns
    -------
    float64 [members], from 0 up, with the sum 1.
    """
    wrong = (oof - np.eye(len(CLASSES))[labels]).reshape(len(oof), -1)
    values, vectors = np.linalg.eigh(wrong @ wrong.T / len(labels) - ambiguous)
    root = np.sqrt(values.clip(0))[:, None] * vectors.T
    weights, _ = nnls(np.vstack([root, np.ones(len(oof))]), np.append(np.zeros(len(oof)), 1.0))
    shares: np.ndarray = weights / weights.sum()
    return shares


def weighted_mean(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted arithmetic mean over the first axis of float [members, n, 7]."""
    mean: np.ndarray = np.einsum("m,mnc->nc", weights, members).astype(np.float32)
    return mean


def geometric_mean(members: np.ndarray) -> np.ndarray:
    """Geometric mean over the first axis of float [members, n, 7], made to sum to 1 again."""
    mean: np.ndarray = np.exp(np.log(members.astype(np.float64).clip(1e-12)).mean(axis=0))
    mean /= mean.sum(axis=1, keepdims=True)
    return mean.astype(np.float32)


@dataclass(frozen=True)
class Joint:
    """Several members' predictions, joined.

    Parameters
    ----------
    bag : what they say together. weights : of the members, float64 [members]; None where they are no weighted mean.
    ambiguity : how much squared error the folds' networks take off each other (see `ambiguity`).
    """

    bag: Bag
    weights: np.ndarray | None
    ambiguity: float

    def judge(self, labels: np.ndarray) -> dict[str, float]:
        """Accuracy, log-loss and Brier score out of fold, and the latter less the ambiguity.

        That is the Brier score to be expected of the mean of all folds' networks, on rows as hard as those of Training.
        """
        brier = metrics.brier(self.bag.oof, labels)
        return {
            "oof_accuracy": round(float(metrics.right(self.bag.oof, labels).mean()), 6),
            "oof_log_loss": round(metrics.cross_entropy(self.bag.oof, labels), 6),
            "oof_brier": round(brier, 6),
            "expected_brier": round(brier - self.ambiguity, 6),
        }


def join_members(
    method: str, oof: np.ndarray, tests: np.ndarray, unseen: np.ndarray, labels: np.ndarray, fold: np.ndarray
) -> Joint:
    """Join several members' predictions, each brought to its own temperature first (metrics.fit_temperature).

    Otherwise a member that was taught soft labels, and so is less sure of what it has right, would be taken for a
    worse one. Temperatures and weights are nested: a fold's rows are judged with those fitted on the other folds'
    rows. (The networks that predicted those, or on which "bagged" measures how far folds are apart, have seen this
    fold's labels; a handful of numbers carries next to nothing of them.) Test rows get those of all folds, and every
    member's folds are averaged before it is brought to its temperature; the ambiguity is that of the other order,
    which differs little.

    Parameters
    ----------
    method : "mean", "geometric", "weights" or "bagged".
    oof : float [members, n, 7]. tests : float [members, folds, k, 7], by each fold's network. labels, fold : int [n].
    unseen : bool [k], the test rows whose picture does not stand in Training too: how far folds are apart is measured
        on them.
    """

    def fit(known: np.ndarray) -> tuple[list[float], np.ndarray | None]:
        """Temperatures and weights that fit the `known` rows, bool [n]."""
        temperatures = [metrics.fit_temperature(each[known], labels[known]) for each in oof]
        even = at_temperatures(oof[:, known], temperatures)
        if method == "geometric":
            return temperatures, None
        if method == "weights":
            return temperatures, fit_weights(even, labels[known])
        if method == "bagged":
            apart = ambiguity(at_temperatures(tests[:, :, unseen], temperatures))
            return temperatures, fit_bagged(even, labels[known], apart)
        return temperatures, np.full(len(oof), 1 / len(oof))

    def join(parts: np.ndarray, temperatures: list[float], weights: np.ndarray | None) -> np.ndarray:
        even = at_temperatures(parts, temperatures)
        return geometric_mean(even) if weights is None else weighted_mean(even, weights)

    blended = np.full(oof.shape[1:], np.nan, dtype=np.float32)
    for number in np.unique(fold):
        inside = fold == number
        blended[inside] = join(oof[:, inside], *fit(~inside))
    fitted = fit(np.ones(len(labels), dtype=bool))
    by_fold = np.stack([join(part, *fitted) for part in tests[:, :, unseen].swapaxes(0, 1)])
    return Joint(Bag(blended, join(tests.mean(axis=1), *fitted)), fitted[1], float(ambiguity(by_fold[None])[0, 0]))


def at_temperatures(members: np.ndarray, temperatures: list[float]) -> np.ndarray:
    """Every member's probabilities, float [members, ..., 7], at its temperature: float64."""
    return np.stack([metrics.temper(each, at) for each, at in zip(members, temperatures, strict=True)])


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
    path = cells.path("predictions", architecture, fold)
    names = ("rows", "validation_plain", "test_plain") if plain else ("rows", "validation", "test")
    return read_arrays(path, names, cells.remedy(architecture, fold))


def read(
    data: faces.Faces, rows: np.ndarray, fold: np.ndarray, plain: bool = False
) -> tuple[dict[str, Bag], dict[str, np.ndarray]]:
    """What all networks predicted: their folds put together, and what each fold's network says of the test rows.

    Parameters
    ----------
    rows, fold : the Training rows and their folds (see folds.load). plain : without test-time augmentation.

    Returns
    -------
    By the network's name, its Bag, and float32 [folds, k, 7].
    """
    bags, tests = {}, {}
    for name in recipe.names():
        cells = {number: read_cell(name, number, plain) for number in folds.numbers()}
        for number, (cell_rows, _, test) in cells.items():
            if not np.array_equal(np.sort(cell_rows), rows[fold == number]) or len(test) != len(data.test_rows()):
                raise UserError(f"{name}, fold {number} was trained on other data: {cells.remedy(name, number)}")
        bags[name] = join_folds(list(cells.values()), rows, name)
        tests[name] = np.stack([test for _, _, test in cells.values()])
    return bags, tests


def joined(
    bags: dict[str, Bag], tests: dict[str, np.ndarray], unseen: np.ndarray, labels: np.ndarray, fold: np.ndarray,
    method: str, members: list[str],
) -> Joint:  # fmt: skip
    """As join_members, of the networks of these names among what `read` gave."""
    oof, said = np.stack([bags[name].oof for name in members]), np.stack([tests[name] for name in members])
    return join_members(method, oof, said, unseen, labels, fold)


def summary(
    settings: Ensemble, join: Callable[[str, list[str]], Joint], bags: dict[str, Bag], labels: np.ndarray
) -> tuple[Bag, dict[str, Any]]:
    """The ensemble's Bag, and what results/ensemble.json says of it and of the ways that were not taken.

    Parameters
    ----------
    join : joins the members of these names by a method. bags : by name. labels : int [n].
    """
    members = settings.members
    ways = {way: join(way, members) for way in get_args(Method)}
    taken = ways[settings.method]
    shares = [None] * len(members) if taken.weights is None else taken.weights.tolist()
    guesses = {name: bags[name].oof.argmax(axis=1) for name in members}
    without = {name: [other for other in members if other != name] for name in members if len(members) > 1}
    return taken.bag, {
        "method": settings.method,
        "weights": dict(zip(members, shares, strict=True)),
        "members": {name: join("mean", [name]).judge(labels) for name in members},
        "methods": {way: one.judge(labels) for way, one in ways.items()},
        "without": {name: join(settings.method, others).judge(labels) for name, others in without.items()},
        "agreement": {
            name: {other: round(float((mine == theirs).mean()), 4) for other, theirs in guesses.items()}
            for name, mine in guesses.items()
        },
    }


def main() -> None:
    """Run the stage."""
    settings, data = read_params(), faces.load()
    rows, fold = folds.load(data)
    labels, groups = data.labels[rows], faces.picture_groups(data.pixels)
    unseen = ~np.isin(groups[data.test_rows()], groups[rows])
    (bags, tests), (plain, plain_tests) = (read(data, rows, fold, plain=way) for way in (False, True))
    bags[NAME], found = summary(settings, partial(joined, bags, tests, unseen, labels, fold), bags, labels)
    plain[NAME] = joined(plain, plain_tests, unseen, labels, fold, settings.method, settings.members).bag
    found["submissions"] = {name: describe(bag, plain[name], labels, fold) for name, bag in bags.items()}
    shutil.rmtree(BAGS, ignore_errors=True)  # with those of networks that are trained no more
    for name, bag in bags.items():
        bag.over(rows, data.rows(TRAINING)).save(BAGS / f"{name}.npz")
    files.write_json(RESULT, found)
