"""The download stage with the real Kaggle client and a local server."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import loopback
import pytest
import settings
from loopback import ALL, KEY, SECRETS, TOKEN, Failure

from pipeline import competition
from pipeline.competition import SLUG
from pipeline.data import provenance
from pipeline.kaggle import client, download

ROOT = Path(__file__).parent.parent
OTHER = "small-faces"  # a competition without known checksums
TAR = "fer2013.tar.gz"
CONTENT = bytes(range(256)) * 100
LOGIN, LINK = "IntrospectToken", "DownloadDataFile"
ASK, GET = f"{LINK} {TAR}", f"GET {TAR}"


@pytest.fixture
def kaggle(stand, monkeypatch):
    for server in loopback.connected(OTHER, stand, monkeypatch):
        server.files[TAR] = CONTENT
        yield server


def raw_files():
    return {path.name: path.read_bytes() for path in download.RAW.iterdir()} if download.RAW.exists() else {}


def refused(*words):
    """Assert that the download fails with one line that contains `words` and no secret, and changes no file."""
    before = raw_files()
    loopback.refused([*words, "make demo"], download.main)
    assert raw_files() == before
    assert {path.name for path in Path("data").iterdir()} == ({"raw"} if before else set())


def test_command_downloads_one_file_and_reveals_no_secret(kaggle, stand):
    environment = kaggle.environment(PYTHONPATH=str(ROOT), VERBOSE="1")
    command = [sys.executable, "-m", "pipeline", "download"]
    failed = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert failed.returncode == 1
    assert re.fullmatch("error: no valid Kaggle credentials.*make demo\n", failed.stderr)
    done = subprocess.run(command, text=True, capture_output=True, env=environment | {"KAGGLE_API_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert kaggle.requests == [LOGIN, ASK, GET]
    assert raw_files()[TAR] == CONTENT
    facts = {"bytes": len(CONTENT), "md5": hashlib.md5(CONTENT).hexdigest(), "official": False}
    assert provenance.read() == {"source": "kaggle", "official": False, "slug": OTHER, "files": {TAR: facts}}
    for path in filter(Path.is_file, stand.rglob("*")):
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def test_only_changed_files_are_downloaded_again(kaggle):
    path = download.RAW / TAR
    changes = (lambda: None, lambda: path.write_bytes(b"x"), path.unlink, lambda: provenance.PATH.write_text("{"))
    download.main()
    for count, change in enumerate(changes, start=1):
        change()
        download.main()
        assert (kaggle.requests.count(GET), raw_files()[TAR]) == (count, CONTENT)


# Credentials


PAIR = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}


@pytest.mark.parametrize(("name", "content", "credentials"), [
    ("access_token", TOKEN, {}), ("kaggle.json", json.dumps({"username": "someone", "key": KEY}), {}),
    ("unused", "", PAIR),
])  # fmt: skip
def test_all_kinds_of_credentials_work(kaggle, monkeypatch, name, content, credentials):
    Path("home/.kaggle").mkdir()
    Path("home/.kaggle", name).write_text(content)
    kaggle.log_in(monkeypatch, **credentials)
    download.main()
    assert TAR in raw_files()


@pytest.mark.parametrize("credentials", [
    {}, {"KAGGLE_API_TOKEN": "bad-token" * 500}, {"KAGGLE_API_TOKEN": "bad-token", **PAIR},
    PAIR | {"KAGGLE_KEY": "bad-token"},
])  # fmt: skip
def test_invalid_credentials_are_refused_with_instructions(kaggle, monkeypatch, credentials):
    kaggle.log_in(monkeypatch, **credentials)
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
    ("GET", Failure(403), ["the download link has expired"], [ASK, GET]),
    (LOGIN, Failure(content=b"<html>"), [STRANGE], []),
], ids=lambda each: str(each)[:50])  # fmt: skip
def test_permanent_failure_is_refused_after_limited_retries(kaggle, operation, failure, words, requests):
    kaggle.script[operation] = ALL(failure)
    refused(*words)
    assert kaggle.requests == [LOGIN, *requests]
    assert sum(kaggle.pauses) < 60


@pytest.mark.parametrize(("operation", "failure"), [
    (LINK, Failure(429, "", {"Retry-After": "7200"})), (LINK, Failure(cut=True)), ("GET", Failure(cut=True)),
], ids=str)  # fmt: skip
def test_temporary_failure_is_retried_and_an_interrupted_download_resumed(kaggle, capsys, operation, failure):
    kaggle.script[operation] = iter([failure])
    download.main()
    assert kaggle.requests == [LOGIN, ASK, ASK if operation == LINK else GET, GET]
    assert ("trying again" in capsys.readouterr().err) == (operation == LINK)
    assert sum(kaggle.pauses) < 60
    assert raw_files()[TAR] == CONTENT


def test_unreachable_server_is_a_network_error(kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    refused("cannot be reached", "network", "docs/howto.md#kaggle")


# The competition of 2013


@pytest.fixture
def official(kaggle, monkeypatch):
    """Replace the official checksum by that of the small file."""
    settings.write({"source": "kaggle", "slug": SLUG})
    kaggle.slug = SLUG
    monkeypatch.setitem(competition.CHECKSUMS, TAR, ("sha1", hashlib.sha1(CONTENT).hexdigest()))


def test_official_archive_is_recognised(official):
    download.main()
    assert provenance.read()["official"] is True


def test_download_without_a_file_is_refused(official, monkeypatch):
    monkeypatch.setattr(client.Kaggle, "download", lambda *_: None)
    refused("official checksum")


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", b"<html>"])
def test_archive_with_a_wrong_checksum_is_refused(official, kaggle, content):
    download.RAW.mkdir(parents=True)
    (download.RAW / "train.csv").write_bytes(b"old")
    kaggle.script["GET"] = ALL(Failure(content=content))
    refused(TAR, "damaged")
