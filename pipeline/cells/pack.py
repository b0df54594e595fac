"""Take the run to a machine without DVC, as one archive, and bring the cells that it trained home.

`pack` writes code, faces, folds, plans and the cells that are there. `unpack` takes from an archive of the other
machine's artifacts/ those cells that are whole and of this run.
"""

import shutil
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from pipeline import files
from pipeline.cells import planning, progress, store, train
from pipeline.data import faces, folds
from pipeline.errors import UserError

THERE = "tar xf {name} && python -m pipeline train --yes && tar czf cells.tar.gz artifacts/cells artifacts/students"
PARTS = ("pipeline", "params.yaml", "pyproject.toml", str(faces.PATH), str(folds.PATH), str(planning.PLANS),
         str(store.CELLS), str(store.STUDENTS))  # fmt: skip


def pack(archive: Path) -> None:
    """Write the archive, and say what to do with it."""
    planning.main()
    train.start()  # faces and folds are there, and fit each other

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name else member

    def fill(file: object) -> None:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:  # type: ignore[call-overload]
            for part in filter(lambda part: Path(part).exists(), PARTS):
                tar.add(part, filter=plain)

    files.replace(archive, fill)
    print(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB. There, with Keras and JAX, PyTorch or TensorFlow:\n"
          f"  {THERE.format(name=archive.name)}\nand here: make unpack FILE=cells.tar.gz")  # fmt: skip


def unpack(archive: Path) -> None:
    """Take cells from an archive. Raises UserError where it is no archive."""
    if not archive.is_file():
        raise UserError(f"{archive} is no file; name an archive: make unpack FILE=cells.tar.gz")
    run, taken, left = train.start(), [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, *files.DAMAGE) as trouble:
            raise UserError(f"{archive} cannot be unpacked: {str(trouble).partition(chr(10))[0][:200]}") from None
        for name in run.settings.names:
            for fold in run.settings.folds:
                place, task = store.folder(run.settings, name, fold), None
                about = store.about(Path(folder) / place)
                with suppress(UserError):  # a student's soft targets may be missing yet
                    task = run.task(name, fold)
                if about is None or task is None or run.whole(task):
                    continue
                if about.key != task.key:
                    left.append(str(place))
                    continue
                before = Path(folder) / "before"
                if place.exists():
                    shutil.move(place, before)
                shutil.copytree(Path(folder) / place, place)
                if run.whole(task):
                    taken.append(task)
                else:  # it does not hold what its cell.json tells
                    left.append(f"{place} (damaged)")
                    shutil.rmtree(place)
                    if before.exists():
                        shutil.move(before, place)
                shutil.rmtree(before, ignore_errors=True)
    train.commit(taken)
    if left:
        print(f"left out, as they are damaged, or of another plan or other data: {', '.join(left)}", file=sys.stderr)
    print(f"{progress.count(len(taken))} taken from {archive}")
