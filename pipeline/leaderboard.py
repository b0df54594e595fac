"""Print our submissions among the ten best teams of 2013, best first.

Reads submissions/scores.csv.
"""

import pandas as pd
from tabulate import tabulate

from pipeline import command, score
from pipeline.command import Refusal
from pipeline.competition import BOARD_2013, PRIVATE, SPLIT_ROWS, TEAMS_2013

HEADERS = ("rank", "", "PrivateTest", "95 % interval", "no twin", "PublicTest", "out of fold", "parameters", "minutes")


def percent(value: object) -> str:
    """A ratio as a percentage, or what stands there instead of a number."""
    number = pd.to_numeric(value, errors="coerce")  # type: ignore[call-overload]
    return str(value) if pd.isna(number) else f"{number:.2%}"


def rows(scores: pd.DataFrame) -> list[tuple[str, ...]]:
    """The lines of the board, best first; submissions whose score is unknown come last.

    Parameters
    ----------
    scores : the table of submissions/scores.csv.
    """
    lines: list[tuple[float, tuple[str, ...]]] = []
    for entry in scores.to_dict(orient="records"):
        private = pd.to_numeric(entry["private_accuracy"], errors="coerce")
        known = not pd.isna(private)
        interval = f"{percent(entry['private_low'])} to {percent(entry['private_high'])}" if known else score.UNKNOWN
        lines.append((
            float(private) if known else -1.0,
            (
                str(entry["rank_2013"]), f"{entry['name']} *", percent(entry["private_accuracy"]), interval,
                percent(entry["private_no_twin"]), percent(entry["public_accuracy"]), percent(entry["oof_accuracy"]),
                f"{entry['parameters']:,}", f"{entry['train_seconds'] / 60:.1f}",
            ),
        ))  # fmt: skip
    if any(entry[1][0] not in ("none", score.UNKNOWN) for entry in lines):
        for place, (team, right) in enumerate(BOARD_2013, start=1):
            ratio = right / SPLIT_ROWS[PRIVATE]
            lines.append((ratio, (str(place), team, f"{ratio:.2%}", *[""] * 6)))
    return [line for _, line in sorted(lines, key=lambda entry: -entry[0])]


def main() -> None:
    """Run the command."""
    if not score.TABLE.exists():
        raise Refusal(f"{score.TABLE} is missing; make it with: make repro")
    table = rows(pd.read_csv(score.TABLE))
    print(tabulate(table, HEADERS, disable_numparse=True, colalign=("right", "left", *["right"] * 7)))
    print(
        f"\n* ours. Ranks are places among the {TEAMS_2013} teams of 2013; no twin: rows whose picture Training lacks."
    )


if __name__ == "__main__":
    command.run(main, "python -m pipeline.leaderboard")
