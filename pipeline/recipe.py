"""How a network is trained: the sections `train` (defaults) and `architectures` (what differs) of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline import architectures, params
from pipeline.command import Refusal
from pipeline.competition import SIDE

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Recipe(params.Section):
    """Everything that decides how one network is trained."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["adam", "sgd"]  # sgd: with Nesterov momentum 0.9; adam: with weight_decay it is AdamW
    weight_decay: Annotated[float, Field(ge=0, lt=1)]  # part of every kernel that a step at rate 1 takes away
    learning_rate: Positive
    # cosine, linear: down to zero, step by step; plateau: watches the training loss, epoch by epoch
    schedule: Literal["constant", "cosine", "linear", "plateau"]
    warmup: Fraction  # cosine and linear climb to the full rate over this part of all steps
    plateau_factor: Annotated[float, Field(gt=0, lt=1)]
    plateau_patience: int = Field(ge=1)  # epochs
    average: Fraction  # judge by a moving average of the weights that keeps this much in each step; 0: by the weights
    loss: Literal["categorical", "binary"]  # cross-entropy over the classes, or one yes/no question a class
    label_smoothing: Fraction  # this part of each label is spread over all classes (binary: drawn towards one half)
    contrast: Literal["none", "histogram", "local"]  # how each picture is normalised before all else
    scaling: Literal["unit", "symmetric", "raw"]  # grey levels to 0..1, -1..1, or left at 0..255
    crop: int = Field(ge=8, le=SIDE)  # the network sees a window so many pixels across
    rotation: Annotated[float, Field(ge=0, le=180)]  # up to so many degrees either way
    shift: Fraction  # up to this part of the side, each axis
    zoom: Fraction  # each axis by a factor of 1 - zoom to 1 + zoom
    flip: bool  # mirror every second picture, by chance
    erase: Annotated[float, Field(ge=0, le=1)]  # cover a rectangle with grey in this part of the pictures
    mixup: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # blend pairs of pictures and labels: Beta's parameter
    cutmix: Annotated[float, Field(ge=0, le=1)]  # in this part of the pictures, a square of another, and of its label
    plain_epochs: int = Field(ge=0)  # the last ones, with no variation but flip
    early_epochs: int = Field(ge=0)  # the first ones, with pictures shrunk to
    early_side: int = Field(ge=8, le=SIDE)  # so many pixels across
    flip_at_test: bool  # average the probabilities of a picture and its mirror image
    shift_at_test: int = Field(ge=0, lt=SIDE)  # and of both shifted diagonally, four ways, by so many pixels
    recalibrate: bool  # judge with batch normalisation's statistics measured anew
    precision: Literal["auto", "float32", "bfloat16"]  # of products (sums and weights stay float32); auto: as the
    # machine is made for, see pipeline/machine.py


def names() -> list[str]:
    """The architectures that params.yaml trains, in its order. Raises Refusal for one that has no file."""
    entries = params.document()["architectures"]
    if not isinstance(entries, dict) or not entries:
        raise Refusal(f"{params.PATH}: architectures must map names to recipes, like 'vgg8: {{epochs: 30}}'")
    for name in entries:
        if name not in architectures.names():
            raise Refusal(
                f"{params.PATH}: unknown architecture {name!r}; pipeline/architectures/ has "
                f"{', '.join(architectures.names())}"
            )
    return list(entries)


def read(architecture: str) -> Recipe:
    """The recipe of `architecture`: the section `train`, with its own entry laid over it."""
    if architecture not in names():
        raise Refusal(f"{params.PATH} has no architecture {architecture!r}; it trains {', '.join(names())}")
    own = params.document()["architectures"][architecture]
    where = f"architectures.{architecture}"
    if not isinstance(own, dict | None):
        raise Refusal(f"{params.PATH}: {where} = {own!r}: must be a mapping")
    shared = params.section("train", Recipe)
    return params.parse(where, Recipe, shared.model_dump() | (own or {}))
