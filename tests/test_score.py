import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import params
from pipeline.competition import BOARD_2013, TEAMS_2013
from pipeline.data import folds, provenance, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, figures, score, submission
from pipeline.evaluation.ensemble import Bag
from pipeline.kaggle import leaderboard
from pipeline.training import cells

COLUMNS = [
    "name", "parameters", "oof_accuracy", "oof_low", "oof_high", "oof_no_near_duplicate", "oof_no_near_duplicate_low",
    "oof_no_near_duplicate_high", "public_accuracy", "public_low", "public_high",
    "private_accuracy", "private_low", "private_high", "private_no_duplicate", "private_no_duplicate_low",
    "private_no_duplicate_high", "private_no_near_duplicate", "private_no_near_duplicate_low", "private_no_near_duplicate_high",
    "private_macro_f1", "private_top_2", "private_log_loss", "private_brier", "private_calibration_error",
    "private_log_loss_tempered", "private_brier_tempered", "private_calibration_error_tempered", "rank_2013",
    "train_seconds", "sha256", "data",
]  # fmt: skip
TRUTH_COLUMNS = COLUMNS[COLUMNS.index("public_accuracy") : COLUMNS.index("train_seconds")]
DATA = "data: {source: local, slug: faces, training_faces: 7, test_faces: 7}\n"
pytestmark = pytest.mark.filterwarnings("ignore:F-score is ill-defined")  # few rows do not have all classes


def sure(*guesses, chance=0.7):
    """Probabilities of which `guesses` have 0.7 and every other class 0.05."""
    return np.where(np.eye(7, dtype=bool)[list(guesses)], chance, (1 - chance) / 6).astype("float32")


def test_accuracy_is_the_part_of_right_rows_or_unknown():
    table = [([0, 1, 2], 1.0), ([0, 1, 3], 0.666667), ([6, 6, 6], 0.0), ([0, 1, -1], "unknown"), ([-1] * 3, "unknown")]
    for labels, expected in table:
        found = score.accuracy(sure(0, 1, 2), np.array(labels), "some")
        assert list(found) == ["some_accuracy", "some_low", "some_high"]
        assert found["some_accuracy"] == expected
        ends = (found["some_low"], found["some_high"])
        assert ends == ("unknown", "unknown") if expected == "unknown" else wilson(round(3 * expected), 3)
    assert set(score.accuracy(np.empty((0, 7)), np.empty(0, int), "some").values()) == {"unknown"}


def test_place_of_2013_is_the_better_one_of_a_tie_and_unknown_below_the_tenth():
    places = {3589: 1, 2554: 1, 2553: 2, 2486: 2, 2485: 3, 2233: 10, 2232: 10, 2231: ">10", 0: ">10"}
    assert {right: score.rank_2013(right, 3589) for right in places} == places
    assert {score.rank_2013(rows, rows) for rows in (0, 1, 3588, 3590, 7178)} == {"none"}


TRAIN_LABELS = np.array([0, 1, 2, 3])
LABELS = np.array([5, 4, 0, 0, 1, 2, 6])
USAGE = np.array([1, 1, 2, 2, 2, 2, 2])
# Four Training rows, then the test rows.
TWINS = pd.DataFrame({"identical": [0, 1, 0, 0, 1, 0, 2, 1, 0, 0, 0], "near": [0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3]})
BAG = Bag(sure(0, 1, 2, 6), sure(5, 3, 0, 1, 1, 2, 3))  # of PrivateTest, three of five are right


