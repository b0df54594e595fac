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

if TYPE_CHECKING:
    import keras

FOLDER = Path("released")
LIMIT = 5_000_000  # bytes of weights: git holds them
REMEDY = "make release"


def _one_of(known: list[Any]) -> AfterValidator:
    def check(value: Any) -> Any:
        if value not in known:
            raise ValueError(f"it must be one of {known}")
        return value

    return AfterValidator(check)


class Facts(BaseModel, frozen=True, strict=True):
    """What one must know to bring a trained network back.

    Parameters
    ----------
    precision : of products, in which it was trained.
    """

    model: Name
    architecture: Annotated[str, _one_of(architectures.names())]
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

    classes: Annotated[tuple[str, ...], _one_of([CLASSES])]
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

    packed = {}
    for variable in network.weights:
        values = ops.convert_to_numpy(variable)
        packed[variable.path] = values.astype("float16") if variable.name.endswith("kernel") else values
    return packed


def unpack(network: "keras.Model", packed: dict[str, np.ndarray]) -> None:
    """Put what `pack` returned into a network of the same architecture. Raises ValueError where that cannot be."""
    wanted = {variable.path: variable for variable in network.weights}
    if {path: tuple(each.shape) for path, each in wanted.items()} != {
        path: each.shape for path, each in packed.items()
    }:
        raise ValueError(f"the weights are not those of {network.name}")
    if not all(each.dtype in ("float16", "float32") and np.isfinite(each).all() for each in packed.values()):
        raise ValueError("some weights are no finite floats")
    for path, variable in wanted.items():
        variable.assign(packed[path].astype("float32"))


def find() -> Path:
    """The JSON file of the released network."""
    found = sorted(FOLDER.glob("*.json"))
    with files.reading(FOLDER, REMEDY):
        if len(found) != 1:
            raise ValueError(f"it holds {len(found)} networks instead of one")
    return found[0]


def read(path: Path) -> tuple[Released, dict[str, np.ndarray]]:
    """What a JSON file and the .npz file beside it hold. Raises UserError where they are damaged, or too large."""
    with files.reading(path, REMEDY):
        about = Released.model_validate_json(_content(path, 10**6))
    weights = path.with_suffix(".npz")
    with files.reading(weights, REMEDY):
        content = _content(weights, 2 * LIMIT)
        if files.sha256(content) != about.sha256:
            raise ValueError(f"it is not the file that {path.name} tells of")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if sum(each.file_size for each in arrays.zip.infolist()) > 2 * LIMIT:
                raise ValueError("it is too large when unpacked")
            return about, dict(arrays)


def _content(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return path.read_bytes()
