"""How a file gets new content so that no moment, crash or full disk leaves half of it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Give `path` new content in a single step: there is the old file or the whole new one, and never another.

    Parameters
    ----------
    fill : writes the content to a binary file. What it raises (OSError on a full disk) leaves the old file alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with open(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(handle)  # on the disk before it takes the old one's place
        os.chmod(part, 0o666 & ~_umask())  # as if opened in the ordinary way
        os.replace(part, path)
    except BaseException as trouble:
        Path(part).unlink(missing_ok=True)
        if isinstance(trouble, OSError):
            trouble.filename = str(path)
        raise


def write(path: Path, content: bytes) -> None:
    """Give `path` this `content` in a single step."""
    replace(path, lambda file: file.write(content))


def write_json(path: Path, content: object) -> None:
    """Give `path` this `content` as JSON that people can read, in a single step."""
    write(path, as_json(content))


def as_json(content: object) -> bytes:
    """`content` as JSON that people can read."""
    return (json.dumps(content, indent=2) + "\n").encode()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
