"""README and docs/ say what the committed results say, and name what is there."""

import json
import re
import subprocess

import fake_run
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from settings import ROOT
from test_score import PREDICTED, TRUTH

from pipeline import __main__, config
from pipeline.competition import BOARD_2013, SPLIT_ROWS
from pipeline.evaluation import ensemble, metrics, report, submission

README, HOWTO = (ROOT / "README.md").read_text(), (ROOT / "docs/howto.md").read_text()
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
PAGES = [name for name in TRACKED.splitlines() if (ROOT / name).exists()]
CHANGED = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "submissions", "results", "params.yaml"], cwd=ROOT)
committed = pytest.mark.skipif(CHANGED.returncode != 0, reason="the results here are not the committed ones")
ENTRIES = pd.read_csv(ROOT / "submissions/scores.csv").set_index("name")
SPEEDRUN = json.loads((ROOT / "results/speedrun.json").read_text())
CLAIMS = json.loads((ROOT / "results/claims.json").read_text())


def table(page, first, after=""):
    """Return the cells of the first row of a table that begins so, `after` a heading."""
    section = (ROOT / page).read_text().partition(after or "# ")[2]
    line = next(line for line in section.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def percent(share):
    return f"{share:.2%}".replace("%", " %")


@committed
@pytest.mark.parametrize(("first", "name"), [("`blur_vgg`", "blur_vgg"), ("ensemble of nine", "ensemble")])
def test_readme_has_the_scores_of_the_run(first, name):
    found = ENTRIES.loc[name]
    interval = f"{100 * found['private_low']:.2f} to {percent(found['private_high'])}"
    private, *scores = [percent(found[key]) for key in
                        ("private_accuracy", "private_no_duplicate", "public_accuracy", "oof_accuracy")]  # fmt: skip
    assert table("README.md", first)[1:] == [private, interval, *scores, f"{found['train_seconds'] / 3600:.1f}"]


@committed
def test_readme_and_the_claims_page_have_the_score_of_mini_xception():
    single = json.loads((ROOT / "results/analysis.json").read_text())["single_networks"]["mini_xception"]
    theirs = CLAIMS["mini_xception"]["scores"]["their rows"]["last"]["accuracy"]
    ours = table("docs/claims.md", "the project's recipe, 50", "## With the project's recipe")[3].partition(" ±")[0]
    assert f"scores {percent(theirs)} with its authors' recipe and {ours} % with ours" in README
    row = table("docs/claims.md", "the same, with TTA", "## With the project's recipe")
    assert f"{100 * single['mean']:.2f} ± {percent(single['deviation'])}" in row
    assert row[-1] == percent(ENTRIES.loc["mini_xception", "private_accuracy"])


@committed
def test_readme_and_howto_have_the_scores_of_the_speedrun_and_of_2013():
    public, private = SPEEDRUN["public_accuracy"], SPEEDRUN["private_accuracy"]
    minutes = str(SPEEDRUN["minutes"])
    assert table("README.md", "winner of 2013")[1] == percent(BOARD_2013[0][1] / SPLIT_ROWS[2])
    spreads = [f"{percent(each['mean'])} ± {100 * each['deviation']:.2f}" for each in (public, private)]
    plain = [percent(SPEEDRUN[f"{rows}_accuracy"]["mean"]) for rows in ("private_no_duplicate", "public")]
    hours = f"{SPEEDRUN['minutes'] * 2 / 60:.1f}"  # of two cores
    assert table("README.md", "`narrow_vgg` in 13 minutes")[1:] == [spreads[1], "", *plain, "", hours]
    assert table("docs/howto.md", "mean |")[1:] == [*spreads, "", minutes]
    for seed, found in SPEEDRUN["by_seed"].items():
        scores = [percent(found["public_accuracy"]), percent(found["private_accuracy"])]
        cells = table("docs/howto.md", f"{seed} |")
        assert [*cells[1:3], cells[4]] == [*scores, str(found["minutes"])]


@committed
def test_the_last_line_of_the_runs_is_the_committed_run():
    found, runs = ENTRIES.loc["ensemble"], re.findall(r"(?m)^\| (\d+) \| 20", (ROOT / "docs/runs.md").read_text())
    scores = [percent(found[f"{key}_accuracy"]) for key in ("oof", "public", "private")]
    assert table("docs/runs.md", f"{runs[-1]} |")[4:] == [*scores, f"{found['train_seconds'] / 3600:.1f}"]
    assert [int(run) for run in runs] == list(range(1, len(runs) + 1))


@committed
@pytest.mark.parametrize(("name", "entry"), CLAIMS.items(), ids=CLAIMS)
def test_the_claims_page_has_the_committed_scores(name, entry):
    random, honest = entry["scores"].get("their rows"), entry["scores"]["PrivateTest"]
    recent = f"{100 * honest['last_epochs']['low']:.2f} to {percent(honest['last_epochs']['high'])}"
    assert table("docs/claims.md", f"`{name}` |", "## First results")[2:] == [
        percent(random["last"]["accuracy"]) if random else "", percent(honest["last"]["accuracy"]), recent,
        percent(honest["without_duplicates"]["accuracy"]),
    ]  # fmt: skip


@committed
def test_every_committed_submission_is_the_one_that_was_scored():
    assert list(ENTRIES.index) == [*config.load().names, *config.load().externals, "ensemble"]
    for name, entry in ENTRIES.iterrows():
        path = ROOT / f"submissions/{name}.csv"
        assert len(submission.read(path, 7178)) == 7178
        assert submission.sha256(path) == entry["sha256"]


@committed
def test_the_committed_report_is_what_the_code_writes(monkeypatch):
    monkeypatch.chdir(ROOT)
    pages = report.render(report.TEMPLATE, report.context()), (ROOT / report.RESULTS / "report.md").read_text()
    now, kept = (re.sub(r"(?m)^- (Git|Machine|Versions) .*", "", page).splitlines() for page in pages)
    assert now == kept


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    text, makefile = (ROOT / page).read_text(), (ROOT / "Makefile").read_text()
    for verb, options in re.findall(r"(?m)(?:`|^)make ([a-z]+)([^`\n#]*)", text):
        assert re.search(rf"(?m)^{verb}:.* ## ", makefile), verb
        for option in re.findall(r"\b[A-Z]+(?==)", options):
            assert re.search(rf"(?m)^{verb}:.*\b{option}=", makefile), (verb, option)
    known = {(each.name or each.callback.__name__).replace("_", "-") for each in __main__.app.registered_commands}
    assert set(re.findall(r"python -m pipeline ([a-z-]+)", text)) <= known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (ROOT / page).read_text()):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        titles = re.findall(r"(?m)^#+ (.*)", target.read_text()) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles], link


