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
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.001
    weight_decay: Fraction = 0.0  # part of every kernel that a step at learning rate 1 takes away
    # cosine and linear end at zero; plateau watches the training loss
    schedule: Literal["constant", "cosine", "linear", "plateau"] = "constant"
    warmup: Fraction = 0.0  # part of all steps in which cosine and linear climb to the full rate
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of the rate, when the training loss stalls
    plateau_patience: Annotated[int, Field(ge=1)] = 10  # epochs without progress before it falls
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
    mixup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = (
        0.0  # blend pairs of pictures and labels: parameter of Beta
    )
    cutmix: Part = 0.0  # part of the pictures in which a square comes from another, and so does part of the label
    unaugmented_epochs: Annotated[int, Field(ge=0)] = 0  # the last epochs, with no augmentation but `flip`
    progressive_epochs: Annotated[int, Field(ge=0)] = (
        0  # progressive resizing: the first epochs, with pictures shrunk to
    )
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


class Model(Recipe):
    """A network to train: an architecture, and a recipe (a named one, overridden by keys of its own)."""

    architecture: str
    recipe: str | None = None
    seed: Seed | None = None  # None: the file's


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

    method: Literal["mean", "geometric", "weights", "bagged"] = "mean"
    members: list[Name] = Field(min_length=1)


class Speedrun(Section):
    """What `make speedrun` trains on all Training rows, without folds."""

    model: str
    networks: Annotated[int, Field(ge=1)] = 1  # whose probabilities are averaged
    seeds: list[Seed] = Field(min_length=2)
    override: dict[str, Any] = {}  # keys of the model's recipe


class Config(Section):
    """The whole file. DVC reads its sections too, so all but `speedrun` must be there, if empty."""

    seed: Seed
    backend: Literal["auto", "tensorflow", "jax", "torch"]
    data: Data
    folds: list[int] = Field(min_length=2, max_length=50)
    duplicates: Literal["keep", "drop_test_duplicates", "drop_repeats"]
    recipes: dict[Name, dict[str, Any]]
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
        return Recipe.model_validate({key: getattr(own, key) for key in Recipe.model_fields} | self.speedrun.override)


def suggestion(name: object, known: Any) -> str:
    """What to say after an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"


def parse(document: Any) -> Config:
    """A document as a Config. Raises UserError that reports every mistake, one a line."""
    if not isinstance(document, dict):
        raise UserError(f"{PATH} must be a mapping with the keys {', '.join(Config.model_fields)}")
    found: list[str] = []
    resolved = dict(document)
    recipes = document.get("recipes", {})
    usable = {}
    for name, recipe in (recipes if isinstance(recipes, dict) else {}).items():
        wrong = list(
            _mistakes(Recipe, {"epochs": 1} | recipe if isinstance(recipe, dict) else recipe, f"recipes.{name}")
        )
        found += wrong
        usable[name] = {} if wrong else recipe
    for section in ("models", "students"):
        entries = document.get(section)
        if isinstance(entries, dict):
            resolved[section] = {
                name: _merged(own, usable, f"{section}.{name}", found) for name, own in entries.items()
            }
    found += _mistakes(Config, resolved, "")
    if not found:
        config = Config.model_validate(resolved)
        found += _contradictions(config)
    if found:
        raise UserError("\n".join(f"{PATH}: {each}" for each in dict.fromkeys(found)))
    return config


def _merged(own: Any, recipes: dict[str, dict[str, Any]], where: str, found: list[str]) -> Any:
    """A model's keys laid over those of its recipe."""
    if not isinstance(own, dict) or own.get("recipe") is None:
        return own
    if not isinstance(own["recipe"], str) or own["recipe"] not in recipes:
        found.append(f"{where}.recipe = {own['recipe']!r} is unknown{suggestion(own['recipe'], recipes)}")
        return {"epochs": 1} | own
    return (recipes[own["recipe"]] or {"epochs": 1}) | own


def _mistakes(model: type[Section], values: Any, where: str) -> Iterator[str]:
    """What pydantic finds wrong, by path of keys."""
    try:
        model.model_validate(values)
    except pydantic.ValidationError as errors:
        for error in errors.errors(include_url=False):
            path = [str(key) for key in error["loc"] if key != "[key]"]
            key = ".".join([*filter(None, [where]), *path]) or "the file"
            if error["type"] == "extra_forbidden":
                yield f"{key} is an unknown key{suggestion(path[-1], _fields(model, path[:-1]))}"
            elif error["type"] == "missing":
                yield f"{key} is missing"
            elif error["type"] == "string_pattern_mismatch" and "[key]" in error["loc"]:
                yield f"{key}: a name may have small letters, digits and _ only"
            else:
                yield f"{key} = {str(error['input'])[:60]!r}: {error['msg']}"
    except RecursionError:
        yield f"{where or 'the file'} is nested too deeply"


