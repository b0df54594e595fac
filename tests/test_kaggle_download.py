"""The download stage with the real Kaggle client and a local server."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import settings
from loopback import ALL, KEY, SECRETS, TOKEN, Failure, Server, in_this_process

from pipeline import competition
from pipeline.competition import SLUG
from pipeline.data import provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client, download

ROOT = Path(__file__).parent.parent
OTHER = "small-faces"  # a competition without known checksums
TAR = "fer2013.tar.gz"
LOGIN, LINK = "IntrospectToken", "DownloadDataFile"
ASK, GET = f"{LINK} {TAR}", f"GET {TAR}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Contents of a small competition's files, in all forms that Kaggle offers."""
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
    """Create an empty project and home; return a function that connects this process with the server."""
    (stand / "home").mkdir()
    settings.write({"source": "kaggle", "slug": OTHER})
    return lambda **credentials: in_this_process(kaggle, stand / "home", monkeypatch, **credentials)


@pytest.fixture
def pauses(log_in):
    """Log in, and return the list of the client's pauses."""
    return log_in()


def raw_files():
    return {path.name: path.read_bytes() for path in download.RAW.iterdir()} if download.RAW.exists() else {}


def refused(*words):
    """Assert that the download fails with one line that contains `words` and no secret, and changes no file."""
    before = raw_files()
    with pytest.raises(UserError) as refusal:
        download.main()
    message = str(refusal.value)
    assert all(word in message for word in (*words, "make demo")), message
    assert not any(secret in message for secret in (*SECRETS, "\n"))
    assert raw_files() == before
    assert {path.name for path in Path("data").iterdir()} == ({"raw"} if before else set())


