"""params.yaml is validated as a whole, and every error in it is reported with its path of keys."""

import re
from pathlib import Path

import pytest
import settings
from settings import refuses

from pipeline import config
from pipeline.errors import UserError

MODEL = {"architecture": "small_vgg", "epochs": 3}


def document(**changes):
    """Return a valid file as dictionaries."""
    return settings.LEAST | {"data": {}, "models": {"a": MODEL}, "ensemble": {"members": ["a"]}} | changes


def errors(**changes):
    """Return the error messages for a document."""
    with pytest.raises(UserError) as error:
        config.parse(document(**changes))
    return str(error.value).splitlines()


def test_the_committed_files_are_valid(monkeypatch):
    monkeypatch.chdir(settings.ROOT)
    for path in (Path("params.yaml"), Path("pipeline/apps/demo.yaml"), Path("pipeline/apps/quick.yaml")):
        config.parse(config.read(path))
    assert "<<" not in Path("params.yaml").read_text(), "DVC would expand merges"


def test_the_keys_of_a_model_override_those_of_its_recipe():
    models = {
        "a": MODEL, "b": MODEL | {"seed": 2}, "c": {"architecture": "small_vgg", "recipe": "long", "contrast": "local"},
        "d": {"architecture": "small_vgg", "recipe": "long", "epochs": 4},
    }  # fmt: skip
    parsed = config.parse(document(models=models, recipes={"long": {"epochs": 9, "flip": True}}))
    assert [parsed.models[name].epochs for name in "abcd"] == [3, 3, 9, 4]
    assert [parsed.seed_of(name) for name in "abc"] == [1, 2, 1]
    assert (parsed.models["c"].flip, parsed.models["c"].contrast) == (True, "local")


def test_all_errors_are_reported_together():
    messages = errors(
        seed=-1, twins="keep", recipes={"strong": {"crop": 99}, "spare": {"epoch": 1}},
        models={"a": MODEL | {"flipp": True}, "b": {"architecture": "small_vg", "recipe": "stronk"},
                "c": {"architecture": "small_vgg", "epochs": 1, "recipe": "strong"}},
        students={"s": MODEL | {"teachers": [], "teacher_weight": 2.0}},
        speedrun={"architecture": "small_vgg", "recipe": "strong", "seeds": [1, 2], "flip": 1},
    )  # fmt: skip
    assert not [each for each in messages if re.search("models.c|speedrun.crop", each)], "a recipe's error is repeated"
    for start in ("seed", "twins", "recipes.strong.crop", "recipes.spare.epoch", "models.a.flipp .*'flip'",
                  "models.b.architecture .*'small_vgg'", "models.b.recipe .*did you mean 'strong'",
                  "students.s.teachers", "students.s.teacher_weight", "speedrun.flip"):  # fmt: skip
        assert any(re.match(f"params.yaml: {start}", line) for line in messages), start


STUDENT = MODEL | {"teachers": ["a"], "teacher_weight": 0.5}


@pytest.mark.parametrize(("place", "changes"), [
    ("folds", {"folds": 1}), ("students.s", {"students": {"s": STUDENT | {"folds": 3}}}),
    ("models.A-b", {"models": {"A-b": MODEL}}), ("models.ensemble", {"models": {"ensemble": MODEL}}),
    (f"models.{'a' * 61}: a name", {"models": {"a" * 61: MODEL}}), ("models.a must contain", {"models": {"a": None}}),
    ("models.b", {"models": {"a": MODEL, "b": MODEL}}),
    ("models.a.epochs", {"models": {"a": MODEL | {"epochs": "3"}}}),
    ("models.a.epochs", {"models": {"a": {"architecture": "small_vgg"}}}),
    ("models.a.progressive_epochs", {"models": {"a": MODEL | {"progressive_epochs": 4}}}),
    ("models.a.crop", {"models": {"a": {"architecture": "vgg8", "epochs": 1, "crop": 44}}}),
    ("students.a", {"students": {"a": STUDENT}}),
    ("students.s.teachers", {"students": {"s": STUDENT | {"teachers": ["b"]}}}),
    ("ensemble.members", {"ensemble": {"members": ["a", "a"]}}),
    ("speedrun.seeds", {"speedrun": MODEL | {"seeds": [1, 1]}}),
    ("models.a.None", {"models": {"a": MODEL | {None: 4}}}), (r"models.a.b\nc", {"models": {"a": {"b\nc": 4}}}),
    ("models.a.recipe", {"recipes": {1: {"epochs": 3}}, "models": {"a": MODEL | {"recipe": "strong"}}}),
    ("models.None.epoch", {"models": {None: MODEL | {"epoch": 4}}}),
    ("speedrun.crop", {"speedrun": {"architecture": "vgg8", "epochs": 1, "crop": 44, "seeds": [1, 2]}}),
], ids=str)  # fmt: skip
def test_an_error_is_reported_with_its_path(place, changes):
    assert any(line.startswith(f"params.yaml: {place}") for line in errors(**changes))


def test_an_external_member_needs_its_file(stand):
    members = {"members": ["a", "theirs"]}
    assert "external/theirs.npz" in errors(ensemble=members)[0]
    Path("external").mkdir()
    Path("external/theirs.npz").touch()
    assert config.parse(document(ensemble=members)).externals == ["theirs"]


@pytest.mark.parametrize("text", ["", "a: [", "seed: 1\nseed: 2"])
def test_an_invalid_file_is_an_error(text, stand):
    Path("params.yaml").write_text(text)
    refuses(r"^params\.yaml", config.load)


def test_disabled_and_idle_keys_are_not_used():
    assert not {"mixup", "contrast", "plateau_factor", "progressive_side"} & config.Recipe(epochs=3).used().keys()
    assert "plateau_factor" in config.Recipe(epochs=3, schedule="plateau").used()
    assert config.Recipe(epochs=3, progressive_epochs=1).used()["progressive_side"] == 36


def test_numbers_are_read_like_in_dvc(tmp_path):
    """In YAML 1.1, 1e-3 is a string."""
    (tmp_path / "params.yaml").write_text("learning_rate: 1e-3  # größer", encoding="utf-8")
    assert config.read(tmp_path / "params.yaml") == {"learning_rate": 0.001}
