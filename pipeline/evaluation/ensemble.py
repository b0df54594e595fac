"""Blend the folds of every model, and the models with each other, without a look at a test label.

Reads data/faces.npz, data/folds.csv, all cells, and external/NAME.npz for members that are other systems' predictions.
Writes artifacts/blends/NAME.npz for each of them and for the ensemble (oof float32 [n, 7] of the rows of
data/folds.csv, test float32 [k, 7]), and results/ensemble.json: the members' weights, how good every method is out of
fold, what each member and test-time augmentation add, how far members agree, and every submission's temperature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, Field
from scipy.optimize import nnls

from pipeline import config, files
from pipeline.cells import store
from pipeline.competition import CLASSES, TRAINING
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
    members, methods, without : what Blend.scores gives for each member alone, all by every method, all but one.
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
        return Predictions(checked(arrays["oof"], len(dealt.rows)), checked(arrays["test"], len(data.test_rows())))


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


class Member(NamedTuple):
    """What can be a member of the ensemble: a model's networks, or another system.

    Parameters
    ----------
    oof : float32 [n, 7]. tests : float32 [folds, k, 7], by the network of each fold.
    temperatures : float64 [folds + 1]; number k fits all rows but those of fold k, the last fits all rows.
    """

    oof: np.ndarray
    tests: np.ndarray
    temperatures: np.ndarray


class Known(NamedTuple):
    """What is known of the rows: labels and folds of Training, and which test rows are new.

    Parameters
    ----------
    labels, fold_of : int [n]. unseen : bool [k], test rows whose picture Training lacks; on them ambiguity is measured.
    """

    labels: np.ndarray
    fold_of: np.ndarray
    unseen: np.ndarray


def fit_temperatures(oof: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Temperatures as a Member has them. oof : float [n, 7]. labels, fold_of : int [n]."""
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


def ambiguity(tests: np.ndarray) -> np.ndarray:
    """By how much averaging the folds' networks lowers the squared error: A, float64 [members, members].

    Krogh & Vedelsby 1995 (NIPS 7): the squared error of a mean of networks is the mean of their squared errors less
    their ambiguity, which is their mean squared distance from that mean. No label is needed. A mean of members by the
    weights w has the ambiguity w'Aw.

    Parameters
    ----------
    tests : float [members, folds, k, 7], probabilities by every fold's network of rows that none has seen.
    """
    tests = tests.astype(np.float64)
    apart = (tests - tests.mean(axis=1, keepdims=True)).reshape(len(tests), -1)
    found: np.ndarray = apart @ apart.T / max(1, tests.shape[1] * tests.shape[2])
    return found


def fit_bagged(oof: np.ndarray, labels: np.ndarray, ambiguous: np.ndarray) -> np.ndarray:
    """The weights, float64 [members], with the least squared error to be expected of means over folds.

    Out of fold one network of each member predicts a row; a test row gets the mean of all folds' networks. What these
    do for each other, other members need not do. So the ambiguity w'Aw is taken off the squared error w'Cw, and
    w'(C - A)w made the least. C and A come from different rows, so C - A may have small negative eigenvalues; they
    count as 0. With a factor R'R of it the weights solve the non-negative least squares of Rw = 0 and sum(w) = 1
    (scipy), and are scaled to sum to 1, which does not change which are the best.

    Parameters
    ----------
    oof : float [members, n, 7]. labels : int [n]. ambiguous : A, float [members, members].
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


class Blend(NamedTuple):
    """Members that are blended.

    Parameters
    ----------
    weights : of the members, float64 [members]; None where they are no weighted mean.
    ambiguity : by how much averaging the folds' networks lowers the squared error (see `ambiguity`).
    """

    predictions: Predictions
    weights: np.ndarray | None
    ambiguity: float

    def scores(self, labels: np.ndarray) -> dict[str, float]:
        """How good it is out of fold, and the Brier score less the ambiguity.

        That is what to expect of the mean of all folds' networks, on rows as hard as those of Training.
        """
        oof = self.predictions.oof
        brier = metrics.brier(oof, labels)
        return {
            "oof_accuracy": round(float(metrics.right(oof, labels).mean()), 6),
            "oof_log_loss": round(metrics.cross_entropy(oof, labels), 6),
            "oof_brier": round(brier, 6),
            "expected_brier": round(brier - self.ambiguity, 6),
        }


def blend(method: str, members: Sequence[Member], known: Known) -> Blend:
    """Blend members, each brought to its own temperature first.

    Otherwise a member that is less sure of what it has right (because it learned soft targets) would pass for a worse
    one. Temperatures and weights are nested: a fold's rows are blended with those fitted on the other folds' rows. (The
    networks that predicted those rows have seen this fold's labels; a handful of numbers carries next to nothing of
    them.) Test rows get those of all folds, and a member's folds are averaged before they are brought to its
    temperature. The ambiguity is that of the other order, which differs little.

    Parameters
    ----------
    method : one of METHODS.
    """

    def even(parts: Sequence[np.ndarray], part: int) -> np.ndarray:
        return at_temperatures(parts, [each.temperatures[part] for each in members])

    def fit(part: int, rows: np.ndarray) -> np.ndarray | None:
        if method == "geometric":
            return None
        if method == "mean":
            return np.full(len(members), 1 / len(members))
        oof, labels = even([each.oof[rows] for each in members], part), known.labels[rows]
        if method == "weights":
            return fit_weights(oof, labels)
        return fit_bagged(oof, labels, ambiguity(even([each.tests[:, known.unseen] for each in members], part)))

    def mix(parts: Sequence[np.ndarray], part: int, weights: np.ndarray | None) -> np.ndarray:
        return geometric_mean(even(parts, part)) if weights is None else weighted_mean(even(parts, part), weights)

    oof = np.empty_like(members[0].oof)
    for fold in range(len(members[0].temperatures) - 1):
        inside = known.fold_of == fold
        oof[inside] = mix([each.oof[inside] for each in members], fold, fit(fold, ~inside))
    weights = fit(-1, np.ones(len(known.labels), dtype=bool))
    test = mix([each.tests.mean(axis=0) for each in members], -1, weights)
    networks = range(len(members[0].tests))
    by_network = np.stack([mix([each.tests[i][known.unseen] for each in members], -1, weights) for i in networks])
    return Blend(Predictions(oof, test), weights, float(ambiguity(by_network[None])[0, 0]))


def at_temperatures(members: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """Every member's probabilities, float [members, ..., 7], at its temperature: float64."""
    return np.stack([metrics.temper(each, at) for each, at in zip(members, temperatures, strict=True)])


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


