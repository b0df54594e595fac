import dataclasses
import re
from pathlib import Path

import fake_run
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from settings import ROOT
from test_download import held

from pipeline.competition import BOARD_2013
from pipeline.config import ENSEMBLE
from pipeline.data import faces, folds, provenance, solution
from pipeline.evaluation import audit, board, ensemble, figures, metrics, score, submission


def confident(*predicted):
    """Return probabilities of 0.7 for the predicted classes and 0.05 for all others."""
    return np.where(np.eye(7, dtype=bool)[list(predicted)], 0.7, 0.05).astype("float32")


def test_rank_of_2013_is_the_better_of_a_tie_and_unknown_below_the_tenth():
    places = {2554: 1, 2553: 2, 2486: 2, 2485: 3, 2232: 10, 2231: ">10"}
    assert {right: score.rank_2013(right, 3589, "official") for right in places} == places
    assert score.rank_2013(3588, 3588, "official") == "none"
    assert score.rank_2013(3000, 3589, provenance.OTHER_SPLIT) == "none"


# Four rows of Training, two of PublicTest and five of PrivateTest.
TRUTH = score.Truth(
    labels=np.array([0, 1, 2, 3, 5, 4, 0, 0, 1, 2, 6]),
    usage=np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]),
    identical=np.array([0, 1, 0, 0, 1, 0, 2, 1, 0, 0, 0]),
    near=np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3]), source="official",
)  # fmt: skip
PREDICTED = confident(0, 1, 2, 6, 5, 3, 0, 1, 1, 2, 3)  # three of five rows of PrivateTest are right


def columns(what, right, rows):
    """Return three columns of a table of scores for `right` of `rows` rows."""
    share = metrics.share(np.arange(rows) < right)
    values = {f"{what.removesuffix('_accuracy')}_{end}": round(share[end], 7) for end in ("low", "high")}
    return {what: round(right / rows, 7)} | values


HIGH, LOW = 0.7**0.5 / (0.7**0.5 + 6 * 0.05**0.5), 0.05**0.5 / (0.7**0.5 + 6 * 0.05**0.5)  # at temperature 2
JUDGED = {
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
    "private_log_loss_tempered": pytest.approx(-(3 * np.log(HIGH) + 2 * np.log(LOW)) / 5, abs=1.1e-5),
    "private_brier_tempered": pytest.approx(
        (3 * (1 - HIGH) ** 2 + 2 * (HIGH**2 + (1 - LOW) ** 2) + 28 * LOW**2) / 5, abs=1.1e-5
    ),
    "private_calibration_error_tempered": pytest.approx(0.6 - HIGH, abs=1.1e-5),
    "rank_2013": "none",
}
COLUMNS = ["name", "parameters", *JUDGED, "train_seconds", "sha256", "data"]
TRUTH_COLUMNS = [key for key in JUDGED if not key.startswith("oof")]


def test_judge_by_hand():
    assert score.judge(PREDICTED, np.where(PREDICTED > 0.5, HIGH, LOW), TRUTH) == JUDGED
    assert (JUDGED["private_low"], JUDGED["private_high"]) == (0.2307243, 0.8823792)  # Wilson's interval of 3 of 5


def test_scores_that_need_missing_labels_or_rows_are_unknown():
    complete = score.judge(PREDICTED, PREDICTED, TRUTH)
    public = [key for key in TRUTH_COLUMNS if key.startswith("public")]
    private = [key for key in TRUTH_COLUMNS if key not in public]
    for known, unknown in ((0, public + private), (1, private)):
        truth = dataclasses.replace(TRUTH, labels=np.where(TRUTH.usage <= known, TRUTH.labels, -1))
        assert score.judge(PREDICTED, PREDICTED, truth) == complete | dict.fromkeys(unknown, "unknown")
        assert list(score.analysis({"one": PREDICTED}, {"one": PREDICTED}, truth)) == ["out of fold"]
    rows = TRUTH.usage != 1  # without PublicTest
    without = score.judge(PREDICTED[rows], PREDICTED[rows], TRUTH.of(rows))
    assert without == complete | dict.fromkeys(public, "unknown")


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


