"""The benchmarks compare equal work, and the documentation shows the committed results."""

import json

import fake_run
import numpy as np
import pandas as pd
import pytest
import tiny
from settings import ROOT

from bench import ablation, joining, race
from pipeline import architectures
from pipeline.data import synthetic
from pipeline.evaluation.ensemble import Predictions
from pipeline.experiments import runner
from pipeline.training import cell

# Multiply-adds of a forward pass: kernel height x width x inputs x filters x output pixels, summed; and dense layers.
MULTIPLY_ADDS = {
    "vgg8": 46**2 * 9 * (64 + 64 * 64) + 23**2 * 9 * (64 * 128 + 128 * 128) + 11**2 * 9 * (128 * 256 + 256 * 256)
    + 5**2 * 9 * (256 * 512 + 512 * 512) + 2048 * 512 + 512 * 256 + 256 * 128 + 128 * 7,
    "small_coatnet": 24**2 * (25 * 48 + 9 * 48 * 64) + 12**2 * 9 * (64 * 128 + 128 * 128)
    + 6**2 * 9 * (128 * 192 + 192 * 192) + 2 * 36 * (4 + 8) * 192**2 + 2 * 2 * 36**2 * 192 + 192 * 7,
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_equal_a_count_by_hand(name):
    assert cell.multiply_adds(architectures.build(name)) == MULTIPLY_ADDS[name]


def test_a_contender_runs(monkeypatch):
    tiny.instead(monkeypatch)
    for rows in (race.TRAINING_ROWS, race.PREDICTED_ROWS):
        monkeypatch.setitem(rows, "mini_xception", 64)
    pixels, labels, _ = synthetic.competition(training=64, test=7, seed=1)
    race.start("ours", "mini_xception", race.NETWORKS["mini_xception"], pixels, labels)
    kernel = race.HERE["contender"].trainer.network.trainable_weights[0].numpy
    before = kernel()
    assert min(*race.measure("train"), *race.measure("predict")) > 0
    assert (kernel() != before).any()


def test_the_committed_benchmark_is_complete_and_shown_in_the_docs():
    results = json.loads((ROOT / "results/bench.json").read_text())
    assert set(results["race"]["networks"]) == set(race.NETWORKS)
    rounds = results["machine"]["rounds"]
    assert rounds >= 5
    for network in results["race"]["networks"].values():
        assert {"ours", "ours_x2", "reference", "pytorch_float32"} <= set(network["contenders"])
        assert all(len(entry["train_rounds"]) == rounds for entry in network["contenders"].values())
    page = (ROOT / "docs/speed.md").read_text()
    table = [line for line in race.show(results).splitlines() if line.startswith(("| alizadeh", "| vgg8", "| mini"))]
    assert len(table) >= 9
    assert all(line in page for line in table)


def test_paired_compares_two_networks_row_by_row():
    worse, better = (np.arange(700) < count for count in (350, 364))
    half_width = 196 * np.sqrt((0.02 - 0.02**2) / 700)
    assert ablation.paired(better, worse) == {
        "points": 2.0, "points_95": pytest.approx([2 - half_width, 2 + half_width], abs=1e-3),
        "p_value": pytest.approx(2 * 0.5**14, rel=0.01),  # better in all 14 differing rows
    }  # fmt: skip
    assert ablation.paired(worse, worse) == {"points": 0, "points_95": [0, 0], "p_value": 1}


def test_every_variant_changes_the_base_and_can_be_trained(monkeypatch):
    for name, change in ablation.VARIANTS.items():
        assert change or name == ablation.NAME
        assert all(ablation.BASE.get(key) != value for key, value in change.items()), name
    monkeypatch.chdir(ROOT)
    data = fake_run.faces()
    tasks = ablation.plan(data)
    assert len(tasks) == len(ablation.VARIANTS) == len({task.key(data) for task in tasks.values()})
    for task in tasks.values():
        assert task.architecture in architectures.names()
        assert sorted([*task.rows, *task.evaluated]) == list(range(70))


def test_gains_are_over_the_mean_of_the_first_line():
    labels, groups = np.arange(700) % 7, np.arange(700)
    correct, uniform = np.eye(7)[labels] * 0.3 + 0.1, np.full((700, 7), 1 / 7)
    known = {"few": [uniform, correct], "same": [correct], "many": [np.eye(7)[labels]]}
    lines = ablation.gains(known, labels, groups, "trained on").splitlines()
    few, _, many = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-3:])
    assert few[2:] == ["", "57.14%", ""]
    assert (many[1], many[3], many[4][:6]) == ("0.0000", "100.00%", "+42.86")


def test_growth_joins_the_members_and_adds_up_their_networks_and_hours(stand):
    labels = np.arange(70) % 7
    right, wrong = np.eye(7)[labels], np.eye(7)[(labels + 1) % 7]
    run = {"wrong": (0.5 * wrong + 0.1, 5, 2), "external": (right, 10, 1), "again": (3 * wrong, 5, 1.5)}
    costs = {name: np.array([networks, 9, 3600 * hours]) for name, (_, networks, hours) in run.items()}
    members = {name: Predictions(each[0], each[0], costs[name]) for name, each in run.items()}
    text = joining.growth(members | {"other": Predictions(right, right)}, labels)
    assert text.splitlines()[-1].count("unknown") == 2
    table = pd.read_csv("results/joining.csv")[["name", "value", "accuracy"]]
    assert table.to_numpy().tolist() == [["wrong", 2, 0], ["+ external", 3, 1], ["+ again", 4.5, 0]]
    assert (stand / "results/joining.png").exists()


def test_the_committed_ablation_is_in_its_tables():
    results = json.loads((ROOT / "results/ablation.json").read_text())
    assert results["base"] == ablation.BASE
    assert set(results["variants"]) <= set(ablation.VARIANTS)
    tables = (ROOT / ablation.TABLES).read_text()
    assert ablation.show(results["variants"]) in tables
    kept = [runner.load(path) for path in (ROOT / ablation.FOLDER).glob("*.npz")]
    assert len(kept) == len(results["variants"])
    assert {part.probabilities.shape for part in kept} == {(11_484, 7)}
    listed = sorted(line["training_accuracy"] for line in results["variants"].values())
    assert sorted(round(float(part.accuracy), 4) for part in kept) == listed


@pytest.mark.parametrize("name", joining.WAYS)
def test_a_method_sees_no_label_of_the_fold_it_is_evaluated_on(name):
    labels, fold_of = np.arange(120) % 7, np.arange(120) % 2
    drawn = np.random.default_rng(0).dirichlet(np.ones(7), (2, 120))
    every = 0.7 * drawn + 0.3 * np.eye(7)[labels]
    joined = joining.nested(joining.WAYS[name], every, labels, fold_of)
    changed = np.where(fold_of == 0, (labels + 1) % 7, labels)
    scrambled = joining.nested(joining.WAYS[name], every, changed, fold_of)
    np.testing.assert_array_equal(joined[fold_of == 0], scrambled[fold_of == 0])
    assert (joined.argmax(axis=1) == labels).mean() > 0.6
