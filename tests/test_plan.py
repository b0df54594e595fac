"""A plan changes if, and only if, something that affects its cells changes."""

import functools
import shutil

import pytest
from settings import LEAST, ROOT

from pipeline import config
from pipeline.training import plan

MODELS = {
    "vgg": {"architecture": "small_vgg", "recipe": "strong"},
    "resnet": {"architecture": "preact_resnet", "epochs": 2, "contrast": "histogram", "random_erasing": 0.1},
    "old": {"architecture": "alizadeh_valid", "epochs": 2, "optimizer": "sgd", "mixup": 0.2},
}
RECIPES = {"strong": {"epochs": 3, "optimizer": "muon"}, "spare": {"epochs": 1}}
DOCUMENT = LEAST | {"recipes": RECIPES, "models": MODELS, "ensemble": {"members": ["vgg"]}}


def plans(document=DOCUMENT):
    """Make all plans."""
    settings = config.parse(document)
    return {name: plan.make(settings, name) for name in settings.names}


CHANGES = [
    # comments, docstrings, messages, annotations, and code that does not affect the weights
    ("training/loop.py", '"""\n', ' New words."""\n\n# a comment\n', set()),
    ("training/loop.py", "make learning_rate smaller", "lower learning_rate", set()),
    ("training/loop.py", "epoch: int, on_batch: Callable[[float], None]", "epoch: int, on_batch: Any", set()),
    ("training/cell.py", '"processor": machine.processor(),', '"cpu": machine.processor(),', set()),
    ("config.py", "ema: Fraction = 0.0", "new_key: Fraction = 0.0\n    ema: Fraction = 0.0", set()),
    # code that affects the weights
    ("architectures/small_vgg.py", "(32, 64, 128, 256)", "(32, 64, 128, 255)", {"vgg"}),
    ("architectures/_blocks.py", "layers.GlobalAveragePooling2D()", "layers.GlobalMaxPooling2D()", {"vgg", "resnet"}),
    ("training/optimizers/muon.py", "MOMENTUM = 0.95", "MOMENTUM = 0.9", {"vgg"}),
    ("training/augmentations/_rectangles.py", "+ 0.5", "+ 0.4", {"resnet", "old"}),
    ("training/loop.py", "RECALIBRATION = 16", "RECALIBRATION = 8", {"vgg", "resnet", "old"}),
    ("training/augmentations/erasing.py", "(0.02, 0.4)", "(0.02, 0.5)", {"resnet"}),
]


def test_a_change_of_the_code_changes_the_plans_that_use_it(tmp_path, monkeypatch):
    before = plans()
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(plan, "ROOT", tmp_path / "pipeline")
    for file, old, new, stale in CHANGES:
        path = tmp_path / "pipeline" / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))
        for name in ("_tree", "_definitions"):  # an empty cache for each
            monkeypatch.setattr(plan, name, functools.cache(getattr(plan, name).__wrapped__))
        after = plans()
        assert {name for name in before if before[name] != after[name]} == stale, (file, new)
        before = after


@pytest.mark.parametrize(("changes", "stale"), [
    ({"recipes": RECIPES | {"spare": {"epochs": 9}}}, set()), ({"seed": 2}, {"vgg", "resnet", "old"}),
    ({"recipes": RECIPES | {"strong": {"epochs": 9}}}, {"vgg"}),
    ({"models": MODELS | {"old": MODELS["old"] | {"seed": 5}}}, {"old"}),
])  # fmt: skip
def test_a_changed_key_changes_the_plans_that_use_it(changes, stale):
    before, after = plans(), plans(DOCUMENT | changes)
    assert {name for name in before if before[name] != after[name]} == stale


def test_a_plan_contains_the_recipe_and_test_time_settings_do_not_affect_the_weights():
    models = MODELS | {"vgg": MODELS["vgg"] | {"tta_zoom": 0.2}}
    before, after = plans(), plans(DOCUMENT | {"models": models})["vgg"]
    assert before["vgg"] != after
    assert before["vgg"].training() == after.training()
    for name, made in before.items():
        model = config.parse(DOCUMENT).model(name)
        assert made.settings().model_dump() == {key: getattr(model, key) for key in config.Recipe.model_fields}
        assert plan.Plan.model_validate_json(made.model_dump_json()) == made


def test_all_code_that_builds_a_network_is_in_its_plan():
    """The digests follow names, so they would miss other kinds of imports. CHANGES tests the other modules."""
    definitions = plans()["vgg"].code
    assert definitions.keys() >= {
        "training.models.Learner", "training.augment.draw", "training.schedules.Stepwise", "training.backend.prepare",
        "training.tensorflow_cpu.fuse_normalisation", "training.attention.class_maps", "training.checkpoint.Checkpoint",
    }  # fmt: skip


def test_modules_of_the_training_are_imported_only_in_ways_that_a_plan_can_follow():
    """Only these modules import by a computed name; plan.ingredients knows what they import."""
    paths = [*ROOT.glob("pipeline/training/**/*.py"), *ROOT.glob("pipeline/architectures/*.py")]
    users = {f"{path.parent.name}/{path.name}" for path in paths if "import_module" in path.read_text()}
    inits = {f"{part}/__init__.py" for part in ("optimizers", "augmentations", "contrasts", "architectures")}
    assert users == {*inits, "training/executors.py"}
    assert [path for path in paths if "import *" in path.read_text()] == []
