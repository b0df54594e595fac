"""Plots of the stages as PNG files with a transparent background, for light and dark pages.

charts/ holds Vega-Lite templates in DVC's format, which both `dvc plots` and `draw` use. Exceptions are the confusion
matrix of `dvc plots`, and attention maps.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import vl_convert
from PIL import Image

from pipeline import files
from pipeline.competition import CLASSES

FOLDER = Path("results/plots")
CHARTS = Path(__file__).with_name("charts")
COSTS = "Accuracy out of fold with 95 % intervals; logarithmic scale of core-hours"  # of the template "points"


def chart(table: pd.DataFrame, template: str, title: str = "", x: str = "", y: str = "") -> dict[str, Any]:
    """Return Vega-Lite of a table by a template of charts/; `x` and `y` are columns that the template leaves open."""
    text, data = (CHARTS / f"{template}.json").read_text(), table.assign(rev="this run").to_dict("records")
    for anchor, value in {"data": data, "title": title, "x": x, "y": y, "x_label": x, "y_label": "accuracy"}.items():
        text = text.replace(f'"<DVC_METRIC_{anchor.upper()}>"', json.dumps(value))
    spec: dict[str, Any] = json.loads(text)
    for part in (spec.get("spec", spec), *spec.get("layer", [])):
        for channel in [key for key, each in part["encoding"].items() if "'rev'" in str(each) and key != "tooltip"]:
            del part["encoding"][channel]  # the table has one revision
    if "facet" in spec:
        spec["facet"]["sort"] = table[spec["facet"]["field"]].unique().tolist()
    del spec["$schema"]  # DVC's version, which is older
    return spec


def draw(table: pd.DataFrame, path: Path, **words: str) -> None:
    """Write a table as PATH.csv and its `chart` as PATH.png, in 64 colours, which saves three quarters of the bytes."""
    files.write(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    picture = Image.open(io.BytesIO(vl_convert.vegalite_to_png(chart(table, **words), scale=1.4)))
    small = picture.quantize(64, method=Image.Quantize.FASTOCTREE)
    files.replace(path.with_suffix(".png"), lambda file: small.save(file, "PNG", optimize=True))


def data_url(content: bytes, kind: str = "png") -> str:
    """Return the content of a picture file as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def encoded(picture: np.ndarray, kind: str = "png", **options: Any) -> str:
    """Return a picture, uint8 [height, width] or [height, width, 3], as a data URL."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return data_url(file.getvalue(), kind)


def attention(maps: dict[str, np.ndarray], faces: np.ndarray, path: Path) -> None:
    """Draw each class's mean face, and below it the same face overlaid with each model's mean attention map.

    Parameters
    ----------
    maps : float [7, 48, 48] from 0 to 1, by model. faces : float [7, 48, 48], mean face of each class.
    """
    cells = []
    for name, heat in ({"mean face": np.zeros(faces.shape)} | maps).items():
        strength = 0.65 * heat[..., None]
        mixed = (1 - strength) * faces[..., None] + strength * mpl.colormaps["inferno"](heat)[..., :3] * 255
        pictures = zip(CLASSES, mixed.astype("uint8"), strict=True)
        cells += [{"name": name, "class": label, "url": encoded(picture)} for label, picture in pictures]
    title = (
        "Where the networks look (mean Grad-CAM of held-out pictures on the mean face of a class; yellow: strongest)"
    )
    files.write(path, vl_convert.vegalite_to_png(chart(pd.DataFrame(cells), "pictures", title)))
