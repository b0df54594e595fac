"""Tables of our scores: next to the ten best teams of 2013, and by seed; formats of intervals and p-values."""

from typing import Any

import pandas as pd
from scipy import stats

from pipeline.competition import BOARD_2013, PRIVATE, SPLIT_ROWS
from pipeline.evaluation.submission import UNKNOWN, percent

HEADERS = (
    "", "out of fold", "PublicTest", "PrivateTest", "95 % interval", "no duplicate", "parameters", "minutes",
)  # fmt: skip
TEAMS = {f"{place}. {team}": right / SPLIT_ROWS[PRIVATE] for place, (team, right) in enumerate(BOARD_2013, start=1)}
WINNER = max(TEAMS.values())
ORDINALS = {1: "1st", 2: "2nd", 3: "3rd", 11: "below the 10th"}
SEED_SCORES = ("public_accuracy", "private_accuracy", "private_no_duplicate_accuracy")
NOTES = {
    "unofficial": "The data files are not Kaggle's own; results/data.json has their checksums.",
    "folders": "The data are pictures in folders. Their names give the competition's split; whether they are Kaggle's "
    "own files is unknown.",
    "other split": "The split is not the competition's (results/data.json names the folder used for each part), so "
    "there is no rank.",
    "drawn": "The data are drawn faces: these scores do not predict scores in the competition.",
}


def interval(scores: dict[str, Any], column: str) -> str:
    """Return the 95 % interval of an accuracy column of submissions/scores.csv as text."""
    low, high = (scores[f"{column.removesuffix('_accuracy')}_{end}"] for end in ("low", "high"))
    return UNKNOWN if low == UNKNOWN else f"{percent(low)} to {percent(high)}"


def ours(scores: dict[str, Any]) -> tuple[str, ...]:
    """Return a submission's row of the board from its row of submissions/scores.csv; unknown costs are blank."""
    parameters, seconds = scores["parameters"], scores["train_seconds"]
    return (
        str(scores["name"]), *(percent(scores[f"{rows}_accuracy"]) for rows in ("oof", "public", "private")),
        interval(scores, "private_accuracy"), percent(scores["private_no_duplicate"]),
        "" if parameters is None else f"{parameters:,}", "" if seconds is None else f"{seconds / 60:.1f}",
    )  # fmt: skip


def table(scores: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the board as texts: ours in the order of `scores`, then the teams of 2013 if ours have a rank."""
    lines = [ours(entry) for entry in scores]
    if places(scores):
        lines += [(team, "", "", percent(ratio), *[""] * (len(HEADERS) - 4)) for team, ratio in TEAMS.items()]
    return pd.DataFrame(lines, columns=list(HEADERS)).set_index("")


def markdown(frame: pd.DataFrame) -> str:
    """Return a data frame of texts as a Markdown table."""
    return str(frame.to_markdown(disable_numparse=True, colalign=("left", *["right"] * len(frame.columns))))


def places(scores: list[dict[str, Any]]) -> str:
    """Return the rank of each submission in 2013 by PrivateTest, in words; empty where no submission has a rank."""
    names_at: dict[int, list[str]] = {}
    for entry in scores:
        if entry["rank_2013"] not in ("none", UNKNOWN):
            place = int(str(entry["rank_2013"]).replace(">10", "11"))
            names_at.setdefault(place, []).append(str(entry["name"]))
    shown = [f"{ORDINALS.get(place, f'{place}th')}: {', '.join(names)}" for place, names in sorted(names_at.items())]
    return f"Places that these PrivateTest scores would have had in 2013: {'; '.join(shown)}." if shown else ""


def spread(score: dict[str, float] | None) -> str:
    """Return the mean and standard deviation of a ratio over seeds, both in per cent; empty where unknown."""
    return f"{score['mean']:.2%} ± {100 * score['deviation']:.2f}" if score else ""


def outlook(score: dict[str, Any]) -> str:
    """Return a sentence about the mean over seeds and a new seed, compared with the winner of 2013."""
    mean, deviation, count = score["mean"], score["deviation"], len(score["values"])
    low, high = stats.t.interval(0.95, count - 1, mean, deviation / count**0.5)
    chance = stats.t.sf(WINNER, count - 1, mean, deviation * (1 + 1 / count) ** 0.5)
    return (
        f"By the t distribution over the seeds, the 95 % interval of their mean is {percent(low)} to {percent(high)}. "
        f"A new seed exceeds the winner's score of 2013 with a probability of {chance:.0%}."
    )


def seeds(record: dict[str, Any]) -> pd.DataFrame:
    """Return the scores of every seed in results/speedrun.json (`record`) as texts; the last row is the mean."""
    public, private, no_duplicate = SEED_SCORES
    lines = {
        seed: [percent(entry[public]), percent(entry[private]), interval(entry, private), percent(entry[no_duplicate]),
               f"{entry['minutes']:.1f}"]
        for seed, entry in record["by_seed"].items()
    }  # fmt: skip
    means = [spread(record.get(score)) for score in SEED_SCORES]
    lines["mean"] = [means[0], means[1], "", means[2], f"{record['minutes']:.1f}"]
    columns = ["PublicTest", "PrivateTest", "95 % interval", "no duplicate", "minutes"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("seed")


def p_value(value: float) -> str:
    """Return a p-value as journals print it."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
