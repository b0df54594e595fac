"""What the user brings to data/incoming/, in every form, and how data/raw/ is replaced."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import settings

from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import archives, incoming, prepare, provenance
from pipeline.errors import UserError
from pipeline.kaggle import download

FILES = {name: f"what {name} holds, ".encode() * 50 for name in CHECKSUMS}
INCOMING = incoming.FOLDER


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A project with an empty data/incoming, and a folder to put files into."""
    monkeypatch.chdir(tmp_path)
    settings.write()
    INCOMING.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    return tmp_path


def bring(name, content=b"1"):
    (INCOMING / name).parent.mkdir(parents=True, exist_ok=True)
    (INCOMING / name).write_bytes(content)


def packed(members, form="zip"):
    """An archive's bytes: zip, tar or tar.gz."""
    file = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if form == "tar.gz" else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def held(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refused(*words):
    with pytest.raises(UserError) as refusal:
        incoming.take(Path("out"))
    assert all(word in str(refusal.value) for word in words), refusal.value


@pytest.mark.parametrize("form", ["plain", "zip", "tar", "tar.gz"])
def test_files_are_taken_in_every_form(form):
    deep = {f"fer2013/{'deep/' * i}{name}": content for i, (name, content) in enumerate(FILES.items())}
    deep |= {"fer2013/LICENCE": b"", "example_submission.csv": b"id"}
    if form == "plain":
        for name, content in deep.items():
            bring(name, content)
    else:
        bring(f"{SLUG}.{form}", packed(deep, form))
    incoming.take(Path("out"))
    assert held("out") == FILES


@pytest.mark.parametrize(("name", "content", "found"), [
    ("fer2013 (1).csv", b"x", "fer2013.csv"), ("fer2013.tar (2).gz", b"x", "fer2013.tar.gz"),
    ("ICML_face_data.CSV", b"x", "icml_face_data.csv"), ("sub/download", b"emotion,pixels,Usage\n", "fer2013.csv"),
    ("faces.csv", b"emotion, Usage, pixels\n", "icml_face_data.csv"),
])  # fmt: skip
def test_a_file_is_known_by_its_name_or_its_first_line(name, content, found):
    bring(name, content)
    assert incoming.take(Path("out")) == {found: str(INCOMING / name)}
    assert held("out") == {found: content}


@pytest.mark.parametrize(("name", "form"), [("fer2013", "zip"), ("fer2013.csv", "tar.gz")])
def test_an_archive_is_known_by_its_content_whatever_its_name(name, form):
    bring(name, packed({"a/fer2013.csv": b"x"}, form))
    assert incoming.take(Path("out")) == {"fer2013.csv": f"data/incoming/{name}: a/fer2013.csv"}


@pytest.mark.parametrize("brought", [{}, {"cat.jpg": b"x", "deep/labels.csv": b"emotion,pixels\n"}])
def test_where_nothing_is_brought_it_is_told_what_was_found_and_what_is_missing(brought):
    for name, content in brought.items():
        bring(name, content)
    refused("fer2013.tar.gz", "train.csv", SLUG, "make demo", *brought)


@pytest.mark.parametrize(("there", "missing"), [("train.csv", "test.csv"), ("test.csv", "train.csv")])
def test_half_a_competition_is_refused(there, missing):
    bring(there)
    refused(there, missing)


def test_other_files_are_named_and_ignored(capsys):
    for name in ("train.csv", "test.csv", "README.md", ".gitignore", "._train.zip", "cat.jpg"):
        bring(name)
    (INCOMING / "loop").symlink_to(INCOMING.absolute())
    incoming.take(Path("out"))
    assert set(held("out")) == {"train.csv", "test.csv"}
    assert "cat.jpg" in capsys.readouterr().out


def test_a_file_that_stands_there_twice_must_be_the_same():
    bring("fer2013.csv", b"one")
    bring("a.zip", packed({"fer2013.csv": b"one"}))
    incoming.take(Path("out"))
    bring("b.zip", packed({"fer2013.csv": b"two"}))
    refused("b.zip", "fer2013.csv")


# Archives that are damaged, or made to do harm.

NOISE = {"fer2013.csv": np.random.default_rng(0).bytes(2000).hex().encode()}
ZIP, TAR = packed(NOISE), packed(NOISE, "tar.gz")
DIRECTORY = ZIP.index(b"PK\x01\x02")


def put(at, new):
    return ZIP[:at] + new + ZIP[at + len(new) :]


def lying(size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo("fer2013.csv")
    info.size, info.type = size, kind
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


HARMFUL = {
    "no zip.zip": b"hello", "empty.zip": b"", "half.zip": ZIP[: len(ZIP) // 2],
    "checksum.zip": put(DIRECTORY + 16, b"\0" * 4),
    "size.zip": put(DIRECTORY + 24, struct.pack("<I", 100)),
    "encrypted.zip": put(DIRECTORY + 8, b"\1"),
    "half.tar.gz": TAR[:900], "cut.tar.gz": TAR[:-4], "no tar.tar.gz": b"x" * 600,
    "member.tar.gz": lying(2**40), "header.tar.gz": lying(2**40, tarfile.XHDTYPE),
    "endless.tar.gz": gzip.compress(tarfile.TarInfo("x").tobuf() * 101),
    "twice.zip": packed({"1/fer2013.csv": b"1", "2/fer2013.csv": b"1"}),  # many times over would write without end
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_a_damaged_or_harmful_archive_is_refused_by_its_name(monkeypatch, name):
    monkeypatch.setattr(archives, "MEMBERS", 100)
    bring(name, HARMFUL[name])
    refused(name)


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_no_path_in_an_archive_leads_out_of_the_folder(place, form):
    members = {"../fer2013.csv": b"1", "../evil.csv": b"2", "/evil.sh": b"3", "../out/PROVENANCE.json": b"4"}
    bring(f"x.{form}", packed(members, form))
    before = held(place)
    incoming.take(Path("out"))
    assert held(place) == before | {"out/fer2013.csv": b"1"}


@pytest.mark.parametrize("form", ["zip", "tar", "plain"])
def test_what_is_too_large_is_refused_before_it_is_unpacked(monkeypatch, form):
    monkeypatch.setattr(archives, "LARGEST", 1000)
    large = {"fer2013.csv": b"0" * 1001}
    bring(
        "fer2013.csv" if form == "plain" else f"x.{form}", *large.values() if form == "plain" else [packed(large, form)]
    )
    refused("1,001 bytes")
    assert not held("out")


# The stage.


def test_provenance_says_what_each_file_is_and_whether_it_is_kaggles_own(monkeypatch, capsys):
    name = "fer2013.csv"
    bring(name, FILES[name])
    bring(incoming.NOTE, b"from Fran\xe7ois,\nrows 1 to 3 mended\n")
    for official in (False, True):
        if official:
            digest = hashlib.new(CHECKSUMS[name][0], FILES[name]).hexdigest()
            monkeypatch.setitem(CHECKSUMS, name, (CHECKSUMS[name][0], digest))
        download.main()
        facts = provenance.read()
        assert facts.pop("note").endswith("ois, rows 1 to 3 mended")
        assert facts == {"source": "local", "official": official, "files": {name: {
            "bytes": len(FILES[name]), "md5": hashlib.md5(FILES[name]).hexdigest(), "official": official,
            "from": f"data/incoming/{name}"}}}  # fmt: skip
        shown = capsys.readouterr()
        assert ("NOT Kaggle's own" in shown.out) == ("unofficial" in shown.err) == (not official)


def test_a_bad_row_is_told_by_the_users_own_file_and_the_line_that_an_editor_shows():
    bring("fer2013 (1).csv", b"emotion,pixels,Usage\n\n3,1 2 3,Training\n")
    download.main()
    with pytest.raises(UserError, match=r"^data/incoming/fer2013 \(1\)\.csv, line 3: "):
        prepare.main()


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("brought", "broken"), [({"fer2013.csv": b"new", "x.zip": b"hello"}, False),
                                                 ({"fer2013.csv": b"new"}, True)])  # fmt: skip
def test_whatever_goes_wrong_data_raw_stays_as_it_was(place, monkeypatch, brought, broken):
    download.RAW.mkdir(parents=True)
    (download.RAW / "train.csv").write_bytes(b"old")
    for name, content in brought.items():
        bring(name, content)
    if broken:
        monkeypatch.setattr(incoming.shutil, "copyfile", stop)
    before = held(place)
    with pytest.raises((UserError, KeyboardInterrupt)):
        download.main()
    assert held(place) == before
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "raw"}


def test_a_drawn_competition_is_said_to_be_drawn_and_is_the_same_again(capsys):
    settings.write({"source": "synthetic"})
    download.main()
    first = held(download.RAW)
    assert set(first) == {"fer2013.tar.gz", "PROVENANCE.json"}
    assert json.loads(first["PROVENANCE.json"])["source"] == "synthetic"
    assert "drawn" in capsys.readouterr().out
    download.main()
    assert held(download.RAW) == first
