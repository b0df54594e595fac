import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import recipe
from pipeline.errors import UserError
from pipeline.evaluation import board, figures, report
from pipeline.evaluation.report import Section, Table

ROOT = Path(__file__).parent.parent


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures.FOLDER.mkdir(parents=True)
    (figures.FOLDER / "some.png").write_bytes(b"\x89PNG picture")
    table = Table("A table", ["", "one"], [["row <1>", "2"], ["ours *", "3"]])
    return [
        Section("First & last", ["Words."], [table], {"some.png": "A picture"}, [table], "a: <b>")
    ]  # no end of line


def test_the_page_escapes_what_it_shows_and_holds_its_pictures(parts):
    page = report.render("report.html.j2", parts)
    assert "First &amp; last" in page
    assert "row &lt;1&gt;" in page
    assert "a: &lt;b&gt;" in page
    assert "data:image/png;base64,iVBORyBwaWN0dXJl" in page
    assert '<tr class="ours"><td>ours *</td><td>3</td></tr>' in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert page.startswith("<!doctype html>")


def test_the_markdown_has_whole_tables(parts):
    text = report.render("report.md.j2", parts)
    table = "|  | one |\n|---|--:|\n| row <1> | 2 |\n| ours * | 3 |\n\n"
    assert f"## First & last\n\nWords.\n\n**A table**\n\n{table}" in text
    assert "![A picture](plots/some.png)\n" in text
    assert f"<details><summary>A table</summary>\n\n{table}" in text
    assert "```yaml\na: <b>\n```\n" in text


def test_numbers_are_shown_as_people_write_them():
    assert [board.p_value(p) for p in (1.0, 0.05, 0.001, 0.0009)] == ["1.000", "0.050", "0.001", "< 0.001"]
    assert [report.points(d) for d in (0.0123, -0.002, 0.0)] == ["+1.23", "-0.20", "+0.00"]
    assert [report.number(n) for n in (0.12345, "unknown")] == ["0.123", "unknown"]


@pytest.mark.parametrize(
    ("name", "verb", "content"),
    [
        ("claims.json", "claims", "{"),
        ("claims.json", "claims", "[1]"),
        ("claims.json", "claims", '{"vgg8": {"claimed": "65 %"}}'),
        ("seeds.json", "seeds", '{"seeds": [1, 2]}'),
        ("speedrun.json", "speedrun", '{"minutes": 1}'),
    ],
)
def test_what_another_version_wrote_is_refused_with_what_to_do(parts, name, verb, content):
    (report.RESULTS / name).write_text(content)
    with pytest.raises(UserError, match=rf"^results/{name} cannot be read .*; delete it, or run: make {verb}$"):
        {"claims": report.claims, "seeds": report.seeds, "speedrun": report.speed}[verb]()


