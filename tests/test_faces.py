import numpy as np
import pytest
from settings import refuses

from pipeline.data import faces


def pictures(rows):
    return np.random.default_rng(0).integers(0, 256, (rows, 48, 48), dtype=np.uint8)


def arrays(**changes):
    labels, usage = np.array([0, 6, 3, -1, -1, -1], np.int8), np.array([0, 0, 0, 1, 1, 2], np.uint8)
    return {"pixels": pictures(6), "labels": labels, "usage": usage} | changes


def test_saved_faces_are_loaded_and_equal_faces_give_equal_bytes(tmp_path):
    paths = [tmp_path / "new" / name for name in ("one.npz", "two.npz")]
    for path in paths:
        faces.Faces(**arrays()).save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    for name, array in arrays().items():
        np.testing.assert_array_equal(getattr(faces.load(paths[0]), name), array, strict=True)


@pytest.mark.parametrize(("bad", "word"), [
    ({"pixels": pictures(6) / 255}, "pixels"), ({"labels": np.zeros(5, np.int8)}, "labels"),
    ({"labels": np.array([7, 0, 0, -1, -1, -1], np.int8)}, "labels"),
    ({"labels": np.array([0, 0, 0, 0, -1, -1], np.int8)}, "not Training"),  # a label of a test row
    ({"usage": np.array([0, 0, 0, 1, 2, 3], np.uint8)}, "usage"),
])  # fmt: skip
def test_a_missing_file_and_other_types_shapes_and_values_are_errors_with_a_remedy(tmp_path, bad, word):
    refuses(r"faces\.npz .*dvc repro prepare", faces.load, tmp_path / "faces.npz")
    np.savez(tmp_path / "faces.npz", **arrays(**bad))
    refuses(f"{word}.*dvc repro prepare", faces.load, tmp_path / "faces.npz")


def test_picture_groups_are_equal_for_equal_pictures_only():
    distinct = pictures(10)
    distinct[1:4] = distinct[0]
    distinct[[1, 2, 3], [0, 47, 20], [0, 47, 20]] ^= 1  # differ in one bit from picture 0
    which = np.random.default_rng(0).integers(0, 10, 40)
    groups = faces.picture_groups(distinct[which])
    np.testing.assert_array_equal(groups[:, None] == groups, which[:, None] == which)
    assert list(dict.fromkeys(groups)) == list(range(groups.max() + 1))  # numbered by first appearance
