"""Train the sources' networks by their whole recipes, to show what their figures owe to the rows they were measured on.

It trains on rows that its own test rows are near to, and looks at test labels on purpose: nothing that it makes may be
used for a submission. Each network is trained on Training; one whose source drew its rows by chance is also trained as
there. Both test splits, or the source's rows, are scored after every epoch. Reads the faces and data/solution.csv.
Writes results/claims.json, results/claims.csv and results/claims.png, which the report shows. A training that is
finished is kept in artifacts/claims/, and not run again.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from ruamel.yaml import YAML

from pipeline import config, files
from pipeline.competition import SPLITS, TRAINING
from pipeline.config import Recipe, Section
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


class Claim(Section):
    """What a source says, on which rows, and how it trained.

    Parameters
    ----------
    claimed : accuracy in per cent.
    chooses_epoch : whether the rows that it was measured on chose the epoch, too.
    held_out, left_out : parts of all rows that the source drew by chance: to be measured on, and for its validation.
        splits : those that it was measured on. Without held_out and splits its rows are unknown.
    recipe : the source's (plateau watches the training loss; no early stopping).
    """

    claimed: float
    measured_on: str
    chooses_epoch: bool = False
    held_out: float = 0.0
    left_out: float = 0.0
    splits: list[str] = Field(default_factory=list)
    recipe: Recipe


CLAIMS = {
    name: Claim.model_validate(entry)
    for name, entry in YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}


def draw(count: int, held_out: float, left_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `count` to train on, and rows to judge, drawn by chance: int64 each."""
    order = np.random.default_rng(seed).permutation(count)
    judged, left = round(held_out * count), round(left_out * count)
    return np.sort(order[judged + left :]), np.sort(order[:judged])


def plan(name: str, epochs: int | None, data: Faces, labels: np.ndarray) -> dict[str, Training]:
    """The trainings of a network: OFFICIAL, and DRAWN where its source drew its rows.

    Parameters
    ----------
    epochs : None for the source's. labels : int [n], of all rows.
    """
    claim, settings = CLAIMS[name], config.load()
    recipe = claim.recipe.model_copy(update={"epochs": epochs or claim.recipe.epochs})
    splits = {OFFICIAL: (data.rows(TRAINING), data.test_rows())}
    if claim.held_out:
        splits[DRAWN] = draw(len(labels), claim.held_out, claim.left_out, settings.seed)
    return {
        kind: Training(f"{name}, {kind} split", name, recipe, settings.seed, settings.backend, rows, labels, judged,
                       judged[:0])
        for kind, (rows, judged) in splits.items()
    }  # fmt: skip


def parts(name: str, task: Training, data: Faces) -> dict[str, np.ndarray]:
    """Which watched rows of a training are in each part that is scored: bool [w] by name."""
    if np.isin(task.rows, data.rows(TRAINING)).all():
        usage = data.usage[task.watched]
        found = {split: usage == number for number, split in enumerate(SPLITS) if (usage == number).any()}
        if splits := CLAIMS[name].splits:
            found[THEIRS] = np.logical_or.reduce([found[split] for split in splits if split in found])
        return found
    return {THEIRS: np.ones(len(task.watched), bool)}


def score(hits: np.ndarray, duplicates: np.ndarray, chosen: int | None) -> dict[str, Any]:
    """Accuracies of one part of the rows, with the ends of their 95 % intervals.

    Parameters
    ----------
    hits : bool [epochs, m]. duplicates : bool [m], whose picture was trained on. chosen : an epoch, from 0 up.
    """
    rows = {"last": hits[-1], "without_duplicates": hits[-1, ~duplicates]}
    if chosen is not None:
        rows["chosen"] = hits[chosen]
    found = {key: {side: round(value, 5) for side, value in metrics.share(each).items()}
             for key, each in rows.items() if len(each)}  # fmt: skip
    return {"rows": hits.shape[1], "duplicates": int(duplicates.sum()), **found}


