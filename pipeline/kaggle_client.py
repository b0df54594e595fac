"""Log in to Kaggle, and say in one sentence what Kaggle refuses."""

import contextlib
from collections.abc import Iterator
from typing import Any

from pipeline.command import Refusal
from pipeline.competition import SLUG

PAGE = f"https://www.kaggle.com/competitions/{SLUG}"


def login(otherwise: str) -> Any:
    """Return the kaggle client's API object, logged in.

    It is imported here because the import itself looks for credentials, and with a token even talks to Kaggle.

    Parameters
    ----------
    otherwise : how to go on without Kaggle, for the Refusal that is raised where there are no credentials.
    """
    try:
        with explained("Kaggle", otherwise), contextlib.redirect_stdout(None):  # else it prints its manual
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.authenticate()
            return api
    except (SystemExit, ValueError, OSError):
        raise Refusal(
            "no Kaggle credentials: make a token at https://www.kaggle.com/settings and put it into "
            "~/.kaggle/access_token or KAGGLE_API_TOKEN (or the older kaggle.json into ~/.kaggle/, or KAGGLE_USERNAME "
            f"and KAGGLE_KEY); or {otherwise}"
        ) from None


@contextlib.contextmanager
def explained(what: str, otherwise: str) -> Iterator[None]:
    """Turn what the kaggle client raises while it does `what` into one sentence that ends with `otherwise`."""
    import requests

    try:
        yield
    except requests.HTTPError as trouble:
        status = trouble.response.status_code if trouble.response is not None else 0
        advice = {
            401: "Kaggle does not know this token: make a new one at https://www.kaggle.com/settings",
            403: f"Kaggle refuses it: open {PAGE}/rules and accept the competition's rules",
            404: "Kaggle has no such thing",
            429: "Kaggle asks for a pause: run this again in some minutes",
        }
        raise Refusal(f"{what}: HTTP {status}: {advice.get(status, 'run this again later')}; or {otherwise}") from None
    except requests.RequestException as trouble:
        raise Refusal(f"{what}: cannot reach Kaggle ({type(trouble).__name__}): try again; or {otherwise}") from None
