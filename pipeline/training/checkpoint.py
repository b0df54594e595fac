"""A training's whole state in one file, replaced after every epoch in a single step."""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline import files
from pipeline.training.cell import HISTORY


@dataclass
class Progress:
    """How far a training has come: a line for each finished epoch, with HISTORY's keys, and the seconds they took."""

    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Checkpoint:
    """The file of a training's state.

    Parameters
    ----------
    path : its name must tell everything that the training depends on, so that no other's state is taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, variables: list[keras.Variable], progress: Progress) -> None:
        """Write `variables` (weights, optimizer, random states) and `progress`."""
        state: dict[str, Any] = {f"v{i}": ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        table = np.array([[epoch[key] for key in HISTORY] for epoch in progress.history])
        files.replace(self.path, lambda file: np.savez(file, history=table, seconds=progress.seconds, **state))

    def restore(self, variables: list[keras.Variable]) -> Progress:
        """Put the saved state into `variables`. A missing or damaged file gives a Progress without epochs."""
        try:
            with np.load(self.path) as file:
                saved = dict(file)
            history = [dict(zip(HISTORY, map(float, row), strict=True)) for row in saved["history"]]
            values = [saved[f"v{i}"] for i in range(len(variables))]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return Progress()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return Progress(history, float(saved["seconds"]))
