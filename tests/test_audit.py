import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from settings import refuses

from pipeline import files
from pipeline.data import faces, provenance, solution
from pipeline.evaluation import audit


def portrait(seed):
    """Return a smooth random picture, float [48, 48] from 30 to 220."""
    smooth = ndimage.zoom(np.random.default_rng(seed).normal(size=(6, 6)), 8, order=3)
    return 30 + 190 * (smooth - smooth.min()) / np.ptp(smooth)


ROWS = [  # picture, label, split; A to D are nearly empty, "e" is similar to E, and "f" to F when mirrored
    ("A", 0, 0), ("A", 0, 0), ("A", 1, 0), ("B", 3, 0), ("black", 6, 0), ("C", 2, 0), ("E", 5, 0), ("E", 5, 0),
    ("F", 6, 0),
    ("C", 2, 1), ("A", 4, 1), ("D", 5, 1), ("e", 5, 1),
    ("D", 5, 2), ("C", 2, 2), ("A", 1, 2), ("white", 6, 2), ("black", 6, 2), ("f", 0, 2),
]  # fmt: skip
PICTURES = {"black": np.zeros((48, 48)), "white": np.full((48, 48), 255), "E": portrait(0), "F": portrait(1)}
PICTURES |= {name: np.eye(48) * number for number, name in enumerate("ABCD", start=1)}
PICTURES |= {"e": 0.5 * PICTURES["E"] + 10, "f": PICTURES["F"][:, ::-1]}
PIXELS = np.stack([PICTURES[name] for name, _, _ in ROWS]).astype("uint8")
LABELS = np.array([label for _, label, _ in ROWS])
USAGE = np.array([split for _, _, split in ROWS])


def shared(rows, part, labels_agree):
    return {"rows": rows, "part": part, "labels_agree": labels_agree}


@pytest.mark.parametrize("known", [True, False])
def test_main_counts_a_handmade_competition(stand, monkeypatch, known):
    monkeypatch.setattr(audit, "draw_classes", lambda counts: None)  # drawing is slow
    faces.Faces(PIXELS, np.where(USAGE == 0, LABELS, -1).astype("int8"), USAGE.astype("uint8")).save()
    solution.save(solution.table(np.arange(9, 19), USAGE[9:], LABELS[9:] if known else np.full(10, -1)))
    facts = {"source": "synthetic", "official": False, "files": {}}
    files.write_json(provenance.PATH, facts)
    audit.main()
    table = audit.load_duplicates(19)
    assert table["identical"].tolist() == [2, 2, 2, 0, 0, 0, 1, 1, 0, 1, 3, 0, 0, 0, 1, 3, 0, 1, 0]
    assert table["near"].tolist() == [0] * 12 + [2] + [0] * 5 + [1]
    pairs = audit.PAIRS.read_text().splitlines()
    assert pairs[:2] == ["first,second,how", "0,1,identical"]
    assert [pair for pair in pairs[1:] if "identical" not in pair] == ["6,12,near", "7,12,near", "8,18,mirrored"]
    result = json.loads(audit.RESULT.read_text())
    classes = result.pop("classes")
    assert list(classes["Training"].values()) == [2, 1, 1, 1, 0, 2, 2]
    assert list(classes["PrivateTest"].values()) == ([1, 1, 1, 0, 0, 1, 2] if known else [0] * 7)
    assert result == {
        "provenance": facts, "classes_as_published": False,
        "rows": {"Training": 9, "PublicTest": 4, "PrivateTest": 6},
        "constant_pictures": {"Training": 1, "PublicTest": 0, "PrivateTest": 2},
        "identical_pictures": {
            # A is there five times, C three times, D, E and black twice
            "groups": 5, "extra_copies": 9, "groups_with_conflicting_labels": 1,
            # C agrees; A is 0 or 1 in Training
            "PublicTest in Training": shared(2, 0.5, 0.5 if known else "unknown"),
            # C, A (one of its labels) and black
            "PrivateTest in Training": shared(3, 0.5, 1.0 if known else "unknown"),
            # D and C agree; A is 4 in PublicTest
            "PrivateTest in PublicTest": shared(3, 0.5, 0.66667 if known else "unknown"),
        },
        "nearly_identical_pictures": {
            "correlation": 0.96, "pairs": 1, "mirrored_pairs": 1, "rows_with_another": 5,
            "PublicTest in Training": shared(1, 0.25, 1.0 if known else "unknown"),
            "PrivateTest in Training": shared(1, 0.166667, 0.0 if known else "unknown"),
            "PrivateTest in PublicTest": shared(0, 0.0, "unknown"),
        },
    }  # fmt: skip


CHANGES = {
    "rescaled": lambda picture: np.array(Image.fromarray(picture.astype("uint8")).resize((30, 30)).resize((48, 48))),
    "shifted by a pixel": lambda picture: np.roll(picture, 1, axis=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_only_a_changed_picture_is_a_near_duplicate(change, monkeypatch):
    monkeypatch.setattr(audit, "BLOCK", 5)
    pictures = [portrait(seed) for seed in range(12)]
    near, mirrored = audit.near_duplicates(np.stack([*pictures, change(pictures[7])]).astype("uint8"))
    assert sorted(np.transpose(near.nonzero()).tolist()) == [[7, 12], [12, 7]]
    assert mirrored.nnz == 0


@pytest.mark.parametrize("content", [None, "row,identical\n0,0\n", "row,identical,near\n1,0,0\n"])
def test_a_missing_or_invalid_table_of_duplicates_raises(stand, content):
    if content:
        files.write(audit.DUPLICATES, content.encode())
    refuses(r"^data/duplicates\.csv .*make it with: dvc repro -f audit$", audit.load_duplicates, 1)
