import re
from pathlib import Path

import numpy as np
import pytest

from pipeline import params
from pipeline.data import faces, folds
from pipeline.errors import UserError

LARGEST = 4  # rows of one picture
SHARES = (14, 2, 14, 25, 17, 11, 17)  # of each class, in percent: about the competition's


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a params.yaml, whose sections may be given."""
    monkeypatch.chdir(tmp_path)

    def write(seed="2013", folds="[0, 1, 2]", duplicates="keep"):
        others = "".join(f"{name}: {{}}\n" for name in params.SECTIONS if name not in ("seed", "folds", "duplicates"))
        Path("params.yaml").write_text(f"seed: {seed}\nfolds: {folds}\nduplicates: {duplicates}\n{others}")
        params.document.cache_clear()

    write()
    yield write
    params.document.cache_clear()


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


SEEDS = range(4)
COUNTS = [2, 3, 5]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_is_in_one_fold_and_no_fold_is_empty(seed, count):
    labels = some_labels(np.random.default_rng(seed))
    fold = folds.deal(labels, np.arange(len(labels)), count, seed)
    assert fold.shape == labels.shape
    assert sorted(set(fold)) == list(range(count))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_duplicates_are_never_parted(seed, count):
    rng = np.random.default_rng(seed)
    labels = some_labels(rng)
    groups = some_groups(rng, labels)
    assert np.bincount(groups).max() == LARGEST
    fold = folds.deal(labels, groups, count, seed)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_classes_are_dealt_evenly_to_the_row_where_no_pictures_are_alike(seed, count):
    labels = some_labels(np.random.default_rng(seed))
    fold = folds.deal(labels, np.arange(len(labels)), count, seed)
    assert (spread(labels, fold, count) <= 1).all()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_classes_are_dealt_evenly_to_the_largest_group_where_pictures_are_alike(seed, count):
    # Groups are dealt to the fold that lacks most, and single rows come last and level what groups left uneven; so
    # folds differ by no more than what cannot be parted.
    rng = np.random.default_rng(seed)
    labels = some_labels(rng)
    fold = folds.deal(labels, some_groups(rng, labels), count, seed)
    assert (spread(labels, fold, count) <= LARGEST).all()


def test_a_seed_gives_one_deal_and_another_seed_another():
    rng = np.random.default_rng(0)
    labels = some_labels(rng)
    groups = some_groups(rng, labels)
    deals = [folds.deal(labels, groups, 3, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(deals[0], deals[1])
    assert (deals[0] != deals[2]).any()


@pytest.mark.parametrize(
    ("labels", "count", "words"),
    [
        ([0] * 9 + [1] * 2, 3, "3 folds need at least 3 different Training pictures of every class; one has 2"),
        ([0] * 9 + [6], 2, "one has 1"),
        ([0, 1, 2, 3, 4, 5, 6], 2, "one has 1"),
        ([], 2, "one has 0"),
    ],
)
def test_too_few_rows_of_a_class_are_refused(labels, count, words):
    with pytest.raises(UserError, match=words):
        folds.deal(np.array(labels, np.int8), np.arange(len(labels)), count, 0)


def test_too_few_different_pictures_are_refused():
    with pytest.raises(UserError):
        folds.deal(np.zeros(6, np.int8), np.zeros(6, np.int64), 2, 0)


def test_as_many_rows_of_a_class_as_folds_suffice():
    labels = np.array([0] * 9 + [1] * 3, np.int8)
    fold = folds.deal(labels, np.arange(12), 3, 0)
    assert sorted(fold[9:]) == [0, 1, 2]


@pytest.mark.parametrize("count", COUNTS)
def test_the_fold_numbers_are_those_of_params_yaml(project, count):
    project(folds=str(list(range(count))))
    assert folds.numbers() == list(range(count))


NO_FOLDS = """[0] [] [1,2] [0,0] [1,0] [0,2] [-1,0] [a] [0,a] [0,true] [0,1.0] [0,null] [[0,1]] '[0,1]' 3 null {0:1}"""


@pytest.mark.parametrize("value", NO_FOLDS.split())
def test_other_fold_numbers_are_refused(project, value):
    project(folds=value)
    with pytest.raises(UserError, match=r"params\.yaml: folds = .*: must (list at least two folds|count up from 0)"):
        folds.numbers()


def some_faces(rng):
    """Interleaved splits, and every eighth picture is a duplicate of the one before."""
    usage = rng.choice(3, 160, p=(0.8, 0.1, 0.1)).astype(np.uint8)
    labels = np.where(usage == 0, rng.integers(0, 7, 160), -1).astype(np.int8)
    pixels = rng.integers(0, 256, (160, 48, 48), dtype=np.uint8)
    pixels[::8] = pixels[1::8]
    return faces.Faces(pixels, labels, usage)


def test_the_stage_deals_the_training_rows_and_load_reads_them(project, capsys):
    data = some_faces(np.random.default_rng(0))
    data.save()
    folds.main()
    rows, fold = folds.load(data)
    assert folds.PATH.read_text().startswith("row,fold\n")
    assert (rows.dtype, fold.dtype) == (np.int64, np.int64)
    assert list(rows) == list(data.rows(0))
    dealt = dict(zip(rows, fold, strict=True))
    duplicates = [(row, row + 1) for row in range(0, 160, 8) if row in dealt and row + 1 in dealt]
    assert duplicates
    assert all(dealt[one] == dealt[other] for one, other in duplicates)
    assert capsys.readouterr().out.startswith(f"{len(rows)} Training rows in 3 folds of ")


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


@pytest.mark.parametrize("choice", ["drop_test_duplicates", "drop_repeats"])
def test_rows_that_are_dropped_stand_in_no_fold(project, choice, capsys):
    data = some_faces(np.random.default_rng(0))
    data.save()
    project(duplicates=choice)
    folds.main()
    rows, _ = folds.load(data)
    assert list(rows) == list(folds.kept(data, choice))
    dropped = len(data.rows(0)) - len(rows)
    assert 0 < dropped < 40
    assert capsys.readouterr().out.endswith(f"; {dropped} rows left out ({choice})\n")


@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [0, 159]], ids=["disordered", "twice", "a_test_row"])
def test_folds_of_other_faces_are_refused(project, rows):
    data = some_faces(np.random.default_rng(0))
    data.usage[:2], data.usage[159] = 0, 2
    folds.PATH.parent.mkdir()
    folds.PATH.write_text("row,fold\n" + "".join(f"{row},0\n" for row in rows))
    with pytest.raises(UserError, match=re.escape("data/folds.csv is not of these faces")):
        folds.load(data)


def test_the_stage_writes_the_same_bytes_for_a_seed_and_others_for_another(project):
    some_faces(np.random.default_rng(0)).save()
    written = []
    for seed in ("1", "1", "2"):
        project(seed=seed)
        folds.main()
        written.append(folds.PATH.read_bytes())
    assert written[0] == written[1] != written[2]


def test_missing_faces_are_refused(project):
    with pytest.raises(UserError, match=r"faces\.npz is missing"):
        folds.main()


def test_a_missing_folds_file_is_refused_with_the_command_that_makes_it(project):
    with pytest.raises(UserError, match=re.escape("data/folds.csv is missing; make it with: dvc repro folds")):
        folds.load(some_faces(np.random.default_rng(0)))


BAD_FILES = {
    "empty": b"",
    "other_columns": b"number,fold\n0,0\n",
    "no_fold_column": b"row\n0\n",
    "no_header": b"0,0\n1,1\n",
    "words": b"row,fold\n0,first\n",
    "ragged": b"row,fold\n0,0\n1,1,1,1\n",
    "not_utf_8": b"row,fold\n0,\xff\n",
    "binary": bytes(range(256)),
    "cut_off_inside_a_line": b"row,fold\n0,0\n1",
    "cut_off_before_the_fold": b"row,fold\n0,0\n1,",
    "fraction": b"row,fold\n0,0.7\n",
    "column_too_many": b"row,fold\n0,1,2\n",
    "too_large": b"row,fold\n99999999999999999999,1\n",
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_malformed_folds_file_is_refused(project, content):
    folds.PATH.parent.mkdir()
    folds.PATH.write_bytes(content)
    with pytest.raises(UserError, match=re.escape("data/folds.csv is not a table of row,fold")):
        folds.load(some_faces(np.random.default_rng(0)))
