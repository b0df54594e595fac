from collections.abc import Iterator

import pytest

from pipeline import params


@pytest.fixture(autouse=True)
def _fresh_params() -> Iterator[None]:
    """Let no test see the params.yaml of another's folder: what is read is kept for the length of a command."""
    params.document.cache_clear()
    yield
    params.document.cache_clear()
