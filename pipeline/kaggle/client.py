"""Kaggle through its own client, with timeouts and retries, in silence, and one sentence for whatever goes wrong.

What the client (kaggle 2.2.5) leaves to its caller stands here and nowhere else. It waits for ever, and gives up at the
first HTTP 429 or 5xx. It prints its manual where credentials are missing, and lets a bad token hide a good key. Of a
failed upload it reports no error. No secret and no signed address leaves this module.
"""

import contextlib
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import requests
from requests import HTTPError, RequestException, Response
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import ConnectTimeoutError, InvalidHeader, MaxRetryError, NewConnectionError
from urllib3.exceptions import HTTPError as ConnectionTrouble
from urllib3.util import Retry

from pipeline.data.archives import LARGEST
from pipeline.errors import UserError

SITE = "https://www.kaggle.com"
SETTINGS = f"{SITE}/settings/api"
TIMEOUT = (10, 60)  # seconds: to connect, and between two bytes
TRIES = 5  # of a request after the first
LONGEST_PAUSE = 120  # seconds that Kaggle may ask for (Retry-After); after that the user had better come back
PAUSES = (1, 4, 16)  # seconds before a file is fetched again whose connection broke
UPLOAD_FAILED = "Could not submit to competition"  # the client's message, with ref 0, as if nothing were wrong
BUSY = (429, 500, 502, 503, 504)
PAGE_SIZES = 20, 100  # of Kaggle's list of submissions: the smallest that a full page may have, and what is asked for
CLOSED = re.compile(r"deadline|closed|has ended|is over|not accept|no longer|submission not allowed", re.IGNORECASE)
FIXABLE = re.compile(r"rules|allowance|limit|today|phone|verif|descri", re.IGNORECASE)  # by the user, so not closed
# What the client raises where something else than Kaggle answers, or Kaggle sends on to a place that is none.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ConnectionTrouble, requests.TooManyRedirects,
             requests.exceptions.ContentDecodingError)  # fmt: skip
SECRETS = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")  # in ~/.kaggle
# What keeps Kaggle away for as long as this machine's settings are as they are: pattern of the error, cause and cure.
CURES = (
    (r"CA certificate bundle|NO_CERTIFICATE_OR_CRL", "REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) names no file of "
     "certificates: correct or unset it"),
    ("SOCKS", "a SOCKS proxy needs PySocks: .venv/bin/python -m pip install pysocks; or name an HTTP proxy in "
     "HTTPS_PROXY"),
    ("(HTTP|failed:) 407", "the proxy wants a login: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"),
    (r"Tunnel connection failed: 4\d\d", "the proxy in HTTPS_PROXY does not let this machine through to Kaggle"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted here, as where a proxy reads along: let "
     "REQUESTS_CA_BUNDLE name the file of your network's certificates, or set this machine's clock"),
)  # fmt: skip
_send = HTTPAdapter.send


class Unsure(UserError):
    """Kaggle gave no answer, so what was asked for may have happened all the same."""


class Missing(UserError):
    """Kaggle has no such thing."""


class NotAccepted(UserError):
    """The competition takes no submission (now)."""


def _cure(trouble: object) -> str:
    """Cause and cure of what this machine's settings bring about; "" for other trouble."""
    return next((cure for pattern, cure in CURES if re.search(pattern, str(trouble))), "")


