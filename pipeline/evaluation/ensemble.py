"""Ensemble: the mean over the folds of every model, and a blend of the models, fitted without test labels.

Reads data/faces.npz, data/folds.csv, data/folds/, all cells, and external/NAME.npz (predictions of other systems).
Writes:

- artifacts/blends/NAME.npz for each member and for the ensemble: see `Predictions`.
- results/ensemble.json: weights of the members, scores of every method out of fold, the gain from each member and from
  test-time augmentation, the agreement of the members, and the temperature of every submission.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, Field
from scipy.optimize import minimize

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
REMEDY = "dvc repro ensemble"
METHODS = get_args(config.Ensemble.model_fields["method"].annotation)
UNKNOWN = np.full(3, np.nan)


class Submission(BaseModel, frozen=True):
    """Entry of one submission in results/ensemble.json, from out-of-fold rows only."""

    folds: list[float]  # accuracy of each fold
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    calibration: dict[str, float]
    calibration_tempered: dict[str, float]
    test_time_augmentation: dict[str, float] | None  # accuracy_without, accuracy_with, p_value; None: not used


class Result(BaseModel, frozen=True):
    """Contents of results/ensemble.json.

    Parameters
    ----------
    weights : by member; None where the method has no weights.
    members, methods, without : result of `scores` for each single member, for the blend by each method, and for the
        blend without each member.
    agreement : share of the rows for which two members predict the same class.
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
    oof : float32 [n, 7], out of fold, for the rows of data/folds.csv.
    test : float32 [k, 7], for the test rows, PublicTest before PrivateTest.
    cost : float [3]: number of networks, parameters of one network (of the ensemble: of one of each member), and
        seconds of training on one core; NaN where unknown.
    """

    oof: np.ndarray
    test: np.ndarray
    cost: np.ndarray = UNKNOWN


def inputs() -> tuple[Config, Faces, Folds, np.ndarray]:
    """Return params.yaml, the faces, the folds of the run, and the labels of their rows, int64 [n]."""
    data = faces.load()
    assignment = folds.load(data)
    return config.load(), data, assignment, data.labels[assignment.rows].astype(int)


def load(name: str, data: Faces, assignment: Folds) -> Predictions:
    """Read artifacts/blends/NAME.npz. Raises UserError where it is missing, damaged or for other rows."""
    path = BLENDS / f"{name}.npz"
    with files.reading(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        if arrays["of"].tolist() != [name, data.digest, assignment.digest]:
            raise ValueError("for another submission, other faces or other folds")
        return Predictions(arrays["oof"], arrays["test"], arrays["cost"])


def save(name: str, predictions: Predictions, data: Faces, assignment: Folds) -> None:
    """Write artifacts/blends/NAME.npz, with its name and the digests of its faces and folds."""
    arrays = predictions._asdict() | {"of": [name, data.digest, assignment.digest]}
    files.replace(BLENDS / f"{name}.npz", partial(np.savez, **arrays))


def result(names: Sequence[str] = ()) -> Result:
    """Read results/ensemble.json. Raises UserError where it is damaged, or lacks one of the submissions `names`."""
    with files.reading(RESULT, REMEDY):
        content = Result.model_validate_json(RESULT.read_bytes())
        if missing := {*names, ENSEMBLE, *content.weights} - set(content.submissions):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return content


def fit_temperatures(oof: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Return float64 [folds + 1]: temperature k is fitted on all rows except fold k, the last one on all rows."""
    subsets = [fold_of != fold for fold in range(fold_of.max() + 2)]  # the last number matches no row
    return np.array([metrics.fit_temperature(oof[rows], labels[rows]) for rows in subsets])


