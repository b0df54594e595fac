"""The download stage against a Kaggle on this machine, through the real client and the pipeline's own command."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import termios
import time
from pathlib import Path

import pytest
import requests
from loopback import ALL, KEY, SIGNATURE, TOKEN, Server, Trouble, in_this_process

from pipeline import competition, params
from pipeline.competition import SLUG
from pipeline.data import download, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client

ROOT = Path(__file__).parent.parent
OTHER = "small-faces"  # a competition whose checksums are not known
TAR, ICML, TRAIN, TEST = "fer2013.tar.gz", "icml_face_data.csv", "train.csv", "test.csv"
LOGIN, ASK = "IntrospectToken", f"DownloadDataFile {TAR}"
FETCHED = [LOGIN, ASK, f"GET {TAR}"]
WAYS = ("data/incoming/", "data.source to local", "make demo")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small competition, in all of Kaggle's forms."""
    folder = tmp_path_factory.mktemp("files")
    synthetic.write(folder, *synthetic.competition(training=21, test=7, seed=5))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def kaggle(files):
    server = Server(OTHER)
    server.files = dict(files)
    yield server
    server.close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project with nothing in it but params.yaml and an empty home."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    write_params(OTHER)
    return tmp_path


def write_params(slug: str) -> None:
    Path("params.yaml").write_text(
        "seed: 1\nbackend: auto\nduplicates: keep\n"
        f"data: {{source: kaggle, slug: {slug}, training_faces: 14, test_faces: 7}}\n"
        "folds: [0, 1]\ntrain: {}\narchitectures: {}\nstudents: {}\nensemble: {}\nspeedrun: {}\n"
    )
    params.document.cache_clear()


HASTY = (
    "import runpy, time; time.sleep = lambda s: None; runpy.run_module('pipeline.data.download', run_name='__main__')"
)


def run(kaggle: Server, place: Path, hasty: bool = False, **credentials: str) -> subprocess.CompletedProcess:
    """Run the stage as DVC does; whatever happens, it shows no secret, no traceback, and leaves nothing half done.

    Parameters
    ----------
    hasty : without its pauses, which are 21 s where a file is asked for in vain.
    """
    credentials = credentials or {"KAGGLE_API_TOKEN": TOKEN}
    environment = kaggle.environment(place / "home", PYTHONPATH=str(ROOT), **credentials)
    words = ["-c", HASTY] if hasty else ["-m", "pipeline.data.download"]
    done = subprocess.run([sys.executable, *words], env=environment, cwd=place, text=True,
                          capture_output=True, timeout=100, check=False)  # fmt: skip
    for secret in (TOKEN, KEY, SIGNATURE, "bad-token", "storage.local", "Traceback"):
        assert secret not in done.stdout + done.stderr
    assert {path.name for path in place.iterdir()} <= {"home", "params.yaml", "data"}
    assert left(place) <= {"raw"}
    return done


def left(place: Path) -> set[str]:
    return {path.name for path in (place / "data").iterdir()} if (place / "data").exists() else set()


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """It ended with one sentence that holds the words."""
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert done.stderr.count("error: ") == 1
    for word in (*words, *WAYS):
        assert word in last, last


def held(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / "data/raw").iterdir()}


def test_the_smallest_whole_file_is_fetched_and_written_down(kaggle, place):
    done = run(kaggle, place)
    assert done.returncode == 0
    assert kaggle.requests == FETCHED
    assert set(held(place)) == {TAR, "PROVENANCE.json"}
    assert held(place)[TAR] == kaggle.files[TAR]
    assert json.loads(held(place)["PROVENANCE.json"]) == {
        "source": "kaggle", "official": False, "slug": OTHER,
        "files": {TAR: {"bytes": len(kaggle.files[TAR]), "md5": hashlib.md5(kaggle.files[TAR]).hexdigest(),
                        "official": False}},
    }  # fmt: skip
    assert f"warning: {OTHER} is another competition, whose checksums are not known" in done.stderr
    assert len(done.stderr.splitlines()) == 1  # and no progress bar, as this is no terminal


