"""What the user brought to data/incoming/: the competition's files, in whatever form, or pictures in folders."""

import filecmp
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import archives, pictures, prepare
from pipeline.errors import UserError

FOLDER = Path("data/incoming")
NOTE = "NOTE.txt"  # what the user knows of the files; it goes with them into PROVENANCE.json
SHOWN = 5  # names in one message
COPY = re.compile(r"[ _-]*(\(\d+\)|\bcopy)(?=\.|$)", re.IGNORECASE)  # what browsers and file managers add to a name
WANTED = (
    "put fer2013.tar.gz, fer2013.csv, icml_face_data.csv, or train.csv with test.csv there, as they are or packed "
    f"(from https://www.kaggle.com/competitions/{SLUG}/data); or set data.source to kaggle in params.yaml (to folders "
    "for pictures in folders); or try the drawn competition: make demo"
)


def _stop(trouble: OSError) -> NoReturn:
    raise trouble


def walk() -> Iterator[Path]:
    """All files below data/incoming/ but hidden ones and notes, through links, in order."""
    known = {os.path.realpath(FOLDER)}
    for root, folders, names in os.walk(FOLDER, onerror=_stop if FOLDER.exists() else None, followlinks=True):
        folders[:] = sorted(
            name for name in folders
            if not name.startswith(".") and name != "__MACOSX" and os.path.realpath(Path(root, name)) not in known
        )  # fmt: skip
        known.update(os.path.realpath(Path(root, name)) for name in folders)
        for path in sorted(Path(root, name) for name in names if not name.startswith(".")):
            if path not in (FOLDER / "README.md", FOLDER / NOTE):
                yield path


def known_name(name: str) -> str | None:
    """Which of the competition's files a file name means; "fer2013 (1).csv" is fer2013.csv."""
    plain = COPY.sub("", name).lower()
    return plain if plain in CHECKSUMS else None


def name_of(path: Path) -> str | None:
    """Which of the competition's files this is: by its name, else by its first line where that leaves no doubt."""
    name = known_name(path.name)
    if name or path.suffix.lower() not in ("", ".csv"):
        return name
    with open(path, "rb") as file:
        first = file.readline(100)
    stem, columns = COPY.sub("", path.stem).lower(), set(prepare.columns(first))
    if columns == {b"emotion", b"pixels", b"Usage"}:
        return "icml_face_data.csv" if b"Usage, pixels" in first else "fer2013.csv"
    certain = (stem, columns) in (("train", {b"emotion", b"pixels"}), ("test", {b"pixels"}))
    return f"{stem}.csv" if certain else None


def take(folder: Path) -> dict[str, str]:
    """Copy or unpack the competition's files below data/incoming/ into `folder`; return where each one is from."""
    origin: dict[str, str] = {}
    others = []
    for path in walk():
        name = name_of(path) if path.is_file() else None
        packed = path.is_file() and name != "fer2013.tar.gz" and archives.form(path)
        if packed:
            with archives.reading(path) as members:
                found = _unpack(members, path, folder, origin)
            others += [] if found else [path]
        elif name:
            _bring(partial(_copy, path), name, str(path), folder, origin)
        else:
            others.append(path)
    _complain(origin, [str(path.relative_to(FOLDER)) for path in others])
    return origin


def _unpack(members: Iterator[archives.Member], path: Path, folder: Path, origin: dict[str, str]) -> set[str]:
    """Bring the competition's files in an archive; return their names."""
    inside: set[str] = set()
    for member in members:
        name = known_name(member.name)
        if name is None:
            continue
        if name in inside:  # or a small archive of one file many times over would write without end
            raise UserError(f"{path}: {name} stands there twice, which is no archive of the competition")
        inside.add(name)
        _bring(member.write, name, str(member), folder, origin)
    return inside


def _copy(path: Path, target: Path) -> None:
    if path.stat().st_size > archives.LARGEST:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, which is no competition file")
    shutil.copyfile(path, target)


