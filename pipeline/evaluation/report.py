"""Tell all that a run found on one page: results first, then data, networks, curves, errors, calibration, provenance.

Reads params.yaml, results/ (data.json, ensemble.json, scores.json, analysis.json, plots/, and where they are there
claims.json, speedrun.json and seeds.json) and submissions/scores.csv, so that git alone is enough to write it anew.
Writes results/report.html, which needs nothing beside it, and results/report.md, the same for the README's readers.
"""

import base64
import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline import architectures, files, params, recipe
from pipeline.competition import CLASSES, SIDE, SPLITS
from pipeline.data import folds
from pipeline.errors import UserError
from pipeline.evaluation import board, figures, submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.training import backend, machine

RESULTS = Path("results")
PACKAGES = ("dvc", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")


@dataclass(frozen=True)
class Table:
    """A table: the first column is text, the others are numbers."""

    caption: str
    headers: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """A part of the report, as both templates show it; `folded` tables are shown on demand."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)  # file in results/plots: caption
    folded: list[Table] = field(default_factory=list)
    listing: str = ""  # shown as it is


def read(name: str) -> dict[str, Any]:
    """A file of results/, by name. Raises UserError where it is missing or no JSON."""
    try:
        found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    except (OSError, ValueError) as trouble:
        raise UserError(f"{RESULTS / name} cannot be read ({trouble}); make it with: make repro") from None
    return found


def points(value: float) -> str:
    """A difference of ratios, in percentage points."""
    return f"{100 * value:+.2f}"


def number(value: Any, digits: int = 3) -> str:
    """A number with so many decimals, or what stands there instead."""
    return str(value) if isinstance(value, str) else f"{value:.{digits}f}"


def results(scores: dict[str, Any], analysis: dict[str, Any]) -> Section:
    """The board, and whether the differences on it are more than chance."""
    lines = board.rows(submission.scores(), {})
    swapped = [[line[1], line[0], *line[2:]] for line in (board.HEADERS, *lines)]  # names first
    table = Table("Our submissions (*) among the teams of 2013", swapped[0], swapped[1:])
    rows = submission.judged_rows(analysis)
    names = sorted(scores, key=lambda name: -scores[name]["oof_accuracy"])
    paired = Table(
        f"McNemar's exact test of every two on {rows}: p-values",
        ["", *names],
        [[one, *("" if one == other else board.p_value(analysis[rows]["paired"][one][other]) for other in names)]
         for one in names],
    )  # fmt: skip
    columns = {
        "out of fold, neither duplicate nor near duplicate": ("oof_no_near_duplicate", percent),
        "accuracy": ("private_accuracy", percent),
        "no duplicate": ("private_no_duplicate", percent), "nor near duplicate": ("private_no_near_duplicate", percent),
        "macro-F1": ("private_macro_f1", number), "top 2": ("private_top_2", percent),
        "log-loss": ("private_log_loss", number), "Brier": ("private_brier", number),
    }  # fmt: skip
    more = Table(
        "Without duplicates, and more than accuracy (PrivateTest, but for the first)",
        ["", *columns],
        [[name, *(show(entry[key]) for key, show in columns.values())] for name, entry in scores.items()],
    )
    worth = {entry["data"] for entry in scores.values()}
    duplicates = folds.duplicates()
    text = [
        "No code that trains for a submission, chooses or weighs reads a label of a test row: epochs, weights and "
        "temperatures come from Training's labels alone (recipes that people chose carry whatever they chose by). "
        "Intervals are 95 % (Wilson). An out-of-fold figure is that of single networks, which saw no duplicate of the row; "
        "test rows get the mean of all folds' networks, which is better, and may have a duplicate in Training. Parameters "
        "are of one network of each kind that has a say, minutes of all folds. “no duplicate” leaves out test rows whose "
        "picture stands in Training, byte for byte, “nor near duplicate” also those that stand there rescaled, recompressed "
        "or mirrored; near duplicates may stand on both sides of a fold.",
        *(
            [f"duplicates: {duplicates} in params.yaml, so not all Training rows were trained on and judged."]
            * (duplicates != "keep")
        ),
        *(board.NOTES[each] for each in sorted(worth) if each in board.NOTES),
    ]
    pictures = {"board.png": "The board of 2013", "splits.png": "Out of fold against both boards"}
    return Section("Results", text, [table, more, paired], pictures)


def optional(name: str, verb: str, needed: set[str]) -> dict[str, Any]:
    """A file of results/ that only `make VERB` writes, whose entries have the `needed` keys; {} where it is missing."""
    if not (RESULTS / name).exists():
        return {}
    try:
        found: dict[str, Any] = json.loads((RESULTS / name).read_text())
        if not all(needed <= set(entry) for entry in (found.values() if verb == "claims" else [found])):
            raise ValueError("keys are missing")
    except (OSError, ValueError, TypeError, AttributeError) as trouble:
        raise UserError(f"{RESULTS / name} cannot be read ({trouble}); delete it, or run: make {verb}") from None
    return found


def claims() -> Section | None:
    """What the sources claim, and why it cannot be compared: None where `make claims` was not run."""
    found = optional("claims.json", "claims", {"claimed", "measured_on", "epochs_there", "theirs_here", "honest"})
    rows = []
    for name, entry in found.items():
        theirs, honest = entry["theirs_here"], entry["honest"]
        rows.append([
            name, entry["claimed"], entry["measured_on"], str(entry["epochs_there"]), str(honest["epochs"]),
            percent(theirs["best_epoch"]) if theirs and theirs["best_epoch"] else "",
            percent(theirs["last_epoch"]) if theirs else "", f"{honest['trained_rows']:,}",
            percent(honest["last_epoch"]),
        ])  # fmt: skip
    headers = ["network", "claimed", "measured on", "epochs there", "epochs here", "epoch chosen by their rows",
               "last epoch, their rows", "honest: trained on", "honest"]  # fmt: skip
    text = [
        "Each source's recipe, run here twice, for as many epochs as the table says: trained and judged on the "
        "source's rows, at the epoch that those rows choose (where the source let them) and at the last one; and "
        "honestly, trained on Training (or, by an earlier version, three networks on two thirds of it each, and their "
        "mean) and judged on PrivateTest after the last epoch. No test-time augmentation."
    ]
    return Section("Claimed against ours", text, [Table("", headers, rows)]) if rows else None


def parts(ensemble: dict[str, Any]) -> Section:
    """What members, weights and test-time augmentation add, by Training's labels."""
    whole = ensemble["methods"][ensemble["method"]]

    def judged(found: dict[str, float]) -> list[str]:
        return [percent(found["oof_accuracy"]), number(found["oof_log_loss"]), number(found["expected_brier"], 4)]

    def adds(without: dict[str, float] | None) -> list[str]:
        if without is None:
            return ["", ""]
        less = without["expected_brier"] - whole["expected_brier"]
        return [points(whole["oof_accuracy"] - without["oof_accuracy"]), number(less, 4)]

    members = []
    for name, alone in ensemble["members"].items():
        weight = ensemble["weights"][name]
        shown = "" if weight is None else number(weight)
        members.append([name, shown, *judged(alone), *adds(ensemble["without"].get(name))])
    ways = [[way, *judged(got)] for way, got in ensemble["methods"].items()]
    flips = []
    for name, entry in ensemble["submissions"].items():
        if tta := entry["test_time_augmentation"]:
            with_it, without = tta["accuracy_with"], tta["accuracy_without"]
            cells = [percent(without), percent(with_it), points(with_it - without), board.p_value(tta["p_value"])]
        else:
            cells = ["not used", "", "", ""]
        flips.append([name, *cells])
    names = list(ensemble["agreement"])
    same = [[one, *(percent(ensemble["agreement"][one][other]) for other in names)] for one in names]
    return Section(
        "What each part adds",
        [
            f"All out of fold. The ensemble joins its members by “{ensemble['method']}”, each at its own temperature.",
            "Expected Brier: the Brier score (0 is perfect) to be expected of rows as hard as these, if they got the "
            "mean of all folds' networks, as test rows do. Here one network of a member judges a row; what the mean "
            "takes off is known without a label, from how far these networks are apart on test rows that have no duplicate "
            "in Training (Krogh & Vedelsby 1995). “bagged” makes it the least.",
        ],
        [
            Table(
                "Members",
                ["", "weight", "alone", "log-loss", "expected Brier", "adds, points", "takes off Brier"],
                members,
            ),
            Table("Ways to join them", ["", "accuracy", "log-loss", "expected Brier"], ways),
            Table(
                "Views at test time (mirrored, shifted, zoomed)", ["", "without", "with", "points", "p-value"], flips
            ),
            Table("Rows on which two members say the same class", ["", *names], same),
        ],
    )


def data_section(data: dict[str, Any]) -> Section:
    """What the data holds."""
    counts = [
        [name, *(f"{data['classes'][split][name]:,}" for split in SPLITS)] for name in CLASSES
    ] + [["constant pictures", *(str(data["constant_pictures"][split]) for split in SPLITS)]]  # fmt: skip
    duplicates = [
        [f"{what}, {pair}", f"{entry['rows']:,}", percent(entry["part"]), percent(entry["labels_agree"])]
        for what, key in (("identical", "identical_pictures"), ("near", "nearly_identical_pictures"))
        for pair, entry in data[key].items() if isinstance(entry, dict) and "part" in entry
    ]  # fmt: skip
    as_published = "equal" if data["classes_as_published"] else "do NOT equal"
    near = data["nearly_identical_pictures"]
    return Section(
        "Data",
        [
            f"The class counts {as_published} the published ones. {data['identical_pictures']['extra_copies']:,} rows "
            f"repeat a picture byte for byte; {data['identical_pictures']['groups_with_conflicting_labels']} groups of "
            f"identical pictures bear different labels. {near['rows_with_another']:,} rows have another one that is "
            f"nearly the same (correlation above {near['correlation']}); {near['mirrored_pairs']} pairs are mirrored.",
            *([f"The split: {data['provenance']['split']}."] if "split" in data["provenance"] else []),
            *filter(None, [data["provenance"].get("note", "")]),
        ],
        [
            Table("Rows by class", ["", *SPLITS], counts),
            Table("Duplicates across splits", ["", "rows", "of the split", "labels agree"], duplicates),
        ],
        {"classes.png": "Classes"},
    )


def at_full_size(network: Any) -> Any:
    """The same layers for whole pictures alone, with new weights: every output has a shape, which some leave open."""
    import keras

    return keras.models.clone_model(network, input_tensors=keras.Input((SIDE, SIDE, 1)))


def multiply_adds(network: Any) -> int:
    """Multiply-adds of one picture's forward pass through convolutions and dense layers; all else is small change.

    Parameters
    ----------
    network : at full size.
    """
    total = 0
    for layer in network.layers:
        places = int(np.prod(layer.output.shape[1:-1]))  # each takes all kernels once
        total += places * sum(int(np.prod(v.shape)) for v in layer.weights if v.name.endswith("kernel"))
        if type(layer).__name__ == "MultiHeadAttention":
            total += 2 * places**2 * layer.num_heads * layer.key_dim
    return total


def networks(scores: dict[str, Any], ensemble: dict[str, Any], analysis: dict[str, Any]) -> Section:
    """What was trained, what it cost, and how much its folds differ."""
    lines, layers, lessons = [], [], []
    for name in recipe.names():
        if lesson := recipe.lesson(name):
            who = ", ".join(lesson.teachers)
            lessons.append(
                f"{name} learns labels of which {lesson.taught:.0%} are what {who} say of the picture; its minutes do "
                "not contain theirs."
            )
        network, settings = at_full_size(architectures.build(name)), recipe.read(name)
        by_fold, alone = ensemble["submissions"][name]["folds"], submission.singles(analysis, name)
        lines.append([
            name, f"{network.count_params():,}", f"{multiply_adds(network) / 1e6:.1f}", str(settings.epochs),
            f"{scores[name]['train_seconds'] / 60:.1f}",
            f"{np.mean(by_fold):.2%} ± {100 * np.std(by_fold, ddof=1):.2f}",
            board.spread(alone) if alone["mean"] != UNKNOWN else UNKNOWN, percent(alone["no_duplicate_mean"]),
            percent(alone["agree"]),
        ])  # fmt: skip
        rows = [
            [type(layer).__name__, "x".join(map(str, layer.output.shape[1:])), f"{layer.count_params():,}"]
            for layer in network.layers
        ]
        layers.append(Table(f"Layers of {name}", ["layer", "output", "parameters"], rows))
    headers = ["", "parameters", "million multiply-adds", "epochs", "minutes, all folds", "folds: mean ± deviation",
               "single networks on PrivateTest", "of them without duplicates",
               "test rows on which two of them agree"]  # fmt: skip
    return Section(
        "Networks", lessons, [Table("", headers, lines)], {"effort.png": "Accuracy against size and time"}, layers
    )


def errors(analysis: dict[str, Any]) -> Section:
    """Where the submissions go wrong."""
    rows = submission.judged_rows(analysis)
    found = analysis[rows]["by_class"]
    whole = found["ensemble"]
    detail = [
        [name, *(number(whole[name][key]) for key in ("precision", "recall", "f1")), f"{whole[name]['rows']:,}"]
        for name in CLASSES
    ]
    recalls = [[name, *(number(entry[each]["recall"], 2) for each in CLASSES)] for name, entry in found.items()]
    return Section(
        "Errors",
        [],
        [
            Table(f"The ensemble on {rows}", ["", "precision", "recall", "F1", "rows"], detail),
            Table(f"Recall of every submission on {rows}", ["", *CLASSES], recalls),
        ],
        {"confusion.png": "Confusion out of fold"},
    )


def attention() -> Section | None:
    """Where the networks look: None where the results are of a run before the stage explain."""
    if not (figures.FOLDER / "attention.png").exists():
        return None
    return Section(
        "Attention",
        [
            "Grad-CAM (Selvaraju et al. 2017) tells which parts of a picture speak for a class. Shown are means over "
            "pictures of each class that the network has not seen, of the first fold, laid over the class's mean face; "
            "each map is scaled to a maximum of 1, so brightness tells how alike a class's maps are placed."
        ],
        pictures={"attention.png": "Where the networks look for each class"},
    )


def calibration(scores: dict[str, Any], ensemble: dict[str, Any]) -> Section:
    """How far the probabilities can be believed."""
    keys = ("log_loss", "brier", "calibration_error")

    def pair(before: Any, after: Any) -> str:
        return f"{number(before)} → {number(after)}"

    oof = [
        [name, number(entry["temperature"], 2),
         *(pair(entry["calibration"][key], entry["calibration_tempered"][key]) for key in keys)]
        for name, entry in ensemble["submissions"].items()
    ]  # fmt: skip
    private = [
        [name, *(pair(entry[f"private_{key}"], entry[f"private_{key}_tempered"]) for key in keys)]
        for name, entry in scores.items()
    ]
    headers = ["log-loss", "Brier score", "calibration error"]
    return Section(
        "Calibration",
        [
            "Before → after temperature scaling. Temperatures are fitted out of fold: a fold's rows are judged at "
            "the one that the other folds give, test rows at that of all (which were fitted on single networks, and "
            "so are too high for the mean of several). The calibration error is the expected one over 15 bins; the "
            "Brier score is summed over the classes."
        ],
        [
            Table("Out of fold", ["", "temperature", *headers], oof),
            Table("PrivateTest", ["", *headers], private),
        ],
        {"calibration.png": "Accuracy against confidence"},
    )


def speed() -> Section | None:
    """How soon a few networks without folds get there: None where `make speedrun` was not run."""
    found = optional("speedrun.json", "speedrun", {"network", "networks", "recipe", "minutes", "by_seed"})
    if not found:
        return None
    machines = sorted({each["processor"] for entry in found["by_seed"].values() for each in entry["trained_with"]})
    several = found["networks"] > 1
    text = [
        f"{found['networks']} {found['network']}, {found['recipe']['epochs']} epochs{' each' if several else ''}, "
        f"trained on all Training rows without folds{'; the mean of what they say is judged' if several else ''}. "
        f"On {', '.join(machines)}. ± is the standard deviation over the seeds; the intervals are of the sampling of "
        "test rows, which all seeds share."
    ]
    settings, own = recipe.speedrun()
    if (settings.network, settings.networks, own.model_dump()) != (
        found["network"],
        found["networks"],
        found["recipe"],
    ):
        text.append("This was made by another params.yaml than the rest of this page: make speedrun.")
    elif settings.recipe:
        changed = ", ".join(f"{key} {value}" for key, value in settings.recipe.items())
        text.append(f"Its recipe is the network's own in params.yaml, but for: {changed}.")
    return Section("Speedrun", text, [Table("", list(board.SEED_HEADERS), list(map(list, board.seed_rows(found))))])


def seeds() -> Section | None:
    """Mean and deviation over whole runs with different seeds: None where `make seeds` was not run."""
    found = optional("seeds.json", "seeds", {"seeds", "params", "submissions"})
    if not found:
        return None
    keys = list(next(iter(found["submissions"].values()), {}))
    lines = [[name, *(board.spread(entry[key]) for key in keys)] for name, entry in found["submissions"].items()]
    now = params.but_seed()
    text = [f"The whole run with each of the seeds {', '.join(map(str, found['seeds']))}: mean ± standard deviation."]
    if found["params"] != json.loads(json.dumps(now)):
        text.append("These runs were made by another params.yaml than the rest of this page: make seeds.")
    return Section("Seeds", text, [Table("", ["", *(key.replace("_", " ") for key in keys)], lines)])


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


def origin(scores: dict[str, Any], analysis: dict[str, Any], source: dict[str, Any]) -> Section:
    """What it was made from, by what, and in which time; `source` as in data/raw/PROVENANCE.json."""
    rows = [
        [name, f"{entry['bytes']:,}", entry["md5"], "yes" if entry["official"] else "no"]
        for name, entry in source["files"].items()
    ]
    seconds = sum(scores[name]["train_seconds"] for name in recipe.names())
    installed = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    facts = [
        ["source of the data", source["source"]],
        ["git revision of this page", revision()],
        ["seed", str(params.seed())],
        ["cells trained with", "; ".join(analysis["trained_with"])],
        ["training, all cells", f"{seconds / 60:.0f} minutes"],
        ["this page written on", f"{machine.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"],
        ["with", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if name in installed)],
    ]
    hashes = [[f"{name}.csv", entry["sha256"]] for name, entry in scores.items()]
    return Section(
        "Provenance",
        [],
        [
            Table("Files of the competition", ["", "bytes", "md5", "Kaggle's own"], rows),
            Table("Run", ["", ""], facts),
            Table("Submissions", ["", "SHA-256"], hashes),
        ],
        listing=params.PATH.read_text(),
    )


