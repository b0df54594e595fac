"""Page of the models' mistakes: worst mistakes, confused pairs, disagreement, duplicates with different labels.

Reads data/faces.npz, data/folds.csv, data/pairs.csv and artifacts/blends/. Writes
artifacts/browse.html, a single self-contained file. It shows people and therefore stays out of git. All predictions
are out of fold: no test row and no test label is read.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import config, files
from pipeline.competition import CLASSES, SIDE
from pipeline.evaluation import audit, ensemble, figures, metrics, report

PAGE = Path("artifacts/browse.html")
TEMPLATE = Path(__file__).with_name("browse.html.j2")
WORST, PAIRS, CONFUSED, SPLIT = 40, 12, 30, 300  # mistakes per class, confused pairs, rows per pair, disagreements
COLUMNS = 64  # pictures per line of the sheet


def worst(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return the positions of the WORST mistakes of every class: those with the least probability of their label.

    In this module, `probabilities` is float [n, 7] and `labels` int [n].
    """
    table = pd.DataFrame({"label": labels, "probability": probabilities[np.arange(len(labels)), labels]})
    wrong = table[~metrics.right(probabilities, labels)].sort_values(["label", "probability"], kind="stable")
    return wrong.groupby("label").head(WORST).index.tolist()


def confused(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, list[int]]]:
    """Return the PAIRS most frequent mistakes: label, predicted class, and all positions, most confident first."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    table = pd.DataFrame({"label": labels, "predicted": predicted, "confidence": confidence})
    wrong = table.query("label != predicted").sort_values("confidence", ascending=False, kind="stable")
    groups = wrong.groupby(["label", "predicted"]).groups
    return [(*pair, groups[pair].tolist()) for pair in wrong.value_counts(["label", "predicted"]).index[:PAIRS]]


def split(members: np.ndarray) -> np.ndarray:
    """Return positions of the SPLIT rows on which `members`, float [models, n, 7], agree least in pairs."""
    votes = np.eye(len(CLASSES))[members.argmax(axis=2)].mean(axis=0)
    return np.lexsort([members.mean(axis=0).max(axis=1), (votes**2).sum(axis=1)])[:SPLIT]


def sheet(pixels: np.ndarray) -> str:
    """Return pictures, uint8 [k, 48, 48], as one image with COLUMNS pictures per line, encoded as a data URL."""
    padded = np.pad(pixels, ((0, -len(pixels) % COLUMNS), (0, 0), (0, 0)))
    lines = padded.reshape(-1, COLUMNS, SIDE, SIDE).swapaxes(1, 2)
    return figures.encoded(lines.reshape(-1, COLUMNS * SIDE), "webp", lossless=True)


def content(
    by_name: dict[str, np.ndarray], labels: np.ndarray, members: list[str], torn: pd.DataFrame
) -> dict[str, Any]:
    """Return the contents of the page except pictures. All other keys refer to rows by their index in `at`.

    Parameters
    ----------
    by_name : probabilities of every submission.
    torn : first,second,how; positions of duplicates with different labels.
    """
    pairs = {name: confused(each, labels) for name, each in by_name.items()}
    apart = split(np.stack([by_name[name] for name in members]))
    at = sorted({
        *(position for each in by_name.values() for position in worst(each, labels)),
        *(position for each in pairs.values() for _, _, positions in each for position in positions[:CONFUSED]),
        *apart, *torn["first"], *torn["second"],
    })  # fmt: skip
    index = {position: k for k, position in enumerate(at)}
    percent = np.stack([each[at] for each in by_name.values()], axis=1) * 100
    return {
        "at": at, "names": list(by_name), "classes": CLASSES, "percent": percent.round(4).tolist(),
        "confused": [[(*pair, len(positions)) for *pair, positions in each] for each in pairs.values()],
        "apart": [index[position] for position in apart], "worst": WORST, "sure": CONFUSED,
        "torn": [(index[first], index[second], how) for first, second, how in torn.itertuples(index=False)],
    }  # fmt: skip


def contradictions(rows: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return the pairs of data/pairs.csv inside `rows` that have different labels, as positions in `rows`."""
    with files.reading(audit.PAIRS, "dvc repro -f audit"):
        table = pd.read_csv(audit.PAIRS, dtype={"first": "int64", "second": "int64"})[["first", "second", "how"]]
        table = table[table[["first", "second"]].isin(rows).all(axis=1)]
        table[["first", "second"]] = np.searchsorted(rows, table[["first", "second"]])
        different: np.ndarray = labels[table["first"]] != labels[table["second"]]
        return table[different]


def main() -> None:
    """Run the command."""
    settings, data, assignment, labels = ensemble.inputs()
    names = [config.ENSEMBLE, *settings.names, *settings.externals]
    by_name = {name: ensemble.load(name, data, assignment).oof for name in names}
    torn = contradictions(assignment.rows, labels)
    page = content(by_name, labels, settings.ensemble.members, torn)
    at = page.pop("at")
    rows = assignment.rows[at]
    page |= {"row": rows.tolist(), "label": labels[at].tolist(), "fold": assignment.fold_of[at].tolist()}
    shown = {"page": page, "sheet": sheet(data.pixels[rows]), "columns": COLUMNS, "folds": range(settings.folds)}
    files.write(PAGE, report.render(TEMPLATE, shown).encode())
    size = PAGE.stat().st_size / 1e6
    print(f"{PAGE}: {len(rows):,} of {len(labels):,} Training rows, {size:.1f} MB; open it in a browser")
