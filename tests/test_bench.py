"""The benchmark compares like with like, and what is committed of it is what the documentation shows."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny

from bench import __main__ as bench
from bench import ablation, contenders, joining
from pipeline import architectures
from pipeline.data import synthetic
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.experiments import runner
from pipeline.training import cell

ROOT = Path(__file__).parent.parent
# Forward multiply-adds counted by hand: kernel height x width x inputs x filters x output pixels, summed; dense layers.
MULTIPLY_ADDS = {
    "alizadeh_same": 48**2 * 9 * 64 + 24**2 * 25 * 64 * 128 + 12**2 * 9 * 128 * 512 + 6**2 * 9 * 512 * 512
    + 4608 * 256 + 256 * 512 + 512 * 7,
    "vgg8": 46**2 * 9 * (64 + 64 * 64) + 23**2 * 9 * (64 * 128 + 128 * 128) + 11**2 * 9 * (128 * 256 + 256 * 256)
    + 5**2 * 9 * (256 * 512 + 512 * 512) + 2048 * 512 + 512 * 256 + 256 * 128 + 128 * 7,
    "small_resnet": 24**2 * (25 * 48 + 9 * 48 * 64) + 12**2 * 9 * (64 * 128 + 2 * 128 * 128)
    + 6**2 * 9 * (128 * 256 + 2 * 256 * 256) + 256 * 7,
    "small_vgg": 48**2 * 9 * (32 + 32 * 32) + 24**2 * 9 * (32 * 64 + 64 * 64) + 12**2 * 9 * (64 * 128 + 128 * 128)
    + 6**2 * 9 * (128 * 256 + 256 * 256) + 256 * 7,
    "deep_vgg": 48**2 * 9 * (32 + 32 * 32) + 24**2 * 9 * (32 * 64 + 64 * 64) + 12**2 * 9 * (64 * 128 + 2 * 128 * 128)
    + 6**2 * 9 * (128 * 256 + 2 * 256 * 256) + 256 * 7,
    "fc_vgg": 48**2 * 9 * (32 + 32 * 32) + 24**2 * 9 * (32 * 64 + 64 * 64) + 12**2 * 9 * (64 * 128 + 2 * 128 * 128)
    + 6**2 * 9 * (128 * 256 + 2 * 256 * 256) + 2304 * 256 + 256 * 7,
    "small_coatnet": 24**2 * (25 * 48 + 9 * 48 * 64) + 12**2 * 9 * (64 * 128 + 128 * 128)
    + 6**2 * 9 * (128 * 192 + 192 * 192) + 2 * 36 * (4 + 8) * 192**2 + 2 * 2 * 36**2 * 192 + 192 * 7,
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_are_those_of_a_count_by_hand(name: str) -> None:
    assert cell.multiply_adds(architectures.build(name)) == MULTIPLY_ADDS[name]


@pytest.mark.parametrize("name", bench.NETWORKS)
def test_pytorchs_networks_have_the_layers_of_ours(name: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: it is needed by the benchmark alone")
    from bench import pytorch

    theirs = sum(weights.numel() for weights in getattr(pytorch, name)().parameters())
    assert theirs == sum(int(np.prod(weights.shape)) for weights in architectures.build(name).trainable_weights)


@pytest.mark.parametrize("kind", ["ours", "pytorch_float32"])
def test_a_contender_tells_how_fast_it_is(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind.startswith("pytorch"):
        pytest.importorskip("torch", reason="PyTorch is not installed: it is needed by the benchmark alone")
    else:
        tiny.instead(monkeypatch)
    for rows in (contenders.TRAINING_ROWS, contenders.PREDICTED_ROWS):
        monkeypatch.setitem(rows, "mini_xception", 64)
    pixels, labels, _ = synthetic.competition(training=64, test=7, seed=1)
    contenders.start(kind, "mini_xception", bench.NETWORKS["mini_xception"], pixels, labels)
    assert min(contenders.speed("train"), contenders.speed("predict"), contenders.peak_mb()) > 0


def test_the_committed_measurement_is_whole_and_shown_in_the_docs() -> None:
    found = json.loads((ROOT / "results/bench.json").read_text())
    assert set(found["race"]["networks"]) == set(bench.NETWORKS)
    rounds = found["machine"]["rounds"]
    assert rounds >= 5
    for network in found["race"]["networks"].values():
        assert {"ours", "ours_x2", "reference", "pytorch_float32"} <= set(network["contenders"])
        assert all(len(entry["train_rounds"]) == rounds for entry in network["contenders"].values())
    page = (ROOT / "docs/speed.md").read_text()
    table = [line for line in bench.show(found).splitlines() if line.startswith(("| alizadeh", "| vgg8", "| mini"))]
    assert len(table) >= 9
    for line in table:
        assert line in page


def test_two_networks_are_compared_row_by_row() -> None:
    one, other = (np.arange(700) < count for count in (350, 364))
    found = ablation.paired(other, one)
    assert found["points"] == 2.0
    reach = 196 * math.sqrt((0.02 - 0.02**2) / 700)
    np.testing.assert_allclose(found["points_95"], [2 - reach, 2 + reach], atol=1e-3)
    assert found["p_value"] == pytest.approx(2 * 0.5**14, rel=0.01)  # all of 14 for one side
    same = ablation.paired(one, one)
    assert (same["points"], same["points_95"], same["p_value"]) == (0, [0, 0], 1)


def test_halves_keep_folds_whole() -> None:
    fold_of = np.array([0, 1, 2, 3, 4, 0, 4, 2])
    assert ablation.halves(fold_of).tolist() == [0, 0, 1, 1, 1, 0, 1, 1]
    assert ablation.halves(np.array([1, 0])).tolist() == [1, 0]


def test_every_variant_is_a_recipe_of_a_network_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, change in ablation.VARIANTS.items():
        assert change or name == ablation.NAME
        assert all(ablation.BASE.get(key) != value for key, value in change.items()), name  # it changes something
    monkeypatch.chdir(ROOT)
    pixels, labels, usage = synthetic.competition(training=70, test=7, seed=1)
    data = Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage.astype("uint8"))
    tasks = ablation.plan(data, Folds(np.arange(70), np.arange(70) % 5))
    assert len(tasks) == 2 * len(ablation.VARIANTS) == len({task.key(data) for task in tasks.values()})
    for task in tasks.values():
        assert task.architecture in architectures.names()
        assert sorted([*task.rows, *task.judged]) == list(range(70))


def result(predicted: np.ndarray) -> runner.Result:
    return runner.Result(predicted.astype("float16"), np.zeros(0), np.array(0.5), np.array(60.0), np.array(0.0),
                         np.array("{}"))  # fmt: skip


def test_variants_are_compared_on_the_rows_that_both_judged() -> None:
    labels, half_of = np.arange(140) % 7, np.arange(140) // 70
    right = np.eye(7)[labels] * 0.9 + 0.1 / 7
    wrong = np.roll(right, 1, axis=1)

    def part(half: int, correct: int) -> runner.Result:
        return result(np.where((np.arange(140) % 70 < correct)[:, None], right, wrong)[half_of == half])

    found = {(ablation.NAME, 0): part(0, 35), ("better", 0): part(0, 49), ("half", 0): part(0, 28),
             (ablation.NAME, 1): part(1, 35), ("better", 1): part(1, 35)}  # fmt: skip
    table = ablation.summary(found, labels, half_of)
    assert [line["rows"] for line in table.values()] == [140, 140, 70]
    assert [line["oof_accuracy"] for line in table.values()] == [0.5, 0.6, 0.4]
    assert (table["better"]["points"], table["half"]["points"]) == (10, -10)
    assert table["better"]["points_95"][0] > 0
    assert table["better"]["minutes"] == 2
    lines = ablation.show(table).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["better", ablation.NAME, "half"]


def test_a_variant_is_joined_with_the_base_by_the_mean_of_their_predictions() -> None:
    labels, half_of = np.zeros(100, dtype=int), np.arange(100) // 60
    sure, unsure, wrong = np.eye(7)[0] * 0.9 + 0.1 / 7, np.eye(7)[0] * 0.2 + 0.8 / 7, np.eye(7)[1] * 0.5 + 0.5 / 7
    base = result(np.stack([sure] * 30 + [wrong] * 30))
    other = result(np.stack([wrong] * 30 + [unsure] * 15 + [sure] * 15))
    table = ablation.summary({(ablation.NAME, 0): base, ("another", 0): other}, labels, half_of)
    assert [found for found, line in table.items() if "joined" in line] == ["another"]
    # Sure beats wrong beats unsure.
    assert (table["another"]["points"], table["another"]["joined"]["points"]) == (0, 25)
    assert "+25.00" in ablation.show(table)


def test_the_committed_ablation_is_whole_and_its_tables_tell_it() -> None:
    found = json.loads((ROOT / "results/ablation.json").read_text())
    assert found["base"] == ablation.BASE
    assert set(found["variants"]) <= set(ablation.VARIANTS)
    tables = (ROOT / ablation.TABLES).read_text()
    assert ablation.show(found["variants"]) in tables
    assert all(
        name in tables.partition("two seeds")[2]
        for name in ablation.PAIRS
        if name + ablation.AGAIN in found["variants"]
    )
    kept = [runner.load(path) for path in (ROOT / ablation.FOLDER).glob("*.npz")]
    assert len(kept) == len(found["variants"])
    assert {part.probabilities.shape for part in kept} == {(11_484, 7)}
    assert sorted(round(float(part.accuracy), 4) for part in kept) == sorted(
        line["training_accuracy"] for line in found["variants"].values()
    )


@pytest.mark.parametrize("name", joining.WAYS)
def test_a_way_of_joining_sees_no_label_of_the_fold_that_it_is_judged_on(name: str) -> None:
    chance = np.random.default_rng(0)
    labels, fold_of = chance.integers(0, 7, 300), np.arange(300) % 3
    every = np.stack([chance.dirichlet(np.ones(7), 300) + part * np.eye(7)[labels] for part in (0.2, 0.5)])
    every /= every.sum(axis=2, keepdims=True)
    joined = joining.nested(joining.WAYS[name], every, labels, fold_of)
    other = np.where(fold_of == 0, (labels + 1) % 7, labels)
    scrambled = joining.nested(joining.WAYS[name], every, other, fold_of)
    np.testing.assert_array_equal(joined[fold_of == 0], scrambled[fold_of == 0])
    assert (joined.argmax(axis=1) == labels).mean() > 0.6
