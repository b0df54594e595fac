"""Reproduction of the sources' networks by their full recipes, and the effect of the evaluated rows on their claims.

This training uses rows that are near the source's own test rows, and it reads test labels. No result of it may be used
for a submission. Each network is trained on Training. If its source used a random split, it is also trained on such a
split. Both test splits, or the source's rows, are evaluated after every epoch. Reads the faces and data/solution.csv.
Writes results/claims.json, results/claims.csv and results/claims.png, which the report shows. Finished trainings are
kept in artifacts/claims/ and not repeated.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from pipeline import config, files
from pipeline.competition import SPLITS, TRAINING
from pipeline.data import faces, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.evaluation import figures, metrics
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

RESULT = Path("results/claims.json")
FOLDER = Path("artifacts/claims")
OFFICIAL, DRAWN = "official", "drawn"
THEIRS, HONEST = "their rows", "PrivateTest"
Hits = dict[str, tuple[np.ndarray, np.ndarray]]  # by part of the rows, see parts
RECENT = 5  # last epochs whose range of accuracies is reported


class Claim(config.Section):
    """Claim of a source, with the evaluated rows and the recipe.

    Parameters
    ----------
    claimed : accuracy in per cent.
    chooses_epoch : whether the evaluated rows also chose the epoch.
    held_out, left_out : shares of all rows that the source drew at random, for its evaluation and for its validation.
    splits : the splits that the source evaluated. Without held_out and splits, the evaluated rows are unknown.
    recipe : recipe of the source (the plateau schedule monitors the training loss; there is no early stopping).
    """

    claimed: float
    measured_on: str
    chooses_epoch: bool = False
    held_out: float = 0.0
    left_out: float = 0.0
    splits: list[str] = Field(default_factory=list)
    recipe: config.Recipe


CLAIMS = {name: Claim.model_validate(each) for name, each in config.read(Path(__file__).with_suffix(".yaml")).items()}


def draw(count: int, held_out: float, left_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows to train on and rows to evaluate at random from `count` rows: int64 each."""
    order = np.random.default_rng(seed).permutation(count)
    evaluated, unused = round(held_out * count), round(left_out * count)
    return np.sort(order[evaluated + unused :]), np.sort(order[:evaluated])


def plan(name: str, epochs: int | None, data: Faces, labels: np.ndarray) -> dict[str, Training]:
    """Return the trainings of a network: OFFICIAL, and DRAWN where its source used a random split.

    Parameters
    ----------
    epochs : None for the number of epochs of the source. labels : int [n], of all rows.
    """
    claim, settings = CLAIMS[name], config.load()
    recipe = claim.recipe.model_copy(update={"epochs": epochs or claim.recipe.epochs})
    splits = {OFFICIAL: (data.rows(TRAINING), data.test_rows())}
    if claim.held_out:
        splits[DRAWN] = draw(len(labels), claim.held_out, claim.left_out, settings.seed)
    return {
        kind: Training(f"{name}, {kind} split", name, recipe, settings.seed, settings.backend, rows, labels, monitored,
                       monitored[:0])
        for kind, (rows, monitored) in splits.items()
    }  # fmt: skip


def parts(name: str, tasks: dict[str, Training], results: dict[str, Result], data: Faces) -> Hits:
    """Return, by part of the rows: bool [epochs, m], rows that are right after each epoch; bool [m], trained on."""
    groups, found = faces.picture_groups(data.pixels), Hits()
    for kind, task in tasks.items():
        usage, seen = data.usage[task.watched], np.isin(groups[task.watched], groups[task.rows])
        masks = {split: usage == number for number, split in enumerate(SPLITS) if (usage == number).any()}
        if kind == DRAWN:
            masks = {THEIRS: np.ones(len(usage), bool)}
        elif splits := CLAIMS[name].splits:
            masks[THEIRS] = np.isin(usage, [SPLITS.index(split) for split in splits])
        found |= {part: (results[kind].hits[:, mask], seen[mask]) for part, mask in masks.items()}
    return found


def score(hits: np.ndarray, duplicates: np.ndarray, chosen: int | None) -> dict[str, Any]:
    """Return the accuracies of one part of the rows with their 95 % intervals.

    last_epochs has the lowest and highest accuracy of the last RECENT epochs: without a decay of the learning rate,
    one epoch can differ from the next by more than the interval.

    Parameters
    ----------
    hits : bool [epochs, m]. duplicates : bool [m], rows whose picture was trained on. chosen : an epoch, from 0.
    """
    rows = {"last": hits[-1], "without_duplicates": hits[-1, ~duplicates]}
    if chosen is not None:
        rows["chosen"] = hits[chosen]
    scores = {key: {side: round(value, 5) for side, value in metrics.share(each).items()}
              for key, each in rows.items() if len(each)}  # fmt: skip
    recent = hits[-RECENT:].mean(axis=1).round(5)
    scores["last_epochs"] = {"low": float(recent.min()), "high": float(recent.max())}
    return {"rows": hits.shape[1], "duplicates": int(duplicates.sum()), **scores}


