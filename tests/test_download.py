import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests

from pipeline import download, kaggle_client, params
from pipeline.command import Refusal
from pipeline.competition import CHECKSUMS, SLUG
from pipeline.prepare import read_folder

ROOT = Path(__file__).parent.parent
FILES = {name: f"what {name} holds, ".encode() * 50 for name in CHECKSUMS}
ADVICE = "or go without"


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
    with pytest.raises(Refusal, match="data/incoming/ holds none of the competition's files") as refusal:
        taken(place)
    for way in ("fer2013.tar.gz", "train.csv", "zipped", f"{kaggle_client.PAGE}/data", "kaggle in params", "make demo"):
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
    with pytest.raises(Refusal, match=r"data/incoming/train\.csv\.zip"):
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
    with pytest.raises(Refusal, match=r"x\.zip: train\.csv unpacks to 1,001 bytes, which is no competition file"):
        taken(place)
    assert not held(place / "out")
    pack(download.INCOMING / "x.zip", {"train.csv": b"0" * 1000, "cat.jpg": b"0" * 1001})
    assert taken(place) == {"train.csv": b"0" * 1000}


def test_a_lying_header_does_not_unpack_more_than_it_says(place):
    data, start, end = packed_bytes(place)
    (download.INCOMING / "x.zip").write_bytes(DAMAGE["a lying size"](data, start, end))
    with pytest.raises(Refusal):
        taken(place)
    assert all(len(content) <= 100 for content in held(place / "out").values())


def settings(place, source="local", training=14, test=7):
    (place / "params.yaml").write_text(
        f"seed: 1\ndata: {{source: {source}, training_faces: {training}, test_faces: {test}}}\n"
        "folds: [0, 1]\ntrain: {}\narchitectures: {}\nensemble: {}\n"
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
        assert capsys.readouterr().out.count("NOT Kaggle's own file") == 2 - known


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
    with pytest.raises((Refusal, KeyboardInterrupt)):
        download.main()
    assert held(place) == before
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "raw"}


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


def http_error(status):
    answer = requests.Response()
    answer.status_code = status
    with pytest.raises(requests.HTTPError) as raised:
        answer.raise_for_status()
    return raised.value


def shop(troubles):
    """A fetch function that fails for the names in `troubles`, with HTTP statuses; and the names it was asked for."""
    asked = []

    def fetch(name, folder):
        asked.append(name)
        with kaggle_client.explained(name, "go without"):
            if name in troubles:
                raise http_error(troubles[name])
        (folder / name).write_bytes(FILES[name])

    return fetch, asked


TAR, ICML, TRAIN, TEST = "fer2013.tar.gz", "icml_face_data.csv", "train.csv", "test.csv"


@pytest.mark.parametrize(
    ("troubles", "asked_for", "got"),
    [
        ({}, [TAR], {TAR}),
        ({TAR: 404}, [TAR, ICML], {ICML}),
        ({TAR: 404, ICML: 404}, [TAR, ICML, TRAIN, TEST], {TRAIN, TEST}),
    ],
)
def test_the_next_file_is_fetched_where_kaggle_has_no_such_file(tmp_path, troubles, asked_for, got):
    fetch, asked = shop(troubles)
    download.take_kaggle(fetch, tmp_path)
    assert asked == asked_for
    assert set(held(tmp_path)) == got


@pytest.mark.parametrize("status", [403, 429, 500])
def test_any_other_refusal_stops_at_once(tmp_path, status):
    fetch, asked = shop({TAR: 404, ICML: status})
    with pytest.raises(Refusal, match=rf"^icml_face_data\.csv: HTTP {status}: "):
        download.take_kaggle(fetch, tmp_path)
    assert asked == [TAR, ICML]


def test_where_kaggle_has_none_the_refusal_names_each(tmp_path):
    fetch, asked = shop({TAR: 404, ICML: 404, TEST: 404})
    with pytest.raises(Refusal) as refusal:
        download.take_kaggle(fetch, tmp_path)
    assert asked == [TAR, ICML, TRAIN, TEST]
    assert all(f"{name}: HTTP 404: Kaggle has no such thing" in str(refusal.value) for name in (TAR, ICML, TEST))


class Api:
    """Kaggle's client where it has `files`, zipped or not."""

    def __init__(self, files, zipped=False):
        self.files, self.zipped = files, zipped

    def competition_download_file(self, competition, file_name, path, force, quiet):
        assert (competition, force) == (SLUG, True)
        if file_name not in self.files:
            raise http_error(404)
        content = self.files[file_name]
        if self.zipped:
            pack(Path(path) / f"{file_name}.zip", {file_name: content})
        elif content is not None:
            (Path(path) / file_name).write_bytes(content)


