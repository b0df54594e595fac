"""Read .zip, .tar and .tar.gz files."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipeline.errors import UserError

LARGEST = 2**29  # bytes of one file, unpacked; the competition's largest has 0.6 * 2**29
# What the libraries raise for damage, encryption and unknown compression.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One file in an archive: the archive, its path there, and how to open it."""

    archive: str
    path: str
    open: Callable[[], IO[bytes] | Any]

    @property
    def name(self) -> str:
        """The last part of its path; no other part is ever used for writing."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"{self.archive}: {self.path}"

    def read(self) -> bytes:
        """Unpack it. Raises UserError where it is too large, as a small archive may hold gigabytes of zeros."""
        with self.open() as source:
            content: bytes = source.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{self} unpacks to more than {LARGEST:,} bytes, which is no competition file")
        return content


@contextmanager
def reading(path: Path, name: str = "") -> Iterator[Iterator[Member]]:
    """Open an archive and go through its files, in order. Raises UserError where it is damaged, then or later.

    Parameters
    ----------
    name : what messages call it; its path where none is given.
    """
    name = name or str(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield (
                    Member(name, each.filename.replace("\\", "/"), partial(archive.open, each))
                    for each in archive.infolist() if not each.is_dir()
                )  # fmt: skip
        else:
            with tarfile.open(path) as tar:
                yield (Member(name, each.name, partial(tar.extractfile, each)) for each in tar if each.isfile())
    except DAMAGE as trouble:
        what = str(trouble).partition("\n")[0]
        raise UserError(f"{name} is damaged or cannot be unpacked ({what}); bring the file again") from None
