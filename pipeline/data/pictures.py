"""The data as pictures in folders, one a class: which split and class each picture is of, and what it shows.

Reads data/raw/pictures.zip, into which download packs them. Layouts that are known to go round:

- test/disgust/PublicTest_8514439.jpg (msambare/fer2013 on Kaggle): the file names carry the official split;
- test/disgusted/im0.png (atulapra/Emotion-detection on GitHub): test/ has both test splits, and does not say which;
- images/validation/disgust/0.jpg (jonathanoheix/face-expression-recognition-dataset on Kaggle): a split of its own.
"""

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pipeline import files
from pipeline.competition import CLASS_COUNTS, CLASSES, PRIVATE, PUBLIC, SIDE, SPLITS, TRAINING
from pipeline.errors import UserError

NAME = "pictures.zip"
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
    paths : as they were given. names : SPLIT/CLASS/FILE, for the packed file.
    labels : int [n]. usage : int [n] (see Faces). official : whether the split is the competition's.
    says : where the split comes from, in a sentence.
    """

    paths: list[str]
    names: list[str]
    labels: np.ndarray
    usage: np.ndarray
    official: bool
    says: str


def layout(paths: list[str]) -> Layout:
    """Tell split and class of every picture by its path. Raises UserError where one cannot be told, or is missing.

    The file names' split is taken where every name begins with one; otherwise that of the folders, where test/ (or
    validation/, where that is all) stands as PrivateTest.
    """
    parts = [("", "", *PurePosixPath(path.lower()).parts)[-3:] for path in paths]
    for path, (_, name, _) in zip(paths, parts, strict=True):
        if name not in CLASS_OF:
            raise UserError(f"{path} lies in no folder of a class; the folders are {', '.join(CLASS_OF)}")
    named = [OFFICIAL.get(file.partition("_")[0]) for _, _, file in parts]
    if {TRAINING, PRIVATE} <= set(named) and None not in named:
        usage, official, says = np.array(named), True, "by the file names (Training_, PublicTest_, PrivateTest_)"
    else:
        usage, official, says = _by_folder(paths, [folder for folder, _, _ in parts])
    labels = np.array([CLASS_OF[name] for _, name, _ in parts], int)
    counts = np.zeros((len(SPLITS), len(CLASSES)), int)
    np.add.at(counts, (usage, labels), 1)
    if missing := [name for name, count in zip(CLASSES, counts[TRAINING], strict=True) if not count]:
        raise UserError(f"there is no picture of {', '.join(missing)} to train on: put some into train/")
    if not counts[PRIVATE].any():
        raise UserError("no picture is held out as PrivateTest: put some into test/ or validation/")
    says += "" if counts[PUBLIC].any() else "; PublicTest is empty"
    if official and counts.tolist() != [list(each) for each in CLASS_COUNTS]:
        official, says = False, f"{says}; but other numbers of pictures than the competition's"
    names = [f"{SPLITS[usage[i]]}/{CLASSES[labels[i]]}/{PurePosixPath(path).name}" for i, path in enumerate(paths)]
    if len(set(names)) < len(names):
        twice = next(path for path, name in zip(paths, names, strict=True) if names.count(name) > 1)
        raise UserError(f"{twice} stands there twice by its name and class: leave one of them")
    order = sorted(range(len(paths)), key=lambda i: (usage[i], _number(names[i]), names[i]))
    return Layout([paths[i] for i in order], [names[i] for i in order], labels[order], usage[order], official, says)


def _by_folder(paths: list[str], folders: list[str]) -> tuple[np.ndarray, bool, str]:
    """The split of each picture by the folder that its class's folder lies in, whether it is official, and why."""
    split_of = FOLDERS if {"test", "privatetest"} & set(folders) else FOLDERS | dict.fromkeys(
        (name for name, code in FOLDERS.items() if code == PUBLIC), PRIVATE)  # fmt: skip
    for path, folder in zip(paths, folders, strict=True):
        if folder not in split_of:
            raise UserError(f"{path}: its split is not known; put the folders of the classes into train/ and test/")
    says = ", ".join(f"{name}/ stands as {SPLITS[code]}" for name, code in split_of.items() if name in folders)
    return np.array([split_of[each] for each in folders], int), set(folders) == set(OFFICIAL), f"by the folders: {says}"


def _number(name: str) -> int:
    numbers = re.findall(r"\d+", name.split("/")[-1])
    return int(numbers[-1]) if numbers else -1


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


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read what download packed: pixels uint8 [n, 48, 48], labels int8 [n], usage uint8 [n].

    The comment of each picture in the .zip is the user's own file, which messages name.
    """
    with files.reading(path, "dvc repro -f download"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        pixels = np.stack([decode(archive.read(each), each.comment.decode()) for each in members])
        splits, classes = zip(*(each.filename.split("/")[:2] for each in members), strict=True)
        labels, usage = [CLASSES.index(name) for name in classes], [SPLITS.index(name) for name in splits]
    return pixels, np.array(labels, "int8"), np.array(usage, "uint8")
