"""Our scores as tables: beside the ten best teams of 2013, whether they differ more than by chance, and by seed."""

from typing import Any

import pandas as pd

from pipeline.competition import BOARD_2013, PRIVATE, SPLIT_ROWS
from pipeline.evaluation.submission import UNKNOWN, percent

HEADERS = (
    "", "out of fold", "PublicTest", "PrivateTest", "95 % interval", "no duplicate", "parameters", "minutes",
)  # fmt: skip
TEAMS = {f"{place}. {team}": right / SPLIT_ROWS[PRIVATE] for place, (team, right) in enumerate(BOARD_2013, start=1)}
ORDINALS = {1: "1st", 2: "2nd", 3: "3rd", 11: "below the 10th"}
SEED_SCORES = ("public_accuracy", "private_accuracy", "private_no_duplicate_accuracy")
NOTES = {
    "unofficial": "Measured on files that are not Kaggle's own; results/data.json says what is known of them.",
    "folders": "Measured on pictures in folders, in the competition's split by their names; whether they are Kaggle's "
    "own is not known.",
    "other split": "Measured on another split than the competition's (results/data.json says which folder stands for "
    "what), so there is no rank.",
    "drawn": "Measured on drawn faces: these scores say nothing about the competition.",
}


def interval(scores: dict[str, Any], column: str) -> str:
    """The 95 % interval of an accuracy of submissions/scores.csv."""
    low, high = (scores[f"{column.removesuffix('_accuracy')}_{end}"] for end in ("low", "high"))
    return UNKNOWN if low == UNKNOWN else f"{percent(low)} to {percent(high)}"


def ours(scores: dict[str, Any]) -> tuple[str, ...]:
    """A submission's line of the board, of its line in submissions/scores.csv; blank where its effort is not known."""
    parameters, seconds = scores["parameters"], scores["train_seconds"]
    return (
        str(scores["name"]), *(percent(scores[f"{rows}_accuracy"]) for rows in ("oof", "public", "private")),
        interval(scores, "private_accuracy"), percent(scores["private_no_duplicate"]),
        "" if parameters is None else f"{parameters:,}", "" if seconds is None else f"{seconds / 60:.1f}",
    )  # fmt: skip


def rows(scores: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of the board: ours as `scores` orders them, then the teams of 2013 if ours have places among them."""
    lines = [ours(entry) for entry in scores]
    if places(scores):
        lines += [(team, "", "", percent(ratio), *[""] * (len(HEADERS) - 4)) for team, ratio in TEAMS.items()]
    return lines


def table(scores: list[dict[str, Any]]) -> pd.DataFrame:
    """The board as texts."""
    return pd.DataFrame(rows(scores), columns=list(HEADERS)).set_index("")


def markdown(frame: pd.DataFrame) -> str:
    """A data frame of texts in Markdown."""
    return str(frame.to_markdown(disable_numparse=True, colalign=("left", *["right"] * len(frame.columns))))


def places(scores: list[dict[str, Any]]) -> str:
    """Which place each submission would have had in 2013, by PrivateTest; blank where none has a place."""
    found: dict[int, list[str]] = {}
    for entry in scores:
        if entry["rank_2013"] not in ("none", UNKNOWN):
            place = int(str(entry["rank_2013"]).replace(">10", "11"))
            found.setdefault(place, []).append(str(entry["name"]))
    return " ".join(
        f"Would place {ORDINALS.get(place, f'{place}th')}: {', '.join(found[place])}." for place in sorted(found)
    )


def spread(found: dict[str, float] | None) -> str:
    """Mean and standard deviation of a ratio over several seeds, both in per cent; blank where they are not known."""
    return f"{found['mean']:.2%} ± {100 * found['deviation']:.2f}" if found else ""


def seeds(found: dict[str, Any]) -> pd.DataFrame:
    """The scores of every seed as texts, the last line their mean; `found` as in results/speedrun.json."""
    public, private, alone = SEED_SCORES
    lines = {
        seed: [percent(entry[public]), percent(entry[private]), interval(entry, private), percent(entry[alone]),
               f"{entry['minutes']:.1f}"]
        for seed, entry in found["by_seed"].items()
    }  # fmt: skip
    means = [spread(found.get(score)) for score in SEED_SCORES]
    lines["mean"] = [means[0], means[1], "", means[2], f"{found['minutes']:.1f}"]
    columns = ["PublicTest", "PrivateTest", "95 % interval", "no duplicate", "minutes"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("seed")


def p_value(value: float) -> str:
    """A p-value as journals print it."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