@pytest.mark.parametrize("zipped", [False, True])
def test_what_kaggle_sends_is_unpacked_and_is_its_own(tmp_path, monkeypatch, zipped):
    monkeypatch.setattr(kaggle_client, "login", lambda otherwise: Api({ICML: FILES[ICML]}, zipped))
    monkeypatch.setitem(CHECKSUMS, ICML, ("md5", digest(FILES[ICML])))
    download.take_kaggle(download.kaggle_fetch(), tmp_path)
    assert held(tmp_path) == {ICML: FILES[ICML]}


@pytest.mark.parametrize("sent", [b"other bytes", b"", None])
def test_what_arrives_otherwise_than_kaggle_has_it_is_refused(tmp_path, monkeypatch, sent):
    monkeypatch.setattr(kaggle_client, "login", lambda otherwise: Api({TAR: sent}))
    with pytest.raises(Refusal, match=r"^fer2013\.tar\.gz did not arrive as Kaggle has it .*; run this again$"):
        download.take_kaggle(download.kaggle_fetch(), tmp_path)


NO_CREDENTIALS = "no Kaggle credentials: make a token"
LOST = {"KAGGLE_API_TOKEN": "made-up", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("content", "environment", "said"),
    [(None, {}, NO_CREDENTIALS), ("{", {}, NO_CREDENTIALS), (None, LOST, "Kaggle: cannot reach Kaggle (ProxyError)")],
    ids=["none", "broken", "no network"],
)
def test_without_credentials_or_network_kaggle_is_refused_in_one_line(place, content, environment, said):
    settings(place, "kaggle")
    if content:
        (place / "kaggle.json").write_text(content)
    clean = {key: value for key, value in os.environ.items() if not re.match("KAGGLE|XDG|.*_PROXY$", key.upper())}
    clean |= environment | {"HOME": str(place), "KAGGLE_CONFIG_DIR": str(place), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "pipeline.download"], env=clean, cwd=place,
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    for way in ("data/incoming/", "data.source to local", "make demo"):
        assert way in done.stderr
    assert {path.name for path in Path("data").iterdir()} == {"incoming"}


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (http_error(401), f"HTTP 401: Kaggle does not know this token: .*; {ADVICE}$"),
        (http_error(403), f"HTTP 403: .*{SLUG}/rules and accept the competition's rules; {ADVICE}$"),
        (http_error(404), f"HTTP 404: Kaggle has no such thing; {ADVICE}$"),
        (http_error(429), f"HTTP 429: .* run this again in some minutes; {ADVICE}$"),
        (http_error(500), f"HTTP 500: run this again later; {ADVICE}$"),
        (requests.HTTPError("no answer"), f"HTTP 0: run this again later; {ADVICE}$"),
        (requests.exceptions.SSLError("old"), rf"cannot reach Kaggle \(SSLError\): try again; {ADVICE}$"),
        (requests.exceptions.ChunkedEncodingError(), rf"cannot reach Kaggle \(ChunkedEncodingError\): .*{ADVICE}$"),
    ],
    ids=repr,
)
def test_what_kaggle_raises_is_explained_in_one_sentence(trouble, said):
    with pytest.raises(Refusal, match=f"^train.csv: {said}"), kaggle_client.explained("train.csv", "go without"):
        raise trouble


def test_what_is_no_trouble_with_kaggle_is_not_explained_as_one():
    with kaggle_client.explained("train.csv", "go without"):
        pass
    with pytest.raises(KeyError), kaggle_client.explained("train.csv", "go without"):
        raise KeyError("a defect")


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_half_a_competition_is_refused_and_the_whole_one_stays(place, monkeypatch, name):
    download.RAW.mkdir(parents=True)
    (download.RAW / "icml_face_data.csv").write_bytes(b"whole")
    (download.INCOMING / name).write_bytes(FILES[name])
    with pytest.raises(Refusal, match=f"data/incoming/ holds {name} alone"):
        download.collect(download.Data(source="local", training_faces=7, test_faces=7), 1, place / "out")
    assert held(download.RAW) == {"icml_face_data.csv": b"whole"}


def test_a_note_beside_the_files_goes_with_them(place, capsys):
    (download.INCOMING / "icml_face_data.csv").write_bytes(b"x")
    (download.INCOMING / download.NOTE).write_text("from a friend,\nrows 1 to 3 mended\n")
    target = place / "collected"
    target.mkdir()
    facts = download.collect(download.Data(source="local", training_faces=7, test_faces=7), 1, target)
    assert facts["note"] == "from a friend, rows 1 to 3 mended"
    assert json.loads((target / "PROVENANCE.json").read_text()) == facts
    assert capsys.readouterr().out == ""