def _fields(model: type[Section], path: list[str]) -> list[str]:
    """The keys that are known at a path of `Config`."""
    sections: dict[str, type[Section]] = {
        "data": Data, "ensemble": Ensemble, "speedrun": Speedrun, "models": Model, "students": Student,
    }  # fmt: skip
    return list((sections[path[0]] if path and path[0] in sections else model).model_fields)


def _contradictions(config: Config) -> Iterator[str]:
    """Mistakes that lie between keys."""
    if config.folds != list(range(len(config.folds))):
        yield f"folds = {config.folds}: must count up from 0, like {list(range(len(config.folds)))}"
    plans: dict[str, str] = {}
    for section, entries in (("models", config.models), ("students", config.students)):
        for name, model in entries.items():
            where = f"{section}.{name}"
            yield from _unsound(model, where)
            if name == ENSEMBLE or (section == "students" and name in config.models):
                yield f"{where}: the name is taken"
            same = model.model_copy(update={"seed": config.seed_of(name), "recipe": None}).model_dump_json()
            if same in plans:
                yield f"{where} is the same as {plans[same]}; give it another seed"
            plans[same] = where
    for name, student in config.students.items():
        where = f"students.{name}.teachers"
        yield from (f"{where} names {each!r}{suggestion(each, config.models)}"
                    for each in student.teachers if each not in config.models)  # fmt: skip
        yield from _twice(student.teachers, where)
    yield from _twice(config.ensemble.members, "ensemble.members")
    for name in config.externals:
        if name == ENSEMBLE or not (EXTERNAL / f"{name}.npz").exists():
            yield (f"ensemble.members names {name!r}, which is no model or student, and {EXTERNAL}/{name}.npz "
                   f"does not exist{suggestion(name, config.names)}")  # fmt: skip
    if config.speedrun:
        yield from _speedrun(config, config.speedrun)


def _twice(names: list[Any], where: str) -> Iterator[str]:
    if len(set(names)) < len(names):
        yield f"{where} names something twice"


def _speedrun(config: Config, speedrun: Speedrun) -> Iterator[str]:
    yield from _twice(speedrun.seeds, "speedrun.seeds")
    if speedrun.model not in config.models:
        yield f"speedrun.model = {speedrun.model!r} is unknown{suggestion(speedrun.model, config.models)}"
        return
    wrong = list(_mistakes(Recipe, {"epochs": 1} | speedrun.override, "speedrun.override"))
    yield from wrong
    if not wrong:
        own = config.models[speedrun.model]
        yield from _unsound(own.model_copy(update=config.speedrun_recipe().model_dump()), "speedrun.override")


def _unsound(model: Model, where: str) -> Iterator[str]:
    """What a model's keys say against each other, or against its architecture."""
    if model.architecture not in architectures.names():
        yield f"{where}.architecture = {model.architecture!r}{suggestion(model.architecture, architectures.names())}"
        return
    for key in ("progressive_epochs", "unaugmented_epochs"):
        if getattr(model, key) > model.epochs:
            yield f"{where}.{key} = {getattr(model, key)}: there are {model.epochs} epochs"
    if architectures.fixed_size(model.architecture):
        for key, only in (("crop", SIDE), ("progressive_epochs", 0)):
            if getattr(model, key) != only:
                why = f"{model.architecture} takes pictures of {SIDE}x{SIDE} pixels alone"
                yield f"{where}.{key} = {getattr(model, key)}: {why}, so it must be {only}"


def read(path: Path = PATH) -> Any:
    """The file as plain dictionaries and lists. Raises UserError where it is missing or no YAML."""
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number (in PyYAML's YAML 1.1 it is a string).
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing here; run from the project's folder") from None
    except (YAMLError, ValueError, RecursionError) as trouble:
        raise UserError(f"{path} is not valid YAML: {str(trouble)[:300]}") from None


@cache
def load() -> Config:
    """params.yaml. Raises UserError with all its mistakes."""
    return parse(read())
