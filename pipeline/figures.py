"""Every picture that the stages draw, as PNG files that need no network to be seen."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # files only; no display is needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from pipeline.competition import BOARD_2013, CLASSES, PRIVATE, SPLIT_ROWS

FOLDER = Path("results/plots")
BLUE, ORANGE, GREY = "#2a6fbb", "#d9662b", "#8a8f98"

mpl.rcParams.update({
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
})  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})  # the version of matplotlib would change the bytes
    plt.close(figure)


def classes(counts: dict[str, dict[str, int]], path: Path) -> None:
    """Draw how the classes share each split; `counts` maps split to class to rows."""
    figure, axes = plt.subplots(figsize=(8, 4))
    place = np.arange(len(CLASSES))
    for index, (split, shades) in enumerate(zip(counts, (BLUE, ORANGE, GREY), strict=True)):
        rows = np.array([counts[split][name] for name in CLASSES])
        bars = axes.bar(
            place + (index - 1) * 0.28, rows / max(rows.sum(), 1), 0.26, color=shades, label=f"{split} ({rows.sum():,})"
        )
        axes.bar_label(bars, [f"{n:,}" for n in rows], fontsize=6.5, padding=1)
    axes.set_xticks(place, CLASSES)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_ylabel("part of the split")
    axes.set_title("Rows of each class (numbers: rows with a known label)")
    axes.grid(axis="x", visible=False)
    figure.legend(ncols=3, loc="outside lower center")
    _save(figure, path)


def curves(histories: dict[str, list[pd.DataFrame]], path: Path) -> None:
    """Draw loss and accuracy by epoch, all folds of every architecture; `histories` maps it to a table a fold."""
    figure, grid = plt.subplots(2, len(histories), figsize=(2.4 * len(histories) + 1, 5), squeeze=False, sharex="col")
    for column, (name, folds) in enumerate(histories.items()):
        for row, what in enumerate(("loss", "accuracy")):
            axes = grid[row][column]
            for history in folds:
                axes.plot(history["epoch"], history[what], color=BLUE, lw=1.2, marker=".", ms=4)
                axes.plot(history["epoch"], history[f"val_{what}"], color=ORANGE, lw=1.2, marker=".", ms=4)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.tick_params(labelsize=8)
        grid[1][column].set_ylim(0, 1)
        grid[1][column].yaxis.set_major_formatter(PercentFormatter(1, 0))
        grid[0][column].set_title(name, fontsize=10)
        grid[1][column].set_xlabel("epoch")
    grid[0][0].set_ylabel("loss")
    grid[1][0].set_ylabel("accuracy")
    lines = [Line2D([], [], color=color) for color in (BLUE, ORANGE)]
    figure.legend(
        lines,
        ["training rows, varied and with dropout (loss: the recipe's)", "held-out fold (loss: log-loss)"],
        ncols=2,
        loc="outside upper center",
    )
    _save(figure, path)


def confusions(matrices: dict[str, np.ndarray], path: Path) -> None:
    """Draw confusion matrices as ratios, side by side; `matrices` maps a name to int [7, 7], true class by row."""
    columns = min(4, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.1 * columns + 0.6, 3.2 * rows), squeeze=False)
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
        axes.set_yticks(range(len(CLASSES)), CLASSES if position % columns == 0 else [], fontsize=8)
        axes.grid(visible=False)
    figure.suptitle("Confusion out of fold: rows are true classes, columns are predictions", fontsize=11)
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
        label.set_color(entry[4] if entry[4] == BLUE else "#333")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_xlabel("PrivateTest accuracy; bars are 95 % intervals")
    axes.set_title(title)
    _save(figure, path)
