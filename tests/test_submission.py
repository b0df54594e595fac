import hashlib

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation import submission

MALFORMED = {  # content of what should be three lines, and where it is wrong
    "a header": (b"emotion\n3\n0\n", "line 1: 'emotion'"),
    "id,label": (b"id,label\n1,3\n2,0\n", "line 1: 'id,label'"),
    "CRLF": (b"3\r\n0\r\n1\r\n", r"line 1: '3\\r'"),
    "CR": (b"3\r0\r1\r", r"line 1: the last line does not end"),
    "a blank line": (b"3\n\n0\n", "line 2: ''"),
    "a blank line at the end": (b"3\n0\n1\n\n", "line 4: ''"),
    "class 7": (b"3\n0\n7\n", "line 3: '7'"),
    "class -1": (b"-1\n0\n1\n", "line 1: '-1'"),
    "two digits": (b"3\n00\n1\n", "line 2: '00'"),
    "a leading blank": (b"3\n 3\n1\n", "line 2: ' 3'"),
    "a fraction": (b"3.0\n0\n1\n", "line 1: '3.0'"),
    "a BOM": (b"\xef\xbb\xbf3\n0\n1\n", "line 1: "),
    "another alphabet's digit": ("\u0663\n0\n1\n".encode(), "line 1: "),
    "bytes that are no text": (b"\x89PNG\x00\xff\n\x00\n", "line 1: "),
    "a very long line": (b"3" * 10**6 + b"\n", "line 1: '3{20}'"),
    "no last newline": (b"3\n0\n1", "line 3: the last line does not end"),
    "too few lines": (b"3\n0\n", "2 lines"),
    "too many lines": (b"3\n0\n1\n1\n", "4 lines"),
    "nothing": (b"", "0 lines"),
}


def test_the_file_is_one_digit_a_line_and_nothing_else(tmp_path):
    path = tmp_path / "submissions/some.csv"
    submission.write(path, np.arange(7))
    digest = submission.write(path, np.array([3, 0, 6, 1]))
    assert path.read_bytes() == b"3\n0\n6\n1\n"
    assert digest == submission.sha256(path) == hashlib.sha256(b"3\n0\n6\n1\n").hexdigest()


def test_what_is_written_reads_back(tmp_path):
    labels = np.random.default_rng(0).integers(0, 7, 7178)
    for dtype in ("int8", "uint8", "int64"):
        submission.write(tmp_path / "some.csv", labels.astype(dtype))
        found = submission.read(tmp_path / "some.csv", 7178)
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("labels", [[0, 7], [0, -1], [0.0, 1.0]])
def test_what_is_no_class_is_not_written_as_if_it_were_one(tmp_path, labels):
    with pytest.raises(UserError, match="is no class"):
        submission.write(tmp_path / "some.csv", np.array(labels))


@pytest.mark.parametrize(("content", "place"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_by_its_line(tmp_path, content, place):
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"some\.csv.* {place}.*3 lines with one class") as refused:
        submission.read(path, 3)
    assert len(str(refused.value)) < len(str(path)) + 200


def test_a_missing_file_is_refused_with_what_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"some\.csv is missing.*dvc repro -f score"):
        submission.read(tmp_path / "some.csv", 3)


@pytest.mark.parametrize("content", [None, "", "name,oof_accuracy\na,0.5\n", "parameters\nmany\n"])
def test_a_table_of_scores_that_is_missing_or_another_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    submission.FOLDER.mkdir()
    if content is not None:
        submission.TABLE.write_text(content)
    with pytest.raises(UserError, match=r"^submissions/scores\.csv .*dvc repro -f score"):
        submission.scores()


def test_numbers_that_are_missing_in_the_table_of_scores_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    submission.FOLDER.mkdir()
    head = "name,parameters,oof_accuracy,private_accuracy,train_seconds,sha256,data\n"
    submission.TABLE.write_text(head + "a,12,0.5,unknown,90,00,official\nb,,0.5,unknown,,00,official\n")
    found = submission.scores()
    assert [(line["parameters"], line["train_seconds"]) for line in found] == [(12, 90), (None, None)]
    assert isinstance(found[0]["parameters"], int)


@pytest.mark.parametrize("found", [{}, {"single_networks": {"vgg9": {}}}, {"single_networks": {"vgg8": {"mean": 0.5}}}])
def test_an_analysis_of_another_run_is_refused(found):
    with pytest.raises(UserError, match=r"^results/analysis\.json .*dvc repro -f score"):
        submission.singles(found, "vgg8")
    entry = {"mean": 0.5, "deviation": 0.1, "no_duplicate_mean": 0.4, "agree": 0.8, "multiply_adds": 1}
    assert submission.singles({"single_networks": {"vgg8": entry}}, "vgg8") == entry