def test_what_is_there_as_kaggle_has_it_is_not_fetched_again(kaggle, place):
    run(kaggle, place)
    before = held(place)
    asked = len(kaggle.requests)
    done = run(kaggle, place)
    assert f"data/raw/ holds {TAR} as Kaggle has it: not fetched again" in done.stdout
    assert (done.returncode, len(kaggle.requests), held(place)) == (0, asked, before)


def test_on_a_terminal_there_is_progress(kaggle, place):
    kaggle.script["GET"] = iter([Trouble(slow=0.3)])
    master, slave = os.openpty()
    termios.tcseduplicatesize(slave, (24, 100))
    environment = kaggle.environment(place / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN)
    done = subprocess.run([sys.executable, "-m", "pipeline.data.download"], env=environment, cwd=place, stderr=slave,
                          stdout=subprocess.DEVNULL, timeout=100, check=False)  # fmt: skip
    os.close(slave)
    shown = os.read(master, 10**6).decode()
    os.close(master)
    assert done.returncode == 0
    assert re.search(rf"{TAR}: +\d+%\|.*<.*B/s", shown)  # part, time left and rate


@pytest.mark.parametrize("spoil", ["a byte", "missing", "another slug", "no provenance"])
def test_what_is_not_as_kaggle_has_it_is_fetched_again(kaggle, place, spoil):
    run(kaggle, place)
    path = place / "data/raw" / TAR
    if spoil == "a byte":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif spoil == "missing":
        path.unlink()
    elif spoil == "another slug":
        write_params("large-faces")
        kaggle.slug = "large-faces"
    else:
        (path.parent / "PROVENANCE.json").write_text("{")
    assert run(kaggle, place).returncode == 0
    assert kaggle.requests == FETCHED * 2
    assert held(place)[TAR] == kaggle.files[TAR]


@pytest.mark.parametrize(
    ("there", "asked", "got"),
    [
        ({ICML, TRAIN, TEST}, [TAR, ICML], {ICML}),
        ({TRAIN, TEST}, [TAR, ICML, TRAIN, TEST], {TRAIN, TEST}),
    ],
)
def test_where_kaggle_lacks_a_file_the_next_one_is_taken(kaggle, place, there, asked, got):
    kaggle.files = {name: content for name, content in kaggle.files.items() if name in there}
    assert run(kaggle, place).returncode == 0
    assert [each for each in kaggle.requests if each.startswith("Download")] == [f"DownloadDataFile {n}" for n in asked]
    assert set(held(place)) == got | {"PROVENANCE.json"}


@pytest.mark.parametrize("there", [set(), {TRAIN}])
def test_where_kaggle_has_not_enough_it_is_said(kaggle, place, there):
    kaggle.files = {name: content for name, content in kaggle.files.items() if name in there}
    refused(run(kaggle, place), "has none of fer2013.tar.gz", "HTTP 404", "data.slug", f"/competitions/{OTHER}")
    assert left(place) == set()


def test_a_file_that_kaggle_zips_is_unzipped(kaggle, place):
    kaggle.files, kaggle.zipped = {ICML: kaggle.files[ICML]}, {ICML}
    assert run(kaggle, place).returncode == 0
    assert kaggle.requests[-1] == f"GET {ICML}.zip"
    assert held(place)[ICML] == kaggle.files[ICML]
    assert set(held(place)) == {ICML, "PROVENANCE.json"}


@pytest.mark.parametrize("content", [b"PK\x03\x04 and then nothing of a zip", "no member", "cut"])
def test_a_corrupt_zip_is_fetched_once_more_and_then_refused(kaggle, place, content):
    kaggle.files, kaggle.zipped = {ICML: kaggle.files[ICML]}, {ICML}
    if content == "cut":
        content = kaggle.content(f"{ICML}.zip")[:-30]
    elif content == "no member":
        kaggle.files[TEST] = b"x"
        content = kaggle.content(f"{TEST}.zip")
        del kaggle.files[TEST]
    kaggle.script["GET"] = ALL(Trouble(content=content))
    done = run(kaggle, place)
    refused(done, f"Kaggle's {ICML}.zip", "twice")
    assert "data/.raw" not in done.stderr
    assert kaggle.requests.count(f"GET {ICML}.zip") == 2
    assert left(place) == set()


