"""How files are written, in a single step each, and how trouble with reading one is told."""

import fcntl
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pydantic

from pipeline.errors import UserError

DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError,
          OverflowError, zipfile.BadZipFile, zlib.error)  # fmt: skip


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Read and check `path` inside of this: whatever is wrong becomes one UserError that ends with the remedy.

    Parameters
    ----------
    remedy : what makes the file, for example "dvc repro folds".
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with: {remedy}") from None
    except DAMAGE as trouble:
        raise UserError(f"{path} is damaged, or of another run ({_cause(trouble)}); make it with: {remedy}") from None


def _cause(trouble: Exception) -> str:
    """What an exception says, on one line."""
    if isinstance(trouble, pydantic.ValidationError):
        first = trouble.errors(include_url=False, include_input=False)[0]
        text = f"{'.'.join(map(str, first['loc']))} {first['msg']}"
    else:
        text = repr(trouble) if isinstance(trouble, KeyError) else str(trouble)
    return " ".join(text.split())[:200]


def sha256(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


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


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold a lock on the file `path`, until the block or the process ends.

    Raises UserError where another process holds it; `what` says what that one does, as "trains small_vgg fold 0".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process {what}, and holds {path}; wait for it, or stop it") from None
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
