"""How a network is trained: the sections `train` (defaults), `architectures` and `students` (what differs)."""

from typing import Annotated, Any, Literal

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
    # sgd: with Nesterov momentum 0.9; adam: with weight_decay it is AdamW; muon: see fit.Muon
    optimizer: Literal["adam", "sgd", "muon"]
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
    zoom_at_test: Fraction  # and of both zoomed, both axes by factors of 1 - zoom_at_test and 1 + zoom_at_test
    recalibrate: bool  # judge with batch normalisation's statistics measured anew
    precision: Literal["auto", "float32", "bfloat16"]  # of products (sums and weights stay float32); auto: as the
    # machine is made for, see pipeline/training/machine.py


class Lesson(params.Section):
    """What a student, of the section `students`, has beside its recipe."""

    teachers: list[str] = Field(min_length=1)  # architectures that are no students
    taught: Annotated[float, Field(gt=0, le=1)]  # part of each label that is the teachers' mean answer


def is_student(name: str) -> bool:
    """Whether an architecture learns from others: its name tells, so that no stage need read what it does not use."""
    return name.startswith("student")


def _entries(section: str) -> dict[str, Any]:
    """A section of params.yaml that maps names to recipes. Raises Refusal for a name that cannot stand there."""
    entries = params.document()[section]
    if not isinstance(entries, dict):
        raise Refusal(f"{params.PATH}: {section} must map names to recipes, like 'vgg8: {{epochs: 30}}'")
    for name, own in entries.items():
        if name not in architectures.names():
            raise Refusal(
                f"{params.PATH}: unknown architecture {name!r}; pipeline/architectures/ has "
                f"{', '.join(architectures.names())}"
            )
        if is_student(name) != (section == "students"):
            raise Refusal(f"{params.PATH}: {section} names {name!r}; students, and no others, are named student...")
        if not isinstance(own, dict | None):
            raise Refusal(f"{params.PATH}: {section}.{name} = {own!r}: must be a mapping")
    return entries


def untaught() -> list[str]:
    """The architectures that learn from the labels alone, in the order of params.yaml."""
    found = list(_entries("architectures"))
    if not found:
        raise Refusal(f"{params.PATH}: architectures must map names to recipes, like 'vgg8: {{epochs: 30}}'")
    return found


def students() -> list[str]:
    """The architectures that learn from others, in the order of params.yaml."""
    return list(_entries("students"))


def names() -> list[str]:
    """The architectures that params.yaml trains: the untaught ones, then the students."""
    return [*untaught(), *students()]


def _own(name: str) -> tuple[str, dict[str, Any]]:
    """Where the recipe of `name` stands, and what stands there."""
    section = "students" if is_student(name) else "architectures"
    entries = _entries(section)
    if name not in entries:
        raise Refusal(f"{params.PATH} has no architecture {name!r}; its {section} are {', '.join(entries) or 'none'}")
    return f"{section}.{name}", entries[name] or {}


def read(name: str) -> Recipe:
    """The recipe of `name`: the section `train`, with its own entry laid over it."""
    where, own = _own(name)
    shared = params.section("train", Recipe).model_dump()
    lesson = Lesson.model_fields if is_student(name) else {}
    return params.parse(where, Recipe, shared | {key: value for key, value in own.items() if key not in lesson})


def lesson(name: str) -> Lesson | None:
    """Who teaches `name`, and how much; None for what learns from the labels alone."""
    if not is_student(name):
        return None
    where, own = _own(name)
    return params.parse(where, Lesson, {key: value for key, value in own.items() if key in Lesson.model_fields})


def teachers() -> list[str]:
    """All architectures that teach some student, sorted. Raises Refusal for one that is not trained before."""
    lessons = {name: lesson(name) for name in students()}
    found = {teacher: name for name, each in lessons.items() if each for teacher in each.teachers}
    for teacher, name in found.items():
        if teacher not in untaught():
            raise Refusal(
                f"{params.PATH}: students.{name}.teachers names {teacher!r}; it must be one of {', '.join(untaught())}"
            )
    return sorted(found)


class Speedrun(params.Section):
    """What `make speedrun` trains: section `speedrun` of params.yaml."""

    network: str
    networks: int = Field(ge=1)  # whose probabilities are averaged
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=2)]
    recipe: dict[str, Any]  # laid over the network's own in `architectures`, or else over `train`


def speedrun() -> tuple[Speedrun, Recipe]:
    """The section `speedrun`, and the recipe that comes of it."""
    settings = params.section("speedrun", Speedrun)
    known = architectures.names()
    if settings.network not in known:
        raise Refusal(f"{params.PATH}: speedrun.network = {settings.network!r}: must be one of {', '.join(known)}")
    if len(set(settings.seeds)) < len(settings.seeds):
        raise Refusal(f"{params.PATH}: speedrun.seeds = {settings.seeds}: names a seed twice")
    own = read(settings.network) if settings.network in untaught() else params.section("train", Recipe)
    return settings, params.parse("speedrun.recipe", Recipe, own.model_dump() | settings.recipe)
