import re
from pathlib import Path

import pytest
from pipeline.stages import check
from ruamel.yaml import YAML

from pipeline import architectures, params, recipe
from pipeline.errors import UserError

COMMITTED = Path(params.__file__).parents[1] / params.PATH
TRAIN = {
    "epochs": 3,
    "batch_size": 128,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "learning_rate": 0.001,
    "schedule": "constant",
    "warmup": 0.0,
    "plateau_factor": 0.1,
    "plateau_patience": 10,
    "average": 0.0,
    "loss": "categorical",
    "label_smoothing": 0.0,
    "contrast": "none",
    "scaling": "unit",
    "crop": 48,
    "rotation": 0.0,
    "shift": 0.0,
    "zoom": 0.0,
    "flip": False,
    "erase": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "plain_epochs": 0,
    "early_epochs": 0,
    "early_side": 36,
    "flip_at_test": True,
    "shift_at_test": 0,
    "zoom_at_test": 0.0,
    "recalibrate": False,
    "precision": "bfloat16",
}
KNOWN = f"the known ones are {', '.join(TRAIN)}"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a params.yaml that is right but for the sections given (None: left out), or a text of its own."""
    monkeypatch.chdir(tmp_path)

    def write(text=None, **sections):
        good = {
            "seed": 1, "backend": "auto", "duplicates": "keep", "data": {}, "folds": [0, 1], "train": TRAIN,
            "architectures": {"vgg8": {}}, "students": {}, "ensemble": {}, "speedrun": {},
        }  # fmt: skip
        if text is None:
            yaml = YAML(typ="safe")
            yaml.default_flow_style = False
            yaml.dump({name: value for name, value in (good | sections).items() if value is not None}, params.PATH)
        else:
            params.PATH.write_bytes(text if isinstance(text, bytes) else text.encode())
        params.document.cache_clear()

    yield write
    params.document.cache_clear()


@pytest.fixture
def write_text(write):
    """Write the good params.yaml with one line, NAME: VALUE, as it would be typed."""

    def write_text(name, value):
        write()
        text, found = re.subn(
            rf"(?m)^( *){name}: .*", lambda line: f"{line[1]}{name}: {value}", params.PATH.read_text()
        )
        assert found == 1
        write(text)

    return write_text


# The whole file


def test_the_document_is_the_file(write):
    write(seed=5, data={"source": "local"})
    assert params.document()["seed"] == params.seed() == 5
    assert params.document()["data"] == {"source": "local"}
    assert params.document()["train"] == TRAIN


def test_a_missing_file_is_refused(write):
    with pytest.raises(UserError, match=re.escape("params.yaml is missing here; run from the project's folder")):
        params.document()


@pytest.mark.parametrize("section", params.SECTIONS)
def test_a_missing_section_is_refused_by_name(write, section):
    write(**{section: None})
    with pytest.raises(UserError, match=f"params.yaml: section '{section}' is missing"):
        params.document()


@pytest.mark.parametrize("section", ["Train", "training", "seeds", "1"])
def test_an_unknown_section_is_refused_by_name_with_the_known_ones(write, section):
    write(**{section: 1})
    words = (
        f"params.yaml: unknown section '{section}'; the known ones are seed, backend, data, folds, duplicates, train, "
    )
    with pytest.raises(UserError, match=words):
        params.document()


@pytest.mark.parametrize(
    "text",
    [
        "seed: [1, 2",
        "seed: 1\n\tdata: 2",
        "seed: 1: 2",
        "seed: 1\nseed: 2",
        "seed: *nowhere",
        "seed: !!python/object:os.system {}",
        "seed: 'open",
        "seed: 1\n---\nseed: 2",
        "seed: \0",
        b"seed: \xff",
    ],
)
def test_what_is_no_yaml_is_refused(write, text):
    write(text)
    with pytest.raises(UserError, match=r"params\.yaml is not valid YAML: "):
        params.document()


@pytest.mark.parametrize("value", ["2013-13-45", "!!int x", "!!float x"])
def test_a_value_that_is_not_of_its_yaml_type_is_refused(write_text, value):
    write_text("seed", value)
    with pytest.raises(UserError, match=r"params\.yaml"):
        params.seed()


@pytest.mark.parametrize("text", ["", "# nothing\n", "seed", "- seed\n- data\n", "3"])
def test_what_is_no_mapping_is_refused(write, text):
    write(text)
    with pytest.raises(UserError, match=r"params\.yaml must be a mapping with the sections seed, backend, data, "):
        params.document()


@pytest.mark.parametrize("value", ["-1", "1.0", "true", "'1'", "[1]", "null", "1e3", "x"])
def test_a_seed_that_is_no_whole_number_is_refused(write_text, value):
    write_text("seed", value)
    with pytest.raises(UserError, match=r"params\.yaml: seed = .*: must be a whole number from 0 to"):
        params.seed()


@pytest.mark.parametrize("value", [0, 1, 2**31])
def test_a_whole_number_is_a_seed(write, value):
    write(seed=value)
    assert params.seed() == value


# Recipes: defaults and what differs


def test_a_network_without_an_entry_of_its_own_has_the_defaults(write):
    for own in ({}, None):
        write(architectures={"vgg8": own})
        assert recipe.read("vgg8").model_dump() == TRAIN


def test_an_entry_replaces_its_own_keys_alone(write):
    write(architectures={"vgg8": {"epochs": 9, "flip": True}, "mini_xception": {"shift": 0.5}})
    assert recipe.read("vgg8").model_dump() == TRAIN | {"epochs": 9, "flip": True}
    assert recipe.read("mini_xception").model_dump() == TRAIN | {"shift": 0.5}


@pytest.mark.parametrize(
    ("typed", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("0.001", 0.001), ("1", 1.0), ("2e0", 2.0)]
)
def test_every_way_to_write_a_number_is_a_float(write_text, typed, value):
    write_text("learning_rate", typed)
    found = recipe.read("vgg8").learning_rate
    assert (type(found), found) == (float, value)


def test_a_recipe_cannot_be_changed(write):
    write()
    with pytest.raises(ValueError, match="frozen"):
        recipe.read("vgg8").epochs = 5


BOUNDS = {  # of each number: the smallest and largest good ones, and bad ones
    "epochs": ((1, 1000), (0, -1)),
    "batch_size": ((1, 4096), (0, -1)),
    "learning_rate": ((1e-9, 10.0), (0.0, -0.1, float("nan"))),
    "weight_decay": ((0.0, 0.99), (-0.1, 1.0, float("nan"))),
    "label_smoothing": ((0.0, 0.99), (-0.1, 1.0, float("nan"))),
    "plateau_factor": ((0.01, 0.99), (0.0, 1.0, -0.5)),
    "plateau_patience": ((1, 100), (0,)),
    "rotation": ((0.0, 180.0), (-1.0, 180.5, float("nan"))),
    "shift": ((0.0, 0.99), (-0.1, 1.0, float("nan"))),
    "zoom": ((0.0, 0.99), (-0.1, 1.0, float("inf"))),
    "warmup": ((0.0, 0.99), (-0.1, 1.0, float("nan"))),
    "average": ((0.0, 0.9999), (-0.1, 1.0, float("nan"))),
    "crop": ((8, 48), (7, 49, 0)),
    "erase": ((0.0, 1.0), (-0.1, 1.1, float("nan"))),
    "mixup": ((0.0, 20.0), (-0.1, float("inf"), float("nan"))),
    "cutmix": ((0.0, 1.0), (-0.1, 1.1, float("nan"))),
    "plain_epochs": ((0, 1000), (-1,)),
    "early_epochs": ((0, 1000), (-1,)),
    "early_side": ((8, 48), (7, 49)),
    "shift_at_test": ((0, 47), (-1, 48)),
    "zoom_at_test": ((0.0, 0.99), (-0.1, 1.0, float("nan"))),
}
WRONG_TYPES = {
    "epochs": ("3", 3.0, True, [3], None),
    "batch_size": (True, "128", 1.5),
    "plateau_patience": ([1, 2], False),
    "learning_rate": ("fast", "0.1", True, [0.1], None),
    "shift": (False, "0"),
    "flip": (1, 0, "yes", "true", None),
    "flip_at_test": ("no", [True]),
    "recalibrate": ("yes", 1),
    "crop": (40.0, "40", None),
    "plain_epochs": (1.0, True),
    "early_side": (36.5, "36"),
    "shift_at_test": (True, 2.0),
    "zoom_at_test": (True, "0.1"),
    "mixup": ("0.2", True),
    "contrast": ("equalize", True, None),
    "optimizer": ("Adam", "rmsprop", 1, None, ["adam"]),
    "schedule": ("triangle", True),
    "loss": ("mse", 2),
    "scaling": ("0..1", 255),
    "precision": ("float16", 32),
}


def pairs(table):
    return [(key, value) for key, values in table.items() for value in values]


@pytest.mark.parametrize(("key", "value"), pairs({key: good for key, (good, _) in BOUNDS.items()}))
def test_a_number_at_its_bound_is_taken(write, key, value):
    write(architectures={"vgg8": {key: value}})
    assert getattr(recipe.read("vgg8"), key) == value


@pytest.mark.parametrize(("key", "value"), pairs({key: bad for key, (_, bad) in BOUNDS.items()}) + pairs(WRONG_TYPES))
@pytest.mark.parametrize("place", ["train", "architectures.vgg8"])
def test_a_wrong_value_is_refused_with_its_place(write, place, key, value):
    write(**{"train": {"train": TRAIN | {key: value}}}.get(place, {"architectures": {"vgg8": {key: value}}}))
    with pytest.raises(UserError, match=re.escape(f"params.yaml: {place}.{key} = {value!r}: Input should be ")):
        recipe.read("vgg8")


@pytest.mark.parametrize("place", ["train", "architectures.vgg8"])
def test_an_unknown_key_is_refused_with_its_place_and_the_known_ones(write, place):
    write(**{"train": {"train": TRAIN | {"epoch": 3}}}.get(place, {"architectures": {"vgg8": {"epoch": 3}}}))
    with pytest.raises(UserError, match=f"params.yaml: unknown key {place}.epoch; {KNOWN}"):
        recipe.read("vgg8")


def test_all_that_is_wrong_with_a_section_is_said_at_once(write):
    write(architectures={"vgg8": {"epochs": 0, "flop": True, "loss": 1}})
    with pytest.raises(UserError) as refusal:
        recipe.read("vgg8")
    for key in ("epochs", "flop", "loss"):
        assert f"architectures.vgg8.{key}" in str(refusal.value)


@pytest.mark.parametrize("key", TRAIN)
def test_a_default_that_is_missing_is_refused_even_where_a_network_sets_it(write, key):
    write(
        train={name: value for name, value in TRAIN.items() if name != key}, architectures={"vgg8": {key: TRAIN[key]}}
    )
    with pytest.raises(UserError, match=f"params.yaml: train.{key} is missing"):
        recipe.read("vgg8")


@pytest.mark.parametrize("value", ["null", "3", "[epochs]", "fast"])
def test_a_train_section_that_is_no_mapping_is_refused(write, value):
    write(
        f"seed: 1\nbackend: auto\nduplicates: keep\ndata: {{}}\nfolds: [0, 1]\ntrain: {value}\n"
        "architectures: {vgg8: {}}\nstudents: {}\nensemble: {}\nspeedrun: {}\n"
    )
    with pytest.raises(UserError, match=r"params\.yaml: train = "):
        recipe.read("vgg8")


@pytest.mark.parametrize("own", [3, [1], "fast", True])
def test_an_entry_that_is_no_mapping_is_refused(write, own):
    write(architectures={"vgg8": own})
    with pytest.raises(UserError, match=re.escape(f"architectures.vgg8 = {own!r}: must be a mapping")):
        recipe.read("vgg8")


# Which networks there are


def test_the_names_keep_their_order(write):
    write(
        "seed: 1\nbackend: auto\nduplicates: keep\ndata: {}\nfolds: []\ntrain: {}\n"
        "architectures: {vgg8: , mini_xception: {}}\nstudents: {}\nensemble: {}\nspeedrun: {}\n"
    )
    assert recipe.names() == ["vgg8", "mini_xception"]


@pytest.mark.parametrize("name", ["vgg9", "VGG8", "_blocks", "", 8])
def test_an_architecture_without_a_file_is_refused_with_those_that_there_are(write, name):
    write(architectures={"vgg8": {}, name: {}})
    words = f"unknown architecture {name!r}; pipeline/architectures/ has {', '.join(architectures.names())}"
    with pytest.raises(UserError, match=re.escape(words)):
        recipe.names()


def test_an_architecture_that_is_not_trained_is_refused_with_those_that_are(write):
    write(architectures={"vgg8": {}, "alizadeh_same": {}})
    with pytest.raises(UserError, match=r"has no architecture 'mini_xception'; its architectures are .*vgg8"):
        recipe.read("mini_xception")


@pytest.mark.parametrize("value", [{}, [], ["vgg8"], "vgg8", 3])
def test_architectures_that_are_no_mapping_are_refused(write, value):
    write(architectures=value)
    with pytest.raises(UserError, match=r"params\.yaml: architectures must map names to recipes"):
        recipe.names()


# Students

STUDENT = {"teachers": ["vgg8"], "taught": 0.5, "epochs": 9}


def test_a_student_has_a_recipe_and_a_lesson(write):
    write(architectures={"vgg8": {"flip": True}}, students={"student": STUDENT})
    assert recipe.names() == ["vgg8", "student"]
    assert (recipe.untaught(), recipe.students(), recipe.teachers()) == (["vgg8"], ["student"], ["vgg8"])
    assert recipe.read("student").model_dump() == TRAIN | {"epochs": 9}
    lesson = recipe.lesson("student")
    assert lesson is not None
    assert lesson.model_dump() == {"teachers": ["vgg8"], "taught": 0.5}
    assert recipe.lesson("vgg8") is None


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"teachers": ["student"]}, "students.student.teachers names 'student'; it must be one of vgg8"),
        ({"teachers": ["mini_xception"]}, "students.student.teachers names 'mini_xception'; it must be one of vgg8"),
        ({"teachers": []}, "students.student.teachers = []"),
        ({"teachers": ["vgg8", "vgg8"]}, "students.student.teachers names a network twice"),
        ({"plain_epochs": 10}, "student.plain_epochs = 10: it has 9 epochs"),
        ({"teachers": "vgg8"}, "students.student.teachers = 'vgg8'"),
        ({"taught": 0.0}, "students.student.taught = 0.0"),
        ({"taught": 1.5}, "students.student.taught = 1.5"),
        ({"taught": None}, "students.student.taught = None"),
        ({"temperature": 2.0}, "unknown key students.student.temperature"),
    ],
)
def test_a_lesson_that_cannot_be_learned_is_refused(write, own, words):
    write(students={"student": STUDENT | own}, ensemble={"method": "mean", "members": ["vgg8"]})
    assert any(words in mistake for mistake in check.mistakes())


def test_a_lesson_without_teachers_is_refused(write):
    write(students={"student": {"taught": 0.5}})
    with pytest.raises(UserError, match=r"params\.yaml: students\.student\.teachers is missing"):
        recipe.teachers()


@pytest.mark.parametrize(
    "sections",
    [{"architectures": {"vgg8": {}, "student": {}}}, {"students": {"mini_xception": STUDENT}}],
    ids=["a_student_among_the_others", "another_among_the_students"],
)
def test_students_and_no_others_are_named_so(write, sections):
    write(**sections)
    with pytest.raises(UserError, match=r"students, and no others, are named student\.\.\."):
        recipe.names()


@pytest.mark.parametrize("value", [[], ["student"], "student", 3])
def test_students_that_are_no_mapping_are_refused(write, value):
    write(students=value)
    with pytest.raises(UserError, match=r"params\.yaml: students must map names to recipes"):
        recipe.names()
    assert any("students must map names to recipes" in mistake for mistake in check.mistakes())


# What is committed


@pytest.mark.parametrize("name", YAML(typ="safe").load(COMMITTED.read_text())["architectures"])
def test_the_committed_file_trains_every_architecture_by_a_recipe(write, name):
    write(COMMITTED.read_text())
    own = params.document()["architectures"][name] or {}
    found = recipe.read(name).model_dump()
    assert {key: found[key] for key in own} == own
    assert params.seed() >= 0


def test_the_defaults_here_have_the_committed_keys(write):
    write(COMMITTED.read_text())
    assert list(params.document()["train"]) == list(TRAIN) == list(recipe.Recipe.model_fields)


@pytest.mark.parametrize("value", ["auto", "tensorflow", "jax", "torch"])
def test_a_library_that_keras_runs_on_is_a_backend(write, value):
    write(backend=value)
    assert params.backend() == value


@pytest.mark.parametrize("value", ["theano", "TensorFlow", 1, True, [], {}])
def test_another_backend_is_refused(write, value):
    write(backend=value)
    with pytest.raises(UserError, match=r"params\.yaml: backend = .*: must be auto, tensorflow, jax, torch"):
        params.backend()
