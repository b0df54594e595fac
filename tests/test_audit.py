import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, sparse

from pipeline import files
from pipeline.competition import CLASSES
from pipeline.data import faces, provenance, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit

ROWS = [  # picture, label, split; capital letters are pictures that are not constant
    ("A", 0, 0), ("A", 0, 0), ("A", 1, 0), ("B", 3, 0), ("black", 6, 0), ("C", 2, 0),
    ("C", 2, 1), ("A", 4, 1), ("D", 5, 1),
    ("D", 5, 2), ("C", 2, 2), ("A", 1, 2), ("white", 6, 2), ("black", 6, 2),
]  # fmt: skip
PICTURES = {"black": np.zeros((48, 48)), "white": np.full((48, 48), 255)} | {
    name: np.eye(48) * number for number, name in enumerate("ABCD", start=1)
}
PIXELS = np.stack([PICTURES[name] for name, _, _ in ROWS]).astype("uint8")
LABELS = np.array([label for _, label, _ in ROWS])
USAGE = np.array([split for _, _, split in ROWS])


def duplicates(rows, part, labels_agree):
    return {"rows": rows, "part": part, "labels_agree": labels_agree}


@pytest.mark.parametrize("known", [True, False])
def test_main_counts_a_handmade_competition(stand, monkeypatch, known):
    monkeypatch.setattr(audit, "draw_classes", lambda counts: None)  # drawing is slow
    faces.Faces(PIXELS, np.where(USAGE == 0, LABELS, -1).astype("int8"), USAGE.astype("uint8")).save()
    solution.save(solution.table(np.arange(6, 14), USAGE[6:], LABELS[6:] if known else np.full(8, -1)))
    facts = {"source": "synthetic", "official": False, "files": {}}
    files.write_json(provenance.PATH, facts)
    audit.main()
    assert audit.load_duplicates(14)["identical"].tolist() == [2, 2, 2, 0, 0, 0, 1, 3, 0, 0, 1, 3, 0, 1]
    assert audit.PAIRS.read_text().startswith("first,second,how\n0,1,identical\n")
    result = json.loads(audit.RESULT.read_text())
    assert "PrivateTest in Training" in result.pop("nearly_identical_pictures")
    classes = result.pop("classes")
    assert list(classes["Training"].values()) == [2, 1, 1, 1, 0, 0, 1]
    assert list(classes["PrivateTest"].values()) == ([0, 1, 1, 0, 0, 1, 2] if known else [0] * 7)
    assert list(classes["PublicTest"]) == list(CLASSES)
    assert result == {
        "provenance": facts,
        "rows": {"Training": 6, "PublicTest": 3, "PrivateTest": 5},
        "classes_as_published": False,
        "constant_pictures": {"Training": 1, "PublicTest": 0, "PrivateTest": 2},
        "identical_pictures": {
            "groups": 4,  # A is there five times, C three times, D and black twice
            "extra_copies": 8,
            "groups_with_conflicting_labels": 1,
            # C agrees; A is 0 or 1 in Training
            "PublicTest in Training": duplicates(2, 0.666667, 0.5 if known else "unknown"),
            # C, A (one of its labels) and black
            "PrivateTest in Training": duplicates(3, 0.6, 1.0 if known else "unknown"),
            # D and C agree; A is 4 in PublicTest
            "PrivateTest in PublicTest": duplicates(3, 0.6, 0.66667 if known else "unknown"),
        },
    }


def portrait(seed):
    """Return a smooth random picture, float [48, 48] from 30 to 220."""
    smooth = ndimage.zoom(np.random.default_rng(seed).normal(size=(6, 6)), 8, order=3)
    return 30 + 190 * (smooth - smooth.min()) / np.ptp(smooth)


CHANGES = {
    "rescaled": lambda picture: np.array(Image.fromarray(picture.astype("uint8")).resize((30, 30)).resize((48, 48))),
    "darker, with less contrast": lambda picture: 0.5 * picture + 10,
    "with a mark": lambda picture: np.where(np.add.outer(np.arange(48), np.arange(48)) > 90, 255, picture),
    "shifted by a pixel": lambda picture: np.roll(picture, 1, axis=1),
}


@pytest.mark.parametrize("mirror", [False, True], ids=["upright", "mirrored"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_only_a_changed_picture_is_a_near_duplicate(change, mirror):
    pictures = [portrait(seed) for seed in range(12)]
    changed = change(pictures[3])
    pixels = np.stack([*pictures, changed[:, ::-1] if mirror else changed]).astype("uint8")
    pairs = [np.transpose(matrix.nonzero()).tolist() for matrix in audit.near_duplicates(pixels)]
    assert sorted(pairs[mirror]) == [[3, 12], [12, 3]]
    assert pairs[not mirror] == []


def test_nearly_empty_pictures_match_no_other():
    flat = np.stack([np.full((48, 48), 7), np.full((48, 48), 8), np.eye(48), np.zeros((48, 48))]).astype("uint8")
    assert [matrix.nnz for matrix in audit.near_duplicates(flat)] == [0, 0]


def test_near_duplicates_are_counted_by_row_and_split():
    # Picture 0 is a near duplicate of 2, and 1 of 3, mirrored.
    groups, usage = np.array([0, 0, 1, 2, 3, 3, 0]), np.array([0, 0, 0, 1, 1, 2, 2])
    labels = np.array([4, 5, 6, 5, 0, 6, 4])
    near, mirrored = (
        sparse.csr_array((np.ones(2, bool), pairs), [4, 4]) for pairs in (([0, 2], [2, 0]), ([1, 3], [3, 1]))
    )
    counts = audit.near_pictures(groups, near, mirrored)
    assert (counts["pairs"], counts["mirrored_pairs"], counts["rows_with_another"]) == (1, 1, 7)
    pairs = audit.pairs(groups, {"near": near, "mirrored": mirrored})
    assert [tuple(pair) for pair in pairs.to_numpy()] == [
        (0, 1, "identical"), (0, 3, "near"), (0, 6, "identical"), (1, 3, "near"), (1, 6, "identical"),
        (2, 4, "mirrored"), (2, 5, "mirrored"), (3, 6, "near"), (4, 5, "identical"),
    ]  # fmt: skip
    assert audit.across_splits(pairs[pairs["how"] != "identical"], labels, usage) == {
        "PublicTest in Training": {"rows": 2, "part": 1.0, "labels_agree": 0.5},
        "PrivateTest in Training": {"rows": 1, "part": 0.5, "labels_agree": 1.0},
        "PrivateTest in PublicTest": {"rows": 1, "part": 0.5, "labels_agree": 0.0},
    }
    table = audit.duplicates(groups, usage == 0, near + mirrored)
    assert table["identical"].tolist() == [1, 1, 0, 0, 0, 0, 2]
    assert table["near"].tolist() == [0, 0, 0, 2, 1, 1, 0]


@pytest.mark.parametrize("content", [None, "row,identical\n0,0\n", "row,identical,near\n1,0,0\n"])
def test_a_missing_or_invalid_table_of_duplicates_raises(stand, content):
    audit.DUPLICATES.parent.mkdir()
    if content is not None:
        audit.DUPLICATES.write_text(content)
    with pytest.raises(UserError, match=r"^data/duplicates\.csv .*make it with: dvc repro -f audit$"):
        audit.load_duplicates(1)
