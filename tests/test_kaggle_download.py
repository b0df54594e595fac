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


@pytest.mark.parametrize("got", [{ICML}, {TRAIN, TEST}])
def test_where_kaggle_lacks_a_file_the_next_one_is_taken_and_unzipped(here, kaggle, files, got):
    kaggle.files, kaggle.zipped = {name: files[name] for name in got}, {ICML}
    download.main()
    assert set(held()) == got | {"PROVENANCE.json"}
    assert all(held()[name] == files[name] for name in got)


@pytest.mark.parametrize("there", [set(), {TRAIN}])
def test_where_kaggle_has_not_enough_it_is_told(here, kaggle, files, there):
    kaggle.files = {name: files[name] for name in there}
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


# What is wrong with the account or the address.


def put_secret(home: Path, name: str, content: str, mode: int = 0o600) -> Path:
    path = home / ".kaggle" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


GOOD_KEY = json.dumps({"username": "someone", "key": KEY})


@pytest.mark.parametrize("where", ["KAGGLE_API_TOKEN", "its path", "access_token", "kaggle.json", "key", "no home"])
def test_every_way_of_credentials_works(log_in, place, where, capsys):
    credentials = {"NOTHING": ""}
    if where == "KAGGLE_API_TOKEN":
        credentials = {"KAGGLE_API_TOKEN": f"{TOKEN}\n"}  # as a copy brings it along
    elif where == "its path":
        credentials = {"KAGGLE_API_TOKEN": str(put_secret(place / "home", "elsewhere", TOKEN))}
    elif where == "key":
        credentials = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY}
    elif where == "no home":
        credentials = {"KAGGLE_API_TOKEN": TOKEN}
        (place / "home").rmdir()
        (place / "home").write_text("")
    else:
        put_secret(place / "home", where, GOOD_KEY if where == "kaggle.json" else TOKEN)
    log_in(**credentials)
    download.main()
    assert "can be read by others" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content"), [("kaggle.json", GOOD_KEY), ("access_token", TOKEN)])
def test_a_secret_that_others_can_read_is_warned_about(log_in, place, capsys, name, content):
    path = put_secret(place / "home", name, content, 0o644)
    log_in(NOTHING="")
    download.main()
    assert capsys.readouterr().err.count(f"warning: {path} can be read by others on this machine: chmod 600") == 1


def test_without_credentials_every_way_is_named(log_in, kaggle):
    log_in(NOTHING="")
    refused("no Kaggle credentials", client.SETTINGS, "~/.kaggle/access_token", "KAGGLE_API_TOKEN",
            "kaggle.json", "KAGGLE_USERNAME and KAGGLE_KEY", "kaggle auth login")  # fmt: skip
    assert kaggle.requests == []


@pytest.mark.parametrize("content", ["{", "", '{"username": "someone"}', "[]"])
def test_a_kaggle_json_without_a_key_is_told(log_in, kaggle, place, content):
    path = put_secret(place / "home", "kaggle.json", content)
    log_in(NOTHING="")
    said = refused()
    assert str(path) in said or "cannot be read" in said
    assert kaggle.requests == []


