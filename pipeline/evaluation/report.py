"""Report of a run on one page: results, data, models, learning curves, errors, calibration, provenance.

Reads params.yaml, submissions/scores.csv and results/ (data.json, ensemble.json, analysis.json, plots/, and if they
exist claims.json, speedrun.json and seeds.json). All of these are in git, so a clone without data can write the report.
Writes results/report.md from the template report.md.j2, and results/report.html, a self-contained file with the same
content.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
from markdown_it import MarkdownIt

from pipeline import config, files
from pipeline.competition import CLASSES, SPLITS
from pipeline.errors import UserError
from pipeline.evaluation import board, ensemble, figures, metrics, submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.training import machine

RESULTS = Path("results")
TEMPLATE = Path(__file__).with_name("report.md.j2")
PACKAGES = ("dvc", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")


def number(value: Any, digits: int = 3) -> str:
    """Format a number with a fixed number of decimals; "unknown" stays unchanged, None becomes empty."""
    return value or "" if value in (None, UNKNOWN) else f"{float(value):z.{digits}f}"


def points(value: float) -> str:
    """Format a difference of ratios in percentage points."""
    return f"{100 * value:+z.2f}"


def head(*titles: str) -> str:
    """Return the first two lines of a Markdown table: an untitled column of text, then columns of numbers."""
    return f"| | {' | '.join(titles)} |\n|:--|{'--:|' * len(titles)}"


def best(text: str, directions: str) -> str:
    """Mark the best cells of a Markdown table in bold.

    Parameters
    ----------
    directions : one sign for each column after the first: + (highest is best), - (lowest is best), or . (no marking).
    """
    lines = [line.split("|") for line in text.strip().splitlines()]
    for column, direction in enumerate(directions, start=2):
        cells = pd.Series([line[column].split("→")[-1].replace(",", "") for line in lines[2:]])
        values = cells.str.extract(r"([-+]?\d[\d.]*)", expand=False).astype(float)
        top = {"+": values.max(), "-": values.min(), ".": None}[direction]
        for row in values.index[values == top]:
            lines[row + 2][column] = f" **{lines[row + 2][column].strip()}** "
    return "\n".join("|".join(line) for line in lines) + "\n"


def square(values: dict[str, dict[str, float]], order: list[str], show: Callable[[Any], str]) -> str:
    """Return values by two names as a square Markdown table; missing values are blank."""
    return board.markdown(pd.DataFrame(values).T.reindex(order)[order].map(show, na_action="ignore").fillna(""))


def optional(name: str, verb: str) -> Any:
    """Read a JSON file of results/ that only `make VERB` writes; return None where it is missing."""
    path = RESULTS / name
    if not path.exists():
        return None
    with files.reading(path, f"make {verb}"):
        return dict(json.loads(path.read_bytes()))


def recipes(settings: config.Config, names: list[str]) -> pd.DataFrame:
    """Return the settings of each model's training as a table; disabled keys are blank."""
    columns = {}
    for name in names:
        model = settings.model(name)
        columns[name] = {"architecture": model.architecture, "seed": settings.seed_of(name)} | model.used()
        columns[name]["folds"] = len(settings.folds_of(name))
        if isinstance(model, config.Student):
            columns[name] |= {"teachers": ", ".join(model.teachers), "teacher_weight": model.teacher_weight}
    frame = pd.DataFrame(columns, dtype=object)
    keys = ["architecture", "seed", "folds", "teachers", "teacher_weight", *config.Recipe.model_fields]
    return frame.reindex([key for key in keys if key in frame.index]).fillna("")


def revision() -> str:
    """Return the git revision of the code, with "-dirty" if there are uncommitted changes; "unknown" outside git."""
    code = ("pipeline", "dvc.yaml", "params.yaml", "requirements.lock")
    try:
        commit, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", *code))
        )
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return f"{commit}-dirty" if changes else commit


def of_other_params(settings: config.Config, speedrun: Any, seeds: Any) -> dict[str, bool]:
    """Return whether each of these results was made with a params.yaml other than the current one."""
    section = settings.speedrun
    wanted = section and (section.architecture, section.resolved().model_dump(), [*map(str, section.seeds)])
    made = speedrun and (speedrun.get("architecture"), speedrun.get("recipe"), [*(speedrun.get("by_seed") or ())])
    now = {key: value for key, value in config.read().items() if key != "seed"}
    return {"speedrun": bool(speedrun) and wanted != made, "seeds": bool(seeds) and seeds.get("params") != now}


