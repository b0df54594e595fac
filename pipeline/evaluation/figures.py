"""Every picture that the stages draw, as PNG files without a background, for light pages and dark ones.

charts/ holds templates of Vega-Lite in DVC's form: `dvc plots` draws results/plots/*.csv by them, and so does `draw`.
"""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # files only; no display is needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import vl_convert
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay

from pipeline import files
from pipeline.competition import CLASSES

FOLDER = Path("results/plots")
CHARTS = Path(__file__).with_name("charts")
GREY = "#7a808a"  # to be read on white and on black

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


def chart(table: pd.DataFrame, template: str, title: str = "", x: str = "", y: str = "") -> dict[str, Any]:
    """Vega-Lite of a table by a template of charts/; `x` and `y` are columns where the template leaves them open."""
    text, data = (CHARTS / f"{template}.json").read_text(), table.assign(rev="this run").to_dict("records")
    for anchor, value in {"data": data, "title": title, "x": x, "y": y, "x_label": x, "y_label": "accuracy"}.items():
        text = text.replace(f'"<DVC_METRIC_{anchor.upper()}>"', json.dumps(value))
    found: dict[str, Any] = json.loads(text)
    for part in (found.get("spec", found), *found.get("layer", [])):
        for channel in [key for key, each in part["encoding"].items() if "'rev'" in str(each) and key != "tooltip"]:
            del part["encoding"][channel]  # there is one revision
    if "facet" in found:
        found["facet"]["sort"] = table[found["facet"]["field"]].unique().tolist()
    del found["$schema"]  # an older version, that of DVC
    return found


def draw(table: pd.DataFrame, path: Path, **words: str) -> None:
    """Write a table as PATH.csv, and what `chart` gives by it as PATH.png, in 64 colours: a quarter of the bytes."""
    files.write(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    picture = Image.open(io.BytesIO(vl_convert.vegalite_to_png(chart(table, **words), scale=1.4)))
    small = picture.quantize(64, method=Image.Quantize.FASTOCTREE)
    files.replace(path.with_suffix(".png"), lambda file: small.save(file, "PNG", optimize=True))


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


def attention(maps: dict[str, np.ndarray], faces: np.ndarray, path: Path) -> None:
    """Draw where networks look for each class: the class's mean face, and below it each model's mean map over it.

    Parameters
    ----------
    maps : float [7, 48, 48] by model, 0 to 1. faces : float [7, 48, 48], mean faces.
    """
    lines, columns = 1 + len(maps), len(CLASSES)
    figure, grid = plt.subplots(lines, columns, figsize=(1.5 * columns, 1.6 * lines), squeeze=False)
    shown = [(name, place) for name in ("mean face", *maps) for place in range(columns)]
    for axes, (name, place) in zip(grid.flat, shown, strict=True):
        axes.imshow(faces[place], cmap="gray", vmin=0, vmax=255)
        if name in maps:
            axes.imshow(maps[name][place], cmap="inferno", vmin=0, vmax=1, alpha=0.65 * maps[name][place])
        else:
            axes.set_title(CLASSES[place])
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel("" if place else name, fontsize=8)
    figure.suptitle("Where the networks look for each class (mean Grad-CAM of held-out pictures, on the mean face)")
    _save(figure, path)
