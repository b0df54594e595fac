import io
import re

import numpy as np
import pytest

from pipeline.data import faces
from pipeline.data.faces import Faces
from pipeline.errors import UserError

USAGE = [0, 0, 0, 1, 1, 2]
LABELS = [0, 6, 3, -1, -1, -1]


def pictures(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 48, 48), dtype=np.uint8)


def some(**other):
    arrays = {"pixels": pictures(6), "labels": np.array(LABELS, np.int8), "usage": np.array(USAGE, np.uint8)}
    return arrays | other


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "a" / "new" / "folder" / "faces.npz"
    Faces(**some()).save(path)
    found = faces.load(path)
    for name, array in some().items():
        np.testing.assert_array_equal(getattr(found, name), array, strict=True)


def test_no_faces_are_faces_too(tmp_path):
    Faces(pictures(0), np.zeros(0, np.int8), np.zeros(0, np.uint8)).save(tmp_path / "faces.npz")
    assert len(faces.load(tmp_path / "faces.npz").pixels) == 0


def test_every_save_gives_the_same_bytes(tmp_path):
    contents = []
    for name in ("one.npz", "two.npz", "two.npz"):
        Faces(**some()).save(tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    Faces(**some(pixels=np.asfortranarray(pictures(6)))).save(tmp_path / "fortran.npz")
    assert len(set(contents)) == 1
    np.testing.assert_array_equal(faces.load(tmp_path / "fortran.npz").pixels, pictures(6))


def test_rows_are_counted_by_split_in_order():
    usage = np.array([2, 0, 1, 0, 2, 1], np.uint8)
    found = Faces(**some(usage=usage, labels=np.full(6, -1, np.int8)))
    assert [list(found.rows(split)) for split in range(3)] == [[1, 3], [2, 5], [0, 4]]
    assert list(found.test_rows()) == [0, 2, 4, 5]


BAD_ARRAYS = [
    ({"pixels": pictures(6).astype(np.int16)}, "pixels must be uint8 [6, 48, 48], not int16"),
    ({"pixels": pictures(6) / 255}, "not float64 [6, 48, 48]"),
    ({"pixels": pictures(6).reshape(6, -1)}, "not uint8 [6, 2304]"),
    ({"pixels": pictures(6)[:, 1:]}, "not uint8 [6, 47, 48]"),
    ({"labels": np.array(LABELS)}, "labels must be int8 [6], not int64 [6]"),
    ({"labels": np.zeros(5, np.int8)}, "labels must be int8 [6], not int8 [5]"),
    ({"labels": np.zeros((6, 7), np.int8)}, "labels must be int8 [6], not int8 [6, 7]"),
    ({"labels": np.array([7, 0, 0, -1, -1, -1], np.int8)}, "labels must be -1 to 6"),
    ({"labels": np.array([-2, 0, 0, -1, -1, -1], np.int8)}, "labels must be -1 to 6"),
    ({"labels": np.array([0, 0, 0, 0, -1, -1], np.int8)}, "labels must be -1 for every row that is not Training"),
    ({"usage": np.array(USAGE, np.int8)}, "usage must be uint8 [6], not int8 [6]"),
    ({"usage": np.zeros(7, np.uint8)}, "usage must be uint8 [6], not uint8 [7]"),
    ({"usage": np.array([0, 0, 0, 1, 2, 3], np.uint8)}, "usage must be below 3"),
]


@pytest.mark.parametrize(("bad", "words"), BAD_ARRAYS, ids=lambda value: value if isinstance(value, str) else "")
def test_faces_are_held_to_their_types_shapes_and_ranges_in_memory_and_on_disk(tmp_path, bad, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Faces(**some(**bad))
    np.savez(tmp_path / "faces.npz", **some(**bad))
    with pytest.raises(UserError, match="is damaged.*" + re.escape(words) + ".*dvc repro prepare"):
        faces.load(tmp_path / "faces.npz")


def flipped(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize("content", [
    None, b"", b"no archive", npz(**some())[:-100], npz(**some())[100:], flipped(npz(**some())),
    npz(pixels=pictures(6)), npz(**some(labels=np.array([None] * 6))), npy(pictures(6)), npy(np.array(3)),
], ids=lambda content: str(content)[:12])  # fmt: skip
def test_a_file_that_is_no_faces_file_is_refused_with_the_command_that_makes_it(tmp_path, content):
    path = tmp_path / "faces.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        UserError, match=re.escape(f"{path} is {'missing' if content is None else 'damaged'}")
    ) as refusal:
        faces.load(path)
    assert "dvc repro prepare" in str(refusal.value)


@pytest.mark.parametrize("seed", range(5))
def test_picture_groups_are_equal_exactly_where_pictures_are(seed):
    rng = np.random.default_rng(seed)
    distinct = pictures(10, seed)
    distinct[1:4] = distinct[0]
    distinct[[1, 2, 3], [0, 47, 20], [0, 47, 20]] ^= 1  # one bit apart from picture 0
    which = rng.integers(0, 10, 40)
    groups = faces.picture_groups(distinct[which])
    assert groups.dtype == np.int64
    np.testing.assert_array_equal(groups[:, None] == groups, which[:, None] == which)
    _, first = np.unique(groups, return_index=True)
    assert list(groups[np.sort(first)]) == list(range(len(first)))  # numbered by first appearance


def test_picture_groups_do_not_depend_on_the_layout_in_memory():
    pixels = pictures(4)[[0, 1, 0, 2, 3, 1]]
    for same in (np.asfortranarray(pixels), np.repeat(pixels, 2, axis=0)[::2]):
        assert list(faces.picture_groups(same)) == [0, 1, 0, 2, 3, 1]


def test_no_pictures_make_no_groups():
    assert len(faces.picture_groups(pictures(0))) == 0
