"""Bring the competition's files together, and write down where they came from and whether they are Kaggle's own.

Reads data/incoming/ (sources local, and folders: pictures, one folder a class) or Kaggle (source kaggle; credentials as
the kaggle client takes them), or draws a competition (source synthetic). Writes data/raw/: the files as published,
unpacked (pictures: decoded into one pictures.npz), and PROVENANCE.json.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import config, files
from pipeline.competition import SLUG
from pipeline.config import Config
from pipeline.data import incoming, provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client
from pipeline.kaggle.client import Kaggle

RAW = Path("data/raw")
LOCK = Path("artifacts/download.lock")
WHOLE = "fer2013.tar.gz"  # of Kaggle's files the smallest that carries everything
WITHOUT_KAGGLE = "put the files into data/incoming/ and set data.source to local in params.yaml; or run: make demo"


def fetch(kaggle: Kaggle, folder: Path) -> None:
    """Put the whole competition from Kaggle into `folder`; the contest of 2013 only with its official checksum."""
    kaggle.download(WHOLE, folder)
    if kaggle.slug == SLUG and not provenance.describe(folder / WHOLE)["official"]:
        raise UserError(f"{WHOLE} arrived damaged, without the official checksum: run this again; or {WITHOUT_KAGGLE}")


def still_good(slug: str) -> bool:
    """Whether data/raw/ holds, byte for byte, what source kaggle has fetched there of this competition."""
    try:
        known = provenance.read()
        same = all(provenance.describe(RAW / name).items() <= facts.items() for name, facts in known["files"].items())
        return same and known["slug"] == slug
    except (UserError, OSError, LookupError):
        return False


def collect(settings: Config, folder: Path) -> dict[str, Any]:
    """Put the files into `folder`, with PROVENANCE.json: the source, and size and checksums of every file."""
    data, origin, facts = settings.data, dict[str, str](), dict[str, Any]()
    if data.source == "local":
        origin = incoming.take(folder)
    elif data.source == "folders":
        layout = incoming.take_pictures(folder)
        facts = {"official_split": layout.official, "split": layout.says}
    elif data.source == "kaggle":
        facts = {"slug": data.slug}
        with client.connect(data.slug, WITHOUT_KAGGLE) as kaggle:
            fetch(kaggle, folder)
    else:
        faces = synthetic.competition(data.training_faces, data.test_faces, settings.seed)
        synthetic.write(folder, *faces, names={WHOLE})
    described = {
        path.name: provenance.describe(path) | ({"from": origin[path.name]} if path.name in origin else {})
        for path in sorted(folder.iterdir())
    }
    note = incoming.FOLDER / incoming.NOTE
    if data.source in ("local", "folders") and note.exists():
        facts["note"] = " ".join(note.read_text(encoding="utf-8", errors="replace").split())
    official = all(each["official"] for each in described.values())
    facts = {"source": data.source, "official": official, "files": described} | facts
    files.write_json(folder / provenance.NAME, facts)
    return facts


def report(facts: dict[str, Any]) -> None:
    """Tell of every file whether it is Kaggle's own, and loudly if one is not."""
    kind = provenance.standing(facts)
    for name, file in facts["files"].items():
        own = "Kaggle's own" if file["official"] else "NOT Kaggle's own file: its checksum differs"
        print(f"{name}  {file['bytes']:,} bytes  {'drawn' if kind == 'drawn' else facts.get('split', own)}")
    if kind in ("unofficial", provenance.OTHER_SPLIT):
        print(f"warning: every score on them will be marked {kind}", file=sys.stderr)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block has ended well; until then the old one stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        yield new
        old = Path(temporary) / "old"
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def main() -> None:
    """Run the stage. What lay in data/raw/ is replaced only when everything else has arrived."""
    settings = config.load()
    if settings.data.source == "kaggle" and still_good(settings.data.slug):
        print(f"{RAW}/ holds {', '.join(provenance.read()['files'])} as Kaggle has it: not fetched again")
        return
    with files.alone(LOCK, "downloads"), replacing(RAW) as folder:
        facts = collect(settings, folder)
    report(facts)
