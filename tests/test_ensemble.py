import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from pipeline import params
from pipeline.data import folds
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics
from pipeline.evaluation.ensemble import (
    Bag,
    Joint,
    ambiguity,
    fit_bagged,
    fit_weights,
    geometric_mean,
    join_folds,
    join_members,
    weighted_mean,
)
from pipeline.training import cells

ALL = np.ones(50, dtype=bool)  # of the test rows
METHODS = pytest.mark.parametrize("method", ["mean", "geometric", "weights", "bagged"])


def simulated(weights, rows=6000, seed=0):
    """Members' probabilities [members, rows, 7], and labels drawn from their mixture by `weights`."""
    chance = np.random.default_rng(seed)
    members = chance.dirichlet(np.full(7, 0.4), (len(weights), rows)).astype("float32")
    mixture = np.einsum("m,mnc->nc", weights, members)
    labels = (mixture.cumsum(axis=1) < chance.random((rows, 1)) * mixture.sum(axis=1, keepdims=True)).sum(axis=1)
    return members, labels


def skilled(rows=400, seed=0):
    """Three members that are right more often than not, each with errors of its own, and the labels."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 7, rows)
    scores = chance.normal(0, 1, (3, rows, 7)) + chance.uniform(1, 3, (3, 1, 1)) * np.eye(7)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    return probabilities.astype("float32"), labels


def folds_of(answers, count=4, noise=0.6, seed=0):
    """What `count` folds' networks say of rows, float32 [members, count, rows, 7]: `answers`, each with noise."""
    chance = np.random.default_rng(seed)
    logits = np.log(answers[:, None].clip(1e-6)) + chance.normal(0, noise, (len(answers), count, *answers.shape[1:]))
    return (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).astype("float32")


def log_loss(probabilities, labels):
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels].astype("float64"), 1e-12)).mean()


def fold_parts(rows, count=3, test_rows=4, seed=0):
    """Folds that cover `rows`, shuffled, and what they say of each row."""
    chance = np.random.default_rng(seed)
    said = dict(zip(rows.tolist(), chance.dirichlet(np.ones(7), len(rows)).astype("float32"), strict=True))
    tests = chance.dirichlet(np.ones(7), (count, test_rows)).astype("float32")
    shuffled = np.array_split(chance.permutation(rows), count)
    return [(own.astype("int32"), np.stack([said[row] for row in own.tolist()]), tests[i])
            for i, own in enumerate(shuffled)], said  # fmt: skip


@pytest.mark.parametrize("rows", [np.arange(20), np.arange(5, 65, 3)], ids=["in a block", "with gaps"])
def test_folds_are_joined_in_the_order_of_the_rows(rows):
    parts, said = fold_parts(rows)
    bag = join_folds(parts, rows, "vgg8")
    np.testing.assert_array_equal(bag.oof, [said[row] for row in rows.tolist()])
    np.testing.assert_allclose(bag.test, sum(part[2].astype("float64") for part in parts) / 3, rtol=1e-6)
    assert (bag.oof.dtype, bag.test.dtype) == (np.float32, np.float32)
    again = join_folds(parts[::-1], rows, "vgg8")
    np.testing.assert_array_equal(again.oof, bag.oof)


def changed(parts, fold, item, change):
    return [
        tuple(change(array) if (i, j) == (fold, item) else array for j, array in enumerate(part))
        for i, part in enumerate(parts)
    ]


def without_last(parts):
    return [(parts[0][0][:-1], parts[0][1][:-1], parts[0][2]), *parts[1:]]