def test_a_zip_that_is_corrupt_once_is_no_trouble(kaggle, place):
    kaggle.files, kaggle.zipped = {ICML: kaggle.files[ICML]}, {ICML}
    kaggle.script["GET"] = iter([Trouble(content=b"no zip")])
    assert run(kaggle, place).returncode == 0
    assert held(place)[ICML] == kaggle.files[ICML]


# What is wrong with the account or the address.


def test_without_credentials_every_way_is_named(kaggle, place):
    done = run(kaggle, place, NOTHING="")
    refused(done, "no Kaggle credentials", client.SETTINGS, "~/.kaggle/access_token", "KAGGLE_API_TOKEN",
            "kaggle.json", "KAGGLE_USERNAME and KAGGLE_KEY", "kaggle auth login")  # fmt: skip
    assert kaggle.requests == []


@pytest.mark.parametrize("content", ["{", "", '{"username": "someone"}', "[]"])
def test_a_kaggle_json_without_a_key_is_named(kaggle, place, content):
    path = place / "home/.kaggle/kaggle.json"
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)
    done = run(kaggle, place, NOTHING="")
    refused(done)
    assert str(path) in done.stderr or "cannot be read" in done.stderr
    assert kaggle.requests == []


@pytest.mark.parametrize(
    "where", ["KAGGLE_API_TOKEN", "KAGGLE_API_TOKEN as path", "access_token", "kaggle.json", "key"]
)
def test_every_way_of_credentials_works(kaggle, place, where):
    folder = place / "home/.kaggle"
    folder.mkdir()
    secret = folder / {"access_token": "access_token", "kaggle.json": "kaggle.json"}.get(where, "elsewhere")
    secret.write_text(json.dumps({"username": "someone", "key": KEY}) if where == "kaggle.json" else TOKEN)
    secret.chmod(0o600)
    credentials = {
        "KAGGLE_API_TOKEN": {"KAGGLE_API_TOKEN": TOKEN},
        "KAGGLE_API_TOKEN as path": {"KAGGLE_API_TOKEN": str(secret)},
        "key": {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY},
    }.get(where, {"NOTHING": ""})
    done = run(kaggle, place, **credentials)
    assert done.returncode == 0, done.stderr
    assert "can be read by others" not in done.stderr


@pytest.mark.parametrize("name", ["kaggle.json", "access_token"])
def test_a_secret_that_others_can_read_is_warned_about(kaggle, place, name):
    path = place / "home/.kaggle" / name
    path.parent.mkdir()
    path.write_text(json.dumps({"username": "someone", "key": KEY}) if name == "kaggle.json" else TOKEN)
    path.chmod(0o644)
    done = run(kaggle, place, NOTHING="")
    assert done.returncode == 0
    assert done.stderr.count(f"warning: {path} can be read by others on this machine: chmod 600 {path}") == 1


@pytest.mark.parametrize("status", [None, 401, 403])
@pytest.mark.parametrize("place_of", ["KAGGLE_API_TOKEN", "~/.kaggle/access_token"])
@pytest.mark.parametrize("key", [False, True])
def test_a_bad_token_is_told_from_a_good_key_that_it_hides(kaggle, place, status, place_of, key):
    if status:
        kaggle.script[LOGIN] = ALL(Trouble(status, "no"))
    credentials = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY} if key else {"NOTHING": ""}
    if place_of == "KAGGLE_API_TOKEN":
        credentials["KAGGLE_API_TOKEN"] = "bad-token"
    else:
        (place / "home/.kaggle").mkdir()
        (place / "home/.kaggle/access_token").write_text("bad-token")
    done = run(kaggle, place, **credentials)
    refused(done, f"does not accept the token in {place_of}", client.SETTINGS)
    assert ("or remove it: while it is there, the key" in done.stderr) == key
    assert kaggle.requests == [LOGIN]


