import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline import faces, prepare, synthetic
from pipeline.competition import PRIVATE, PUBLIC, SPLITS, TRAINING

HEADERS = {
    "train.csv": "emotion,pixels",
    "test.csv": "pixels",
    "icml_face_data.csv": "emotion, Usage, pixels",
    "fer2013.tar.gz": None,
}
FORMS = [{"fer2013.tar.gz"}, {"icml_face_data.csv"}, {"train.csv", "test.csv"}, set(HEADERS)]


@pytest.fixture(scope="module")
def large():
    return synthetic.competition(700, 140, seed=3)


def written(folder, seed):
    synthetic.write(folder, *synthetic.competition(15, 8, seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_draws_the_same_bytes_whatever_the_clock_says(tmp_path, monkeypatch):
    first = written(tmp_path / "first", seed=1)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert set(first) == set(HEADERS)
    assert written(tmp_path / "second", seed=1) == first


def test_another_seed_draws_another_competition(tmp_path):
    first, second = (written(tmp_path / str(seed), seed) for seed in (1, 2))
    for name in HEADERS:
        assert first[name] != second[name]


def test_other_sizes_have_their_shapes_types_and_order_of_splits():
    for training, test in ((7, 7), (15, 8), (30, 1)):
        pixels, labels, usage = synthetic.competition(training, test, seed=1)
        rows = training + 2 * test
        assert (pixels.shape, pixels.dtype) == ((rows, 48, 48), np.uint8)
        assert (labels.shape, labels.dtype) == ((rows,), np.int64)
        assert usage.tolist() == [TRAINING] * training + [PUBLIC] * test + [PRIVATE] * test


@pytest.mark.parametrize(("training", "test"), [(7, 7), (20, 9), (700, 140)])
def test_classes_are_as_many_as_each_other_in_every_split_but_for_one(training, test):
    _, labels, usage = synthetic.competition(training, test, seed=4)
    for split in range(len(SPLITS)):
        counts = np.bincount(labels[usage == split], minlength=7)
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == (training if split == TRAINING else test)


def test_labels_do_not_stand_in_order(large):
    _, labels, usage = large
    for split in range(len(SPLITS)):
        own = labels[usage == split]
        assert (own[1:] == (own[:-1] + 1) % 7).mean() < 0.4  # 1/7 by chance


def test_one_row_in_twenty_repeats_an_earlier_picture_of_its_class(large):
    pixels, labels, usage = large
    groups = faces.picture_groups(pixels)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    twins = first[member] != np.arange(len(groups))
    assert (labels[first[member]] == labels).all()
    assert 0.03 < twins.mean() < 0.07  # 980 rows: three standard errors about 0.05
    assert np.isin(groups[usage == PRIVATE], groups[usage == TRAINING]).any()
    assert np.isin(groups[usage == TRAINING], groups[twins & (usage == TRAINING)]).any()


def test_faces_are_pictures_with_contrast(large):
    spread = large[0].reshape(len(large[0]), -1).std(axis=1)
    assert spread.min() > 5
    assert len(set(large[0].mean(axis=(1, 2)).round())) > 50, "light varies"


def test_expressions_can_be_learnt_from_pixels_and_not_from_the_light_alone(large):
    pixels, labels, usage = large
    small = pixels.reshape(-1, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(len(pixels), -1)
    small = (small - small.mean(axis=1, keepdims=True)) / small.std(axis=1, keepdims=True)
    light = np.stack([pixels.mean(axis=(1, 2)) / 255, pixels.std(axis=(1, 2)) / 255], axis=1)
    groups = faces.picture_groups(pixels)
    train = usage == TRAINING
    test = ~train & ~np.isin(groups, groups[train])

    def accuracy(features):
        model = LogisticRegression(C=0.01, max_iter=300, tol=0.01).fit(features[train], labels[train])
        return model.score(features[test], labels[test])

    assert accuracy(small) > 0.55  # 0.68 to 0.73 for seeds 3 to 6; chance gives 0.14
    assert accuracy(light) < 0.25


@pytest.mark.parametrize("names", FORMS, ids=lambda names: "+".join(sorted(names)))
def test_every_form_reads_back_as_the_faces_that_were_drawn(tmp_path, names):
    drawn = synthetic.competition(40, 9, seed=5)
    synthetic.write(tmp_path / "raw", *drawn, names=names)
    assert {path.name for path in (tmp_path / "raw").iterdir()} == names
    table = prepare.read_folder(tmp_path / "raw")
    labelled = table.labels >= 0
    assert labelled.all() or names == {"train.csv", "test.csv"}
    assert labelled[:40].all()
    np.testing.assert_array_equal(table.pixels, drawn[0])
    np.testing.assert_array_equal(table.labels[labelled], drawn[1][labelled])
    np.testing.assert_array_equal(table.usage, drawn[2])


def test_headers_and_quotation_marks_are_those_of_the_real_files(tmp_path):
    files = written(tmp_path, seed=1)
    for name, header in HEADERS.items():
        if header:
            first, second = files[name].decode().split("\n")[:2]
            assert first == header
            assert second.count('"') == (2 if name in ("train.csv", "test.csv") else 0)