ROWS = np.arange(10, 30)
PARTS, _ = fold_parts(ROWS)
BROKEN_FOLDS = {
    "a row twice": ([PARTS[0], *PARTS], "row 1[0-9]|row 2[0-9]"),
    "a row in two folds": (changed(PARTS, 1, 0, lambda rows: np.append(rows[1:], PARTS[0][0][0])), "by two folds"),
    "a row missing": (without_last(PARTS), f"1 Training rows are in no fold or unknown, like {PARTS[0][0][-1]};"),
    "a fold missing": (PARTS[1:], "7 Training rows are in no fold or unknown"),
    "an unknown row": (changed(PARTS, 2, 0, lambda rows: np.append(rows[1:], 99)), "2 Training rows are in no fold"),
    "a sum of 0.99": (changed(PARTS, 0, 1, lambda array: array * 0.99), "do not sum to 1"),
    "a test sum of 1.01": (changed(PARTS, 0, 2, lambda array: array * 1.01), "do not sum to 1"),
    "no number": (changed(PARTS, 0, 1, lambda array: array * np.nan), "do not sum to 1"),
    "no number for a test row": (changed(PARTS, 1, 2, lambda array: array * np.nan), "do not sum to 1"),
}


@pytest.mark.parametrize(("parts", "said"), BROKEN_FOLDS.values(), ids=BROKEN_FOLDS)
def test_folds_that_do_not_cover_every_row_once_with_probabilities_are_refused(parts, said):
    with pytest.raises(UserError, match=f"^vgg8: .*({said})") as refusal:
        join_folds(parts, ROWS, "vgg8")
    assert "dvc repro" in str(refusal.value)


@pytest.mark.parametrize("weights", [(0.6, 0.3, 0.1), (0.25, 0.25, 0.5), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.2, 0.8)])
def test_the_weights_of_a_known_mixture_are_found_again(weights):
    found = fit_weights(*simulated(weights))
    np.testing.assert_allclose(found, weights, atol=0.05)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "make", [skilled, lambda seed: simulated((0.7, 0.3, 0.0), 400, seed)], ids=["skilled", "drawn"]
)
def test_weights_are_the_best_of_all_as_scipy_finds_them(make, seed):
    oof, labels = make(seed=seed)
    found = fit_weights(oof, labels)
    assert found.dtype == np.float64
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-12)
    loss = log_loss(weighted_mean(oof, found), labels)
    for other in (*np.eye(3), np.full(3, 1 / 3)):
        assert loss <= log_loss(weighted_mean(oof, other), labels) + 1e-6
    own = oof[:, np.arange(len(labels)), labels].astype("float64")
    best = minimize(
        lambda weights: -np.log(weights @ own).mean(), np.full(3, 1 / 3), method="SLSQP", bounds=[(0, 1)] * 3,
        jac=lambda weights: -(own / (weights @ own)).mean(axis=1), options={"ftol": 1e-12},
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda weights: np.ones(3)},
    )  # fmt: skip
    assert best.success
    np.testing.assert_allclose(found, best.x, atol=2e-3)
    assert loss == pytest.approx(best.fun, abs=1e-6)


def test_weights_do_not_mind_certain_errors_nor_equal_members_nor_a_single_one():
    certain = np.eye(7)[None, [0, 1, 2]].repeat(2, axis=0)
    assert fit_weights(certain, np.array([1, 2, 3])).tolist() == [0.5, 0.5]  # every member gives every label 0
    oof, labels = skilled()
    assert fit_weights(oof[:1], labels).tolist() == [1.0]
    np.testing.assert_allclose(fit_weights(oof[[0, 0]], labels), 0.5)


def seven(*first):
    """Seven probabilities of which the first ones are given; the rest share what is left."""
    return [*first, *[(1 - sum(first)) / (7 - len(first))] * (7 - len(first))]


def test_a_weighted_mean_is_the_one_worked_out_by_hand():
    members = np.array([[seven(0.4, 0.6)], [seven(0.8, 0.1)]])
    found = weighted_mean(members, np.array([0.25, 0.75]))
    np.testing.assert_allclose(found, [[0.7, 0.225, *[0.015] * 5]], rtol=1e-6)
    assert found.dtype == np.float32


def test_a_geometric_mean_is_the_one_worked_out_by_hand():
    members = np.array([[[0.5, 0.3, 0.04, 0.04, 0.04, 0.04, 0.04]], [[0.02, 0.3, 0.04, 0.16, 0.16, 0.16, 0.16]]])
    roots = np.array([0.1, 0.3, 0.04, 0.08, 0.08, 0.08, 0.08])  # of the products
    found = geometric_mean(members)
    np.testing.assert_allclose(found, [roots / 0.76], rtol=1e-6)
    assert found.dtype == np.float32