def wilson(right, rows):
    z, part = 1.959963984540054, right / rows
    middle = (part + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(part * (1 - part) / rows + z * z / (4 * rows * rows))
    return round(middle - half, 6), round(middle + half, 6)


def test_a_submission_is_judged_as_by_hand():
    tempered = 0.7**0.5 / (0.7**0.5 + 6 * 0.05**0.5), 0.05**0.5 / (0.7**0.5 + 6 * 0.05**0.5)  # at temperature 2
    assert score.judge(BAG, 2.0, TRAIN_LABELS, LABELS, USAGE, TWINS) == {
        "oof_accuracy": 0.75,
        **dict(zip(("oof_low", "oof_high"), wilson(3, 4), strict=True)),
        "oof_no_near_duplicate": 1.0,  # the first and the third
        **dict(zip(("oof_no_near_duplicate_low", "oof_no_near_duplicate_high"), wilson(2, 2), strict=True)),
        "public_accuracy": 0.5,
        **dict(zip(("public_low", "public_high"), wilson(1, 2), strict=True)),
        "private_accuracy": 0.6,
        **dict(zip(("private_low", "private_high"), wilson(3, 5), strict=True)),
        "private_no_duplicate": 0.666667,  # of the last three, 1 and 2 are right
        **dict(zip(("private_no_duplicate_low", "private_no_duplicate_high"), wilson(2, 3), strict=True)),
        "private_no_near_duplicate": 1.0,  # of the two before the last, both
        **dict(zip(("private_no_near_duplicate_low", "private_no_near_duplicate_high"), wilson(2, 2), strict=True)),
        "private_macro_f1": 0.333333,  # (2/3 + 2/3 + 1 + 4 * 0) / 7
        "private_top_2": 0.8,  # of equally likely classes the last, 6, is the second
        "private_log_loss": pytest.approx(-(3 * np.log(0.7) + 2 * np.log(0.05)) / 5, abs=1.1e-5),
        "private_brier": pytest.approx((3 * 0.3**2 + 2 * (0.7**2 + 0.95**2) + (18 + 10) * 0.05**2) / 5, abs=1.1e-5),
        "private_calibration_error": pytest.approx(0.1, abs=1.1e-5),  # 0.7 where 0.6 are right
        "private_log_loss_tempered": pytest.approx(
            -(3 * np.log(tempered[0]) + 2 * np.log(tempered[1])) / 5, abs=1.1e-5
        ),
        "private_brier_tempered": pytest.approx(
            (3 * (1 - tempered[0]) ** 2 + 2 * (tempered[0] ** 2 + (1 - tempered[1]) ** 2) + 28 * tempered[1] ** 2) / 5,
            abs=1.1e-5,
        ),
        "private_calibration_error_tempered": pytest.approx(0.6 - tempered[0], abs=1.1e-5),
        "rank_2013": "none",
    }
    assert wilson(3, 5) == (0.230724, 0.882379)  # the textbook's 3 of 5


def test_rows_without_an_out_of_fold_prediction_are_not_judged():
    oof = BAG.oof.copy()
    oof[3] = np.nan
    found = score.judge(Bag(oof, BAG.test), 1.0, TRAIN_LABELS, LABELS, USAGE, TWINS)
    assert (found["oof_accuracy"], found["oof_low"]) == (1.0, wilson(3, 3)[0])


@pytest.mark.parametrize(("right", "rows"), [(0, 3589), (3589, 3589), (2554, 3589), (1, 10)])
def test_the_interval_is_wilsons(right, rows):
    labels = np.zeros(rows, int)
    bag = Bag(sure(0), sure(*[0] * right, *[1] * (rows - right)))
    none = pd.DataFrame(0, index=range(1 + rows), columns=["identical", "near"])
    found = score.judge(bag, 1.0, np.array([0]), labels, np.full(rows, 2), none)
    assert (found["private_low"], found["private_high"]) == pytest.approx(wilson(right, rows), abs=1e-5)
    assert found["private_low"] <= found["private_accuracy"] <= found["private_high"]


def test_where_every_row_has_a_duplicate_the_score_without_duplicates_is_unknown():
    found = score.judge(BAG, 1.0, TRAIN_LABELS, LABELS, USAGE, TWINS.assign(identical=1))
    assert found["private_no_duplicate"] == found["private_no_near_duplicate_high"] == "unknown"
    assert found["private_accuracy"] == 0.6


@pytest.mark.parametrize("known", [USAGE == 0, USAGE == 1, np.arange(7) != 6], ids=["none", "public", "all but one"])
def test_without_labels_everything_that_needs_them_is_unknown(known):
    found = score.judge(BAG, 1.0, TRAIN_LABELS, np.where(known, LABELS, -1), USAGE, TWINS)
    expected = dict.fromkeys(COLUMNS[2:8] + TRUTH_COLUMNS, "unknown")
    expected |= score.accuracy(BAG.oof, TRAIN_LABELS, "oof")
    duplicateless = score.accuracy(BAG.oof[[0, 2]], TRAIN_LABELS[[0, 2]], "oof_no_near_duplicate")
    expected |= {name.replace("duplicate_accuracy", "duplicate"): value for name, value in duplicateless.items()}
    if known[:2].all():
        expected |= score.accuracy(BAG.test[:2], LABELS[:2], "public")
    assert found == expected


def test_judging_probabilities_warns_of_nothing():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 700).astype("float32")
    labels = np.arange(700) % 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = pd.DataFrame(0, index=range(1400), columns=["identical", "near"])
        score.judge(Bag(probabilities, probabilities), 1.3, labels, labels, np.repeat([1, 2], 350), none)


