"""Kaggle's API through its official client, with timeouts, retries, no output and one-sentence errors.

The client (kaggle 2.2.5) has no timeouts, gives up at the first HTTP 429 or 5xx, prints its manual if credentials are
missing, and reports no error if an upload fails. Secrets and signed addresses never leave this module.
"""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from requests import HTTPError, RequestException, Response
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as ConnectionFailure
from urllib3.util import Retry

from pipeline.errors import UserError

SITE = "https://www.kaggle.com"
TIMEOUT = (10, 60)  # seconds: to connect, and between two bytes
CREATE = "/CreateSubmission"  # the call that must not be repeated
UPLOAD_FAILED = "Could not submit to competition"  # the client returns this message with ref 0 instead of raising
CLOSED = re.compile(r"deadline|closed|has ended|is over|not accept|no longer|submission not allowed", re.IGNORECASE)
FIXABLE = re.compile(r"rules|allowance|limit|today|phone|verif|descri", re.IGNORECASE)  # by the user, so not closed
CREDENTIALS = (
    f"create a token at {SITE}/settings/api and save it in ~/.kaggle/access_token or set KAGGLE_API_TOKEN; a token "
    "takes precedence over the key in kaggle.json, so remove a token that does not work"
)
# Raised by the client if the response is not Kaggle's, for example the login page of a network.
UNEXPECTED = (RequestException, ConnectionFailure, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
_send = HTTPAdapter.send


class AnnouncedRetry(Retry):
    """Retry policy that reports each retry to the user."""

    def sleep(self, response: Any = None) -> None:
        """Report the retry, then pause."""
        print("The request to Kaggle failed: trying again", file=sys.stderr, flush=True)
        super().sleep(response)


RETRY = AnnouncedRetry(total=5, read=2, other=2, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504),
                       allowed_methods=None, raise_on_status=False, respect_retry_after_header=False)  # fmt: skip


class Unconfirmed(UserError):
    """Error without a response from Kaggle: the submission may have arrived."""


class NotAccepted(UserError):
    """Error of a competition that accepts no submissions."""


@contextlib.contextmanager
def _sending(send: Callable[..., Response]) -> Iterator[None]:
    """Replace HTTPAdapter.send in this process: the client creates sessions in many places."""
    original = HTTPAdapter.send
    HTTPAdapter.send = send  # type: ignore[method-assign]
    try:
        yield
    finally:
        HTTPAdapter.send = original  # type: ignore[method-assign]


def _refuse(*_: Any, **__: Any) -> Response:
    raise requests.ConnectionError("no requests while the client is imported")


def _retrying(adapter: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, **rest: Any) -> Response:
    """Send a request with timeouts and retries. Raise HTTPError if Kaggle refuses it."""
    adapter.max_retries = Retry(0, read=False) if CREATE in request.url else RETRY
    response = _send(adapter, request, stream=stream, timeout=timeout or TIMEOUT, **rest)
    if request.method == "POST" and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
        # Some refusals have status 200, and their real status only in the body.
        code = str(response.json().get("code")) if response.content else ""
        response.status_code = int(code) if code.isdecimal() and int(code) >= 400 else 200
    response.headers.pop("Retry-After", None)  # the client would sleep as long, however long
    response.raise_for_status()
    return response


