import hashlib
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import params
from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import download
from pipeline.data.prepare import read_folder
from pipeline.errors import UserError

FILES = {name: f"what {name} holds, ".encode() * 50 for name in CHECKSUMS}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty data/incoming, and a folder to put files into."""
    monkeypatch.chdir(tmp_path)
    download.INCOMING.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    return tmp_path


def pack(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def held(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def taken(place):
    download.take_local(download.INCOMING, place / "out")
    return held(place / "out")


@pytest.mark.parametrize("form", ["{}.zip", "{}.zip of folders", "{}.zip stored", "other.zip", "{}"])
def test_a_file_is_taken_plain_or_zipped(place, form):
    for name, content in FILES.items():
        path = download.INCOMING / form.split()[0].format(name)
        if form == "{}":
            path.write_bytes(content)
        else:
            compression = zipfile.ZIP_STORED if "stored" in form else zipfile.ZIP_DEFLATED
            pack(path, {f"fer2013/deep/{name}" if "folders" in form else name: content}, compression)
        assert taken(place)[name] == content
    assert taken(place) == FILES


def test_the_zip_of_the_whole_competition_gives_all_of_its_files(place, capsys):
    inside = {f"some/{'folder/' * i}{name}": content for i, (name, content) in enumerate(FILES.items())}
    pack(download.INCOMING / f"{SLUG}.zip", {"some/": b"", **inside, "README": b"", "example_submission.csv": b"id"})
    assert taken(place) == FILES
    assert capsys.readouterr().out == ""


def test_several_forms_are_taken_at_once(place):
    (download.INCOMING / "fer2013.tar.gz").write_bytes(FILES["fer2013.tar.gz"])
    pack(download.INCOMING / "train.csv.zip", {"train.csv": FILES["train.csv"]})
    pack(download.INCOMING / "rest.zip", {"a/test.csv": FILES["test.csv"], "icml_face_data.csv": b"x"})
    assert set(taken(place)) == {"fer2013.tar.gz", "train.csv", "test.csv", "icml_face_data.csv"}


@pytest.mark.parametrize("held", ["no folder", "nothing", "README.md", "cat.jpg", "cats.zip"])
def test_where_nothing_is_brought_the_refusal_names_every_way(place, held):
    if held == "no folder":
        download.INCOMING.rmdir()
    elif held == "cats.zip":
        pack(download.INCOMING / held, {"cat.jpg": b"meow"})
    elif held != "nothing":
        (download.INCOMING / held).write_bytes(b"meow")
    with pytest.raises(UserError, match="data/incoming/ holds none of the competition's files") as refusal:
        taken(place)
    for way in ("fer2013.tar.gz", "train.csv", "zipped", f"/competitions/{SLUG}/data", "kaggle in params", "make demo"):
        assert way in str(refusal.value)


def test_unknown_files_are_named_and_ignored(place, capsys):
    (download.INCOMING / "train.csv").write_bytes(b"1")
    for name in ("cat.jpg", "train.csv.bak", "README.md", ".gitignore"):
        (download.INCOMING / name).write_bytes(b"meow")
    (download.INCOMING / "folder").mkdir()
    pack(download.INCOMING / "cats.zip", {"cat.jpg": b"meow"})
    assert taken(place) == {"train.csv": b"1"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [
        f"data/incoming/{name}" for name in ("cat.jpg", "cats.zip", "folder", "train.csv.bak")
    ]
    assert all(line.startswith("ignored: ") for line in lines)


def test_hidden_files_are_passed_over_and_zip_may_be_written_in_any_case(place, capsys):
    (download.INCOMING / "._train.zip").write_bytes(b"\0\5\26\7")  # as macOS leaves it beside train.zip
    pack(download.INCOMING / "TRAIN.ZIP", {"train.csv": b"1"})
    assert taken(place) == {"train.csv": b"1"}
    assert capsys.readouterr().out == ""


def test_a_file_that_stands_there_twice_must_be_the_same(place):
    (download.INCOMING / "train.csv").write_bytes(b"one")
    pack(download.INCOMING / "a.zip", {"train.csv": b"one"})
    assert taken(place) == {"train.csv": b"one"}
    pack(download.INCOMING / "b.zip", {"train.csv": b"two"})
    with pytest.raises(UserError, match=r"data/incoming/b.zip holds another train.csv than a file beside it"):
        taken(place)


def test_names_that_are_not_utf_8_can_be_shown(place, capsys):
    Path(os.fsdecode(os.fsencode(download.INCOMING) + b"/gl\xfcck.txt")).write_bytes(b"")
    (download.INCOMING / "train.csv").write_bytes(b"1")
    taken(place)
    capsys.readouterr().out.encode()


def packed_bytes(tmp_path):
    """A zip of train.csv, and the places where its deflated data start and end."""
    content = np.random.default_rng(0).bytes(2000).hex().encode()
    pack(tmp_path / "good.zip", {"train.csv": content})
    data = (tmp_path / "good.zip").read_bytes()
    return data, 30 + len("train.csv"), data.index(b"PK\x01\x02")


def put(data, at, new):
    return data[:at] + new + data[at + len(new) :]


DAMAGE = {
    "no zip": lambda data, start, end: b"hello",
    "empty": lambda data, start, end: b"",
    "cut in the middle": lambda data, start, end: data[: len(data) // 2],
    "cut by a byte": lambda data, start, end: data[:-1],
    "only its directory": lambda data, start, end: data[end:],
    "no deflate stream": lambda data, start, end: put(data, start, b"\xff" * 8),
    "bytes changed": lambda data, start, end: put(data, (start + end) // 2, b"\xff\x00\xff\x00"),
    "wrong checksum": lambda data, start, end: put(data, end + 16, b"\0\0\0\0"),
    "a lying size": lambda data, start, end: put(data, end + 24, struct.pack("<I", 100)),
    "encrypted": lambda data, start, end: put(put(data, 6, b"\1"), end + 8, b"\1"),
    "unknown compression": lambda data, start, end: put(put(data, 8, b"\x63"), end + 10, b"\x63"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_zip_is_refused_by_its_name(place, damage):
    (download.INCOMING / "train.csv.zip").write_bytes(damage(*packed_bytes(place)))
    with pytest.raises(UserError, match=r"data/incoming/train\.csv\.zip"):
        taken(place)


def test_no_path_in_a_zip_leads_out_of_the_folder(place):
    link = zipfile.ZipInfo("a/test.csv")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    for path in ("../train.csv", "../../train.csv", "/train.csv", "a/../../train.csv", "//x/train.csv"):
        others = {"../evil.csv": b"2", "/evil.sh": b"3", "../out/PROVENANCE.json": b"4", link: b"/etc/passwd"}
        pack(download.INCOMING / "x.zip", {path: b"1"} | others)
        before = held(place / "data")
        assert taken(place) == {"train.csv": b"1", "test.csv": b"/etc/passwd"}
        assert not (place / "out/test.csv").is_symlink()
        assert held(place) == {f"data/{name}": content for name, content in before.items()} | {
            "out/train.csv": b"1", "out/test.csv": b"/etc/passwd"
        }  # fmt: skip


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(place, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 1000)
    pack(download.INCOMING / "x.zip", {"train.csv": b"0" * 1001})
    with pytest.raises(UserError, match=r"x\.zip: train\.csv unpacks to 1,001 bytes, which is no competition file"):
        taken(place)
    assert not held(place / "out")
    pack(download.INCOMING / "x.zip", {"train.csv": b"0" * 1000, "cat.jpg": b"0" * 1001})
    assert taken(place) == {"train.csv": b"0" * 1000}


def test_a_name_that_stands_twice_in_a_zip_is_refused(place):
    """A small zip of one name many times over would write without end."""
    with zipfile.ZipFile(download.INCOMING / "x.zip", "w") as archive:
        for content in (b"1", b"2"):
            archive.writestr(f"{len(archive.namelist())}/train.csv", content)
    with pytest.raises(UserError, match=r"x\.zip: train\.csv stands there twice"):
        taken(place)


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_is_seen_in_every_compression(place, compression):
    content = np.random.default_rng(0).bytes(5000).hex().encode()
    pack(download.INCOMING / "x.zip", {"train.csv": content}, compression)
    data = bytearray((download.INCOMING / "x.zip").read_bytes())
    for at in range(60, 3000, 7):
        data[at] ^= 0xFF
    (download.INCOMING / "x.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.zip is damaged or cannot be unpacked"):
        taken(place)


def test_a_lying_header_does_not_unpack_more_than_it_says(place):
    data, start, end = packed_bytes(place)
    (download.INCOMING / "x.zip").write_bytes(DAMAGE["a lying size"](data, start, end))
    with pytest.raises(UserError):
        taken(place)
    assert all(len(content) <= 100 for content in held(place / "out").values())


def settings(place, source="local", training=14, test=7):
    (place / "params.yaml").write_text(
        "seed: 1\nbackend: auto\nduplicates: keep\n"
        f"data: {{source: {source}, slug: {SLUG}, training_faces: {training}, test_faces: {test}}}\n"
        "folds: [0, 1]\ntrain: {}\narchitectures: {}\nstudents: {}\nensemble: {}\nspeedrun: {}\n"
    )
    params.document.cache_clear()


def digest(content, algorithm="md5"):
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


def test_provenance_says_what_each_file_is_and_whether_it_is_kaggles_own(place, monkeypatch, capsys):
    settings(place)
    brought = ["fer2013.tar.gz", "train.csv"]
    for name in brought:
        (download.INCOMING / name).write_bytes(FILES[name])
    for known in range(3):
        for name in brought[:known]:
            algorithm = CHECKSUMS[name][0]
            monkeypatch.setitem(CHECKSUMS, name, (algorithm, digest(FILES[name], algorithm)))
        download.main()
        facts = {name: {"bytes": len(FILES[name]), "md5": digest(FILES[name])} for name in brought}
        assert json.loads((download.RAW / "PROVENANCE.json").read_text()) == {
            "source": "local",
            "official": known == 2,
            "files": {name: facts[name] | {"official": name in brought[:known]} for name in brought},
        }
        captured = capsys.readouterr()
        assert captured.out.count("NOT Kaggle's own file") == 2 - known
        assert ("every score on them will be marked unofficial" in captured.err) == (known < 2)


def test_what_lay_in_raw_is_replaced_as_a_whole(place):
    settings(place)
    download.RAW.mkdir(parents=True)
    (download.RAW / "test.csv").write_bytes(b"old")
    (download.INCOMING / "fer2013.csv").write_bytes(b"new")
    download.main()
    assert set(held(place / "data")) == {"incoming/fer2013.csv", "raw/fer2013.csv", "raw/PROVENANCE.json"}
    assert (download.RAW / "fer2013.csv").read_bytes() == b"new"


def stop(incoming, folder):
    (folder / "train.csv").write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("brought", [{}, {"cat.jpg": b"meow"}, {"train.csv": b"new", "x.zip": b"hello"}, "stop"])
def test_a_refusal_or_an_interruption_leaves_raw_as_it_was(place, monkeypatch, brought):
    settings(place)
    download.RAW.mkdir(parents=True)
    (download.RAW / "train.csv").write_bytes(b"old")
    if brought == "stop":
        monkeypatch.setattr(download, "take_local", stop)
    else:
        for name, content in brought.items():
            (download.INCOMING / name).write_bytes(content)
    before = held(place)
    with pytest.raises((UserError, KeyboardInterrupt)):
        download.main()
    assert held(place) == before
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "raw"}


def test_what_was_there_comes_back_after_a_stop_between_the_renames(place, monkeypatch):
    settings(place)
    download.RAW.mkdir(parents=True)
    (download.RAW / "train.csv").write_bytes(b"old")
    (download.INCOMING / "fer2013.tar.gz").write_bytes(b"new")
    rename = Path.rename

    def stopped(path, target):
        if path.name == "raw" and target == download.RAW:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            download.main()
    assert held(download.RAW) == {"train.csv": b"old"}
    left = Path("data/.raw-x")  # as a kill leaves it
    left.mkdir()
    download.RAW.rename(left / "old")
    (download.INCOMING / "fer2013.tar.gz").unlink()
    with pytest.raises(UserError, match="holds none of"):
        download.main()
    assert held(download.RAW) == {"train.csv": b"old"}
    assert not left.exists()


def test_a_drawn_competition_is_said_to_be_drawn_and_is_the_same_again(place, capsys):
    settings(place, "synthetic")
    download.main()
    first = held(download.RAW)
    assert set(first) == {"fer2013.tar.gz", "PROVENANCE.json"}
    assert len(read_folder(download.RAW).labels) == 28
    assert json.loads(first["PROVENANCE.json"])["official"] is False
    assert capsys.readouterr().out.endswith(" bytes  drawn\n")
    download.main()
    assert held(download.RAW) == first


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_half_a_competition_is_refused_and_the_whole_one_stays(place, monkeypatch, name):
    download.RAW.mkdir(parents=True)
    (download.RAW / "icml_face_data.csv").write_bytes(b"whole")
    (download.INCOMING / name).write_bytes(FILES[name])
    with pytest.raises(UserError, match=f"data/incoming/ holds {name} alone"):
        download.collect(download.Data(source="local", slug=SLUG, training_faces=7, test_faces=7), 1, place / "out")
    assert held(download.RAW) == {"icml_face_data.csv": b"whole"}


def test_a_note_beside_the_files_goes_with_them(place, capsys):
    (download.INCOMING / "icml_face_data.csv").write_bytes(b"x")
    (download.INCOMING / download.NOTE).write_text("from a friend,\nrows 1 to 3 mended\n")
    target = place / "collected"
    target.mkdir()
    facts = download.collect(download.Data(source="local", slug=SLUG, training_faces=7, test_faces=7), 1, target)
    assert facts["note"] == "from a friend, rows 1 to 3 mended"
    (download.INCOMING / download.NOTE).write_bytes(b"from Fran\xe7ois")
    download.collect(download.Data(source="local", slug=SLUG, training_faces=7, test_faces=7), 1, place / "out")
    assert "from Fran" in json.loads((place / "out/PROVENANCE.json").read_text())["note"]
    assert json.loads((target / "PROVENANCE.json").read_text()) == facts
    assert capsys.readouterr().out == ""
