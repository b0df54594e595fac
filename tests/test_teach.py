"""Teachers' answers, and what a student makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from pipeline.stages import distill, teach, train
from ruamel.yaml import YAML

from pipeline import params
from pipeline.data import faces, folds, synthetic
from pipeline.errors import UserError
from pipeline.training import cells

ROOT = Path(__file__).parent.parent
RECIPE = {"epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A small competition, two teachers and a student of both, trained on both folds."""
    folder = tmp_path_factory.mktemp("school")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.instead(patch)
        pixels, labels, usage = synthetic.competition(training=56, test=14, seed=1)
        hidden = np.where(usage == 0, labels, -1).astype("int8")
        faces.Faces(pixels, hidden, usage.astype("uint8")).save()
        document = YAML(typ="safe").load((ROOT / "pipeline/demo.yaml").read_text())
        document["architectures"] = {"mini_xception": RECIPE, "small_vgg": RECIPE}
        lesson = {"teachers": ["small_vgg", "mini_xception"], "taught": 0.75}
        document["students"] = {"student": RECIPE | lesson}
        document["ensemble"]["members"] = ["mini_xception"]
        with open(params.PATH, "w") as file:
            YAML().dump(document, file)
        params.document.cache_clear()
        folds.main()
        train.main()
        teach.main()
        distill.main()
        params.document.cache_clear()
    return folder


@pytest.fixture
def school(taught, monkeypatch):
    monkeypatch.chdir(taught)
    tiny.instead(monkeypatch)
    return taught


def test_teachers_say_what_they_think_of_the_rows_that_they_saw(school):
    data = faces.load()
    rows, fold_of = folds.load(data)
    for fold in (0, 1):
        with np.load(cells.lessons(fold)) as lesson:
            assert set(lesson) == {"rows", "mini_xception", "small_vgg"}
            np.testing.assert_array_equal(lesson["rows"], rows[fold_of != fold])
            said = cells.said(fold, ["mini_xception", "small_vgg"], rows[fold_of != fold])
            np.testing.assert_allclose(said, (lesson["mini_xception"] + lesson["small_vgg"]) / 2, rtol=1e-6)
        np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)


def test_the_rows_of_the_fold_are_in_no_lesson(school):
    data = faces.load()
    rows, fold_of = folds.load(data)
    for fold in (0, 1):
        with np.load(cells.lessons(fold)) as lesson:
            assert not np.isin(lesson["rows"], rows[fold_of == fold]).any()
        with pytest.raises(UserError, match=r"lessons/fold\d\.npz cannot be used .* dvc repro -f teach@"):
            cells.said(fold, ["small_vgg"], rows[fold_of == fold])


def test_a_student_lies_beside_the_others_but_for_its_weights(school):
    for fold in (0, 1):
        assert Path(f"artifacts/students/student/fold{fold}.weights.h5").exists()
        assert not Path("artifacts/models/student").exists()
        about = json.loads(Path(f"artifacts/students/student/fold{fold}.json").read_text())
        assert (about["teachers"], about["taught"]) == (["small_vgg", "mini_xception"], 0.75)
        with np.load(f"artifacts/predictions/student/fold{fold}.npz") as said:
            np.testing.assert_allclose(said["validation"].sum(axis=1), 1, rtol=1e-5)
    assert not list(Path("artifacts/checkpoints/students").glob("*.npz"))


def test_a_student_is_out_of_date_when_its_lesson_is_another(school):
    (cell,) = [each for each in train.planned(["student"])[3] if each.fold == 0]
    assert cell.done()
    path = cells.lessons(0)
    before = path.read_bytes()
    with np.load(path) as lesson:
        changed = dict(lesson)
    changed["small_vgg"] = changed["small_vgg"][::-1]
    np.savez(path, **changed)
    (other,) = [each for each in train.planned(["student"])[3] if each.fold == 0]
    path.write_bytes(before)
    assert other.key != cell.key
    assert not other.done()


def test_a_student_learns_from_what_its_teachers_say(school):
    """Other answers, another student; the same answers, the same one, byte for byte."""
    data, rows, fold_of, cells = train.planned(["student"])
    said = train.said(cells[0], rows, fold_of)
    assert said is not None
    found = [
        train.train(data, rows, fold_of, cells[0], Path(f"a/b/{n}.npz").absolute(), said=answers)["weights"]
        for n, answers in enumerate((said, said[::-1], said))
    ]
    assert found[0] == found[2] == cells[0].paths()["weights"].read_bytes()
    assert found[0] != found[1]
    with pytest.raises(ValueError, match="student fold 0: a student, and nobody else, learns from what its teachers"):
        train.train(data, rows, fold_of, cells[0], Path("a/b/3.npz").absolute())


def test_answers_are_labels_with_the_teachers_mixed_in():
    said = np.array([[0.4, 0.6, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1.0]])
    mixed = train.answers(np.array([0, 2]), said, 0.5)
    np.testing.assert_allclose(mixed, [[0.7, 0.3, 0, 0, 0, 0, 0], [0, 0, 0.5, 0, 0, 0, 0.5]])
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(train.answers(np.array([0, 2]), said, 1.0), said)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda: distill.main("vgg8"), "has no architecture 'vgg8' here; there are student"),
        (lambda: train.main("student"), "has no architecture 'student' here; there are mini_xception, small_vgg"),
        (lambda: distill.main("student", "7"), "there is no fold '7'"),
        (lambda: teach.main("7"), "there is no fold '7'"),
    ],
)
def test_what_there_is_none_of_is_refused(school, run, words):
    with pytest.raises(UserError, match=words):
        run()


def test_without_students_a_lesson_names_its_rows_alone(school, monkeypatch, tmp_path):
    document = dict(params.document()) | {"students": {}}
    monkeypatch.setattr(params, "document", lambda: document)
    monkeypatch.setattr(cells, "lessons", lambda fold: tmp_path / f"{fold}.npz")
    teach.main("0")
    with np.load(tmp_path / "0.npz") as lesson:
        assert set(lesson) == {"rows"}
