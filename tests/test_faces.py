import io
import zipfile

import numpy as np
import pytest

from pipeline.data import faces
from pipeline.data.faces import Faces
from pipeline.errors import UserError


def pictures(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 48, 48), dtype=np.uint8)


def some(**other):
    labels, usage = np.array([0, 6, 3, -1, -1, -1], np.int8), np.array([0, 0, 0, 1, 1, 2], np.uint8)
    return {"pixels": pictures(6), "labels": labels, "usage": usage} | other


def test_what_is_saved_is_loaded_and_every_save_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / "new" / name for name in ("one.npz", "two.npz")]
    for path in paths:
        Faces(**some()).save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    for name, array in some().items():
        np.testing.assert_array_equal(getattr(faces.load(paths[0]), name), array, strict=True)


def test_rows_are_counted_by_split_in_order():
    found = Faces(**some(usage=np.array([2, 0, 1, 0, 2, 1], np.uint8), labels=np.full(6, -1, np.int8)))
    assert [list(found.rows(split)) for split in range(3)] == [[1, 3], [2, 5], [0, 4]]
    assert list(found.test_rows()) == [0, 2, 4, 5]


@pytest.mark.parametrize(("bad", "word"), [
    ({"pixels": pictures(6) / 255}, "pixels"),
    ({"pixels": pictures(6).reshape(6, -1)}, "pixels"),
    ({"labels": np.zeros(5, np.int8)}, "labels"),
    ({"labels": np.array([7, 0, 0, -1, -1, -1], np.int8)}, "labels"),
    ({"labels": np.array([0, 0, 0, 0, -1, -1], np.int8)}, "not Training"),  # a label of a test row
    ({"usage": np.array([0, 0, 0, 1, 2, 3], np.uint8)}, "usage"),
])  # fmt: skip
def test_faces_are_held_to_their_types_shapes_and_ranges_in_memory_and_on_disk(tmp_path, bad, word):
    with pytest.raises(ValueError, match=word):
        Faces(**some(**bad))
    np.savez(tmp_path / "faces.npz", **some(**bad))
    with pytest.raises(UserError, match=f"{word}.*dvc repro prepare"):
        faces.load(tmp_path / "faces.npz")


def hollow():
    """An array that says that it is larger than memory."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive, archive.open("pixels.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 48, 48)}
        np.lib.format.write_array_header_1_0(file, header)
    return content.getvalue()


@pytest.mark.parametrize("content", [None, b"", b"no archive", "cut", hollow()], ids=range(5))
def test_a_file_that_is_no_faces_file_is_refused_with_the_command_that_makes_it(tmp_path, content):
    path = tmp_path / "faces.npz"
    Faces(**some()).save(path)
    path.write_bytes(path.read_bytes()[:-100] if content == "cut" else content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(UserError, match=r"faces\.npz .*dvc repro prepare"):
        faces.load(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_picture_groups_are_equal_exactly_where_pictures_are(order):
    distinct = pictures(10)
    distinct[1:4] = distinct[0]
    distinct[[1, 2, 3], [0, 47, 20], [0, 47, 20]] ^= 1  # one bit apart from picture 0
    which = np.random.default_rng(0).integers(0, 10, 40)
    groups = faces.picture_groups(np.asarray(distinct[which], order=order))
    np.testing.assert_array_equal(groups[:, None] == groups, which[:, None] == which)
    assert list(dict.fromkeys(groups)) == list(range(groups.max() + 1))  # numbered by first appearance
    assert len(faces.picture_groups(pictures(0))) == 0
