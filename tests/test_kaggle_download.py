"""The download stage against a Kaggle on this machine, through the real client."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import settings
from loopback import ALL, KEY, SECRETS, TOKEN, Server, Trouble, in_this_process

from pipeline import competition
from pipeline.competition import SLUG
from pipeline.data import provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import download

ROOT = Path(__file__).parent.parent
OTHER = "small-faces"  # a competition whose checksums are not known
TAR, ICML, TRAIN, TEST = "fer2013.tar.gz", "icml_face_data.csv", "train.csv", "test.csv"
LOGIN, LINK = "IntrospectToken", "DownloadDataFile"
ASK, GET = f"{LINK} {TAR}", f"GET {TAR}"


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
def log_in(kaggle, stand, monkeypatch):
    """Stand in an empty project with an empty home; with some credentials, let this process speak to that Kaggle."""
    (stand / "home").mkdir()
    settings.write({"source": "kaggle", "slug": OTHER})
    return lambda **credentials: in_this_process(kaggle, stand / "home", monkeypatch, **credentials)


@pytest.fixture
def here(log_in):
    """The pauses, which take no time."""
    return log_in()


def held():
    return {path.name: path.read_bytes() for path in download.RAW.iterdir()} if download.RAW.exists() else {}


def refused(*words):
    """It ends in one sentence that holds the words and no secret, and changes nothing."""
    before = held()
    with pytest.raises(UserError) as refusal:
        download.main()
    said = str(refusal.value)
    assert all(word in said for word in (*words, "make demo")), said
    assert not any(secret in said for secret in (*SECRETS, "\n"))
    assert held() == before
    assert {path.name for path in Path("data").iterdir()} == ({"raw"} if before else set())


def test_as_a_command_it_fetches_the_smallest_whole_file_and_fetches_it_once(kaggle, log_in, tmp_path):
    environment = kaggle.environment(tmp_path / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN, VERBOSE="1")
    words = [sys.executable, "-m", "pipeline", "download"]
    for _ in range(2):
        done = subprocess.run(words, text=True, capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert "not fetched again" in done.stdout
    assert kaggle.requests == [LOGIN, ASK, GET]
    assert held()[TAR] == kaggle.files[TAR]
    facts = {"bytes": len(kaggle.files[TAR]), "md5": hashlib.md5(kaggle.files[TAR]).hexdigest(), "official": False}
    assert provenance.read() == {"source": "kaggle", "official": False, "slug": OTHER, "files": {TAR: facts}}
    for path in tmp_path.rglob("*"):  # nothing that stays knows the token
        assert path.is_dir() or not any(secret.encode() in path.read_bytes() for secret in SECRETS)
    del environment["KAGGLE_API_TOKEN"]
    provenance.PATH.unlink()
    done = subprocess.run(words, text=True, capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("error: there are no Kaggle credentials.*make demo\n", done.stderr)


def test_what_is_not_as_kaggle_has_it_is_fetched_again(here, kaggle):
    download.main()
    path = download.RAW / TAR
    spoils = (lambda: path.write_bytes(b"x"), path.unlink, lambda: provenance.PATH.write_text("{"))
    for number, spoil in enumerate(spoils, start=2):
        spoil()
        download.main()
        assert kaggle.requests.count(GET) == number
        assert held()[TAR] == kaggle.files[TAR]


def test_where_kaggle_lacks_the_file_it_says_so(here, kaggle):
    kaggle.files = {}
    refused("HTTP 404", "data.slug")


# What is wrong with the account.


def put_secret(name, content):
    path = Path("home/.kaggle", name)
    path.parent.mkdir()
    path.write_text(content)


GOOD_KEY = json.dumps({"username": "someone", "key": KEY})
PAIR = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}


@pytest.mark.parametrize(("name", "content", "credentials"), [
    ("access_token", TOKEN, {"NOTHING": ""}), ("kaggle.json", GOOD_KEY, {"NOTHING": ""}), ("", "", PAIR),
])  # fmt: skip
def test_every_way_of_credentials_works(log_in, name, content, credentials):
    if name:
        put_secret(name, content)
    log_in(**credentials)
    download.main()
    assert TAR in held()


@pytest.mark.parametrize("credentials", [
    {"NOTHING": ""}, {"KAGGLE_API_TOKEN": "bad-token"}, {"KAGGLE_API_TOKEN": "bad-token" * 500},
    {"KAGGLE_API_TOKEN": "bad-token", **PAIR}, PAIR | {"KAGGLE_KEY": "bad-token"},
])  # fmt: skip
def test_credentials_that_do_not_work_are_told_with_the_way_to_make_them(log_in, kaggle, credentials):
    log_in(**credentials)
    refused("/settings/api", "~/.kaggle/access_token", "KAGGLE_API_TOKEN")
    assert GET not in kaggle.requests


# What is wrong with Kaggle or the way there.

STRANGE = "something else answers"


@pytest.mark.parametrize(("where", "trouble", "words", "asked"), [  # asked: after the login
    (LINK, Trouble(403, "You must accept this competition's rules"), ["HTTP 403", "/rules", "accept"], [ASK]),
    (LINK, Trouble(503, "sorry"), ["HTTP 503", "sorry", "run this again later"], [ASK] * 6),
    (LINK, Trouble(silent=True), ["cannot be reached", "network"], [ASK] * 3),
    (LINK, Trouble(content=b"<html>"), [STRANGE], [ASK]), (LINK, Trouble(content=b'{"code": 403}'), ["403"], [ASK]),
    (LINK, Trouble(302, headers={"Location": "file:///etc/passwd"}), [STRANGE], [ASK]),
    ("GET", Trouble(403), ["the link that Kaggle gave has expired"], [ASK, GET]),
    ("GET", Trouble(content=b"<html>"), [STRANGE], [ASK, f"{GET}.zip"]),
    (LOGIN, Trouble(content=b"<html>"), [STRANGE], []), (LOGIN, Trouble(content=b"null"), ["login"], []),
], ids=lambda each: str(each)[:50])  # fmt: skip
def test_what_stays_wrong_is_told_in_one_sentence_after_as_many_tries_as_may_help(
    here, kaggle, where, trouble, words, asked
):
    kaggle.zipped = {TAR} if trouble.content == b"<html>" and where == "GET" else set()
    kaggle.script[where] = ALL(trouble)
    refused(*words)
    assert kaggle.requests == [LOGIN, *asked]
    assert sum(here) < 60


@pytest.mark.parametrize(("where", "trouble"), [
    (LINK, Trouble(429, "", {"Retry-After": "7200"})), (LINK, Trouble(500)), (LINK, Trouble(cut=True)),
    ("GET", Trouble(cut=True)),
], ids=str)  # fmt: skip
def test_what_goes_wrong_once_is_tried_again_and_a_broken_download_goes_on(here, kaggle, capsys, where, trouble):
    kaggle.script[where] = iter([trouble])
    download.main()
    assert kaggle.requests == [LOGIN, ASK, *([ASK] if where == LINK else [GET]), GET]
    assert ("trying again" in capsys.readouterr().err) == (where == LINK)
    assert held()[TAR] == kaggle.files[TAR]


def test_where_nothing_listens_it_is_the_network(here, kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    refused("cannot be reached", "network")
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", [])  # where Kaggle really is, by https
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    refused("cannot be reached", "docs/howto.md#kaggle")
    assert kaggle.requests == []


# The competition itself, and the disk.


@pytest.fixture
def official(here, kaggle, monkeypatch):
    """The small competition, as if it were the one of 2013."""
    settings.write({"source": "kaggle", "slug": SLUG})
    kaggle.slug = SLUG
    for name, (algorithm, _) in list(competition.CHECKSUMS.items()):
        digest = hashlib.new(algorithm, kaggle.files.get(name, b"")).hexdigest()
        monkeypatch.setitem(competition.CHECKSUMS, name, (algorithm, digest))


def test_the_competition_itself_is_official_and_fetched_once(official, kaggle, capsys):
    for _ in range(2):
        download.main()
        assert provenance.read()["official"] is True
    assert "not fetched again" in capsys.readouterr().out
    assert kaggle.requests == [LOGIN, ASK, GET]


def test_wrong_bytes_are_refused(official, kaggle):
    download.RAW.mkdir(parents=True)
    (download.RAW / TRAIN).write_bytes(b"what was there")
    kaggle.script["GET"] = ALL(Trouble(content=kaggle.files[TAR][:-1] + b"x"))
    refused(TAR, "damaged")