def sections() -> list[Section]:
    """All parts of the report, in its order."""
    scores, ensemble, analysis, data = (read(f"{name}.json") for name in ("scores", "ensemble", "analysis", "data"))
    mixed = ["A student's accuracy on training rows is that by its labels, its teachers' answers mixed in."]
    lessons = mixed if recipe.students() else []
    every = [
        results(scores, analysis), claims(), speed(), seeds(), parts(ensemble), data_section(data),
        networks(scores, ensemble, analysis),
        Section("Learning curves", lessons, pictures={"curves.png": "All folds of every network"}),
        errors(analysis), attention(), calibration(scores, ensemble), origin(scores, analysis, data["provenance"]),
    ]  # fmt: skip
    return [section for section in every if section]


def inlined(name: str) -> str:
    """A picture of results/plots as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode((figures.FOLDER / name).read_bytes()).decode()}"


def render(template: str, parts: list[Section]) -> str:
    """The report by pipeline/TEMPLATE."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=template.endswith(".html.j2"),
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    text: str = environment.get_template(template).render(sections=parts, inlined=inlined)
    return text


def main() -> None:
    """Run the stage."""
    backend.start(machine.choose(params.backend()))  # some library must run under Keras to build the networks
    found = sections()
    for kind in ("html", "md"):
        files.write(RESULTS / f"report.{kind}", render(f"report.{kind}.j2", found).encode())