@pytest.mark.parametrize("private", [0.72, "unknown"])
def test_the_seeds_of_the_speedrun_stand_above_their_mean(parts, private, monkeypatch):
    scores = {"public_accuracy": 0.7, "private_accuracy": private, "private_no_duplicate_accuracy": private,
              "private_low": private, "private_high": private}  # fmt: skip
    entry = scores | {"minutes": 40.0, "trained_with": [{"processor": "abacus"}]}
    spreads = {split: {"mean": 0.7, "deviation": 0.002} for split in list(scores)[:3]} if private == 0.72 else {}
    defaults = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())["train"]
    own = recipe.Recipe.model_validate(defaults | {"epochs": 50})
    about = {"network": "vgg8", "networks": 2, "recipe": own.model_dump(), "minutes": 40.0}
    wanted = recipe.Speedrun(network="vgg8", networks=2, seeds=[1, 2], recipe={})
    monkeypatch.setattr(report.recipe, "speedrun", lambda: (wanted, own))
    assert report.speed() is None
    (report.RESULTS / "speedrun.json").write_text(json.dumps(about | spreads | {"by_seed": {"1": entry, "2": entry}}))
    found = report.speed()
    assert len(found.text) == 1
    assert found.text[0].startswith("2 vgg8, 50 epochs each, trained on all Training rows without folds; the mean")
    assert "On abacus. ±" in found.text[0]
    one = "72.00%" if private == 0.72 else "unknown"
    seed = ["70.00%", one, f"{one} to {one}", one, "40.0"]
    over = "70.00% ± 0.20" if spreads else ""
    mean = ["mean", over, over, "", over, "40.0"]
    assert found.tables[0].rows == [["1", *seed], ["2", *seed], mean]
    monkeypatch.setattr(report.recipe, "speedrun", lambda: (wanted.model_copy(update={"networks": 3}), own))
    assert report.speed().text[1].startswith("This was made by another params.yaml")
    changed = wanted.model_copy(update={"recipe": {"epochs": 50, "flip": False}})
    monkeypatch.setattr(report.recipe, "speedrun", lambda: (changed, own))
    assert report.speed().text[1] == "Its recipe is the network's own in params.yaml, but for: epochs 50, flip False."
    alone = about | spreads | {"networks": 1, "by_seed": {"1": entry, "2": entry}}
    (report.RESULTS / "speedrun.json").write_text(json.dumps(alone))
    assert report.speed().text[0].startswith("1 vgg8, 50 epochs, trained on all Training rows without folds. On abacus")


def test_claims_stand_beside_what_their_protocol_and_ours_give(parts):
    ours = {"epochs": 3, "trained_rows": 80, "rows": 20, "best_epoch": 0.75, "last_epoch": 0.7}
    entry = {"claimed": "65 %", "measured_on": "a split", "epochs_there": 100, "theirs_here": ours,
             "honest": ours | {"best_epoch": None, "last_epoch": 0.66}}  # fmt: skip
    text = json.dumps({"vgg8": entry, "alizadeh_same": entry | {"theirs_here": None}})
    (report.RESULTS / "claims.json").write_text(text)
    first, second = report.claims().tables[0].rows
    assert first == ["vgg8", "65 %", "a split", "100", "3", "75.00%", "70.00%", "80", "66.00%"]
    assert second == ["alizadeh_same", "65 %", "a split", "100", "3", "", "", "80", "66.00%"]


def test_the_parts_of_the_ensemble_tell_what_is_expected_of_test_rows():
    def judged(accuracy, brier):
        return {"oof_accuracy": accuracy, "oof_log_loss": 0.9, "oof_brier": 0.5, "expected_brier": brier}

    found = {
        "method": "bagged", "weights": {"vgg8": 0.75, "other": 0.25},
        "members": {"vgg8": judged(0.7, 0.4), "other": judged(0.6, 0.5)},
        "methods": {"mean": judged(0.71, 0.39), "bagged": judged(0.705, 0.38)},
        "without": {"vgg8": judged(0.6, 0.5), "other": judged(0.7, 0.4)},
        "submissions": {}, "agreement": {"vgg8": {"vgg8": 1.0, "other": 0.8}, "other": {"vgg8": 0.8, "other": 1.0}},
    }  # fmt: skip
    members, ways = report.parts(found).tables[:2]
    assert members.rows == [
        ["vgg8", "0.750", "70.00%", "0.900", "0.4000", "+10.50", "0.1200"],
        ["other", "0.250", "60.00%", "0.900", "0.5000", "+0.50", "0.0200"],
    ]
    assert ways.rows == [["mean", "71.00%", "0.900", "0.3900"], ["bagged", "70.50%", "0.900", "0.3800"]]
    alone = found | {"method": "geometric", "weights": {"vgg8": None}, "without": {}}
    alone["members"], alone["methods"] = {"vgg8": judged(0.7, 0.4)}, {"geometric": judged(0.7, 0.4)}
    assert report.parts(alone).tables[0].rows == [["vgg8", "", "70.00%", "0.900", "0.4000", "", ""]]