@pytest.fixture
def project(stand, monkeypatch):
    """Return a function that creates a small run up to its scores in the working folder."""
    monkeypatch.setattr(score, "draw", lambda *words: None)  # drawing is slow

    def build(known=True):
        fake_run.build(known)
        ensemble.main()
        score.main()

    return build


def outputs():
    return held(Path("submissions")) | held(Path("results"))


@pytest.mark.parametrize("known", [True, False])
def test_main_and_score_file_print_or_write_scores_and_are_deterministic(project, capsys, known):
    project(known)
    names, written = [*fake_run.MODELS, fake_run.STUDENT, ENSEMBLE], outputs()
    table = pd.read_csv(submission.TABLE).set_index("name")
    assert ["name", *table.columns] == COLUMNS
    assert list(table.index) == names
    unknown = (table[TRUTH_COLUMNS].drop(columns="rank_2013") == "unknown").to_numpy()
    assert unknown.all() if not known else not unknown.any()
    for name in names:
        predicted = submission.read(submission.FOLDER / f"{name}.csv", 35)
        assert table["sha256"][name] == submission.sha256(submission.FOLDER / f"{name}.csv")
        right = (predicted[14:] == fake_run.labels()[84:]).mean()
        assert table["private_accuracy"][name] == (round(right, 7) if known else "unknown")
        line, calibration = fake_run.result(f"results/metrics/{name}.json"), ensemble.result().submissions[name]
        assert line.pop("oof_log_loss_tempered") == calibration.calibration_tempered["log_loss"]
        assert line.pop("oof_brier_tempered") == calibration.calibration_tempered["brier"]
        assert line == {key: table[key][name] for key in score.RATIOS}
    assert table[["parameters", "train_seconds"]].iloc[[1, 3]].to_numpy().tolist() == [[1008, 121], [3022, 363]]
    assert submission.analysis()["trained_with"] == ["backend tensorflow, keras 3, precision float32, processor abacus"]
    (score.METRICS / "gone.json").write_text("of a removed model")
    score.main()
    predicted = fake_run.labels()[70:]
    predicted[-7:] = 0  # one of these is right
    submission.write(Path("mine.csv"), predicted)
    score.score_file(Path("mine.csv"))
    assert outputs() == written, "score_file writes nothing"
    printed = capsys.readouterr().out
    lines = ("PublicTest +100.00%", "PrivateTest +71.43%", "PrivateTest, no duplicate +70.00%", "2013: none")
    for line in lines if known else ("PrivateTest +unknown",):
        assert re.search(line, printed), line


def test_each_fold_has_its_temperature_and_test_rows_that_of_all_folds(project):
    project()
    data = faces.load()
    assignment, analysis, labels = folds.load(data), submission.analysis(), fake_run.labels()
    for name in (*fake_run.MODELS, ENSEMBLE):
        blend = ensemble.load(name, data, assignment)
        own = ensemble.fit_temperatures(blend.oof, labels[:70], assignment.fold_of)
        test = metrics.temper(blend.test[14:], ensemble.result([name]).submissions[name].temperature)
        oof = ensemble.tempered(blend.oof, own, assignment.fold_of)
        for rows, tempered, truth in (("PrivateTest", test, labels[84:]), ("out of fold", oof, labels[:70])):
            assert analysis[rows]["reliability"][name]["tempered"] == metrics.reliability(tempered, truth), rows


