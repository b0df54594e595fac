"""Every picture that the stages draw, as PNG files without a background, for light pages and dark ones.

lines.json is a template of Vega-Lite in DVC's form: DVC draws data by it, and so do these functions and the report.
"""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # files only; no display is needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import vl_convert
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay

from pipeline import files
from pipeline.competition import BOARD_2013, CLASSES, PRIVATE, SPLIT_ROWS

FOLDER = Path("results/plots")
TEMPLATE = Path(__file__).with_name("lines.json")
BLUE, ORANGE, GREEN, GREY = "#3b82d0", "#d0622a", "#3a915f", "#7a808a"  # to be read on white and on black
SHADES = {"Training": GREY, "PublicTest": ORANGE, "PrivateTest": BLUE}  # the same in every picture
# Of submissions, in their order; with the markers they can be told apart without colours.
COLORS = (BLUE, ORANGE, GREEN, "#8e44ad", "#a67c00", "#b83b6a", "#168a85", "#7a5c3e")
MARKERS = "osD^vP*X"

mpl.rcParams.update({
    "figure.constrained_layout.use": True, "figure.dpi": 110, "font.size": 11, "axes.titlesize": 12,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3,
    "legend.frameon": False, "savefig.transparent": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
})  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    version = {"Software": None}  # matplotlib's would change the bytes
    files.replace(path, lambda file: figure.savefig(file, format="png", metadata=version))
    plt.close(figure)


def _panels(count: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """So many panels in rows of `columns`, each of this size in inches."""
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **shared)
    for axes in grid.flat[count:]:
        axes.axis("off")
    return figure, list(grid.flat[:count])


def classes(counts: dict[str, dict[str, int]], path: Path) -> None:
    """Draw how the classes share each split; `counts` maps split to class to rows."""
    table = pd.DataFrame(counts, index=list(CLASSES))
    figure, axes = plt.subplots(figsize=(10, 4.5))
    for number, split in enumerate(SHADES):
        places, rows = np.arange(len(CLASSES)) + (number - 1) * 0.29, table[split]
        label = f"{split} ({rows.sum():,})"
        bars = axes.bar(places, rows / max(rows.sum(), 1), 0.27, color=SHADES[split], label=label)
        axes.bar_label(bars, [f"{count:,}" for count in rows], fontsize=9, padding=3, rotation=90)
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.legend()
    axes.margins(y=0.2)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(title="Rows of each class (numbers: rows with a known label)", ylabel="part of the split")
    axes.grid(axis="x", visible=False)
    _save(figure, path)


def chart(table: pd.DataFrame, title: str, x: str, y: str, labels: tuple[str, str] | None = None) -> dict[str, Any]:
    """Vega-Lite of `y` by `x` of a table with the columns name (a panel each) and part (a line each)."""
    label_x, label_y = labels or (x, y)
    text, data = TEMPLATE.read_text(), table.assign(rev="this run").to_dict("records")
    anchors = {"data": data, "title": title, "x": x, "y": y, "x_label": label_x, "y_label": label_y}
    for anchor, value in anchors.items():
        text = text.replace(f'"<DVC_METRIC_{anchor.upper()}>"', json.dumps(value))
    found: dict[str, Any] = json.loads(text)
    found["facet"]["sort"] = table["name"].unique().tolist()
    del found["spec"]["encoding"]["strokeDash"], found["$schema"]  # there is one revision; DVC's version is older
    return found


def lines(spec: dict[str, Any], path: Path) -> None:
    """Draw what `chart` gives, in 64 colours: a quarter of the bytes."""
    picture = Image.open(io.BytesIO(vl_convert.vegalite_to_png(spec, scale=1.4)))
    small = picture.quantize(64, method=Image.Quantize.FASTOCTREE)
    files.replace(path, lambda file: small.save(file, "PNG", optimize=True))


def confusion(labels: np.ndarray, guesses: np.ndarray, title: str, path: Path) -> None:
    """Draw a confusion matrix as ratios; labels and guesses are int [n]."""
    figure, axes = plt.subplots(figsize=(9, 8))
    ConfusionMatrixDisplay.from_predictions(
        labels, guesses, labels=range(len(CLASSES)), display_labels=CLASSES, normalize="true", values_format=".1%",
        cmap="Blues", colorbar=False, text_kw={"fontsize": 13}, ax=axes,
    )  # fmt: skip
    axes.set(title=title, xlabel="predicted class", ylabel="true class; its rows are 100 %")
    axes.grid(visible=False)
    _save(figure, path)


def _numbers(table: pd.DataFrame, rows: str) -> pd.DataFrame:
    """Accuracy on some rows and its interval, by name; NaN where unknown. `table` : that of submissions/scores.csv."""
    columns = {f"{rows}_{end}": end for end in ("accuracy", "low", "high")}
    found: pd.DataFrame = table.set_index("name")[list(columns)].apply(pd.to_numeric, errors="coerce")
    return found.rename(columns=columns)


