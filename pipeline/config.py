"""params.yaml as one typed model: every key with its type, range, default and meaning.

`load` reads the file once and reports every mistake in it together, each by its path of keys.
"""

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import architectures
from pipeline.competition import SIDE, SLUG
from pipeline.errors import UserError

PATH = Path("params.yaml")
EXTERNAL = Path("external")
ENSEMBLE = "ensemble"
BACKENDS = ("tensorflow", "jax", "torch")
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Section(pydantic.BaseModel):
    """A mapping in params.yaml: unknown keys and other types are mistakes."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Recipe(Section):
    """How a network is trained. Only `epochs` has no default."""

    epochs: int = Field(ge=1, le=10_000)
    batch_size: Annotated[int, Field(ge=1, le=8192)] = 128
    optimizer: Literal["adam", "sgd", "muon"] = "adam"  # a file each in training/optimizers/
    learning_rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.001
    weight_decay: Fraction = 0.0  # part of every kernel that a step at learning rate 1 takes away
    # cosine and linear end at zero; plateau watches the training loss
    schedule: Literal["constant", "cosine", "linear", "plateau"] = "constant"
    warmup: Fraction = 0.0  # part of all steps in which cosine and linear climb to the full rate
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of the rate, when the training loss stalls
    plateau_patience: Annotated[int, Field(ge=1, le=1000)] = 10  # epochs without progress before it falls
    ema: Fraction = 0.0  # momentum of an exponential moving average of the weights, which then predicts; 0: none
    loss: Literal["categorical", "binary"] = "categorical"  # softmax cross-entropy, or one sigmoid a class
    label_smoothing: Fraction = 0.0  # part of each label that is spread over all classes
    contrast: Literal["none", "histogram", "local"] = "none"  # normalisation of each picture; files in contrasts/
    scaling: Literal["unit", "symmetric", "raw"] = "unit"  # grey levels to 0..1, to -1..1, or left at 0..255
    crop: Annotated[int, Field(ge=8, le=SIDE)] = SIDE  # pixels across of the central window that the network sees
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # random, up to so many degrees either way
    shift: Fraction = 0.0  # random, up to this part of the side, on each axis
    zoom: Fraction = 0.0  # random, each axis by a factor of 1 - zoom to 1 + zoom
    flip: bool = False  # mirror half of the pictures
    random_erasing: Part = 0.0  # part of the pictures in which a rectangle is covered with grey
    # blend pairs of pictures and labels: parameter of Beta
    mixup: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    cutmix: Part = 0.0  # part of the pictures in which a square comes from another, and so does part of the label
    unaugmented_epochs: Annotated[int, Field(ge=0)] = 0  # the last epochs, with no augmentation but `flip`
    # progressive resizing: the first epochs, with pictures shrunk to
    progressive_epochs: Annotated[int, Field(ge=0)] = 0
    progressive_side: Annotated[int, Field(ge=8, le=SIDE)] = 36  # so many pixels across
    recalibrate: bool = True  # predict with batch normalisation's statistics measured anew
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of products; auto: what suits the machine
    tta_flip: bool = True  # test-time augmentation: average a picture and its mirror image,
    tta_shift: Annotated[int, Field(ge=0, lt=SIDE)] = 0  # both also shifted diagonally, four ways, by so many pixels,
    tta_zoom: Fraction = 0.0  # and both also smaller and larger by this part

    def used(self) -> dict[str, Any]:
        """The recipe's keys that matter.

        What is off (0, false, "none") is left out. So a new key whose default is off changes no recipe.
        """
        idle = IDLE - ({"plateau_factor", "plateau_patience"} if self.schedule == "plateau" else set())
        idle -= {"progressive_side"} if self.progressive_epochs else set()
        found = {key: getattr(self, key) for key in Recipe.model_fields if key not in idle}
        return {key: value for key, value in found.items() if value not in (0, False, "none")}


# Keys that count only beside others: the schedule plateau, progressive_epochs.
IDLE = {"plateau_factor", "plateau_patience", "progressive_side"}


class Keys(Recipe):
    """Some keys of a recipe; `given` are they alone."""

    epochs: int = Field(default=1, ge=1, le=10_000)

    def given(self) -> dict[str, Any]:
        """The keys that stand in the file."""
        return self.model_dump(exclude_unset=True)


class Model(Recipe):
    """A network to train: an architecture, and a recipe (a named one, overridden by keys of its own)."""

    architecture: str
    recipe: str | None = None
    seed: Seed | None = None  # None: the file's

    @pydantic.model_validator(mode="before")
    @classmethod
    def _over_recipe(cls, own: Any, info: pydantic.ValidationInfo) -> Any:
        """Lay the model's keys over those of its recipe; of an unknown one the next function tells."""
        if not isinstance(own, dict) or not isinstance(own.get("recipe"), str):
            return own
        recipe = (info.context or {}).get(own["recipe"])
        return (recipe if isinstance(recipe, dict) else {"epochs": 1}) | own

    @pydantic.field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str | None, info: pydantic.ValidationInfo) -> str | None:
        return name if name is None else known(name, info.context or {})

    @pydantic.field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        return known(name, architectures.names())


