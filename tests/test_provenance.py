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
    assert provenance.describe(path)["official"] is True


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}"])
def test_what_cannot_be_read_is_refused_with_the_way_to_make_it_again(tmp_path, content):
    if content is not None:
        (tmp_path / "PROVENANCE.json").write_bytes(content)
    with pytest.raises(UserError, match=r"PROVENANCE\.json.*: dvc repro -f download"):
        provenance.read(tmp_path / "PROVENANCE.json")
    assert provenance.original(tmp_path / "train.csv") == str(tmp_path / "train.csv")


@pytest.mark.parametrize(("source", "official", "split", "kind"), [
    ("local", True, False, "official"), ("kaggle", False, False, "unofficial"), ("synthetic", False, False, "drawn"),
    ("folders", False, True, "folders"), ("folders", False, False, "other split"),
])  # fmt: skip
def test_the_kind_of_data_and_the_users_own_file(tmp_path, source, official, split, kind):
    facts = {"source": source, "official": official, "official_split": split}
    facts["files"] = {"train.csv": {"from": "data/incoming/train (1).csv"}}
    (tmp_path / "PROVENANCE.json").write_text(json.dumps(facts))
    assert provenance.standing(provenance.read(tmp_path / "PROVENANCE.json")) == kind
    assert provenance.original(tmp_path / "train.csv") == "data/incoming/train (1).csv"
