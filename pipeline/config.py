"""Typed model of params.yaml: every key with its type, range, default and meaning.

`load` reads the file once, and reports all wrong keys and values together, then all contradictions between keys.
"""

import difflib
import functools
from collections.abc import Iterator
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
RESERVED = (ENSEMBLE, "released", "speedrun", "scores")  # of `predict --network`, and submissions/scores.csv
BACKENDS = ("tensorflow", "jax", "torch")
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=60)]  # it names files too
Architecture = Annotated[str, pydantic.AfterValidator(lambda name: known(name, architectures.names()))]
Count = Annotated[int, Field(ge=2, le=50)]


class Section(pydantic.BaseModel):
    """Mapping in params.yaml. Unknown keys and wrong types are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Recipe(Section):
    """Hyperparameters of a training. Only `epochs` has no default."""

    epochs: int = Field(ge=1, le=10_000)
    batch_size: Annotated[int, Field(ge=1, le=8192)] = 128
    optimizer: Literal["adam", "sgd", "muon"] = "adam"  # one file per optimizer in training/optimizers/
    learning_rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.001
    weight_decay: Fraction = 0.0  # fraction by which a step at learning rate 1 shrinks every kernel
    # cosine and linear end at 0; plateau monitors the training loss
    schedule: Literal["constant", "cosine", "linear", "plateau"] = "constant"
    cycles: Annotated[int, Field(ge=0)] = 0  # warm restarts: the schedule and progressive resizing repeat
    warmup: Fraction = 0.0  # fraction of all steps in which cosine and linear rise to the full rate
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1  # factor of the rate when the training loss stalls
    plateau_patience: Annotated[int, Field(ge=1, le=1000)] = 10  # epochs without progress before the rate is reduced
    ema: Fraction = 0.0  # momentum of the exponential moving average (EMA) of the weights, used to predict; 0: no EMA
    loss: Literal["categorical", "binary", "generalised"] = "categorical"  # cross-entropy, or binary cross-entropy of each class
    label_smoothing: Fraction = 0.0  # fraction of each label that is spread over all classes
    contrast: Literal["none", "histogram", "local"] = "none"  # normalisation of each picture, see training/contrasts/
    scaling: Literal["unit", "symmetric", "raw"] = "unit"  # grey levels to 0..1, to -1..1, or left at 0..255
    crop: Annotated[int, Field(ge=8, le=SIDE)] = SIDE  # side in pixels of the central window that the network sees
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # random, up to this many degrees in both directions
    shift: Fraction = 0.0  # random on each axis, up to this fraction of the side
    zoom: Fraction = 0.0  # random factor on each axis, 1 - zoom to 1 + zoom
    flip: bool = False  # mirror half of the pictures
    random_erasing: Part = 0.0  # fraction of the pictures in which a rectangle is covered with grey
    # blend pairs of pictures and labels: parameter of the Beta distribution; 0: off
    mixup: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    cutmix: Part = 0.0  # fraction of the pictures with a square, and its share of the label, from another picture
    unaugmented_epochs: Annotated[int, Field(ge=0)] = 0  # number of last epochs without any augmentation except `flip`
    # progressive resizing: number of first epochs with smaller pictures
    progressive_epochs: Annotated[int, Field(ge=0)] = 0
    progressive_side: Annotated[int, Field(ge=8, le=SIDE)] = 36  # side in pixels of the smaller pictures
    recalibrate: bool = True  # measure the statistics of batch normalisation again before prediction
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: the fastest on this machine
    tta_flip: bool = True  # test-time augmentation (TTA): average over the picture and its mirror image,
    tta_shift: Annotated[int, Field(ge=0, lt=SIDE)] = 0  # over both shifted diagonally, four ways, by this many pixels,
    tta_zoom: Fraction = 0.0  # and over both shrunk and enlarged by this fraction

    def used(self) -> dict[str, Any]:
        """Return the keys that take effect.

        Disabled keys (0, false, "none") are left out, so a new key that is disabled by default changes no recipe.
        """
        idle = set(IDLE)
        if self.schedule == "plateau":
            idle -= {"plateau_factor", "plateau_patience"}
        if self.progressive_epochs:
            idle.remove("progressive_side")
        values = {key: getattr(self, key) for key in Recipe.model_fields if key not in idle}
        return {key: value for key, value in values.items() if value not in (0, False, "none")}


# Keys that take effect only with schedule "plateau" or with progressive_epochs.
IDLE = {"plateau_factor", "plateau_patience", "progressive_side"}


class Keys(Recipe):
    """Subset of the keys of a recipe."""

    epochs: int = Field(default=1, ge=1, le=10_000)


class Network(Recipe):
    """Network to train: an architecture and a recipe. Its own keys override those of a named recipe."""

    architecture: Architecture
    recipe: Annotated[str, pydantic.AfterValidator(lambda name, info: known(name, info.context or {}))] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _over_recipe(cls, own: Any, info: pydantic.ValidationInfo) -> Any:
        """Override the named recipe with the network's keys. The field `recipe` reports an unknown name."""
        if not isinstance(own, dict) or not isinstance(own.get("recipe"), str):
            return own
        recipe = (info.context or {}).get(own["recipe"])
        return (recipe if isinstance(recipe, dict) else {"epochs": 1}) | own

    def resolved(self) -> Recipe:
        """Return the complete recipe."""
        return Recipe.model_validate(self.model_dump(include=set(Recipe.model_fields)))