@METHODS
def test_identical_members_give_the_member(method):
    oof, labels = skilled()
    fold = np.arange(400) % 3
    tests = folds_of(oof[:, :50])[[1, 1, 1]]
    bag = join_members(method, oof[[1, 1, 1]], tests, ALL, labels, fold).bag
    np.testing.assert_allclose(bag.oof, ensemble.tempered(oof[1], labels, fold), atol=1e-6)
    at = metrics.fit_temperature(oof[1], labels)
    np.testing.assert_allclose(bag.test, metrics.temper(tests[1].mean(axis=0), at), atol=1e-6)


@METHODS
def test_how_sure_a_member_is_does_not_matter(method):
    oof, labels = skilled()
    softer = np.stack([oof[0], metrics.temper(oof[1], 3.0), metrics.temper(oof[2], 0.5)])
    fold = np.arange(400) % 3
    one, same = folds_of(oof[:, :50]), folds_of(oof[:, :50])
    same[1], same[2] = metrics.temper(one[1], 3.0), metrics.temper(one[2], 0.5)
    joint, other = (join_members(method, *each, ALL, labels, fold) for each in ((oof, one), (softer, same)))
    np.testing.assert_allclose(other.bag.oof, joint.bag.oof, atol=2e-3)
    assert other.ambiguity == pytest.approx(joint.ambiguity, abs=1e-3)


@METHODS
def test_the_order_of_the_members_does_not_matter(method):
    oof, labels = skilled()
    fold = np.arange(400) % 3
    tests = folds_of(oof[:, :50])
    joint = join_members(method, oof, tests, ALL, labels, fold)
    again = join_members(method, oof[[2, 0, 1]], tests[[2, 0, 1]], ALL, labels, fold)
    np.testing.assert_allclose(again.bag.oof, joint.bag.oof, atol=1e-5)
    np.testing.assert_allclose(again.bag.test, joint.bag.test, atol=1e-5)
    assert again.ambiguity == pytest.approx(joint.ambiguity, abs=1e-5)
    assert (joint.weights is None) == (method == "geometric") == (again.weights is None)
    if joint.weights is not None:
        np.testing.assert_allclose(again.weights, joint.weights[[2, 0, 1]], atol=1e-4)


@METHODS
@pytest.mark.parametrize("seed", range(3))
def test_an_ensemble_is_no_worse_than_its_worst_member(method, seed):
    oof, labels = skilled(seed=seed)
    joint = join_members(method, oof, folds_of(oof), np.arange(400) < 300, labels, np.arange(400) % 4)
    bag, weights = joint.bag, joint.weights
    assert log_loss(bag.oof, labels) <= max(log_loss(member, labels) for member in oof)
    np.testing.assert_allclose(bag.oof.sum(axis=1), 1, atol=1e-5)
    assert (bag.oof.dtype, bag.test.dtype) == (np.float32, np.float32)
    if weights is not None:
        assert weights.sum() == pytest.approx(1)
        at = [metrics.fit_temperature(member, labels) for member in oof]
        even = ensemble.at_temperatures(folds_of(oof).mean(axis=1), at)
        np.testing.assert_allclose(bag.test, weighted_mean(even, weights))
        apart = ambiguity(ensemble.at_temperatures(folds_of(oof)[:, :, :300], at))
        assert joint.ambiguity == pytest.approx(weights @ apart @ weights, rel=1e-4)


@pytest.mark.parametrize("method", ["weights", "bagged"])
@pytest.mark.parametrize("number", [0, 2])
def test_the_labels_of_a_fold_cannot_change_its_own_out_of_fold_predictions(number, method):
    oof, labels = skilled()
    fold = np.random.default_rng(1).integers(0, 3, 400)
    own = fold == number
    tests = folds_of(oof[:, :50])
    joint = join_members(method, oof, tests, ALL, labels, fold)
    scrambled = np.where(own, (labels + 1) % 7, labels)
    changed_joint = join_members(method, oof, tests, ALL, scrambled, fold)
    bag, other = joint.bag, changed_joint.bag
    assert bag.oof[own].tobytes() == other.oof[own].tobytes()
    assert not np.allclose(bag.oof[~own], other.oof[~own]), "they do change those of the others"
    assert not np.allclose(joint.weights, changed_joint.weights)
    at = [metrics.fit_temperature(member[~own], labels[~own]) for member in oof]
    even = ensemble.at_temperatures(oof, at)
    known = even[:, ~own], labels[~own]
    fitted = (
        fit_weights(*known)
        if method == "weights"
        else fit_bagged(*known, ambiguity(ensemble.at_temperatures(tests, at)))
    )
    expected = weighted_mean(even[:, own], fitted)
    np.testing.assert_array_equal(bag.oof[own], expected)


