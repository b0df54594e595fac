"""Command `python -m bench`, see race.py."""

import typer

from bench.race import main
from pipeline.command import guarded

typer.run(guarded(main))