class Model(Network):
    """Network that is trained once per fold."""

    seed: Seed | None = None  # None: the seed of the file
    folds: Count | None = None  # None: the number of folds of the file


class Student(Model):
    """Model that learns from the labels and from soft targets of other models (distillation)."""

    teachers: list[str] = Field(min_length=1)
    teacher_weight: float = Field(gt=0, le=1)  # weight of the teachers' mean prediction in each label


class Data(Section):
    """Source of the competition's files."""

    source: Literal["local", "folders", "kaggle", "synthetic"] = "local"
    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = SLUG  # name of the competition on Kaggle
    training_faces: Annotated[int, Field(ge=7, le=100_000)] = 1470  # number drawn by "synthetic"
    test_faces: Annotated[int, Field(ge=7, le=100_000)] = 420  # number per test split drawn by "synthetic"


class Ensemble(Section):
    """Members of the ensemble and the method that blends their predictions."""

    method: Literal["mean", "geometric", "weights"] = "mean"
    members: list[Name] = Field(min_length=1)


class Speedrun(Network):
    """Network of `make speedrun`, which is trained on all Training rows, without folds."""

    seeds: list[Seed] = Field(min_length=2)


class Config(Section):
    """Complete file. DVC reads its sections too, so all except `speedrun` are required, even if empty."""

    seed: Seed
    backend: Literal["auto", "tensorflow", "jax", "torch"]
    data: Data
    folds: Count  # of models without their own number; one cell is trained per model and fold
    duplicates: Literal["keep", "drop_test_duplicates", "drop_repeats"]
    recipes: dict[Name, Keys]
    models: dict[Name, Model] = Field(min_length=1)
    students: dict[Name, Student]
    ensemble: Ensemble
    speedrun: Speedrun | None = None

    def model(self, name: str) -> Model:
        """Return the model or student of this name. Raises UserError with the known names if there is no such model."""
        models = {**self.models, **self.students}
        if name not in models:
            raise UserError(f"{PATH} has no model {name!r}{suggestion(name, models)}")
        return models[name]

    def seed_of(self, name: str) -> int:
        """Return the seed of a model: its own, or the seed of the file."""
        own = self.model(name).seed
        return self.seed if own is None else own

    def folds_of(self, name: str) -> range:
        """Return the folds of a model: its own number of them, or that of the file."""
        return range(self.model(name).folds or self.folds)

    @property
    def names(self) -> list[str]:
        """Names of all models, then of all students, in the order of the file."""
        return [*self.models, *self.students]

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Names and folds of all cells."""
        return [(name, fold) for name in self.names for fold in self.folds_of(name)]

    @property
    def externals(self) -> list[str]:
        """Members of the ensemble that are predictions of other systems, external/NAME.npz."""
        return [name for name in self.ensemble.members if name not in self.names]

    def some_folds(self, name: str, text: str) -> list[int]:
        """Return the folds of a model in a list like "0" or "0,1,2". Raises UserError if one is unknown."""
        known, numbers = [*map(str, self.folds_of(name))], dict.fromkeys(text.split(","))
        if unknown := [number for number in numbers if number not in known]:
            raise UserError(f"{name} has no fold {unknown[0]!r}; known: {', '.join(known)}")
        return [*map(int, numbers)]


def suggestion(name: object, known: Any) -> str:
    """Return the end of a message about an unknown name: the most similar known name, or all of them."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"


def known(name: str, names: Any) -> str:
    """Return `name` if it is one of `names`. Raises ValueError otherwise."""
    if name not in names:
        raise ValueError(f"is unknown{suggestion(name, names)}")
    return name


SECTIONS: dict[Any, type[Section]] = {
    "data": Data, "recipes": Recipe, "models": Model, "students": Student, "ensemble": Ensemble, "speedrun": Speedrun,
}  # fmt: skip


def parse(document: Any) -> Config:
    """Validate a document. Raises UserError with all wrong keys and values, or all contradictions, one per line."""
    recipes = document.get("recipes") if isinstance(document, dict) else None
    try:
        config = Config.model_validate(document, context=recipes if isinstance(recipes, dict) else {})
        messages = list(_contradictions(config))
    except pydantic.ValidationError as invalid:
        messages = [_message(error) for error in invalid.errors(include_url=False) if not _inherited(error, document)]
    if messages:
        raise UserError("\n".join(f"{PATH}: {message}" for message in messages))
    return config


