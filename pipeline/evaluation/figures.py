"""Every picture that the stages draw, as PNG files that need no network to be seen.

They have no background of their own, and lines and letters of a middle grey: legible on a light page and on a dark one.
"""

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # files only; no display is needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, PercentFormatter

from pipeline import files
from pipeline.competition import BOARD_2013, CLASSES, PRIVATE, SPLIT_ROWS

FOLDER = Path("results/plots")
BLUE, ORANGE, GREEN, GREY, INK = "#3b82d6", "#dd6f2d", "#3f9b5f", "#8a8f98", "#7a7f88"
SHADES = {"Training": GREY, "PublicTest": ORANGE, "PrivateTest": BLUE}  # the same in every picture
COLORS = (BLUE, ORANGE, GREEN, "#a05fc0", "#c9a227", "#d0587e", "#2aa5a0", "#8c6d4f")  # of submissions, in their order

mpl.rcParams.update({
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.transparent": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
})  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    version = {"Software": None}  # matplotlib's would change the bytes
    files.replace(path, lambda file: figure.savefig(file, format="png", metadata=version))
    plt.close(figure)


def classes(counts: dict[str, dict[str, int]], path: Path) -> None:
    """Draw how the classes share each split; `counts` maps split to class to rows."""
    figure, axes = plt.subplots(figsize=(8.4, 4))
    place = np.arange(len(CLASSES))
    for index, (split, shade) in enumerate(SHADES.items()):
        rows = np.array([counts[split][name] for name in CLASSES])
        bars = axes.bar(
            place + (index - 1) * 0.28, rows / max(rows.sum(), 1), 0.26, color=shade, label=f"{split} ({rows.sum():,})"
        )
        axes.bar_label(bars, [f"{n:,}" for n in rows], fontsize=6.5, padding=1)
    axes.set_xticks(place, CLASSES)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("part of the split")
    axes.set_title("Rows of each class (numbers: rows with a known label)")
    axes.grid(axis="x", visible=False)
    figure.legend(ncols=3, loc="outside lower center")
    _save(figure, path)


