"""Readers of data/incoming/: the competition's files in any form, or pictures in folders."""

import errno
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from pipeline import files
from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import pictures
from pipeline.errors import UserError

FOLDER = Path("data/incoming")
NOTE = "NOTE.txt"  # remarks of the user about the files, copied to PROVENANCE.json
PACKED = (".zip", ".tar", ".gz", ".tgz")
# Suffixes of browsers and file managers for repeated names.
COPY = re.compile(r"([ _-]*(\(\d+\)|\((another )?copy( \d+)?\)|(?<![a-z])copy( \d+)?))+(?=\.|$)", re.IGNORECASE)
WANTED = (
    "put fer2013.tar.gz, fer2013.csv, icml_face_data.csv, or train.csv and test.csv there, packed or unpacked (from "
    f"https://www.kaggle.com/competitions/{SLUG}/data); or set data.source in params.yaml to kaggle, or to folders for "
    "pictures in folders; or use synthetic data: make demo"
)


def unpack(path: Path, wanted: Callable[[str], object], name: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the paths and contents of the wanted files in an archive, in order. Nothing is written.

    Raises UserError if the archive is damaged.

    Parameters
    ----------
    name : name of the archive in messages. Default: its path.
    """
    name = name or str(path)
    try:
        if not tarfile.is_tarfile(path) and zipfile.is_zipfile(path):  # a tar may contain a zip, like an .npz
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    place = info.filename.replace("\\", "/")
                    if not info.is_dir() and wanted(place):
                        yield place, archive.read(info)
        else:
            with tarfile.open(path) as tar:
                for member in tar:
                    used = (member.isfile() or member.islnk()) and wanted(member.name)
                    if used and (file := tar.extractfile(member)):
                        yield member.name, file.read()
                assert tar.fileobj
                tar.fileobj.seek(max(tar.offset, tar.fileobj.tell()))  # the content of a hard link is further back
                # tarfile stops at a damaged header without an error.
                if any(block.strip(b"\0") for block in iter(partial(tar.fileobj.read, 1 << 20), b"")):
                    raise tarfile.ReadError("a header is damaged")
    except (*files.DAMAGE, tarfile.TarError, RuntimeError) as error:  # the last: encrypted, or unknown compression
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # an error of the disk
        cause = str(error).partition("\n")[0].rstrip(":")
        raise UserError(f"{name} is damaged or cannot be unpacked ({cause}); copy it again, or unpack it") from None


def _stop(error: OSError) -> NoReturn:
    raise error


def walk() -> Iterator[Path]:
    """Yield all files below data/incoming/ in order, except hidden ones and notes. Links are followed."""
    for root, folders, names in os.walk(FOLDER, onerror=_stop, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for path in sorted(Path(root, name) for name in names if not name.startswith(".")):
            if path not in (FOLDER / "README.md", FOLDER / NOTE):
                yield path


def contents(wanted: Callable[[str], object]) -> Iterator[tuple[str, str, bytes]]:
    """Yield the wanted files below data/incoming/, and print the names of the others.

    An archive that is not wanted itself is read like a folder of the same name.

    Yields
    ------
    Path below data/incoming/, location for messages, and content of each file.
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
    """Return the name of the competition's file that in a path, or None: "fer2013 (1).csv" is fer2013.csv."""
    name = COPY.sub("", PurePosixPath(place).name).lower()
    return name if name in CHECKSUMS else None


def take(folder: Path) -> dict[str, str]:
    """Copy or unpack the competition's files below data/incoming/ into `folder`. Return the origin of each file."""
    origin: dict[str, str] = {}
    for place, where, content in contents(known_name):
        target = folder / str(known_name(place))
        if target.name in origin and target.read_bytes() != content:
            raise UserError(f"{where} differs from {origin[target.name]}; both are {target.name}: remove one of them")
        origin.setdefault(target.name, where)
        target.write_bytes(content)
    if not origin:
        raise UserError(f"{FOLDER}/ contains no file of the competition: {WANTED}")
    for name, missing in (("train.csv", "test.csv"), ("test.csv", "train.csv")):
        if list(origin) == [name]:
            raise UserError(f"{FOLDER}/ contains {name} without {missing}: put both there, or one complete file")
    return origin


def is_picture(place: str) -> bool:
    """Return whether a path is that of a picture; hidden ones in archives are not, for example those of macOS."""
    return place.lower().endswith(pictures.SUFFIXES) and not PurePosixPath(place).name.startswith(".")


def take_pictures(folder: Path) -> pictures.Layout:
    """Decode all pictures below data/incoming/ into one file in `folder` (see pictures.py). Return their layout."""
    decoded = [(place, pictures.decode(content, where)) for place, where, content in contents(is_picture)]
    layout = pictures.layout(sorted(place for place, _ in decoded))
    pixels = dict(decoded)
    np.savez(folder / pictures.NAME, pixels=np.stack([pixels[path] for path in layout.paths]), labels=layout.labels,
             usage=layout.usage)  # fmt: skip
    return layout
