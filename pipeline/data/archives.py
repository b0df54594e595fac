"""Read .zip, .tar and .tar.gz files, with every size bounded before anything of it is read."""

import errno
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.errors import UserError

LARGEST = 2**30  # bytes of one file, unpacked; the competition's largest has 0.3 * 2**30
WHOLE = 4 * LARGEST  # bytes of one .tar, unpacked
AT_ONCE = 2**22  # bytes of one read
MEMBERS = 100_000  # files in one .tar
# What the libraries raise for damage, encryption, unknown compression or names, and offsets that are none.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True)
class Member:
    """One file in an archive: the archive, its path there, its bytes when unpacked, and how to open it."""

    archive: str
    path: str
    size: int
    open: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        """The last part of its path; no other part is ever used for writing."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"{self.archive}: {self.path}"

    def write(self, target: Path) -> None:
        """Unpack it to `target`. Raises UserError where it is too large."""
        if self.size > LARGEST:
            raise UserError(f"{self} unpacks to {self.size:,} bytes, which is no competition file")
        with self.open() as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, 2**20)


class _Bounded:
    """A file that gives little at a time and not without end: tarfile believes whatever size a header states."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= AT_ONCE or self.tell() > WHOLE:
            raise tarfile.ReadError("it unpacks to more than any archive of the competition")
        return self.file.read(size)


def form(path: Path) -> str | None:
    """Which archive a file is, "zip" or "tar" (gzipped or not), by its ending or first bytes; None for any other."""
    name = path.name.lower()
    if name.endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        return "zip" if name.endswith(".zip") else "tar"
    start = _start(path)
    if start.startswith(b"PK\3\4"):
        return "zip"
    return "tar" if start[257:262] == b"ustar" else None


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _start(path: Path) -> bytes:
    """The first bytes, unpacked where they are gzipped."""
    try:
        with gzip.open(path) if _is_gzip(path) else open(path, "rb") as file:
            return file.read(512)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""


@contextmanager
def reading(path: Path, name: str = "") -> Iterator[Iterator[Member]]:
    """Open an archive and go through its files, in order. Raises UserError where it is damaged, then or later.

    Parameters
    ----------
    name : what messages call it; its path where none is given.
    """
    name = name or str(path)
    try:
        if form(path) == "zip":
            with zipfile.ZipFile(path) as zipped:
                yield (
                    Member(name, each.filename.replace("\\", "/"), each.file_size, partial(zipped.open, each))
                    for each in zipped.infolist()
                    if not each.is_dir()
                )
        else:
            with gzip.open(path) if _is_gzip(path) else open(path, "rb") as file:
                bounded = _Bounded(file)
                with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
                    yield _files(archive, name)
                    while bounded.read(2**20):  # to the end, where gzip's own checksum stands
                        pass
    except DAMAGE as trouble:
        if isinstance(trouble, OSError) and trouble.errno not in (None, errno.EINVAL):
            raise
        what = f"{type(trouble).__name__}: {trouble}".partition("<")[0]
        raise UserError(f"{name} is damaged or cannot be unpacked ({what}); bring the file again") from None


def _files(archive: tarfile.TarFile, name: str) -> Iterator[Member]:
    for count, each in enumerate(archive):
        if count >= MEMBERS or not 0 <= each.size <= WHOLE:
            raise tarfile.ReadError("it holds more than any archive of the competition")
        if each.isfile():
            yield Member(name, each.name, each.size, partial(_opened, archive, each))


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None  # it is a file
    return content
