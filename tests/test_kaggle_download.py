"""The download stage against a Kaggle on this machine, through the real client."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import termios
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
import settings
from loopback import ALL, KEY, SIGNATURE, TOKEN, Server, Trouble, in_this_process

from pipeline import competition
from pipeline.competition import SLUG
from pipeline.data import incoming, provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client, download

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
    settings.write({"source": "kaggle", "slug": OTHER})
    return tmp_path


@pytest.fixture
def log_in(kaggle, place, monkeypatch):
    """Let this process speak to that Kaggle, with some credentials; returns its pauses, which take no time."""
    return lambda **credentials: in_this_process(kaggle, place / "home", monkeypatch, **credentials)


@pytest.fixture
def here(log_in):
    return log_in()


def held() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in download.RAW.iterdir()}


def left() -> set[str]:
    return {path.name for path in Path("data").iterdir()} if Path("data").exists() else set()


def refused(*words: str) -> str:
    """It ends in one sentence that holds the words and no secret, and changes nothing."""
    before = held() if download.RAW.exists() else {}
    with pytest.raises(UserError) as refusal:
        download.main()
    said = str(refusal.value)
    for word in (*words, *WAYS):
        assert word in said
    for secret in (TOKEN, KEY, SIGNATURE, "bad-token", "storage.local", "\n"):
        assert secret not in said
    assert left() == ({"raw"} if before else set())
    assert (held() if before else {}) == before
    return said


def test_as_a_command_it_fetches_the_smallest_whole_file_and_fetches_it_once(kaggle, place):
    for _ in range(2):
        done = subprocess.run([sys.executable, "-m", "pipeline", "download"], text=True, capture_output=True,
                              env=kaggle.environment(place / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN,
                                                     VERBOSE="1"))  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not re.search(f"{TOKEN}|{SIGNATURE}", done.stdout + done.stderr)
    assert "not fetched again" in done.stdout
    assert kaggle.requests == FETCHED
    assert held()[TAR] == kaggle.files[TAR]
    facts = {"bytes": len(kaggle.files[TAR]), "md5": hashlib.md5(kaggle.files[TAR]).hexdigest(), "official": False}
    assert provenance.read() == {"source": "kaggle", "official": False, "slug": OTHER, "files": {TAR: facts}}
    assert {path.name for path in place.iterdir()} == {"home", "params.yaml", "data"}


def test_as_a_command_it_ends_in_one_sentence_and_status_1(kaggle, place):
    done = subprocess.run([sys.executable, "-m", "pipeline", "download"], text=True, capture_output=True,
                          env=kaggle.environment(place / "home", PYTHONPATH=str(ROOT)))  # fmt: skip
    assert (done.returncode, done.stdout, kaggle.requests) == (1, "", [])
    assert re.fullmatch("error: no Kaggle credentials.*make demo\n", done.stderr)


def test_on_a_terminal_there_is_progress(kaggle, place):
    kaggle.script["GET"] = iter([Trouble(slow=0.3)])
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    environment = kaggle.environment(place / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN)
    done = subprocess.run([sys.executable, "-m", "pipeline", "download"], env=environment, stderr=slave,
                          stdout=subprocess.DEVNULL)  # fmt: skip
    os.close(slave)
    shown = os.read(master, 10**6).decode()
    os.close(master)
    assert done.returncode == 0
    assert re.search(rf"{TAR}: +\d+%\|.*<.*B/s", shown)  # part, time left and rate


@pytest.mark.parametrize("spoil", ["a byte", "missing", "another slug", "no provenance"])
def test_what_is_not_as_kaggle_has_it_is_fetched_again(here, kaggle, spoil):
    download.main()
    path = download.RAW / TAR
    if spoil == "a byte":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif spoil == "missing":
        path.unlink()
    elif spoil == "another slug":
        settings.write({"source": "kaggle", "slug": "large-faces"})
        kaggle.slug = "large-faces"
    else:
        provenance.PATH.write_text("{")
    download.main()
    assert kaggle.requests == FETCHED * 2
    assert held()[TAR] == kaggle.files[TAR]


@pytest.mark.parametrize("got", [{ICML}, {TRAIN, TEST}, {TRAIN}, set()])
def test_where_kaggle_lacks_a_file_the_next_one_is_taken_and_unzipped(here, kaggle, files, got):
    kaggle.files, kaggle.zipped = {name: files[name] for name in got}, {ICML}
    if len(got) and got != {TRAIN}:
        download.main()
        assert set(held()) == got | {"PROVENANCE.json"}
        assert all(held()[name] == files[name] for name in got)
    else:
        refused("has none of fer2013.tar.gz", "HTTP 404", "data.slug", f"/competitions/{OTHER}")


@pytest.mark.parametrize("content", [b"PK\x03\x04 and then nothing of a zip", "no member", "cut"])
def test_a_corrupt_zip_is_fetched_once_more_and_then_refused(here, kaggle, content):
    kaggle.files, kaggle.zipped = {ICML: kaggle.files[ICML]}, {ICML}
    if content == "cut":
        content = kaggle.content(f"{ICML}.zip")[:-30]
    elif content == "no member":
        kaggle.files[TEST] = b"x"
        content = kaggle.content(f"{TEST}.zip")
        del kaggle.files[TEST]
    kaggle.script["GET"] = ALL(Trouble(content=content))
    refused(f"Kaggle's {ICML}.zip", "twice")
    kaggle.script["GET"] = iter([Trouble(content=content)])
    download.main()
    assert kaggle.requests.count(f"GET {ICML}.zip") == 4


# What is wrong with the account.


def put_secret(home: Path, name: str, content: str, mode: int = 0o600) -> Path:
    path = home / ".kaggle" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


GOOD_KEY = json.dumps({"username": "someone", "key": KEY})
PAIR = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}


@pytest.mark.parametrize(("name", "content", "credentials"), [
    ("", "", {"KAGGLE_API_TOKEN": f"{TOKEN}\n"}),  # as a copy brings it along
    ("elsewhere", TOKEN, {"KAGGLE_API_TOKEN": "home/.kaggle/elsewhere"}), ("access_token", TOKEN, {"NOTHING": ""}),
    ("kaggle.json", GOOD_KEY, {"NOTHING": ""}), ("", "", PAIR), (None, "", {"KAGGLE_API_TOKEN": TOKEN}),
])  # fmt: skip
def test_every_way_of_credentials_works_and_others_are_not_to_read_them(
    log_in, place, capsys, name, content, credentials
):
    path = put_secret(place / "home", name, content, 0o644) if name else None
    if name is None:  # a home that cannot be written to
        (place / "home").rmdir()
        (place / "home").write_text("")
    log_in(**credentials)
    download.main()
    assert capsys.readouterr().err.count("can be read by others on this machine: chmod 600 ") == (path is not None)


@pytest.mark.parametrize(("name", "content", "credentials", "words"), [
    ("", "", {"NOTHING": ""}, ["no Kaggle credentials", client.SETTINGS, "~/.kaggle/access_token", "KAGGLE_API_TOKEN",
                               "kaggle.json", "KAGGLE_USERNAME and KAGGLE_KEY", "kaggle auth login"]),
    *(("kaggle.json", text, {"NOTHING": ""}, ["kaggle.json holds none"]) for text in ("{", "", '{"username": "a"}')),
    ("kaggle.json", "[]", {"NOTHING": ""}, ["cannot be read"]),
    ("", "", {"KAGGLE_API_TOKEN": "bad-token" * 30}, ["cannot be read", "KAGGLE_API_TOKEN"]),
    ("", "", {"KAGGLE_API_TOKEN": "bad-token" * 500}, ["cannot be read", "KAGGLE_API_TOKEN"]),
])  # fmt: skip
def test_credentials_that_cannot_be_any_are_told_before_kaggle_is_asked(log_in, kaggle, place, name, content,
                                                                        credentials, words):  # fmt: skip
    if name:
        put_secret(place / "home", name, content)
    log_in(**credentials)
    refused(*words)
    assert kaggle.requests == []


@pytest.mark.parametrize("status", [None, 401, 403])
@pytest.mark.parametrize("where", ["KAGGLE_API_TOKEN", "~/.kaggle/access_token"])
@pytest.mark.parametrize("key", [{}, PAIR], ids=["no key", "key"])
def test_a_bad_token_is_told_from_a_good_key_that_it_hides(log_in, kaggle, place, status, where, key):
    if status:
        kaggle.script[LOGIN] = ALL(Trouble(status, "no"))
    named = {"KAGGLE_API_TOKEN": "bad-token"} if where == "KAGGLE_API_TOKEN" else {"NOTHING": ""}
    if where != "KAGGLE_API_TOKEN":
        put_secret(place / "home", "access_token", "bad-token")
    log_in(**named, **key)
    said = refused(f"does not accept the token in {where}", client.SETTINGS)
    assert ("or remove it: while it is there, the key" in said) == bool(key)
    assert kaggle.requests == [LOGIN]


@pytest.mark.parametrize("body", [None, b""])
def test_a_bad_key_is_refused_without_another_try(log_in, kaggle, body):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(401, content=body) if body is not None else None)
    log_in(**PAIR | {"KAGGLE_KEY": "bad-token"})
    refused("HTTP 401", "does not accept the key in kaggle.json or KAGGLE_KEY", client.SETTINGS)
    assert kaggle.requests == [ASK]


def test_an_expired_login_is_told_and_stays(log_in, kaggle, place):
    path = put_secret(place / "home", "credentials.json", '{"refresh_token": "x", "username": "someone"}')
    kaggle.script["GenerateAccessToken"] = ALL(Trouble(401, "expired"))
    log_in(NOTHING="")
    refused(f"({path} holds none that works)", "kaggle auth login")
    assert path.exists()


# What is wrong with Kaggle or the way there.


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("body", [b"", b"{}", b"<html>moved</html>", b'{"code": 403}'])
def test_what_stands_in_a_redirect_does_not_matter(here, kaggle, kind, body):
    kaggle.redirect = body, kind
    download.main()
    assert (kaggle.requests, here) == (FETCHED, [])


GET, LINK = f"GET {TAR}", "DownloadDataFile"
HTML, STRANGE = {"Content-Type": "text/html"}, "does not speak like Kaggle"
FOR_EVER = [  # where, what, words of the message, what is asked after the login, and the pauses
    (LINK, Trouble(403, "You must accept this competition's rules"), ["HTTP 403", "/rules", "accept"], [ASK], []),
    (LINK, Trouble(429, "", {"Retry-After": "3600"}), ["HTTP 429", "run this again in 3600 s"], [ASK], []),
    (LINK, Trouble(503, "sorry"), ["HTTP 503", "sorry", "run this again later"], [ASK] * 6, [2, 4, 8, 16]),
    (LINK, Trouble(silent=True), ["does not answer", "network"], [ASK] * 3, [2]),
    (LINK, Trouble(407), ["the proxy wants a login", "HTTPS_PROXY"], [ASK], []),
    ("GET", Trouble(cut=True), ["cannot be reached or does not answer"], [ASK, GET] * 4, [1, 4, 16]),
    ("GET", Trouble(403), ["the link that Kaggle gave has expired"], [ASK, GET] * 4, [1, 4, 16]),
    ("GET", Trouble(content=b"<html>", headers=HTML), [STRANGE], [ASK, GET], []),
    ("GET", Trouble(content=b""), [STRANGE], [ASK, GET], []),
    *((LINK, Trouble(302, headers={"Location": link}), [STRANGE], [ASK], [])
      for link in ("http://[::1/x", "http://a..b%/x", "ftp://x/y", "file:///etc/passwd")),
    *((LINK, trouble, [TAR], [ASK], []) for trouble in (
        Trouble(content=b"<html>", headers=HTML), Trouble(content=b"<html>"), Trouble(content=b"{}"),
        Trouble(content=b'{"code": 403}'), Trouble(204, content=b""), Trouble(206, content=b"PK"))),
    *((LOGIN, Trouble(content=content), ["Kaggle"], [], []) for content in (b"<html>", b"null", b"[]", b"")),
]  # fmt: skip


@pytest.mark.parametrize(("where", "trouble", "words", "asked", "pauses"), FOR_EVER, ids=lambda each: str(each)[:50])
def test_what_stays_wrong_is_told_in_one_sentence_after_as_many_tries_as_may_help(
    here, kaggle, where, trouble, words, asked, pauses
):
    kaggle.script[where] = ALL(trouble)
    said = refused(*words)
    assert (kaggle.requests, here) == ([LOGIN, *asked], pauses)
    assert ("rules" in said) == ("/rules" in words or trouble.content == b'{"code": 403}')


@pytest.mark.parametrize(("where", "troubles", "asked", "pauses"), [
    (LINK, [Trouble(429, "", {"Retry-After": "2"})], [ASK], [2]), (LINK, [Trouble(500)], [ASK], []),
    (LINK, [Trouble(cut=True)], [ASK], []), ("GET", [Trouble(cut=True)], [ASK, GET], [1]),
    ("GET", [Trouble(cut=True), Trouble(403, "x" * 4000)], [ASK, GET] * 2, [1, 4]),  # the old link has expired
], ids=str)  # fmt: skip
def test_what_goes_wrong_once_is_tried_again(here, kaggle, capsys, where, troubles, asked, pauses):
    kaggle.script[where] = iter(troubles)
    download.main()
    assert (kaggle.requests, here) == ([LOGIN, *asked, ASK, GET], pauses)
    assert re.search("trying again|starting again", capsys.readouterr().err)
    assert held()[TAR] == kaggle.files[TAR]


def test_a_wrong_slug_and_a_page_instead_of_the_file_leave_what_was_there(here, kaggle):
    download.main()
    settings.write({"source": "kaggle", "slug": "smal-faces"})
    refused("HTTP 403", "smal-faces", "whether data.slug in params.yaml is right")
    assert kaggle.requests == [*FETCHED, LOGIN, ASK]


def test_where_nothing_listens_it_is_the_network(here, kaggle, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    refused("cannot be reached", "network")
    assert capsys.readouterr().err.count("trying again") == client.TRIES


# What this machine's settings keep away: with its cause and cure, and without another try.


@pytest.fixture
def https(here, monkeypatch):
    """As here, but Kaggle is where it really is, and the server on this machine is the proxy on the way there."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", [])
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return here


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("credentials", [{}, PAIR], ids=["token", "key"])  # a key is not asked for before the download
def test_a_bundle_of_certificates_that_is_no_file_is_told(https, kaggle, monkeypatch, name, credentials):
    monkeypatch.setenv(name, "/no/such/file.pem")
    for variable, value in credentials.items():
        monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
        monkeypatch.setenv(variable, value)
    assert "credentials" not in refused("REQUESTS_CA_BUNDLE", "unset it")
    assert (kaggle.requests, https) == ([], [])


