import dataclasses
from pathlib import Path
from types import SimpleNamespace

import fake_run
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.competition import BOARD_2013
from pipeline.config import ENSEMBLE
from pipeline.data import faces, folds, provenance, solution
from pipeline.evaluation import audit, board, ensemble, figures, metrics, score, submission
from pipeline.evaluation.score import Truth

COLUMNS = [
    "name", "parameters", "oof_accuracy", "oof_low", "oof_high", "oof_no_near_duplicate", "oof_no_near_duplicate_low",
    "oof_no_near_duplicate_high", "public_accuracy", "public_low", "public_high",
    "private_accuracy", "private_low", "private_high", "private_no_duplicate", "private_no_duplicate_low",
    "private_no_duplicate_high", "private_no_near_duplicate", "private_no_near_duplicate_low",
    "private_no_near_duplicate_high", "private_macro_f1", "private_top_2", "private_log_loss", "private_brier",
    "private_calibration_error", "private_log_loss_tempered", "private_brier_tempered",
    "private_calibration_error_tempered", "rank_2013", "train_seconds", "sha256", "data",
]  # fmt: skip
TRUTH_COLUMNS = COLUMNS[COLUMNS.index("public_accuracy") : COLUMNS.index("train_seconds")]
ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:F-score is ill-defined")  # few rows do not have all classes


def confident(*predicted):
    """Return probabilities of 0.7 for the predicted classes and 0.05 for all others."""
    return np.where(np.eye(7, dtype=bool)[list(predicted)], 0.7, 0.05).astype("float32")


def wilson(right, rows):
    z, share = 1.959963984540054, right / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return round(middle - half, 6), round(middle + half, 6)


@pytest.mark.parametrize(("labels", "expected"), [
    ([0, 1, 3], 0.666667), ([6, 6, 6], 0.0), ([0, 1, -1], "unknown"), ([], "unknown"),
])  # fmt: skip
def test_accuracy_has_wilsons_interval_and_is_unknown_without_labels(labels, expected):
    columns = score.accuracy(confident(0, 1, 2)[: len(labels)], np.array(labels, int), "some")
    low, high = ("unknown", "unknown") if expected == "unknown" else wilson(round(3 * expected), 3)
    assert columns == {"some_accuracy": expected, "some_low": low, "some_high": high}


def test_rank_of_2013_is_the_better_of_a_tie_and_unknown_below_the_tenth():
    places = {3589: 1, 2554: 1, 2553: 2, 2486: 2, 2485: 3, 2233: 10, 2232: 10, 2231: ">10", 0: ">10"}
    assert {right: score.rank_2013(right, 3589, "official") for right in places} == places
    assert {score.rank_2013(rows, rows, "official") for rows in (0, 1, 3588, 3590, 7178)} == {"none"}
    assert score.rank_2013(3000, 3589, provenance.OTHER_SPLIT) == "none"


# Four rows of Training, two of PublicTest and five of PrivateTest.
TRUTH = Truth(
    labels=np.array([0, 1, 2, 3, 5, 4, 0, 0, 1, 2, 6]),
    usage=np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]),
    identical=np.array([0, 1, 0, 0, 1, 0, 2, 1, 0, 0, 0]),
    near=np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3]),
    source="official",
)
PREDICTED = confident(0, 1, 2, 6, 5, 3, 0, 1, 1, 2, 3)  # three of five rows of PrivateTest are right


def with_labels(labels):
    return dataclasses.replace(TRUTH, labels=labels)


def columns(what, right, rows):
    """Return three columns of a table of scores for `right` of `rows` rows."""
    prefix = what.removesuffix("_accuracy")
    low, high = wilson(right, rows)
    return {what: round(right / rows, 6), f"{prefix}_low": low, f"{prefix}_high": high}