def read(settings: Config, data: Faces, dealt: Folds) -> tuple[dict[str, Member], dict[str, Member], Known]:
    """Every model and external member, with and without test-time augmentation, and what is known of the rows.

    Raises UserError where a cell or an external member cannot be used.
    """
    labels, groups = data.labels[dealt.rows], faces.picture_groups(data.pixels)
    known = Known(labels, dealt.fold_of, ~np.isin(groups[data.test_rows()], groups[dealt.rows]))
    members: dict[str, Member] = {}
    plain: dict[str, Member] = {}
    for name in settings.names:
        cells = [store.load(settings, name, fold, data, dealt) for fold in settings.folds]
        order = np.argsort(np.concatenate([cell.rows for cell in cells]))
        for found, suffix in ((members, ""), (plain, "_plain")):
            oof = np.concatenate([getattr(cell, f"oof{suffix}") for cell in cells])[order]
            tests = np.stack([getattr(cell, f"test{suffix}") for cell in cells])
            found[name] = Member(oof, tests, fit_temperatures(oof, labels, dealt.fold_of))
    for name in settings.externals:
        other = read_external(name, data, dealt)
        tests = np.broadcast_to(other.test, (len(settings.folds), *other.test.shape))  # one network, for every fold
        members[name] = plain[name] = Member(other.oof, tests, fit_temperatures(other.oof, labels, dealt.fold_of))
    return members, plain, known


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
    method: str, names: list[str], members: dict[str, Member], plain: dict[str, Member], known: Known
) -> tuple[Blend, Result]:
    """The ensemble of the members `names`, and what results/ensemble.json says of it and of the alternatives to it."""

    def scored(method: str, names: list[str]) -> dict[str, float]:
        return blend(method, [members[name] for name in names], known).scores(known.labels)

    taken = blend(method, [members[name] for name in names], known)
    weights = [None] * len(names) if taken.weights is None else taken.weights.tolist()
    guesses = {name: members[name].oof.argmax(axis=1) for name in names}
    oof = {name: each.oof for name, each in members.items()} | {ENSEMBLE: taken.predictions.oof}
    without_augmentation = blend(method, [plain[name] for name in names], known).predictions.oof
    plain_oof = {name: each.oof for name, each in plain.items()} | {ENSEMBLE: without_augmentation}
    return taken, Result(
        method=method,
        weights=dict(zip(names, weights, strict=True)),
        members={name: scored("mean", [name]) for name in names},
        methods={each: scored(each, names) for each in METHODS},
        without={name: scored(method, [each for each in names if each != name]) for name in names if len(names) > 1},
        agreement={
            one: {other: round(float((guesses[one] == guesses[other]).mean()), 4) for other in names} for one in names
        },
        submissions={name: describe(oof[name], plain_oof[name], known.labels, known.fold_of) for name in oof},
    )


def main() -> None:
    """Run the stage."""
    settings, data = config.load(), faces.load()
    members, plain, known = read(settings, data, folds.load(data))
    ensemble, found = summary(settings.ensemble.method, settings.ensemble.members, members, plain, known)
    blends = {name: Predictions(each.oof, each.tests.mean(axis=0)) for name, each in members.items()}
    BLENDS.mkdir(parents=True, exist_ok=True)
    for path in BLENDS.glob("*.npz"):
        path.unlink()
    for name, predictions in (blends | {ENSEMBLE: ensemble.predictions}).items():
        np.savez(BLENDS / f"{name}.npz", oof=predictions.oof, test=predictions.test)
    files.write_json(RESULT, found.model_dump())
    accuracy = found.methods[found.method]["oof_accuracy"]
    print(f"{RESULT}: {len(found.weights)} members by {found.method}, {accuracy:.2%} out of fold")
