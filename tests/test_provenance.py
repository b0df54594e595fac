import json

import pytest

from pipeline.data import provenance
from pipeline.errors import UserError


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