def tempered(oof: np.ndarray, temperatures: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Return each fold's probabilities at the temperature fitted on the other folds: float64 [n, 7]."""
    return metrics.temper(oof, temperatures[fold_of][:, None])


def fit_weights(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights, float64 [members], whose weighted mean has the least log-loss.

    The log-loss is convex in the weights, so the optimum that SLSQP finds is the global one.

    Parameters
    ----------
    oof : float [members, n, 7]. labels : int [n].
    """
    likelihood = oof[:, np.arange(len(labels)), labels].astype(np.float64).clip(1e-12)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ likelihood
        return -np.log(mixed).mean(), -(likelihood / mixed).mean(axis=1)

    equal, total = np.full(len(oof), 1 / len(oof)), {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    found = minimize(loss, equal, jac=True, bounds=[(0, 1)] * len(oof), constraints=total, options={"ftol": 1e-12})
    assert found.success, found.message
    weights = found.x.round(8)  # equal on all processors; a member without weight is not loaded for prediction
    return np.asarray(weights / weights.sum())


def weighted_mean(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted arithmetic mean over the first axis of float [members, n, 7]."""
    return np.asarray(np.einsum("m,mnc->nc", weights, members), np.float32)


def geometric_mean(members: np.ndarray) -> np.ndarray:
    """Return the geometric mean over the first axis of float [members, n, 7], normalised to sum to 1."""
    mean = np.exp(np.log(members.astype(np.float64).clip(1e-12)).mean(axis=0))
    return np.asarray(mean / mean.sum(axis=1, keepdims=True), np.float32)


UNWEIGHTED = {"geometric": geometric_mean}  # methods without weights: functions of float [members, n, 7]


def blend(
    method: str, members: Sequence[Predictions], labels: np.ndarray, fold_of: np.ndarray
) -> tuple[Predictions, np.ndarray | None]:
    """Blend members. Return the blend and its weights, float64 [members]; None where the method has no weights.

    Weights are nested: the rows of a fold are blended with weights fitted on the other folds. (The networks that
    predicted those folds have seen the labels of this one, but a few weights carry almost no information about them.)
    Test rows are blended with weights fitted on all folds.

    Parameters
    ----------
    method : one of METHODS. labels, fold_of : int [n].
    """
    oof, test = (np.stack([each[part] for each in members]) for part in (0, 1))
    if method in UNWEIGHTED:
        return Predictions(UNWEIGHTED[method](oof), UNWEIGHTED[method](test)), None
    weights = np.full(len(members), 1 / len(members))
    if method == "mean":
        return Predictions(weighted_mean(oof, weights), weighted_mean(test, weights)), weights
    assert method == "weights", method
    nested = np.empty_like(oof[0])
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        nested[inside] = weighted_mean(oof[:, inside], fit_weights(oof[:, ~inside], labels[~inside]))
    weights = fit_weights(oof, labels)
    return Predictions(nested, weighted_mean(test, weights)), weights


def scores(oof: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy, log-loss and Brier score of out-of-fold probabilities, float [n, 7]."""
    return {
        "oof_accuracy": round(float(metrics.right(oof, labels).mean()), 7),
        "oof_log_loss": round(metrics.cross_entropy(oof, labels), 6),
        "oof_brier": round(metrics.brier(oof, labels), 6),
    }


def describe(oof: np.ndarray, plain: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> Submission:
    """Return the entry of one submission in results/ensemble.json.

    Parameters
    ----------
    oof : float [n, 7]. plain : float [n, 7], without test-time augmentation. labels, fold_of : int [n].
    """
    hits, plain_hits = metrics.right(oof, labels), metrics.right(plain, labels)
    temperatures = fit_temperatures(oof, labels, fold_of)
    augmentation = {
        "accuracy_without": round(float(plain_hits.mean()), 7),
        "accuracy_with": round(float(hits.mean()), 7),
        "p_value": metrics.mcnemar(hits, plain_hits),
    }
    return Submission(
        folds=[round(float(hits[fold_of == fold].mean()), 7) for fold in np.unique(fold_of)],
        temperature=round(float(temperatures[-1]), 4),
        calibration=metrics.calibration(oof, labels),
        calibration_tempered=metrics.calibration(tempered(oof, temperatures, fold_of), labels),
        test_time_augmentation=None if np.array_equal(oof, plain) else augmentation,
    )


def averaged(cells: list[store.Cell], suffix: str = "") -> Predictions:
    """Return the out-of-fold predictions of a model's cells, and the mean of their predictions of the test rows.

    Parameters
    ----------
    suffix : "_plain" for predictions without test-time augmentation.
    """
    order = np.argsort(np.concatenate([cell.rows for cell in cells]))
    oof = np.concatenate([getattr(cell, f"oof{suffix}") for cell in cells])[order]
    tests = np.stack([getattr(cell, f"test{suffix}") for cell in cells])
    cost = [len(cells), cells[0].about.parameters, sum(cell.about.seconds for cell in cells)]
    return Predictions(oof, tests.mean(axis=0), np.array(cost, dtype="float64"))


def read(settings: Config, data: Faces, assignment: Folds) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
    """Read all models and external members, with and without test-time augmentation; average each model's folds.

    Raises UserError where a cell or an external file is missing or unusable.
    """
    members: dict[str, Predictions] = {}
    plain: dict[str, Predictions] = {}
    for name in settings.names:
        cells = store.load_all(settings, name, data)
        members[name], plain[name] = averaged(cells), averaged(cells, "_plain")
    for name in settings.externals:
        members[name] = plain[name] = read_external(name, data, assignment)
    return members, plain


def read_external(name: str, data: Faces, assignment: Folds) -> Predictions:
    """Read external/NAME.npz; `oof` may cover all Training rows.

    Raises UserError where it is missing or unusable, see `store.probabilities`.
    """
    path = EXTERNAL / f"{name}.npz"
    remedy = f"the other system, as {EXTERNAL}/README.md says"
    with files.reading(path, remedy), np.load(path, allow_pickle=False) as arrays:
        oof = arrays["oof"]
        if len(oof) == len(data.rows(TRAINING)):
            oof = oof[np.isin(data.rows(TRAINING), assignment.rows)]
        test = store.probabilities(arrays["test"], len(data.test_rows()))
        return Predictions(store.probabilities(oof, len(assignment.rows)), test)


def summary(
    settings: config.Ensemble, members: dict[str, Predictions], plain: dict[str, Predictions], labels: np.ndarray,
    fold_of: np.ndarray, own_folds: dict[str, np.ndarray],
) -> tuple[Predictions, Result]:  # fmt: skip
    """Return the ensemble and the contents of results/ensemble.json.

    Parameters
    ----------
    labels, fold_of : int [n]. own_folds : the same as fold_of, of each model.
    """
    names = settings.members

    def scored(method: str, names: list[str]) -> dict[str, float]:
        return scores(blend(method, [members[name] for name in names], labels, fold_of)[0].oof, labels)

    ensemble, weights = blend(settings.method, [members[name] for name in names], labels, fold_of)
    plain_ensemble, _ = blend(settings.method, [plain[name] for name in names], labels, fold_of)
    plain, every = plain | {ENSEMBLE: plain_ensemble}, members | {ENSEMBLE: ensemble}
    predicted = {name: members[name].oof.argmax(axis=1) for name in names}
    return ensemble, Result(
        method=settings.method,
        weights=dict.fromkeys(names) if weights is None else dict(zip(names, weights.tolist(), strict=True)),
        members={name: scored("mean", [name]) for name in names},
        methods={each: scored(each, names) for each in METHODS},
        without={
            name: scored(settings.method, [each for each in names if each != name]) for name in names if len(names) > 1
        },
        agreement={
            first: {second: round(float((predicted[first] == predicted[second]).mean()), 4) for second in names}
            for first in names
        },
        submissions={
            name: describe(each.oof, plain[name].oof, labels, own_folds.get(name, fold_of))
            for name, each in every.items()
        },
    )


def total(members: dict[str, Predictions], weights: dict[str, float | None]) -> np.ndarray:
    """Return the cost of the ensemble: networks and seconds of all members, parameters of those with weight."""
    each = {name: members[name].cost for name in weights}
    networks, _, seconds = np.sum(list(each.values()), axis=0)
    return np.array([networks, sum(cost[1] for name, cost in each.items() if weights[name] != 0), seconds])


def main() -> None:
    """Run the stage."""
    settings, data, assignment, labels = inputs()
    members, plain = read(settings, data, assignment)
    own_folds = {name: folds.load(data, name).fold_of for name in settings.names}
    ensemble, content = summary(settings.ensemble, members, plain, labels, assignment.fold_of, own_folds)
    blends = members | {ENSEMBLE: ensemble._replace(cost=total(members, content.weights))}
    for name, predictions in blends.items():
        save(name, predictions, data, assignment)
    files.remove_others(BLENDS, ".npz", blends)
    files.write_json(RESULT, content.model_dump())
    accuracy = content.methods[content.method]["oof_accuracy"]
    print(f"{RESULT}: {len(content.weights)} members by {content.method}, {accuracy:.2%} out of fold")