def board(table: pd.DataFrame, path: Path) -> None:
    """Draw our PrivateTest scores with their intervals, above the teams of 2013 where the rows are theirs.

    Parameters
    ----------
    table : that of submissions/scores.csv; what has no score is not drawn.
    """
    ranked = not set(table["rank_2013"]) & {"none", "unknown"}
    teams = {team: right / SPLIT_ROWS[PRIVATE] for team, right in BOARD_2013} if ranked else {}
    others = pd.DataFrame({"accuracy": teams, "low": teams, "high": teams}, dtype=float)
    entries = pd.concat([_numbers(table, "private").dropna(), others])[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(entries) + 1.4))
    for height, (name, score, low, high) in enumerate(entries.reset_index().to_numpy()):
        color = GREY if name in teams else BLUE
        axes.errorbar(score, height, xerr=[[score - low], [high - score]], fmt="o", color=color, ms=6, lw=2)
        axes.annotate(f"{score:.2%}", (high, height), (7, 0), textcoords="offset points", fontsize=9, va="center")
    axes.set_yticks(range(len(entries)), list(entries.index))
    for label in axes.get_yticklabels():
        label.set_color(GREY if label.get_text() in teams else BLUE)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    above = " (blue), the best out of fold first, and the ten best teams of 2013" if ranked else ""
    axes.set(title=f"Our submissions{above}", xlabel="PrivateTest accuracy; bars are 95 % intervals")
    _save(figure, path)


def effort(table: pd.DataFrame, folds: int, path: Path) -> None:
    """Draw out-of-fold accuracy against parameters and training time of one network of each model.

    Parameters
    ----------
    table : that of submissions/scores.csv, whose seconds are of all `folds`; what lacks them is not drawn.
    """
    figure, panels = _panels(2, 2, 5, 4.2, sharey=True)
    models = table.dropna(subset=["parameters", "train_seconds"])
    minutes = models["train_seconds"] / 60 / folds
    scales = {"million parameters": models["parameters"] / 1e6, "minutes of training": minutes}
    for axes, (label, costs) in zip(panels, scales.items(), strict=True):
        entries = _numbers(models, "oof").assign(cost=costs.to_numpy(float)).reset_index().to_numpy()
        for entry, color, marker in zip(entries, itertools.cycle(COLORS), itertools.cycle(MARKERS)):
            name, score, low, high, cost = entry
            axes.errorbar(cost, score, [[score - low], [high - score]], fmt=marker, color=color, ms=8, label=name)
        axes.set(xscale="log", xlabel=f"{label} (logarithmic)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.2)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("out-of-fold accuracy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle("What accuracy costs, one network of each model (bars: 95 % intervals, of the rows)")
    _save(figure, path)


def splits(table: pd.DataFrame, path: Path) -> None:
    """Draw each submission's accuracy out of fold, on PublicTest and on PrivateTest; `table` as for `effort`."""
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(table) + 1.8))
    shown = {"private": ("PrivateTest", BLUE), "public": ("PublicTest", ORANGE), "oof": ("Training, out of fold", GREY)}
    for shift, (column, (label, color)) in zip((0.2, 0, -0.2), shown.items(), strict=True):
        middle, low, high = _numbers(table, column).to_numpy().T
        height = np.arange(len(table))[::-1] + shift
        axes.errorbar(middle, height, xerr=[middle - low, high - middle], fmt="o", color=color, label=label)
    axes.set_yticks(np.arange(len(table))[::-1], table["name"])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", visible=False)
    axes.set(title="Does cross-validation predict the board?", xlabel="accuracy; bars are 95 % intervals "
             "(out of fold: single networks; boards: the mean of all folds' networks)")  # fmt: skip
    axes.xaxis.label.set_fontsize(10)
    figure.legend(ncols=3, loc="outside lower center")
    _save(figure, path)


def attention(maps: dict[str, np.ndarray], faces: np.ndarray, path: Path) -> None:
    """Draw where networks look for each class: the class's mean face, and below it each model's mean map over it.

    Parameters
    ----------
    maps : float [7, 48, 48] by model, 0 to 1. faces : float [7, 48, 48], mean faces.
    """
    figure, panels = _panels(len(CLASSES) * (1 + len(maps)), len(CLASSES), 1.5, 1.6)
    shown = [(name, place) for name in ("mean face", *maps) for place in range(len(CLASSES))]
    for axes, (name, place) in zip(panels, shown, strict=True):
        axes.imshow(faces[place], cmap="gray", vmin=0, vmax=255)
        if name in maps:
            axes.imshow(maps[name][place], cmap="inferno", vmin=0, vmax=1, alpha=0.65 * maps[name][place])
        else:
            axes.set_title(CLASSES[place])
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel("" if place else name, fontsize=8)
    figure.suptitle("Where the networks look for each class (mean Grad-CAM of held-out pictures, on the mean face)")
    _save(figure, path)


def study(names: list[str], hours: np.ndarray, alone: np.ndarray, brier: np.ndarray, path: Path) -> None:
    """Draw what recipes cost and reach: accuracy of one network, and B-infinity, against core-hours.

    Parameters
    ----------
    hours, alone : float [R], of one network. brier : float [R, 3], B-infinity and its interval.
    """
    figure, grid = plt.subplots(1, 2, figsize=(9.6, 4))
    for number, (name, color) in enumerate(zip(names, itertools.cycle(COLORS))):
        marker = "os^Dv"[number // len(COLORS) % 5]
        grid[0].plot(hours[number], alone[number], marker, color=color, label=name)
        middle, low, high = brier[number]
        grid[1].errorbar(hours[number], middle, [[middle - low], [high - middle]], fmt=marker, color=color)
    for axes, label in zip(grid, ("accuracy of one network", "B-infinity (less is better)"), strict=True):
        axes.set_xlabel("core-hours of one network")
        axes.set_ylabel(label)
    grid[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle("What a recipe costs, and what infinitely many of its networks would score", fontsize=11)
    _save(figure, path)
