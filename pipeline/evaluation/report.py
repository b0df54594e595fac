"""Tell all that a run found on one page: results first, then data, models, curves, errors, calibration, provenance.

Reads params.yaml, submissions/scores.csv and results/ (data.json, ensemble.json, analysis.json, plots/, and where they
are there claims.json, speedrun.json and seeds.json), so git alone is enough to write it anew. Writes results/report.md
by report.md.j2, which holds all words and tables, and the same as results/report.html, which needs nothing beside it.
"""

import importlib.metadata
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
from pipeline.config import Config, Recipe, Student
from pipeline.errors import UserError
from pipeline.evaluation import board, ensemble, figures, metrics, submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.training import machine

RESULTS = Path("results")
PACKAGES = ("dvc", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")


def number(value: Any, digits: int = 3) -> str:
    """A number with so many decimals, what stands there instead, or blank where there is none."""
    if isinstance(value, str) and value == UNKNOWN:
        return value
    return "" if value is None else f"{round(float(value), digits) + 0.0:.{digits}f}"  # + 0.0: no -0.000


def points(value: float) -> str:
    """A difference of ratios, in percentage points."""
    return f"{round(100 * value, 2) + 0.0:+.2f}"


def head(*titles: str) -> str:
    """The first two lines of a table in Markdown: the first column is text without a title, the others are numbers."""
    return f"| | {' | '.join(titles)} |\n|:--|{'--:|' * len(titles)}"


def best(text: str, ways: str) -> str:
    """A table in Markdown with the best cells of some columns in bold.

    Parameters
    ----------
    ways : a sign for each column after the first: + (the most is best), - (the least is), or . (none is).
    """
    lines = [line.split("|") for line in text.strip().splitlines()]
    for place, way in enumerate(ways, start=2):
        numbers = {}
        for cells in lines[2:]:
            if found := re.search(r"[-+]?\d[\d.]*", cells[place].split("→")[-1].replace(",", "")):
                numbers[cells[1]] = float(found[0])
        for cells in lines[2:]:
            if way != "." and numbers.get(cells[1]) == (max if way == "+" else min)(numbers.values(), default=0.0):
                cells[place] = f" **{cells[place].strip()}** "
    return "\n".join("|".join(cells) for cells in lines) + "\n"


def square(found: dict[str, dict[str, float]], order: list[str], show: Callable[[Any], str]) -> str:
    """A table in Markdown of values by two names, blank where there is none."""
    return board.markdown(pd.DataFrame(found).T.reindex(order)[order].map(show, na_action="ignore").fillna(""))


def optional(name: str, verb: str) -> Any:
    """What a file of results/ that only `make VERB` writes holds; None where it is missing."""
    path = RESULTS / name
    if not path.exists():
        return None
    with files.reading(path, f"make {verb}"):
        return dict(json.loads(path.read_bytes()))


def recipes(settings: Config, names: list[str]) -> pd.DataFrame:
    """What decides how each model is trained; blank: off."""
    found = {}
    for name in names:
        model = settings.model(name)
        found[name] = {"architecture": model.architecture, "seed": settings.seed_of(name)} | model.used()
        if isinstance(model, Student):
            found[name] |= {"teachers": ", ".join(model.teachers), "teacher_weight": model.teacher_weight}
    frame = pd.DataFrame(found, dtype=object)
    keys = ["architecture", "seed", "teachers", "teacher_weight", *Recipe.model_fields]
    return frame.reindex([key for key in keys if key in frame.index]).fillna("")


def revision() -> str:
    """The git revision of the code, with "-dirty" where it was changed since; "unknown" outside git."""
    code = ("pipeline", "dvc.yaml", "params.yaml", "requirements.lock")
    try:
        commit, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", *code))
        )
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return f"{commit}-dirty" if changes else commit


def of_other_params(settings: Config, speedrun: Any, seeds: Any) -> dict[str, bool]:
    """Whether these results were made by another params.yaml than the one that is here."""
    own = settings.speedrun
    wanted = own and [own.model, own.networks, settings.speedrun_recipe().model_dump()]
    now = json.loads(json.dumps({key: value for key, value in config.read().items() if key != "seed"}))
    return {
        "speedrun": bool(speedrun) and wanted != [speedrun.get(key) for key in ("model", "networks", "recipe")],
        "seeds": bool(seeds) and seeds.get("params") != now,
    }