def differences(claim: Claim, scores: dict[str, Any]) -> dict[str, float]:
    """Return `points`: parts of the claimed minus the honest accuracy, in percentage points; they sum to it.

    not_reached is the claim minus our accuracy on the source's rows. epoch is the gain from choosing the epoch on these
    rows. duplicates is the gain from duplicates on these rows, minus that on PrivateTest. rows is the remainder: the
    effect of the split and of chance.
    """
    theirs, honest = scores[THEIRS], scores[HONEST]
    by_rule = theirs["chosen" if claim.chooses_epoch else "last"]["accuracy"]
    gain, honest_gain = (each["last"]["accuracy"] - each["without_duplicates"]["accuracy"] for each in (theirs, honest))
    steps = {
        "not_reached": claim.claimed / 100 - by_rule,
        "epoch": by_rule - theirs["last"]["accuracy"],
        "duplicates": gain - honest_gain,
        "rows": theirs["without_duplicates"]["accuracy"] - honest["without_duplicates"]["accuracy"],
    }
    return {key: round(100 * value, 2) for key, value in steps.items()}


def entry(name: str, tasks: dict[str, Training], hits: Hits) -> dict[str, Any]:
    """Return the entry of a network in results/claims.json: its claim, scores by part of the rows, and `points`."""
    claim = CLAIMS[name]
    chosen = int(hits[THEIRS][0].mean(axis=1).argmax()) if THEIRS in hits else None
    scores = {part: score(right, duplicates, chosen) for part, (right, duplicates) in hits.items()}
    result = claim.model_dump() | {
        "epochs": tasks[OFFICIAL].recipe.epochs, "chosen_epoch": None if chosen is None else chosen + 1,
        "trained_rows": {kind: len(task.rows) for kind, task in tasks.items()}, "scores": scores,
    }  # fmt: skip
    if all("without_duplicates" in scores.get(part, {}) for part in (THEIRS, HONEST)):
        result["points"] = differences(claim, scores)
    return result


def curves(name: str, hits: Hits) -> pd.DataFrame:
    """Return the accuracy after every epoch by part of the rows, and the claim as a horizontal line."""
    lines = [(name, part, epoch, accuracy) for part, (right, _) in hits.items()
             if part != THEIRS or not CLAIMS[name].splits  # these splits have their own lines
             for epoch, accuracy in enumerate(right.mean(axis=1).round(5), 1)]  # fmt: skip
    lines += [(name, "claimed", epoch, CLAIMS[name].claimed / 100) for epoch in (1, len(hits[HONEST][0]))]
    return pd.DataFrame(lines, columns=["name", "part", "epoch", "accuracy"])


def write(data: Faces, labels: np.ndarray, epochs: dict[str, int | None]) -> None:
    """Write the results of all finished networks; `epochs` replaces the number of epochs of some of them."""
    entries, tables = {}, []
    for name in CLAIMS:
        tasks = plan(name, epochs.get(name), data, labels)
        results = runner.load_finished(data, tasks, FOLDER)
        if results.keys() == tasks.keys():
            hits = parts(name, tasks, results, data)
            entries[name] = entry(name, tasks, hits)
            tables.append(curves(name, hits))
    order = ["PrivateTest", "PublicTest", THEIRS, "claimed"]  # the colours of the other charts
    table = pd.concat(tables).sort_values("part", key=lambda part: part.map(order.index), kind="stable")
    figures.draw(table, RESULT.with_suffix(""), template="lines", x="epoch", y="accuracy",
                 title="Accuracy after every epoch, and the claim")  # fmt: skip
    files.write_json(RESULT, entries)


def main(name: str, epochs: int | None) -> None:
    """Run the command. The result of every network is written as soon as it is finished."""
    if name and name not in CLAIMS:
        raise UserError(f"no claim for {name!r}; choose one of: {', '.join(CLAIMS)}")
    data = faces.load()
    labels = solution.load(data)
    if (labels < 0).any():
        raise UserError(f"{solution.PATH} lacks labels of test rows; this command needs all of them")
    names = [name] if name else list(CLAIMS)
    for each in names:
        runner.run(data, plan(each, epochs, data, labels), FOLDER)
        write(data, labels, dict.fromkeys(names, epochs))