def test_differences_are_tested_row_by_row():
    bags = {"one": BAG, "same": BAG, "none right": Bag(sure(1, 0, 0, 0), sure(0, 0, 1, 2, 0, 0, 0))}
    fold = np.array([0, 1, 0, 1])
    found = score.analysis(bags, dict.fromkeys(bags, 1.0), TRAIN_LABELS, fold, LABELS, USAGE == 2)
    assert set(found) == {"out of fold", "PrivateTest"}
    # Of the rows that only one has right, three are out of fold and three on PrivateTest, all of them the first's.
    for rows in found.values():
        assert rows["paired"]["one"] == {"same": 1.0, "none right": 0.25}
        assert rows["paired"]["none right"]["same"] == rows["paired"]["same"]["none right"] == 0.25
    assert found["PrivateTest"]["by_class"]["one"]["angry"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": 0.666667,
        "rows": 2,
    }
    bins = found["PrivateTest"]["reliability"]["one"]["as_it_is"]
    assert (bins["rows"][10], bins["confidence"][10], bins["accuracy"][10]) == (5, 0.7, 0.6)
    without = score.analysis(bags, dict.fromkeys(bags, 1.0), TRAIN_LABELS, fold, np.full(7, -1), USAGE == 2)
    assert set(without) == {"out of fold"}


def test_a_solution_gives_the_test_rows_their_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    solution.PATH.parent.mkdir()
    table = solution.table(np.array([3, 4, 5]), np.array([1, 1, 2]), np.array([4, -1, 0]))
    table.to_csv(solution.PATH, index=False)
    assert solution.PATH.read_text() == "row,usage,emotion\n3,PublicTest,4\n4,PublicTest,\n5,PrivateTest,0\n"
    given = np.array([3, 6, 1, -1, -1, -1], dtype="int8")
    for hidden in (table, solution.load()):
        found = solution.join(given, hidden)
        assert found.tolist() == [3, 6, 1, 4, -1, 0]
        assert found.dtype == np.int64
    assert given.tolist() == [3, 6, 1, -1, -1, -1], "what was given stays"


@pytest.mark.parametrize(
    "content", ["", "row,usage,emotion\n1,PublicTest,happy\n", "row,usage,emotion\n,PublicTest,1\n"]
)
def test_what_is_no_solution_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^data/solution\.csv is missing; make it with: dvc repro prepare"):
        solution.load()
    solution.PATH.parent.mkdir()
    solution.PATH.write_text(content)
    with pytest.raises(UserError, match=r"^data/solution\.csv is not a table of row,usage,emotion"):
        solution.load()


def small_competition():
    """28 Training rows and 7 of each test split; the first test picture of each has a duplicate in Training."""
    chance = np.random.default_rng(0)
    usage = np.repeat([0, 1, 2], (28, 7, 7)).astype("uint8")
    pixels = chance.integers(0, 256, (42, 48, 48)).astype("uint8")
    pixels[[28, 35]] = pixels[[3, 4]]
    labels = np.arange(42) % 7
    data = Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage)
    return data, solution.table(np.arange(28, 42), usage[28:], labels[28:])


def duplicates():
    """What audit says of its rows."""
    return pd.DataFrame({"row": range(42), "identical": [*[0] * 28, *[1, *[0] * 6] * 2], "near": 0})


def some_bag(seed):
    chance = np.random.default_rng(seed)
    return Bag(*(chance.dirichlet(np.ones(7), rows).astype("float32") for rows in (28, 14)))


