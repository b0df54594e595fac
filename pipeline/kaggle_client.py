"""Kaggle, through its own client: with timeouts and retries, in silence, and every refusal explained in one sentence.

What the client (kaggle 2.2.4) leaves to its caller stands here and nowhere else: it waits for ever, gives up at the
first HTTP 429 or 5xx, prints its manual where credentials are missing, lets a bad token hide a good key, and says
of a failed upload that it went well. No secret and no signed address leaves this module.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import requests
from requests import HTTPError, RequestException, Response
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError
from urllib3.util import Retry

from pipeline.command import Refusal

SITE = "https://www.kaggle.com"
SETTINGS = f"{SITE}/settings/api"
TIMEOUT = (10, 60)  # seconds: to connect, and between two bytes
TRIES = 5  # of a request after the first
LONGEST_PAUSE = 120  # seconds that Kaggle may ask for (Retry-After); after that the user had better come back
PAUSES = (1, 4, 16)  # seconds before a file is fetched again whose connection broke
LARGEST = 2**30  # bytes of one file; the competition's largest has 0.3 * 2**30
UPLOAD_FAILED = "Could not submit to competition"  # the client's answer, with ref 0, as if nothing were wrong
BUSY = (429, 500, 502, 503, 504)
SECRETS = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")  # in ~/.kaggle
_send = HTTPAdapter.send


class Unsure(Refusal):
    """Kaggle gave no answer, so what was asked for may have happened all the same."""


class Missing(Refusal):
    """Kaggle has no such thing."""


class NotAccepted(Refusal):
    """The competition takes no submission (now)."""


class Patience(Retry):
    """Tries again what may well work the next time, after the pause that Kaggle asks for, and says so.

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
        if str(url).endswith("/CreateSubmission") and not refused and not unreached:
            raise MaxRetryError(_pool, url, error)
        if response is not None and (self.get_retry_after(response) or 0) > LONGEST_PAUSE:
            raise MaxRetryError(_pool, url)
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def sleep(self, response: Any = None) -> None:
        """Pause before the next try, and tell the user."""
        last = self.history[-1]
        pause = (self.get_retry_after(response) if response else None) or self.get_backoff_time()
        trouble = f"HTTP {last.status}" if last.status else f"no answer ({type(last.error).__name__})"
        print(
            f"Kaggle: {trouble}; trying again {f'in {pause:.0f} s' if pause else 'at once'}",
            file=sys.stderr,
            flush=True,
        )
        super().sleep(response)


@contextlib.contextmanager
def _sending(send: Callable[..., Response]) -> Iterator[None]:
    """Let `send` make every HTTP request of this process, since the client opens sessions of its own in many places."""
    original = HTTPAdapter.send
    HTTPAdapter.send = send  # type: ignore[method-assign]
    try:
        yield
    finally:
        HTTPAdapter.send = original  # type: ignore[method-assign]


def _not_yet(*_: Any, **__: Any) -> Response:
    raise requests.ConnectionError("the import of a module is no time to talk to Kaggle")


def _patiently(adapter: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, **rest: Any) -> Response:
    """HTTPAdapter.send with timeouts and retries."""
    adapter.max_retries = Patience()
    return _send(adapter, request, stream=stream, timeout=timeout or TIMEOUT, **rest)


def _token() -> tuple[str | None, str | None]:
    """The access token that the client would use, and what it calls its place."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    found: tuple[str | None, str | None] = get_access_token_from_env()
    return found


def _words(response: Response | None) -> tuple[int, str]:
    """The status of Kaggle's answer, and Kaggle's own words; not those of requests, where addresses have signatures."""
    if response is None:
        return 0, ""
    try:
        answer = response.json()
        return int(answer.get("code") or response.status_code), " ".join(str(answer.get("message", "")).split())[:300]
    except (ValueError, AttributeError, TypeError):
        return response.status_code, ""


def _by_link(trouble: RequestException) -> bool:
    """Whether it came from the link to a file, not from the client's own calls, which are all POST."""
    return trouble.request is not None and trouble.request.method == "GET"


def _warn_of_readers(paths: Iterable[Path]) -> None:
    """Tell where others on this machine can read a secret."""
    for path in dict.fromkeys(paths):
        if path.is_file() and path.stat().st_mode & 0o044:
            print(f"warning: {path} can be read by others on this machine: chmod 600 {path}", file=sys.stderr)


