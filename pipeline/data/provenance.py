"""Where the competition's files came from, and whether they are Kaggle's own: data/raw/PROVENANCE.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.competition import CHECKSUMS
from pipeline.errors import UserError

NAME = "PROVENANCE.json"
PATH = Path("data/raw") / NAME
OTHER_SPLIT = "other split"


def describe(path: Path) -> dict[str, Any]:
    """Size and checksum of a file, and whether it is one of the competition's, as Kaggle has it."""

    def digest(algorithm: str) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()

    algorithm, expected = CHECKSUMS.get(path.name, ("md5", ""))
    return {"bytes": path.stat().st_size, "md5": digest("md5"), "official": digest(algorithm) == expected}


def read(path: Path = PATH) -> dict[str, Any]:
    """Its keys: source, official, and for every file bytes, md5, official and (if the user brought it) from."""
    with files.reading(path, "dvc repro -f download"):
        found: dict[str, Any] = json.loads(path.read_bytes())
        found["source"], found["official"], found["files"]
        return found


def original(path: Path) -> str:
    """The user's own file that a file in data/raw/ was copied from; `path` itself where none is known."""
    try:
        return str(read(path.with_name(NAME))["files"][path.name]["from"])
    except (UserError, LookupError, TypeError):
        return str(path)


def standing(provenance: dict[str, Any]) -> str:
    """What kind of data scores are measured on.

    "official", "unofficial" or "drawn". For pictures in folders, of which no checksum is known, "folders" where they
    have the competition's split, and "other split" where they have not.
    """
    if provenance["source"] == "synthetic":
        return "drawn"
    if provenance["source"] == "folders":
        return "folders" if provenance["official_split"] else OTHER_SPLIT
    return "official" if provenance["official"] else "unofficial"