def test_judge_by_hand():
    high, low = 0.7**0.5 / (0.7**0.5 + 6 * 0.05**0.5), 0.05**0.5 / (0.7**0.5 + 6 * 0.05**0.5)  # at temperature 2
    assert score.judge(PREDICTED, np.where(PREDICTED > 0.5, high, low), TRUTH) == {
        **columns("oof_accuracy", 3, 4),
        **columns("oof_no_near_duplicate", 2, 2),  # the first and the third
        **columns("public_accuracy", 1, 2),
        **columns("private_accuracy", 3, 5),
        **columns("private_no_duplicate", 2, 3),  # the last three
        **columns("private_no_near_duplicate", 2, 2),  # the two before the last
        "private_macro_f1": 0.333333,  # (2/3 + 2/3 + 1 + 4 * 0) / 7
        "private_top_2": 0.8,  # of equally likely classes the last one, 6, counts as second
        "private_log_loss": pytest.approx(-(3 * np.log(0.7) + 2 * np.log(0.05)) / 5, abs=1.1e-5),
        "private_brier": pytest.approx((3 * 0.3**2 + 2 * (0.7**2 + 0.95**2) + (18 + 10) * 0.05**2) / 5, abs=1.1e-5),
        "private_calibration_error": pytest.approx(0.1, abs=1.1e-5),  # confidence 0.7, accuracy 0.6
        "private_log_loss_tempered": pytest.approx(-(3 * np.log(high) + 2 * np.log(low)) / 5, abs=1.1e-5),
        "private_brier_tempered": pytest.approx(
            (3 * (1 - high) ** 2 + 2 * (high**2 + (1 - low) ** 2) + 28 * low**2) / 5, abs=1.1e-5
        ),
        "private_calibration_error_tempered": pytest.approx(0.6 - high, abs=1.1e-5),
        "rank_2013": "none",
    }
    assert wilson(3, 5) == (0.230724, 0.882379)  # the textbook's 3 of 5


@pytest.mark.parametrize("known", ["none", "public"])
def test_without_labels_everything_that_needs_them_is_unknown(known):
    truth = with_labels(np.where(TRUTH.usage <= (known == "public"), TRUTH.labels, -1))
    complete = score.judge(PREDICTED, PREDICTED, TRUTH)
    unknown = [key for key in TRUTH_COLUMNS if known == "none" or not key.startswith("public")]
    assert score.judge(PREDICTED, PREDICTED, truth) == complete | dict.fromkeys(unknown, "unknown")


