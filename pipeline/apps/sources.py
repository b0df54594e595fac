"""Pictures from files, folders, tables in the competition's formats, videos and cameras."""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.apps import detect
from pipeline.errors import UserError

# Not all formats of Pillow: some of its readers start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
PICTURES = (".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
            ".tif", ".tiff", ".webp")  # fmt: skip
TABLES = (".csv", ".gz")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
RATE = 25.0  # frames per second, if a video does not state it
LARGEST_RATE = 240.0
CAMERA = "camera"


@dataclass(frozen=True)
class Picture:
    """One picture: uint8 [h, w], or [h, w, 3] in red, green, blue.

    Parameters
    ----------
    frame : number of the frame in a video, or of the row in a table, starting at 1. seconds : time by the clock of the
        source. aligned : whether it is a face crop as in FER2013. label : its class, 0 to 6; -1 if unknown.
    """

    pixels: np.ndarray
    frame: int | None = None
    seconds: float = 0.0
    aligned: bool = False
    label: int = -1


@dataclass
class Source:
    """A file or a camera.

    Parameters
    ----------
    place : path relative to the given folder; the number of a camera. kind : "picture", "table", "video" or CAMERA.
    rate : frames per second, known once it is open.
    """

    path: Path
    place: Path
    kind: str
    rate: float = RATE

    def __str__(self) -> str:
        return printable(self.path)

    def pictures(self) -> Iterator[Picture]:
        """Yield all pictures. Raises UserError if the source cannot be read."""
        if self.kind == CAMERA:
            yield from self._frames(int(self.place.name))
        elif not self.path.is_file():
            raise UserError("the file cannot be opened")
        elif self.kind == "picture":
            yield Picture(read(self.path))
        elif self.kind == "video":
            yield from self._frames(os.fsencode(self.path).decode())  # OpenCV crashes on names that are not UTF-8
        else:
            from pipeline.data import prepare  # imports pandas, which is slow

            table = prepare.read_file(self.path)
            for row, (pixels, label) in enumerate(zip(table.pixels, table.labels.tolist(), strict=True), 1):
                yield Picture(pixels, row, aligned=True, label=label)

    def _frames(self, device: int | str) -> Iterator[Picture]:
        cv2 = detect.opencv()
        capture = cv2.VideoCapture(device)
        self.rate = RATE if self.kind == CAMERA else rate(cv2, device)
        number = 0
        try:
            while (result := capture.read())[0]:
                number += 1
                # The frame rate of a camera depends on the time of the predictions; videos have time stamps.
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 or (number - 1) / self.rate  # some streams have none
                seconds = time.monotonic() if self.kind == CAMERA else stamp
                yield Picture(result[1][..., ::-1], number, seconds)
        finally:
            capture.release()
        if not number:
            raise UserError("OpenCV cannot read any frame")


def rate(cv2: Any, video: int | str) -> float:
    """Return frames per second from the header or, if implausible (1000 in browser recordings), from time stamps."""
    capture = cv2.VideoCapture(video)
    try:
        stated = float(capture.get(cv2.CAP_PROP_FPS))
        if 1 <= stated <= LARGEST_RATE:
            return stated
        stamps = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(30) if capture.grab()]
    finally:
        capture.release()
    gap = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    return min(max(1000 / gap, 1.0), LARGEST_RATE) if gap > 0 else RATE


def printable(path: Path) -> str:
    """Return a path for display, with undecodable bytes and control characters escaped."""
    name = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def read(file: Path | IO[bytes]) -> np.ndarray:
    """Read an upright picture from a file: uint8 [h, w] or [h, w, 3]. Raises UserError if that is impossible."""
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                return plain(upright(picture))
    except UnidentifiedImageError:
        raise UserError(f"it is damaged, or its format is not one of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers have no common exception for damaged files
        raise UserError(f"the picture cannot be read ({error})") from None


def upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned according to its EXIF orientation; unreadable EXIF data are ignored."""
    picture.load()
    with contextlib.suppress(Exception):  # the EXIF parsers have no common exception
        return ImageOps.exif_transpose(picture)
    return picture


def plain(picture: Image.Image) -> np.ndarray:
    """Convert any picture to uint8 [h, w] or [h, w, 3]: 16 bits become 8, transparent pixels become white."""
    if picture.mode == "F":
        raise ValueError("its grey levels are floats of unknown range")
    if picture.mode.startswith("I"):
        levels = np.asarray(picture)
        if ((levels < 0) | (levels > 65535)).any():
            raise ValueError("its grey levels are not within 0 to 65,535")
        return (levels / 257).round().astype("uint8")
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def find(inputs: list[str]) -> tuple[list[Source], int]:
    """Return the sources of `inputs` (files, "camera:1", folders), and the number of other files in the folders.

    Each source is returned once. Hidden files and links to folders are left out. Raises UserError for an input that
    does not exist.
    """
    sources, others = [], 0
    for text in inputs:
        path = Path(text)
        name, _, number = text.partition(":")
        if path.is_dir():
            errors: list[OSError] = []  # unreadable folders are skipped like unreadable files
            files = [Path(folder, file) for folder, _, names in os.walk(path, onerror=errors.append) for file in names]
            closed = {Path(error.filename).relative_to(path) for error in errors}
            places = sorted({file.relative_to(path) for file in files} | closed)
            places = [place for place in places if not any(part.startswith(".") for part in place.parts)]
            used = [place for place in places if place.suffix.lower() in PICTURES + VIDEOS or place in closed]
            others += len(places) - len(used)
            sources += [Source(path / place, place, _kind(place)) for place in used]
        elif path.exists():
            sources.append(Source(path, Path(path.name), _kind(path)))
        elif name == CAMERA and (number or "0").isdecimal():
            sources.append(Source(path, Path(number or "0"), CAMERA))
        else:
            raise UserError(f"{printable(path)} is not a file, a folder or a camera (like {CAMERA}:0)")
    if not sources:
        raise UserError(f"no pictures or videos in {', '.join(inputs)}")
    return list({source.path: source for source in sources}.values()), others


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "table" if suffix in TABLES else "video" if suffix in VIDEOS else "picture"
