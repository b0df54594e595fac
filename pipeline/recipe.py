"""How a network is trained: the sections `train` (defaults) and `architectures` (what differs) of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline import architectures, params
from pipeline.command import Refusal

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Recipe(params.Section):
    """Everything that decides how one network is trained."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["adam", "sgd"]  # sgd: with Nesterov momentum 0.9
    weight_decay: Annotated[float, Field(ge=0, lt=1)]  # part of every kernel that a step at rate 1 takes away
    learning_rate: Positive
    # cosine: to zero; triangle: up over a fifth of the epochs, then down to zero; plateau: watches the training loss
    schedule: Literal["constant", "cosine", "triangle", "plateau"]
    plateau_factor: Annotated[float, Field(gt=0, lt=1)]
    plateau_patience: int = Field(ge=1)  # epochs
    loss: Literal["categorical", "binary"]  # cross-entropy over the classes, or one yes/no question a class
    label_smoothing: Fraction  # this part of each label is spread over all classes
    scaling: Literal["unit", "symmetric", "raw"]  # grey levels to 0..1, -1..1, or left at 0..255
    rotation: Annotated[float, Field(ge=0, le=180)]  # up to so many degrees either way
    shift: Fraction  # up to this part of the side, each axis
    zoom: Fraction  # each axis by a factor of 1 - zoom to 1 + zoom
    flip: bool  # mirror every second picture, by chance
    flip_at_test: bool  # average the probabilities of a picture and its mirror image
    recalibrate: bool  # after each epoch, measure batch normalisation's statistics anew
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
