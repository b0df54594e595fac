"""The data as pictures in folders, one a class: which split and class each picture is of, and what it shows.

Download decodes them into data/raw/pictures.npz: pixels uint8 [n, 48, 48], labels int8 [n], usage uint8 [n]. Layouts
that are known to go round:

- test/disgust/PublicTest_8514439.jpg (msambare/fer2013 on Kaggle): the file names carry the official split;
- test/disgusted/im0.png (atulapra/Emotion-detection on GitHub): test/ has both test splits, and does not say which;
- images/validation/disgust/0.jpg (jonathanoheix/face-expression-recognition-dataset on Kaggle): a split of its own.
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
# A class is known by its folder's name, never by its place in the alphabet. The last three are atulapra's.
CLASS_OF = {name: code for code, name in enumerate(CLASSES)} | {"disgusted": 1, "fearful": 2, "surprised": 5}
OFFICIAL = {split.lower(): code for code, split in enumerate(SPLITS)}
FOLDERS = OFFICIAL | {"train": TRAINING, "test": PRIVATE, **dict.fromkeys(("validation", "valid", "val"), PUBLIC)}


@dataclass(frozen=True)
class Layout:
    """What paths say of their pictures, sorted by split, then by the number in the file's name, then by name.

    Parameters
    ----------
    paths : as they were given. labels : int8 [n]. usage : uint8 [n] (see Faces).
    official : whether the split is the competition's. says : where the split comes from, in a sentence.
    """

    paths: list[str]
    labels: np.ndarray
    usage: np.ndarray
    official: bool
    says: str


def layout(paths: list[str]) -> Layout:
    """Tell split and class of every picture by its path. Raises UserError where one cannot be told, or is missing.

    The file names' split is taken where every name begins with one; otherwise that of the folders, where test/ (or
    validation/, where that is all) stands as PrivateTest.
    """
    table = pd.DataFrame([("", "", *PurePosixPath(path.lower()).parts)[-3:] for path in paths],
                         columns=["folder", "kind", "file"]).assign(path=paths)  # fmt: skip
    table["label"] = _known(table, "kind", CLASS_OF, f"it lies in none of the folders {', '.join(CLASS_OF)}")
    named = table["file"].str.split("_").str[0].map(OFFICIAL)
    if named.notna().all() and {TRAINING, PRIVATE} <= set(named):
        table["usage"], official, says = named, True, "by the file names (Training_, PublicTest_, PrivateTest_)"
    else:
        held_out = {"test", "privatetest"} & set(table["folder"])
        split_of = FOLDERS if held_out else {name: PRIVATE if code else TRAINING for name, code in FOLDERS.items()}
        table["usage"] = _known(table, "folder", split_of, "its split is not known; put it into train/ or test/")
        stands = (
            f"{name}/ stands as {SPLITS[code]}" for name, code in split_of.items() if name in set(table["folder"])
        )
        official, says = set(table["folder"]) == set(OFFICIAL), f"by the folders: {', '.join(stands)}"
    counts = np.zeros((len(SPLITS), len(CLASSES)), int)
    np.add.at(counts, (table["usage"], table["label"]), 1)
    if missing := [name for name, count in zip(CLASSES, counts[TRAINING], strict=True) if not count]:
        raise UserError(f"there is no picture of {', '.join(missing)} to train on: put some into train/")
    if not counts[PRIVATE].any():
        raise UserError("no picture is held out as PrivateTest: put some into test/ or validation/")
    says += "" if counts[PUBLIC].any() else "; PublicTest is empty"
    if official and counts.tolist() != [list(each) for each in CLASS_COUNTS]:
        official, says = False, f"{says}; but other numbers of pictures than the competition's"
    repeated = table.duplicated(["usage", "label", "file"], keep=False)
    if repeated.any():
        raise UserError(
            f"{table['path'][repeated].iloc[0]} stands there twice by its name and class: leave one of them"
        )
    table["number"] = table["file"].str.extract(r"(\d+)\D*$", expand=False).astype(float).fillna(-1)
    table["kind"] = np.array(CLASSES)[table["label"]]
    table = table.sort_values(["usage", "number", "kind", "file"])
    labels, usage = table["label"].to_numpy("int8"), table["usage"].to_numpy("uint8")
    return Layout(table["path"].tolist(), labels, usage, official, says)


def _known(table: pd.DataFrame, column: str, codes: dict[str, int], wrong: str) -> pd.Series:
    """The code of each word of a column. Raises UserError that names the first picture with another word."""
    found = table[column].map(codes)
    if found.isna().any():
        raise UserError(f"{table['path'][found.isna()].iloc[0]}: {wrong}")
    return found.astype(int)


def decode(content: bytes, what: str) -> np.ndarray:
    """The grey levels of a picture file, uint8 [48, 48]. Raises UserError, which begins with `what`, for any other."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            mode, size = picture.mode, picture.size
            colours = np.array(picture.convert("RGB"))
    except Exception:  # Pillow's readers each have their own way to say that a file is damaged
        raise UserError(f"{what} cannot be read as a picture; bring it again, or remove it") from None
    if size != (SIDE, SIDE):
        raise UserError(f"{what} has {size[0]} x {size[1]} pixels instead of {SIDE} x {SIDE}; bring it in that size")
    if mode not in ("L", "RGB", "P") or (colours != colours[:, :, :1]).any():
        raise UserError(f"{what} is no grey picture of 8 bits (mode {mode}); save it as one")
    return colours[:, :, 0]
