"""The competition's files in data/incoming/, in every form, and the replacement of data/raw/."""

import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import settings

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


def pack(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
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


@pytest.mark.parametrize("form", ["plain", "folders", "zip", "zip stored", "zip of folders", "tar", "tar.gz", "tgz"])
def test_files_are_copied_from_every_form(place, form):
    deep = {f"fer2013/{'deep/' * i}{name}": content for i, (name, content) in enumerate(FILES.items())}
    deep |= {"fer2013/README": b"", "example_submission.csv": b"id"}
    if form in ("plain", "folders"):
        put(FILES if form == "plain" else deep)
    elif form.startswith("zip"):
        compression = zipfile.ZIP_STORED if "stored" in form else zipfile.ZIP_DEFLATED
        pack(INCOMING / f"{SLUG}.zip", deep if "folders" in form else FILES, compression)
    else:
        tar(INCOMING / f"all.{form}", deep, "w" if form == "tar" else "w:gz")
    assert taken(place) == FILES


@pytest.mark.parametrize(("name", "standard"), [
    ("fer2013 (1).csv", "fer2013.csv"), ("fer2013 - Copy.csv", "fer2013.csv"), ("fer2013.tar (2).gz", "fer2013.tar.gz"),
    ("deep/ICML_face_data.CSV", "icml_face_data.csv"),
])  # fmt: skip
def test_suffixes_of_browsers_for_repeated_names_are_ignored(place, name, standard):
    put({name: b"x"})
    assert incoming.take(place / "out") == {standard: str(INCOMING / name)}
    assert held(place / "out") == {standard: b"x"}


@pytest.mark.parametrize("brought", [{}, {"cat.jpg": b"x", "deep/labels.csv": b"emotion,pixels\n"}])
def test_without_a_file_of_the_competition_the_error_names_the_options(place, capsys, brought):
    put(brought)
    with pytest.raises(UserError, match=rf"fer2013\.tar\.gz.* train\.csv.*/competitions/{SLUG}/data.*make demo"):
        taken(place)
    assert all(name in capsys.readouterr().out for name in list(brought)[-1:])


@pytest.mark.parametrize(("present", "missing"), [("train.csv", "test.csv"), ("test.csv", "train.csv")])
def test_an_incomplete_competition_is_an_error(place, present, missing):
    put({present: b"1"})
    with pytest.raises(UserError, match=f"{present} without {missing}"):
        taken(place)


def test_other_files_are_listed_and_hidden_ones_are_skipped(place, capsys):
    others = [f"cat{number}.jpg" for number in range(20)] + ["train.csv.bak", os.fsdecode(b"gl\xfcck.txt")]
    hidden = ("README.md", "NOTE.txt", ".gitignore", "._train.zip")
    put(dict.fromkeys(("train.csv", "test.csv", *hidden, *others), b"1"))
    assert taken(place) == {"train.csv": b"1", "test.csv": b"1"}
    output = capsys.readouterr().out
    assert "cat0.jpg" in output
    assert "17 more" in output


def test_repeated_files_must_be_equal(place):
    put({"fer2013.csv": b"one"})
    pack(INCOMING / "a.zip", {"fer2013.csv": b"one"})
    assert taken(place) == {"fer2013.csv": b"one"}
    pack(INCOMING / "b.zip", {"fer2013.csv": b"two"})
    with pytest.raises(UserError, match=r"b\.zip: .* differs from data/incoming/a\.zip"):
        taken(place)


# Damaged and malicious archives


def patched(data, at, new):
    return data[:at] + new + data[at + len(new) :]


DAMAGE = {  # `end`: start of the list of files in a zip archive
    "zip with other content": lambda data, end: b"hello",
    "zip empty": lambda data, end: b"",
    "zip cut": lambda data, end: data[: len(data) // 2],
    "zip wrong checksum": lambda data, end: patched(data, end + 16, b"\0\0\0\0"),
    "zip encrypted": lambda data, end: patched(patched(data, 6, b"\1"), end + 8, b"\1"),
    "tar.gz cut": lambda data, end: data[:900],
    "tar.gz with other content": lambda data, end: b"x" * 600,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_archive_is_an_error_with_its_name(place, kind):
    form, content = kind.split()[0], np.random.default_rng(0).bytes(2000)
    path = place / f"x.{form}"
    pack(path, {"fer2013.csv": content}) if form == "zip" else tar(path, {"fer2013.csv": content}, "w:gz")
    data = path.read_bytes()
    put({path.name: DAMAGE[kind](data, data.find(b"PK\x01\x02"))})
    with pytest.raises(UserError, match=rf"data/incoming/x\.{form} is damaged or cannot be unpacked"):
        taken(place)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_path_in_an_archive_leads_outside_the_folder(place, kind):
    link = zipfile.ZipInfo("a/icml_face_data.csv")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    members = {"../fer2013.csv": b"1", "../evil.csv": b"2", "/evil.sh": b"3", "../out/PROVENANCE.json": b"4"}
    if kind == "zip":
        pack(INCOMING / "x.zip", members | {link: b"/etc/passwd"})
    else:
        tar(INCOMING / "x.tar", members)
    before = {f"data/{name}": content for name, content in held(place / "data").items()}
    files = taken(place)
    assert files.pop("icml_face_data.csv", b"/etc/passwd") == b"/etc/passwd"  # a regular file
    assert files == {"fer2013.csv": b"1"}
    assert {name for name in held(place) if not name.startswith("out/")} == {"params.yaml", *before}


# Stage


def digest(content, algorithm="md5"):
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


def test_provenance_contains_each_file_and_whether_it_is_the_original(place, monkeypatch, capsys):
    brought = ["fer2013.tar.gz", "fer2013.csv"]
    put({name: FILES[name] for name in brought} | {incoming.NOTE: b"from Fran\xe7ois,\nrows 1 to 3 mended\n"})
    for known in range(3):
        for name in brought[:known]:
            monkeypatch.setitem(CHECKSUMS, name, (CHECKSUMS[name][0], digest(FILES[name], CHECKSUMS[name][0])))
        download.main()
        facts = json.loads((download.RAW / "PROVENANCE.json").read_text())
        assert facts.pop("note").endswith("ois, rows 1 to 3 mended")
        assert facts == {"source": "local", "official": known == 2, "files": {
            name: {"bytes": len(FILES[name]), "md5": digest(FILES[name]), "official": name in brought[:known],
                   "from": f"data/incoming/{name}"}
            for name in sorted(brought)
        }}  # fmt: skip
        captured = capsys.readouterr()
        assert captured.out.count("NOT Kaggle's own file") == 2 - known
        assert ("every score on them will be marked unofficial" in captured.err) == (known < 2)


def test_the_error_for_a_row_contains_the_users_file_and_line(place):
    put({"fer2013 (1).csv": b"emotion,pixels,Usage\n\n3,1 2 3,Training\n"})
    download.main()
    with pytest.raises(UserError, match=r"^data/incoming/fer2013 \(1\)\.csv, line 3: there are 3 pixels"):
        prepare.main()


def stop(*_):
    raise KeyboardInterrupt


def no_rename(path, target, rename=Path.rename):
    if path.name == "raw" and path != download.RAW:
        raise OSError(5, "Input/output error")
    return rename(path, target)


@pytest.mark.parametrize(("brought", "broken"), [
    ({}, None), ({"cat.jpg": b"meow"}, None), ({"fer2013.csv": b"new", "x.zip": b"hello"}, None),
    ({"fer2013.csv": b"new"}, (Path, "write_bytes", stop)),
    ({"fer2013.csv": b"new"}, (Path, "rename", no_rename)),
])  # fmt: skip
def test_any_error_leaves_data_raw_unchanged(place, monkeypatch, brought, broken):
    put({"train.csv": b"old"}, download.RAW)
    put(brought)
    with files.locked(download.LOCK, "tests"), pytest.raises(UserError, match="another process downloads"):
        download.main()
    before = held(place)
    if broken:
        monkeypatch.setattr(*broken)
    with pytest.raises((UserError, KeyboardInterrupt, OSError)):
        download.main()
    assert held(place) == before
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "raw"}


def test_the_synthetic_competition_is_marked_and_reproducible(place, capsys):
    settings.write({"source": "synthetic"})
    download.main()
    first = held(download.RAW)
    assert set(first) == {"fer2013.tar.gz", "PROVENANCE.json"}
    assert len(prepare.read_folder(download.RAW).labels) == 28
    assert capsys.readouterr().out.endswith(" bytes  drawn\n")
    download.main()
    assert held(download.RAW) == first


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}"])
def test_a_missing_or_invalid_provenance_is_an_error_with_its_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "PROVENANCE.json").write_bytes(content)
    with pytest.raises(UserError, match=r"PROVENANCE\.json.*: dvc repro -f download"):
        provenance.read(tmp_path / "PROVENANCE.json")
    assert provenance.original(tmp_path / "train.csv") == str(tmp_path / "train.csv")


@pytest.mark.parametrize(("source", "official", "split", "kind"), [
    ("local", True, False, "official"), ("kaggle", False, False, "unofficial"), ("synthetic", False, False, "drawn"),
    ("folders", False, True, "folders"), ("folders", False, False, "other split"),
])  # fmt: skip
def test_the_kind_of_data_and_the_users_file(tmp_path, source, official, split, kind):
    facts = {"source": source, "official": official, "official_split": split}
    facts["files"] = {"train.csv": {"from": "data/incoming/train (1).csv"}}
    (tmp_path / "PROVENANCE.json").write_text(json.dumps(facts))
    assert provenance.kind(provenance.read(tmp_path / "PROVENANCE.json")) == kind
    assert provenance.original(tmp_path / "train.csv") == "data/incoming/train (1).csv"
