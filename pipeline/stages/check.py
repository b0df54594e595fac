"""Refuse every mistake in params.yaml at once, before anything runs for hours.

Reads params.yaml. Writes data/params-checked, whose content never changes: folds waits for it, and trains nothing anew.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline import architectures, command, files, params, recipe
from pipeline.command import Refusal
from pipeline.competition import SIDE
from pipeline.data import download, folds
from pipeline.evaluation import ensemble

PATH = Path("data/params-checked")


def whole_only(network: str) -> bool:
    """Whether a network takes pictures of 48x48 pixels alone, by its file's text: no library is imported for it."""
    source = (Path(architectures.__file__).parent / f"{network}.py").read_text()
    side = r"(?:[\w.]*SIDE|48)\s*,\s*"
    fixed = rf"Input\(\s*(?:shape\s*=\s*)?[(\[]\s*{side}{side}1\b|^\s*return (?:_blocks\.)?stack\("
    return bool(re.search(fixed, source, re.MULTILINE))


def together(name: str, network: str, read: Callable[[], recipe.Recipe]) -> None:
    """Refuse a recipe that has more early or plain epochs than epochs, or other pictures than `network` takes."""
    settings = read()
    if whole_only(network):
        for key, default in (("crop", SIDE), ("early_epochs", 0)):
            if getattr(settings, key) != default:
                why = f"{network} takes whole pictures only, so it must be {default}"
                raise Refusal(f"{params.PATH}: {name}.{key} = {getattr(settings, key)}: {why}")
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
        lambda: together("speedrun.recipe", recipe.speedrun()[0].network, lambda: recipe.speedrun()[1]),
    ]
    sections = [params.document()[part] for part in ("architectures", "students")]
    known = architectures.names()  # another is recipe.names's to refuse
    every = [name for section in sections if isinstance(section, dict) for name in section]
    readers += [partial(together, name, name, partial(recipe.read, name)) for name in every if name in known]
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
    files.write(PATH, b"params.yaml is sound\n")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.stages.check")
