"""What the user brought to data/incoming/: the competition's files, in whatever form, or pictures in folders."""

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

import numpy as np

from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import pictures
from pipeline.errors import UserError

LARGEST = 2**29  # bytes of one file, unpacked; the competition's largest has 0.6 * 2**29
# What the libraries raise for damage, encryption and unknown compression of an archive.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, RuntimeError)
FOLDER = Path("data/incoming")
NOTE = "NOTE.txt"  # what the user knows of the files; it goes with them into PROVENANCE.json
PACKED = (".zip", ".tar", ".gz", ".tgz")
COPY = re.compile(r"[ _-]*(\(\d+\)|\bcopy)(?=\.|$)", re.IGNORECASE)  # what browsers and file managers add to a name
WANTED = (
    "put fer2013.tar.gz, fer2013.csv, icml_face_data.csv, or train.csv with test.csv there, as they are or packed "
    f"(from https://www.kaggle.com/competitions/{SLUG}/data); or set data.source to kaggle in params.yaml (to folders "
    "for pictures in folders); or try the drawn competition: make demo"
)


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


def _stop(trouble: OSError) -> NoReturn:
    raise trouble


def walk() -> Iterator[Path]:
    """All files below data/incoming/ but hidden ones and notes, through links, in order."""
    for root, folders, names in os.walk(FOLDER, onerror=_stop, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for path in sorted(Path(root, name) for name in names if not name.startswith(".")):
            if path not in (FOLDER / "README.md", FOLDER / NOTE):
                yield path


def contents(wanted: Callable[[str], object]) -> Iterator[tuple[str, str, bytes]]:
    """All wanted files below data/incoming/; the others are named and ignored.

    An archive that is not wanted itself counts as a folder of its name.

    Yields
    ------
    The file's path below data/incoming/, where messages say that it lies, and what it holds.
    """
    others = []
    for path in walk():
        place = path.relative_to(FOLDER).as_posix()
        if wanted(place):
            yield place, str(path), path.read_bytes()
        elif path.suffix.lower() in PACKED:
            folder = place.removesuffix(path.suffix).removesuffix(".tar")
            for inside, content in unpack(path, wanted):
                yield f"{folder}/{inside.removeprefix('./')}", f"{path}: {inside}", content
        else:
            others.append(place)
    if others:
        more = f" and {len(others) - 5:,} more" if len(others) > 5 else ""
        print(f"ignored in {FOLDER}/: {', '.join(others[:5])}{more}")


def known_name(place: str) -> str | None:
    """Which of the competition's files a path means; "fer2013 (1).csv" is fer2013.csv."""
    name = COPY.sub("", PurePosixPath(place).name).lower()
    return name if name in CHECKSUMS else None


def take(folder: Path) -> dict[str, str]:
    """Copy or unpack the competition's files below data/incoming/ into `folder`; return where each one is from."""
    origin: dict[str, str] = {}
    for place, where, content in contents(known_name):
        target = folder / str(known_name(place))
        if target.name in origin and target.read_bytes() != content:
            raise UserError(f"{where} is another {target.name} than {origin[target.name]}: leave one of them")
        origin.setdefault(target.name, where)
        target.write_bytes(content)
    if not origin:
        raise UserError(f"{FOLDER}/ holds none of the competition's files: {WANTED}")
    if len(origin) == 1 and (half := origin.keys() & {"train.csv", "test.csv"}):
        (missing,) = {"train.csv", "test.csv"} - half
        raise UserError(f"{FOLDER}/ holds {', '.join(half)} without {missing}: put both there, or one whole file")
    return origin


def take_pictures(folder: Path) -> pictures.Layout:
    """Decode all pictures below data/incoming/ into one file in `folder` (see pictures.py); return their layout."""
    found = [
        (place, pictures.decode(content, where))
        for place, where, content in contents(lambda place: place.lower().endswith(pictures.SUFFIXES))
    ]
    layout = pictures.layout(sorted(place for place, _ in found))
    pixels = dict(found)
    np.savez(folder / pictures.NAME, pixels=np.stack([pixels[path] for path in layout.paths]), labels=layout.labels,
             usage=layout.usage)  # fmt: skip
    return layout