def _inherited(error: Any, document: Any) -> bool:
    """Return whether the error of a network comes from its named recipe, for which it is reported already."""
    path = error["loc"]
    depth = {"models": 2, "students": 2, "speedrun": 1}.get(path[0] if path else "", len(path))
    if len(path) <= depth or "[key]" in path or error["type"] in ("missing", "invalid_key"):
        return False
    # pydantic shows a name that is not a string, like null, as text: it is not found, and its errors are kept
    own = document["speedrun"] if depth == 1 else document[path[0]].get(path[1], path)
    return path[depth] not in own


def _message(error: Any) -> str:
    """Return the message for an error of pydantic; it starts with the path of keys."""
    path = [str(key) for key in error["loc"] if key != "[key]"]
    key = repr(".".join(path))[1:-1] or "the file"  # one line, even if a key contains a line break
    if error["type"] == "extra_forbidden":
        section = SECTIONS.get(path[0], Config) if len(path) > 1 else Config
        return f"{key} is an unknown key{suggestion(path[-1], section.model_fields)}"
    if error["type"] == "missing":
        return f"{key} is missing{' (for none: students: {})' if key == 'students' else ''}"
    if error["loc"][-1:] == ("[key]",):
        return f"{key}: a name is text of at most 60 lower-case letters, digits and _"
    if error["type"] in ("model_type", "dict_type"):
        return f"{key} must contain keys"
    return f"{key} = {error['input']!r:.60}: {error['msg'].removeprefix('Value error, ')}"


def _contradictions(config: Config) -> Iterator[str]:
    """Yield messages about keys that contradict each other."""
    plans: dict[str, str] = {}
    for section, entries in (("models", config.models), ("students", config.students)):
        for name, model in entries.items():
            where = f"{section}.{name}"
            yield from _invalid(model, where)
            if name in RESERVED or (section == "students" and name in config.models):
                yield f"{where}: the name is in use; choose another"
            own = {"seed": config.seed_of(name), "folds": len(config.folds_of(name)), "recipe": None}
            same = model.model_copy(update=own).model_dump_json()
            if plans.setdefault(same, where) != where:
                yield f"{where} is the same model as {plans[same]}; give it another seed"
    for name, student in config.students.items():
        for teacher in filter(config.models.get, student.teachers):
            if config.folds_of(teacher) != config.folds_of(name):
                yield f"students.{name}: its teacher {teacher} has another number of folds"
    models = list(config.models)
    members = [*config.names, *(path.stem for path in EXTERNAL.glob("*.npz") if path.stem not in RESERVED)]
    names: dict[str, tuple[list[Any], list[Any]]] = {"ensemble.members": (config.ensemble.members, members)}
    names |= {f"students.{name}.teachers": (student.teachers, models) for name, student in config.students.items()}
    if config.speedrun:
        yield from _invalid(config.speedrun, "speedrun")
        names["speedrun.seeds"] = (config.speedrun.seeds, config.speedrun.seeds)
    for where, (chosen, possible) in names.items():
        for each in chosen:
            if each not in possible:
                missing = where == "ensemble.members" and each not in RESERVED
                file = f", and {EXTERNAL}/{each}.npz is missing" if missing else ""
                yield f"{where}: {each!r} is unknown{file}{suggestion(each, possible)}"
        if len(set(chosen)) < len(chosen):
            yield f"{where}: an entry is repeated"


def _invalid(network: Network, where: str) -> Iterator[str]:
    """Yield messages about keys of a network that contradict each other or its architecture."""
    for key in ("progressive_epochs", "unaugmented_epochs"):
        if getattr(network, key) > network.epochs:
            yield f"{where}.{key} = {getattr(network, key)}: there are {network.epochs} epochs"
    if architectures.fixed_size(network.architecture):
        for key, required in (("crop", SIDE), ("progressive_epochs", 0)):
            if getattr(network, key) != required:
                yield f"{where}.{key} must be {required}: {network.architecture} accepts only {SIDE}x{SIDE} pictures"


def read(path: Path = PATH) -> Any:
    """Read the file as dictionaries and lists. Raises UserError if it is missing or not valid YAML."""
    try:
        # YAML 1.2, like DVC: 1e-3 is a number. In the YAML 1.1 of PyYAML it is a string.
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the command in the project's folder") from None
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
        raise UserError(f"{path} is not valid YAML: {problem[:300]}") from None


@functools.cache
def load() -> Config:
    """Load params.yaml, once per process. Raises UserError if it is invalid."""
    return parse(read())
