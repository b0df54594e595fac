"""Bring the competition's files together, and write down where they came from and whether they are Kaggle's own.

Reads data/incoming/ (sources local, and folders: pictures, one folder a class) or Kaggle (source kaggle; credentials as
the kaggle client takes them), or draws a competition (source synthetic). Writes data/raw/: the files as published,
unzipped (pictures: packed into one pictures.zip), and PROVENANCE.json.
"""

import errno
import filecmp
import lzma
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from pydantic import Field

from pipeline import files, params
from pipeline.competition import CHECKSUMS, SLUG
from pipeline.data import pictures, provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client
from pipeline.kaggle.client import LARGEST, Kaggle

INCOMING = Path("data/incoming")
RAW = Path("data/raw")
NOTE = "NOTE.txt"  # what the user knows of the files in data/incoming/; it goes with them into PROVENANCE.json
WHOLE = (("fer2013.tar.gz",), ("icml_face_data.csv",), ("train.csv", "test.csv"))  # each carries enough; smallest first
WITHOUT_KAGGLE = "put the files into data/incoming/ and set data.source to local in params.yaml; or run: make demo"


class Data(params.Section):
    """Where the competition's files come from: section `data` of params.yaml."""

    source: Literal["local", "folders", "kaggle", "synthetic"]
    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    training_faces: int = Field(ge=7)
    test_faces: int = Field(ge=7)


def read_params() -> Data:
    """The section `data`."""
    return params.section("data", Data)


@contextmanager
def unzipping(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .zip. Raises UserError where it is damaged, then or while it is read."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    # What zipfile raises for damage, encryption, unknown compression or names, and offsets that are none.
    except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError) as trouble:
        if isinstance(trouble, OSError) and trouble.errno not in (None, errno.EINVAL):
            raise
        what = f"{type(trouble).__name__}: {trouble}".partition("<")[0]
        raise UserError(f"{archive} is damaged or cannot be unpacked ({what}); bring the file again") from None


def unzip(archive: Path, folder: Path) -> list[str]:
    """Unpack the competition's files from a .zip, whatever folders they lie in there; return their names.

    Only known names are written, so no path in the archive can lead elsewhere. Raises UserError where it is damaged.
    """
    names: list[str] = []
    with unzipping(archive) as opened:
        for member in opened.infolist():
            name = Path(member.filename).name
            if name not in CHECKSUMS or member.is_dir():
                continue
            if member.file_size > LARGEST or name in names:
                many = "stands there twice" if name in names else f"unpacks to {member.file_size:,} bytes"
                raise UserError(f"{archive}: {name} {many}, which is no competition file")
            with opened.open(member) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            names.append(name)
    return names


def _shown(path: object) -> str:
    """A path as any terminal can show it: names need not be UTF-8."""
    return str(path).encode(errors="backslashreplace").decode()


def _bring(path: Path, folder: Path, where: Path) -> None:
    """Copy a file, from `where`, into `folder`. Raises UserError where something else lies there under its name."""
    target = folder / path.name
    if target.exists() and not filecmp.cmp(path, target, shallow=False):
        raise UserError(f"{where} holds another {path.name} than a file beside it: leave one of them")
    shutil.copyfile(path, target)


def take_local(incoming: Path, folder: Path) -> None:
    """Copy or unzip all of the competition's files that lie in `incoming` into `folder`."""
    for path in sorted(incoming.glob("*")):
        if path.name in CHECKSUMS:
            _bring(path, folder, path)
        elif path.name.startswith(".") or path.name in ("README.md", NOTE):
            continue
        elif path.suffix.lower() == ".zip":
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                inside = unzip(path, Path(temporary))
                for name in inside:
                    _bring(Path(temporary, name), folder, path)
            if not inside:
                print(f"ignored: {_shown(path)} holds none of the competition's files")
        else:
            print(f"ignored: {_shown(path)} is none of the competition's files ({', '.join(CHECKSUMS)})")
    if not any(folder.iterdir()):
        raise UserError(
            f"{incoming}/ holds none of the competition's files: put fer2013.tar.gz, fer2013.csv, icml_face_data.csv, "
            "or train.csv with test.csv there, as they are or zipped (from "
            f"{client.SITE}/competitions/{SLUG}/data); or set data.source to kaggle in params.yaml (to folders "
            "for pictures in folders); or try the drawn competition: make demo"
        )


