"""Bring the competition's files together, and write down where they came from and whether they are Kaggle's own.

Reads data/incoming/ (sources local, and folders: pictures, one folder a class) or Kaggle (source kaggle; credentials as
the kaggle client takes them), or draws a competition (source synthetic). Writes data/raw/: the files as published,
unpacked (pictures: packed into one pictures.zip), and PROVENANCE.json.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import config, files
from pipeline.competition import CHECKSUMS, SLUG
from pipeline.config import Config, Data
from pipeline.data import archives, incoming, provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client
from pipeline.kaggle.client import Kaggle

RAW = Path("data/raw")
WHOLE = (("fer2013.tar.gz",), ("icml_face_data.csv",), ("train.csv", "test.csv"))  # each carries enough; smallest first
WITHOUT_KAGGLE = "put the files into data/incoming/ and set data.source to local in params.yaml; or run: make demo"


def fetch(kaggle: Kaggle, name: str, folder: Path) -> None:
    """Put one file from Kaggle into `folder`, unzipped; of the competition itself only if its checksum is official.

    A damaged file is fetched once more. Raises Missing where Kaggle has none of this name, and UserError.
    """
    for last in (False, True):
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            path = Path(temporary) / name
            wrong = _unzip(kaggle.download(name, path.parent), path)
            if not wrong and kaggle.slug == SLUG and not provenance.describe(path)["official"]:
                wrong = f"{name} arrived with {path.stat().st_size:,} bytes, but not with the official checksum"
            if not wrong:
                path.rename(folder / name)
                return
        if last:
            raise UserError(f"{wrong}, twice: try again later; or {WITHOUT_KAGGLE}")
        print(f"{wrong}: fetching it once more", file=sys.stderr, flush=True)


def _unzip(arrived: Path, path: Path) -> str:
    """Unpack the file that Kaggle zipped, to `path`; return what is wrong with it."""
    if arrived == path:
        return ""
    where = f"Kaggle's {arrived.name}"
    try:
        with archives.reading(arrived, where) as members:
            member = next((each for each in members if each.name == path.name), None)
            if member is None:
                return f"{where} does not hold it"
            member.write(path)
    except UserError as trouble:
        return str(trouble).partition(";")[0]
    return ""


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
        noted = {name: {key: facts[key] for key in here[name]} for name, facts in known["files"].items()}
    except (UserError, LookupError):
        return False
    if settings.slug == SLUG:
        same = all(facts["official"] for facts in here.values())
    else:
        same = known["source"] == "kaggle" and known.get("slug") == settings.slug
    return same and here == noted and any(here.keys() >= set(names) for names in WHOLE)


def collect(settings: Config, folder: Path) -> dict[str, Any]:
    """Put the files into `folder`, with PROVENANCE.json: the source, and size and checksums of every file."""
    data, origin, facts = settings.data, dict[str, str](), dict[str, Any]()
    if data.source == "local":
        origin = incoming.take(folder)
    elif data.source == "folders":
        layout = incoming.pack_pictures(folder)
        facts = {"official_split": layout.official, "split": layout.says}
    elif data.source == "kaggle":
        facts = {"slug": data.slug}
        with client.connect(data.slug, WITHOUT_KAGGLE) as kaggle:
            take_kaggle(kaggle, folder)
    else:
        faces = synthetic.competition(data.training_faces, data.test_faces, settings.seed)
        synthetic.write(folder, *faces, names={"fer2013.tar.gz"})
    described = {
        path.name: provenance.describe(path) | ({"from": origin[path.name]} if path.name in origin else {})
        for path in sorted(folder.iterdir())
    }
    official = all(each["official"] for each in described.values())
    note = incoming.FOLDER / incoming.NOTE
    if data.source in ("local", "folders") and note.exists():
        facts["note"] = " ".join(note.read_text(encoding="utf-8", errors="replace").split())
    facts = {"source": data.source, "official": official, "files": described} | facts
    files.write_json(folder / provenance.NAME, facts)
    return facts


def report(settings: Data, facts: dict[str, Any]) -> None:
    """Tell of every file whether it is Kaggle's own, and loudly if one is not."""
    kind = provenance.standing(facts)
    for name, file in facts["files"].items():
        own = "Kaggle's own" if file["official"] else "NOT Kaggle's own file: its checksum differs"
        print(f"{name}  {file['bytes']:,} bytes  {'drawn' if kind == 'drawn' else facts.get('split', own)}")
    if kind == "unofficial":
        where = f"{settings.slug} is another competition, whose checksums are not known"
        print(
            f"warning: {where if settings.source == 'kaggle' else 'these are not the files of the competition'}: "
            "every score on them will be marked unofficial",
            file=sys.stderr,
        )
    if kind == provenance.OTHER_SPLIT:
        print("warning: this is not the competition's split: no score on it will have a rank", file=sys.stderr)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block has ended well; until then the old one stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}-"
    for stale in folder.parent.glob(f"{prefix}*"):  # of a run that was killed
        if not folder.exists() and (stale / "old").exists():
            (stale / "old").rename(folder)
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix, ignore_cleanup_errors=True) as temporary:
        new, old = Path(temporary) / folder.name, Path(temporary) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)


def main() -> None:
    """Run the stage. What lay in data/raw/ is replaced only when everything else has arrived."""
    settings = config.load()
    if settings.data.source == "kaggle" and still_good(settings.data, RAW):
        print(f"{RAW}/ holds {', '.join(provenance.read()['files'])} as Kaggle has it: not fetched again")
        return
    if RAW.is_symlink() or (RAW.exists() and not RAW.is_dir()):
        raise UserError(f"{RAW} is no folder; remove it and run this again")
    with replacing(RAW) as folder:
        facts = collect(settings, folder)
    report(settings.data, facts)
