"""Files of a release: released/MODEL.json describes its networks, released/MODEL.safetensors contains their weights.

Both are validated before use, and nothing in them is executed. Convolution kernels are stored in 8 bits, with one scale
per output channel (Krishnamoorthi 2018, arXiv 1806.08342, section 2.1), other kernels in float16, the rest in float32.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field
from safetensors.numpy import load

from pipeline import files
from pipeline.competition import CLASSES, SIDE
from pipeline.config import Architecture, Name, Part, Recipe, Seed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import keras

FOLDER = Path("released")
WEIGHTS = ".safetensors"
SCALE = "/scale"  # ending of the name of an int8 array's scales
LIMIT = 5_000_000  # bytes of a file, because the files are in git
REMEDY = "git checkout released, or make release"


class Facts(BaseModel, frozen=True, strict=True):
    """Facts that are needed to restore a trained network.

    Parameters
    ----------
    precision : of matrix products in training.
    """

    model: Name
    architecture: Architecture
    seed: Seed
    recipe: Recipe
    precision: Literal["float32", "bfloat16"]


class Released(Facts, frozen=True, extra="forbid"):
    """Content of released/MODEL.json.

    Parameters
    ----------
    folds : held-out fold of each network. run_folds : number of folds of the run.
    views : number of views that test-time augmentation averages.
    parameters : of all networks. bytes, sha256 : of the weights file. scores : by rows, see release.scores.
    rounding : differences due to rounded weights. onnx : result of export.check, and the pictures it used.
    data : digest of the faces, and their provenance.
    """

    folds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    run_folds: int = Field(ge=2)
    classes: tuple[str, ...]
    temperature: float = Field(gt=0, allow_inf_nan=False)
    views: int = Field(ge=1)
    parameters: int = Field(ge=1)
    bytes: int = Field(ge=1, le=LIMIT)
    sha256: str
    teachers: tuple[Name, ...] = ()
    teacher_weight: Part = 0.0
    scores: dict[str, dict[str, Any]]
    rounding: dict[str, float]
    onnx: dict[str, int | float | str]
    data: dict[str, str]
    trained_with: dict[str, str]


def notes(facts: Facts, temperature: float, views: int, networks: int) -> dict[str, str]:
    """Return the metadata that every weights file contains."""
    return {
        "model": facts.model, "architecture": facts.architecture, "networks": str(networks), "license": "MIT",
        "classes": " ".join(CLASSES),
        "input": f"uint8 [n, {SIDE}, {SIDE}]: grey levels 0 to 255 of faces cut out as in FER2013",
        "output": f"float32 [n, {len(CLASSES)}]: probabilities that sum to 1, in the order of classes",
        **{key: str(getattr(facts.recipe, key)) for key in ("contrast", "crop", "scaling")},
        "test_time_augmentation": f"mean over {views} views: tta_flip {facts.recipe.tta_flip}, "
        f"tta_shift {facts.recipe.tta_shift}, tta_zoom {facts.recipe.tta_zoom}",
        "temperature": str(temperature),
    }  # fmt: skip


def quantised(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Round a kernel to 8 bits; the product of both results is the rounded kernel.

    Parameters
    ----------
    kernel : float32, 4 axes. axis : of the output channels.

    Returns
    -------
    Levels from -127 to 127, int8 of the same shape; scales, float32, of size 1 along the other axes.
    """
    largest = abs(kernel).max(axis=tuple({0, 1, 2, 3} - {axis}), keepdims=True)
    scale = (np.where(largest > 0, largest, 1) / 127).astype("float32")
    return (kernel / scale).round().astype("int8"), scale


def pack(networks: "list[keras.Model]") -> dict[str, np.ndarray]:
    """Return the variables of all networks, and the scales of int8 kernels, by the network's number and their path."""
    from keras import ops

    arrays: dict[str, np.ndarray] = {}
    for number, network in enumerate(networks):
        for variable in network.weights:
            path, values = f"{number}/{variable.path}", ops.convert_to_numpy(variable)
            if path.endswith("kernel") and values.ndim == 4:  # of a depthwise convolution: one output per channel
                arrays[path], arrays[path + SCALE] = quantised(values, axis=3 if values.shape[3] > 1 else 2)
            else:
                arrays[path] = values.astype("float16") if path.endswith("kernel") else values
    return arrays


def unpack(networks: "list[keras.Model]", arrays: dict[str, np.ndarray]) -> None:
    """Assign the result of `pack` to networks of the same architecture. Raises ValueError if they do not match."""
    values = {path: each * arrays.get(path + SCALE, np.float32(1)) for path, each in arrays.items()
              if not path.endswith(SCALE)}  # fmt: skip
    variables = {f"{number}/{each.path}": each for number, network in enumerate(networks) for each in network.weights}
    if {path: tuple(each.shape) for path, each in variables.items()} != {path: a.shape for path, a in values.items()}:
        raise ValueError(f"the weights do not fit {networks[0].name}")
    for path, variable in variables.items():
        variable.assign(values[path].astype("float32"))


def find() -> Path:
    """Return the path of the released network's JSON file. Raises UserError unless there is exactly one."""
    paths = list(FOLDER.glob("[!.]*.json"))
    if len(paths) != 1:
        found = ", ".join(sorted(map(str, paths))) or "none"
        raise UserError(f"{FOLDER}/ must contain one .json file, not {found}; remove others, or: {REMEDY}")
    return paths[0]


def read(path: Path) -> tuple[Released, dict[str, np.ndarray]]:
    """Read a JSON file and the weights next to it. Raises UserError if they are damaged or do not belong together."""
    with files.reading(path, REMEDY):
        about = Released.model_validate_json(path.read_bytes())
    with files.reading(weights := path.with_suffix(WEIGHTS), REMEDY):
        content = weights.read_bytes()
        if files.sha256(content) != about.sha256:
            raise ValueError(f"its SHA-256 differs from {path.name}")
        return about, load(content)
