"""Print our submissions among the ten best teams of 2013, best first.

Reads submissions/scores.csv.
"""

from typing import Any

from tabulate import tabulate

from pipeline import command, submission
from pipeline.competition import BOARD_2013, PRIVATE, SPLIT_ROWS, TEAMS_2013
from pipeline.submission import UNKNOWN, percent

HEADERS = ("rank", "", "PrivateTest", "95 % interval", "no twin", "PublicTest", "out of fold", "parameters", "minutes")


def rows(scores: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of the board, best first; submissions whose score is unknown come last.

    Parameters
    ----------
    scores : the lines of submissions/scores.csv.
    """
    lines: list[tuple[float, tuple[str, ...]]] = []
    for entry in scores:
        known = entry["private_accuracy"] != UNKNOWN
        interval = f"{percent(entry['private_low'])} to {percent(entry['private_high'])}" if known else UNKNOWN
        lines.append((
            float(entry["private_accuracy"]) if known else -1.0,
            (
                str(entry["rank_2013"]), f"{entry['name']} *", percent(entry["private_accuracy"]), interval,
                percent(entry["private_no_twin"]), percent(entry["public_accuracy"]), percent(entry["oof_accuracy"]),
                f"{entry['parameters']:,}", f"{entry['train_seconds'] / 60:.1f}",
            ),
        ))  # fmt: skip
    if any(entry[1][0] not in ("none", UNKNOWN) for entry in lines):
        for place, (team, right) in enumerate(BOARD_2013, start=1):
            ratio = right / SPLIT_ROWS[PRIVATE]
            lines.append((ratio, (str(place), team, f"{ratio:.2%}", *[""] * 6)))
    return [line for _, line in sorted(lines, key=lambda entry: -entry[0])]


def main() -> None:
    """Run the command."""
    table = rows(submission.scores())
    print(tabulate(table, HEADERS, disable_numparse=True, colalign=("right", "left", *["right"] * 7)))
    print(
        f"\n* ours. Ranks are places among the {TEAMS_2013} teams of 2013; no twin: rows whose picture Training lacks."
    )


if __name__ == "__main__":
    command.run(main, "python -m pipeline.leaderboard")