def test_command_downloads_one_file_and_reveals_no_secret(kaggle, log_in, tmp_path):
    environment = kaggle.environment(tmp_path / "home", PYTHONPATH=str(ROOT), VERBOSE="1")
    command = [sys.executable, "-m", "pipeline", "download"]
    failed = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert re.fullmatch("error: no valid Kaggle credentials.*make demo\n", failed.stderr)
    done = subprocess.run(command, text=True, capture_output=True, env=environment | {"KAGGLE_API_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert kaggle.requests == [LOGIN, ASK, GET]
    assert raw_files()[TAR] == kaggle.files[TAR]
    facts = {"bytes": len(kaggle.files[TAR]), "md5": hashlib.md5(kaggle.files[TAR]).hexdigest(), "official": False}
    assert provenance.read() == {"source": "kaggle", "official": False, "slug": OTHER, "files": {TAR: facts}}
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def test_changed_files_are_downloaded_again(pauses, kaggle):
    download.main()
    download.main()
    assert kaggle.requests.count(GET) == 1
    path = download.RAW / TAR
    changes = (lambda: path.write_bytes(b"x"), path.unlink, lambda: provenance.PATH.write_text("{"))
    for count, change in enumerate(changes, start=2):
        change()
        download.main()
        assert kaggle.requests.count(GET) == count
        assert raw_files()[TAR] == kaggle.files[TAR]


# Credentials


KEY_FILE = json.dumps({"username": "someone", "key": KEY})
PAIR = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}
NOTHING = {"NOTHING": ""}


@pytest.mark.parametrize(("name", "content", "credentials"), [
    ("access_token", TOKEN, NOTHING), ("kaggle.json", KEY_FILE, NOTHING), ("unused", "", PAIR),
])  # fmt: skip
def test_all_kinds_of_credentials_work(log_in, name, content, credentials):
    Path("home/.kaggle").mkdir()
    Path("home/.kaggle", name).write_text(content)
    log_in(**credentials)
    download.main()
    assert TAR in raw_files()


@pytest.mark.parametrize("credentials", [
    NOTHING, {"KAGGLE_API_TOKEN": "bad-token"}, {"KAGGLE_API_TOKEN": "bad-token" * 500},
    {"KAGGLE_API_TOKEN": "bad-token", **PAIR}, PAIR | {"KAGGLE_KEY": "bad-token"},
])  # fmt: skip
def test_invalid_credentials_are_refused_with_instructions(log_in, kaggle, credentials):
    log_in(**credentials)
    refused("/settings/api", "~/.kaggle/access_token", "KAGGLE_API_TOKEN")
    assert GET not in kaggle.requests


# Failures of Kaggle and of the network

STRANGE = "another server responded"


@pytest.mark.parametrize(("operation", "failure", "words", "requests"), [  # requests: after the login
    (LINK, Failure(403, "You must accept this competition's rules"), ["HTTP 403", "/rules", "accept"], [ASK]),
    (LINK, Failure(404), ["HTTP 404", "data.slug"], [ASK]),
    (LINK, Failure(503, "sorry"), ["HTTP 503", "sorry", "run this again later"], [ASK] * 6),
    (LINK, Failure(silent=True), ["cannot be reached", "network"], [ASK] * 3),
    (LINK, Failure(content=b"<html>"), [STRANGE], [ASK]), (LINK, Failure(content=b'{"code": 403}'), ["403"], [ASK]),
    (LINK, Failure(302, headers={"Location": "file:///etc/passwd"}), [STRANGE], [ASK]),
    ("GET", Failure(403), ["the download link has expired"], [ASK, GET]),
    ("GET", Failure(content=b"<html>"), [STRANGE], [ASK, f"{GET}.zip"]),
    (LOGIN, Failure(content=b"<html>"), [STRANGE], []), (LOGIN, Failure(content=b"null"), ["login"], []),
], ids=lambda each: str(each)[:50])  # fmt: skip
def test_permanent_failure_is_refused_after_limited_retries(pauses, kaggle, operation, failure, words, requests):
    kaggle.zipped = {TAR} if failure.content == b"<html>" and operation == "GET" else set()
    kaggle.script[operation] = ALL(failure)
    refused(*words)
    assert kaggle.requests == [LOGIN, *requests]
    assert sum(pauses) < 60


@pytest.mark.parametrize(("operation", "failure"), [
    (LINK, Failure(429, "", {"Retry-After": "7200"})), (LINK, Failure(500)), (LINK, Failure(cut=True)),
    ("GET", Failure(cut=True)),
], ids=str)  # fmt: skip
def test_temporary_failure_is_retried_and_an_interrupted_download_resumed(pauses, kaggle, capsys, operation, failure):
    kaggle.script[operation] = iter([failure])
    download.main()
    assert kaggle.requests == [LOGIN, ASK, ASK if operation == LINK else GET, GET]
    assert ("trying again" in capsys.readouterr().err) == (operation == LINK)
    assert raw_files()[TAR] == kaggle.files[TAR]


def test_unreachable_server_and_missing_certificates_are_network_errors(pauses, kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    refused("cannot be reached", "network")
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", [])  # Kaggle's real address, with https
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    refused("cannot be reached", "docs/howto.md#kaggle")
    assert kaggle.requests == []


# The competition of 2013


@pytest.fixture
def official(pauses, kaggle, monkeypatch):
    """Replace the official checksums by those of the small competition."""
    settings.write({"source": "kaggle", "slug": SLUG})
    kaggle.slug = SLUG
    for name, (algorithm, _) in list(competition.CHECKSUMS.items()):
        digest = hashlib.new(algorithm, kaggle.files.get(name, b"")).hexdigest()
        monkeypatch.setitem(competition.CHECKSUMS, name, (algorithm, digest))


def test_official_archive_is_downloaded_once(official, kaggle, capsys):
    for _ in range(2):
        download.main()
        assert provenance.read()["official"] is True
    assert "not downloaded again" in capsys.readouterr().out
    assert kaggle.requests == [LOGIN, ASK, GET]


def test_download_without_a_file_is_refused(official, kaggle, monkeypatch):
    monkeypatch.setattr(client.Kaggle, "download", lambda *_: None)
    refused("official checksum")


def test_archive_with_a_wrong_checksum_is_refused(official, kaggle):
    download.RAW.mkdir(parents=True)
    (download.RAW / "train.csv").write_bytes(b"old")
    kaggle.script["GET"] = ALL(Failure(content=kaggle.files[TAR][:-1] + b"x"))
    refused(TAR, "damaged")
