"""Blend the folds of every model, and the models with each other, without a look at a test label.

Reads data/faces.npz, data/folds.csv, all cells, and external/NAME.npz for members that are other systems' predictions.
Writes artifacts/blends/NAME.npz for each of them and for the ensemble (oof float32 [n, 7] of the rows of
data/folds.csv, test float32 [k, 7]), and results/ensemble.json: the members' weights, how good every method is out of
fold, what each member and test-time augmentation add, how far members agree, and every submission's temperature.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, Field

from pipeline import config, files
from pipeline.cells import store
from pipeline.competition import TRAINING
from pipeline.config import ENSEMBLE, EXTERNAL, Config
from pipeline.data import faces, folds
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.evaluation import metrics

BLENDS = Path("artifacts/blends")
RESULT = Path("results/ensemble.json")
REMEDY = "dvc repro -f ensemble"
METHODS = get_args(config.Ensemble.model_fields["method"].annotation)


class Submission(BaseModel, frozen=True):
    """What results/ensemble.json says of one submission, from out-of-fold rows alone."""

    folds: list[float]  # accuracy of each
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    calibration: dict[str, float]
    calibration_tempered: dict[str, float]
    test_time_augmentation: dict[str, float] | None  # accuracy_without, accuracy_with, p_value; None: there was none


class Result(BaseModel, frozen=True):
    """What results/ensemble.json holds.

    Parameters
    ----------
    weights : of the members; None where the method has none.
    members, methods, without : what `scores` gives for each member alone, all by every method, all but one.
    agreement : part of the rows of which two members predict the same class.
    """

    method: str
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)] | None]
    members: dict[str, dict[str, float]]
    methods: dict[str, dict[str, float]]
    without: dict[str, dict[str, float]]
    agreement: dict[str, dict[str, float]]
    submissions: dict[str, Submission]


class Predictions(NamedTuple):
    """Probabilities of a model, of another system, or of the ensemble.

    Parameters
    ----------
    oof : float32 [n, 7], out of fold, of the rows of data/folds.csv.
    test : float32 [k, 7], of the test rows, PublicTest before PrivateTest.
    """

    oof: np.ndarray
    test: np.ndarray


def load(name: str, data: Faces, dealt: Folds) -> Predictions:
    """Read artifacts/blends/NAME.npz. Raises UserError where it is missing, damaged or of other rows."""
    path = BLENDS / f"{name}.npz"
    with files.reading(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        if arrays["of"].tolist() != [name, data.digest, dealt.digest]:
            raise ValueError("it is of another submission, or of other faces or folds")
        return Predictions(checked(arrays["oof"], len(dealt.rows)), checked(arrays["test"], len(data.test_rows())))


def save(name: str, predictions: Predictions, data: Faces, dealt: Folds) -> None:
    """Write artifacts/blends/NAME.npz, which tells whose it is."""
    arrays = predictions._asdict() | {"of": [name, data.digest, dealt.digest]}
    files.replace(BLENDS / f"{name}.npz", partial(np.savez, **arrays))


def checked(array: np.ndarray, rows: int) -> np.ndarray:
    """Probabilities as they are, as float32 [rows, 7]. Raises ValueError where they are none, to one in a thousand."""
    store.probabilities(array, rows)
    if (abs(array.sum(axis=1, dtype="float64") - 1) > 0.001).any():
        raise ValueError("some rows do not sum to 1")
    return array.astype("float32")


def result(names: Sequence[str] = ()) -> Result:
    """Read results/ensemble.json. Raises UserError where it is damaged, or lacks one of the submissions `names`."""
    with files.reading(RESULT, REMEDY):
        found = Result.model_validate_json(RESULT.read_bytes())
        if lacking := {*names, ENSEMBLE, *found.weights} - set(found.submissions):
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        return found


def temperatures(names: Sequence[str]) -> dict[str, float]:
    """The temperature of each of these submissions, from results/ensemble.json."""
    found = result(names).submissions
    return {name: found[name].temperature for name in names}


def fit_temperatures(oof: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Temperatures, float64 [folds + 1]: number k fits all rows but those of fold k, the last fits all rows."""
    known = [fold_of != fold for fold in range(fold_of.max() + 1)] + [np.ones(len(labels), dtype=bool)]
    return np.array([metrics.fit_temperature(oof[rows], labels[rows]) for rows in known])


