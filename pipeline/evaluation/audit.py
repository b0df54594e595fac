"""Audit of the data: classes, constant pictures, duplicates and near duplicates.

Reads data/faces.npz, data/solution.csv and data/raw/PROVENANCE.json. Writes:

- results/data.json and results/classes.png.
- data/duplicates.csv (row,identical,near): the number of other Training rows with the same picture (byte for byte) and
  with nearly the same picture, for every row.
- data/pairs.csv (first,second,how): every pair of duplicate rows, with how: identical, near or mirrored.

Only this stage and score may read the test labels.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from pipeline import files
from pipeline.competition import CLASS_COUNTS, CLASSES, SIDE, SPLITS, TRAINING
from pipeline.data import faces, provenance, solution
from pipeline.evaluation import figures

RESULT = Path("results/data.json")
DUPLICATES = Path("data/duplicates.csv")
PAIRS = Path("data/pairs.csv")
FLAT = 2.0  # grey levels: a picture with a smaller standard deviation is nearly empty
# Minimum correlation of near duplicates (rescaled, recompressed, retouched or mirrored), after shrinking to 16 x 16.
# Random pairs of the competition were inspected by eye. True near duplicates: all 72 above 0.96 (mirrored: 22 of 22),
# all 36 from 0.95 to 0.96 (mirrored: 5 of 12), 21 of 24 from 0.94 to 0.95, 6 of 12 from 0.92 to 0.93.
ALIKE = 0.96
COARSE = 16
BLOCK = 2048  # pictures compared with all others at a time


def pairs(groups: np.ndarray, alike: dict[str, sparse.csr_array]) -> pd.DataFrame:
    """Return the table of data/pairs.csv.

    Parameters
    ----------
    groups : int [n], index of the picture of each row.
    alike : symmetric bool [pictures, pictures] matrices of similar pictures, by the value of the column `how`.
    """
    rows = sparse.csr_array((np.ones(len(groups), bool), (np.arange(len(groups)), groups)))  # the picture of each row
    tables = []
    for how, matrix in ({"identical": sparse.eye_array(rows.shape[1], dtype=bool, format="csr")} | alike).items():
        first, second = sparse.triu(rows @ matrix @ rows.T, k=1).nonzero()
        tables.append(pd.DataFrame({"first": first, "second": second, "how": how}))
    return pd.concat(tables).drop_duplicates(["first", "second"]).sort_values(["first", "second"], ignore_index=True)


def across_splits(table: pd.DataFrame, labels: np.ndarray, usage: np.ndarray) -> dict[str, Any]:
    """Count, for every two splits, the rows of the later that have a duplicate in the earlier.

    Parameters
    ----------
    table : pairs of duplicates. labels, usage : int [n]; rows are in the order of the splits.

    Returns
    -------
    By "LATER in EARLIER": `rows`; `part`, their share of the later split; `labels_agree`, the share of those rows
    whose label is that of at least one duplicate ("unknown" without labels).
    """
    result = {}
    for earlier, later in itertools.combinations(np.unique(usage), 2):  # pictures in folders may lack PublicTest
        both = table[(usage[table["first"]] == earlier) & (usage[table["second"]] == later)]
        known = both[(labels[both["first"]] >= 0) & (labels[both["second"]] >= 0)]
        agree = pd.Series(labels[known["first"]] == labels[known["second"]]).groupby(known["second"].to_numpy()).any()
        rows = both["second"].nunique()
        result[f"{SPLITS[later]} in {SPLITS[earlier]}"] = {
            "rows": rows,
            "part": round(rows / int((usage == later).sum()), 6),
            "labels_agree": round(float(agree.mean()), 5) if len(agree) else "unknown",
        }
    return result


def near_duplicates(pixels: np.ndarray) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Find pictures that are nearly the same.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48], all different. Nearly empty pictures (see FLAT) match no other.

    Returns
    -------
    Two symmetric sparse bool [n, n] with empty diagonals: near duplicates, and near duplicates with one of the two
    pictures mirrored.
    """
    shown = np.flatnonzero(pixels.reshape(len(pixels), -1).std(axis=1, dtype="float32") >= FLAT)
    if not len(shown):
        return (sparse.csr_array((len(pixels), len(pixels)), dtype=bool),) * 2
    small = pixels[shown].reshape(-1, COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean(axis=(2, 4), dtype="float32")
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.linalg.norm(small, axis=(1, 2), keepdims=True).clip(1e-6)
    mirrored = small[:, :, ::-1].reshape(len(small), -1)
    small = small.reshape(len(small), -1)

    def matches(others: np.ndarray) -> sparse.csr_array:
        candidates = []
        for start in range(0, len(small), BLOCK):
            near = small[start : start + BLOCK] @ others[start:].T > ALIKE - 1e-4  # float32 rounds: see below
            candidates.append(np.add(np.nonzero(near), start))
        first, second = np.concatenate(candidates, axis=1)
        exact = np.einsum("ij,ij->i", small[first], others[second], dtype="float64") >= ALIKE
        first, second = (shown[each[exact & (first < second)]] for each in (first, second))
        both = np.concatenate([first, second]), np.concatenate([second, first])
        return sparse.csr_array((np.ones(len(both[0]), bool), both), [len(pixels)] * 2)

    return matches(small), matches(mirrored)


def duplicates(groups: np.ndarray, training: np.ndarray, same: sparse.csr_array) -> pd.DataFrame:
    """Return the table of data/duplicates.csv.

    Parameters
    ----------
    groups : int [n], index of the picture of each row. training : bool [n], whether a row is in Training.
    same : bool [pictures, pictures], which pictures are near duplicates.
    """
    of_training = np.bincount(groups[training], minlength=same.shape[0])
    identical, nearly = of_training[groups] - training, (same.astype("int64") @ of_training)[groups]
    return pd.DataFrame({"row": np.arange(len(groups)), "identical": identical, "near": nearly})


def load_duplicates(rows: int) -> pd.DataFrame:
    """Read data/duplicates.csv. Raises UserError where it is missing, damaged, or has not exactly `rows` rows."""
    with files.reading(DUPLICATES, "dvc repro -f audit"):
        table = pd.read_csv(DUPLICATES, dtype="int64")[["row", "identical", "near"]]
        if not np.array_equal(table["row"], range(rows)) or (table < 0).any(axis=None):
            raise ValueError("wrong rows, or a negative count")
        return table


def examine(pixels: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> dict[str, Any]:
    """Return the contents of results/data.json except the near duplicates and the provenance.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]. labels : int [n], -1 where unknown. usage : int [n], indices into SPLITS.
    """
    groups, splits = faces.picture_groups(pixels), {split: usage == code for code, split in enumerate(SPLITS)}
    constant = np.ptp(pixels.reshape(len(pixels), -1), axis=1) == 0
    known, sizes = labels >= 0, np.bincount(groups)
    counts = {
        split: {name: int((labels[rows] == label).sum()) for label, name in enumerate(CLASSES)}
        for split, rows in splits.items()
    }
    identical = {
        "groups": int((sizes > 1).sum()),
        "extra_copies": len(groups) - len(sizes),
        "groups_with_conflicting_labels": int((pd.Series(labels[known]).groupby(groups[known]).nunique() > 1).sum()),
    }
    return {
        "rows": {split: int(rows.sum()) for split, rows in splits.items()},
        "classes": counts,
        "classes_as_published": tuple(tuple(row.values()) for row in counts.values()) == CLASS_COUNTS,
        "constant_pictures": {split: int(constant[rows].sum()) for split, rows in splits.items()},
        "identical_pictures": identical | across_splits(pairs(groups, {}), labels, usage),
    }


def draw_classes(counts: dict[str, dict[str, int]]) -> None:
    """Draw results/classes.png from the rows of each class in each split."""
    table = pd.DataFrame(counts).rename_axis("class").reset_index().melt("class", var_name="part", value_name="rows")
    table.insert(2, "share", table["rows"] / table.groupby("part")["rows"].transform("sum").clip(1))
    figures.draw(table, Path("results/classes"), template="bars", title="Share of each class (numbers: rows)")


def main() -> None:
    """Run the stage."""
    data = faces.load()
    labels, groups = solution.load(data), faces.picture_groups(data.pixels)
    near, mirrored = near_duplicates(data.pixels[np.unique(groups, return_index=True)[1]])
    repeated = pairs(groups, {"near": near, "mirrored": mirrored})
    files.write(PAIRS, repeated.to_csv(index=False).encode())
    counts = duplicates(groups, data.usage == TRAINING, near + mirrored)
    files.write(DUPLICATES, counts.to_csv(index=False).encode())
    similar = repeated[repeated["how"] != "identical"]
    nearly = {
        "correlation": ALIKE, "pairs": near.nnz // 2, "mirrored_pairs": mirrored.nnz // 2,
        "rows_with_another": np.unique(similar[["first", "second"]]).size,
    } | across_splits(similar, labels, data.usage)  # fmt: skip
    result = {"provenance": provenance.read(), **examine(data.pixels, labels, data.usage)}
    files.write_json(RESULT, result | {"nearly_identical_pictures": nearly})
    draw_classes(result["classes"])
    same = result["identical_pictures"]
    print(f"{RESULT}: {same['extra_copies']:,} rows repeat one of {same['groups']:,} pictures,\n"
          f"{len(repeated):,} pairs of rows are similar; make browse shows those with different labels")  # fmt: skip