class Student(Model):
    """A model that learns from soft targets of other models as well as from the labels (distillation)."""

    teachers: list[str] = Field(min_length=1)
    teacher_weight: float = Field(gt=0, le=1)  # part of each label that is the teachers' mean prediction


class Data(Section):
    """Where the competition's files come from."""

    source: Literal["local", "folders", "kaggle", "synthetic"] = "local"
    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = SLUG  # of the competition on Kaggle
    training_faces: Annotated[int, Field(ge=7, le=100_000)] = 1470  # drawn by "synthetic"
    test_faces: Annotated[int, Field(ge=7, le=100_000)] = 420  # of each test split, drawn by "synthetic"


class Ensemble(Section):
    """How the models' predictions are blended."""

    method: Literal["mean", "geometric", "weights"] = "mean"
    members: list[Name] = Field(min_length=1)


class Speedrun(Section):
    """What `make speedrun` trains on all Training rows, without folds."""

    model: str
    networks: Annotated[int, Field(ge=1, le=1000)] = 1  # whose probabilities are averaged
    seeds: list[Seed] = Field(min_length=2)
    override: Keys = Keys()  # of the model's recipe


class Config(Section):
    """The whole file. DVC reads its sections too, so all but `speedrun` must be there, if empty."""

    seed: Seed
    backend: Literal["auto", "tensorflow", "jax", "torch"]
    data: Data
    folds: list[int] = Field(min_length=2, max_length=50)
    duplicates: Literal["keep", "drop_test_duplicates", "drop_repeats"]
    recipes: dict[Name, Keys]
    models: dict[Name, Model] = Field(min_length=1)
    students: dict[Name, Student]
    ensemble: Ensemble
    speedrun: Speedrun | None = None

    def model(self, name: str) -> Model:
        """The model or student of that name. Raises UserError that lists the known ones."""
        found = {**self.models, **self.students}
        if name not in found:
            raise UserError(f"{PATH} has no model {name!r}{suggestion(name, found)}")
        return found[name]

    def seed_of(self, name: str) -> int:
        """The seed of a model: its own, else the file's."""
        own = self.model(name).seed
        return self.seed if own is None else own

    @property
    def names(self) -> list[str]:
        """All models, then all students, in the order of the file."""
        return [*self.models, *self.students]

    @property
    def externals(self) -> list[str]:
        """The ensemble's members that are predictions of other systems, external/NAME.npz."""
        return [name for name in self.ensemble.members if name not in self.names]

    def fold(self, text: str) -> int:
        """The fold that a command line names."""
        if text not in map(str, self.folds):
            raise UserError(f"there is no fold {text!r}; {PATH} has {', '.join(map(str, self.folds))}")
        return int(text)

    def speedrun_recipe(self) -> Recipe:
        """The recipe of the speedrun: its model's, overridden."""
        assert self.speedrun is not None
        own = self.model(self.speedrun.model)
        plain = {key: getattr(own, key) for key in Recipe.model_fields}
        return Recipe.model_validate(plain | self.speedrun.override.given())


