"""params.yaml is read once into one typed model, and every mistake in it is told at once, by path of keys."""

from pathlib import Path

import pytest
import settings

from pipeline import config
from pipeline.errors import UserError

ROOT = Path(__file__).parent.parent
MODEL = {"architecture": "small_vgg", "epochs": 3}


def document(**changes):
    """A sound file, as dictionaries."""
    return settings.LEAST | {"data": {}, "models": {"a": MODEL}, "ensemble": {"members": ["a"]}} | changes


def mistakes(found):
    """What is wrong with a document, a line each."""
    with pytest.raises(UserError) as refused:
        config.parse(found)
    return str(refused.value).splitlines()


def test_the_committed_files_are_sound(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in (Path("params.yaml"), Path("pipeline/apps/demo.yaml")):
        found = config.parse(config.read(path))
        assert set(found.ensemble.members) <= {*found.names, *found.externals}
    assert "<<" not in Path("params.yaml").read_text(), "no merges: DVC would expand them"


def test_one_architecture_stands_in_three_models_whose_own_keys_override_their_recipe():
    models = {
        "a": MODEL, "b": MODEL | {"seed": 2}, "c": {"architecture": "small_vgg", "recipe": "long", "contrast": "local"},
        "d": {"architecture": "small_vgg", "recipe": "long", "epochs": 4},
    }  # fmt: skip
    found = config.parse(document(models=models, recipes={"long": {"epochs": 9, "flip": True}}))
    assert [found.models[name].epochs for name in "abcd"] == [3, 3, 9, 4]
    assert [found.seed_of(name) for name in "abc"] == [1, 2, 1]
    assert (found.models["c"].flip, found.models["c"].contrast) == (True, "local")


def test_every_mistake_is_told_at_once_by_its_path():
    found = mistakes(
        document(
            seed=-1, twins="keep", folds=[0, 2],
            recipes={"strong": {"crop": 99}, "spare": {"epoch": 1}},
            models={"a": MODEL | {"flipp": True}, "b": {"architecture": "small_vgg", "recipe": "stronk"},
                    "c": {"architecture": "small_vgg", "epochs": 1, "recipe": "strong"}},
            students={"s": MODEL | {"teachers": [], "teacher_weight": 2.0}},
        )
    )  # fmt: skip
    assert not [line for line in found if "models.c" in line], "its recipe's mistake is told once"
    for place in ("seed", "twins", "recipes.strong.crop", "recipes.spare.epoch", "models.a.flipp", "models.b.recipe",
                  "students.s.teachers", "students.s.teacher_weight"):  # fmt: skip
        assert any(line.startswith(f"params.yaml: {place} ") for line in found), place
    assert any("did you mean 'flip'" in line for line in found)
    assert any("did you mean 'strong'" in line for line in found)


def student(**changes):
    return {"s": MODEL | {"teachers": ["a"], "teacher_weight": 0.5} | changes}


@pytest.mark.parametrize(("place", "changes"), [
    ("folds", {"folds": [0]}), ("folds", {"folds": [0, 2]}), ("folds", {"folds": 5}), ("models", {"models": {}}),
    ("models.A-b", {"models": {"A-b": MODEL}}), ("models.ensemble", {"models": {"ensemble": MODEL}}),
    ("models.b", {"models": {"a": MODEL, "b": MODEL}}), ("models.a.epochs", {"models": {"a": MODEL | {"epochs": "3"}}}),
    ("models.a.epochs", {"models": {"a": MODEL | {"epochs": 10**12}}}), ("backend", {"backend": "caffe"}),
    ("models.a.epochs", {"models": {"a": {"architecture": "small_vgg"}}}),
    ("models.a.architecture", {"models": {"a": MODEL | {"architecture": "small_vg"}}}),
    ("models.a.progressive_epochs", {"models": {"a": MODEL | {"progressive_epochs": 4}}}),
    ("models.a.learning_rate", {"models": {"a": MODEL | {"learning_rate": float("nan")}}}),
    ("models.a.crop", {"models": {"a": {"architecture": "vgg8", "epochs": 1, "crop": 44}}}),
    ("students", {"students": None}), ("students.a", {"students": {"a": student()["s"]}}),
    ("students.s.teachers", {"students": student(teachers=["b"])}),
    ("students.s.teachers", {"students": student(teachers=["a", "a"])}),
    ("ensemble.members", {"ensemble": {"members": []}}), ("ensemble.members", {"ensemble": {"members": ["a", "a"]}}),
    ("ensemble.members", {"ensemble": {"members": ["b"]}}),
    ("ensemble.method", {"ensemble": {"members": ["a"], "method": "best"}}),
    ("data.training_faces", {"data": {"source": "synthetic", "training_faces": 10**9}}),
    ("speedrun.model", {"speedrun": {"model": "b", "seeds": [1, 2]}}),
    ("speedrun.seeds", {"speedrun": {"model": "a", "seeds": [1, 1]}}),
    ("speedrun.override.epoch", {"speedrun": {"model": "a", "seeds": [1, 2], "override": {"epoch": 1}}}),
], ids=str)  # fmt: skip
def test_a_mistake_is_told_by_its_path(place, changes):
    assert any(line.startswith(f"params.yaml: {place}") for line in mistakes(document(**changes)))


def test_an_external_member_needs_its_file(stand):
    members = document(ensemble={"members": ["a", "theirs"]})
    assert "external/theirs.npz" in mistakes(members)[0]
    Path("external").mkdir()
    Path("external/theirs.npz").touch()
    assert config.parse(members).externals == ["theirs"]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "models: &m {a: *m}", "\x00", "seed: 1\nseed: 2"])
def test_nonsense_is_refused_in_words(text, stand):
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError):
        config.load()


def test_what_is_off_or_idle_is_not_part_of_what_is_used():
    assert not {"mixup", "contrast", "plateau_factor", "progressive_side"} & config.Recipe(epochs=3).used().keys()
    assert "plateau_factor" in config.Recipe(epochs=3, schedule="plateau").used()
    assert config.Recipe(epochs=3, progressive_epochs=1).used()["progressive_side"] == 36


@pytest.mark.parametrize("text", ["0.001", "1e-3", "1.0e-3", ".001"])
def test_every_way_to_write_a_number_is_one(text, tmp_path):
    """As DVC reads it: in YAML 1.1, 1e-3 is a string."""
    (tmp_path / "params.yaml").write_text(f"learning_rate: {text}  # größer", encoding="utf-8")
    assert config.read(tmp_path / "params.yaml") == {"learning_rate": 0.001}