class Patience(Retry):
    """Tries again what may well work the next time, after the pause that Kaggle asks for, and tells the user.

    A submission is created once: it is tried again only where it certainly did not reach Kaggle.
    """

    def __init__(self, **rest: Any) -> None:
        rest = {"total": TRIES, "read": 2, "backoff_factor": 1, "status_forcelist": BUSY, "allowed_methods": None,
                "raise_on_status": False, **rest}  # fmt: skip
        super().__init__(**rest)

    def increment(self, method: Any = None, url: Any = None, response: Any = None, error: Any = None,
                  _pool: Any = None, _stacktrace: Any = None) -> Self:  # fmt: skip
        """As urllib3 has it, but what must not be repeated, or only after too long a pause, ends here."""
        refused = response is not None and response.status == 429
        unreached = isinstance(error, NewConnectionError | ConnectTimeoutError)
        if str(url).split("?")[0].endswith("/CreateSubmission") and not refused and not unreached:
            raise MaxRetryError(_pool, url, error)
        if _cure(error) or (response is not None and (self.get_retry_after(response) or 0) > LONGEST_PAUSE):
            raise MaxRetryError(_pool, url, error)
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def parse_retry_after(self, retry_after: str) -> float:
        """Seconds; 0 for what cannot be read."""
        try:
            return super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0

    def sleep(self, response: Any = None) -> None:
        """Pause before the next try, and tell the user."""
        last = self.history[-1]
        pause = (self.get_retry_after(response) if response else None) or self.get_backoff_time()
        trouble = f"HTTP {last.status}" if last.status else f"no answer ({type(last.error).__name__})"
        soon = f"in {pause:.0f} s" if pause else "at once"
        print(f"Kaggle: {trouble}; trying again {soon}", file=sys.stderr, flush=True)
        super().sleep(response)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let `value` stand for an attribute of `owner`, for as long as the block lasts."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _not_yet(*_: Any, **__: Any) -> Response:
    raise requests.ConnectionError("the import of a module is no time to talk to Kaggle")


def _patiently(adapter: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, **rest: Any) -> Response:
    """HTTPAdapter.send with timeouts and retries, for the whole process: the client makes sessions in many places.

    What Kaggle refuses raises HTTPError here, also where only the text of the answer has the status. The client would
    parse the text first, which may be empty, and would take {"code": 403} for an empty list.
    """
    adapter.max_retries = Patience()
    response = _send(adapter, request, stream=stream, timeout=timeout or TIMEOUT, **rest)
    if request.method == "POST" and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
        answer = response.json() if response.content else {}
        if not isinstance(answer, dict):
            raise ValueError("Kaggle answers with objects")
        code = str(answer.get("code"))
        response.status_code = int(code) if code.isdecimal() and int(code) >= 400 else 200
    response.raise_for_status()
    return response


def _token() -> tuple[str | None, str | None]:
    """The access token that the client would use, and what it calls its place."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    found: tuple[str | None, str | None] = get_access_token_from_env()
    return found


def _by_link(trouble: RequestException) -> bool:
    """Whether it came from the link to a file, not from the client's own calls, which are all POST."""
    return trouble.request is not None and trouble.request.method == "GET"


def _creating(trouble: Exception) -> bool:
    """Whether it befell the call that makes a submission, or an unknown one."""
    request = getattr(trouble, "request", None)
    return request is None or "/CreateSubmission" in str(request.url)


def _may_pass(trouble: RequestException) -> bool:
    """Whether a file whose download broke off, or whose link had expired, may well arrive at the next try."""
    if isinstance(trouble, HTTPError):
        return _by_link(trouble)
    gave_up = bool(trouble.args) and isinstance(trouble.args[0], MaxRetryError)
    broken = isinstance(trouble, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)
    return broken and not gave_up


def _warn_of_readers(paths: Iterable[Path]) -> None:
    """Tell where others on this machine can read a secret."""
    for path in dict.fromkeys(paths):
        if path.is_file() and path.stat().st_mode & 0o044:
            print(f"warning: {path} can be read by others on this machine: chmod 600 {path}", file=sys.stderr)


def _prepare_environment(home: Path) -> None:
    """Mend what would keep the client from working, or let it print the token."""
    for noisy in ("VERBOSE", "VERBOSE_OUTPUT"):
        os.environ.pop(noisy, None)
    if token := os.environ.get("KAGGLE_API_TOKEN", "").strip():
        os.environ["KAGGLE_API_TOKEN"] = token  # without the newline that a copy brings along
    places = [home / ".kaggle", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "kaggle")]
    if not any(place.exists() for place in places):  # else it makes one, which fails where the home is read-only
        os.environ.setdefault("KAGGLE_CONFIG_DIR", str(Path(__file__).parent))


