"""A released network as two files: released/MODEL.json says all of it, released/MODEL.npz holds its weights.

Both are checked before anything is made of them, and nothing in them is executed.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, Field

from pipeline import architectures, files
from pipeline.competition import CLASSES
from pipeline.config import Name, Part, Recipe, Seed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import keras

FOLDER = Path("released")
LIMIT = 5_000_000  # bytes of weights: git holds them
REMEDY = "make release"


def _known(name: str) -> str:
    if name not in architectures.names():
        raise ValueError("there is no such architecture here")
    return name


class Facts(BaseModel, frozen=True, strict=True):
    """What one must know to bring a trained network back.

    Parameters
    ----------
    precision : of products, in which it was trained.
    """

    model: Name
    architecture: Annotated[str, AfterValidator(_known)]
    fold: int = Field(ge=0)
    seed: Seed
    recipe: Recipe
    precision: Literal["float32", "bfloat16"]


class Released(Facts, frozen=True, extra="forbid"):
    """What released/MODEL.json says.

    Parameters
    ----------
    views : how many of them test-time augmentation averages. bytes, sha256 : of the weights' file.
    scores : by rows, see release.scores. mean_over_folds : PrivateTest accuracy of one network, on average.
    float16 : what half precision changed. data : digest of the faces, and what is known of their origin.
    """

    classes: tuple[str, ...]
    temperature: float = Field(gt=0, allow_inf_nan=False)
    views: int = Field(ge=1)
    parameters: int = Field(ge=1)
    bytes: int = Field(ge=1, le=2 * LIMIT)
    sha256: str
    teachers: tuple[Name, ...] = ()
    teacher_weight: Part = 0.0
    scores: dict[str, dict[str, Any]]
    mean_over_folds: float | Literal["unknown"]
    float16: dict[str, float]
    data: dict[str, str]
    trained_with: dict[str, str]


def pack(network: "keras.Model") -> dict[str, np.ndarray]:
    """The variables of `network` by their paths: kernels in float16, all else in float32."""
    from keras import ops

    values = {variable.path: ops.convert_to_numpy(variable) for variable in network.weights}
    return {path: array.astype("float16") if path.endswith("kernel") else array for path, array in values.items()}


def unpack(network: "keras.Model", packed: dict[str, np.ndarray]) -> None:
    """Put what `pack` returned into a network of the same architecture. Raises ValueError where that cannot be."""
    if {each.path: tuple(each.shape) for each in network.weights} != {path: a.shape for path, a in packed.items()}:
        raise ValueError(f"the weights are not those of {network.name}")
    if not all(each.dtype in ("float16", "float32") and np.isfinite(each).all() for each in packed.values()):
        raise ValueError("some weights are no finite floats")
    for variable in network.weights:
        variable.assign(packed[variable.path].astype("float32"))


def find() -> Path:
    """The JSON file of the released network."""
    found = list(FOLDER.glob("*.json"))
    if len(found) != 1:
        raise UserError(f"{FOLDER}/ holds {len(found)} networks instead of one; make it with: {REMEDY}")
    return found[0]


def read(path: Path) -> tuple[Released, dict[str, np.ndarray]]:
    """What a JSON file and the .npz file beside it hold. Raises UserError where they are damaged, or too large."""
    with files.reading(path, REMEDY):
        about = Released.model_validate_json(path.read_bytes())
        if about.classes != CLASSES:
            raise ValueError("its classes are not the competition's")
    weights = path.with_suffix(".npz")
    with files.reading(weights, REMEDY):
        if weights.stat().st_size != about.bytes or files.sha256(content := weights.read_bytes()) != about.sha256:
            raise ValueError(f"it is not the file that {path.name} tells of")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if sum(each.file_size for each in arrays.zip.infolist()) > 2 * LIMIT:
                raise ValueError("it is too large when unpacked")
            return about, dict(arrays)