def test_judgement_is_accuracy_log_loss_and_brier_score():
    oof = np.array([seven(0.4, 0.3), seven(0.2, 0.6), seven(0.5)])
    found = Joint(Bag(oof, oof), None, 0.05).judge(np.array([0, 1, 1]))
    squares = [
        0.6**2 + 0.3**2 + 5 * 0.06**2,
        0.2**2 + 0.4**2 + 5 * 0.04**2,
        0.5**2 + (5.5 / 6) ** 2 + 5 * (0.5 / 6) ** 2,
    ]
    assert found == {
        "oof_accuracy": 0.666667,
        "oof_log_loss": pytest.approx(-np.log(0.4 * 0.6 * (0.5 / 6)) / 3, abs=1e-5),
        "oof_brier": pytest.approx(sum(squares) / 3, abs=1e-6),
        "expected_brier": pytest.approx(sum(squares) / 3 - 0.05, abs=1e-6),
    }


def test_ambiguity_is_the_one_worked_out_by_hand():
    # Two members, two folds, one row: the first member's folds differ by 0.2 in two classes, the other's by 0.4.
    one = [seven(0.5, 0.2), seven(0.3, 0.4)]
    other = [seven(0.5, 0.1), seven(0.1, 0.5)]
    found = ambiguity(np.array([one, other])[:, :, None])
    np.testing.assert_allclose(found, [[2 * 0.1**2, 2 * 0.1 * 0.2], [2 * 0.1 * 0.2, 2 * 0.2**2]], atol=1e-12)


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.2, 0.3, 0.5)])
def test_a_mean_of_folds_has_the_folds_squared_error_less_the_ambiguity(weights):
    answers, labels = skilled()
    tests = folds_of(answers).astype("float64")
    mixed = np.einsum("m,mfkc->fkc", weights, tests)
    single = np.mean([metrics.brier(fold, labels) for fold in mixed])
    less = np.array(weights) @ ambiguity(tests) @ np.array(weights)
    assert less > 0.01
    assert metrics.brier(mixed.mean(axis=0), labels) == pytest.approx(single - less, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_bagged_weights_are_the_best_of_all_on_means_of_folds(seed):
    answers, labels = skilled(seed=seed)
    tests = folds_of(answers, seed=seed).astype("float64")
    found = fit_bagged(tests.reshape(3, -1, 7), np.tile(labels, 4), ambiguity(tests))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-12)

    def brier(weights):
        return metrics.brier(np.einsum("m,mkc->kc", weights, tests.mean(axis=1)), labels)

    grid = [np.array([a, b, 20 - a - b]) / 20 for a in range(21) for b in range(21 - a)]
    assert brier(found) <= min(brier(each) for each in grid) + 1e-9


