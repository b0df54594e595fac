"""Refuse every mistake in params.yaml at once, before anything runs for hours.

Reads params.yaml.
"""

from pipeline import command, download, ensemble, folds, params, recipe


def main() -> None:
    """Let every section's owner read it."""
    params.seed()
    download.read_params()
    folds.numbers()
    for name in recipe.names():
        recipe.read(name)
    ensemble.read_params()


if __name__ == "__main__":
    command.run(main, "python -m pipeline.check")
