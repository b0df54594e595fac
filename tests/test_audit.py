import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, sparse

from pipeline.competition import CLASS_COUNTS, CLASSES, SPLIT_ROWS
from pipeline.data import prepare, provenance, synthetic
from pipeline.errors import UserError
from pipeline.evaluation import audit

ROWS = [  # picture, label, split; capitals: pictures that are not constant
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


def repeats(groups, extra_copies, conflicting):
    return {"groups": groups, "extra_copies": extra_copies, "groups_with_conflicting_labels": conflicting}


def duplicates(rows, part, labels_agree):
    return {"rows": rows, "part": part, "labels_agree": labels_agree}


def nonzero(counts):
    return {split: {name: rows for name, rows in counts[split].items() if rows} for split in counts}


TRAINING_CLASSES = {"angry": 2, "disgust": 1, "fear": 1, "happy": 1, "neutral": 1}
REPEATS_INSIDE = {
    "inside Training": repeats(1, 2, 1), "inside PublicTest": repeats(0, 0, 0), "inside PrivateTest": repeats(0, 0, 0),
}  # fmt: skip


def test_a_hand_made_competition_is_counted_as_by_hand():
    found = audit.examine(PIXELS, LABELS, USAGE)
    classes = found.pop("classes")
    assert nonzero(classes) == {
        "Training": TRAINING_CLASSES,
        "PublicTest": {"fear": 1, "sad": 1, "surprise": 1},
        "PrivateTest": {"surprise": 1, "fear": 1, "disgust": 1, "neutral": 2},
    }
    assert [list(counts) for counts in classes.values()] == [list(CLASSES)] * 3
    assert found == {
        "rows": {"Training": 6, "PublicTest": 3, "PrivateTest": 5},
        "classes_as_published": False,
        "constant_pictures": {"Training": 1, "PublicTest": 0, "PrivateTest": 2},
        "nearly_constant_pictures": {"Training": 5, "PublicTest": 3, "PrivateTest": 3},  # a line of at most 4
        "identical_pictures": repeats(4, 8, 1)  # A five times, C three times, D and black twice
        | REPEATS_INSIDE
        | {
            "PublicTest in Training": duplicates(2, 0.666667, 0.5),  # C agrees, A is 0 or 1 there
            "PrivateTest in Training": duplicates(3, 0.6, 1.0),  # C, A (one of its labels) and black
            "PrivateTest in PublicTest": duplicates(3, 0.6, 0.66667),  # D and C agree, A is 4 there
        },
    }


def test_labels_that_are_unknown_are_not_counted_and_agree_with_nothing():
    found = audit.examine(PIXELS, np.where(USAGE == 0, LABELS, -1), USAGE)
    assert nonzero(found["classes"]) == {"Training": TRAINING_CLASSES, "PublicTest": {}, "PrivateTest": {}}
    assert found["identical_pictures"] == repeats(4, 8, 1) | REPEATS_INSIDE | {
        "PublicTest in Training": duplicates(2, 0.666667, "unknown"),
        "PrivateTest in Training": duplicates(3, 0.6, "unknown"),
        "PrivateTest in PublicTest": duplicates(3, 0.6, "unknown"),
    }


def test_one_differing_pixel_makes_another_picture():
    pixels = np.zeros((3, 48, 48), "uint8")
    pixels[1, 47, 47] = 1
    found = audit.examine(pixels, np.array([0, 0, 0]), np.array([0, 1, 2]))
    assert found["identical_pictures"]["PublicTest in Training"] == duplicates(0, 0.0, "unknown")
    assert found["identical_pictures"]["PrivateTest in Training"] == duplicates(1, 1.0, 1.0)
    assert found["constant_pictures"] == {"Training": 1, "PublicTest": 0, "PrivateTest": 1}


@pytest.mark.parametrize(
    ("groups", "labels", "expected"),
    [
        ([], [], repeats(0, 0, 0)),
        ([5, 6, 7], [0, 0, 0], repeats(0, 0, 0)),
        ([5, 5, 5], [0, 0, 0], repeats(1, 2, 0)),
        ([5, 6, 5, 6], [0, 1, 2, 1], repeats(2, 2, 1)),
        ([5, 5], [0, -1], repeats(1, 1, 0)),
        ([5, 5], [-1, -1], repeats(1, 1, 0)),
        ([5, 5, 5], [-1, 0, 1], repeats(1, 2, 1)),
    ],
)
def test_groups_are_counted_with_their_extra_copies_and_conflicts(groups, labels, expected):
    assert audit.groups_inside(np.array(groups), np.array(labels)) == expected


def test_the_real_competition_has_the_published_counts(monkeypatch):
    labels = np.concatenate([np.repeat(range(7), counts) for counts in CLASS_COUNTS])
    found = audit.class_counts(labels, np.repeat(range(3), SPLIT_ROWS))
    assert tuple(tuple(counts.values()) for counts in found.values()) == CLASS_COUNTS
    assert [sum(counts.values()) for counts in found.values()] == [28709, 3589, 3589]
    by_hand = audit.class_counts(LABELS, USAGE)
    monkeypatch.setattr(audit, "CLASS_COUNTS", tuple(tuple(counts.values()) for counts in by_hand.values()))
    assert audit.examine(PIXELS, LABELS, USAGE)["classes_as_published"] is True


@pytest.mark.parametrize("names", [{"fer2013.tar.gz"}, {"train.csv", "test.csv"}], ids=["known", "unknown"])
def test_main_writes_the_counts_and_a_picture_and_the_same_bytes_again(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    pixels, labels, usage = synthetic.competition(140, 35, seed=2)
    synthetic.write(tmp_path / "data/raw", pixels, labels, usage, names=names)
    facts = {"source": "synthetic", "official": False, "files": {}}
    provenance.PATH.write_text(json.dumps(facts))
    prepare.main()
    audit.main()
    written = [(tmp_path / path).read_bytes() for path in ("results/data.json", "results/classes.png")]
    found = json.loads(written[0])
    assert found.pop("provenance") == facts
    known = names == {"fer2013.tar.gz"}
    near = found.pop("nearly_identical_pictures")
    assert near["rows_with_another"] <= 210
    assert found == audit.examine(pixels, np.where((usage == 0) | known, labels, -1), usage)
    duplicates = audit.load_duplicates(210)
    private = duplicates["row"] >= 175
    inside = duplicates["identical"][:140] > 0
    assert inside.sum() - found["identical_pictures"]["inside Training"]["extra_copies"] > 0
    inside = found["identical_pictures"]["PrivateTest in Training"]["rows"]
    assert (duplicates["identical"][private] > 0).sum() == inside > 0
    assert (duplicates["near"][private] > 0).sum() == near["PrivateTest in Training"]["rows"]
    assert audit.PAGE.read_bytes().startswith(b"\x89PNG")
    assert sum(found["classes"]["PrivateTest"].values()) == (35 if known else 0)
    assert found["identical_pictures"]["groups"] > 0
    assert written[1].startswith(b"\x89PNG")
    audit.main()
    assert [(tmp_path / path).read_bytes() for path in ("results/data.json", "results/classes.png")] == written


def portrait(seed):
    """Something with light and shade like a face's, float [48, 48] from 30 to 220."""
    chance = np.random.default_rng(seed).normal(size=(6, 6))
    smooth = ndimage.zoom(chance, 8, order=3)
    return 30 + 190 * (smooth - smooth.min()) / np.ptp(smooth)


def saved_again(picture, quality):
    """As JPEG leaves it."""
    file = io.BytesIO()
    Image.fromarray(picture.astype("uint8")).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def resized(picture):
    """Made smaller, and as large as before again."""
    image = Image.fromarray(picture.astype("uint8"))
    return np.array(image.resize((30, 30), Image.Resampling.BILINEAR).resize((48, 48), Image.Resampling.BILINEAR))


CHANGES = {
    "recompressed": lambda picture: saved_again(picture, 40),
    "rescaled": resized,
    "darker, with less contrast": lambda picture: 0.5 * picture + 10,
    "with a mark": lambda picture: np.where(np.add.outer(np.arange(48), np.arange(48)) > 90, 255, picture),
    "moved by a pixel": lambda picture: np.roll(picture, 1, axis=1),
}


@pytest.mark.parametrize("mirror", [False, True], ids=["upright", "mirrored"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_picture_is_known_again_after_a_change_and_others_are_not(change, mirror):
    pictures = [portrait(seed) for seed in range(12)]
    changed = change(pictures[3])
    pixels = np.stack([*pictures, changed[:, ::-1] if mirror else changed]).astype("uint8")
    found = audit.alike(pixels)
    pairs = [[sorted(map(int, pair)) for pair in zip(*matrix.nonzero(), strict=True)] for matrix in found]
    assert pairs[mirror] == [[3, 12], [3, 12]]
    assert pairs[not mirror] == []


def test_what_shows_nothing_is_like_nothing():
    flat = np.stack([np.full((48, 48), 7), np.full((48, 48), 8), np.eye(48), np.zeros((48, 48))]).astype("uint8")
    assert [matrix.nnz for matrix in audit.alike(flat)] == [0, 0]


def test_near_duplicates_are_counted_by_row_and_split():
    # Pictures 0 to 3 stand in rows; 0 is nearly 2, and 1 nearly 3, mirrored.
    groups, usage = np.array([0, 0, 1, 2, 3, 3, 0]), np.array([0, 0, 0, 1, 1, 2, 2])
    labels = np.array([4, 5, 6, 5, 0, 6, 4])
    near, mirrored = (
        sparse.csr_array((np.ones(2, bool), pairs), [4, 4]) for pairs in (([0, 2], [2, 0]), ([1, 3], [3, 1]))
    )
    found, duplicates = audit.near_pictures(groups, labels, usage, near, mirrored)
    assert (found["pairs"], found["mirrored_pairs"], found["rows_with_another"]) == (1, 1, 7)
    assert found["PublicTest in Training"] == {"rows": 2, "part": 1.0, "labels_agree": 0.5}
    assert found["PrivateTest in Training"] == {"rows": 1, "part": 0.5, "labels_agree": 1.0}
    assert found["PrivateTest in PublicTest"] == {"rows": 1, "part": 0.5, "labels_agree": 0.0}
    assert duplicates["row"].tolist() == list(range(7))
    assert duplicates["identical"].tolist() == [1, 1, 0, 0, 0, 0, 2]
    assert duplicates["near"].tolist() == [0, 0, 0, 2, 1, 1, 0]


@pytest.mark.parametrize(
    "content",
    [None, "", "row,identical\n0,0\n", "row,identical,near\n0,0,0\n1,0,0\n", "row,identical,near\n",
     "row,identical,near\n1,0,0\n", "row,identical,near\n0,-1,0\n", "row,identical,near\n0,many,0\n"],
)  # fmt: skip
def test_a_table_of_duplicates_that_is_missing_or_of_other_faces_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    audit.DUPLICATES.parent.mkdir()
    if content is not None:
        audit.DUPLICATES.write_text(content)
    with pytest.raises(UserError, match=r"^data/duplicates\.csv .*make it with: dvc repro -f audit$"):
        audit.load_duplicates(1)


def test_the_page_shows_pairs_that_differ_in_what_it_says():
    groups = np.array([0, 0, 0, 1, 2])
    labels = np.array([3, 3, 5, 6, -1])
    pixels = np.stack([portrait(0)] * 3 + [portrait(1), np.full((48, 48), 9)]).astype("uint8")
    empty = sparse.csr_array((3, 3), dtype=bool)
    near = sparse.csr_array((np.ones(2, bool), ([0, 1], [1, 0])), [3, 3])
    found = audit.odd_ones(pixels, labels, groups, near, empty)
    captions = {name: [caption for _, caption in entries] for name, entries in found.items()}
    assert captions == {
        "(nearly) constant": ["4 unknown"],
        "identical, with different labels": ["0 happy", "2 surprise"],
        "nearly the same": ["0 happy", "3 neutral"],
        "nearly the same, mirrored": [],
    }


def test_a_duplicate_without_a_label_neither_agrees_nor_disagrees():
    groups, labels = np.array([7, 7, 8, 8]), np.array([3, -1, 4, 4])
    rows, others = np.array([True, False, True, False]), np.array([False, True, False, True])
    assert audit.shared(groups, labels, rows, others) == duplicates(2, 1.0, 1.0)
    assert audit.shared(groups[:2], labels[:2], rows[:2], others[:2]) == duplicates(1, 1.0, "unknown")