def entry(name: str, tasks: dict[str, Training], results: dict[str, Result], data: Faces) -> dict[str, Any]:
    """What results/claims.json says of a network: its claim, scores by part of the rows, and `points`.

    The claim less the honest figure is the sum of `points`: what was not reached here, what the choice of the epoch and
    duplicates gave to the source's rows, and what is left: other rows, as chance and the split have them.
    """
    claim, groups = CLAIMS[name], faces.picture_groups(data.pixels)
    hits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for kind, task in tasks.items():
        seen = np.isin(groups[task.watched], groups[task.rows])
        hits |= {part: (results[kind].hits[:, of], seen[of]) for part, of in parts(name, task, data).items()}
    chosen = int(hits[THEIRS][0].mean(axis=1).argmax()) if THEIRS in hits else None
    scores = {part: score(right, known, chosen) for part, (right, known) in hits.items()}
    found = claim.model_dump() | {
        "epochs": tasks[OFFICIAL].recipe.epochs, "chosen_epoch": None if chosen is None else chosen + 1,
        "trained_rows": {kind: len(task.rows) for kind, task in tasks.items()}, "scores": scores,
    }  # fmt: skip
    if THEIRS in scores and all("without_duplicates" in scores[part] for part in (THEIRS, HONEST)):
        theirs, honest = scores[THEIRS], scores[HONEST]
        by_rule = theirs["chosen" if claim.chooses_epoch else "last"]["accuracy"]
        gain = {key: each["last"]["accuracy"] - each["without_duplicates"]["accuracy"]
                for key, each in ((THEIRS, theirs), (HONEST, honest))}  # fmt: skip
        steps = {
            "not_reached": claim.claimed / 100 - by_rule,
            "epoch": by_rule - theirs["last"]["accuracy"],
            "duplicates": gain[THEIRS] - gain[HONEST],
            "rows": theirs["without_duplicates"]["accuracy"] - honest["without_duplicates"]["accuracy"],
        }
        found["points"] = {key: round(100 * value, 2) for key, value in steps.items()}
    return found


def curves(name: str, tasks: dict[str, Training], results: dict[str, Result], data: Faces) -> pd.DataFrame:
    """Accuracy after every epoch, by part of the rows, and the claim, as a level line."""
    found = []
    for kind, task in tasks.items():
        for part, of in parts(name, task, data).items():
            if kind == OFFICIAL and part == THEIRS:
                continue  # the splits stand there themselves
            accuracies = results[kind].hits[:, of].mean(axis=1).round(5)
            found += [(name, part, number, accuracy) for number, accuracy in enumerate(accuracies, 1)]
    last = tasks[OFFICIAL].recipe.epochs
    found += [(name, "claimed", number, CLAIMS[name].claimed / 100) for number in (1, last)]
    return pd.DataFrame(found, columns=["name", "part", "epoch", "accuracy"])


def write(data: Faces, labels: np.ndarray, epochs: dict[str, int | None]) -> None:
    """Write the results of all networks whose trainings are kept; `epochs` is of those that have other than theirs."""
    found, drawn = {}, []
    for name in CLAIMS:
        tasks = plan(name, epochs.get(name), data, labels)
        results = runner.kept(data, tasks, FOLDER)
        if results.keys() == tasks.keys():
            found[name] = entry(name, tasks, results, data)
            drawn.append(curves(name, tasks, results, data))
    figures.draw(pd.concat(drawn), RESULT.with_suffix(""), template="lines", x="epoch", y="accuracy",
                 title="Accuracy after every epoch, and the claim")  # fmt: skip
    files.write_json(RESULT, found)


def main(name: str, epochs: int | None) -> None:
    """Run the command. Every network's result is written as soon as it is finished."""
    if name and name not in CLAIMS:
        raise UserError(f"no source claims anything for {name!r}; there are {', '.join(CLAIMS)}")
    data = faces.load()
    labels = solution.join(data.labels, solution.load(data))
    if (labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, which this needs")
    names = [name] if name else list(CLAIMS)
    for each in names:
        runner.run(data, plan(each, epochs, data, labels), FOLDER)
        write(data, labels, dict.fromkeys(names, epochs))
