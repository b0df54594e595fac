"""Count what the data holds: classes, constant pictures, and pictures that stand there more than once.

Reads data/faces.npz, data/solution.csv and data/raw/PROVENANCE.json. Writes results/data.json and
results/plots/classes.png. Trains nothing: it is the only stage beside score that may see the test labels.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import command, faces, figures, provenance, solution
from pipeline.competition import CLASS_COUNTS, CLASSES, SPLITS
from pipeline.faces import picture_groups

RESULT = Path("results/data.json")


def class_counts(labels: np.ndarray, usage: np.ndarray) -> dict[str, dict[str, int]]:
    """Rows of each class in each split; rows without a label are not counted."""
    return {
        split: {name: int(((usage == code) & (labels == label)).sum()) for label, name in enumerate(CLASSES)}
        for code, split in enumerate(SPLITS)
    }


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
    """How many `rows` have a twin among `others`, and for how many a twin bears the same label.

    Parameters
    ----------
    groups, labels : int [n], see faces.picture_groups; rows, others : bool [n].
    """
    twin = rows & np.isin(groups, groups[others])
    pairs = set(zip(groups[others].tolist(), labels[others].tolist(), strict=True))
    agree = [pair in pairs for pair in zip(groups[twin].tolist(), labels[twin].tolist(), strict=True) if pair[1] >= 0]
    return {
        "rows": int(twin.sum()),
        "part": round(float(twin.sum() / rows.sum()), 5),
        "labels_agree": round(float(np.mean(agree)), 5) if agree else "unknown",
    }


def examine(pixels: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> dict[str, Any]:
    """Everything that results/data.json says of the pictures.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]. labels : int [n], -1 where unknown. usage : int [n], indices into SPLITS.
    """
    groups = picture_groups(pixels)
    constant = pixels.reshape(len(pixels), -1).min(axis=1) == pixels.reshape(len(pixels), -1).max(axis=1)
    counts = class_counts(labels, usage)
    across = {
        f"{SPLITS[one]} in {SPLITS[other]}": shared(groups, labels, usage == one, usage == other)
        for other, one in itertools.combinations(range(len(SPLITS)), 2)
    }
    return {
        "rows": {split: int((usage == code).sum()) for code, split in enumerate(SPLITS)},
        "classes": counts,
        "classes_as_published": tuple(tuple(row.values()) for row in counts.values()) == CLASS_COUNTS,
        "constant_pictures": {split: int(constant[usage == code].sum()) for code, split in enumerate(SPLITS)},
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
    labels = solution.join(data.labels, solution.load())
    result = {"provenance": provenance.read(), **examine(data.pixels, labels, data.usage)}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    figures.classes(result["classes"], figures.FOLDER / "classes.png")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.audit")
