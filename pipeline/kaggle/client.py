"""Kaggle through its own client, with timeouts and retries, in silence, and one sentence for whatever goes wrong.

The client (kaggle 2.2.5) waits for ever, gives up at the first HTTP 429 or 5xx, prints its manual where credentials are
missing, and of a failed upload reports no error. No secret and no signed address leaves this module.
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
from urllib3.exceptions import HTTPError as ConnectionTrouble
from urllib3.util import Retry

from pipeline.errors import UserError

SITE = "https://www.kaggle.com"
TIMEOUT = (10, 60)  # seconds: to connect, and between two bytes
CREATE = "/CreateSubmission"  # the call that must not happen twice
UPLOAD_FAILED = "Could not submit to competition"  # the client's message, with ref 0, as if nothing were wrong
CLOSED = re.compile(r"deadline|closed|has ended|is over|not accept|no longer|submission not allowed", re.IGNORECASE)
FIXABLE = re.compile(r"rules|allowance|limit|today|phone|verif|descri", re.IGNORECASE)  # by the user, so not closed
CREDENTIALS = (
    f"make a token at {SITE}/settings/api and put it into ~/.kaggle/access_token or KAGGLE_API_TOKEN; a token goes "
    "before a key in kaggle.json, so remove one that does not work"
)
# What the client raises where something else than Kaggle answers, such as the login page of a network.
STRANGE = (RequestException, ConnectionTrouble, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
_send = HTTPAdapter.send


class Patience(Retry):
    """Tries again, and tells the user so."""

    def sleep(self, response: Any = None) -> None:
        """Pause before the next try."""
        print("Kaggle does not answer: trying again", file=sys.stderr, flush=True)
        super().sleep(response)


RETRY = Patience(total=5, read=2, other=2, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504),
                 allowed_methods=None, raise_on_status=False, respect_retry_after_header=False)  # fmt: skip


class Unsure(UserError):
    """Kaggle gave no answer, so the submission may have arrived all the same."""


class NotAccepted(UserError):
    """The competition takes no submission (now)."""


@contextlib.contextmanager
def _sending(send: Callable[..., Response]) -> Iterator[None]:
    """Let every request of this process be sent by `send`: the client makes sessions in many places."""
    before = HTTPAdapter.send
    HTTPAdapter.send = send  # type: ignore[method-assign]
    try:
        yield
    finally:
        HTTPAdapter.send = before  # type: ignore[method-assign]


def _not_yet(*_: Any, **__: Any) -> Response:
    raise requests.ConnectionError("the import of a module is no time to talk to Kaggle")


def _patiently(adapter: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, **rest: Any) -> Response:
    """HTTPAdapter.send with timeouts and retries; raises HTTPError for what Kaggle refuses."""
    adapter.max_retries = Retry(0, read=False) if CREATE in request.url else RETRY
    response = _send(adapter, request, stream=stream, timeout=timeout or TIMEOUT, **rest)
    if request.method == "POST" and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
        # Some refusals have their status in the text alone.
        code = str(response.json().get("code")) if response.content else ""
        response.status_code = int(code) if code.isdecimal() and int(code) >= 400 else 200
    response.raise_for_status()
    return response


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
        self.secrets: set[str] = set()
        os.environ.pop("VERBOSE", None)  # by which the client prints its headers, with the token
        try:
            with contextlib.redirect_stdout(None), _sending(_not_yet):
                from kaggle.api.kaggle_api_extended import KaggleApi
                from kagglesdk.kaggle_env import get_access_token_from_env

            self.api: Any = KaggleApi()
            with self.explained("the login"):
                self.api.authenticate()
                token, _ = get_access_token_from_env()
        except (SystemExit, OSError):  # the text of an OSError may hold the token
            raise UserError(f"there are no Kaggle credentials that work: {CREDENTIALS}; or {otherwise}") from None
        self.secrets = {str(each) for each in (token, *map(self.api.config_values.get, ("token", "key"))) if each}

    def clean(self, text: object) -> str:
        """What Kaggle says, on one line, without control characters, addresses (they bear signatures) and secrets."""
        words = re.sub(r"\w+://\S+", "(address)", str(text or ""))
        for secret in self.secrets:
            words = words.replace(secret, "(secret)")
        return " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())[:300]

    def words(self, response: Response) -> str:
        """Kaggle's own words for a refusal, in quotation marks; "" where it has none."""
        try:
            return f' ("{self.clean(response.json()["message"])}")'
        except STRANGE:
            return ""

    @contextlib.contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Silence what the client prints while it does `what`, and turn what it raises into one sentence."""
        try:
            with contextlib.redirect_stdout(None):
                yield
        except HTTPError as trouble:
            raise self._refused(what, trouble.response) from None
        except (*STRANGE, OSError) as trouble:
            if isinstance(trouble, OSError) and trouble.errno is not None:
                raise  # the disk's
            kind = Unsure if CREATE in str(getattr(getattr(trouble, "request", None), "url", CREATE)) else UserError
            raise kind(
                f"{what}: Kaggle cannot be reached, or something else answers ({type(trouble).__name__}): look after "
                f"the network and its proxy (docs/howto.md#kaggle), and run this again; or {self.otherwise}"
            ) from None

    def _refused(self, what: str, response: Any) -> UserError:
        """What Kaggle refused, and what to do about it."""
        status = response.status_code
        advice = {
            401: CREDENTIALS,
            403: f"accept the rules at {self.page}/rules, and see whether data.slug in params.yaml is right",
            404: "see whether data.slug in params.yaml is right",
            429: "wait some minutes and run this again",
        }.get(status, "run this again later")
        if response.request.method == "GET":
            advice = "the link that Kaggle gave has expired or is broken: run this again"
        kind = Unsure if CREATE in response.url and status >= 500 else UserError
        return kind(f"{what}: HTTP {status}{self.words(response)}: {advice}; or {self.otherwise}")

    def download(self, name: str, folder: Path) -> None:
        """Fetch one file into `folder`, unzipped where Kaggle zips it.

        Where the connection breaks, it goes on from there. Raises UserError.
        """
        with self.explained(name):
            quiet = not sys.stderr.isatty()  # else there is a bar
            self.api.competition_download_file(self.slug, name, str(folder), quiet=quiet, unzip=True)

    def remaining(self) -> int | None:
        """How many entries are left today; None where Kaggle does not say (as before an account's first one)."""
        try:
            with self.explained("today's entries"):
                limits = self.api.competition_get_submission_limits(self.slug)
                return int(limits.num_allowed_now) if limits.num_allowed_now or limits.num_total else None
        except UserError:
            return None

    def submissions(self) -> list[dict[str, Any]]:
        """The account's submissions, newest first: ref, date, message, status, public_score, private_score, error."""
        found: dict[int, dict[str, Any]] = {}
        with self.explained("the list of submissions"):
            for page in itertools.count(1):
                listed = self.api.competition_submissions(self.slug, page_number=page, page_size=100) or []
                new = {int(each.ref): self._answer(each) for each in listed if each.ref not in found}
                if not new:
                    break
                found |= new
        return list(found.values())

    def _answer(self, each: Any) -> dict[str, Any]:
        """One submission, from the client's type."""
        return {
            "ref": int(each.ref),
            "date": each.date.strftime("%Y-%m-%dT%H:%M:%SZ") if each.date else None,
            "message": self.clean(each.description),
            "status": str(getattr(each.status, "name", each.status)),
            "public_score": float(each.public_score) if each.public_score else None,
            "private_score": float(each.private_score) if each.private_score else None,
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
                response: Any = trouble.response
                status, words = response.status_code, self.words(response)
                if status == 404 or (status in (400, 403) and CLOSED.search(words) and not FIXABLE.search(words)):
                    raise NotAccepted(f"HTTP {status}{words}") from None
                raise
            if UPLOAD_FAILED in str(answer.message):
                raise UserError(f"{path}: the upload failed: run this again; or {self.otherwise}")
            return int(answer.ref or "no number")  # then a ValueError, so it is unsure


@contextlib.contextmanager
def connect(slug: str, otherwise: str) -> Iterator[Kaggle]:
    """Log in to Kaggle, for as long as the block lasts."""
    with _sending(_patiently):
        yield Kaggle(slug, otherwise)
