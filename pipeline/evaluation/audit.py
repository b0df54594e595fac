"""Count what the data holds: classes, constant pictures, duplicates and near duplicates.

Reads data/faces.npz, data/solution.csv and data/raw/PROVENANCE.json. Writes results/data.json,
results/classes.png, data/duplicates.csv (row,identical,near: for every row, how many other Training rows show the
same picture, byte for byte, and nearly the same), and artifacts/odd_pictures.png (which shows people, and so stays out
of git). Trains nothing. Beside score it is the only stage that may see the test labels.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from pipeline import files
from pipeline.competition import CLASS_COUNTS, CLASSES, SIDE, SPLITS, TRAINING
from pipeline.data import faces, provenance, solution
from pipeline.data.faces import picture_groups
from pipeline.evaluation import figures

RESULT = Path("results/data.json")
DUPLICATES = Path("data/duplicates.csv")
PAGE = Path("artifacts/odd_pictures.png")
FLAT = 2.0  # grey levels of standard deviation, below which a picture shows next to nothing
# Least correlation of two pictures, shrunk to 16 x 16, that are one rescaled, recompressed, retouched or mirrored.
# Random pairs of the competition were looked at: above 0.96 all 72 were that (mirrored: 22 of 22), from 0.95 to 0.96
# all 36 (mirrored: 5 of 12), from 0.94 to 0.95 21 of 24, from 0.92 to 0.93 6 of 12.
ALIKE = 0.96
COARSE = 16


def class_counts(labels: np.ndarray, usage: np.ndarray) -> dict[str, dict[str, int]]:
    """Rows of each class in each split; rows without a label are not counted."""
    return {
        split: {name: int(((usage == code) & (labels == label)).sum()) for label, name in enumerate(CLASSES)}
        for code, split in enumerate(SPLITS)
    }


def deviation(pixels: np.ndarray) -> np.ndarray:
    """Standard deviation of the grey levels of each of uint8 [n, 48, 48]."""
    flat = pixels.reshape(len(pixels), -1)
    return np.asarray(flat.std(axis=1, dtype=np.float32))


def groups_inside(groups: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """How often identical pictures stand in the data, and how often they bear different labels."""
    table = pd.DataFrame({"group": groups, "label": labels})
    repeated = table[table.duplicated("group", keep=False)]
    labelled = repeated[repeated["label"] >= 0]
    return {
        "groups": int(repeated["group"].nunique()),
        "extra_copies": len(repeated) - int(repeated["group"].nunique()),
        "groups_with_conflicting_labels": int((labelled.groupby("group")["label"].nunique() > 1).sum()),
    }


def shared(groups: np.ndarray, labels: np.ndarray, rows: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """How many `rows` have a duplicate among `others`, and for how many a duplicate bears the same label.

    Parameters
    ----------
    groups, labels : int [n], see faces.picture_groups; rows, others : bool [n].
    """
    duplicate = rows & np.isin(groups, groups[others])
    labelled = others & (labels >= 0)
    pairs = set(zip(groups[labelled].tolist(), labels[labelled].tolist(), strict=True))
    judged = duplicate & (labels >= 0) & np.isin(groups, groups[labelled])
    agree = [pair in pairs for pair in zip(groups[judged].tolist(), labels[judged].tolist(), strict=True)]
    return {
        "rows": int(duplicate.sum()),
        "part": round(float(duplicate.sum() / rows.sum()), 6),
        "labels_agree": round(float(np.mean(agree)), 5) if agree else "unknown",
    }


def alike(pixels: np.ndarray) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Which pictures are nearly the same.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48], no two of them equal. Those that are FLAT are like none.

    Returns
    -------
    Two symmetric bool [n, n], sparse, with empty diagonals: nearly the same as they are, and with one of them mirrored.
    """
    shown = np.flatnonzero(deviation(pixels) >= FLAT)
    if not len(shown):
        return (sparse.csr_array((len(pixels), len(pixels)), dtype=bool),) * 2
    small = pixels[shown].reshape(-1, COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean(axis=(2, 4), dtype="float32")
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.linalg.norm(small, axis=(1, 2), keepdims=True).clip(1e-6)
    flat = small.reshape(len(small), -1)
    # For vectors of length 1, a correlation of r is a distance of sqrt(2 - 2 r).
    search = NearestNeighbors(radius=np.sqrt(2 - 2 * ALIKE), algorithm="brute").fit(flat)
    found = []
    for queries in (flat, small[:, :, ::-1].reshape(len(small), -1)):
        one, other = sparse.csr_array(search.radius_neighbors_graph(queries)).nonzero()
        apart = one != other
        pairs = np.concatenate([np.stack([one, other])[:, apart], np.stack([other, one])[:, apart]], axis=1)
        matrix = sparse.csr_array(
            (np.ones(pairs.shape[1], bool), (shown[pairs[0]], shown[pairs[1]])), [len(pixels)] * 2
        )
        found.append(matrix)
    return found[0], found[1]


def near_pictures(
    groups: np.ndarray, labels: np.ndarray, usage: np.ndarray, near: sparse.csr_array, mirrored: sparse.csr_array
) -> tuple[dict[str, Any], pd.DataFrame]:
    """What results/data.json says of nearly equal pictures, and the table of data/duplicates.csv.

    Parameters
    ----------
    groups, labels, usage : int [n]. near, mirrored : of the pictures that `groups` numbers, see `alike`.
    """
    rows = len(groups)
    membership = sparse.csr_array((np.ones(rows, np.int64), (np.arange(rows), groups)))
    same = (near + mirrored).astype(np.int64)
    training = usage == TRAINING
    of_training = membership[training].sum(axis=0)
    identical, nearly = of_training[groups], (same @ of_training)[groups]
    first, second = same.nonzero()
    links = pd.DataFrame({"one": first, "other": second})
    found: dict[str, Any] = {
        "correlation": ALIKE,
        "pairs": int(near.nnz // 2),
        "mirrored_pairs": int(mirrored.nnz // 2),
        "rows_with_another": int((np.asarray(same.sum(axis=1))[groups] > 0).sum()),
    }
    for one, other in itertools.combinations(np.unique(usage), 2):  # pictures in folders may lack PublicTest
        theirs = pd.DataFrame({"other": groups[usage == one], "label": labels[usage == one]})
        mine = pd.DataFrame({"row": np.flatnonzero(usage == other), "one": groups[usage == other]})
        pairs = mine.merge(links, on="one").merge(theirs, on="other")
        known = pairs[(pairs["label"] >= 0) & (labels[pairs["row"]] >= 0)]
        agree = (known["label"] == labels[known["row"]]).groupby(known["row"]).any()
        count = pairs["row"].nunique()
        found[f"{SPLITS[other]} in {SPLITS[one]}"] = {
            "rows": count,
            "part": round(count / int((usage == other).sum()), 6),
            "labels_agree": round(float(agree.mean()), 5) if len(agree) else "unknown",
        }
    return found, pd.DataFrame({"row": np.arange(rows), "identical": identical - training, "near": nearly})


def load_duplicates(rows: int) -> pd.DataFrame:
    """Read data/duplicates.csv, which must be of so many `rows`."""
    with files.reading(DUPLICATES, "dvc repro -f audit"):
        table = pd.read_csv(DUPLICATES, dtype="int64")
        if list(table) != ["row", "identical", "near"] or not np.array_equal(table["row"], range(rows)):
            raise ValueError("it has other columns or rows")
        if (table < 0).any(axis=None):
            raise ValueError("it counts below 0")
        return table


def _two(same: np.ndarray, labels: np.ndarray) -> list[int]:
    """Of rows (bool [n]) that bear different labels, the first, and the first with another label than it."""
    rows = np.flatnonzero(same & (labels >= 0))
    return [int(rows[0]), int(rows[labels[rows] != labels[rows[0]]][0])]


def odd_ones(
    pixels: np.ndarray, labels: np.ndarray, groups: np.ndarray, near: sparse.csr_array, mirrored: sparse.csr_array
) -> dict[str, list[tuple[np.ndarray, str]]]:
    """The pictures of the page of odd ones, by what is odd: each with its row and label as a caption."""
    first = np.unique(groups, return_index=True)[1]

    def caption(row: int) -> tuple[np.ndarray, str]:
        return pixels[row], f"{row} {CLASSES[labels[row]] if labels[row] >= 0 else 'unknown'}"

    flat = np.flatnonzero(deviation(pixels) < FLAT)
    table = pd.DataFrame({"group": groups, "label": labels}).query("label >= 0")
    torn = table.groupby("group")["label"].nunique()
    conflicts = [row for group in torn.index[torn > 1][:12] for row in _two(groups == group, labels)]
    page = {"(nearly) constant": flat[:24].tolist(), "identical, with different labels": conflicts}
    for name, matrix in {"nearly the same": near, "nearly the same, mirrored": mirrored}.items():
        pairs = [pair for pair in zip(*matrix.nonzero(), strict=True) if pair[0] < pair[1]]
        chosen = pairs[:: max(1, len(pairs) // 12)][:12]
        page[name] = [int(first[picture]) for pair in chosen for picture in pair]
    return {name: [caption(row) for row in rows] for name, rows in page.items()}


def examine(pixels: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> dict[str, Any]:
    """Everything that results/data.json says of the pictures.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]. labels : int [n], -1 where unknown. usage : int [n], indices into SPLITS.
    """
    groups = picture_groups(pixels)
    constant = pixels.reshape(len(pixels), -1).min(axis=1) == pixels.reshape(len(pixels), -1).max(axis=1)
    flat = (deviation(pixels) < FLAT) & ~constant
    counts = class_counts(labels, usage)
    across = {
        f"{SPLITS[one]} in {SPLITS[other]}": shared(groups, labels, usage == one, usage == other)
        for other, one in itertools.combinations(np.unique(usage), 2)
    }
    return {
        "rows": {split: int((usage == code).sum()) for code, split in enumerate(SPLITS)},
        "classes": counts,
        "classes_as_published": tuple(tuple(row.values()) for row in counts.values()) == CLASS_COUNTS,
        "constant_pictures": {split: int(constant[usage == code].sum()) for code, split in enumerate(SPLITS)},
        "nearly_constant_pictures": {split: int(flat[usage == code].sum()) for code, split in enumerate(SPLITS)},
        "identical_pictures": groups_inside(groups, labels)
        | {
            f"inside {split}": groups_inside(groups[usage == code], labels[usage == code])
            for code, split in enumerate(SPLITS)
        }
        | across,
    }


def main() -> None:
    """Run the stage."""
    data = faces.load()
    labels = solution.join(data.labels, solution.load(data))
    groups = picture_groups(data.pixels)
    near, mirrored = alike(data.pixels[np.unique(groups, return_index=True)[1]])
    result = {"provenance": provenance.read(), **examine(data.pixels, labels, data.usage)}
    result["nearly_identical_pictures"], duplicates = near_pictures(groups, labels, data.usage, near, mirrored)
    files.write(DUPLICATES, duplicates.to_csv(index=False).encode())
    figures.page(odd_ones(data.pixels, labels, groups, near, mirrored), PAGE)
    files.write_json(RESULT, result)
    figures.classes(result["classes"], figures.FOLDER.with_name("classes.png"))