def test_analysis_by_hand():
    wrong = confident(1, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0)
    probabilities = {"one": PREDICTED, "same": PREDICTED, "wrong": wrong}
    analysis = score.analysis(probabilities, probabilities, TRUTH)
    assert set(analysis) == {"out of fold", "PrivateTest"}
    # In each part, three rows are right only in "one" and "same", and none only in "wrong".
    for rows in analysis.values():
        assert rows["paired"]["one"] == {"same": 1.0, "wrong": 0.25}
        assert rows["paired"]["wrong"]["same"] == rows["paired"]["same"]["wrong"] == 0.25
    expected = {"precision": 1.0, "recall": 0.5, "f1": 0.666667, "rows": 2}
    assert analysis["PrivateTest"]["by_class"]["one"]["angry"] == expected
    bins = analysis["PrivateTest"]["reliability"]["one"]["as_it_is"]
    assert (bins["rows"][10], bins["confidence"][10], bins["accuracy"][10]) == (5, 0.7, 0.6)
    without = with_labels(np.where(TRUTH.usage == 0, TRUTH.labels, -1))
    assert set(score.analysis(probabilities, probabilities, without)) == {"out of fold"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that creates a small run up to its ensemble in the working folder."""

    def build(known=True):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(score, "draw", lambda *words: None)  # drawing is slow
        fake_run.build(known)
        ensemble.main()

    return build


@pytest.fixture(params=[True, False], ids=["known", "unknown"])
def known(request, project):
    """Create a run with known or unknown test labels."""
    project(request.param)
    return request.param


def outputs():
    paths = [path for folder in ("submissions", "results") for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths}


def test_main_writes_scores_and_submissions_and_is_deterministic(known):
    names = [*fake_run.MODELS, fake_run.STUDENT, ENSEMBLE]
    score.METRICS.mkdir()
    (score.METRICS / "gone.json").write_text("{}")
    score.main()
    written = outputs()
    assert set(written) == {
        "submissions/scores.csv", "results/scores.json", "results/analysis.json", "results/ensemble.json",
        *(f"results/metrics/{name}.json" for name in names),
        *(f"submissions/{name}.csv" for name in names),
    }  # fmt: skip
    table = pd.read_csv(submission.TABLE).set_index("name")
    assert ["name", *table.columns] == COLUMNS
    assert list(table.index) == names
    unknown = (table[TRUTH_COLUMNS].drop(columns="rank_2013") == "unknown").to_numpy()
    assert unknown.all() if not known else not unknown.any()
    assert fake_run.result("results/scores.json") == table.to_dict(orient="index")
    for name in names:
        predicted = submission.read(submission.FOLDER / f"{name}.csv", 35)
        assert table["sha256"][name] == submission.sha256(submission.FOLDER / f"{name}.csv")
        right = predicted[14:] == fake_run.labels()[84:]
        assert table["private_accuracy"][name] == (round(right.mean(), 6) if known else "unknown")
        assert table["private_no_duplicate"][name] == (round(right[1:].mean(), 6) if known else "unknown")
        line, calibration = fake_run.result(f"results/metrics/{name}.json"), ensemble.result().submissions[name]
        assert line.pop("oof_log_loss_tempered") == calibration.calibration_tempered["log_loss"]
        assert line.pop("oof_brier_tempered") == calibration.calibration_tempered["brier"]
        assert line == {key: table[key][name] for key in line}
    weights = ensemble.result().weights
    parameters = {name: 1000 + len(name) for name in weights}
    parameters[ENSEMBLE] = sum(count for name, count in parameters.items() if weights[name] != 0)
    assert table["parameters"].to_dict() == parameters
    assert table["train_seconds"].to_dict() == dict.fromkeys(weights, 121) | {ENSEMBLE: 363}
    assert submission.analysis()["trained_with"] == ["backend tensorflow, keras 3, precision float32, processor abacus"]
    score.main()
    assert outputs() == written


def test_each_fold_has_its_temperature_and_test_rows_that_of_all_folds(project):
    project()
    score.main()
    data = faces.load()
    assignment, analysis, labels = folds.load(data), submission.analysis(), fake_run.labels()
    for name in (*fake_run.MODELS, ENSEMBLE):
        blend = ensemble.load(name, data, assignment)
        own = ensemble.fit_temperatures(blend.oof, labels[:70], assignment.fold_of)
        test = metrics.temper(blend.test[14:], ensemble.temperatures([name])[name])
        oof = ensemble.tempered(blend.oof, own, assignment.fold_of)
        for rows, tempered, truth in (("PrivateTest", test, labels[84:]), ("out of fold", oof, labels[:70])):
            assert analysis[rows]["reliability"][name]["tempered"] == metrics.reliability(tempered, truth), rows


def test_a_member_without_weight_adds_no_parameters():
    cells = {name: [SimpleNamespace(about=SimpleNamespace(parameters=size, seconds=9))] * 2
             for name, size in (("small", 10), ("large", 90))}  # fmt: skip
    table = score.efforts(cells, {"small": 1.0, "large": 0.0})
    assert table.loc[ENSEMBLE].tolist() == [10, 36]


def test_single_networks_are_scored_separately(known):
    score.main()
    entry = submission.single_networks(submission.analysis(), "deep_net")
    labels = fake_run.labels()[70:]
    first, second = (fake_run.probabilities(("deep_net", fold, "test", ""), labels).argmax(axis=1) for fold in (0, 1))
    assert (entry["multiply_adds"], entry["agree"]) == (2_000_000, pytest.approx((first == second).mean(), abs=1e-6))
    if not known:
        assert entry["mean"] == entry["no_duplicate_mean"] == "unknown"
        return
    right = np.stack([first, second])[:, 14:] == labels[14:]
    assert entry["mean"] == pytest.approx(right.mean(), abs=1e-6)
    assert entry["no_duplicate_mean"] == pytest.approx(right[:, 1:].mean(), abs=1e-6)  # the first row is a duplicate


def test_one_missing_label_makes_all_of_privatetest_unknown(project):
    project()
    table = pd.read_csv(solution.PATH, dtype={"emotion": "Int64"})
    table.loc[34, "emotion"] = pd.NA
    table.to_csv(solution.PATH, index=False)
    score.main()
    line = pd.read_csv(submission.TABLE).iloc[0]
    assert line["private_accuracy"] == line["rank_2013"] == "unknown"
    assert 0 <= float(line["public_accuracy"]) <= 1


def test_another_system_is_scored_like_the_models(project):
    project()
    fake_run.external("other", np.arange(70), 3.0)
    fake_run.params(ensemble={"method": "mean", "members": ["deep_net", "other"]})
    ensemble.main()
    score.main()
    lines = {line["name"]: line for line in submission.scores()}
    assert (submission.FOLDER / "other.csv").exists()
    assert 0 < lines["other"]["private_accuracy"] <= 1
    for name in ("other", ENSEMBLE):  # its costs are unknown, so those of the ensemble are unknown as well
        assert lines[name]["parameters"] is lines[name]["train_seconds"] is None
        assert board.ours(lines[name])[-2:] == ("", "")
        assert fake_run.result("results/scores.json")[name]["parameters"] is None
    assert lines["deep_net"]["parameters"] == 1008
    assert set(fake_run.result("results/analysis.json")["single_networks"]) == {*fake_run.MODELS, fake_run.STUDENT}


def test_score_file_prints_scores_and_writes_nothing(known, capsys):
    before = outputs()
    path = Path("mine.csv")
    predicted = fake_run.labels()[70:]
    predicted[-7:] = 0  # one of these is right
    submission.write(path, predicted)
    capsys.readouterr()
    score.score_file(path)
    printed = capsys.readouterr().out
    assert outputs() == before
    if known:
        assert ["PublicTest", "100.00%"] in [line.split()[:2] for line in printed.splitlines()]
        assert ["PrivateTest", "71.43%"] in [line.split()[:2] for line in printed.splitlines()]
        assert "70.00%" in printed, "without the row that has a duplicate"
        assert "rank in 2013: none" in printed
    else:
        assert "%" not in printed.split("interval")[1].split("rank")[0]


@pytest.mark.parametrize("known", [True, False])
def test_all_plots_are_drawn_and_dvc_finds_their_columns_and_templates(stand, known):
    fake_run.build(known)
    audit.main()
    ensemble.main()
    score.main()
    pictures = {path.stem: path.read_bytes() for path in figures.FOLDER.glob("*.png")}
    assert set(pictures) == {"attention", "board", "calibration", "confusion", "curves", "effort"}
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    tables = {path.stem: pd.read_csv(path) for path in figures.FOLDER.glob("*.csv")}
    assert len(tables["curves"]) == 3 * 2 * 2, "one line per model, fold and epoch"
    predicted, confusion = np.load("artifacts/blends/ensemble.npz")["oof"].argmax(axis=1), tables["confusion"]
    assert (confusion["actual"] == confusion["predicted"]).sum() == (predicted == fake_run.labels()[:70]).sum()
    assert confusion.equals(confusion.sort_values(["actual", "predicted"])), "the order of the data stays private"
    assert set(tables["calibration"]["name"]) == {*fake_run.MODELS, fake_run.STUDENT, ENSEMBLE}
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["plots"]
    definitions = [each for plot in plots if isinstance(plot, dict) for each in plot.values()]
    assert len(definitions) == 6
    for each in definitions:
        ((path, column),) = each["y"].items()
        assert {each["x"], column} <= set(pd.read_csv(path))
        assert each["template"] == "confusion_normalized" or (ROOT / each["template"]).exists()


def entry(name, private, rank, **others):
    """Return a row of submissions/scores.csv."""
    line = dict.fromkeys(TRUTH_COLUMNS, "unknown" if private == "unknown" else 0.5)
    return {
        "name": name, "parameters": 1234567, "oof_accuracy": 0.65432, **line, "private_accuracy": private,
        "rank_2013": rank, "train_seconds": 90, "sha256": "00", "data": "official",
    } | others  # fmt: skip


def test_the_board_lists_our_submissions_before_the_teams():
    entries = [
        entry("low", 0.5, ">10"), entry("best", 0.72, 1), entry("good", 0.715, 1), entry("fifth", 0.653, 5),
        entry("hm", "unknown", "unknown"),
    ]  # fmt: skip
    ours, teams = ["low", "best", "good", "fifth", "hm"], [f"{k}. {name}" for k, (name, _) in enumerate(BOARD_2013, 1)]
    rows = board.rows(entries)
    assert [line[0] for line in rows] == ours + teams
    halves = ("50.00% to 50.00%", "50.00%")
    assert rows[1] == ("best", "65.43%", "50.00%", "72.00%", *halves, "1,234,567", "1.5")
    assert rows[4] == ("hm", "65.43%", *["unknown"] * 4, "1,234,567", "1.5")
    assert rows[5][1:] == ("", "", "71.16%", *[""] * 4)
    assert board.places(entries).count(": ") == 3  # would place 1st, 5th, below the 10th
    for private, rank in ((0.7, "none"), ("unknown", "unknown")):  # without ranks, teams are not listed
        assert [line[0] for line in board.rows([entry("a", private, rank)])] == ["a"]
    drawn = score.intervals(pd.DataFrame([each | {"oof_low": 0.6, "oof_high": 0.7} for each in entries[1::3]]))
    parts = ["out of fold", "PublicTest", "PrivateTest"]
    assert drawn["name"].tolist() == ["best"] * 3 + ["hm"] + teams
    assert drawn["part"].tolist()[:4] == [*parts, parts[0]]
    assert drawn.iloc[2].tolist() == ["best", "PrivateTest", 0.72, 0.5, 0.5]