def test_a_bad_key_is_refused_without_another_try(kaggle, place):
    done = run(kaggle, place, KAGGLE_USERNAME="someone", KAGGLE_KEY="bad-token")
    refused(done, "HTTP 401", "does not accept the key in kaggle.json or KAGGLE_KEY", client.SETTINGS)
    assert kaggle.requests == [ASK]


@pytest.mark.parametrize("length", [300, 5000])
def test_a_token_that_is_no_path_is_not_shown(kaggle, place, length):
    token = "bad-token" * (length // 9)
    done = run(kaggle, place, KAGGLE_API_TOKEN=token)
    refused(done, "cannot be read", "KAGGLE_API_TOKEN")


def test_a_token_with_the_newline_of_a_copy_works(kaggle, place):
    assert run(kaggle, place, KAGGLE_API_TOKEN=f"{TOKEN}\n").returncode == 0


def test_a_home_that_cannot_be_written_to_is_no_hindrance(kaggle, place):
    (place / "home").rmdir()
    (place / "home").write_text("")
    assert run(kaggle, place, KAGGLE_API_TOKEN=TOKEN).returncode == 0


def test_an_expired_login_is_told_and_stays(kaggle, place):
    path = place / "home/.kaggle/credentials.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"refresh_token": "x", "username": "someone"}))
    path.chmod(0o600)
    kaggle.script["GenerateAccessToken"] = ALL(Trouble(401, "expired"))
    done = run(kaggle, place, NOTHING="")
    refused(done, f"({path} holds none that works)", "kaggle auth login")
    assert path.exists()


def test_the_client_is_not_let_print_what_it_sends(kaggle, place):
    assert run(kaggle, place, KAGGLE_API_TOKEN=TOKEN, VERBOSE="1", VERBOSE_OUTPUT="true").returncode == 0


def test_rules_that_are_not_accepted_are_told_with_their_page(kaggle, place):
    words = "You must accept this competition's rules before you'll be able to download files."
    kaggle.script["DownloadDataFile"] = ALL(Trouble(403, words))
    done = run(kaggle, place)
    refused(done, "HTTP 403", words, f"open https://www.kaggle.com/competitions/{OTHER}/rules", "accept")
    assert "data.slug" not in done.stderr
    assert kaggle.requests == [LOGIN, ASK]


def test_a_wrong_slug_is_told(kaggle, place):
    write_params("smal-faces")
    done = run(kaggle, place)
    refused(done, "HTTP 403", "smal-faces", "whether data.slug in params.yaml is right")
    assert kaggle.requests == [LOGIN, ASK]


@pytest.mark.parametrize("slug", ["'../up'", "''", "'a/b'", "7", "'Big'"])
def test_a_slug_that_cannot_be_one_is_refused_before_kaggle_is_asked(kaggle, place, slug):
    write_params(slug)
    done = run(kaggle, place)
    assert done.returncode == 1
    assert "data.slug = " in done.stderr
    assert kaggle.requests == []


# What is wrong with Kaggle or the way there.


def test_a_pause_that_kaggle_asks_for_is_kept(kaggle, place):
    kaggle.script["DownloadDataFile"] = iter([Trouble(429, "Too many requests", {"Retry-After": "2"})])
    started = time.monotonic()
    done = run(kaggle, place)
    assert done.returncode == 0
    assert time.monotonic() - started > 2
    assert "Kaggle: HTTP 429; trying again in 2 s" in done.stderr
    assert kaggle.requests == [LOGIN, ASK, *FETCHED[1:]]


def test_a_pause_that_is_too_long_is_left_to_the_user(kaggle, place):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(429, "Too many requests", {"Retry-After": "3600"}))
    refused(run(kaggle, place), "HTTP 429", "asks for a pause: run this again in 3600 s")
    assert kaggle.requests == [LOGIN, ASK]


