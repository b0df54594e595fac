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
from test_download import held

from pipeline import competition
from pipeline.data import provenance
from pipeline.kaggle import client, download

OTHER = "small-faces"  # a competition without known checksums
TAR = "fer2013.tar.gz"
CONTENT = bytes(range(256)) * 10_000  # cut in half, it is more than the client's chunk of 1 MiB
LOGIN, LINK = "IntrospectToken", "DownloadDataFile"
ASK, GET = f"{LINK} {TAR}", f"GET {TAR}"
AGAIN = f"{GET} bytes={2**20}-"


@pytest.fixture
def kaggle(stand, monkeypatch):
    for server in loopback.connected(OTHER, stand, monkeypatch):
        server.files[TAR] = CONTENT
        yield server


def refused(*words):
    """Assert that the download fails with one line that contains `words` and no secret, and changes no file."""
    before = held(download.RAW)
    loopback.refused([*words, "make demo"], download.main)
    assert held(download.RAW) == before
    assert {path.name for path in Path("data").iterdir()} == ({"raw"} if before else set())


def test_command_downloads_one_file_and_reveals_no_secret(kaggle, stand):
    environment = kaggle.environment(PYTHONPATH=str(settings.ROOT), VERBOSE="1")
    command = [sys.executable, "-m", "pipeline", "download"]
    failed = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert failed.returncode == 1
    assert re.fullmatch("error: no valid Kaggle credentials.*make demo\n", failed.stderr)
    done = subprocess.run(command, text=True, capture_output=True, env=environment | {"KAGGLE_API_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert kaggle.requests == [LOGIN, ASK, GET]
    assert held(download.RAW)[TAR] == CONTENT
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
        assert (kaggle.requests.count(GET), held(download.RAW)[TAR]) == (count, CONTENT)


# Credentials


PAIR = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}


@pytest.mark.parametrize("name", ["access_token", "kaggle.json", "environment variables"])
def test_all_kinds_of_credentials_work(kaggle, monkeypatch, name):
    Path("home/.kaggle").mkdir()
    content = TOKEN if name == "access_token" else json.dumps({"username": "someone", "key": KEY})
    Path("home/.kaggle", name).write_text(content)
    kaggle.log_in(monkeypatch, **(PAIR if name == "environment variables" else {}))
    download.main()
    assert TAR in held(download.RAW)


@pytest.mark.parametrize("credentials", [
    {}, {"KAGGLE_API_TOKEN": "bad-token", **PAIR}, PAIR | {"KAGGLE_KEY": "bad-token"},
])  # fmt: skip
def test_invalid_credentials_are_refused_with_instructions(kaggle, monkeypatch, credentials):
    kaggle.log_in(monkeypatch, **credentials)
    refused("/settings/api", "~/.kaggle/access_token", "KAGGLE_API_TOKEN")
    assert GET not in kaggle.requests


# Failures of Kaggle and of the network


@pytest.mark.parametrize(("operation", "failure", "words", "requests"), [  # requests: after the login
    (LINK, Failure(403, "You must accept this competition's rules"), ["HTTP 403", "/rules", "accept"], [ASK]),
    (LINK, Failure(404), ["HTTP 404", "data.slug"], [ASK]),
    (LINK, Failure(503, "sorry"), ["HTTP 503", "sorry", "run this again later"], [ASK] * 6),
    (LINK, Failure(429), ["HTTP 429", "wait some minutes"], [ASK] * 6),
    (LINK, Failure(silent=True), ["cannot be reached", "docs/howto.md#kaggle"], [ASK] * 3),
    (LINK, Failure(content=b'{"code": 403}'), ["403"], [ASK]),
    ("GET", Failure(403), ["the download link has expired"], [ASK, GET]),
    (LOGIN, Failure(content=b"<html>"), ["another server responded"], []),
], ids=lambda each: str(each)[:50])  # fmt: skip
def test_permanent_failure_is_refused_after_few_retries(kaggle, monkeypatch, operation, failure, words, requests):
    monkeypatch.setattr(client, "TIMEOUT", (5, 0.3 if failure.silent else 20))
    kaggle.script[operation] = ALL(failure)
    refused(*words)
    assert kaggle.requests == [LOGIN, *requests]
    assert sum(kaggle.pauses) < 60


@pytest.mark.parametrize(("operation", "failures", "requests"), [  # requests: after the login
    (LINK, [Failure(429)], [ASK, ASK, GET]), (LINK, [Failure(cut=True)], [ASK, ASK, GET]),
    ("GET", [Failure(cut=True)], [ASK, GET, AGAIN]),
    ("GET", [Failure(cut=True), *[Failure(429)] * 6], [ASK, GET, *[AGAIN] * 7]),  # more than one request's retries
], ids=lambda each: str(each)[:50])  # fmt: skip
def test_temporary_failures_are_retried_and_downloads_resumed(kaggle, capsys, operation, failures, requests):
    kaggle.script[operation] = iter(failures)
    download.main()
    assert kaggle.requests == [LOGIN, *requests]
    assert ("trying again" in capsys.readouterr().err) == (requests != [ASK, GET, AGAIN])
    assert sum(kaggle.pauses) < 60
    assert held(download.RAW)[TAR] == CONTENT


# The competition of 2013


def test_the_official_archive_is_recognised_and_one_with_another_checksum_refused(kaggle, monkeypatch):
    settings.write({"source": "kaggle", "slug": competition.SLUG})
    kaggle.slug = competition.SLUG
    monkeypatch.setitem(competition.CHECKSUMS, TAR, ("sha1", hashlib.sha1(CONTENT).hexdigest()))
    download.main()
    assert provenance.read()["official"] is True
    (download.RAW / TAR).write_bytes(b"old")
    kaggle.script["GET"] = ALL(Failure(content=b"<html>"))
    refused(TAR, "damaged")