class Kaggle:
    """Authenticated access to one competition on Kaggle.

    Parameters
    ----------
    slug : the competition's name in its address.
    alternative : how to continue without Kaggle; most errors end with it.
    """

    def __init__(self, slug: str, alternative: str) -> None:
        self.slug, self.alternative = slug, alternative
        self.page = f"{SITE}/competitions/{slug}"
        self.secrets: set[str] = set()
        os.environ.pop("VERBOSE", None)  # makes the client print its headers, with the token
        try:
            with contextlib.redirect_stdout(None), _sending(_refuse):  # the import logs in
                from kaggle.api.kaggle_api_extended import KaggleApi
                from kagglesdk.kaggle_env import get_access_token_from_env

            self.api: Any = KaggleApi()
            with self._errors_of("the login"):
                self.api.authenticate()
                token, _ = get_access_token_from_env()
        except ImportError as missing:
            raise UserError(f"{missing}; run make setup; or {alternative}") from None
        except (SystemExit, OSError):  # the text of an OSError may contain the token
            raise UserError(f"no valid Kaggle credentials: {CREDENTIALS}; or {alternative}") from None
        self.secrets = {str(each) for each in (token, *map(self.api.config_values.get, ("token", "key"))) if each}

    def _clean(self, text: object) -> str:
        """Return text from Kaggle on one line, without control characters, secrets and (signed) addresses."""
        clean = re.sub(r"\w+://\S+", "(address)", str(text or ""))
        for secret in self.secrets:
            clean = clean.replace(secret, "(secret)")
        return " ".join("".join(sign if sign.isprintable() else " " for sign in clean).split())[:300]

    def _reason(self, response: Response) -> str:
        """Return Kaggle's reason for a refusal, in quotation marks; "" if it states none."""
        try:
            return f' ("{self._clean(response.json()["message"])}")'
        except UNEXPECTED:
            return ""

    @contextlib.contextmanager
    def _errors_of(self, what: str) -> Iterator[None]:
        """Suppress the client's output during `what`, and convert its exceptions to a UserError of one sentence."""
        try:
            with contextlib.redirect_stdout(None):
                yield
        except HTTPError as error:
            raise self._refusal(what, error.response) from None
        except (*UNEXPECTED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk
            kind = Unconfirmed if CREATE in str(getattr(getattr(error, "request", None), "url", CREATE)) else UserError
            raise kind(
                f"{what}: Kaggle cannot be reached, or another server responded ({type(error).__name__}): check the "
                f"network and its proxy (docs/howto.md#kaggle), and run this again; or {self.alternative}"
            ) from None

    def _refusal(self, what: str, response: Any) -> UserError:
        """Return the error for a refused request, with advice."""
        status = response.status_code
        advice = {
            401: CREDENTIALS,
            403: f"accept the rules at {self.page}/rules, and check data.slug in params.yaml",
            404: "check data.slug in params.yaml",
            429: "wait some minutes and run this again",
        }.get(status, "run this again later")
        if response.request.method == "GET":
            advice = "the download link has expired or is broken: run this again"
        kind = Unconfirmed if CREATE in response.url and status >= 500 else UserError
        return kind(f"{what}: HTTP {status}{self._reason(response)}: {advice}; or {self.alternative}")

    def download(self, name: str, folder: Path) -> None:
        """Download one file into `folder`, and unzip it if Kaggle zips it.

        An interrupted transfer is resumed. Raises UserError.
        """
        with self._errors_of(name):
            quiet = not sys.stderr.isatty()  # no progress bar
            self.api.competition_download_file(self.slug, name, str(folder), quiet=quiet, unzip=True)

    def remaining(self) -> int | None:
        """Return how many submissions are left today; None if unknown (as before an account's first submission)."""
        try:
            with self._errors_of("today's submissions"):
                limits = self.api.competition_get_submission_limits(self.slug)
                return int(limits.num_allowed_now) if limits.num_allowed_now or limits.num_total else None
        except UserError:
            return None

    def submissions(self) -> list[dict[str, Any]]:
        """Return the account's submissions, newest first.

        Each has the keys ref, date, message, status, public_score, private_score and error.
        """
        submissions: dict[int, dict[str, Any]] = {}
        with self._errors_of("the list of submissions"):
            for page in itertools.count(1):
                listed = self.api.competition_submissions(self.slug, page_number=page, page_size=100) or []
                new = {int(each.ref): self._submission(each) for each in listed if each.ref not in submissions}
                if not new:
                    break
                submissions |= new
        return list(submissions.values())

    def _submission(self, listed: Any) -> dict[str, Any]:
        """Convert a submission of the client's type."""
        return {
            "ref": int(listed.ref),
            "date": listed.date.strftime("%Y-%m-%dT%H:%M:%SZ") if listed.date else None,
            "message": self._clean(listed.description),
            "status": str(getattr(listed.status, "name", listed.status)),
            "public_score": float(listed.public_score) if listed.public_score else None,
            "private_score": float(listed.private_score) if listed.private_score else None,
            "error": self._clean(listed.error_description) or None,
        }

    def submit(self, path: Path, message: str) -> int:
        """Upload a submission, and return its number on Kaggle.

        Raises
        ------
        NotAccepted : if the competition accepts no submissions.
        Unconfirmed : if the submission may have arrived.
        UserError : if Kaggle refuses it or the upload fails.
        """
        with self._errors_of(str(path)):
            try:
                result = self.api.competition_submit(str(path), message, self.slug, quiet=True)
            except HTTPError as error:
                response: Any = error.response
                status, reason = response.status_code, self._reason(response)
                if status == 404 or (status in (400, 403) and CLOSED.search(reason) and not FIXABLE.search(reason)):
                    raise NotAccepted(f"HTTP {status}{reason}") from None
                raise
            if UPLOAD_FAILED in str(result.message):
                raise UserError(f"{path}: the upload failed: run this again; or {self.alternative}")
            return int(result.ref or "no number")  # the ValueError becomes Unconfirmed


@contextlib.contextmanager
def connect(slug: str, alternative: str) -> Iterator[Kaggle]:
    """Log in to Kaggle for the duration of the block."""
    with _sending(_retrying):
        yield Kaggle(slug, alternative)