def test_the_examples_of_params_are_right(tmp_path, monkeypatch):
    (tmp_path / "mine.npz").touch()
    monkeypatch.setattr(config, "EXTERNAL", tmp_path)
    examples = re.findall(r"```yaml\n(.*?)```", HOWTO, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        document = config.read(ROOT / "params.yaml")
        for section, change in YAML(typ="safe").load(example).items():
            document[section] |= change
        config.parse(document)


def python_of(title):
    """The examples in Python below a title of howto."""
    section = HOWTO.partition(f"\n### {title}\n")[2].partition("\n##")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_example_of_an_architecture_is_one():
    (example,) = python_of("An architecture")
    found = {}
    exec(example, found)
    network = found["build"]()
    for side in (48, 40):
        np.testing.assert_allclose(network(np.zeros((2, side, side, 1))).numpy().sum(axis=1), 1, rtol=1e-5)


def test_the_example_of_an_external_member_is_one(stand):
    _, data, dealt = fake_run.build()
    (example,) = python_of("An external member")
    known = {"oof": np.full((len(dealt.rows), 7), 1 / 7), "test": np.full((len(data.test_rows()), 7), 1 / 7)}
    exec(example, known)
    assert ensemble.read_external("mine", data, dealt).oof.shape == (len(dealt.rows), 7)


def test_the_example_of_a_metric_gives_a_column(monkeypatch):
    function, line = python_of("A metric")
    exec(function, found := {"np": np})
    monkeypatch.setattr(metrics, "mean_recall", found["mean_recall"], raising=False)
    code, beside = (ROOT / "pipeline/evaluation/score.py").read_text(), '        "private_macro_f1": round('
    assert beside in code
    exec(code.replace(beside, line + beside), found := {"__name__": "score"})
    assert found["judge"](PREDICTED, PREDICTED, TRUTH)["private_mean_recall"] == 0.625  # (1/2 + 1 + 1 + 0) / 4


def test_the_graph_of_readme_has_every_stage():
    (graph,) = re.findall(r"```mermaid\n(.*?)```", README, re.DOTALL)
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(re.findall(r"\b(?!flowchart|LR)\w+", graph)) == set(stages)