class Kaggle:
    """One competition on Kaggle, logged in.

    Parameters
    ----------
    slug : the competition's name in its address.
    otherwise : how to go on without Kaggle; every Refusal ends with it.
    """

    def __init__(self, slug: str, otherwise: str) -> None:
        self.slug, self.otherwise = slug, otherwise
        self.page = f"{SITE}/competitions/{slug}"
        self.api: Any = None
        self._login()

    def _login(self) -> None:
        """Log in. The client is imported here, as the import itself looks for credentials."""
        for noisy in ("VERBOSE", "VERBOSE_OUTPUT"):  # would let the client print the token
            os.environ.pop(noisy, None)
        try:
            with contextlib.redirect_stdout(None), _sending(_not_yet):
                from kaggle.api.kaggle_api_extended import KaggleApi
            self.api = KaggleApi()
            files = [Path(KaggleApi.config), *(Path.home() / ".kaggle" / name for name in SECRETS)]
            _warn_of_readers([*files, Path(os.environ.get("KAGGLE_API_TOKEN", "")[:255])])
            with self.explained("Kaggle"):
                self.api.authenticate()
            token, _ = _token()
        except SystemExit:
            if _token()[0]:
                raise Refusal(f"{self._rejected()}; or {self.otherwise}") from None
            useless = "".join(f" ({path} holds none)" for path in files if path.exists())
            raise Refusal(
                f"no Kaggle credentials{useless}: make a token at {SETTINGS} and put it into ~/.kaggle/access_token or "
                "KAGGLE_API_TOKEN (or the older kaggle.json into ~/.kaggle/, or KAGGLE_USERNAME and KAGGLE_KEY; or log "
                f"in with: .venv/bin/kaggle auth login); or {self.otherwise}"
            ) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as trouble:  # its text may hold the token
            raise Refusal(
                f"the Kaggle credentials cannot be read ({type(trouble).__name__}): put a token from {SETTINGS} into "
                f"~/.kaggle/access_token; or {self.otherwise}"
            ) from None
        if token and self.api.config_values.get("token") != token:  # the client goes on with a key that it never uses
            raise Refusal(f"{self._rejected()}; or {self.otherwise}")

    def _rejected(self) -> str:
        """What to do about credentials that Kaggle does not accept."""
        with contextlib.redirect_stdout(None):
            known = self.api.read_config_environment(self.api.read_config_file(quiet=True))
        token, place = _token()
        if token is None:
            return f"Kaggle does not accept the key in kaggle.json or KAGGLE_KEY: make a new token at {SETTINGS}"
        where = "KAGGLE_API_TOKEN" if place == "KAGGLE_API_TOKEN" else "~/.kaggle/access_token"
        hidden = "; or remove it: while it is there, the key in kaggle.json or KAGGLE_KEY is not used"
        return f"Kaggle does not accept the token in {where}: make a new one at {SETTINGS}" + (
            hidden if {"username", "key"} <= known.keys() else ""
        )

    @contextlib.contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Silence what the client prints while it does `what`, and turn what it raises into one sentence."""
        try:
            with contextlib.redirect_stdout(None):
                yield
        except HTTPError as trouble:
            status, words = _words(trouble.response)
            said = f' ("{words}")' if words else ""
            kind = Missing if status == 404 else Refusal if 400 <= status < 500 else Unsure
            advice = self._advice(status, words, trouble)
            raise kind(f"{what}: HTTP {status}{said}: {advice}; or {self.otherwise}") from None
        except RequestException as trouble:
            raise Unsure(
                f"{what}: Kaggle cannot be reached or does not answer ({type(trouble).__name__}): look after the "
                f"network and run this again; or {self.otherwise}"
            ) from None

    def _advice(self, status: int, words: str, trouble: HTTPError) -> str:
        """What to do about an HTTP status."""
        if _by_link(trouble):
            return "the link that Kaggle gave has expired or is broken: run this again"
        if status == 401:
            return self._rejected()
        accept = f"open {self.page}/rules (or {self.page}/data, where it asks too) and accept the competition's rules"
        if status == 403 and "rules" in words.lower():
            return accept
        if status == 403:
            return (
                f"this account may not enter {self.slug}: see whether data.slug in params.yaml is right, then {accept}"
            )
        if status == 404:
            return f"Kaggle has no such thing: see whether data.slug in params.yaml is right ({self.page})"
        if status == 429:
            pause = trouble.response.headers.get("Retry-After") if trouble.response is not None else None
            return f"Kaggle asks for a pause: run this again in {f'{pause} s' if pause else 'some minutes'}"
        return (
            "Kaggle did not take it" if 400 <= status < 500 else "Kaggle has trouble of its own: run this again later"
        )

    def download(self, name: str, folder: Path) -> Path:
        """Fetch one file; return where it lies: `folder`/NAME or, as Kaggle zips some, NAME.zip.

        Where the connection breaks or the link expires, it starts again with a new link. (The client's own function
        goes on with the old one: it has been seen to end with another text of the right size.) Raises Missing where
        Kaggle has no such file, and Refusal.
        """
        with self.explained(name):
            for pause in (*PAUSES, None):
                try:
                    return self._stream(name, folder)
                except RequestException as trouble:
                    gave_up = bool(trouble.args) and isinstance(trouble.args[0], MaxRetryError)
                    answered = isinstance(trouble, HTTPError) and not _by_link(trouble)
                    if pause is None or gave_up or answered:
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
            size, free = int(response.headers.get("Content-Length") or 0), shutil.disk_usage(folder).free
            if size > free:
                raise Refusal(f"{name} has {size:,} bytes, but the disk has only {free:,} left: make room, run again")
            path = folder / (f"{name}.zip" if response.url.split("?")[0].endswith(".zip") else name)
            bar = tqdm(total=size or None, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
            with bar, open(path, "wb") as file:
                for block in response.iter_content(2**18):
                    if file.tell() + len(block) > LARGEST:
                        raise Refusal(f"{name} has more than {LARGEST:,} bytes, which is no competition file")
                    file.write(block)
                    bar.update(len(block))
        return path

    def remaining(self) -> int | None:
        """How many entries are left today; None where Kaggle does not say (as before an account's first one)."""
        try:
            with self.explained("today's entries"):
                limits = self.api.competition_get_submission_limits(self.slug)
        except Refusal:
            return None
        return int(limits.num_allowed_now) if limits.num_allowed_now or limits.num_total else None

    def submissions(self) -> list[dict[str, Any]]:
        """The account's newest submissions: ref, date, message, status, public_score, private_score, error."""
        with self.explained("the list of submissions"):
            listed = self.api.competition_submissions(self.slug, page_size=100) or []
        return [
            {
                "ref": each.ref,
                "date": each.date.strftime("%Y-%m-%dT%H:%M:%SZ") if each.date else None,
                "message": each.description,
                "status": each.status.name,
                "public_score": _score(each.public_score),
                "private_score": _score(each.private_score),
                "error": each.error_description or None,
            }
            for each in listed
            if each
        ]

    def submit(self, path: Path, message: str) -> int:
        """Upload a submission; return Kaggle's number for it.

        Raises NotAccepted where the competition takes none, Unsure where it may have arrived, and Refusal.
        """
        with self.explained(str(path)):
            try:
                answer = self.api.competition_submit(str(path), message, self.slug, quiet=True)
            except HTTPError as trouble:
                status, words = _words(trouble.response)
                if status in (400, 404) or (status == 403 and "submission" in words.lower()):
                    raise NotAccepted(f"HTTP {status}" + (f': "{words}"' if words else "")) from None
                raise
        if not answer.ref or UPLOAD_FAILED in answer.message:
            said = answer.message or "no answer"
            raise Refusal(f"{path}: the upload failed ({said}): run this again; or {self.otherwise}")
        return int(answer.ref)


def _score(text: str | None) -> float | None:
    """A score as a number; None where there is none yet."""
    try:
        return float(text or "")
    except ValueError:
        return None


@contextlib.contextmanager
def connect(slug: str, otherwise: str) -> Iterator[Kaggle]:
    """Log in to Kaggle, for as long as the block lasts."""
    with _sending(_patiently):
        yield Kaggle(slug, otherwise)
