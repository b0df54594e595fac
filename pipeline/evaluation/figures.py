"""Every picture that the stages draw, as PNG files without a background, for light pages and dark ones.

charts/ holds templates of Vega-Lite in DVC's form: `dvc plots` draws results/plots/*.csv by them, and so does `draw`.
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


def address(content: bytes, kind: str = "png") -> str:
    """A picture file's content as an address that holds all of it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def encoded(picture: np.ndarray, kind: str = "png", **options: Any) -> str:
    """A picture, uint8 [height, width] or [height, width, 3], as such an address."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return address(file.getvalue(), kind)


def attention(maps: dict[str, np.ndarray], faces: np.ndarray, path: Path) -> None:
    """Draw where networks look for each class: the class's mean face, and below it each model's mean map over it.

    Parameters
    ----------
    maps : float [7, 48, 48] by model, 0 to 1. faces : float [7, 48, 48], mean faces.
    """
    lines = []
    for name, heat in ({"mean face": np.zeros(faces.shape)} | maps).items():
        strength = 0.65 * heat[..., None]
        mixed = (1 - strength) * faces[..., None] + strength * mpl.colormaps["inferno"](heat)[..., :3] * 255
        pictures = zip(CLASSES, mixed.astype("uint8"), strict=True)
        lines += [{"name": name, "class": label, "url": encoded(picture)} for label, picture in pictures]
    title = "Where the networks look for each class (mean Grad-CAM of held-out pictures, on the mean face)"
    files.write(path, vl_convert.vegalite_to_png(chart(pd.DataFrame(lines), "pictures", title)))
