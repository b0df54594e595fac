"""Collect the competition's files, and record their origin and whether they are Kaggle's own.

Reads data/incoming/ (sources local and folders; folders: pictures, one folder per class) or Kaggle (source kaggle, with
the kaggle client's credentials), or draws a competition (source synthetic). Writes data/raw/: the files as published,
unpacked (pictures: decoded into one pictures.npz), and PROVENANCE.json.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline import config, files
from pipeline.competition import SLUG
from pipeline.data import incoming, provenance, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import client

RAW = provenance.PATH.parent
LOCK = Path("artifacts/download.lock")
ARCHIVE = "fer2013.tar.gz"  # the smallest of Kaggle's files that contains all data
WITHOUT_KAGGLE = "put the files into data/incoming/ and set data.source to local in params.yaml; or run: make demo"


def up_to_date(slug: str) -> bool:
    """Return whether data/raw/ contains, unchanged, the files that source kaggle downloaded for this competition."""
    try:
        known = provenance.read()
        same = all(provenance.describe(RAW / name).items() <= facts.items() for name, facts in known["files"].items())
        return same and known["slug"] == slug
    except (UserError, OSError, LookupError):
        return False


def collect(settings: config.Config, folder: Path) -> dict[str, Any]:
    """Put the files into `folder`, and write PROVENANCE.json: the source, and size and checksums of every file.

    Raises UserError if the archive of the competition of 2013 does not have its official checksum.
    """
    data, origins, facts = settings.data, dict[str, str](), dict[str, Any]()
    if data.source == "local":
        origins = incoming.take(folder)
    elif data.source == "folders":
        layout = incoming.take_pictures(folder)
        facts = {"official_split": layout.official, "split": layout.split_source}
    elif data.source == "kaggle":
        facts = {"slug": data.slug}
        with client.connect(data.slug, WITHOUT_KAGGLE) as kaggle:
            kaggle.download(ARCHIVE, folder)
    else:
        faces = synthetic.competition(data.training_faces, data.test_faces, settings.seed)
        synthetic.write(folder, *faces, names={"fer2013.csv"})
    described = {path.name: provenance.describe(path) for path in sorted(folder.iterdir())}
    for name, origin in origins.items():
        described[name]["from"] = origin
    official = all(each["official"] for each in described.values())
    if facts.get("slug") == SLUG and not (described and official):
        raise UserError(f"{ARCHIVE}: damaged, the official checksum differs: run this again; or {WITHOUT_KAGGLE}")
    note = incoming.FOLDER / incoming.NOTE
    if data.source in ("local", "folders") and note.exists():
        facts["note"] = " ".join(note.read_text(encoding="utf-8", errors="replace").split())
    facts = {"source": data.source, "official": official, "files": described} | facts
    files.write_json(folder / provenance.PATH.name, facts)
    return facts


def report(facts: dict[str, Any]) -> None:
    """Print for every file whether it is Kaggle's own, and warn if one is not."""
    kind = provenance.kind(facts)
    for name, file in facts["files"].items():
        own = "Kaggle's own" if file["official"] else "NOT Kaggle's own file: its checksum differs"
        print(f"{name}  {file['bytes']:,} bytes  {'drawn' if kind == 'drawn' else facts.get('split', own)}")
    if kind in ("unofficial", provenance.OTHER_SPLIT):
        print(f"warning: every score on them will be marked {kind}", file=sys.stderr)


def main() -> None:
    """Run the stage. data/raw/ is replaced only when the new files are complete."""
    settings = config.load()
    if settings.data.source == "kaggle" and up_to_date(settings.data.slug):
        print(f"{RAW}/: {', '.join(provenance.read()['files'])} unchanged since the download; not downloaded again")
        return
    RAW.parent.mkdir(exist_ok=True)
    with files.locked(LOCK, "downloads"), tempfile.TemporaryDirectory(dir=RAW.parent, prefix=".raw-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        facts = collect(settings, new)
        if RAW.exists():
            RAW.rename(Path(temporary) / "old")
        new.rename(RAW)
    report(facts)