def test_the_scoreboard_has_its_columns_in_order_and_a_submission_for_every_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, hidden = small_competition()
    bags = {"vgg8": some_bag(1), "ensemble": some_bag(2)}
    efforts = {"vgg8": (123, 45.6), "ensemble": (1234, 99.4)}
    labels = solution.join(data.labels, hidden)[28:]
    table = score.scoreboard(data, labels, bags, {"vgg8": 1.0, "ensemble": 2.0}, efforts, duplicates(), "drawn")
    assert list(table.columns) == COLUMNS
    assert table["name"].tolist() == list(bags)
    assert table["parameters"].tolist() == [123, 1234]
    assert table["train_seconds"].tolist() == [46, 99]
    assert set(table["data"]) == {"drawn"}
    assert {path.name for path in submission.FOLDER.iterdir()} == {"vgg8.csv", "ensemble.csv"}
    for (name, bag), digest in zip(bags.items(), table["sha256"], strict=True):
        guesses = submission.read(submission.FOLDER / f"{name}.csv", 14)
        np.testing.assert_array_equal(guesses, bag.test.argmax(axis=1))
        assert digest == submission.sha256(submission.FOLDER / f"{name}.csv")
        right = guesses[7:] == np.arange(7)
        line = table.set_index("name").loc[name]
        assert line["private_accuracy"] == round(right.mean(), 6)
        assert line["private_no_duplicate"] == round(right[1:].mean(), 6)
        assert line["public_accuracy"] == round((guesses[:7] == np.arange(7)).mean(), 6)


