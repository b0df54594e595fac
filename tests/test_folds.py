import numpy as np
import pytest
import settings

from pipeline.data import faces, folds
from pipeline.errors import UserError

LARGEST = 4  # rows of one picture
SHARES = (14, 2, 14, 25, 17, 11, 17)  # of each class, in percent: about the competition's


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder whose params.yaml has three folds."""
    monkeypatch.chdir(tmp_path)
    settings.write(folds=[0, 1, 2])


def some_labels(rng, rows=600):
    return rng.permutation(np.repeat(np.arange(7), np.array(SHARES) * rows // 100)).astype(np.int8)


def some_groups(rng, labels):
    """Groups of 1 to LARGEST rows; nine in ten hold one label, the others whatever came."""
    groups = np.empty(len(labels), int)
    loose = rng.random(len(labels)) < 0.1
    for label in range(8):
        rows = rng.permutation(np.flatnonzero(loose if label == 7 else (labels == label) & ~loose))
        sizes = rng.choice(np.arange(1, LARGEST + 1), len(rows), p=(0.9, 0.05, 0.03, 0.02))
        groups[rows] = np.repeat(1000 * label + np.arange(len(rows)), sizes)[: len(rows)]
    return groups


def spread(labels, fold, count):
    """By class: the rows of the fold that has most, less those of the fold that has fewest."""
    counts = np.array([np.bincount(fold[labels == label], minlength=count) for label in np.unique(labels)])
    return np.ptp(counts, axis=1)


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_folds_are_even_in_every_class_and_never_part_a_picture(seed, count, alike):
    """Groups go to the fold that lacks most, and single rows level what they left: so by one row or one group."""
    rng = np.random.default_rng(seed)
    labels = some_labels(rng)
    groups = some_groups(rng, labels) if alike else np.arange(len(labels))
    assert np.bincount(groups).max() == (LARGEST if alike else 1)
    fold = folds.deal(labels, groups, count, seed)
    assert fold.shape == labels.shape
    assert sorted(set(fold)) == list(range(count))
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    assert (spread(labels, fold, count) <= (LARGEST if alike else 1)).all()


def test_a_seed_gives_one_deal_and_another_seed_another():
    rng = np.random.default_rng(0)
    labels = some_labels(rng)
    groups = some_groups(rng, labels)
    deals = [folds.deal(labels, groups, 3, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(deals[0], deals[1])
    assert (deals[0] != deals[2]).any()


@pytest.mark.parametrize(("labels", "count", "words"), [
    ([0] * 9 + [1] * 2, 3, "3 folds need at least 3 different Training pictures of every class; one has 2"),
    ([0, 1, 2, 3, 4, 5, 6], 2, "one has 1"), ([], 2, "one has 0"),
])  # fmt: skip
def test_too_few_rows_of_a_class_are_refused(labels, count, words):
    with pytest.raises(UserError, match=words):
        folds.deal(np.array(labels, np.int8), np.arange(len(labels)), count, 0)


def test_too_few_different_pictures_are_refused_and_just_enough_suffice():
    with pytest.raises(UserError):
        folds.deal(np.zeros(6, np.int8), np.zeros(6, np.int64), 2, 0)
    fold = folds.deal(np.array([0] * 9 + [1] * 3, np.int8), np.arange(12), 3, 0)
    assert sorted(fold[9:]) == [0, 1, 2]


def some_faces(rng):
    """Interleaved splits, and every eighth picture is a duplicate of the one before."""
    usage = rng.choice(3, 160, p=(0.8, 0.1, 0.1)).astype(np.uint8)
    labels = np.where(usage == 0, rng.integers(0, 7, 160), -1).astype(np.int8)
    pixels = rng.integers(0, 256, (160, 48, 48), dtype=np.uint8)
    pixels[::8] = pixels[1::8]
    return faces.Faces(pixels, labels, usage)


@pytest.mark.parametrize("choice", ["keep", "drop_test_duplicates", "drop_repeats"])
def test_the_stage_deals_the_rows_and_load_reads_them(project, capsys, choice):
    data = some_faces(np.random.default_rng(0))
    data.save()
    written = []
    for seed in (1, 1, 2):
        settings.write(folds=[0, 1, 2], duplicates=choice, seed=seed)
        folds.main()
        written.append(folds.PATH.read_bytes())
    assert written[0] == written[1] != written[2]
    assert written[0].startswith(b"row,fold\n")
    found = folds.load(data)
    assert (found.rows.dtype, found.fold_of.dtype) == (np.int64, np.int64)
    assert list(found.rows) == list(folds.kept(data, choice))
    assert (choice in capsys.readouterr().out) == (len(found.rows) < len(data.rows(0))) == (choice != "keep")
    assert sorted([*found.held_out(1), *found.seen(1)]) == list(found.rows)
    dealt = dict(zip(found.rows, found.fold_of, strict=True))
    duplicates = [(row, row + 1) for row in range(0, 160, 8) if row in dealt and row + 1 in dealt]
    assert bool(duplicates) == (choice != "drop_repeats")
    assert all(dealt[one] == dealt[other] for one, other in duplicates)


def test_what_to_do_with_duplicates():
    # Pictures by number, splits, labels: row 2 is a duplicate of a test row; 1 and 4 repeat 0; 7 conflicts with 6.
    numbers = np.array([0, 0, 5, 1, 0, 2, 3, 3, 5, 4])
    usage = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], dtype=np.uint8)
    labels = np.array([6, 2, 3, 4, 2, 1, 5, 0, -1, -1], dtype=np.int8)
    pixels = np.stack([np.full((48, 48), number, dtype=np.uint8) for number in numbers])
    data = faces.Faces(pixels, labels, usage)
    assert list(folds.kept(data, "keep")) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert list(folds.kept(data, "drop_test_duplicates")) == [0, 1, 3, 4, 5, 6, 7]
    # Of 0, 1 and 4 most say 2, and row 1 is the first of them; of 6 and 7 the first, as they are even.
    assert list(folds.kept(data, "drop_repeats")) == [1, 2, 3, 5, 6]


def test_missing_faces_are_refused(project):
    with pytest.raises(UserError, match=r"faces\.npz is missing"):
        folds.main()


def lines(*rows):
    return "".join(f"{row}\n" for row in ("row,fold", *rows)).encode()


@pytest.mark.parametrize("content", [
    None, b"", b"number,fold\n0,0\n", b"row\n0\n", b"0,0\n1,1\n", lines("0,first"), lines("0,0", "1,1,1,1"),
    b"row,fold\n0,\xff\n", bytes(range(256)), b"row,fold\n0,0\n1", lines("0,0", "1,"), lines("0,0", "1,0.7", "2,2"),
    lines("0,1,2"), lines("99999999999999999999,1"), lines("0.0,0", "1.0,1", "2.0,2"),
    lines("1,0", "0,1", "2,2"), lines("0,0", "0,1", "2,2"), lines("0,0", "1,1", "159,2"), lines("0,0", "1,1", "2,1"),
    lines("0,0", "1,1", "2,3"),
])  # fmt: skip
def test_a_file_that_is_no_deal_of_these_faces_is_refused(project, content):
    data = some_faces(np.random.default_rng(0))
    labels = np.where(np.arange(160) == 159, -1, np.arange(160) % 7).astype(np.int8)
    data = faces.Faces(data.pixels, labels, (labels == -1).astype(np.uint8))
    folds.PATH.parent.mkdir()
    if content is not None:
        folds.PATH.write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)data/folds\.csv is (missing|damaged).*dvc repro folds"):
        folds.load(data)
    folds.PATH.write_bytes(lines("0,0", "1,1", "2,2"))
    assert list(folds.load(data).fold_of) == [0, 1, 2]
