"""The data as pictures in folders, one a class: which split and class each picture is of, and what it shows.

Reads data/raw/pictures.zip, into which download packs them. Layouts that are known to go round:

- test/disgust/PublicTest_8514439.jpg (msambare/fer2013 on Kaggle): the file names carry the official split;
- test/disgusted/im0.png (atulapra/Emotion-detection on GitHub): test/ has both test splits, and does not say which;
- images/validation/disgust/0.jpg (jonathanoheix/face-expression-recognition-dataset on Kaggle): a split of its own.
"""

import io
import itertools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline import files
from pipeline.competition import CLASS_COUNTS, CLASSES, PRIVATE, PUBLIC, SIDE, SPLITS, TRAINING
from pipeline.errors import UserError

NAME = "pictures.zip"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
FORMATS = ("JPEG", "PNG", "BMP")
LARGEST = 2**20  # bytes of a file; 48 x 48 grey pixels take a hundredth of it
# A class is known by its folder's name, never by its place in the alphabet. The last three are atulapra's.
CLASS_OF = {name: code for code, name in enumerate(CLASSES)} | {"disgusted": 1, "fearful": 2, "surprised": 5}
OFFICIAL = {split.lower(): code for code, split in enumerate(SPLITS)}
HELD_OUT = ("validation", "valid", "val", "test")
# What the file names in a folder may say without contradicting it.
MAY_HOLD = {"train": (TRAINING,), **dict.fromkeys(HELD_OUT, (PUBLIC, PRIVATE))}
MAY_HOLD |= {name: (code,) for name, code in OFFICIAL.items()}


@dataclass(frozen=True)
class Layout:
    """What paths say of their pictures, sorted by split, then by the number in the file's name, then by name.

    Parameters
    ----------
    paths : as they were given. names : the same in one form, SPLIT/CLASS/FILE.
    labels : int8 [n], usage : uint8 [n] (see Faces). official : whether the split is the competition's.
    says : where the split comes from, in a sentence.
    """

    paths: list[str]
    names: list[str]
    labels: np.ndarray
    usage: np.ndarray
    official: bool
    says: str


def class_of(path: str) -> int | None:
    """The class that the folder of a file stands for, or None."""
    return CLASS_OF.get(path.lower().split("/")[-2]) if "/" in path else None


def layout(paths: list[str]) -> Layout:
    """Tell split and class of every picture by its path. Raises UserError where one cannot be told, or is missing.

    The file names' split is taken where every name begins with one, and none contradicts its folder; otherwise that of
    the folders, where test/ (or validation/, where that is all) stands as PrivateTest.
    """
    labels = [_label(path) for path in paths]
    folders = [next((part for part in path.lower().split("/")[-3:-2] if part in MAY_HOLD), "") for path in paths]
    usage, official, says = _splits(paths, folders)
    counts = np.zeros((len(SPLITS), len(CLASSES)), int)
    np.add.at(counts, (usage, labels), 1)
    _check(counts)
    says += "; PublicTest is empty" if not counts[PUBLIC].any() else ""
    if official and counts.tolist() != [list(each) for each in CLASS_COUNTS]:
        official, says = False, f"{says}; but other numbers of pictures than the competition's"
    names = [
        "/".join(filter(None, (folder, CLASSES[label], path.split("/")[-1])))
        for folder, label, path in zip(folders, labels, paths, strict=True)
    ]
    order = sorted(range(len(paths)), key=lambda i: (usage[i], _number(names[i]), names[i]))
    for one, other in itertools.pairwise(order):
        if names[one] == names[other]:
            raise UserError(f"{paths[one]} and {paths[other]} are the same picture by their names: leave one of them")
    return Layout(
        [paths[i] for i in order], [names[i] for i in order], np.array(labels, dtype=np.int8)[order],
        np.array(usage, dtype=np.uint8)[order], official, says,
    )  # fmt: skip


def _label(path: str) -> int:
    label = class_of(path)
    if label is None:
        raise UserError(
            f"{path} lies in no folder of a class: it must be one of {', '.join(CLASS_OF)} (numbers could count "
            "by the competition or by the alphabet); rename or remove it"
        )
    return label


