"""Refuse every mistake in params.yaml at once, before anything runs for hours.

Reads params.yaml. Writes data/params-checked, whose content never changes: folds waits for it, and trains nothing anew.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline import command, download, ensemble, folds, params, recipe
from pipeline.command import Refusal

PATH = Path("data/params-checked")


def lengths(name: str, read: Callable[[], recipe.Recipe]) -> None:
    """Refuse a recipe that has more early or plain epochs than epochs."""
    settings = read()
    for key in ("early_epochs", "plain_epochs"):
        if getattr(settings, key) > settings.epochs:
            raise Refusal(f"{params.PATH}: {name}.{key} = {getattr(settings, key)}: it has {settings.epochs} epochs")


def classmates() -> None:
    """Refuse a student that names a teacher twice."""
    for name in recipe.students():
        lesson = recipe.lesson(name)
        if lesson and len(set(lesson.teachers)) < len(lesson.teachers):
            raise Refusal(f"{params.PATH}: students.{name}.teachers names a network twice")


def mistakes() -> list[str]:
    """Let every section's owner read it; return what they refuse, each once."""
    found = []
    readers: list[Callable[[], object]] = [
        params.seed,
        params.backend,
        download.read_params,
        folds.numbers,
        folds.twins,
        recipe.names,
        recipe.teachers,
        ensemble.read_params,
        classmates,
        partial(lengths, "speedrun.recipe", lambda: recipe.speedrun()[1]),
    ]
    sections = [params.document()[part] for part in ("architectures", "students")]
    every = [name for section in sections if isinstance(section, dict) for name in section]
    readers += [partial(lengths, name, partial(recipe.read, name)) for name in every]
    for reader in readers:
        try:
            reader()
        except Refusal as refusal:
            found.append(str(refusal))
    return list(dict.fromkeys(found))


def main() -> None:
    """Run the stage."""
    if found := mistakes():
        raise Refusal("; ".join(found))
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text("params.yaml is sound\n")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.check")