def tempered(oof: np.ndarray, temperatures: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Every fold's probabilities at the temperature that is fitted on the other folds: float64 [n, 7]."""
    found = np.empty(oof.shape)
    for fold, temperature in enumerate(temperatures[:-1]):
        found[fold_of == fold] = metrics.temper(oof[fold_of == fold], temperature)
    return found


def fit_weights(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The weights, float64 [members], whose weighted mean has the least log-loss.

    Expectation maximisation finds the weights of a mixture of given parts (Dempster, Laird & Rubin 1977, 4.3). Each
    step lowers the log-loss, which is convex in the weights, so the end is the best of all.

    Parameters
    ----------
    oof : float [members, n, 7]. labels : int [n].
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


def blend(
    method: str, members: Sequence[Predictions], labels: np.ndarray, fold_of: np.ndarray
) -> tuple[Predictions, np.ndarray | None]:
    """Blend members; also their weights, float64 [members], or None where they are no weighted mean.

    Weights are nested: a fold's rows are blended with those fitted on the other folds' rows. (The networks that
    predicted those rows have seen this fold's labels; a handful of numbers carries next to nothing of them.) Test rows
    get those of all folds.

    Parameters
    ----------
    method : one of METHODS. labels, fold_of : int [n].
    """
    oof, test = (np.stack([each[part] for each in members]) for part in (0, 1))
    if method == "geometric":
        return Predictions(geometric_mean(oof), geometric_mean(test)), None
    weights = np.full(len(members), 1 / len(members))
    if method == "mean":
        return Predictions(weighted_mean(oof, weights), weighted_mean(test, weights)), weights
    nested = np.empty_like(oof[0])
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        nested[inside] = weighted_mean(oof[:, inside], fit_weights(oof[:, ~inside], labels[~inside]))
    weights = fit_weights(oof, labels)
    return Predictions(nested, weighted_mean(test, weights)), weights


def scores(oof: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, log-loss and Brier score out of fold of float [n, 7]."""
    return {
        "oof_accuracy": round(float(metrics.right(oof, labels).mean()), 6),
        "oof_log_loss": round(metrics.cross_entropy(oof, labels), 6),
        "oof_brier": round(metrics.brier(oof, labels), 6),
    }


def describe(oof: np.ndarray, plain: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> Submission:
    """What results/ensemble.json says of one submission.

    Parameters
    ----------
    oof : float [n, 7]. plain : the same without test-time augmentation. labels, fold_of : int [n].
    """
    hits, plain_hits = metrics.right(oof, labels), metrics.right(plain, labels)
    temperatures = fit_temperatures(oof, labels, fold_of)
    augmentation = {
        "accuracy_without": round(float(plain_hits.mean()), 6),
        "accuracy_with": round(float(hits.mean()), 6),
        "p_value": float(f"{metrics.mcnemar(hits, plain_hits):.3g}"),
    }
    return Submission(
        folds=[round(float(hits[fold_of == fold].mean()), 6) for fold in np.unique(fold_of)],
        temperature=round(float(temperatures[-1]), 4),
        calibration=metrics.calibration(oof, labels),
        calibration_tempered=metrics.calibration(tempered(oof, temperatures, fold_of), labels),
        test_time_augmentation=None if np.array_equal(oof, plain) else augmentation,
    )


def read(settings: Config, data: Faces, dealt: Folds) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
    """Every model and external member, with and without test-time augmentation; a model's folds are averaged.

    Raises UserError where a cell or an external member cannot be used.
    """
    members: dict[str, Predictions] = {}
    plain: dict[str, Predictions] = {}
    for name in settings.names:
        cells = [store.load(settings, name, fold, data, dealt) for fold in settings.folds]
        order = np.argsort(np.concatenate([cell.rows for cell in cells]))
        for found, suffix in ((members, ""), (plain, "_plain")):
            oof = np.concatenate([getattr(cell, f"oof{suffix}") for cell in cells])[order]
            tests = np.stack([getattr(cell, f"test{suffix}") for cell in cells])
            found[name] = Predictions(oof, tests.mean(axis=0))
    for name in settings.externals:
        members[name] = plain[name] = read_external(name, data, dealt)
    return members, plain


def read_external(name: str, data: Faces, dealt: Folds) -> Predictions:
    """Read external/NAME.npz; its `oof` may be of all Training rows. Raises UserError where it cannot be used."""
    path = EXTERNAL / f"{name}.npz"
    with files.reading(path, f"the other system, as {EXTERNAL}/README.md says"):
        with np.load(path, allow_pickle=False) as arrays:
            oof, test = arrays["oof"], arrays["test"]
        training = data.rows(TRAINING)
        if len(oof) == len(training):
            oof = oof[np.isin(training, dealt.rows)]
        return Predictions(checked(oof, len(dealt.rows)), checked(test, len(data.test_rows())))


def summary(
    settings: config.Ensemble, members: dict[str, Predictions], plain: dict[str, Predictions], labels: np.ndarray,
    fold_of: np.ndarray,
) -> tuple[Predictions, Result]:  # fmt: skip
    """The ensemble, and what results/ensemble.json says of it and of the alternatives to it."""
    names = settings.members

    def scored(method: str, names: list[str]) -> dict[str, float]:
        return scores(blend(method, [members[name] for name in names], labels, fold_of)[0].oof, labels)

    taken, weights = blend(settings.method, [members[name] for name in names], labels, fold_of)
    plain_taken, _ = blend(settings.method, [plain[name] for name in names], labels, fold_of)
    plain, every = plain | {ENSEMBLE: plain_taken}, members | {ENSEMBLE: taken}
    guesses = {name: members[name].oof.argmax(axis=1) for name in names}
    return taken, Result(
        method=settings.method,
        weights=dict.fromkeys(names) if weights is None else dict(zip(names, weights.tolist(), strict=True)),
        members={name: scored("mean", [name]) for name in names},
        methods={each: scored(each, names) for each in METHODS},
        without={
            name: scored(settings.method, [each for each in names if each != name]) for name in names if len(names) > 1
        },
        agreement={
            one: {other: round(float((guesses[one] == guesses[other]).mean()), 4) for other in names} for one in names
        },
        submissions={name: describe(each.oof, plain[name].oof, labels, fold_of) for name, each in every.items()},
    )


def main() -> None:
    """Run the stage."""
    settings, data = config.load(), faces.load()
    dealt = folds.load(data)
    members, plain = read(settings, data, dealt)
    ensemble, found = summary(settings.ensemble, members, plain, data.labels[dealt.rows].astype(int), dealt.fold_of)
    blends = members | {ENSEMBLE: ensemble}
    for name, predictions in blends.items():
        save(name, predictions, data, dealt)
    for path in BLENDS.glob("*.npz"):
        if path.stem not in blends:
            path.unlink()
    files.write_json(RESULT, found.model_dump())
    accuracy = found.methods[found.method]["oof_accuracy"]
    print(f"{RESULT}: {len(found.weights)} members by {found.method}, {accuracy:.2%} out of fold")