@pytest.mark.parametrize("status", [500, 503])
def test_what_kaggle_gets_wrong_once_is_tried_again(kaggle, place, status):
    kaggle.script["DownloadDataFile"] = iter([Trouble(status, "sorry")])
    done = run(kaggle, place)
    assert done.returncode == 0
    assert f"Kaggle: HTTP {status}; trying again" in done.stderr
    assert kaggle.requests == [LOGIN, ASK, *FETCHED[1:]]


def test_a_connection_that_is_cut_before_the_answer_is_made_again(kaggle, place):
    kaggle.script["DownloadDataFile"] = iter([Trouble(cut=True)])
    assert run(kaggle, place).returncode == 0
    assert kaggle.requests == [LOGIN, ASK, *FETCHED[1:]]


def test_a_connection_that_is_cut_in_the_middle_starts_again_with_a_new_link(kaggle, place):
    kaggle.script["GET"] = iter([Trouble(cut=True)])
    done = run(kaggle, place)
    assert done.returncode == 0
    assert f"{TAR}: the connection broke; starting again in 1 s" in done.stderr
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * 2]
    assert held(place)[TAR] == kaggle.files[TAR]


@pytest.mark.parametrize("status", [403, 404])
def test_cut_and_then_an_expired_link_is_no_trouble(kaggle, place, status):
    """The client's own download goes on with the old link, and takes the error page for the rest of the file."""
    kaggle.script["GET"] = iter([Trouble(cut=True), Trouble(status, "x" * 4000)])
    assert run(kaggle, place).returncode == 0
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * 3]
    assert held(place)[TAR] == kaggle.files[TAR]


def test_a_slow_server_is_waited_for(kaggle, place):
    kaggle.script["GET"] = iter([Trouble(slow=0.5)])
    assert run(kaggle, place).returncode == 0
    assert kaggle.requests == FETCHED


PAGES = [
    Trouble(content=b"<html>Please log in</html>", headers={"Content-Type": "text/html"}), Trouble(content=b"{}"),
    Trouble(content=b'{"code": 403}'), Trouble(204, content=b""), Trouble(206, content=b"PK"),
]  # fmt: skip


@pytest.mark.parametrize("trouble", PAGES, ids=str)
def test_a_page_is_not_taken_for_the_file(kaggle, place, trouble):
    assert run(kaggle, place).returncode == 0
    before = held(place)
    (place / "data/raw/PROVENANCE.json").write_text("{}")  # so that it is fetched again
    before["PROVENANCE.json"] = b"{}"
    kaggle.script["DownloadDataFile"] = ALL(trouble)
    refused(run(kaggle, place, hasty=True), TAR)
    assert held(place) == before


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b""], ids=["page", "empty"])
def test_a_page_behind_the_link_is_not_taken_for_the_file(kaggle, place, content):
    kaggle.script["GET"] = ALL(Trouble(content=content, headers={"Content-Type": "text/html"} if content else {}))
    refused(run(kaggle, place), TAR, "does not speak like Kaggle")
    assert left(place) == set()


@pytest.mark.parametrize("link", ["http://[::1/x", "http://a..b%/x", "ftp://x/y", "file:///etc/passwd"])
def test_a_link_that_leads_nowhere_is_told(kaggle, place, link):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(302, headers={"Location": link}))
    refused(run(kaggle, place, hasty=True), TAR)
    assert left(place) == set()


@pytest.mark.parametrize("content", [b"<html>", b"null", b"[]"])
def test_a_login_that_does_not_speak_like_kaggle_is_told(kaggle, place, content):
    kaggle.script[LOGIN] = ALL(Trouble(content=content))
    refused(run(kaggle, place), "Kaggle")
    assert kaggle.requests == [LOGIN]


# In one process, where the pauses can be made short.


@pytest.fixture
def here(kaggle, place, monkeypatch):
    """The stage in this process, with pauses that are noted instead of waited for."""
    return in_this_process(kaggle, place / "home", monkeypatch)