def _splits(paths: list[str], folders: list[str]) -> tuple[list[int], bool, str]:
    """The split of each picture, whether it is the competition's, and where it comes from, in words."""
    named = [OFFICIAL.get(path.lower().split("/")[-1].partition("_")[0]) for path in paths]
    by_name = [code for code in named if code is not None]
    if len(by_name) == len(paths) and all(
        code in MAY_HOLD.get(folder, (code,)) for folder, code in zip(folders, by_name, strict=True)
    ):
        return by_name, True, "by the file names (Training_, PublicTest_, PrivateTest_)"
    unknown = [(code is not None, path) for path, folder, code in zip(paths, folders, named, strict=True) if not folder]
    if unknown:
        raise UserError(
            f"{min(unknown)[1]}: its split is not known; put the folders of the classes into train/ and test/ (or "
            "validation/), or bring files whose names all begin with Training_, PublicTest_ or PrivateTest_"
        )
    usage, says = _by_folder(folders)
    return usage, set(folders) == set(OFFICIAL), says + (", whatever the file names say" if by_name else "")


def _check(counts: np.ndarray) -> None:
    """Raise UserError where a class has no picture to train on, or none is held out."""
    if missing := [name for name, count in zip(CLASSES, counts[TRAINING], strict=True) if not count]:
        raise UserError(f"there is no picture to train on of {', '.join(missing)}: every class needs some in train/")
    if not counts[PRIVATE].any():
        raise UserError(
            "no picture is held out as PrivateTest: there must be files PrivateTest_..., or a folder test/ (or "
            "validation/) whose file names do not say PublicTest_"
        )


def _by_folder(folders: list[str]) -> tuple[list[int], str]:
    """The split of each picture by the folder that its class's folder lies in, and that in words."""
    alone = not {"test", "privatetest"} & set(folders)
    slots = {"train": TRAINING, **dict.fromkeys(HELD_OUT, PRIVATE if alone else PUBLIC), "test": PRIVATE} | OFFICIAL
    said = [f"{name}/ stands as {SPLITS[code]}" for name, code in slots.items() if name in folders]
    return [slots[folder] for folder in folders], f"by the folders: {', '.join(said)}"


def _number(name: str) -> int:
    numbers = re.findall(r"\d+", name.split("/")[-1])
    return int(numbers[-1]) if numbers else -1


def decode(content: bytes, what: str) -> np.ndarray:
    """The grey levels of a picture file, uint8 [48, 48]. Raises UserError, which begins with `what`, for any other."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            mode, size = picture.mode, picture.size
            colours = np.array(picture.convert("RGB")) if size == (SIDE, SIDE) else None
    except Exception as trouble:  # Pillow's readers each have their own way to say that a file is damaged
        why = "it is none" if isinstance(trouble, UnidentifiedImageError) else trouble
        raise UserError(f"{what} cannot be read as a picture ({why}); bring it again, or remove it") from None
    if colours is None:
        raise UserError(f"{what} has {size[0]} x {size[1]} pixels instead of {SIDE} x {SIDE}; bring it in that size")
    if mode not in ("L", "RGB", "P"):
        raise UserError(f"{what} has the mode {mode}; save it as a grey picture with 8 bits")
    if (colours != colours[:, :, :1]).any():
        raise UserError(f"{what} is in colour; save it as a grey picture")
    return colours[:, :, 0]


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read what download packed: pixels uint8 [n, 48, 48], labels int8 [n], usage uint8 [n].

    The comment of each picture in the .zip is the user's own file, which messages name.
    """
    with files.reading(path, "dvc repro -f download"), zipfile.ZipFile(path) as archive:
        found = layout(archive.namelist())
        pixels = []
        for member in map(archive.getinfo, found.paths):
            if member.file_size > LARGEST:
                raise ValueError(f"{member.filename} has {member.file_size:,} bytes")
            pixels.append(decode(archive.read(member), member.comment.decode() or f"{path}, {member.filename}"))
    return np.stack(pixels), found.labels, found.usage