def test_bagged_weights_leave_to_the_folds_what_folds_can_do():
    """What another member takes off one network's chance errors, the other folds' networks take off as well."""
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 7, 3000)

    def said(skill):
        scores = skill * np.eye(7)[labels] + chance.normal(0, 1.5, (3000, 7))
        return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)

    oof = np.stack([said(2.0), said(1.5)])
    tests = np.stack([[said(skill) for _ in range(5)] for skill in (2.0, 1.5)])
    apart = fit_bagged(oof, labels, ambiguity(tests))
    alone = fit_bagged(oof, labels, np.zeros((2, 2)))
    assert alone[1] > 0.2
    assert apart[1] < alone[1] - 0.1


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder in which two networks were trained in two folds: the ensemble's members, and their labels."""
    monkeypatch.chdir(tmp_path)
    settings()
    usage = np.repeat([0, 1, 2], (40, 6, 6)).astype("uint8")
    labels = np.where(usage == 0, np.arange(52) % 7, -1).astype("int8")
    pixels = np.zeros((52, 48, 48), "uint8")
    pixels[:, 0, 0] = np.arange(52)
    pixels[43] = pixels[7]  # the fourth test row stands in Training too
    Faces(pixels, labels, usage).save()
    fold = np.arange(40) // 2 % 2
    pd.DataFrame({"row": range(40), "fold": fold}).to_csv(folds.PATH, index=False)
    for seed, name in enumerate(("mini_xception", "vgg8")):
        chance = np.random.default_rng(seed)
        for number in (0, 1):
            path = cells.path("predictions", name, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = np.flatnonzero(fold == number).astype("int32")
            validation, test = (chance.dirichlet(np.ones(7), n).astype("float32") for n in (len(rows), 12))
            plain = {"validation_plain": validation[:, ::-1], "test_plain": test[:, ::-1]}
            np.savez(path, rows=rows, validation=validation, test=test, **plain)
    return tmp_path


def settings(method="weights", members="[mini_xception, vgg8]"):
    params.PATH.write_text(
        "seed: 1\nbackend: auto\nduplicates: keep\n"
        "data: {}\nfolds: [0, 1]\ntrain: {}\narchitectures: {mini_xception: {}, vgg8: {}}\nstudents: {}\n"
        f"ensemble: {{method: {method}, members: {members}}}\nspeedrun: {{}}\n"
    )
    params.document.cache_clear()


@METHODS
def test_main_writes_a_bag_for_every_network_and_the_ensemble_and_the_same_bytes_again(project, method):
    settings(method)
    ensemble.main()
    written = {path: path.read_bytes() for folder in ("artifacts/bags", "results") for path in Path(folder).iterdir()}
    assert {path.name for path in written} == {"mini_xception.npz", "vgg8.npz", "ensemble.npz", "ensemble.json"}
    bags = {name: ensemble.load(name) for name in ("mini_xception", "vgg8", "ensemble")}
    for bag in bags.values():
        assert (bag.oof.shape, bag.test.shape) == ((40, 7), (12, 7))
        assert (bag.oof.dtype, bag.test.dtype) == (np.float32, np.float32)
    labels, fold = np.arange(40) % 7, np.arange(40) // 2 % 2
    oof = np.stack([bags[name].oof for name in ("mini_xception", "vgg8")])
    tests = np.stack([[ensemble.read_cell(name, number)[2] for number in (0, 1)] for name in ("mini_xception", "vgg8")])
    expected = join_members(method, oof, tests, np.arange(12) != 3, labels, fold)
    np.testing.assert_array_equal(bags["ensemble"].oof, expected.bag.oof)
    np.testing.assert_array_equal(bags["ensemble"].test, expected.bag.test)
    result = json.loads(ensemble.RESULT.read_text())
    assert result["method"] == method
    assert list(result["weights"]) == list(result["members"]) == ["mini_xception", "vgg8"]
    assert set(result["weights"].values()) == {None} or sum(result["weights"].values()) == pytest.approx(1, abs=2e-4)
    assert result["methods"][method] == expected.judge(labels)
    assert set(result["methods"]) == {"mean", "geometric", "weights", "bagged"}
    assert result["members"]["vgg8"]["expected_brier"] < result["members"]["vgg8"]["oof_brier"]
    ensemble.main()
    assert {path: path.read_bytes() for path in written} == written


def test_a_network_that_is_no_member_gets_a_bag_and_no_say(project):
    settings(members="[vgg8]")
    ensemble.main()
    for part in ("oof", "test"):
        found = [getattr(ensemble.load(name), part).argmax(axis=1) for name in ("ensemble", "vgg8", "mini_xception")]
        np.testing.assert_array_equal(found[0], found[1])
        assert not np.array_equal(found[0], found[2])
    assert json.loads(ensemble.RESULT.read_text())["weights"] == {"vgg8": 1.0}


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"hello"),
    "bytes changed": lambda path: path.write_bytes(path.read_bytes()[:200] + b"\0\x11" + path.read_bytes()[202:]),
    "one array": lambda path: np.save(open(path, "wb"), np.arange(3)),  # noqa: SIM115
    "other arrays": lambda path: np.savez(path, rows=np.arange(3)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_cell_that_is_missing_or_damaged_is_refused_with_its_command(project, damage):
    damage(cells.path("predictions", "vgg8", 1))
    said = r"artifacts/predictions/vgg8/fold1\.npz is missing or damaged; make it with: dvc repro -f train@vgg8-1$"
    with pytest.raises(UserError, match=said):
        ensemble.main()
    assert not ensemble.BAGS.exists()
    assert not ensemble.RESULT.exists()


@pytest.mark.parametrize("damage", [DAMAGE["missing"], DAMAGE["cut off"]], ids=["missing", "cut off"])
def test_a_bag_that_is_missing_or_damaged_is_refused(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    bag = Bag(np.ones((3, 7), "float32"), np.ones((2, 7), "float32"))
    bag.save(ensemble.BAGS / "vgg8.npz")
    np.testing.assert_array_equal(ensemble.load("vgg8").oof, bag.oof)
    damage(ensemble.BAGS / "vgg8.npz")
    with pytest.raises(UserError, match=r"artifacts/bags/vgg8\.npz is missing or damaged; make it with: dvc repro"):
        ensemble.load("vgg8")


@pytest.mark.parametrize(
    ("method", "members", "said"),
    [
        ("mean", "[vgg9]", "names 'vgg9', which is never trained; architectures has mini_xception, vgg8"),
        ("mean", "[vgg8, mini_xception, vgg8]", "names an architecture twice"),
        ("mean", "[]", r"ensemble\.members = \[\]: .*at least 1"),
        ("mean", "vgg8", r"ensemble\.members = 'vgg8': "),
        ("median", "[vgg8]", r"ensemble\.method = 'median': .*'mean', 'geometric', 'weights' or 'bagged'"),
        ("mean", "[vgg8], power: 2", r"unknown key ensemble\.power; the known ones are method, members"),
    ],
)
def test_a_wrong_section_is_refused_by_name(project, method, members, said):
    settings(method, members)
    with pytest.raises(UserError, match=rf"^params\.yaml: .*{said}"):
        ensemble.main()


def test_what_is_said_of_a_network_is_worked_out_by_hand():
    oof = np.stack([seven(0.6, 0.1), seven(0.6, 0.1), seven(0.1, 0.6), seven(0.1, 0.6)])
    plain = oof[[0, 2, 2, 3]]  # the second row is wrong without test-time augmentation
    labels, fold = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])
    found = ensemble.describe(Bag(oof, oof), Bag(plain, plain), labels, fold)
    assert found["folds"] == [1.0, 0.5]
    assert found["test_time_augmentation"] == {"accuracy_without": 0.5, "accuracy_with": 0.75, "p_value": 1.0}
    assert found["calibration"]["log_loss"] == pytest.approx(-(3 * np.log(0.6) + np.log(0.1)) / 4, abs=1e-5)
    # With three of four right, the best temperature makes a confidence of 0.75 of 0.6, but for the five other classes.
    assert 0.3 < found["temperature"] < 2
    assert ensemble.describe(Bag(oof, oof), Bag(oof, oof), labels, fold)["test_time_augmentation"] is None


def test_leaving_a_member_out_and_agreement_are_worked_out_by_hand(project):
    settings("mean")
    ensemble.main()
    found = json.loads(ensemble.RESULT.read_text())
    alone = found["members"]
    assert found["without"] == {"mini_xception": alone["vgg8"], "vgg8": alone["mini_xception"]}
    guesses = [ensemble.load(name).oof.argmax(axis=1) for name in ("mini_xception", "vgg8")]
    same = round(float((guesses[0] == guesses[1]).mean()), 4)
    assert found["agreement"]["mini_xception"] == {"mini_xception": 1.0, "vgg8": same}
    settings("mean", members="[vgg8]")
    ensemble.main()
    assert json.loads(ensemble.RESULT.read_text())["without"] == {}
