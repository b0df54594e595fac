"""A released network: released/MODEL.json says all of it, released/MODEL.safetensors holds its weights.

Both are checked before anything is made of them, and nothing in them is executed.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline import architectures, config, files
from pipeline.competition import CLASSES, SIDE
from pipeline.config import Name, Part, Recipe, Seed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import keras

FOLDER = Path("released")
WEIGHTS = ".safetensors"
LIMIT = 5_000_000  # bytes of a file: git holds it
REMEDY = "make release"


class Facts(BaseModel, frozen=True, strict=True):
    """What one must know to bring a trained network back.

    Parameters
    ----------
    precision : of products, in which it was trained.
    """

    model: Name
    architecture: Annotated[str, AfterValidator(lambda name: config.known(name, architectures.names()))]
    fold: int = Field(ge=0)
    seed: Seed
    recipe: Recipe
    precision: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if architectures.fixed_size(self.architecture) and self.recipe.crop != SIDE:
            raise ValueError(f"{self.architecture} takes pictures of {SIDE}x{SIDE} pixels alone")
        return self


def _competition(names: tuple[str, ...]) -> tuple[str, ...]:
    if names != CLASSES:
        raise ValueError("are not the competition's")
    return names


class Released(Facts, frozen=True, extra="forbid"):
    """What released/MODEL.json says.

    Parameters
    ----------
    views : how many of them test-time augmentation averages. bytes, sha256 : of the weights' file.
    scores : by rows, see release.scores. mean_over_folds : PrivateTest accuracy of one network, on average.
    float16 : what half precision changed. onnx : of that file, see export.check, and the pictures of the check.
    data : digest of the faces, and what is known of their origin.
    """

    classes: Annotated[tuple[str, ...], AfterValidator(_competition)]
    temperature: float = Field(gt=0, allow_inf_nan=False)
    views: int = Field(ge=1)
    parameters: int = Field(ge=1)
    bytes: int = Field(ge=1, le=LIMIT)
    sha256: str
    teachers: tuple[Name, ...] = ()
    teacher_weight: Part = 0.0
    scores: dict[str, dict[str, Any]]
    mean_over_folds: float | Literal["unknown"]
    float16: dict[str, float]
    onnx: dict[str, float | str]
    data: dict[str, str]
    trained_with: dict[str, str]


def notes(facts: Facts, temperature: float, views: int) -> dict[str, str]:
    """What one must know to use a file of weights: each holds it itself."""
    return {
        "model": facts.model, "architecture": facts.architecture, "license": "MIT", "classes": " ".join(CLASSES),
        "input": f"uint8 [n, {SIDE}, {SIDE}]: grey levels 0 to 255 of faces cut out as in FER2013",
        "output": f"float32 [n, {len(CLASSES)}]: probabilities that sum to 1, in the order of classes",
        **{key: str(getattr(facts.recipe, key)) for key in ("contrast", "crop", "scaling")},
        "test_time_augmentation": f"mean over {views} views: tta_flip {facts.recipe.tta_flip}, "
        f"tta_shift {facts.recipe.tta_shift}, tta_zoom {facts.recipe.tta_zoom}",
        "temperature": str(temperature),
    }  # fmt: skip


def pack(network: "keras.Model") -> dict[str, np.ndarray]:
    """The variables of `network` by their paths: kernels in float16, all else in float32."""
    from keras import ops

    values = {variable.path: ops.convert_to_numpy(variable) for variable in network.weights}
    return {path: array.astype("float16") if path.endswith("kernel") else array for path, array in values.items()}


def as_file(arrays: dict[str, np.ndarray], about: dict[str, str]) -> bytes:
    """A .safetensors file of what `pack` returned, and of `notes`."""
    return save(arrays, {"about": json.dumps(about)})  # one key: the library mixes the order of several


def unpack(network: "keras.Model", arrays: dict[str, np.ndarray]) -> None:
    """Put what `pack` returned into a network of the same architecture. Raises ValueError where that cannot be."""
    if {each.path: tuple(each.shape) for each in network.weights} != {path: a.shape for path, a in arrays.items()}:
        raise ValueError(f"the weights are not those of {network.name}")
    if not all(each.dtype in ("float16", "float32") and np.isfinite(each).all() for each in arrays.values()):
        raise ValueError("some weights are no finite floats")
    for variable in network.weights:
        variable.assign(arrays[variable.path].astype("float32"))


def find() -> Path:
    """The JSON file of the released network."""
    found = list(FOLDER.glob("[!.]*.json"))
    if len(found) != 1:
        raise UserError(f"{FOLDER}/ holds {len(found)} networks instead of one; make it with: {REMEDY}")
    return found[0]


def _content(path: Path) -> bytes:
    if not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("it is no file")
    if path.stat().st_size > LIMIT:
        raise ValueError("it is too large")
    return path.read_bytes()


def read(path: Path) -> tuple[Released, dict[str, np.ndarray]]:
    """What a JSON file, and the weights beside it, hold. Raises UserError where they are damaged, or too large."""
    with files.reading(path, REMEDY):
        about = Released.model_validate_json(_content(path))
    with files.reading(weights := path.with_suffix(WEIGHTS), REMEDY):
        if files.sha256(_content(weights)) != about.sha256:
            raise ValueError(f"it is not the file that {path.name} tells of")
        try:
            with safe_open(weights, "numpy") as file:
                own = json.loads(file.metadata()["about"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as trouble:
            raise ValueError(str(trouble)) from None
        told = notes(about, about.temperature, about.views)
        if other := [key for key in told if own.get(key) != told[key]]:
            raise ValueError(f"{path.name} tells otherwise of its {', '.join(other)}")
        return about, arrays
