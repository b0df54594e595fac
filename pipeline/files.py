"""Atomic file writes, locks and uniform read errors."""

import fcntl
import hashlib
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pydantic

from pipeline.errors import UserError

DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError,
          OverflowError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # fmt: skip


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Convert any error of the block, which reads and checks `path`, into a UserError.

    Parameters
    ----------
    remedy : command that makes the file, for example "dvc repro folds". The error message ends with it.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with: {remedy}") from None
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or from another run ({_cause(error)}); make it with: {remedy}") from None


def _cause(error: Exception) -> str:
    """Return the message of an exception on one line."""
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        text = f"{'.'.join(map(str, first['loc']))} {first['msg']}"
    else:
        text = repr(error) if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200]


def sha256(content: bytes) -> str:
    """Return the SHA-256 digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def replace(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Replace a file atomically: at any time, `path` is the old file or the complete new one.

    Parameters
    ----------
    fill : function that writes the content to a binary file. If it raises, the old file stays unchanged.

    Raises
    ------
    OSError : if writing fails, for example on a full disk; `filename` is `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it replaces the old file
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write(path: Path, content: bytes) -> None:
    """Write bytes to a file atomically."""
    replace(path, lambda file: file.write(content))


def write_json(path: Path, content: object) -> None:
    """Write an object to a file as indented JSON, atomically."""
    write(path, as_json(content))


def as_json(content: object) -> bytes:
    """Return an object as indented JSON."""
    return (json.dumps(content, indent=2) + "\n").encode()


def remove_others(folder: Path, ending: str, kept: Iterable[str]) -> None:
    """Delete the files NAME + `ending` in a folder whose NAME is not one of `kept`: those of removed models."""
    for path in set(folder.glob(f"*{ending}")) - {folder / f"{name}{ending}" for name in kept}:
        path.unlink()


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` until the block or the process ends.

    Raises UserError if another process holds it; `what` describes its work, like "trains small_vgg fold 0".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process {what} and holds {path}; wait for it, or stop it") from None
        yield
