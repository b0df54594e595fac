"""Datasets of pictures in one folder per class: split, class and grey levels of each picture.

The stage download decodes them into data/raw/pictures.npz: pixels uint8 [n, 48, 48], labels int8 [n], usage uint8 [n].
Known layouts:

- test/disgust/PublicTest_8514439.jpg (msambare/fer2013 on Kaggle): the file names contain the official split;
- test/disgusted/im0.png (atulapra/Emotion-detection on GitHub): test/ contains both test splits, not distinguished;
- images/validation/disgust/0.jpg (jonathanoheix/face-expression-recognition-dataset on Kaggle): a different split.
"""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.competition import CLASS_COUNTS, CLASSES, PRIVATE, PUBLIC, SIDE, SPLITS, TRAINING
from pipeline.errors import UserError

NAME = "pictures.npz"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
FORMATS = ("JPEG", "PNG", "BMP")
# The folder's name determines the class, not its alphabetical position. The last three names are atulapra's.
CLASS_OF = {name: code for code, name in enumerate(CLASSES)} | {"disgusted": 1, "fearful": 2, "surprised": 5}
OFFICIAL = {split.lower(): code for code, split in enumerate(SPLITS)}
FOLDERS = OFFICIAL | {"train": TRAINING, "test": PRIVATE, **dict.fromkeys(("validation", "valid", "val"), PUBLIC)}


@dataclass(frozen=True)
class Layout:
    """Split and class of pictures, derived from their paths; sorted by split, number in the file name, and name.

    Parameters
    ----------
    paths : sorted paths. labels : int8 [n]. usage : uint8 [n] (see Faces).
    official : whether the split is the competition's. split_source : source of the split, as text.
    """

    paths: list[str]
    labels: np.ndarray
    usage: np.ndarray
    official: bool
    split_source: str


def layout(paths: list[str]) -> Layout:
    """Determine split and class of each picture from its path. Raises UserError if one is unknown or missing.

    If every file name starts with a split, these splits are used. Otherwise the folders determine the split; test/, or
    validation/ if there is no test/, is used as PrivateTest.
    """
    table = pd.DataFrame([("", "", *PurePosixPath(path.lower()).parts)[-3:] for path in paths],
                         columns=["folder", "kind", "file"]).assign(path=paths)  # fmt: skip
    table["label"] = _known(table, "kind", CLASS_OF, f"its folder must be one of {', '.join(CLASS_OF)}")
    named = table["file"].str.split("_").str[0].map(OFFICIAL)
    if named.notna().all() and {TRAINING, PRIVATE} <= set(named):
        table["usage"], official, split_source = named, True, "by the file names (Training_, PublicTest_, PrivateTest_)"
    else:
        held_out = {"test", "privatetest"} & set(table["folder"])
        split_of = FOLDERS if held_out else {name: PRIVATE if code else TRAINING for name, code in FOLDERS.items()}
        table["usage"] = _known(table, "folder", split_of, "its split is unknown; move it to train/ or test/")
        present = set(table["folder"])
        used_as = (f"{name}/ as {SPLITS[code]}" for name, code in split_of.items() if name in present)
        official, split_source = present == set(OFFICIAL), f"by the folders: {', '.join(used_as)}"
    counts = np.zeros((len(SPLITS), len(CLASSES)), int)
    np.add.at(counts, (table["usage"], table["label"]), 1)
    if missing := [name for name, count in zip(CLASSES, counts[TRAINING], strict=True) if not count]:
        raise UserError(f"train/ has no picture of {', '.join(missing)}; add some")
    if not counts[PRIVATE].any():
        raise UserError("no picture is held out as PrivateTest; add some to test/ or validation/")
    split_source += "" if counts[PUBLIC].any() else "; PublicTest is empty"
    if official and counts.tolist() != [list(each) for each in CLASS_COUNTS]:
        official, split_source = False, f"{split_source}; but the numbers of pictures differ from the competition's"
    repeated = table.duplicated(["usage", "label", "file"], keep=False)
    if repeated.any():
        raise UserError(f"{table['path'][repeated].iloc[0]}: its split, class and name are repeated; keep one file")
    table["number"] = table["file"].str.extract(r"(\d+)\D*$", expand=False).astype(float).fillna(-1)
    table["kind"] = np.array(CLASSES)[table["label"]]
    table = table.sort_values(["usage", "number", "kind", "file"])
    labels, usage = table["label"].to_numpy("int8"), table["usage"].to_numpy("uint8")
    return Layout(table["path"].tolist(), labels, usage, official, split_source)


def _known(table: pd.DataFrame, column: str, codes: dict[str, int], wrong: str) -> pd.Series:
    """Map the names in a column to codes. Raises UserError with the path of the first picture with an unknown name."""
    mapped = table[column].map(codes)
    if mapped.isna().any():
        raise UserError(f"{table['path'][mapped.isna()].iloc[0]}: {wrong}")
    return mapped.astype(int)


def decode(content: bytes, name: str) -> np.ndarray:
    """Decode a grey picture file to uint8 [48, 48]. Raises UserError, starting with `name`, for any other file."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            mode, size = picture.mode, picture.size
            colours = np.array(picture.convert("RGB"))
    except Exception:  # Pillow's decoders raise many different exceptions for damaged files
        raise UserError(f"{name} cannot be read as a picture; replace or remove it") from None
    if size != (SIDE, SIDE):
        raise UserError(f"{name} has {size[0]} x {size[1]} pixels instead of {SIDE} x {SIDE}; resize it")
    if mode not in ("L", "RGB", "P") or (colours != colours[:, :, :1]).any():
        raise UserError(f"{name} is not an 8-bit greyscale picture (mode {mode}); convert it")
    return colours[:, :, 0]
