"""Show what the models get wrong, picture by picture: mistakes, confused pairs, disagreement, contradictory duplicates.

Reads data/faces.npz, data/folds.csv, data/pairs.csv, artifacts/blends/ and results/ensemble.json. Writes
artifacts/browse.html, one file that needs nothing beside it. It shows people, and so stays out of git. All of it is
out of fold: no test row and no test label is read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import config, files
from pipeline.competition import CLASSES, SIDE
from pipeline.data import faces, folds
from pipeline.evaluation import audit, ensemble, figures, metrics, report

PAGE = Path("artifacts/browse.html")
WORST, PAIRS, CONFUSED, SPLIT = 40, 12, 30, 300  # mistakes of a class, confused pairs, rows of each, disagreements
COLUMNS = 64  # of the sheet of pictures


def worst(probabilities: np.ndarray, labels: np.ndarray) -> Iterator[int]:
    """Places of the mistakes with the least probability of their label, WORST of every class.

    Everywhere here: probabilities float [n, 7], labels int [n].
    """
    wrong, of_label = ~metrics.right(probabilities, labels), probabilities[np.arange(len(labels)), labels]
    for label in metrics.EVERY:
        places = np.flatnonzero(wrong & (labels == label))
        yield from places[np.argsort(of_label[places], kind="stable")[:WORST]]


def confused(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, list[int]]]:
    """The PAIRS most frequent mistakes: label, predicted class, and all places, the surest first."""
    table = pd.DataFrame({"label": labels, "guess": probabilities.argmax(axis=1), "sure": probabilities.max(axis=1)})
    wrong = table[table["label"] != table["guess"]].sort_values("sure", ascending=False, kind="stable")
    common = wrong.value_counts(["label", "guess"]).index[:PAIRS]
    return [(one, other, wrong.query("label == @one and guess == @other").index.tolist()) for one, other in common]


def split(members: np.ndarray) -> np.ndarray:
    """Places of the SPLIT rows on which the fewest pairs of `members` (float [models, n, 7]) predict the same class."""
    votes = np.eye(len(CLASSES))[members.argmax(axis=2)].mean(axis=0)
    return np.lexsort([members.mean(axis=0).max(axis=1), (votes**2).sum(axis=1)])[:SPLIT]


def sheet(pixels: np.ndarray) -> str:
    """Pictures, uint8 [k, 48, 48], side by side in lines of COLUMNS, as an address that holds the whole picture."""
    padded = np.pad(pixels, ((0, -len(pixels) % COLUMNS), (0, 0), (0, 0)))
    lines = padded.reshape(-1, COLUMNS, SIDE, SIDE).swapaxes(1, 2)
    return figures.encoded(lines.reshape(-1, COLUMNS * SIDE), "webp", lossless=True)


def content(
    by_name: dict[str, np.ndarray], labels: np.ndarray, members: list[str], torn: pd.DataFrame
) -> dict[str, Any]:
    """What the page shows but pictures: `at` are the places of its rows, by which everything else names them.

    Parameters
    ----------
    by_name : probabilities of every submission. torn : first,second,how, places of duplicates with different labels.
    """
    pairs = {name: confused(each, labels) for name, each in by_name.items()}
    apart = split(np.stack([by_name[name] for name in members]))
    at = sorted({
        *(place for each in by_name.values() for place in worst(each, labels)),
        *(place for each in pairs.values() for _, _, places in each for place in places[:CONFUSED]),
        *apart, *torn["first"], *torn["second"],
    })  # fmt: skip
    number = {place: k for k, place in enumerate(at)}
    percent = np.stack([each[at] for each in by_name.values()], axis=1) * 100
    return {
        "at": at, "names": list(by_name), "classes": CLASSES, "percent": percent.round(2).tolist(),
        "confused": [[(one, other, len(places)) for one, other, places in each] for each in pairs.values()],
        "apart": [number[place] for place in apart], "worst": WORST, "sure": CONFUSED,
        "torn": [(number[one], number[other], how) for one, other, how in torn.itertuples(index=False)],
    }  # fmt: skip


def contradictions(rows: np.ndarray, labels: np.ndarray, count: int) -> pd.DataFrame:
    """The pairs of data/pairs.csv, both of `rows`, with different labels: the places of both rows in `rows`.

    Raises UserError where the table is damaged, or is not of `count` faces.
    """
    with files.reading(audit.PAIRS, "dvc repro -f audit"):
        table = pd.read_csv(audit.PAIRS, dtype={"first": "int64", "second": "int64"})[["first", "second", "how"]]
        if not (table["first"].between(0, count - 1) & (table["first"] < table["second"])
                & (table["second"] < count) & table["how"].isin(["identical", "near", "mirrored"])).all():  # fmt: skip
            raise ValueError("it is not of these faces")
        table = table[table[["first", "second"]].isin(rows).all(axis=1)]
        table[["first", "second"]] = np.searchsorted(rows, table[["first", "second"]])
        table["torn"] = labels[table["first"]] != labels[table["second"]]
        return table.query("torn").drop(columns="torn")


def main() -> None:
    """Run the command."""
    settings, data = config.load(), faces.load()
    dealt = folds.load(data)
    labels = data.labels[dealt.rows].astype(int)
    names = [config.ENSEMBLE, *settings.names, *settings.externals]
    by_name = {name: ensemble.load(name, data, dealt).oof for name in names}
    found = content(by_name, labels, settings.ensemble.members, contradictions(dealt.rows, labels, len(data.usage)))
    at = found.pop("at")
    rows = dealt.rows[at]
    found |= {"row": rows.tolist(), "label": labels[at].tolist(), "fold": dealt.fold_of[at].tolist()}
    shown = {"found": found, "sheet": sheet(data.pixels[rows]), "columns": COLUMNS, "folds": settings.folds}
    files.write(PAGE, report.render("browse.html.j2", shown).encode())
    size = PAGE.stat().st_size / 1e6
    print(f"{PAGE}: {len(rows):,} of {len(labels):,} Training rows, {size:.1f} MB; open it in a browser")