@pytest.mark.parametrize("status", [None, 401, 403])
@pytest.mark.parametrize("where", ["KAGGLE_API_TOKEN", "~/.kaggle/access_token"])
@pytest.mark.parametrize("key", [False, True])
def test_a_bad_token_is_told_from_a_good_key_that_it_hides(log_in, kaggle, place, status, where, key):
    if status:
        kaggle.script[LOGIN] = ALL(Trouble(status, "no"))
    credentials = {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": KEY} if key else {"NOTHING": ""}
    if where == "KAGGLE_API_TOKEN":
        credentials["KAGGLE_API_TOKEN"] = "bad-token"
    else:
        put_secret(place / "home", "access_token", "bad-token")
    log_in(**credentials)
    said = refused(f"does not accept the token in {where}", client.SETTINGS)
    assert ("or remove it: while it is there, the key" in said) == key
    assert kaggle.requests == [LOGIN]


@pytest.mark.parametrize("body", [None, b""])
def test_a_bad_key_is_refused_without_another_try(log_in, kaggle, body):
    if body is not None:
        kaggle.script["DownloadDataFile"] = ALL(Trouble(401, content=body))
    log_in(KAGGLE_USERNAME="someone", KAGGLE_KEY="bad-token")
    refused("HTTP 401", "does not accept the key in kaggle.json or KAGGLE_KEY", client.SETTINGS)
    assert kaggle.requests == [ASK]


@pytest.mark.parametrize("length", [300, 5000])
def test_a_token_that_is_no_path_is_not_shown(log_in, length):
    log_in(KAGGLE_API_TOKEN="bad-token" * (length // 9))
    refused("cannot be read", "KAGGLE_API_TOKEN")


def test_an_expired_login_is_told_and_stays(log_in, kaggle, place):
    path = put_secret(place / "home", "credentials.json", '{"refresh_token": "x", "username": "someone"}')
    kaggle.script["GenerateAccessToken"] = ALL(Trouble(401, "expired"))
    log_in(NOTHING="")
    refused(f"({path} holds none that works)", "kaggle auth login")
    assert path.exists()


def test_rules_that_are_not_accepted_are_told_with_their_page(here, kaggle):
    words = "You must accept this competition's rules before you'll be able to download files."
    kaggle.script["DownloadDataFile"] = ALL(Trouble(403, words))
    assert "data.slug" not in refused("HTTP 403", words, f"competitions/{OTHER}/rules", "accept")
    assert kaggle.requests == [LOGIN, ASK]


def test_a_wrong_slug_is_told(here, kaggle):
    settings.write({"source": "kaggle", "slug": "smal-faces"})
    refused("HTTP 403", "smal-faces", "whether data.slug in params.yaml is right")
    assert kaggle.requests == [LOGIN, ASK]


# What is wrong with Kaggle or the way there.


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("body", [b"", b"{}", b"<html>moved</html>", b'{"code": 403}'])
def test_what_stands_in_a_redirect_does_not_matter(here, kaggle, kind, body):
    kaggle.redirect = body, kind
    download.main()
    assert (kaggle.requests, here) == (FETCHED, [])


@pytest.mark.parametrize("link", ["http://[::1/x", "http://a..b%/x", "ftp://x/y", "file:///etc/passwd"])
def test_a_link_that_leads_nowhere_is_told_and_not_tried_again(here, kaggle, link):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(302, headers={"Location": link}))
    refused(TAR, "does not speak like Kaggle")
    assert (kaggle.requests, here) == ([LOGIN, ASK], [])


PAGES = [
    Trouble(content=b"<html>Please log in</html>", headers={"Content-Type": "text/html"}), Trouble(content=b"{}"),
    Trouble(content=b"<html>"), Trouble(content=b'{"code": 403}'), Trouble(204, content=b""),
    Trouble(206, content=b"PK"),
]  # fmt: skip


@pytest.mark.parametrize("trouble", PAGES, ids=str)
def test_a_page_is_not_taken_for_the_file(here, kaggle, trouble):
    download.main()
    provenance.PATH.write_text("{}")  # so that it is fetched again
    kaggle.script["DownloadDataFile"] = ALL(trouble)
    refused(TAR)
    assert here == []


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b""], ids=["page", "empty"])
def test_a_page_behind_the_link_is_not_taken_for_the_file(here, kaggle, content):
    kaggle.script["GET"] = ALL(Trouble(content=content, headers={"Content-Type": "text/html"} if content else {}))
    refused(TAR, "does not speak like Kaggle")


@pytest.mark.parametrize("content", [b"<html>", b"null", b"[]", b""])
def test_a_login_that_does_not_speak_like_kaggle_is_told(here, kaggle, content):
    kaggle.script[LOGIN] = ALL(Trouble(content=content))
    refused("Kaggle")
    assert (kaggle.requests, here) == ([LOGIN], [])