def page(pictures: dict[str, list[tuple[np.ndarray, str]]], path: Path) -> None:
    """Show pictures (uint8 [48, 48]) with a caption each, under headings; 12 a line."""
    lines = {heading: max(1, -(-len(entries) // 12)) for heading, entries in pictures.items()}
    figure = plt.figure(figsize=(13, 1.35 * sum(lines.values()) + 0.4 * len(lines)))
    parts = figure.subfigures(len(lines), 1, height_ratios=list(lines.values()), squeeze=False)
    for part, (heading, entries) in zip(parts.flat, pictures.items(), strict=True):
        part.suptitle(heading, fontsize=10, x=0.01, ha="left")
        grid = part.subplots(lines[heading], 12, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, (picture, caption) in zip(grid.flat, entries, strict=False):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(caption, fontsize=6)
    _save(figure, path)


def curves(histories: dict[str, list[pd.DataFrame]], path: Path) -> None:
    """Draw loss and accuracy by epoch, all folds of every model; `histories` maps it to a table a fold."""
    figure, grid = plt.subplots(
        2, len(histories), figsize=(max(7, 2.4 * len(histories) + 1), 5), squeeze=False, sharex="col", sharey="row"
    )
    for column, (name, folds) in enumerate(histories.items()):
        for row, what in enumerate(("loss", "accuracy")):
            axes = grid[row][column]
            for history in folds:
                marker = "." if len(history) < 3 else ""  # one epoch makes no line
                axes.plot(history["epoch"], history[what], color=GREY, lw=1.2, marker=marker)
                axes.plot(history["epoch"], history[f"val_{what}"], color=GREEN, lw=1.2, marker=marker)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.tick_params(labelsize=8)
        grid[1][column].yaxis.set_major_formatter(PercentFormatter(1))
        grid[0][column].set_title(name, fontsize=10)
        grid[1][column].set_xlabel("epoch")
    grid[0][0].set_ylabel("loss")
    grid[1][0].set_ylabel("accuracy")
    lines = [Line2D([], [], color=color) for color in (GREY, GREEN)]
    figure.legend(
        lines,
        [
            "training rows, augmented (loss: the recipe's)",
            "held-out fold, without test-time augmentation (loss: log-loss)",
        ],
        ncols=2 if len(histories) > 3 else 1,
        loc="outside upper center",
    )
    _save(figure, path)


def confusions(matrices: dict[str, np.ndarray], path: Path) -> None:
    """Draw confusion matrices as ratios, side by side; `matrices` maps a name to int [7, 7], true class by row."""
    columns = 2 if len(matrices) == 4 else min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.1 * columns + 0.9, 3.3 * rows + 0.2), squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.axis("off")
    for position, (axes, (name, counts)) in enumerate(zip(grid.flat, matrices.items(), strict=False)):
        ratios = counts / counts.sum(axis=1, keepdims=True).clip(1)
        axes.imshow(ratios, cmap="Blues", vmin=0, vmax=1)
        for (true, guess), ratio in np.ndenumerate(ratios):
            if ratio >= 0.005:
                ink = "white" if ratio > 0.55 else "#222"
                axes.text(guess, true, f"{ratio:.0%}", ha="center", va="center", fontsize=6.5, color=ink)
        axes.set_title(f"{name}: {np.trace(counts) / counts.sum():.1%}", fontsize=10)
        axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=60, ha="right", fontsize=8)
        names = [f"{name} ({size:,})" for name, size in zip(CLASSES, counts.sum(axis=1), strict=True)]
        axes.set_yticks(range(len(CLASSES)), names if position % columns == 0 else [], fontsize=8)
        axes.grid(visible=False)
    figure.suptitle(
        "Confusion out of fold: a line is a true class (its rows), a column the prediction; blank: under 0.5 %",
        fontsize=10,
    )
    _save(figure, path)


def board(entries: pd.DataFrame, with_teams: bool, path: Path) -> None:
    """Draw our PrivateTest scores with their intervals, among the teams of 2013 where the rows are theirs.

    Parameters
    ----------
    entries : columns name, private_accuracy, private_low, private_high (numbers only).
    """
    title = "PrivateTest accuracy of our submissions"
    if with_teams:
        title = "Our submissions (blue) among the ten best teams of 2013"
    teams = (
        [(team, right / SPLIT_ROWS[PRIVATE], np.nan, np.nan, GREY) for team, right in BOARD_2013] if with_teams else []
    )
    ours = [(*row, BLUE) for row in entries.itertuples(index=False)]
    everyone = sorted(teams + ours, key=lambda entry: entry[1])
    figure, axes = plt.subplots(figsize=(8, 0.27 * len(everyone) + 1.2))
    for height, (_, score, low, high, color) in enumerate(everyone):
        if not np.isnan(low):
            axes.plot([low, high], [height, height], color=color, lw=2.5, alpha=0.45, solid_capstyle="butt")
        axes.plot(score, height, "o", color=color, ms=5)
        axes.annotate(f"{score:.2%}", (score, height), (0, 5), textcoords="offset points", fontsize=6.5, ha="center")
    axes.set_yticks(range(len(everyone)), [entry[0] for entry in everyone])
    for label, entry in zip(axes.get_yticklabels(), everyone, strict=True):
        label.set_color(entry[4] if entry[4] == BLUE else INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("PrivateTest accuracy; bars are 95 % intervals")
    axes.set_title(title, pad=14)  # the best score stands above its dot
    _save(figure, path)


def effort(table: pd.DataFrame, folds: int, path: Path) -> None:
    """Draw out-of-fold accuracy against parameters and training time of one network of each model.

    Parameters
    ----------
    table : that of submissions/scores.csv, whose seconds are of all `folds`; what lacks them is not drawn.
    """
    figure, grid = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    scales = (
        ("parameters", 1e6, "million parameters"),
        ("train_seconds", 60 * folds, "minutes of training"),
    )
    entries = table.sort_values("oof_accuracy", ascending=False).to_dict("records")
    for axes, (what, unit, label) in zip(grid, scales, strict=True):
        for entry, color in zip(entries, itertools.cycle(COLORS)):
            if pd.isna(entry[what]):
                continue
            y = entry["oof_accuracy"]
            reach = [[y - entry["oof_low"]], [entry["oof_high"] - y]]
            axes.errorbar(entry[what] / unit, y, reach, fmt="o", color=color, ms=5, label=entry["name"])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.3)
        axes.set_xlabel(f"{label} (logarithmic)")
    grid[0].yaxis.set_major_formatter(PercentFormatter(1))
    grid[0].set_ylabel("out-of-fold accuracy")
    # Beside the points the names of networks that are nearly as good would lie over each other.
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle("What accuracy costs, one network of each model (bars: 95 % intervals, of the rows)", fontsize=11)
    _save(figure, path)


def splits(table: pd.DataFrame, path: Path) -> None:
    """Draw each submission's accuracy out of fold, on PublicTest and on PrivateTest; `table` as for `effort`."""
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(table) + 1.6))
    parts = {"private": "PrivateTest", "public": "PublicTest", "oof": "Training"}
    entries = table.sort_values("oof_accuracy").to_dict("records")
    for offset, (part, split) in zip((0.2, 0, -0.2), parts.items(), strict=True):
        rows = [(place + offset, e) for place, e in enumerate(entries) if isinstance(e[f"{part}_accuracy"], float)]
        values = np.array([[e[f"{part}_{end}"] for end in ("accuracy", "low", "high")] for _, e in rows])
        if len(values):
            reach = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
            places = [place for place, _ in rows]
            label = "Training, out of fold" if part == "oof" else split
            axes.errorbar(values[:, 0], places, xerr=reach, fmt="o", color=SHADES[split], label=label)
    axes.margins(y=0.2 / max(1, len(entries)))
    axes.grid(axis="y", visible=False)  # its lines would run through the bars
    axes.set_yticks(range(len(entries)), [entry["name"] for entry in entries])
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(
        "accuracy; bars are 95 % intervals\n(out of fold: single networks; boards: the mean of all folds' networks)",
        fontsize=9,
    )
    axes.set_title("Does cross-validation predict the board?")
    figure.legend(ncols=3, loc="outside lower center")
    _save(figure, path)


