"""Tell all that a run found on one page: results first, then data, models, curves, errors, calibration, provenance.

Reads params.yaml and results/ (data.json, ensemble.json, scores.json, analysis.json, plots/, and where they are there
claims.json, speedrun.json and seeds.json), so git alone is enough to write it anew. Writes results/report.md by
report.md.j2, which holds all words, and the same as results/report.html, which needs nothing beside it.
"""

import base64
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markdown_it import MarkdownIt
from tabulate import tabulate

from pipeline import config, files
from pipeline.competition import CLASSES, SPLITS
from pipeline.config import ENSEMBLE, Config, Recipe, Student
from pipeline.evaluation import board, ensemble, figures, submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.training import machine

RESULTS = Path("results")
PACKAGES = ("dvc", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")
Context = dict[str, Any]  # what report.md.j2 shows; tables are data frames of texts


@dataclass(frozen=True)
class Run:
    """What the report is written from: params.yaml, and the files of results/ that every run has.

    Parameters
    ----------
    scores : a line for each submission, best out of fold first, with the columns of submissions/scores.csv.
    """

    config: Config
    scores: pd.DataFrame
    ensemble: ensemble.Result
    analysis: dict[str, Any]
    data: dict[str, Any]

    @property
    def order(self) -> list[str]:
        """All submissions, best out of fold first."""
        return list(map(str, self.scores.index))

    @property
    def models(self) -> list[str]:
        """The models among them."""
        return [name for name in self.order if name in self.config.names]


def read() -> Run:
    """Read them. Raises UserError where one is missing, damaged or of another run."""
    settings, analysis, path = config.load(), submission.analysis(), RESULTS / "scores.json"
    with files.reading(path, submission.REMEDY):
        scores = pd.DataFrame(json.loads(path.read_bytes()), dtype=object).T
        if set(scores.index) != {*settings.names, *settings.externals, ENSEMBLE}:
            raise ValueError("it is of other submissions than params.yaml")
        scores = scores.sort_values("oof_accuracy", ascending=False, kind="stable")
    path = RESULTS / "data.json"
    with files.reading(path, "dvc repro -f audit"):
        data = json.loads(path.read_bytes())
        data["provenance"]["files"], data["classes"], data["identical_pictures"], data["nearly_identical_pictures"]
    return Run(settings, scores, ensemble.result(list(scores.index)), analysis, data)


def number(value: Any, digits: int = 3) -> str:
    """A number with so many decimals, what stands there instead, or blank where there is none."""
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no -0.000


def points(value: float) -> str:
    """A difference of ratios, in percentage points; blank where there is none."""
    return "" if pd.isna(value) else f"{round(100 * value, 2) + 0.0:+.2f}"


def table(frame: pd.DataFrame) -> str:
    """A data frame in Markdown: the index is text, the columns are numbers."""
    lines = [[str(cell).replace("|", r"\|") for cell in line] for line in frame.reset_index().to_numpy()]
    alignment = ("left", *["right"] * len(frame.columns))
    return tabulate(lines, ["", *frame.columns], tablefmt="pipe", disable_numparse=True, colalign=alignment)


def columns(frame: pd.DataFrame, chosen: Mapping[str, tuple[str, Callable[[Any], str]]]) -> pd.DataFrame:
    """A data frame to show: by heading, a column of `frame` and how its values are written."""
    return pd.DataFrame({title: frame[key].map(show) for title, (key, show) in chosen.items()})


def square(found: dict[str, dict[str, float]], order: list[str], show: Callable[[Any], str]) -> pd.DataFrame:
    """A data frame to show of values by two names, blank where there is none."""
    frame = pd.DataFrame.from_dict(found, orient="index").reindex(index=order, columns=order)
    return frame.map(lambda value: "" if pd.isna(value) else show(value))


def results(run: Run) -> Context:
    """The board, and whether the differences on it are more than chance."""
    scores, rows = run.scores, submission.judged_rows(run.analysis)
    lines = submission.plain(scores.rename_axis("name").reset_index())
    ranked = board.ranked(lines)
    ours = [(rank, f"**{each['name']}**", *rest) for each in lines for rank, _, *rest in [board.line(each)]]
    shown = pd.DataFrame([*ours, *(team for _, team in board.teams() if ranked)], columns=list(board.HEADERS))
    more = {
        "out of fold, neither duplicate nor near duplicate": ("oof_no_near_duplicate", percent),
        "accuracy": ("private_accuracy", percent), "no duplicate": ("private_no_duplicate", percent),
        "nor near duplicate": ("private_no_near_duplicate", percent), "macro-F1": ("private_macro_f1", number),
        "top 2": ("private_top_2", percent), "log-loss": ("private_log_loss", number),
        "Brier": ("private_brier", number),
    }  # fmt: skip
    return {
        "rows": rows,
        "ranked": ranked,
        "notes": [board.NOTES[each] for each in sorted(set(scores["data"])) if each in board.NOTES],
        "board": shown.set_index(""),
        "more": columns(scores, more),
        "paired": square(run.analysis[rows]["paired"], run.order, board.p_value),
    }


def optional(name: str, verb: str, show: Callable[[dict[str, Any]], Any]) -> Any:
    """What is shown of a file of results/ that only `make VERB` writes; None where it is missing."""
    path = RESULTS / name
    if not path.exists():
        return None
    with files.reading(path, f"make {verb}"):
        return show(json.loads(path.read_bytes()))


def claims(found: dict[str, Any]) -> pd.DataFrame:
    """What the sources claim, and what their protocol and ours give."""
    lines = {}
    for name, entry in found.items():
        theirs, honest = entry["theirs_here"] or {"best_epoch": None, "last_epoch": None}, entry["honest"]
        lines[name] = {
            "claimed": entry["claimed"], "measured on": entry["measured_on"], "epochs there": entry["epochs_there"],
            "epochs here": honest["epochs"],
            "epoch chosen by their rows": percent(theirs["best_epoch"] or ""),
            "last epoch, their rows": percent(theirs["last_epoch"] or ""),
            "honest: trained on": f"{honest['trained_rows']:,}", "honest": percent(honest["last_epoch"]),
        }  # fmt: skip
    return pd.DataFrame.from_dict(lines, orient="index")


def speedrun(settings: Config, found: dict[str, Any]) -> Context:
    """How soon a few networks without folds get there."""
    own = settings.speedrun
    now = own and (own.model, own.networks, settings.speedrun_recipe().model_dump())
    machines = sorted({each["processor"] for entry in found["by_seed"].values() for each in entry["trained_with"]})
    return {
        "model": found["model"], "networks": found["networks"], "epochs": found["recipe"]["epochs"],
        "machines": ", ".join(machines), "changed": now != (found["model"], found["networks"], found["recipe"]),
        "table": pd.DataFrame(board.seed_rows(found), columns=list(board.SEED_HEADERS)).set_index("seed"),
    }  # fmt: skip


def seeds(found: dict[str, Any]) -> Context:
    """Mean and deviation over whole runs with different seeds."""
    frame = pd.DataFrame.from_dict(found["submissions"], orient="index")
    frame = frame.sort_values("oof_accuracy", key=lambda each: each.map(lambda entry: -entry["mean"]))
    now = {key: value for key, value in config.read().items() if key != "seed"}
    return {
        "numbers": found["seeds"], "changed": found["params"] != json.loads(json.dumps(now)),
        "table": frame.map(board.spread).rename(columns=lambda key: key.replace("_", " ")),
    }  # fmt: skip


def parts(run: Run) -> Context:
    """What members, weights and test-time augmentation add, by Training's labels."""
    found, order = run.ensemble, [name for name in run.order if name in run.ensemble.weights]
    whole = found.methods[found.method]
    judged = {"accuracy": ("oof_accuracy", percent), "log-loss": ("oof_log_loss", number),
              "expected Brier": ("expected_brier", lambda value: number(value, 4))}  # fmt: skip
    members = pd.DataFrame.from_dict(found.members, orient="index").loc[order]
    members["weight"] = pd.Series(found.weights)
    for key in ("oof_accuracy", "expected_brier"):
        without = pd.Series({name: each[key] for name, each in found.without.items()}, dtype=float)
        members[f"less_{key}"] = without - whole[key]
    tta = {name: found.submissions[name].test_time_augmentation for name in run.order}
    augmentation = {
        name: {
            "without": percent(each["accuracy_without"]), "with": percent(each["accuracy_with"]),
            "points": points(each["accuracy_with"] - each["accuracy_without"]),
            "p-value": board.p_value(each["p_value"]),
        } if each else {"without": "not used"} for name, each in tta.items()
    }  # fmt: skip
    return {
        "method": found.method,
        "members": columns(members, {"weight": ("weight", number)} | judged | {
            "adds, points": ("less_oof_accuracy", lambda value: points(-value)),
            "takes off Brier": ("less_expected_brier", lambda value: number(value, 4)),
        }),
        "methods": columns(pd.DataFrame.from_dict(found.methods, orient="index"), judged),
        "augmentation": pd.DataFrame.from_dict(augmentation, orient="index").fillna(""),
        "agreement": square(found.agreement, order, percent),
    }  # fmt: skip


def data(run: Run) -> Context:
    """What the data holds."""
    found = run.data
    classes = pd.DataFrame(found["classes"]).reindex(CLASSES)[list(SPLITS)].map(lambda rows: f"{rows:,}")
    classes.loc["constant pictures"] = [str(found["constant_pictures"][split]) for split in SPLITS]
    duplicates = {
        f"{what}, {pair}": {
            "rows": f"{entry['rows']:,}", "of the split": percent(entry["part"]),
            "labels agree": percent(entry["labels_agree"]),
        }
        for what, key in (("identical", "identical_pictures"), ("near", "nearly_identical_pictures"))
        for pair, entry in found[key].items() if isinstance(entry, dict) and "part" in entry
    }  # fmt: skip
    frame = pd.DataFrame.from_dict(duplicates, orient="index")
    return {"data": found, "source": found["provenance"], "classes": classes, "duplicates": frame}


def models(run: Run) -> Context:
    """What was trained, how, what it cost, and how much its folds differ."""
    lines, recipes = {}, {}
    for name in run.models:
        alone, by_fold = submission.singles(run.analysis, name), run.ensemble.submissions[name].folds
        lines[name] = {
            "parameters": f"{run.scores['parameters'][name]:,}",
            "million multiply-adds": f"{alone['multiply_adds'] / 1e6:.1f}",
            "minutes, all folds": f"{run.scores['train_seconds'][name] / 60:.1f}",
            "folds: mean ± deviation": f"{np.mean(by_fold):.2%} ± {100 * np.std(by_fold, ddof=1):.2f}",
            "single networks on PrivateTest": UNKNOWN if alone["mean"] == UNKNOWN else board.spread(alone),
            "of them without duplicates": percent(alone["no_duplicate_mean"]),
            "test rows on which two of them agree": percent(alone["agree"]),
        }
        model = run.config.model(name)
        recipes[name] = {"architecture": model.architecture, "seed": run.config.seed_of(name)} | model.used()
        if isinstance(model, Student):
            recipes[name] |= {"teachers": ", ".join(model.teachers), "teacher_weight": model.teacher_weight}
    frame = pd.DataFrame(recipes, dtype=object)
    keys = ["architecture", "seed", "teachers", "teacher_weight", *Recipe.model_fields]
    return {
        "models": pd.DataFrame.from_dict(lines, orient="index"),
        "recipes": frame.reindex([key for key in keys if key in frame.index]).fillna(""),
    }


def errors(run: Run) -> Context:
    """Where the submissions go wrong."""
    found = run.analysis[submission.judged_rows(run.analysis)]["by_class"]
    whole = {"precision": ("precision", number), "recall": ("recall", number), "F1": ("f1", number)}
    recall = {name: {each: number(found[name][each]["recall"], 2) for each in CLASSES} for name in run.order}
    return {
        "by_class": columns(pd.DataFrame(found[ENSEMBLE]).T, whole | {"rows": ("rows", "{:,.0f}".format)}),
        "recall": pd.DataFrame.from_dict(recall, orient="index"),
        "attention": (figures.FOLDER / "attention.png").exists(),
    }


def calibration(run: Run) -> Context:
    """How far the probabilities can be believed."""
    keys = {"log-loss": "log_loss", "Brier score": "brier", "calibration error": "calibration_error"}
    oof, private = {}, {}
    for name in run.order:
        entry, scores = run.ensemble.submissions[name], run.scores.loc[name]
        oof[name] = {"temperature": number(entry.temperature, 2)} | {
            title: f"{number(entry.calibration[key])} → {number(entry.calibration_tempered[key])}"
            for title, key in keys.items()
        }
        private[name] = {
            title: f"{number(scores[f'private_{key}'])} → {number(scores[f'private_{key}_tempered'])}"
            for title, key in keys.items()
        }
    frames = [pd.DataFrame.from_dict(each, orient="index") for each in (oof, private)]
    return {"calibration_oof": frames[0], "calibration_private": frames[1]}


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


def origin(run: Run) -> Context:
    """What it was made from, by what, and in which time."""
    source = run.data["provenance"]
    published = {
        name: {
            "bytes": f"{entry['bytes']:,}",
            "md5": entry["md5"],
            "Kaggle's own": "yes" if entry["official"] else "no",
        }
        for name, entry in source["files"].items()
    }
    installed = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    facts = {
        "source of the data": source["source"],
        "git revision of this page": revision(),
        "seed": run.config.seed,
        "cells trained with": "; ".join(run.analysis["trained_with"]),
        "training, all cells": f"{run.scores['train_seconds'][run.models].sum() / 60:.0f} minutes",
        "this page written on": f"{machine.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "with": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if name in installed),
    }
    return {
        "published": pd.DataFrame.from_dict(published, orient="index", columns=["bytes", "md5", "Kaggle's own"]),
        "facts": pd.DataFrame({"": facts}),
        "digests": run.scores[["sha256"]].rename("{}.csv".format).rename(columns={"sha256": "SHA-256"}),
        "params": config.PATH.read_text(encoding="utf-8").rstrip(),
    }


def context(run: Run) -> Context:
    """All that report.md.j2 shows."""
    return {
        "config": run.config, **results(run), **parts(run), **data(run), **models(run), **errors(run),
        **calibration(run), **origin(run),
        "claims": optional("claims.json", "claims", claims),
        "speedrun": optional("speedrun.json", "speedrun", lambda found: speedrun(run.config, found)),
        "seeds": optional("seeds.json", "seeds", seeds),
    }  # fmt: skip


def render(template: str, shown: Context) -> str:
    """A template of this folder with what it shows."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=template.endswith(".html.j2"),
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["table"] = table
    return environment.get_template(template).render(shown)


def page(markdown: str) -> str:
    """The report as HTML that holds its pictures; HTML inside of the Markdown is shown as text."""
    converter = MarkdownIt("js-default")
    tokens = converter.parse(markdown)
    headings = [place for place, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    for number, place in enumerate(headings, start=1):
        tokens[place].attrSet("id", f"part{number}")
    for token in (child for each in tokens for child in each.children or [] if child.type == "image"):
        picture = base64.b64encode((RESULTS / str(token.attrs["src"])).read_bytes()).decode()
        token.attrSet("src", f"data:image/png;base64,{picture}")
    body = converter.renderer.render(tokens, converter.options, {})
    return render("report.html.j2", {"titles": [tokens[place + 1].content for place in headings], "body": body})


def main() -> None:
    """Run the stage."""
    markdown = render("report.md.j2", context(read()))
    files.write(RESULTS / "report.md", markdown.encode())
    files.write(RESULTS / "report.html", page(markdown).encode())
    print(f"{RESULTS}/report.html; the same as Markdown: {RESULTS}/report.md")