def trying(*words: str) -> str:
    with pytest.raises(UserError) as refusal:
        download.main()
    for word in (*words, *WAYS):
        assert word in str(refusal.value)
    assert not Path("data").exists() or not list(Path("data").iterdir())
    return str(refusal.value)


def test_what_kaggle_gets_wrong_for_ever_is_given_up_after_growing_pauses(here, kaggle):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(503, "sorry"))
    trying(TAR, "HTTP 503", "sorry", "run this again later")
    assert kaggle.requests == [LOGIN, *[ASK] * 6]
    assert here == [2, 4, 8, 16]  # the first try follows at once


def test_where_nothing_listens_it_is_the_network(here, kaggle, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    trying("cannot be reached", "network")
    assert capsys.readouterr().err.count("trying again") == client.TRIES
    assert kaggle.requests == []


def test_a_server_that_says_nothing_is_given_up(here, kaggle):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(silent=True))
    trying("does not answer")
    assert kaggle.requests == [LOGIN, ASK, ASK, ASK]


def test_a_login_that_says_nothing_is_given_up(here, kaggle):
    kaggle.script[LOGIN] = ALL(Trouble(silent=True))
    trying("does not answer")
    assert kaggle.requests == [LOGIN] * 3


def test_a_connection_that_is_always_cut_is_given_up(here, kaggle):
    kaggle.script["GET"] = ALL(Trouble(cut=True))
    trying(TAR, "cannot be reached or does not answer")
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * 4]
    assert here == [1, 4, 16]


def test_a_link_that_has_always_expired_is_given_up(here, kaggle):
    kaggle.script["GET"] = ALL(Trouble(403, "Request has expired"))
    said = trying(TAR, "HTTP 403", "the link that Kaggle gave has expired")
    assert "rules" not in said
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * 4]


@pytest.fixture
def official(kaggle, place, monkeypatch):
    """The small competition, as if it were the one of 2013."""
    write_params(SLUG)
    kaggle.slug = SLUG
    digests = {
        name: (algorithm, hashlib.new(algorithm, kaggle.files.get(name, b"")).hexdigest())
        for name, (algorithm, _) in competition.CHECKSUMS.items()
    }
    for name, digest in digests.items():
        monkeypatch.setitem(competition.CHECKSUMS, name, digest)


@pytest.mark.usefixtures("official")
def test_the_competition_itself_is_checked_and_official(here, kaggle, capsys):
    download.main()
    assert json.loads(Path("data/raw/PROVENANCE.json").read_text())["official"] is True
    captured = capsys.readouterr()
    assert "Kaggle's own" in captured.out
    assert captured.err == ""
    download.main()
    assert "not fetched again" in capsys.readouterr().out
    assert kaggle.requests == FETCHED


@pytest.mark.usefixtures("official")
@pytest.mark.parametrize("before", [False, True])
def test_the_right_size_with_wrong_bytes_is_refused_and_what_was_there_stays(here, kaggle, before):
    if before:
        Path("data/raw").mkdir(parents=True)
        Path("data/raw/train.csv").write_bytes(b"what was there")
    wrong = kaggle.files[TAR][:-1] + b"x"
    kaggle.script["GET"] = ALL(Trouble(content=wrong))
    with pytest.raises(UserError) as refusal:
        download.main()
    size = f"{len(wrong):,}"
    assert f"{TAR} arrived with {size} bytes, but not with the official checksum, twice" in str(refusal.value)
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * 2]
    assert left(Path()) == ({"raw"} if before else set())
    if before:
        assert held(Path()) == {"train.csv": b"what was there"}


@pytest.mark.usefixtures("official")
def test_the_right_size_with_wrong_bytes_once_is_mended(here, kaggle):
    kaggle.script["GET"] = iter([Trouble(content=kaggle.files[TAR][:-1] + b"x")])
    download.main()
    assert held(Path())[TAR] == kaggle.files[TAR]