def _is_picture(place: str, size: int) -> bool:
    """Whether a file below data/incoming/ is a picture. Raises UserError where it is none and lies among them."""
    path = PurePosixPath(place)
    if path.name.startswith(".") or "__MACOSX" in path.parts or path.name.lower() in ("thumbs.db", "desktop.ini"):
        return False  # what systems leave behind
    if path.suffix.lower() in pictures.SUFFIXES and size <= pictures.LARGEST:
        return True
    if pictures.class_of(place) is not None:
        why = f"has {size:,} bytes" if size > pictures.LARGEST else f"ends in none of {', '.join(pictures.SUFFIXES)}"
        raise UserError(f"{_shown(INCOMING / place)} {why}, so it is no 48 x 48 picture: remove it")
    if any(part.lower() in pictures.MAY_HOLD for part in path.parts[-3:-2]):
        raise UserError(f"{_shown(INCOMING / place)} is no picture in a folder of a class: rename or remove it")
    if place not in ("README.md", NOTE):
        print(f"ignored: {_shown(INCOMING / place)} is no picture in a folder of a class")
    return False


def _stop(trouble: OSError) -> NoReturn:
    raise trouble


def take_folders(incoming: Path, folder: Path) -> pictures.Layout:
    """Pack all pictures below `incoming`, zipped or not, into one file in `folder`, as they are; return their layout.

    The name of a .zip counts as a folder's: train.zip may hold the folders of the classes.
    """
    found: dict[str, bytes] = {}

    def add(place: str, size: int, content: Callable[[], bytes]) -> None:
        if not _is_picture(place, size):
            return
        if place in found:
            raise UserError(f"{_shown(incoming / place)} stands there twice, in a folder and zipped: leave one of them")
        if place.encode(errors="replace").decode() != place:
            raise UserError(f"{_shown(incoming / place)} has a name that is not UTF-8: rename it")
        found[place] = content()

    for root, _, names in os.walk(incoming, onerror=_stop, followlinks=True):
        for path in (Path(root, name) for name in names):
            place = path.relative_to(incoming)
            if path.suffix.lower() == ".zip" and not path.name.startswith("."):
                with unzipping(path) as archive:
                    for member in archive.infolist():
                        inside = f"{place.with_suffix('').as_posix()}/{member.filename}".replace("\\", "/")
                        if not inside.endswith("/"):
                            add(inside, member.file_size, partial(archive.read, member))
            else:
                add(place.as_posix(), path.stat().st_size, path.read_bytes)
    if not found:
        raise UserError(
            f"{incoming}/ holds no pictures: put the folders train/ and test/ there, each with a folder a class, as "
            "they are or zipped"
        )
    layout = pictures.layout(sorted(found))
    with zipfile.ZipFile(folder / pictures.NAME, "w") as target:  # pictures are compressed already
        for path_there, name in zip(layout.paths, layout.names, strict=True):
            target.writestr(zipfile.ZipInfo(name), found[path_there])
    return layout


def fetch(kaggle: Kaggle, name: str, folder: Path) -> None:
    """Put one file from Kaggle into `folder`, unzipped; of the competition itself only if its checksum is official.

    A damaged file is fetched once more. Raises Missing where Kaggle has none of this name, and UserError.
    """
    for last in (False, True):
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            arrived, path = kaggle.download(name, Path(temporary)), Path(temporary) / name
            wrong = ""
            if arrived != path:
                try:
                    wrong = "" if name in unzip(arrived, path.parent) else f"Kaggle's {arrived.name} holds none"
                except UserError as refusal:
                    wrong = str(refusal).replace(f"{path.parent}/", "Kaggle's ").partition(";")[0]
            if not wrong and kaggle.slug == SLUG and not provenance.describe(path)["official"]:
                wrong = f"{name} arrived with {path.stat().st_size:,} bytes, but not with the official checksum"
            if not wrong:
                path.rename(folder / name)
                return
        if last:
            raise UserError(f"{wrong}, twice: try again later; or {WITHOUT_KAGGLE}")
        print(f"{wrong}: fetching it once more", file=sys.stderr, flush=True)


def take_kaggle(kaggle: Kaggle, folder: Path) -> None:
    """Fetch the smallest file that carries everything, or else the others."""
    for names in WHOLE:
        try:
            for name in names:
                fetch(kaggle, name, folder)
            return
        except client.Missing:
            continue
    raise UserError(
        f"{kaggle.page} has none of fer2013.tar.gz, icml_face_data.csv, or train.csv with test.csv (HTTP 404): see "
        f"whether data.slug in params.yaml is right; or {WITHOUT_KAGGLE}"
    )


