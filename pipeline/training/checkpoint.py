"""Complete state of a training in one file, replaced atomically after every epoch."""

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
    """Progress of a training: one record per finished epoch, with the keys HISTORY, and the seconds of all epochs."""

    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Checkpoint:
    """Checkpoint file of a training.

    Parameters
    ----------
    path : its name must identify everything that the training depends on, so that no different state is restored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, variables: list[keras.Variable], progress: Progress) -> None:
        """Save `variables` (weights, optimizer, random states) and `progress`."""
        state: dict[str, Any] = {f"v{i}": ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        table = np.array([[epoch[key] for key in HISTORY] for epoch in progress.history])
        files.replace(self.path, lambda file: np.savez(file, history=table, seconds=progress.seconds, **state))

    def restore(self, variables: list[keras.Variable]) -> Progress:
        """Load the state into `variables`, and return its progress: no epochs if the file is missing or damaged."""
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
