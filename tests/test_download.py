"""The competition's files in data/incoming/, in every form, and the replacement of data/raw/."""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import settings
from settings import refuses

from pipeline import files
from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import incoming, prepare, provenance
from pipeline.errors import UserError
from pipeline.kaggle import download

FILES = {name: f"content of {name}, ".encode() * 50 for name in CHECKSUMS}
INCOMING = incoming.FOLDER


@pytest.fixture
def place(stand):
    """Create a project with an empty data/incoming/, and a folder out/."""
    settings.write()
    INCOMING.mkdir(parents=True)
    (stand / "out").mkdir()
    return stand


def pack(path, members):
    """Write an archive; `members` are its paths with their contents."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def put(files, folder=INCOMING):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def held(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def taken(place):
    incoming.take(place / "out")
    return held(place / "out")


@pytest.mark.parametrize("form", ["folders", "zip", "tar", "tgz"])
def test_files_are_copied_from_every_form(place, form):
    deep = {f"fer2013/{'deep/' * i}{name}": content for i, (name, content) in enumerate(FILES.items())}
    deep |= {"fer2013/README": b"", "example_submission.csv": b"id"}
    put(deep) if form == "folders" else pack(INCOMING / f"all.{form}", deep)
    assert taken(place) == FILES


def test_suffixes_of_browsers_for_repeated_names_are_ignored(place):
    names = {"fer2013.csv": "fer2013 - Copy (2).csv", "fer2013.tar.gz": "fer2013.tar (2).gz", "train.csv": "TRAIN.CSV"}
    put(dict.fromkeys(names.values(), b"x"))
    assert incoming.take(place / "out") == {standard: str(INCOMING / name) for standard, name in names.items()}


@pytest.mark.parametrize(("name", "message"), [
    ("labels.csv", rf"fer2013\.tar\.gz.* train\.csv.*/competitions/{SLUG}/data.*make demo"),
    ("train.csv", "train.csv without test.csv"), ("test.csv", "test.csv without train.csv"),
])  # fmt: skip
def test_an_incomplete_competition_is_an_error_that_names_the_options(place, name, message):
    put({name: b"1"})
    refuses(message, taken, place)


def test_other_files_are_listed_and_hidden_ones_are_skipped(place, capsys):
    others = [f"cat{number}.jpg" for number in range(20)] + ["train.csv.bak"]
    put(dict.fromkeys(("train.csv", "test.csv", "README.md", "NOTE.txt", "._train.zip", *others), b"1"))
    assert taken(place) == {"train.csv": b"1", "test.csv": b"1"}
    assert re.search("cat0.jpg.* and 16 more", capsys.readouterr().out)


def test_a_tar_archive_may_end_with_a_zip_archive_and_contain_hard_links(place):
    np.savez(place / "cell.npz")
    pack(INCOMING / "x.tar", {"data": b"1" * 2000, "cell.npz": (place / "cell.npz").read_bytes()})
    link = tarfile.TarInfo("fer2013.csv")
    link.type, link.linkname = tarfile.LNKTYPE, "data"
    with tarfile.open(INCOMING / "x.tar", "a") as archive:
        archive.addfile(link)
    assert taken(place) == {"fer2013.csv": b"1" * 2000}


def test_repeated_files_must_be_equal(place):
    put({"fer2013.csv": b"one"})
    pack(INCOMING / "a.zip", {"fer2013.csv": b"one"})
    assert taken(place) == {"fer2013.csv": b"one"}
    pack(INCOMING / "b.zip", {"fer2013.csv": b"two"})
    refuses(r"b\.zip: .* differs from data/incoming/a\.zip", taken, place)


# Damaged and malicious archives


DAMAGE = {  # `end`: start of the list of files in a zip archive
    "zip with other content": lambda data, end: b"hello",
    "zip cut": lambda data, end: data[: len(data) // 2],
    "zip encrypted": lambda data, end: data[: end + 8] + b"\1" + data[end + 9 :],
    "tar.gz cut": lambda data, end: data[:900],
    "tar.gz with another checksum": lambda data, end: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
    "tar with another second header": lambda data, end: data[:2700] + b"?" + data[2701:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_archive_is_an_error_with_its_name(place, kind):
    path = INCOMING / f"x.{kind.split()[0]}"
    pack(path, {"fer2013.csv": np.random.default_rng(0).bytes(2000), "a.txt": b"1"})
    data = path.read_bytes()
    path.write_bytes(DAMAGE[kind](data, data.find(b"PK\x01\x02")))
    refuses(f"{path} is damaged or cannot be unpacked", taken, place)


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_no_path_in_an_archive_leads_outside_the_folder(place, name):
    pack(INCOMING / name, {"../fer2013.csv": b"1", "../evil.csv": b"2", "/evil.sh": b"3", "../out/a.json": b"4"})
    before = set(held(place))
    assert taken(place) == {"fer2013.csv": b"1"}
    assert set(held(place)) == before | {"out/fer2013.csv"}


# Stage


def test_provenance_contains_each_file_and_whether_it_is_the_original(place, monkeypatch, capsys):
    names = ["fer2013.csv", "fer2013.tar.gz"]
    put({name: FILES[name] for name in names} | {incoming.NOTE: b"from Fran\xe7ois,\nrows 1 to 3 mended\n"})
    digests = {name: hashlib.md5(FILES[name]).hexdigest() for name in names}
    for known in ([], names[:1], names):
        for name in known:
            monkeypatch.setitem(CHECKSUMS, name, ("md5", digests[name]))
        download.main()
        facts = json.loads((download.RAW / "PROVENANCE.json").read_text())
        assert facts.pop("note").endswith("ois, rows 1 to 3 mended")
        assert facts == {"source": "local", "official": len(known) == 2, "files": {
            name: {"bytes": len(FILES[name]), "md5": digests[name], "official": name in known,
                   "from": f"data/incoming/{name}"} for name in names
        }}  # fmt: skip
        captured = capsys.readouterr()
        assert captured.out.count("NOT Kaggle's own file") == 2 - len(known)
        assert ("marked unofficial" in captured.err) == (len(known) < 2)


def test_the_error_for_a_row_contains_the_users_file_and_line(place):
    put({"fer2013 (1).csv": b"emotion,pixels,Usage\n\n3,1 2 3,Training\n"})
    download.main()
    refuses(r"^data/incoming/fer2013 \(1\)\.csv, line 3: there are 3 pixels", prepare.main)


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_any_error_leaves_data_raw_unchanged(place, monkeypatch, error):
    put({"train.csv": b"old"}, download.RAW)
    put({"fer2013.csv": b"new"})
    with files.locked(download.LOCK, "tests"), pytest.raises(UserError, match="another process downloads"):
        download.main()
    before = held(place)
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=error))
    with pytest.raises(error):
        download.main()
    assert held(place) == before
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "raw"}


def test_the_synthetic_competition_is_marked_and_reproducible(place, capsys):
    drawn = []
    for seed in (1, 1, 2):
        settings.write({"source": "synthetic"}, seed=seed)
        download.main()
        drawn.append(held(download.RAW))
    assert drawn[0] == drawn[1]
    assert drawn[0]["fer2013.csv"] != drawn[2]["fer2013.csv"]
    assert len(prepare.read_folder(download.RAW).labels) == 28
    assert capsys.readouterr().out.endswith(" bytes  drawn\n")


@pytest.mark.parametrize("content", [b"{", b"{}"])
def test_an_invalid_provenance_is_an_error_with_its_remedy(tmp_path, content):
    (tmp_path / "PROVENANCE.json").write_bytes(content)
    refuses(r"PROVENANCE\.json.*: dvc repro -f download", provenance.read, tmp_path / "PROVENANCE.json")
    assert provenance.original(tmp_path / "train.csv") == str(tmp_path / "train.csv")
