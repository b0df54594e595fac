"""Transfer of a run to a machine without DVC, and of the trained cells back.

`pack` writes an archive of code, faces, folds, plans and existing cells. `unpack` imports, from an archive of the other
machine's artifacts/, the valid cells of this run.
"""

import contextlib
import os
import re
import shlex
import sys
import tarfile
import tempfile
from pathlib import Path

from pipeline import config, files
from pipeline.cells import planning, progress, soft_targets, store, train
from pipeline.data import faces, folds, incoming
from pipeline.errors import UserError

THERE = "tar xf {name} && python -m pipeline train --yes; tar czf cells.tar.gz artifacts/cells artifacts/students"
CELL = re.compile(rf"(?:\./)?(?:{store.CELLS}|{store.STUDENTS})/[\w-]+/fold\d+/(?:{'|'.join(store.FILES)})")
PARTS = ("pipeline", "params.yaml", "pyproject.toml", str(config.EXTERNAL), str(faces.PATH), str(folds.PATH),
         str(folds.FOLDER), str(planning.PLANS), str(store.CELLS), str(store.STUDENTS))  # fmt: skip


def pack(archive: Path) -> None:
    """Write the archive, and print the commands to run on the other machine."""
    planning.main()
    folds.main()
    train.start()  # raises if faces or folds are missing or inconsistent
    store.STUDENTS.mkdir(parents=True, exist_ok=True)  # the printed command reads it, even without students

    def fill(file: object) -> None:
        with tarfile.open(fileobj=file, mode="w:gz", dereference=True) as tar:  # type: ignore[call-overload]
            for part in filter(os.path.exists, PARTS):
                tar.add(part, filter=lambda member: None if "__pycache__" in member.name else member)

    if archive.is_dir():
        raise UserError(f"{archive} is a folder; name a file")
    files.replace(archive, fill)
    there = THERE.format(name=shlex.quote(archive.name))
    print(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB. On a machine with Keras and JAX, PyTorch or TensorFlow:\n"
          f"  {there}\nThen on this machine: make unpack FILE=cells.tar.gz")  # fmt: skip


def unpack(archive: Path) -> None:
    """Import cells from an archive. Raises UserError if it is not an archive."""
    if not archive.is_file():
        raise UserError(f"{archive} is not a file; give an archive: make unpack FILE=cells.tar.gz")
    planning.main()
    run = train.start()
    valid: dict[Path, bool] = {}  # whether the cell of a folder was imported
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, content in incoming.unpack(archive, CELL.fullmatch):
            files.write(folder / name, content)
        if not any((folder / place).is_dir() for place in (store.CELLS, store.STUDENTS)):
            raise UserError(f"{archive} contains neither {store.CELLS} nor {store.STUDENTS}")
        for name in run.settings.names:
            places = {fold: store.folder(run.settings, name, fold) for fold in run.settings.folds_of(name)}
            new = [fold for fold, place in places.items() if _is_new(folder, place) and not run.finished(name, fold)]
            teachers = run.settings.students[name].teachers if name in run.settings.students else []
            ready = all(run.finished(each, fold) for each in teachers for fold in run.settings.folds_of(each))
            if new and teachers and ready:
                soft_targets.main(name)
            valid |= {places[fold]: ready and _import(run, folder, name, fold) for fold in new}
    imported = [place for place, copied in valid.items() if copied]
    train.commit(run, list({place.parent.name for place in imported}))
    if wrong := ", ".join(str(place) for place, copied in valid.items() if not copied):
        print(f"not imported (damaged, or other parameters, code, data or teachers): {wrong}", file=sys.stderr)
    print(f"{progress.count(len(imported))} imported from {archive}")


def _is_new(folder: Path, place: Path) -> bool:
    """Return whether the archive has a cell that differs from the one here."""
    return (folder / place).exists() and not ((there := store.about(folder / place)) and there == store.about(place))


def _import(run: train.Run, folder: Path, name: str, fold: int) -> bool:
    """Copy a cell from `folder` if it is valid and of this run. Return whether it was copied."""
    with contextlib.suppress(UserError):  # the soft targets of a student may be missing
        task, place = run.task(name, fold), store.folder(run.settings, name, fold)
        with contextlib.chdir(folder):
            valid = run.is_complete(task)
        if valid:
            for file in store.FILES:
                files.write(place / file, (folder / place / file).read_bytes())
        return valid
    return False