@pytest.mark.usefixtures("official")
def test_official_files_that_were_brought_by_hand_are_not_fetched(here, kaggle, files):
    download.INCOMING.mkdir(parents=True)
    (download.INCOMING / ICML).write_bytes(files[ICML])
    settings = download.Data(source="local", slug=SLUG, training_faces=7, test_faces=7)
    download.RAW.mkdir()
    download.collect(settings, 1, download.RAW)
    download.main()
    assert kaggle.requests == []


def test_a_disk_that_fills_up_is_told(here, monkeypatch):
    full = Path("/dev/full")
    monkeypatch.setattr(client, "open", lambda path, mode: full.open(mode, buffering=0), raising=False)
    with pytest.raises(UserError, match="the disk is full: make room in data/ and run this again"):
        download.main()
    assert left(Path()) == set()
    assert here == []


def test_a_disk_that_is_too_small_is_told_before_it_fills_up(here, kaggle, monkeypatch):
    class Disk:
        free = 1000

    monkeypatch.setattr(client.shutil, "disk_usage", lambda path: Disk)
    size = f"{len(kaggle.files[TAR]):,}"
    with pytest.raises(UserError, match=f"{TAR} has {size} bytes, but the disk has only 1,000 left: make room"):
        download.main()
    assert left(Path()) == set()


def test_a_file_beyond_all_bounds_is_not_taken(here, monkeypatch):
    monkeypatch.setattr(client, "LARGEST", 1000)
    with pytest.raises(UserError, match=f"{TAR} has more than 1,000 bytes, which is no competition file"):
        download.main()
    assert left(Path()) == set()


def test_what_breaks_off_leaves_what_was_there(here, kaggle, monkeypatch):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/train.csv").write_bytes(b"what was there")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "fetch", stop)
    with pytest.raises(KeyboardInterrupt):
        download.main()
    assert left(Path()) == {"raw"}
    assert held(Path()) == {"train.csv": b"what was there"}


def test_what_was_there_stays_where_it_cannot_be_replaced(here, monkeypatch):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/train.csv").write_bytes(b"what was there")
    original = Path.rename

    def rename(path, target):
        if path.name == "raw" and path.parent.name.startswith(".raw-"):
            raise OSError(5, "Input/output error")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        download.main()
    assert held(Path()) == {"train.csv": b"what was there"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_raw_that_is_no_folder_is_told_before_anything_is_fetched(here, kaggle, kind):
    Path("data").mkdir()
    Path("data/raw").write_text("x") if kind == "file" else Path("data/raw").symlink_to("/tmp")
    with pytest.raises(UserError, match="data/raw is no folder; remove it"):
        download.main()
    assert kaggle.requests == []


def test_what_a_killed_run_left_is_cleared_away(here):
    Path("data/.raw-dead/raw").mkdir(parents=True)
    download.main()
    assert left(Path()) == {"raw"}


def test_no_request_is_left_with_other_timeouts_than_before(here, kaggle):
    before = requests.adapters.HTTPAdapter.send
    download.main()
    assert requests.adapters.HTTPAdapter.send is before


@pytest.mark.parametrize("name", ["../../evil.csv", "/tmp/evil-of-a-tar.csv", "fer2013/../../../evil.csv"])
def test_a_tar_with_other_paths_writes_nothing_there(kaggle, place, name):
    """data/raw holds it as it came; prepare reads the one member that it knows, and unpacks none."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member, content in ((name, b"evil"), ("fer2013/link", None)):
            info = tarfile.TarInfo(member)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    kaggle.files = {TAR: packed.getvalue()}
    assert run(kaggle, place).returncode == 0
    done = subprocess.run([sys.executable, "-m", "pipeline.data.prepare"], cwd=place, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: data/raw/{TAR} holds no fer2013.csv")
    assert not list(place.parent.rglob("evil*"))
    assert not Path("/tmp/evil-of-a-tar.csv").exists()
    assert {path.name for path in (place / "data/raw").iterdir()} == {TAR, "PROVENANCE.json"}
