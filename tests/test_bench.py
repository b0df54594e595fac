"""The benchmark compares like with like, and what is committed of it is what README shows."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bench import __main__ as bench
from bench import ablation, precision, reading
from pipeline import architectures, params, recipe
from pipeline.evaluation import report

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
    assert report.multiply_adds(report.at_full_size(architectures.build(name))) == MULTIPLY_ADDS[name]


@pytest.mark.parametrize("name", bench.NETWORKS)
def test_pytorchs_networks_have_the_layers_of_ours(name: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: it is needed by the benchmark alone")
    from bench import pytorch

    theirs = sum(weights.numel() for weights in getattr(pytorch, name)().parameters())
    assert theirs == sum(int(np.prod(weights.shape)) for weights in architectures.build(name).trainable_weights)


@pytest.mark.parametrize("way", reading.WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_way_of_reading_gives_the_same_pixels_and_labels(way: str, tmp_path: Path) -> None:
    pytest.importorskip({"ours": "numpy", "pandas_fromstring": "pandas"}.get(way, way))
    path = tmp_path / "raw/fer2013.csv"
    path.parent.mkdir()
    reading.write(path, {"Training": 14, "PublicTest": 7, "PrivateTest": 7})
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    (tmp_path / "out").mkdir()
    reading.WAYS[way](path, tmp_path / "out")
    with np.load(tmp_path / "out/faces.npz") as found:
        pixels = [[int(level) for level in pixels.split()] for _, pixels, _ in lines]
        np.testing.assert_array_equal(found["pixels"].reshape(28, -1), pixels)
        np.testing.assert_array_equal(found["labels"][:14], [int(label) for label, _, _ in lines[:14]])


def test_the_committed_measurement_is_whole_and_readme_shows_its_rows() -> None:
    found = json.loads((ROOT / "results/bench.json").read_text())
    assert set(found["race"]["networks"]) == set(bench.NETWORKS)
    rounds = found["machine"]["rounds"]
    assert rounds >= 5
    for network in found["race"]["networks"].values():
        assert {"ours", "ours_x2", "reference", "pytorch_float32"} <= set(network["contenders"])
        assert all(len(entry["train_rounds"]) == rounds for entry in network["contenders"].values())
    assert set(found["reading"]["ways"]) == set(reading.WAYS)
    assert found["precision"]["rows"] == 28_709
    readme = (ROOT / "bench/README.md").read_text()
    table = [line for line in bench.show(found).splitlines() if line.startswith(("| alizadeh", "| vgg8", "| mini"))]
    assert len(table) >= 9
    for line in table:
        assert line in readme


def test_precisions_are_compared_row_by_row() -> None:
    labels = np.arange(700) % 7
    right, wrong = np.eye(7, dtype="float32")[labels], np.eye(7, dtype="float32")[(labels + 1) % 7]
    one, other = (np.where((np.arange(700) < count)[:, None], right, wrong) * 0.9 + 0.1 / 7 for count in (350, 364))
    found = precision.compare({"float32": one, "bfloat16": other}, labels)
    assert (found["float32"]["oof_accuracy"], found["bfloat16"]["oof_accuracy"]) == (0.5, 0.52)
    assert found["points"] == 2.0
    reach = 196 * math.sqrt((0.02 - 0.02**2) / 700)
    np.testing.assert_allclose(found["points_95"], [2 - reach, 2 + reach], atol=1e-3)
    assert found["p_value"] == pytest.approx(2 * 0.5**14, rel=0.01)  # all of 14 for one side
    same = precision.compare({"float32": one, "bfloat16": one}, labels)
    assert (same["points"], same["points_95"], same["p_value"]) == (0, [0, 0], 1)


def test_halves_keep_folds_whole() -> None:
    fold_of = np.array([0, 1, 2, 3, 4, 0, 4, 2])
    assert precision.halves(fold_of).tolist() == [0, 0, 1, 1, 1, 0, 1, 1]
    assert precision.halves(np.array([1, 0])).tolist() == [1, 0]


# ablation


def test_every_variant_is_a_recipe_of_a_network_that_there_is() -> None:
    for name, change in ablation.VARIANTS.items():
        own = ablation.BASE | change
        assert own.pop("network") in architectures.names()
        assert own.pop("seed") >= 0
        params.parse(name, recipe.Recipe, own)
        assert change or name == ablation.NAME
        assert all(ablation.BASE[key] != value for key, value in change.items()), name  # it changes something


def test_variants_are_compared_on_the_rows_that_both_judged() -> None:
    labels, half_of = np.arange(140) % 7, np.arange(140) // 70
    right = np.eye(7)[labels] * 0.9 + 0.1 / 7
    wrong = np.roll(right, 1, axis=1)

    def part(half: int, correct: int) -> dict[str, np.ndarray]:
        said = np.where((np.arange(140) % 70 < correct)[:, None], right, wrong)[half_of == half]
        return {"said": said.astype("float16"), "accuracy": np.array(0.5), "seconds": np.array(60.0)}

    found = {ablation.NAME: {0: part(0, 35), 1: part(1, 35)}, "better": {0: part(0, 49), 1: part(1, 35)},
             "half": {0: part(0, 28)}}  # fmt: skip
    table = ablation.summary(found, labels, half_of)
    assert [line["rows"] for line in table.values()] == [140, 140, 70]
    assert [line["oof_accuracy"] for line in table.values()] == [0.5, 0.6, 0.4]
    assert (table["better"]["points"], table["half"]["points"]) == (10, -10)
    assert table["better"]["points_95"][0] > 0
    assert table["better"]["minutes"] == 2
    lines = ablation.show(table).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["better", ablation.NAME, "half"]


def test_a_variant_is_joined_with_the_base_by_the_mean_of_their_answers() -> None:
    labels, half_of = np.zeros(100, dtype=int), np.arange(100) // 60
    sure, unsure, wrong = np.eye(7)[0] * 0.9 + 0.1 / 7, np.eye(7)[0] * 0.2 + 0.8 / 7, np.eye(7)[1] * 0.5 + 0.5 / 7
    part = {"said": np.stack([sure] * 30 + [wrong] * 30), "accuracy": np.array(0.5), "seconds": np.array(60.0)}
    other = part | {"said": np.stack([wrong] * 30 + [unsure] * 15 + [sure] * 15)}
    table = ablation.summary({ablation.NAME: {0: part}, "another": {0: other}}, labels, half_of)
    assert [found for found, line in table.items() if "joined" in line] == ["another"]
    assert (table["another"]["points"], table["another"]["joined"]["points"]) == (
        0,
        25,
    )  # sure beats wrong beats unsure
    assert "+25.00" in ablation.show(table)


def test_the_committed_ablation_is_the_table_in_the_readme() -> None:
    found = json.loads((ROOT / "results/ablation.json").read_text())
    assert found["base"] == ablation.BASE
    assert set(found["variants"]) <= set(ablation.VARIANTS)
    for line in ablation.show(found["variants"]).splitlines():
        assert line in (ROOT / "bench/README.md").read_text()