def calibration(reliability: dict[str, Any], rows: str, path: Path) -> None:
    """Draw accuracy against confidence on `rows`, as it is and tempered; `reliability` as in results/analysis.json."""
    figure, grid = plt.subplots(1, 2, figsize=(8.4, 4.4), sharex=True, sharey=True)
    titles = {"as_it_is": "as it is", "tempered": "after temperature scaling"}
    for axes, (when, title) in zip(grid, titles.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=INK, lw=1, ls=":")
        for (name, bins), color in zip(reliability.items(), itertools.cycle(COLORS)):
            full = np.array(bins[when]["rows"]) >= 20  # fewer say nothing
            x, y = (np.array(bins[when][key])[full] for key in ("confidence", "accuracy"))
            label = name if axes is grid[0] else None
            axes.plot(x, y, color=color, marker=".", ms=4, lw=2.2 if name == "ensemble" else 1.2, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("confidence in the most likely class")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
    grid[0].set_ylabel("accuracy")
    figure.suptitle(f"Calibration on {rows} rows (temperature fitted out of fold)", fontsize=11)
    figure.legend(ncols=4, loc="outside lower center", fontsize=8)
    _save(figure, path)


def attention(maps: dict[str, np.ndarray], faces: np.ndarray, path: Path) -> None:
    """Draw where networks look for each class: the class's mean face, and below it each model's mean map over it.

    Parameters
    ----------
    maps : float [7, 48, 48] by model, 0 to 1. faces : float [7, 48, 48], mean faces.
    """
    lines = 1 + len(maps)
    figure, grid = plt.subplots(lines, len(CLASSES), figsize=(9.6, 1.3 * lines + 0.7), squeeze=False)
    for line, (name, each) in zip(grid, {"mean face": None, **maps}.items(), strict=True):
        for place, axes in enumerate(line):
            axes.imshow(faces[place], cmap="gray", vmin=0, vmax=255)
            if each is not None:
                axes.imshow(each[place], cmap="inferno", vmin=0, vmax=1, alpha=0.65 * each[place])
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, fontsize=9)
    for name, axes in zip(CLASSES, grid[0], strict=True):
        axes.set_title(name, fontsize=9)
    scale = ScalarMappable(Normalize(0, 1), "inferno")
    figure.colorbar(scale, ax=grid, label="mean Grad-CAM", shrink=0.9, aspect=30)
    figure.suptitle(
        "Where the networks look for each class: means over held-out pictures, on the mean face", fontsize=10
    )
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