def context() -> dict[str, Any]:
    """Return the variables of report.md.j2. Raises UserError where a file is missing, damaged or from another run."""
    settings, analysis = config.load(), submission.analysis()
    scores = submission.scores()
    order = [entry["name"] for entry in scores]
    if set(order) != {*settings.names, *settings.externals, config.ENSEMBLE}:
        raise UserError(f"{submission.TABLE} contains other submissions than {config.PATH}; run: make repro")
    with files.reading(RESULTS / "data.json", "dvc repro -f audit"):
        data = json.loads((RESULTS / "data.json").read_bytes())
    models, rows = [name for name in order if name in settings.names], submission.evaluated_rows(analysis)
    speedrun, seeds = optional("speedrun.json", "speedrun ALL=1"), optional("seeds.json", "seeds SEEDS='1 2 3'")
    result = ensemble.result(order)
    notes = [board.NOTES[kind] for kind in sorted({entry["data"] for entry in scores}) if kind in board.NOTES]
    return {
        "config": settings, "analysis": analysis, "data": data, "scores": scores, "order": order, "models": models,
        "members": [name for name in order if name in result.weights],
        "rows": rows, "evaluated": analysis[rows], "ensemble": result, "classes": CLASSES,
        "splits": SPLITS, "notes": notes,
        "board": board.table(scores), "places": board.places(scores), "winner": board.WINNER,
        "recipes": recipes(settings, models), "attention": (figures.FOLDER / "attention.png").exists(),
        "claims": optional("claims.json", "claims"), "speedrun": speedrun, "seeds": seeds,
        "of_other_params": of_other_params(settings, speedrun, seeds),
        "minutes": sum(entry["train_seconds"] for entry in scores if entry["name"] in models) / 60,
        "revision": revision(), "params": config.PATH.read_text(encoding="utf-8").rstrip(),
        "machine": f"{machine.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {machine.version(name)}" for name in PACKAGES),
    }  # fmt: skip


def render(template: Path, variables: dict[str, Any]) -> str:
    """Render a template file with these variables."""
    environment = jinja2.Environment(
        autoescape=template.name.endswith(".html.j2"), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "number": number, "points": points, "table": board.markdown, "p_value": board.p_value,
        "spread": board.spread, "deviation": metrics.spread, "seeds": board.seeds, "outlook": board.outlook,
        "best": best,
    }  # fmt: skip
    environment.globals |= {"head": head, "square": square, "show_percent": percent, "show_p_value": board.p_value}
    try:
        return environment.from_string(template.read_text(encoding="utf-8")).render(variables)
    except (jinja2.TemplateError, *files.DAMAGE) as error:
        raise UserError(
            f"{RESULTS}/ has a file from another version ({error}); run: make repro; for claims.json, seeds.json or "
            "speedrun.json: make claims, make seeds SEEDS='1 2 3' or make speedrun ALL=1"
        ) from None


def page(markdown: str, curves: dict[str, Any]) -> str:
    """Return the report as HTML with embedded pictures and zoomable learning curves.

    HTML in the Markdown is shown as text, except <details> and <summary>.
    """
    body = MarkdownIt("js-default").render(markdown)
    body = re.sub(r"<p>&lt;details&gt;&lt;summary&gt;(.*)&lt;/summary&gt;</p>", r"<details><summary>\1</summary>", body)
    body = body.replace("<p>&lt;/details&gt;</p>", "</details>")
    body = re.sub('<img src="plots/curves.png"[^>]*>', '<span id="curves"></span>', body)
    body = re.sub('(?<=<img src=")[^"]+', lambda match: figures.data_url((RESULTS / match[0]).read_bytes()), body)
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")
    return render(TEMPLATE.with_name("report.html.j2"), {"body": body, "curves": curves, "bundle": bundle})


def main() -> None:
    """Run the stage."""
    markdown = render(TEMPLATE, context())
    files.write(RESULTS / "report.md", markdown.encode())
    with files.reading(figures.FOLDER, f"{submission.REMEDY}, or make claims"):
        curves = figures.chart(pd.read_csv(figures.FOLDER / "curves.csv"), "lines", x="epoch", y="val_accuracy")
        html = page(markdown, curves)
    files.write(RESULTS / "report.html", html.encode())
    print(f"{RESULTS}/report.html; as Markdown: {RESULTS}/report.md")