def test_a_proxy_that_wants_a_login_is_told(https, kaggle):
    refused("the proxy wants a login", "HTTPS_PROXY")
    assert (kaggle.requests, https) == (["CONNECT"], [])


@pytest.mark.skipif(find_spec("socks") is not None, reason="PySocks is installed")
def test_a_socks_proxy_without_pysocks_is_told(here, kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5h://127.0.0.1:1080")
    refused("PySocks")
    assert (kaggle.requests, here) == ([], [])


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate")
def test_a_certificate_that_is_not_trusted_is_told(https, kaggle, place):
    key, certificate = place / "home/key", place / "home/certificate"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=api.kaggle.com",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)  # fmt: skip
    kaggle.certificate = place / "home/both"
    kaggle.certificate.write_bytes(key.read_bytes() + certificate.read_bytes())
    assert "credentials" not in refused("certificate is not trusted", "REQUESTS_CA_BUNDLE")
    assert (kaggle.requests, https) == (["CONNECT"], [])


# The competition itself, and the disk.


@pytest.fixture
def official(here, kaggle, monkeypatch):
    """The small competition, as if it were the one of 2013."""
    settings.write({"source": "kaggle", "slug": SLUG})
    kaggle.slug = SLUG
    for name, (algorithm, _) in list(competition.CHECKSUMS.items()):
        digest = hashlib.new(algorithm, kaggle.files.get(name, b"")).hexdigest()
        monkeypatch.setitem(competition.CHECKSUMS, name, (algorithm, digest))


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_competition_itself_is_official_however_it_came(official, kaggle, files, capsys, by_hand):
    if by_hand:
        incoming.FOLDER.mkdir(parents=True)
        (incoming.FOLDER / ICML).write_bytes(files[ICML])
        settings.write({"source": "local"})
    download.main()
    assert provenance.read()["official"] is True
    assert capsys.readouterr().err == ""
    settings.write({"source": "kaggle", "slug": SLUG})
    download.main()
    assert "not fetched again" in capsys.readouterr().out
    assert kaggle.requests == ([] if by_hand else FETCHED)


@pytest.mark.parametrize("before", [False, True])
def test_the_right_size_with_wrong_bytes_is_refused_twice_and_good_once(official, kaggle, before):
    if before:
        download.RAW.mkdir(parents=True)
        (download.RAW / TRAIN).write_bytes(b"what was there")
    wrong = kaggle.files[TAR][:-1] + b"x"
    kaggle.script["GET"] = ALL(Trouble(content=wrong))
    refused(f"{TAR} arrived with {len(wrong):,} bytes, but not with the official checksum, twice")
    kaggle.script["GET"] = iter([Trouble(content=wrong)])
    download.main()
    assert held()[TAR] == kaggle.files[TAR]


def test_a_disk_that_is_full_or_too_small_is_told(here, kaggle, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(client, "open", lambda *_: io.open("/dev/full", "wb", 0), raising=False)  # noqa: SIM115, UP020
        with pytest.raises(OSError, match="No space left on device"):
            download.main()
    monkeypatch.setattr(client.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 1000}))
    with pytest.raises(
        UserError, match=f"{TAR} has {len(kaggle.files[TAR]):,} bytes, but the disk has only 1,000 left"
    ):
        download.main()
    assert (left(), here) == (set(), [])


def test_a_file_beyond_all_bounds_is_not_taken(here, monkeypatch):
    monkeypatch.setattr(client, "LARGEST", 1000)
    with pytest.raises(UserError, match=f"{TAR} has more than 1,000 bytes, which is no competition file"):
        download.main()
    assert left() == set()


def test_requests_is_left_as_it_was(here):
    before = requests.adapters.HTTPAdapter.send
    download.main()
    assert requests.adapters.HTTPAdapter.send is before
