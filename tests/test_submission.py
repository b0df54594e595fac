import hashlib

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation import submission

MALFORMED = {  # content of what should be three lines, and what is said of it
    "a header": (b"emotion\n3\n0\n", "line 1: 'emotion' is no class"),
    "id,label": (b"id,label\n1,3\n2,0\n", "line 1: 'id,label' is no class"),
    "CRLF": (b"3\r\n0\r\n1\r\n", r"line 1: '3\\r' is no class"),
    "a blank line": (b"3\n\n0\n", "line 2: '' is no class"),
    "a blank line at the end": (b"3\n0\n1\n\n", "line 4: '' is no class"),
    "class 7": (b"3\n0\n7\n", "line 3: '7' is no class"),
    "class -1": (b"-1\n0\n1\n", "line 1: '-1' is no class"),
    "two digits": (b"3\n00\n1\n", "line 2: '00' is no class"),
    "a leading blank": (b"3\n 3\n1\n", "line 2: ' 3' is no class"),
    "a fraction": (b"3.0\n0\n1\n", "line 1: '3.0' is no class"),
    "a BOM": (b"\xef\xbb\xbf3\n0\n1\n", "line 1: .* is no class"),
    "another alphabet's digit": ("\u0663\n0\n1\n".encode(), "line 1: .* is no class"),
    "bytes that are no text": (b"\x89PNG\x00\xff\n\x00\n", "line 1: .* is no class"),
    "a very long line": (b"3" * 10**6 + b"\n", "line 1: '3{20}' is no class"),
    "no last newline": (b"3\n0\n1", "line 3: the last line does not end"),
    "too few lines": (b"3\n0\n", "has 2 lines instead of 3"),
    "too many lines": (b"3\n0\n1\n1\n", "has 4 lines instead of 3"),
    "nothing": (b"", "has 0 lines instead of 3"),
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
    with pytest.raises(UserError, match="is no class from 0 to 6"):
        submission.write(tmp_path / "some.csv", np.array(labels))


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_with_its_name_and_line_and_what_to_do(tmp_path, content, said):
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"some\.csv.*{said}.*dvc repro -f score$") as refusal:
        submission.read(path, 3)
    assert len(str(refusal.value)) < len(str(path)) + 150


def test_a_missing_file_is_refused_with_what_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"some\.csv is missing; make it again with: dvc repro -f score"):
        submission.read(tmp_path / "some.csv", 3)


@pytest.mark.parametrize("found", [{}, {"single_networks": {"vgg9": {}}}, {"single_networks": {"vgg8": {"mean": 0.5}}}])
def test_an_analysis_of_another_run_is_refused(found):
    with pytest.raises(UserError, match=r"results/analysis\.json is of another run or version; make it again"):
        submission.singles(found, "vgg8")
    entry = {"mean": 0.5, "deviation": 0.1, "no_duplicate_mean": 0.4, "agree": 0.8}
    assert submission.singles({"single_networks": {"vgg8": entry}}, "vgg8") == entry
