import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline import claims, fit, params, solution, synthetic
from pipeline.claims import CLAIMS, Claim
from pipeline.command import Refusal
from pipeline.faces import Faces

ROOT = Path(__file__).parent.parent
USAGE = np.repeat([0, 1, 2], (80, 10, 10))


@pytest.mark.parametrize("part", [0.1, 0.2])
def test_a_random_split_takes_all_rows_apart_whatever_their_split(part):
    claim = Claim("", "", 1, False, "random", part)
    trained, judged = claims.split(claim, USAGE, seed=1)
    assert len(judged) == round(100 * part)
    np.testing.assert_array_equal(np.sort(np.concatenate([trained, judged])), np.arange(100))
    assert (USAGE[trained] > 0).any()
    assert not np.array_equal(judged, claims.split(claim, USAGE, seed=2)[1])


@pytest.mark.parametrize(("protocol", "judged"), [("official", np.arange(80, 100)), ("private", np.arange(90, 100))])
def test_the_official_splits_train_on_training(protocol, judged):
    found = claims.split(Claim("", "", 1, False, protocol), USAGE, seed=1)
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
    document["architectures"] = {"mini_xception": {"epochs": 2, "batch_size": 16}}
    with open(params.PATH, "w") as file:
        YAML().dump(document, file)
    params.document.cache_clear()


def test_a_protocol_is_run_and_not_run_again_while_nothing_changes(project, monkeypatch, capsys):
    claims.main("mini_xception")
    found = json.loads(claims.RESULT.read_text())
    assert list(found) == ["mini_xception"]
    ours = found["mini_xception"]["theirs_here"]
    assert (ours["epochs"], ours["trained_rows"], ours["rows"]) == (2, 84, 42)
    printed = capsys.readouterr().out
    accuracies = [float(line.split("accuracy")[2].split("%")[0]) / 100 for line in printed.splitlines()]
    assert ours["best_epoch"] == pytest.approx(max(accuracies), abs=1e-4)
    assert ours["last_epoch"] == pytest.approx(accuracies[-1], abs=1e-4)
    monkeypatch.setattr(fit, "fit", lambda *_: pytest.fail("it was trained again"))
    claims.main("mini_xception")
    claims.main()  # what is not trained here is told without a figure of ours
    again = json.loads(claims.RESULT.read_text())
    assert again["mini_xception"] == found["mini_xception"]
    assert set(again) == set(CLAIMS)
    assert list(again) == list(CLAIMS)
    assert all("theirs_here" not in entry for name, entry in again.items() if name != "mini_xception")
    text = params.PATH.read_text()
    params.PATH.write_text(text.replace("mini_xception", "vgg8"))
    params.document.cache_clear()
    claims.main("mini_xception")  # what was measured stays when the network leaves params.yaml
    assert json.loads(claims.RESULT.read_text()) == again
    claims.RESULT.write_text("{")
    with pytest.raises(
        Refusal, match=r"^results/claims\.json cannot be read .*; delete it, or bring it back from git$"
    ):
        claims.main("mini_xception")


def test_without_test_labels_and_for_an_unknown_network_it_says_so(project):
    with pytest.raises(Refusal, match="no source claims anything for 'resnet'"):
        claims.main("resnet")
    text = solution.PATH.read_text().splitlines()
    solution.PATH.write_text("\n".join([*text[:-1], text[-1].rsplit(",", 1)[0] + ","]) + "\n")
    with pytest.raises(Refusal, match="does not know the labels of all test rows"):
        claims.main()
