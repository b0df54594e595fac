import fake_run
import numpy as np
import pytest
import settings
from settings import refuses

from pipeline import files
from pipeline.data import faces, folds

SHARES = (14, 2, 14, 25, 17, 11, 17)  # percentage of each class, similar to the competition


def test_folds_are_balanced_in_every_class_and_never_split_a_picture():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), np.array(SHARES) * 6))
    groups = np.arange(len(labels))
    groups[::8] = groups[1::8]  # pairs of identical pictures, some with different labels
    fold = folds.assign(labels, groups, 5, 0)
    assert all(len(set(fold[groups == group])) == 1 for group in groups)
    counts = np.array([np.bincount(fold[labels == label], minlength=5) for label in range(7)])
    assert np.ptp(counts, axis=1).max() <= 1


def test_too_few_different_pictures_of_a_class_are_an_error():
    refuses("3 folds need at least 3", folds.assign, np.zeros(6, np.int8), np.array([0, 0, 0, 0, 1, 1]), 3, 0)


@pytest.mark.parametrize("choice", ["keep", "drop_test_duplicates", "drop_repeats"])
def test_the_stage_assigns_the_rows_and_load_reads_them(stand, choice):
    data, written = fake_run.faces(), []  # with duplicates
    data.save()
    for seed in (1, 1, 2):
        settings.write(folds=3, duplicates=choice, seed=seed)
        folds.main()
        written.append(folds.PATH.read_bytes())
    assert written[0] == written[1] != written[2]
    assignment = folds.load(data)
    assert list(assignment.rows) == list(folds.kept(data, choice))
    assert list(assignment.held_out(1)) == list(assignment.rows[assignment.fold_of == 1])


def test_a_model_can_have_its_own_number_of_folds(stand):
    data = fake_run.faces()
    data.save()
    for names in (["small_vgg", "gone"], ["small_vgg", "deep_vgg"]):
        models = {name: {"architecture": "small_vgg", "epochs": 1, "seed": seed} for seed, name in enumerate(names)}
        models[names[1]]["folds"] = 5
        settings.write(folds=3, models=models)
        folds.main()
    assert {path.stem for path in folds.FOLDER.iterdir()} == {"small_vgg", "deep_vgg"}
    assert folds.load(data, "small_vgg").digest == folds.load(data).digest
    assert set(folds.load(data, "deep_vgg").fold_of) == set(range(5))


def test_duplicates_are_kept_or_dropped():
    # Row 2 is a duplicate of a test row; 1 and 4 repeat 0; 7 repeats 6 with another label.
    numbers = np.array([0, 0, 5, 1, 0, 2, 3, 3, 5, 4])
    usage = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], dtype=np.uint8)
    labels = np.array([6, 2, 3, 4, 2, 1, 5, 0, -1, -1], dtype=np.int8)
    pixels = np.stack([np.full((48, 48), number, dtype=np.uint8) for number in numbers])
    data = faces.Faces(pixels, labels, usage)
    assert list(folds.kept(data, "keep")) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert list(folds.kept(data, "drop_test_duplicates")) == [0, 1, 3, 4, 5, 6, 7]
    # Of 0, 1 and 4, row 1 is the first with the majority label 2. Rows 6 and 7 tie, so the first is kept.
    assert list(folds.kept(data, "drop_repeats")) == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("lines", [
    None, "row,fold\n1,0\n0,1\n2,2", "row,fold\n0,0\n1,1\n84,2", "row,fold\n0,0\n1,1\n2,1",
])  # fmt: skip
def test_a_missing_invalid_or_different_fold_assignment_is_an_error(stand, lines):
    settings.write(folds=3)
    if lines:
        files.write(folds.PATH, lines.encode())
    refuses(r"data/folds\.csv .*dvc repro folds", folds.load, fake_run.faces())
