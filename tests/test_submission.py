import hashlib

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation import submission

HEAD = ("name,parameters,oof_accuracy,public_accuracy,private_accuracy,private_low,private_high,private_no_duplicate,"
        "rank_2013,train_seconds,sha256,data\n")  # fmt: skip


def test_a_submission_has_one_digit_per_line_and_reads_back(tmp_path):
    path, labels = tmp_path / "submissions/some.csv", np.array([3, 0, 6, 1], "int8")
    digest = submission.write(path, labels)
    assert path.read_bytes() == b"3\n0\n6\n1\n"
    assert digest == submission.sha256(path) == hashlib.sha256(b"3\n0\n6\n1\n").hexdigest()
    np.testing.assert_array_equal(submission.read(path, 4), labels)


@pytest.mark.parametrize(("content", "place"), [
    (b"emotion\n3\n0\n", "line 1"), (b"3\n0\n7\n", "line 3"), (b"\x89PNG\x00\xff\n", "line 1"), (b"3\n0\n", "2 lines"),
])  # fmt: skip
def test_a_malformed_file_raises_with_its_line(tmp_path, content, place):
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"some\.csv.* {place}"):
        submission.read(path, 3)


@pytest.mark.parametrize("content", [
    None, HEAD + "a,1,0.5,0.5,unknown", HEAD + "a,1,0.5,0.5,unknown,0.1,0.2,0.6,abc,90,00,official\n",
])  # fmt: skip
def test_a_missing_or_invalid_table_of_scores_raises(stand, content):
    submission.FOLDER.mkdir()
    if content is not None:
        submission.TABLE.write_text(content)
    with pytest.raises(UserError, match=r"^submissions/scores\.csv .*dvc repro -f score"):
        submission.scores()


def test_missing_numbers_in_the_table_of_scores_are_none(stand):
    submission.FOLDER.mkdir()
    unknown = "0.5,unknown,unknown,unknown,unknown,unknown,unknown"
    submission.TABLE.write_text(f"{HEAD}a,12,{unknown},90,00,official\nb,,{unknown},,00,official\n")
    assert [(line["parameters"], line["train_seconds"]) for line in submission.scores()] == [(12, 90), (None, None)]


def test_an_analysis_of_another_run_raises():
    with pytest.raises(UserError, match=r"^results/analysis\.json .*dvc repro -f score"):
        submission.single_networks({"single_networks": {"vgg9": {}}}, "vgg8")
