"""Provenance of the competition's files: their source and whether they are the originals from Kaggle.

Reads data/raw/PROVENANCE.json.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.competition import CHECKSUMS
from pipeline.errors import UserError

PATH = Path("data/raw/PROVENANCE.json")
OTHER_SPLIT = "other split"


def describe(path: Path) -> dict[str, Any]:
    """Return the size and checksum of a file, and whether it is an original file of the competition."""
    content, (algorithm, expected) = path.read_bytes(), CHECKSUMS.get(path.name, ("md5", ""))
    official = hashlib.new(algorithm, content).hexdigest() == expected
    return {"bytes": len(content), "md5": hashlib.md5(content).hexdigest(), "official": official}


def read(path: Path = PATH) -> dict[str, Any]:
    """Load PROVENANCE.json: source, official, and for each file bytes, md5, official and, if it was copied, from."""
    with files.reading(path, "dvc repro -f download"):
        provenance: dict[str, Any] = json.loads(path.read_bytes())
        provenance["source"], provenance["official"], provenance["files"]
        return provenance


def original(path: Path) -> str:
    """Return the user's file from which a file in data/raw/ was copied, or `path` if it is unknown."""
    try:
        return str(read(path.with_name(PATH.name))["files"][path.name]["from"])
    except (UserError, LookupError, TypeError):
        return str(path)


def kind(provenance: dict[str, Any]) -> str:
    """Return the kind of data: "official", "unofficial", "drawn", "folders" or "other split".

    The last two are pictures in folders, for which no checksum is known, with the competition's split or another one.
    """
    if provenance["source"] == "synthetic":
        return "drawn"
    if provenance["source"] == "folders":
        return "folders" if provenance["official_split"] else OTHER_SPLIT
    return "official" if provenance["official"] else "unofficial"
