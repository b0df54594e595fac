"""Bring the competition's files together, and write down where they came from and whether they are Kaggle's own.

Reads data/incoming/ (source local), Kaggle (source kaggle; credentials as the kaggle client takes them) or draws a
competition (source synthetic). Writes data/raw/: the files as published, unzipped, and PROVENANCE.json.
"""

import errno
import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline import command, kaggle_client, params, synthetic
from pipeline.command import Refusal
from pipeline.competition import CHECKSUMS, SLUG

INCOMING = Path("data/incoming")
RAW = Path("data/raw")
NOTE = "NOTE.txt"  # what the user knows of the files in data/incoming/; it goes with them into PROVENANCE.json
LARGEST = 2**30  # bytes of one unpacked file; the competition's largest has 0.3 * 2**30
WITHOUT_KAGGLE = "put the files into data/incoming/ and set data.source to local in params.yaml; or run: make demo"

Fetch = Callable[[str, Path], None]  # (name of a file, folder to put it into)


class Data(params.Section):
    """Where the competition's files come from: section `data` of params.yaml."""

    source: Literal["local", "kaggle", "synthetic"]
    training_faces: int = Field(ge=7)
    test_faces: int = Field(ge=7)


def read_params() -> Data:
    """The section `data`."""
    return params.section("data", Data)


def digest(path: Path, algorithm: str) -> str:
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Size and checksums of one of the competition's files, and whether they are those of Kaggle's own."""
    algorithm, expected = CHECKSUMS[path.name]
    md5 = digest(path, "md5")
    found = md5 if algorithm == "md5" else digest(path, algorithm)
    return {"bytes": path.stat().st_size, "md5": md5, "official": found == expected}


def unzip(archive: Path, folder: Path) -> list[str]:
    """Unpack the competition's files from a .zip, whatever folders they lie in there; return their names.

    Only known names are written, so no path in the archive can lead elsewhere. Raises Refusal where it is damaged.
    """
    names = []
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                name = Path(member.filename).name
                if name not in CHECKSUMS or member.is_dir():
                    continue
                if member.file_size > LARGEST:
                    raise Refusal(
                        f"{archive}: {name} unpacks to {member.file_size:,} bytes, which is no competition file"
                    )
                with opened.open(member) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
                names.append(name)
    # What zipfile raises for damage, encryption, unknown compression, and offsets before the file's beginning.
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError, NotImplementedError, OSError) as trouble:
        if isinstance(trouble, OSError) and trouble.errno != errno.EINVAL:
            raise
        raise Refusal(f"{archive} is damaged or cannot be unpacked ({trouble}); bring the file again") from None
    return names


def take_local(incoming: Path, folder: Path) -> None:
    """Copy or unzip all of the competition's files that lie in `incoming` into `folder`."""
    found = []
    for path in sorted(incoming.glob("*")):
        if path.name in CHECKSUMS:
            shutil.copyfile(path, folder / path.name)
            found.append(path.name)
        elif path.suffix == ".zip":
            inside = unzip(path, folder)
            found += inside
            if not inside:
                print(f"ignored: {path} holds none of the competition's files")
        elif path.name not in ("README.md", NOTE) and not path.name.startswith("."):
            print(f"ignored: {path} is none of the competition's files ({', '.join(CHECKSUMS)})")
    if not found:
        raise Refusal(
            f"{incoming}/ holds none of the competition's files: put fer2013.tar.gz, icml_face_data.csv, or train.csv "
            f"with test.csv there, as they are or zipped (from {kaggle_client.PAGE}/data); or set data.source to "
            "kaggle in params.yaml; or try the drawn competition: make demo"
        )


def kaggle_fetch() -> Fetch:
    """Log in to Kaggle; return what fetches one file of the competition."""
    api = kaggle_client.login(WITHOUT_KAGGLE)

    def fetch(name: str, folder: Path) -> None:
        with kaggle_client.explained(name, WITHOUT_KAGGLE):
            api.competition_download_file(SLUG, name, path=str(folder), force=True, quiet=not sys.stderr.isatty())
        packed = folder / f"{name}.zip"
        if packed.exists():
            unzip(packed, folder)
            packed.unlink()
        if not (folder / name).exists() or not describe(folder / name)["official"]:
            raise Refusal(
                f"{name} did not arrive as Kaggle has it (it is missing or its checksum differs); run this again"
            )

    return fetch


def take_kaggle(fetch: Fetch, folder: Path) -> None:
    """Fetch the smallest file that carries everything, or else the others."""
    refusals = []
    for names in (["fer2013.tar.gz"], ["icml_face_data.csv"], ["train.csv", "test.csv"]):
        try:
            for name in names:
                fetch(name, folder)
            return
        except Refusal as refusal:
            if "HTTP 404" not in str(refusal):
                raise
            refusals.append(str(refusal))
    raise Refusal("; ".join(refusals))


def collect(settings: Data, seed: int, folder: Path) -> dict[str, Any]:
    """Put the files into `folder`, with PROVENANCE.json: the source, and size and checksums of every file."""
    if settings.source == "local":
        take_local(INCOMING, folder)
    elif settings.source == "kaggle":
        take_kaggle(kaggle_fetch(), folder)
    else:
        faces = synthetic.competition(settings.training_faces, settings.test_faces, seed)
        synthetic.write(folder, *faces, names={"fer2013.tar.gz"})
    files = {path.name: describe(path) for path in sorted(folder.iterdir())}
    if files.keys() in ({"train.csv"}, {"test.csv"}):
        raise Refusal(
            f"{INCOMING}/ holds {next(iter(files))} alone; put test.csv and train.csv there, or one whole file"
        )
    official = all(facts["official"] for facts in files.values())
    provenance: dict[str, Any] = {"source": settings.source, "official": official, "files": files}
    if settings.source == "local" and (INCOMING / NOTE).exists():
        provenance["note"] = " ".join((INCOMING / NOTE).read_text().split())
    (folder / "PROVENANCE.json").write_text(json.dumps(provenance, indent=2) + "\n")
    return provenance


def main() -> None:
    """Run the stage. What lay in data/raw/ is replaced only when everything else has arrived."""
    settings, seed = read_params(), params.seed()
    RAW.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RAW.parent, prefix=".raw-") as temporary:
        folder = Path(temporary) / "raw"
        folder.mkdir()
        provenance = collect(settings, seed, folder)
        if RAW.exists():
            shutil.rmtree(RAW)
        folder.rename(RAW)
    for name, facts in provenance["files"].items():
        official = "Kaggle's own" if facts["official"] else "NOT Kaggle's own file: its checksum differs"
        print(f"{name}  {facts['bytes']:,} bytes  {'drawn' if settings.source == 'synthetic' else official}")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.download")
