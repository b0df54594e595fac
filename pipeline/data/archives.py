"""Read .zip, .tar and .tar.gz files."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UserError

LARGEST = 2**29  # bytes of one file, unpacked; the competition's largest has 0.6 * 2**29
# What the libraries raise for damage, encryption and unknown compression.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, RuntimeError)


def unpack(path: Path, wanted: Callable[[str], object], name: str = "") -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the wanted files in an archive, in order; its paths are never used for writing.

    Raises UserError where it is damaged, or a file too large.

    Parameters
    ----------
    name : what messages call the archive; its path where none is given.
    """
    name = name or str(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for each in archive.infolist():
                    place = each.filename.replace("\\", "/")
                    if not each.is_dir() and wanted(place):
                        yield place, _bounded(archive.open(each), f"{name}: {place}")
        else:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and wanted(member.name):
                        yield member.name, _bounded(tar.extractfile(member), f"{name}: {member.name}")
    except DAMAGE as trouble:
        what = str(trouble).partition("\n")[0]
        raise UserError(f"{name} is damaged or cannot be unpacked ({what}); bring the file again") from None


def _bounded(source: IO[bytes] | Any, what: str) -> bytes:
    """All of a file, but of no more than LARGEST bytes: a small archive may hold gigabytes of zeros."""
    with source:
        content: bytes = source.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{what} unpacks to more than {LARGEST:,} bytes, which is no competition file")
    return content
