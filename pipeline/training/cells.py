"""The files of trained cells, networks that did not see one fold: where they lie, and how a network comes back."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from pipeline import architectures, recipe
from pipeline.command import Refusal

if TYPE_CHECKING:
    import keras

ARTIFACTS = Path("artifacts")
# In the order in which they are written, the timing last: it says that all are there.
PLACES = {
    "weights": "models/{}/fold{}.weights.h5",
    "about": "models/{}/fold{}.json",
    "predictions": "predictions/{}/fold{}.npz",
    "history": "histories/{}/fold{}.csv",
    "timing": "timings/{}/fold{}.json",
}


def path(kind: str, name: str, fold: int | str) -> Path:
    """The file of a `kind`, one of PLACES. Students' weights lie apart: their lessons depend on all of models/."""
    place = PLACES[kind].format(name, fold)
    return ARTIFACTS / (place.replace("models/", "students/") if recipe.is_student(name) else place)


def computed_with(timing: dict[str, Any]) -> dict[str, Any]:
    """What computed a cell, of what its timing file holds: library, versions, precision and processor."""
    return {name: value for name, value in timing.items() if name not in ("seconds", "parameters", "key", "weights")}


def remedy(name: str, fold: int) -> str:
    """The command that makes a cell anew."""
    return f"dvc repro -f {'distill' if recipe.is_student(name) else 'train'}@{name}-{fold}"


def metadata(about: Path, remedy: str) -> tuple[dict[str, Any], recipe.Recipe]:
    """What lies beside weights as JSON, and the recipe in it. Raises Refusal that ends with `remedy`."""
    try:
        found = json.loads(about.read_text())
        if not isinstance(found["classes"], list) or found["architecture"] not in architectures.names():
            raise ValueError("its classes or its architecture are unknown")
        return found, recipe.Recipe.model_validate(found["recipe"])
    except pydantic.ValidationError as trouble:
        words = f"its recipe is another version's: {trouble.errors()[0]['loc']}"
    except (OSError, ValueError, KeyError, TypeError) as trouble:
        words = repr(trouble) if isinstance(trouble, KeyError) else str(trouble)
    raise Refusal(f"{about} cannot be used ({words}); make it with: {remedy}")


def restore(name: str, weights: Path, remedy: str) -> "keras.Model":
    """The network `name` with these `weights`. Keras must run already. Raises Refusal that ends with `remedy`."""
    network = architectures.build(name)
    try:
        network.load_weights(weights)
    except (OSError, ValueError, KeyError) as trouble:
        words = next(iter(str(trouble).splitlines()), "")
        raise Refusal(f"{weights} cannot be used ({words}); make it with: {remedy}") from None
    return network


def lessons(fold: int) -> Path:
    """Where the answers of all teachers of a fold lie: `rows` int32 [m], and float32 [m, 7] by the teacher's name."""
    return ARTIFACTS / f"lessons/fold{fold}.npz"


def said(fold: int, teachers: list[str], rows: np.ndarray) -> np.ndarray:
    """The teachers' mean answer to `rows`, which they were trained on: float32 [m, 7]."""
    try:
        with np.load(lessons(fold)) as file:
            if not np.array_equal(file["rows"], rows):
                raise ValueError("it is of other rows")
            mean: np.ndarray = np.mean([file[name] for name in teachers], axis=0)
            return mean
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as trouble:
        raise Refusal(f"{lessons(fold)} cannot be used ({trouble}); make it with: dvc repro -f teach@{fold}") from None
