"""Count what the data holds: classes, constant pictures, duplicates and near duplicates.

Reads data/faces.npz, data/solution.csv and data/raw/PROVENANCE.json. Writes results/data.json,
results/classes.png, data/duplicates.csv (row,identical,near: for every row, how many other Training rows show the
same picture, byte for byte, and nearly the same), and data/pairs.csv (first,second,how: every two rows of which one
repeats the other: identical, near or mirrored). Trains nothing. Beside score it is the only stage that may see the test
labels.
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
from pipeline.data.faces import picture_groups
from pipeline.evaluation import figures

RESULT = Path("results/data.json")
DUPLICATES = Path("data/duplicates.csv")
PAIRS = Path("data/pairs.csv")
FLAT = 2.0  # grey levels of standard deviation, below which a picture shows next to nothing
# Least correlation of two pictures, shrunk to 16 x 16, that are one rescaled, recompressed, retouched or mirrored.
# Random pairs of the competition were looked at: above 0.96 all 72 were that (mirrored: 22 of 22), from 0.95 to 0.96
# all 36 (mirrored: 5 of 12), from 0.94 to 0.95 21 of 24, from 0.92 to 0.93 6 of 12.
ALIKE = 0.96
COARSE = 16
BLOCK = 2048  # pictures that are compared with all others at a time


def class_counts(labels: np.ndarray, usage: np.ndarray) -> dict[str, dict[str, int]]:
    """Rows of each class in each split; rows without a label are not counted."""
    return {
        split: {name: int(((usage == code) & (labels == label)).sum()) for label, name in enumerate(CLASSES)}
        for code, split in enumerate(SPLITS)
    }


def groups_inside(groups: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """How often identical pictures stand in the data, and how often they bear different labels."""
    sizes = np.bincount(groups)
    known = pd.Series(labels[labels >= 0]).groupby(groups[labels >= 0])
    return {
        "groups": int((sizes > 1).sum()),
        "extra_copies": int((sizes - 1).clip(0).sum()),
        "groups_with_conflicting_labels": int((known.nunique() > 1).sum()),
    }


def pairs(groups: np.ndarray, alike: dict[str, sparse.csr_array]) -> pd.DataFrame:
    """The table of data/pairs.csv.

    Parameters
    ----------
    groups : int [n], the picture of each row. alike : bool [pictures, pictures], symmetric, by what `how` says of them.
    """
    rows = pd.DataFrame({"row": np.arange(len(groups)), "picture": groups})
    themselves = sparse.eye_array(groups.max() + 1, dtype=bool, format="csr")
    found = []
    for how, matrix in ({"identical": themselves} | alike).items():
        links = pd.DataFrame(np.transpose(matrix.nonzero()), columns=["one", "other"])
        both = rows.merge(links, left_on="picture", right_on="one").merge(rows, left_on="other", right_on="picture")
        both = both.rename(columns={"row_x": "first", "row_y": "second"}).query("first < second")
        found.append(both[["first", "second"]].assign(how=how))
    return pd.concat(found).drop_duplicates(["first", "second"]).sort_values(["first", "second"], ignore_index=True)


def across(table: pd.DataFrame, labels: np.ndarray, usage: np.ndarray) -> dict[str, Any]:
    """For every two splits: how many rows of the later have a duplicate in the earlier, and whether labels agree.

    Parameters
    ----------
    table : pairs of duplicates. labels, usage : int [n]; rows are in the order of the splits.
    """
    found = {}
    for one, other in itertools.combinations(np.unique(usage), 2):  # pictures in folders may lack PublicTest
        both = table[(usage[table["first"]] == one) & (usage[table["second"]] == other)]
        known = both[(labels[both["first"]] >= 0) & (labels[both["second"]] >= 0)]
        agree = pd.Series(labels[known["first"]] == labels[known["second"]]).groupby(known["second"].to_numpy()).any()
        found[f"{SPLITS[other]} in {SPLITS[one]}"] = {
            "rows": both["second"].nunique(),
            "part": round(both["second"].nunique() / int((usage == other).sum()), 6),
            "labels_agree": round(float(agree.mean()), 5) if len(agree) else "unknown",
        }
    return found


def alike(pixels: np.ndarray) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Which pictures are nearly the same.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48], no two of them equal. Those that are FLAT are like none.

    Returns
    -------
    Two symmetric bool [n, n], sparse, with empty diagonals: nearly the same as they are, and with one of them mirrored.
    """
    shown = np.flatnonzero(pixels.reshape(len(pixels), -1).std(axis=1, dtype="float32") >= FLAT)
    if not len(shown):
        return (sparse.csr_array((len(pixels), len(pixels)), dtype=bool),) * 2
    small = pixels[shown].reshape(-1, COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean(axis=(2, 4), dtype="float32")
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.linalg.norm(small, axis=(1, 2), keepdims=True).clip(1e-6)
    small = small.reshape(len(small), -1)

    def pairs(others: np.ndarray) -> sparse.csr_array:
        found = []
        for start in range(0, len(small), BLOCK):
            near = small[start : start + BLOCK] @ others[start:].T > ALIKE - 1e-4  # float32 rounds: see below
            found.append(np.add(np.divmod(np.flatnonzero(near), near.shape[1]), start))
        one, other = np.concatenate(found, axis=1)
        exact = np.einsum("ij,ij->i", small[one], others[other], dtype="float64") >= ALIKE
        one, other = (shown[each[exact & (one < other)]] for each in (one, other))
        both = np.concatenate([one, other]), np.concatenate([other, one])
        return sparse.csr_array((np.ones(len(both[0]), bool), both), [len(pixels)] * 2)

    return pairs(small), pairs(small.reshape(-1, COARSE, COARSE)[:, :, ::-1].reshape(len(small), -1))


def near_pictures(groups: np.ndarray, near: sparse.csr_array, mirrored: sparse.csr_array) -> dict[str, Any]:
    """How many pictures are nearly equal; `near` and `mirrored` as `alike` gives them of the pictures of `groups`."""
    has_another = (near + mirrored).sum(axis=1) > 0
    return {
        "correlation": ALIKE,
        "pairs": int(near.nnz // 2),
        "mirrored_pairs": int(mirrored.nnz // 2),
        "rows_with_another": int(np.asarray(has_another)[groups].sum()),
    }


def duplicates(groups: np.ndarray, training: np.ndarray, same: sparse.csr_array) -> pd.DataFrame:
    """The table of data/duplicates.csv; `training` is bool [n], `same` tells which pictures are nearly equal."""
    of_training = np.bincount(groups[training], minlength=same.shape[0])
    identical, nearly = of_training[groups] - training, (same.astype("int64") @ of_training)[groups]
    return pd.DataFrame({"row": np.arange(len(groups)), "identical": identical, "near": nearly})


def load_duplicates(rows: int) -> pd.DataFrame:
    """Read data/duplicates.csv, which must be of so many `rows`."""
    with files.reading(DUPLICATES, "dvc repro -f audit"):
        table = pd.read_csv(DUPLICATES, dtype="int64")[["row", "identical", "near"]]
        if not np.array_equal(table["row"], range(rows)) or (table < 0).any(axis=None):
            raise ValueError("it has other rows, or counts below 0")
        return table


def examine(pixels: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> dict[str, Any]:
    """Everything that results/data.json says of the pictures but for near duplicates.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]. labels : int [n], -1 where unknown. usage : int [n], indices into SPLITS.
    """
    groups, splits = picture_groups(pixels), {split: usage == code for code, split in enumerate(SPLITS)}
    constant = np.ptp(pixels.reshape(len(pixels), -1), axis=1) == 0
    counts = class_counts(labels, usage)
    return {
        "rows": {split: int(rows.sum()) for split, rows in splits.items()},
        "classes": counts,
        "classes_as_published": tuple(tuple(row.values()) for row in counts.values()) == CLASS_COUNTS,
        "constant_pictures": {split: int(constant[rows].sum()) for split, rows in splits.items()},
        "identical_pictures": groups_inside(groups, labels) | across(pairs(groups, {}), labels, usage),
    }


def main() -> None:
    """Run the stage."""
    data = faces.load()
    labels, groups = solution.join(data.labels, solution.load(data)), picture_groups(data.pixels)
    near, mirrored = alike(data.pixels[np.unique(groups, return_index=True)[1]])
    repeated = pairs(groups, {"near": near, "mirrored": mirrored})
    result = {"provenance": provenance.read(), **examine(data.pixels, labels, data.usage)}
    nearly = near_pictures(groups, near, mirrored)
    nearly |= across(repeated[repeated["how"] != "identical"], labels, data.usage)
    files.write(PAIRS, repeated.to_csv(index=False).encode())
    table = duplicates(groups, data.usage == TRAINING, near + mirrored)
    files.write(DUPLICATES, table.to_csv(index=False).encode())
    files.write_json(RESULT, result | {"nearly_identical_pictures": nearly})
    counts = pd.DataFrame(result["classes"]).rename_axis("class").reset_index()
    table = counts.melt("class", var_name="part", value_name="rows")
    table["share"] = table["rows"] / table.groupby("part")["rows"].transform("sum").clip(1)
    table = table[["class", "part", "share", "rows"]]
    figures.draw(table, figures.FOLDER.with_name("classes"), template="bars", title="Rows of each class")
    same = result["identical_pictures"]["groups"]
    print(f"{RESULT}: {same:,} repeated pictures, {len(repeated):,} similar pairs (make browse)")