def _bring(write: Callable[[Path], None], name: str, where: str, folder: Path, origin: dict[str, str]) -> None:
    """Put a file into `folder`. Raises UserError where another file of its name lies there already."""
    target, part = folder / name, folder / f".{name}"
    write(part)
    if name in origin and not filecmp.cmp(part, target, shallow=False):
        raise UserError(f"{where} is another {name} than {origin[name]}: leave one of them")
    origin.setdefault(name, where)
    part.replace(target)


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])


def _complain(origin: dict[str, str], others: list[str]) -> None:
    """Name the files that are not of use. Raises UserError where those that are do not suffice."""
    if not origin:
        only = f" but {_listed(others)}" if others else ""
        raise UserError(f"{FOLDER}/ holds none of the competition's files{only}: {WANTED}")
    if len(origin) == 1 and (half := origin.keys() & {"train.csv", "test.csv"}):
        (missing,) = {"train.csv", "test.csv"} - half
        raise UserError(f"{FOLDER}/ holds {', '.join(half)} without {missing}: put both there, or one whole file")
    if others:
        print(f"ignored in {FOLDER}/, as none of the competition's files: {_listed(others)}")


def _is_picture(place: str, size: int) -> bool:
    """Whether a file below data/incoming/ is a picture. Raises UserError where it is none and lies among them."""
    path = PurePosixPath(place)
    if path.name.startswith(".") or "__MACOSX" in path.parts or path.name.lower() in ("thumbs.db", "desktop.ini"):
        return False  # what systems leave behind
    if path.suffix.lower() in pictures.SUFFIXES and size <= pictures.LARGEST:
        return True
    if pictures.class_of(place) is not None:
        why = f"has {size:,} bytes" if size > pictures.LARGEST else f"ends in none of {', '.join(pictures.SUFFIXES)}"
        raise UserError(f"{FOLDER / place} {why}, so it is no 48 x 48 picture: remove it")
    if any(part.lower() in pictures.MAY_HOLD for part in path.parts[-3:-2]):
        raise UserError(f"{FOLDER / place} is no picture in a folder of a class: rename or remove it")
    return False


def _pictures() -> Iterator[tuple[str, bytes]]:
    """All pictures below data/incoming/, by their path there; an archive counts as a folder of its name."""
    others = []
    for path in walk():
        place = path.relative_to(FOLDER)
        if place.suffix.lower() in (".zip", ".tar", ".gz", ".tgz"):
            stem = place.as_posix().removesuffix(place.suffix).removesuffix(".tar")
            with archives.reading(path) as members:
                for member in members:
                    inside = f"{stem}/{member.path.removeprefix('./')}"
                    if _is_picture(inside, member.size):
                        yield inside, member.open().read()
        elif _is_picture(place.as_posix(), path.stat().st_size):
            yield place.as_posix(), path.read_bytes()
        else:
            others.append(str(place))
    if others:
        print(f"ignored in {FOLDER}/, as no pictures in a folder of a class: {_listed(others)}")


def pack_pictures(folder: Path) -> pictures.Layout:
    """Pack all pictures below data/incoming/ into one file in `folder`, as they are; return their layout."""
    found: dict[str, bytes] = {}
    total = 0
    for place, content in _pictures():
        total += len(content)
        if place in found:
            raise UserError(f"{FOLDER / place} stands there twice, in a folder and packed: leave one of them")
        if place.encode(errors="replace").decode() != place:
            raise UserError(f"{FOLDER / place} has a name that is not UTF-8: rename it")
        if total > archives.LARGEST:
            raise UserError(f"{FOLDER}/ holds more than {archives.LARGEST:,} bytes of pictures: bring fewer or smaller")
        found[place] = content
    if not found:
        raise UserError(
            f"{FOLDER}/ holds no pictures: put the folders train/ and test/ there, each with a folder a class, as "
            "they are or packed"
        )
    layout = pictures.layout(sorted(found))
    with zipfile.ZipFile(folder / pictures.NAME, "w") as target:  # pictures are compressed already
        for path, name in zip(layout.paths, layout.names, strict=True):
            member = zipfile.ZipInfo(name)
            member.comment = str(FOLDER / path).encode()  # for what prepare has to say of it
            target.writestr(member, found[path])
    return layout
