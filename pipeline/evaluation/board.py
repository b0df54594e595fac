"""Our scores as tables: among the ten best teams of 2013, whether they differ more than by chance, and by seed."""

from typing import Any

from pipeline.competition import BOARD_2013, PRIVATE, SPLIT_ROWS
from pipeline.evaluation.submission import UNKNOWN, percent

HEADERS = (
    "rank", "", "PrivateTest", "95 % interval", "no duplicate", "PublicTest", "out of fold", "parameters", "minutes",
)  # fmt: skip
SEED_HEADERS = ("seed", "PublicTest", "PrivateTest", "95 % interval", "no duplicate", "minutes")
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


def line(scores: dict[str, Any]) -> tuple[str, ...]:
    """A submission's line of the board, of its line in submissions/scores.csv; blank where its effort is not known."""
    parameters, seconds = scores["parameters"], scores["train_seconds"]
    return (
        str(scores["rank_2013"]), f"{scores['name']} *", percent(scores["private_accuracy"]),
        interval(scores, "private_accuracy"), percent(scores["private_no_duplicate"]),
        percent(scores["public_accuracy"]), percent(scores["oof_accuracy"]),
        "" if parameters is None else f"{parameters:,}", "" if seconds is None else f"{seconds / 60:.1f}",
    )  # fmt: skip


def rows(scores: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of the board, best on PrivateTest first; the teams of 2013 stand there if ours have places among them.

    `scores` are the lines of submissions/scores.csv.
    """
    lines: list[tuple[float, tuple[str, ...]]] = []
    for entry in scores:
        ratio = -1.0 if entry["private_accuracy"] == UNKNOWN else float(entry["private_accuracy"])
        lines.append((ratio, line(entry)))
    if any(entry["rank_2013"] not in ("none", UNKNOWN) for entry in scores):
        blank = ("",) * (len(HEADERS) - 3)
        for place, (team, right) in enumerate(BOARD_2013, start=1):
            ratio = right / SPLIT_ROWS[PRIVATE]
            lines.append((ratio, (str(place), team, percent(ratio), *blank)))
    return [cells for _, cells in sorted(lines, key=lambda entry: -entry[0])]


def spread(found: dict[str, float] | None) -> str:
    """Mean and standard deviation of a ratio over several seeds, both in per cent; blank where they are not known."""
    return f"{found['mean']:.2%} ± {100 * found['deviation']:.2f}" if found else ""


def seed_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of a table with SEED_HEADERS, the last one their mean; `found` as in results/speedrun.json."""
    lines: list[tuple[str, ...]] = []
    for seed, entry in found["by_seed"].items():
        public, private, alone = (percent(entry[score]) for score in SEED_SCORES)
        reach = interval(entry, "private_accuracy")
        lines.append((str(seed), public, private, reach, alone, f"{entry['minutes']:.1f}"))
    public, private, alone = (spread(found.get(score)) for score in SEED_SCORES)
    return [*lines, ("mean", public, private, "", alone, f"{found['minutes']:.1f}")]


def p_value(value: float) -> str:
    """A p-value as journals print it."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
