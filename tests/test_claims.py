import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from ruamel.yaml import YAML

from pipeline import params, recipe
from pipeline.data import solution, synthetic
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.experiments import claims
from pipeline.experiments.claims import CLAIMS
from pipeline.training import loop

ROOT = Path(__file__).parent.parent
USAGE = np.repeat([0, 1, 2], (80, 10, 10))


@pytest.mark.parametrize("part", [0.1, 0.2])
def test_a_random_split_takes_all_rows_apart_whatever_their_split(part):
    trained, judged = claims.split("random", part, USAGE, seed=1)
    assert len(judged) == round(100 * part)
    np.testing.assert_array_equal(np.sort(np.concatenate([trained, judged])), np.arange(100))
    assert (USAGE[trained] > 0).any()
    assert not np.array_equal(judged, claims.split("random", part, USAGE, seed=2)[1])


@pytest.mark.parametrize(("protocol", "judged"), [("official", np.arange(80, 100)), ("private", np.arange(90, 100))])
def test_the_official_splits_train_on_training(protocol, judged):
    found = claims.split(protocol, 0.0, USAGE, seed=1)
    np.testing.assert_array_equal(found[0], np.arange(80))
    np.testing.assert_array_equal(found[1], judged)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, labels, usage = synthetic.competition(training=84, test=21, seed=3)
    Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage.astype("uint8")).save()
    table = solution.table(np.arange(84, 126), usage[84:], labels[84:])
    table.to_csv(solution.PATH, index=False)
    document = YAML(typ="safe").load((ROOT / "pipeline/demo.yaml").read_text())
    with open(params.PATH, "w") as file:
        YAML().dump(document, file)
    params.document.cache_clear()
    small = {name: replace(claim, recipe=claim.recipe | {"batch_size": 16}) for name, claim in CLAIMS.items()}
    monkeypatch.setattr(claims, "CLAIMS", small)
    tiny.instead(monkeypatch)


def accuracies(printed, start):
    lines = [line for line in printed.splitlines() if line.startswith(start)]
    return [float(line.split("accuracy")[2].split("%")[0]) / 100 for line in lines]


def test_a_protocol_is_run_and_not_run_again_while_nothing_changes(project, monkeypatch, capsys):
    claims.main("mini_xception", "2")
    found = json.loads(claims.RESULT.read_text())
    assert list(found) == ["mini_xception"]
    entry, printed = found["mini_xception"], capsys.readouterr().out
    theirs, honest = (accuracies(printed, f"mini_xception, {protocol}") for protocol in ("official", "private"))
    assert entry["theirs_here"] == {
        "epochs": 2, "trained_rows": 84, "rows": 42, "best_epoch": pytest.approx(max(theirs), abs=1e-4),
        "last_epoch": pytest.approx(theirs[-1], abs=1e-4),
    }  # fmt: skip
    assert entry["honest"] == {
        "epochs": 2, "trained_rows": 84, "rows": 21, "best_epoch": None,
        "last_epoch": pytest.approx(honest[-1], abs=1e-4),
    }  # fmt: skip
    assert entry["epochs_there"] == 110
    assert not list(claims.CHECKPOINTS.glob("*"))
    monkeypatch.setattr(loop, "fit", lambda *_: pytest.fail("it was trained again"))
    claims.main("mini_xception", "2")
    assert json.loads(claims.RESULT.read_text()) == found
    claims.RESULT.write_text("{")
    with pytest.raises(
        UserError, match=r"^results/claims\.json cannot be read .*; delete it, or bring it back from git$"
    ):
        claims.main("mini_xception")


@pytest.mark.parametrize(("name", "protocols"), [("alizadeh_valid", ["private"]), ("alizadeh_same", ["private"]),
                                                 ("vgg8", ["private", "random"])])  # fmt: skip
def test_each_network_is_trained_by_its_protocol_and_by_the_honest_one(project, monkeypatch, name, protocols):
    ran = []
    monkeypatch.setattr(claims, "train_by", lambda protocol, *_: ran.append(protocol) or {"best_epoch": 1.0})
    claims.main(name, "1")
    entry = json.loads(claims.RESULT.read_text())[name]
    assert ran == protocols
    assert entry["recipe"]["epochs"] == 1
    assert (entry["theirs_here"] is None) == (name == "alizadeh_same")
    if name == "alizadeh_valid":  # nothing chose its epoch
        assert entry["theirs_here"] == entry["honest"] == {"best_epoch": None}
    if name == "vgg8":
        assert entry["theirs_here"]["best_epoch"] == 1.0


@pytest.mark.parametrize("epochs", ["0", "-1", "many", "1.5"])
def test_impossible_epochs_are_refused(project, epochs):
    with pytest.raises(UserError, match=f"^EPOCHS={epochs}: must be a whole number from 1 up$"):
        claims.main("vgg8", epochs)


def test_every_recipe_of_a_source_is_a_recipe():
    shared = params.section("train", recipe.Recipe).model_dump()
    for name, claim in CLAIMS.items():
        assert set(params.parse(name, recipe.Recipe, shared | claim.recipe).model_dump()) == set(shared)


def test_without_test_labels_and_for_an_unknown_network_it_says_so(project):
    with pytest.raises(UserError, match="no source claims anything for 'resnet'"):
        claims.main("resnet")
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(UserError, match="does not know the labels of all test rows"):
        claims.main()