@pytest.mark.parametrize("trouble", [
    Trouble(429, "Too many requests", {"Retry-After": "2"}), Trouble(500), Trouble(503), Trouble(cut=True),
], ids=str)  # fmt: skip
def test_what_goes_wrong_once_is_tried_again(here, kaggle, capsys, trouble):
    kaggle.script["DownloadDataFile"] = iter([trouble])
    download.main()
    assert kaggle.requests == [LOGIN, ASK, *FETCHED[1:]]
    assert "trying again" in capsys.readouterr().err
    assert here == ([2] if trouble.status == 429 else [])


def test_a_pause_that_is_too_long_is_left_to_the_user(here, kaggle):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(429, "Too many requests", {"Retry-After": "3600"}))
    refused("HTTP 429", "asks for a pause: run this again in 3600 s")
    assert kaggle.requests == [LOGIN, ASK]


def test_what_kaggle_gets_wrong_for_ever_is_given_up_after_growing_pauses(here, kaggle):
    kaggle.script["DownloadDataFile"] = ALL(Trouble(503, "sorry"))
    refused(TAR, "HTTP 503", "sorry", "run this again later")
    assert kaggle.requests == [LOGIN, *[ASK] * 6]
    assert here == [2, 4, 8, 16]  # the first try follows at once


@pytest.mark.parametrize("troubles", [
    [Trouble(cut=True)], [Trouble(cut=True), Trouble(403, "x" * 4000)], [Trouble(404), Trouble(cut=True)],
], ids=["cut", "expired", "both"])  # fmt: skip
def test_a_download_that_breaks_off_or_has_expired_starts_again_with_a_new_link(here, kaggle, troubles):
    """The client's own download would go on with the old link."""
    kaggle.script["GET"] = iter(troubles)
    download.main()
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * (1 + len(troubles))]
    assert held()[TAR] == kaggle.files[TAR]
    assert here == [1, 4][: len(troubles)]


@pytest.mark.parametrize(("trouble", "words"), [
    (Trouble(cut=True), "cannot be reached or does not answer"),
    (Trouble(403), "the link that Kaggle gave has expired"),
])  # fmt: skip
def test_a_download_that_always_breaks_off_is_given_up(here, kaggle, trouble, words):
    kaggle.script["GET"] = ALL(trouble)
    assert "rules" not in refused(TAR, words)
    assert kaggle.requests == [LOGIN, *FETCHED[1:] * 4]
    assert here == [1, 4, 16]


@pytest.mark.parametrize(("operation", "asked"), [("DownloadDataFile", [LOGIN, *[ASK] * 3]), (LOGIN, [LOGIN] * 3)])
def test_a_server_that_says_nothing_is_given_up(here, kaggle, operation, asked):
    kaggle.script[operation] = ALL(Trouble(silent=True))
    refused("does not answer")
    assert kaggle.requests == asked


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


@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_certificates_that_is_no_file_is_told(https, kaggle, monkeypatch, name, key):
    monkeypatch.setenv(name, "/no/such/file.pem")
    if key:  # which is not asked for before the download
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        monkeypatch.setenv("KAGGLE_USERNAME", "someone")
        monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert "credentials" not in refused("REQUESTS_CA_BUNDLE", "unset it")
    assert (kaggle.requests, https) == ([], [])


def test_a_proxy_that_wants_a_login_is_told(https, kaggle):
    refused("the proxy wants a login", "HTTPS_PROXY")
    assert (kaggle.requests, https) == (["CONNECT"], [])


def test_a_proxy_that_wants_a_login_for_http_is_told(here, kaggle):
    kaggle.script[LOGIN] = ALL(Trouble(407))
    refused("the proxy wants a login", "HTTPS_PROXY")
    assert kaggle.requests == [LOGIN]


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
