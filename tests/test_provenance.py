import hashlib
import json

import pytest

from pipeline.competition import CHECKSUMS
from pipeline.data import provenance
from pipeline.errors import UserError


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
def test_a_file_is_official_by_its_checksum_alone(tmp_path, monkeypatch, algorithm):
    path = tmp_path / "train.csv"
    path.write_bytes(b"emotion,pixels\n")
    md5 = hashlib.md5(b"emotion,pixels\n").hexdigest()
    assert provenance.describe(path) == {"bytes": 15, "md5": md5, "official": False}
    right = hashlib.new(algorithm, b"emotion,pixels\n").hexdigest()
    monkeypatch.setitem(CHECKSUMS, "train.csv", (algorithm, right))
    assert provenance.describe(path) == {"bytes": 15, "md5": md5, "official": True}


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"source": "local", "official": true}', b"\xff"])
def test_what_cannot_be_read_is_refused_with_the_way_to_make_it_again(tmp_path, content):
    path = tmp_path / "PROVENANCE.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"PROVENANCE\.json cannot be read .*: dvc repro -f download"):
        provenance.read(path)


@pytest.mark.parametrize(
    ("source", "official", "worth"),
    [
        ("local", True, "official"),
        ("kaggle", True, "official"),
        ("local", False, "unofficial"),
        ("kaggle", False, "unofficial"),
        ("synthetic", False, "drawn"),
    ],
)
def test_what_scores_on_the_files_are_worth(tmp_path, source, official, worth):
    path = tmp_path / "PROVENANCE.json"
    path.write_text(json.dumps({"source": source, "official": official, "files": {}}))
    assert provenance.standing(provenance.read(path)) == worth