def context() -> dict[str, Any]:
    """All that report.md.j2 shows. Raises UserError where a file is missing, damaged or of another run."""
    settings, analysis = config.load(), submission.analysis()
    scores = submission.scores()
    order = [entry["name"] for entry in scores]
    if set(order) != {*settings.names, *settings.externals, config.ENSEMBLE}:
        raise UserError(f"{submission.TABLE} is of other submissions than {config.PATH}; run: {submission.REMEDY}")
    with files.reading(RESULTS / "data.json", "dvc repro -f audit"):
        data = json.loads((RESULTS / "data.json").read_bytes())
    models, rows = [name for name in order if name in settings.names], submission.judged_rows(analysis)
    speedrun, seeds = optional("speedrun.json", "speedrun"), optional("seeds.json", "seeds")
    found = ensemble.result(order)
    notes = [board.NOTES[kind] for kind in sorted({entry["data"] for entry in scores}) if kind in board.NOTES]
    return {
        "config": settings, "analysis": analysis, "data": data, "scores": scores, "order": order, "models": models,
        "members": [name for name in order if name in found.weights],
        "rows": rows, "judged": analysis[rows], "ensemble": found, "classes": CLASSES,
        "splits": SPLITS, "notes": notes,
        "board": board.table(scores), "places": board.places(scores),
        "recipes": recipes(settings, models), "attention": (figures.FOLDER / "attention.png").exists(),
        "claims": optional("claims.json", "claims"), "speedrun": speedrun, "seeds": seeds,
        "of_other_params": of_other_params(settings, speedrun, seeds),
        "minutes": sum(entry["train_seconds"] for entry in scores if entry["name"] in models) / 60,
        "revision": revision(), "params": config.PATH.read_text(encoding="utf-8").rstrip(),
        "machine": f"{machine.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
    }  # fmt: skip


def render(template: str, shown: dict[str, Any]) -> str:
    """A template of this folder with what it shows."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=template.endswith(".html.j2"),
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "number": number, "points": points, "table": board.markdown, "p_value": board.p_value,
        "spread": board.spread, "deviation": metrics.spread, "seeds": board.seeds, "best": best,
    }  # fmt: skip
    environment.globals |= {"head": head, "square": square, "show_percent": percent, "show_p_value": board.p_value}
    try:
        return environment.get_template(template).render(shown)
    except (jinja2.TemplateError, *files.DAMAGE) as trouble:
        raise UserError(f"{RESULTS}/ has a file of another version ({trouble}); make all of it again") from None


def curves() -> dict[str, Any]:
    """The learning curves as Vega-Lite. Raises UserError where the table of them cannot be used."""
    path = figures.FOLDER / "curves.csv"
    with files.reading(path, submission.REMEDY):
        return figures.chart(pd.read_csv(path), "lines", x="epoch", y="val_accuracy")


def picture(path: Path) -> str:
    """A picture as an address that holds it. Raises UserError where it is missing."""
    with files.reading(path, "make repro, or make claims"):
        return figures.address(path.read_bytes())


def page(markdown: str, curves: dict[str, Any]) -> str:
    """The report as HTML that holds its pictures, with learning curves to be zoomed.

    HTML inside of the Markdown is shown as text, but for <details> and <summary>.
    """
    body = MarkdownIt("js-default").render(markdown)
    body = re.sub(r"<p>&lt;details&gt;&lt;summary&gt;(.*)&lt;/summary&gt;</p>", r"<details><summary>\1</summary>", body)
    body = body.replace("<p>&lt;/details&gt;</p>", "</details>")
    body = re.sub('<img src="plots/curves.png"[^>]*>', '<span id="curves"></span>', body)
    body = re.sub('(?<=<img src=")[^"]+', lambda found: picture(RESULTS / found[0]), body)
    shown = {"body": body, "curves": curves, "bundle": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")}
    return render("report.html.j2", shown)


def main() -> None:
    """Run the stage."""
    markdown = render("report.md.j2", context())
    files.write(RESULTS / "report.md", markdown.encode())
    files.write(RESULTS / "report.html", page(markdown, curves()).encode())
    print(f"{RESULTS}/report.html; the same as Markdown: {RESULTS}/report.md")
