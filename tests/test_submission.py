import hashlib

import numpy as np
import pytest
from settings import refuses

from pipeline import files
from pipeline.evaluation import submission


def test_a_submission_has_one_digit_per_line_and_reads_back(tmp_path):
    path, labels = tmp_path / "submissions/some.csv", np.array([3, 0, 6, 1], "int8")
    digest = submission.write(path, labels)
    assert path.read_bytes() == b"3\n0\n6\n1\n"
    assert digest == submission.sha256(path) == hashlib.sha256(b"3\n0\n6\n1\n").hexdigest()
    np.testing.assert_array_equal(submission.read(path, 4), labels)


@pytest.mark.parametrize(("text", "place"), [(b"3\n7\n", "line 2"), (b"\x89\xff\n", "line 1"), (b"3\n0\n", "2 lines")])
def test_a_malformed_file_raises_with_its_line(tmp_path, text, place):
    path = tmp_path / "some.csv"
    path.write_bytes(text)
    refuses(rf"some\.csv.* {place}", submission.read, path, 3)


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\nname,oof_accuracy\n", "name,oof_accuracy\na,0.5\n"])
def test_an_invalid_table_of_scores_raises(stand, content):
    submission.FOLDER.mkdir()
    submission.TABLE.write_text(content)
    refuses(r"^submissions/scores\.csv .*dvc repro ensemble audit && dvc repro -fs score", submission.scores)


def test_a_model_may_be_named_nan(stand):
    files.write(submission.TABLE, f"{','.join(submission.WHOLE)}\nnan{',0.5' * (len(submission.WHOLE) - 1)}\n".encode())
    assert submission.scores()[0]["name"] == "nan"