def still_good(settings: Data, folder: Path) -> bool:
    """Whether `folder` holds, byte for byte, all that source kaggle would fetch."""
    try:
        known = provenance.read(folder / provenance.NAME)
        here = {path.name: provenance.describe(path) for path in folder.iterdir() if path.name in CHECKSUMS}
    except UserError:
        return False
    if settings.slug == SLUG:
        same = all(facts["official"] for facts in here.values())
    else:
        same = known["source"] == "kaggle" and known.get("slug") == settings.slug
    return same and here == known["files"] and any(here.keys() >= set(names) for names in WHOLE)


def collect(settings: Data, seed: int, folder: Path) -> dict[str, Any]:
    """Put the files into `folder`, with PROVENANCE.json: the source, and size and checksums of every file."""
    layout = None
    if settings.source == "local":
        take_local(INCOMING, folder)
    elif settings.source == "folders":
        layout = take_folders(INCOMING, folder)
    elif settings.source == "kaggle":
        with client.connect(settings.slug, WITHOUT_KAGGLE) as kaggle:
            take_kaggle(kaggle, folder)
    else:
        faces = synthetic.competition(settings.training_faces, settings.test_faces, seed)
        synthetic.write(folder, *faces, names={"fer2013.tar.gz"})
    described = {path.name: provenance.describe(path) for path in sorted(folder.iterdir())}
    if described.keys() in ({"train.csv"}, {"test.csv"}):
        raise UserError(
            f"{INCOMING}/ holds {next(iter(described))} alone; put test.csv and train.csv there, or one whole file"
        )
    official = all(facts["official"] for facts in described.values())
    facts: dict[str, Any] = {"source": settings.source, "official": official, "files": described}
    if settings.source == "kaggle":
        facts["slug"] = settings.slug
    if layout:
        facts |= {"official_split": layout.official, "split": layout.says}
    if settings.source in ("local", "folders") and (INCOMING / NOTE).exists():
        facts["note"] = " ".join((INCOMING / NOTE).read_text(encoding="utf-8", errors="replace").split())
    files.write_json(folder / provenance.NAME, facts)
    return facts


def report(settings: Data, facts: dict[str, Any]) -> None:
    """Say of every file whether it is Kaggle's own, and loudly if one is not."""
    standing = provenance.standing(facts)
    for name, file in facts["files"].items():
        own = "Kaggle's own" if file["official"] else "NOT Kaggle's own file: its checksum differs"
        print(f"{name}  {file['bytes']:,} bytes  {'drawn' if standing == 'drawn' else facts.get('split', own)}")
    if standing == "unofficial":
        where = f"{settings.slug} is another competition, whose checksums are not known"
        print(
            f"warning: {where if settings.source == 'kaggle' else 'these are not the files of the competition'}: "
            "every score on them will be marked unofficial",
            file=sys.stderr,
        )
    if standing == provenance.OTHER_SPLIT:
        print("warning: this is not the competition's split: no score on it will have a rank", file=sys.stderr)


def main() -> None:
    """Run the stage. What lay in data/raw/ is replaced only when everything else has arrived."""
    settings, seed = read_params(), params.seed()
    if settings.source == "kaggle" and still_good(settings, RAW):
        print(f"{RAW}/ holds {', '.join(provenance.read()['files'])} as Kaggle has it: not fetched again")
        return
    if RAW.is_symlink() or (RAW.exists() and not RAW.is_dir()):
        raise UserError(f"{RAW} is no folder; remove it and run this again")
    RAW.parent.mkdir(parents=True, exist_ok=True)
    for stale in RAW.parent.glob(".raw-*"):  # of a run that was killed
        if not RAW.exists() and (stale / "old").exists():
            (stale / "old").rename(RAW)
        shutil.rmtree(stale, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=RAW.parent, prefix=".raw-", ignore_cleanup_errors=True) as temporary:
            folder, old = Path(temporary) / "raw", Path(temporary) / "old"
            folder.mkdir()
            facts = collect(settings, seed, folder)
            if RAW.exists():
                RAW.rename(old)
            try:
                folder.rename(RAW)
            except BaseException:
                if old.exists() and not RAW.exists():
                    old.rename(RAW)
                raise
    except OSError as trouble:
        if trouble.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"the disk is full: make room in {RAW.parent}/ and run this again") from None
    report(settings, facts)
