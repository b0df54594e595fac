"""Refuse every mistake in params.yaml at once, before anything runs for hours.

Reads params.yaml. Writes data/params-checked, whose content never changes: folds waits for it, and trains nothing anew.
"""

from pathlib import Path

from pipeline import command, download, ensemble, folds, params, recipe
from pipeline.command import Refusal

PATH = Path("data/params-checked")


def mistakes() -> list[str]:
    """Let every section's owner read it; return what they refuse, each once."""
    found = []
    readers = (
        params.seed,
        params.backend,
        download.read_params,
        folds.numbers,
        folds.twins,
        recipe.names,
        recipe.teachers,
        ensemble.read_params,
        recipe.speedrun,
    )
    sections = [params.document()[part] for part in ("architectures", "students")]
    every = [name for section in sections if isinstance(section, dict) for name in section]
    recipes = [lambda name=name: recipe.read(name) for name in every]
    for reader in (*readers, *recipes):
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