def suggestion(name: object, known: Any) -> str:
    """What to say after an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"


def known(name: str, names: Any) -> str:
    """A name that is among those known. Raises ValueError otherwise."""
    if name not in names:
        raise ValueError(f"is unknown{suggestion(name, names)}")
    return name


SECTIONS: dict[Any, type[Section]] = {
    "data": Data, "recipes": Recipe, "models": Model, "students": Student, "ensemble": Ensemble, "speedrun": Speedrun,
}  # fmt: skip


def parse(document: Any) -> Config:
    """A document as a Config. Raises UserError that reports every mistake, one a line."""
    recipes = document.get("recipes") if isinstance(document, dict) else None
    try:
        config = Config.model_validate(document, context=recipes if isinstance(recipes, dict) else {})
        found = list(_contradictions(config))
    except pydantic.ValidationError as errors:
        found = [_told(error) for error in errors.errors(include_url=False) if not _inherited(error, document)]
    if found:
        raise UserError("\n".join(f"{PATH}: {each}" for each in found))
    return config


def _inherited(error: Any, document: Any) -> bool:
    """Whether a model has a mistake from its recipe, where it is told already."""
    section, name, key = (*error["loc"], None, None, None)[:3]
    inside = section in ("models", "students") and key not in (None, "[key]") and error["type"] != "missing"
    return inside and key not in document[section][name]


def _told(error: Any) -> str:
    """A mistake in words, by its path of keys."""
    path = [str(key) for key in error["loc"] if key != "[key]"]
    key = ".".join(path) or "the file"
    if error["type"] == "extra_forbidden":
        section = SECTIONS.get(path[0], Config) if len(path) > 1 else Config
        return f"{key} is an unknown key{suggestion(path[-1], section.model_fields)}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["loc"][-1:] == ("[key]",):
        return f"{key}: a name may have small letters, digits and _ only"
    return f"{key} = {str(error['input'])[:60]!r}: {error['msg'].removeprefix('Value error, ')}"


def _contradictions(config: Config) -> Iterator[str]:
    """Mistakes that lie between keys."""
    if config.folds != list(range(len(config.folds))):
        yield f"folds = {config.folds}: must count up from 0, like {list(range(len(config.folds)))}"
    plans: dict[str, str] = {}
    for section, entries in (("models", config.models), ("students", config.students)):
        for name, model in entries.items():
            where = f"{section}.{name}"
            yield from _unsound(model, model.architecture, where)
            if name == ENSEMBLE or (section == "students" and name in config.models):
                yield f"{where}: the name is taken"
            same = model.model_copy(update={"seed": config.seed_of(name), "recipe": None}).model_dump_json()
            if plans.setdefault(same, where) != where:
                yield f"{where} is the same as {plans[same]}; give it another seed"
    models = list(config.models)
    there = [*config.names, *(path.stem for path in EXTERNAL.glob("*.npz") if path.stem != ENSEMBLE)]
    names: dict[str, tuple[list[Any], list[Any]]] = {"ensemble.members": (config.ensemble.members, there)}
    names |= {f"students.{name}.teachers": (student.teachers, models) for name, student in config.students.items()}
    if config.speedrun:
        names["speedrun.model"] = ([config.speedrun.model], models)
        names["speedrun.seeds"] = (config.speedrun.seeds, config.speedrun.seeds)
    for where, (chosen, possible) in names.items():
        for each in chosen:
            if each not in possible:
                or_file = f", nor is there {EXTERNAL}/{each}.npz" if where == "ensemble.members" else ""
                yield f"{where} names {each!r}, which is unknown{or_file}{suggestion(each, possible)}"
        if len(set(chosen)) < len(chosen):
            yield f"{where} names something twice"
    if config.speedrun and config.speedrun.model in config.models:
        architecture = config.models[config.speedrun.model].architecture
        yield from _unsound(config.speedrun_recipe(), architecture, "speedrun.override")


def _unsound(recipe: Recipe, architecture: str, where: str) -> Iterator[str]:
    """What a recipe's keys say against each other, or against its architecture."""
    for key in ("progressive_epochs", "unaugmented_epochs"):
        if getattr(recipe, key) > recipe.epochs:
            yield f"{where}.{key} = {getattr(recipe, key)}: there are {recipe.epochs} epochs"
    if architectures.fixed_size(architecture):
        for key, only in (("crop", SIDE), ("progressive_epochs", 0)):
            if getattr(recipe, key) != only:
                yield f"{where}.{key} must be {only}: {architecture} takes pictures of {SIDE}x{SIDE} pixels alone"


def read(path: Path = PATH) -> Any:
    """The file as plain dictionaries and lists. Raises UserError where it is missing or no YAML."""
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number (in PyYAML's YAML 1.1 it is a string).
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing here; run from the project's folder") from None
    except (YAMLError, ValueError, RecursionError) as trouble:
        mark = getattr(trouble, "problem_mark", None)
        told = f"line {mark.line + 1}: {getattr(trouble, 'problem', '')}" if mark else str(trouble)
        raise UserError(f"{path} is not valid YAML: {told[:300]}") from None


@cache
def load() -> Config:
    """params.yaml. Raises UserError with all its mistakes."""
    return parse(read())