@pytest.fixture(params=[True, False], ids=["known", "unknown"])
def project(request, tmp_path, monkeypatch):
    """A folder with two networks' bags, histories and timings, whose test labels are known or not."""
    monkeypatch.chdir(tmp_path)
    params.PATH.write_text(
        f"seed: 1\nbackend: auto\nduplicates: keep\n{DATA}folds: [0, 1]\ntrain: {{}}\n"
        "architectures: {mini_xception: {}, vgg8: {}}\nstudents: {}\n"
        "ensemble: {method: bagged, members: [mini_xception, vgg8]}\nspeedrun: {}\n"
    )
    provenance.PATH.parent.mkdir(parents=True)
    provenance.PATH.write_text(json.dumps({"source": "local", "official": False, "files": {}}))
    data, hidden = small_competition()
    data.save()
    if not request.param:
        hidden["emotion"] = pd.NA
    hidden.to_csv(solution.PATH, index=False)
    for seed, name in enumerate(("mini_xception", "vgg8", "ensemble")):
        some_bag(seed).save(ensemble.BAGS / f"{name}.npz")
    pd.DataFrame({"row": range(28), "fold": np.arange(28) % 2}).to_csv(folds.PATH, index=False)
    temperatures = {name: {"temperature": 1.5} for name in ("mini_xception", "vgg8", "ensemble")}
    ensemble.RESULT.parent.mkdir()
    weights = {"mini_xception": 0.0, "vgg8": 1.0}
    ensemble.RESULT.write_text(json.dumps({"weights": weights, "submissions": temperatures}))
    duplicates().to_csv(audit.TWINS, index=False)
    for seed, name in enumerate(("mini_xception", "vgg8")):
        for number in (0, 1):
            path = cells.path("predictions", name, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            validation, test = some_bag(seed).oof[:14], some_bag(10 * seed + number).test
            plain = {"validation_plain": validation[:, ::-1], "test_plain": test[:, ::-1]}
            np.savez(path, rows=np.arange(14), validation=validation, test=test, **plain)
    for name, parameters in (("mini_xception", 10), ("vgg8", 20)):
        for number in (0, 1):
            for kind in ("timing", "history"):
                cells.path(kind, name, number).parent.mkdir(parents=True, exist_ok=True)
            timing = {"parameters": parameters, "seconds": parameters * 6.0 + number, "key": "a", "keras": "3"}
            cells.path("timing", name, number).write_text(json.dumps(timing))
            history = "epoch,loss,accuracy,val_loss,val_accuracy\n1,2.0,0.2,1.9,0.3\n2,1.5,0.4,1.6,0.35\n"
            cells.path("history", name, number).write_text(history)
    return request.param


def test_an_ensemble_of_networks_that_are_not_there_is_refused(project):
    found = json.loads(ensemble.RESULT.read_text())
    ensemble.RESULT.write_text(json.dumps(found | {"weights": {"small_vgg": 1.0}}))
    with pytest.raises(UserError, match=r"results/ensemble.json is missing or damaged; make it with"):
        score.main()


def test_main_writes_scores_pictures_and_submissions_and_the_same_bytes_again(project, capsys):
    score.main()
    files = [path for folder in ("submissions", "results") for path in Path(folder).rglob("*") if path.is_file()]
    written = {str(path): path.read_bytes() for path in files}
    assert set(written) == {
        "submissions/mini_xception.csv", "submissions/vgg8.csv", "submissions/ensemble.csv", "submissions/scores.csv",
        "results/scores.json", "results/analysis.json", "results/ensemble.json",
        *(f"results/plots/{name}.png" for name in ("board", "calibration", "confusion", "curves", "effort", "splits")),
        "results/metrics/mini_xception.json", "results/metrics/vgg8.json", "results/metrics/ensemble.json",
    }  # fmt: skip
    assert json.loads(submission.ANALYSIS.read_text())["trained_with"] == ["keras 3"]
    table = pd.read_csv(submission.TABLE).set_index("name")
    assert ["name", *table.columns] == COLUMNS
    assert table["parameters"].to_dict() == {"mini_xception": 10, "vgg8": 20, "ensemble": 20}  # one has no say
    assert table["train_seconds"].to_dict() == {"mini_xception": 121, "vgg8": 241, "ensemble": 362}
    unknown = (table[TRUTH_COLUMNS] == "unknown").to_numpy()
    assert unknown.any() != project
    assert unknown.all() != project
    assert table["oof_accuracy"].dtype == float
    assert set(table["data"]) == {"unofficial"}
    nested = json.loads(Path("results/scores.json").read_text())
    assert nested == table.to_dict(orient="index")
    singles = json.loads(Path("results/analysis.json").read_text())["single_networks"]
    alone = [(some_bag(10 + number).test[7:].argmax(axis=1) == np.arange(7)).mean() for number in (0, 1)]
    if project:
        assert singles["vgg8"]["folds"] == pytest.approx(alone, abs=1e-5)
        assert singles["vgg8"]["mean"] == pytest.approx(np.mean(alone), abs=1e-5)
        turned = [(some_bag(10 + n).test[7:, ::-1].argmax(axis=1) == np.arange(7)).mean() for n in (0, 1)]
        rest = [(some_bag(10 + n).test[8:].argmax(axis=1) == np.arange(1, 7)).mean() for n in (0, 1)]
        assert singles["vgg8"]["no_duplicate_mean"] == pytest.approx(
            np.mean(rest), abs=1e-5
        )  # the first has a duplicate
        assert singles["vgg8"]["plain_mean"] == pytest.approx(np.mean(turned), abs=1e-5)
        assert singles["vgg8"]["deviation"] == pytest.approx(abs(alone[0] - alone[1]) / 2**0.5, abs=1e-5)
    else:
        assert isinstance(singles["vgg8"].pop("agree"), float)  # needs no labels
        assert set(singles["vgg8"].values()) == {"unknown"}
    for name, entry in nested.items():
        metrics = json.loads(Path(f"results/metrics/{name}.json").read_text())
        assert metrics.items() <= entry.items()
        assert "private_accuracy" in metrics
    assert all(written[path].startswith(b"\x89PNG") for path in written if path.endswith(".png"))
    score.main()
    assert {path: Path(path).read_bytes() for path in written} == written
    capsys.readouterr()
    leaderboard.main()
    printed = capsys.readouterr().out
    assert "ensemble *" in printed
    assert "RBM" not in printed, "no teams among other rows"


@pytest.mark.parametrize("entries", [0, 3])
def test_the_board_is_drawn_among_the_teams_and_without_them(tmp_path, entries):
    ours = pd.DataFrame([("a", 0.7, 0.68, 0.72)] * entries, columns=["name", *COLUMNS[11:14]])
    for with_teams in (True, False):
        figures.board(ours, with_teams, tmp_path / f"{with_teams}.png")
        assert (tmp_path / f"{with_teams}.png").read_bytes().startswith(b"\x89PNG")


def entry(name, private, rank, **others):
    """A line of submissions/scores.csv."""
    known = private != "unknown"
    numbers = {"private_low": 0.6, "private_high": 0.7, "private_no_duplicate": 0.64, "public_accuracy": 0.651}
    numbers |= {column: 0.5 for column in TRUTH_COLUMNS if column not in {*numbers, "private_accuracy", "rank_2013"}}
    line = {"name": name, "parameters": 1234567, "oof_accuracy": 0.65432, "oof_low": 0.65, "oof_high": 0.66}
    line |= {f"oof_no_near_duplicate{end}": 0.64 for end in ("", "_low", "_high")} | {"private_accuracy": private}
    line |= {key: value if known else "unknown" for key, value in numbers.items()}
    return line | {"rank_2013": rank, "train_seconds": 90, "sha256": "00", "data": "official"} | others


def write_params():
    params.PATH.write_text(
        f"seed: 1\nbackend: auto\nduplicates: keep\n{DATA}folds: []\ntrain: {{}}\narchitectures: {{}}\n"
        "students: {}\nensemble: {}\nspeedrun: {}\n"
    )


def table_of(tmp_path, *entries):
    """Those lines as they come back from the file."""
    pd.DataFrame(entries)[COLUMNS].to_csv(tmp_path / "scores.csv", index=False)
    return pd.read_csv(tmp_path / "scores.csv").to_dict("records")


def test_our_submissions_stand_among_the_teams_best_first(tmp_path):
    entries = (
        entry("low", 0.5, ">10"),
        entry("best", 0.72, 1),
        entry("fifth", 0.653, 5),
        entry("hm", "unknown", "unknown"),
    )
    found = board.rows(table_of(tmp_path, *entries), {})
    names = [line[1].strip() for line in found]
    teams = [team for team, _ in BOARD_2013]
    assert names == ["best *", *teams[:4], "fifth *", *teams[4:], "low *", "hm *"]
    assert [line[0] for line in found] == ["1", *"1234", "5", *"56789", "10", ">10", "unknown"]
    assert found[0] == (
        "1", "best *", "72.00%", "60.00% to 70.00%", "64.00%", "65.10%", "65.43%", "1,234,567", "1.5"
    )  # fmt: skip
    assert found[1][2:] == ("71.16%", *[""] * 6)
    assert found[-1] == ("unknown", "hm *", *["unknown"] * 4, "65.43%", "1,234,567", "1.5")


@pytest.mark.parametrize(("private", "rank"), [(0.7, "none"), ("unknown", "unknown")])
def test_there_are_no_teams_where_there_are_no_places(tmp_path, private, rank):
    found = board.rows(table_of(tmp_path, entry("a", private, rank), entry("b", private, rank)), {})
    assert [line[1] for line in found] == ["a *", "b *"]


def test_a_ratio_is_shown_as_a_percentage_and_anything_else_as_it_is():
    table = {0.5: "50.00%", "0.71164": "71.16%", 1: "100.00%", 0: "0.00%", "unknown": "unknown", "none": "none"}
    assert {value: submission.percent(value) for value in table} == table


def test_the_printed_columns_line_up(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_params()
    submission.TABLE.parent.mkdir()
    entries = entry("a_very_long_name_of_a_network", 0.72, 1), entry("b", 0.5, ">10", parameters=3)
    pd.DataFrame(table_of(tmp_path, *entries)).to_csv(submission.TABLE, index=False)
    leaderboard.main()
    header, rule, *lines, empty, note, _ = capsys.readouterr().out.splitlines()
    assert (len(lines), empty) == (12, "")
    assert f"{TEAMS_2013} teams" in note
    assert header.split()[:2] == ["rank", "PrivateTest"]
    assert {len(line.rstrip()) for line in (header, *lines) if "*" in line or line == header} == {len(rule)}
    gaps = [at for at, sign in enumerate(rule) if sign == " "]
    for line in (header, *lines):
        assert {line.ljust(len(rule))[at] for at in gaps} == {" "}, line
    decimals = {line.index("%") for line in lines}
    assert len(decimals) == 1


def test_names_of_teams_stand_under_those_of_ours(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_params()
    submission.TABLE.parent.mkdir()
    pd.DataFrame(table_of(tmp_path, entry("ours", 0.72, 1))).to_csv(submission.TABLE, index=False)
    leaderboard.main()
    lines = capsys.readouterr().out.splitlines()
    ours, team = (line.index(name) for line in lines[:-1] for name in ("ours ", "RBM") if name in line)
    assert ours == team


def test_how_far_the_folds_of_a_network_agree_is_the_mean_over_their_pairs():
    one = np.eye(7)[[0, 0, 1, 1]]
    assert score.folds_agree([one, one[[0, 2, 2, 3]], one]) == pytest.approx((0.75 + 1 + 0.75) / 3)
    assert score.folds_agree([one]) == 1
