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


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"source": "local", "official": true}', b"\xff"])
def test_what_cannot_be_read_is_refused_with_the_way_to_make_it_again(tmp_path, content):
    path = tmp_path / "PROVENANCE.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"PROVENANCE\.json is (missing|damaged).*: dvc repro -f download"):
        provenance.read(path)
    assert provenance.original(tmp_path / "train.csv") == str(tmp_path / "train.csv")


@pytest.mark.parametrize(("facts", "kind"), [
    ({"source": "local", "official": True}, "official"), ({"source": "kaggle", "official": True}, "official"),
    ({"source": "local", "official": False}, "unofficial"), ({"source": "kaggle", "official": False}, "unofficial"),
    ({"source": "synthetic", "official": False}, "drawn"),
    ({"source": "folders", "official": False, "official_split": True}, "folders"),
    ({"source": "folders", "official": False, "official_split": False}, "other split"),
])  # fmt: skip
def test_the_kind_of_data_and_the_users_own_file(tmp_path, facts, kind):
    path = tmp_path / "PROVENANCE.json"
    path.write_text(json.dumps(facts | {"files": {"train.csv": {"from": "data/incoming/train (1).csv"}}}))
    assert provenance.standing(provenance.read(path)) == kind
    assert provenance.original(tmp_path / "train.csv") == "data/incoming/train (1).csv"
    assert provenance.original(tmp_path / "test.csv") == str(tmp_path / "test.csv")