def _no_credentials(files: list[Path]) -> str:
    useless = "".join(f" ({path} holds none that works)" for path in files if path.exists())
    return (
        f"no Kaggle credentials{useless}: make a token at {SETTINGS} and put it into ~/.kaggle/access_token or "
        "KAGGLE_API_TOKEN (or the older kaggle.json into ~/.kaggle/, or KAGGLE_USERNAME and KAGGLE_KEY; or log "
        "in with: .venv/bin/kaggle auth login)"
    )


class Kaggle:
    """One competition on Kaggle, logged in.

    Parameters
    ----------
    slug : the competition's name in its address.
    otherwise : how to go on without Kaggle; every UserError ends with it.
    """

    def __init__(self, slug: str, otherwise: str) -> None:
        self.slug, self.otherwise = slug, otherwise
        self.page = f"{SITE}/competitions/{slug}"
        self.api: Any = None
        self.secrets: set[str] = set()
        self._login()

    def _login(self) -> None:
        """Log in with what the client finds: a token, else a key, else a login in the browser."""
        home = Path(os.path.expanduser("~"))
        _prepare_environment(home)
        files = [home / ".kaggle" / name for name in SECRETS]
        try:
            # The import itself looks for credentials and asks Kaggle.
            with contextlib.redirect_stdout(None), _replaced(HTTPAdapter, "send", _not_yet):
                from kaggle.api.kaggle_api_extended import KaggleApi
                from kagglesdk.kaggle_creds import KaggleCredentials

            self.api = KaggleApi()
            _warn_of_readers([Path(KaggleApi.config), *files, Path(os.environ.get("KAGGLE_API_TOKEN", "")[:255])])
            # It would throw an expired login away, and with it what the user could look at.
            with self.explained("Kaggle", nonsense=()), _replaced(KaggleCredentials, "delete", lambda *_: None):
                self.api.authenticate()
            token, _ = _token()
            self.secrets = {str(each) for each in (token, *map(self.api.config_values.get, ("token", "key"))) if each}
        except SystemExit:
            raise UserError(
                f"{self._rejected() if _token()[0] else _no_credentials(files)}; or {self.otherwise}"
            ) from None
        except (OSError, RecursionError, *MALFORMED) as trouble:  # its text may hold the token
            raise UserError(
                f"the Kaggle credentials cannot be read ({type(trouble).__name__}): see whether KAGGLE_API_TOKEN and "
                f"the files in ~/.kaggle are whole (a new token: {SETTINGS}), and whether it is Kaggle that answers, "
                f"not a login page of this network; or {self.otherwise}"
            ) from None
        if token and self.api.config_values.get("token") != token:  # the client goes on with a key that it never uses
            raise UserError(f"{self._rejected()}; or {self.otherwise}")

    def _rejected(self) -> str:
        """What to do about credentials that Kaggle does not accept."""
        with contextlib.redirect_stdout(None):
            known = self.api.read_config_environment(self.api.read_config_file(quiet=True))
        has_key = {"username", "key"} <= known.keys()
        token, place = _token()
        if token:
            where = "KAGGLE_API_TOKEN" if place == "KAGGLE_API_TOKEN" else "~/.kaggle/access_token"
            hidden = "; or remove it: while it is there, the key in kaggle.json or KAGGLE_KEY is not used"
            advice = f"Kaggle does not accept the token in {where}: make a new one at {SETTINGS}"
            return advice + (hidden if has_key else "")
        which = "key in kaggle.json or KAGGLE_KEY" if has_key else "login in ~/.kaggle/credentials.json"
        return f"Kaggle does not accept the {which}: make a new token at {SETTINGS}"

    def clean(self, text: object) -> str:
        """What Kaggle says, on one line, without control characters, addresses (they bear signatures) and secrets."""
        words = re.sub(r"\w+://\S+", "(address)", str(text or ""))
        for secret in self.secrets:
            words = words.replace(secret, "(secret)")
        return " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())[:300]

    def _words(self, response: Response | None) -> tuple[int, str]:
        """The status of Kaggle's answer, and Kaggle's own words."""
        if response is None:
            return 0, ""
        try:
            return response.status_code, self.clean(response.json().get("message"))
        except MALFORMED:
            return response.status_code, ""

    @contextlib.contextmanager
    def explained(self, what: str, nonsense: tuple[type[Exception], ...] = MALFORMED) -> Iterator[None]:
        """Silence what the client prints while it does `what`, and turn what it raises into one sentence.

        Parameters
        ----------
        nonsense : what the client raises where an answer is not one of Kaggle's.
        """
        try:
            with contextlib.redirect_stdout(None):
                yield
        except HTTPError as trouble:
            raise self._refused(what, trouble) from None
        except (RequestException, OSError) as trouble:
            if not isinstance(trouble, RequestException) and not _cure(trouble):
                raise  # the disk's
            raise self._unheard(what, trouble) from None
        except nonsense as trouble:
            raise self._unheard(what, trouble) from None

    def _unheard(self, what: str, trouble: Exception) -> UserError:
        """Why Kaggle is not heard, in one sentence."""
        name = type(trouble).__name__
        if cure := _cure(trouble):
            advice = f"Kaggle cannot be reached: {cure}"
        elif isinstance(trouble, MALFORMED):
            advice = (
                f"what answers does not speak like Kaggle ({name}): see whether a proxy or a login page of this "
                "network stands before it, and run this again"
            )
        else:
            advice = f"Kaggle cannot be reached or does not answer ({name}): look after the network, run this again"
        return (Unsure if _creating(trouble) else UserError)(f"{what}: {advice}; or {self.otherwise}")

    def _refused(self, what: str, trouble: HTTPError) -> UserError:
        """What Kaggle refused, in one sentence."""
        status, words = self._words(trouble.response)
        quoted = f' ("{words}")' if words else ""
        open_end = _creating(trouble) and (status >= 500 or status == 408)
        kind = Missing if status == 404 and not _by_link(trouble) else Unsure if open_end else UserError
        return kind(f"{what}: HTTP {status}{quoted}: {self._advice(status, words, trouble)}; or {self.otherwise}")

    def _advice(self, status: int, words: str, trouble: HTTPError) -> str:
        """What to do about an HTTP status."""
        accept = f"open {self.page}/rules (or {self.page}/data, where it asks too) and accept the competition's rules"
        if cure := _cure(f"HTTP {status}"):
            return cure
        if _by_link(trouble):
            return "the link that Kaggle gave has expired or is broken: run this again"
        if status == 401:
            return self._rejected()
        if status == 403 and "rules" in words.lower():
            return accept
        if status == 403:
            return (
                f"this account may not enter {self.slug}: see whether data.slug in params.yaml is right, then {accept}"
            )
        if status == 404:
            return f"Kaggle has no such thing: see whether data.slug in params.yaml is right ({self.page})"
        if status == 429:
            asked = trouble.response.headers.get("Retry-After", "") if trouble.response is not None else ""
            pause = Patience().parse_retry_after(asked)
            return f"Kaggle asks for a pause: run this again in {f'{pause:.0f} s' if pause else 'some minutes'}"
        return "Kaggle did not take it" if status < 500 else "Kaggle has trouble of its own: run this again later"

    def download(self, name: str, folder: Path) -> Path:
        """Fetch one file; return where it lies: `folder`/NAME or, as Kaggle zips some, NAME.zip.

        Where the connection breaks or the link expires, it starts again with a new link. (The client's own function
        goes on with the old one: it has been seen to end with another text of the right size.) Raises Missing where
        Kaggle has no such file, and UserError.
        """
        with self.explained(name):
            for pause in (*PAUSES, None):
                try:
                    return self._stream(name, folder)
                except RequestException as trouble:
                    if pause is None or not _may_pass(trouble):
                        raise
                print(f"{name}: the connection broke; starting again in {pause} s", file=sys.stderr, flush=True)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _stream(self, name: str, folder: Path) -> Path:
        """Fetch one file, once."""
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest

        request = ApiDownloadDataFileRequest()
        request.competition_name, request.file_name = self.slug, name
        with self.api.build_kaggle_client() as client:
            response: Response = client.competitions.competition_api_client.download_data_file(request)
            kind, length = response.headers.get("Content-Type", ""), response.headers.get("Content-Length", "")
            size, free = int(length) if length.isdecimal() else 0, shutil.disk_usage(folder).free
            if response.status_code != 200 or response.request.method != "GET" or "html" in kind or "json" in kind:
                raise ValueError("this is no file")
            if size > free:
                raise UserError(f"{name} has {size:,} bytes, but the disk has only {free:,} left: make room, run again")
            path = folder / (f"{name}.zip" if response.url.split("?")[0].endswith(".zip") else name)
            bar = tqdm(total=size or None, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
            with bar, open(path, "wb") as file:
                for block in response.iter_content(2**18):
                    if file.tell() + len(block) > LARGEST:
                        raise UserError(f"{name} has more than {LARGEST:,} bytes, which is no competition file")
                    file.write(block)
                    bar.update(len(block))
                if not file.tell():
                    raise ValueError("this file is empty")
        return path

    def remaining(self) -> int | None:
        """How many entries are left today; None where Kaggle does not say (as before an account's first one)."""
        try:
            with self.explained("today's entries"):
                limits = self.api.competition_get_submission_limits(self.slug)
                return int(limits.num_allowed_now) if limits.num_allowed_now or limits.num_total else None
        except UserError:
            return None

    def submissions(self, everything: bool = True) -> list[dict[str, Any]]:
        """The account's submissions, newest first: ref, date, message, status, public_score, private_score, error.

        Parameters
        ----------
        everything : all of them, or those of the first page.
        """
        smallest, size = PAGE_SIZES
        found: dict[int, dict[str, Any]] = {}
        with self.explained("the list of submissions"):
            for page in range(1, 100 if everything else 2):
                listed = self.api.competition_submissions(self.slug, page_number=page, page_size=size) or []
                new = [each for each in listed if each and each.ref not in found]
                found |= {each.ref: self._answer(each) for each in new}
                if len(listed) < smallest or not new:
                    break
        return list(found.values())

    def _answer(self, each: Any) -> dict[str, Any]:
        """One submission, from the client's type."""
        return {
            "ref": int(each.ref),
            "date": each.date.strftime("%Y-%m-%dT%H:%M:%SZ") if each.date else None,
            "message": self.clean(each.description),
            "status": str(getattr(each.status, "name", each.status)),
            "public_score": _score(each.public_score),
            "private_score": _score(each.private_score),
            "error": self.clean(each.error_description) or None,
        }

    def submit(self, path: Path, message: str) -> int:
        """Upload a submission; return Kaggle's number for it.

        Raises NotAccepted where the competition takes none, Unsure where it may have arrived, and UserError.
        """
        with self.explained(str(path)):
            try:
                answer = self.api.competition_submit(str(path), message, self.slug, quiet=True)
            except HTTPError as trouble:
                status, words = self._words(trouble.response)
                if status == 404 or (status in (400, 403) and CLOSED.search(words) and not FIXABLE.search(words)):
                    raise NotAccepted(f"HTTP {status}" + (f': "{words}"' if words else "")) from None
                raise
            if UPLOAD_FAILED in str(answer.message):
                raise UserError(f"{path}: the upload failed ({UPLOAD_FAILED}): run this again; or {self.otherwise}")
            if not answer.ref:
                raise Unsure(f"{path}: Kaggle gives it no number ({self.clean(answer.message) or 'and says nothing'})")
            return int(answer.ref)


def _score(text: object) -> float | None:
    """A score as a number; None where there is none yet."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@contextlib.contextmanager
def connect(slug: str, otherwise: str) -> Iterator[Kaggle]:
    """Log in to Kaggle, for as long as the block lasts."""
    with _replaced(HTTPAdapter, "send", _patiently):
        yield Kaggle(slug, otherwise)