def test_single_networks_are_scored_separately_and_one_missing_label_makes_all_of_privatetest_unknown(project):
    project()
    entry, labels = submission.analysis()["single_networks"]["deep_net"], fake_run.labels()[70:]
    predicted = np.stack([fake_run.probabilities(("deep_net", fold, "test", ""), labels) for fold in (0, 1)]).argmax(2)
    right = (predicted == labels)[:, 14:]
    assert entry["agree"] == pytest.approx((predicted[0] == predicted[1]).mean(), abs=1e-6)
    assert entry["mean"] == pytest.approx(right.mean(), abs=1e-6)
    assert entry["no_duplicate_mean"] == pytest.approx(right[:, 1:].mean(), abs=1e-6)  # the first row is a duplicate
    text = solution.PATH.read_text()  # row 84 is a duplicate, so private_no_duplicate does not contain it
    solution.PATH.write_text(text.replace("84,PrivateTest,0", "84,PrivateTest,"))
    score.main()
    line, entry = submission.scores()[0], submission.analysis()["single_networks"]["deep_net"]
    assert {line["private_accuracy"], line["private_no_duplicate"], entry["mean"]} == {"unknown"}
    assert 0 <= line["public_accuracy"] <= 1


def test_all_plots_are_drawn_and_dvc_finds_their_columns_and_templates(stand):
    fake_run.build()
    audit.main()
    ensemble.main()
    score.main()
    pictures = {path.stem for path in figures.FOLDER.glob("*.png")}
    assert pictures == {"attention", "board", "calibration", "confusion", "curves", "effort"}
    tables = {path.stem: pd.read_csv(path) for path in figures.FOLDER.glob("*.csv")}
    assert len(tables["curves"]) == 3 * 2 * 2, "one line per model, fold and epoch"
    predicted, confusion = np.load("artifacts/blends/ensemble.npz")["oof"].argmax(axis=1), tables["confusion"]
    assert (confusion["actual"] == confusion["predicted"]).sum() == (predicted == fake_run.labels()[:70]).sum()
    assert confusion.equals(confusion.sort_values(["actual", "predicted"])), "the order of the data stays private"
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["plots"]
    for each in (each for plot in plots if isinstance(plot, dict) for each in plot.values()):
        ((path, column),) = each["y"].items()
        assert {each["x"], column} <= set(pd.read_csv(path))
        assert each["template"] == "confusion_normalized" or (ROOT / each["template"]).exists()


def entry(name, private, rank):
    """Return a row of submissions/scores.csv."""
    return dict.fromkeys(TRUTH_COLUMNS, "unknown" if private == "unknown" else 0.5) | {
        "name": name, "parameters": 1234567, "oof_accuracy": 0.65432, "oof_low": 0.6, "oof_high": 0.7,
        "private_accuracy": private, "rank_2013": rank, "train_seconds": 90,
    }  # fmt: skip


def test_the_board_lists_our_submissions_before_the_teams():
    unknown = entry("hm", "unknown", "unknown")
    entries = [entry("low", 0.5, ">10"), entry("best", 0.72, 1), entry("fifth", 0.653, 5), unknown]
    teams = [f"{k}. {name}" for k, (name, _) in enumerate(BOARD_2013, 1)]
    rows = [*board.table(entries).itertuples(name=None)]
    assert [line[0] for line in rows] == ["low", "best", "fifth", "hm", *teams]
    assert rows[1] == ("best", "65.43%", "50.00%", "72.00%", "50.00% to 50.00%", "50.00%", "1,234,567", "1.5")
    assert rows[3] == ("hm", "65.43%", *["unknown"] * 4, "1,234,567", "1.5")
    assert rows[4][1:] == ("", "", "71.16%", *[""] * 4)
    assert board.places(entries).endswith(": 1st: best; 5th: fifth; below the 10th: low.")
    outlook = board.outlook({"mean": 0.7156, "deviation": 0.0044, "values": [0.7119, 0.7205, 0.7144]})
    assert re.findall(r"[\d.]+%", outlook)[-3:] == ["70.47%", "72.65%", "74%"]  # 4.303 standard errors
    for alone in (entry("other split", 0.7, "none"), unknown):
        assert len(board.table([alone])) == 1, "without ranks, teams are not listed"
    drawn = score.intervals(pd.DataFrame([entries[1], unknown]))
    assert drawn["name"].tolist() == ["best"] * 3 + ["hm"] + teams
    assert drawn["part"].tolist()[:4] == ["out of fold", "PublicTest", "PrivateTest", "out of fold"]
    assert drawn.iloc[2].tolist() == ["best", "PrivateTest", 0.72, 0.5, 0.5]
