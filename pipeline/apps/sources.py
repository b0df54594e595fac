"""Bring pictures from wherever they are: files, folders, tables in the competition's forms, videos, a camera."""

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

# Not all that Pillow knows: some readers start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
PICTURES = (".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
            ".tif", ".tiff", ".webp")  # fmt: skip
TABLES = (".csv", ".gz")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
RATE = 25.0  # frames a second where a video does not say it
LARGEST_RATE = 240.0
CAMERA = "camera"


@dataclass(frozen=True)
class Picture:
    """One picture: uint8 [h, w], or [h, w, 3] in red, green, blue.

    Parameters
    ----------
    frame : number of the frame in a video, or of the row in a table, from 1 up. seconds : when it was, by a
        clock of the source's own. aligned : whether it shows a face as FER2013 does, and nothing else.
    label : its class, 0 to 6, where its table says it, else -1.
    """

    pixels: np.ndarray
    frame: int | None = None
    seconds: float = 0.0
    aligned: bool = False
    label: int = -1


@dataclass
class Source:
    """A file, or a camera.

    Parameters
    ----------
    place : where it stands in the folder that was named; of a camera, its number. kind : "picture", "table", "video" or
        CAMERA. rate : of frames, known once it is open.
    """

    path: Path
    place: Path
    kind: str
    rate: float = RATE

    def __str__(self) -> str:
        return printable(self.path)

    def pictures(self) -> Iterator[Picture]:
        """All of its pictures. Raises UserError for what cannot be read."""
        if self.kind == CAMERA:
            yield from self._frames(int(self.place.name))
        elif not self.path.is_file():
            raise UserError("it cannot be opened")
        elif self.kind == "picture":
            yield Picture(read(self.path))
        elif self.kind == "video":
            yield from self._frames(os.fsencode(self.path).decode())  # OpenCV crashes at a name that is not UTF-8
        else:
            from pipeline.data import prepare  # pandas takes its time

            table = prepare.read_file(self.path)
            for row, (pixels, label) in enumerate(zip(table.pixels, table.labels.tolist(), strict=True), 1):
                yield Picture(pixels, row, aligned=True, label=label)

    def _frames(self, device: int | str) -> Iterator[Picture]:
        cv2 = detect.opencv()
        capture = cv2.VideoCapture(device)
        self.rate = RATE if self.kind == CAMERA else rate(cv2, device)
        number = 0
        try:
            while (found := capture.read())[0]:
                number += 1
                # A camera's frames come as fast as they are judged, whatever it says; a video's have time stamps.
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                seconds = time.monotonic() if self.kind == CAMERA else stamp
                yield Picture(found[1][..., ::-1], number, seconds)
        finally:
            capture.release()
        if not number:
            raise UserError("OpenCV can read no frame of it")


def rate(cv2: Any, video: int | str) -> float:
    """Frames a second: as the header says, or where that cannot be (a browser's recording says 1000) by time stamps."""
    capture = cv2.VideoCapture(video)
    try:
        told = float(capture.get(cv2.CAP_PROP_FPS))
        if 1 <= told <= LARGEST_RATE:
            return told
        stamps = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(30) if capture.grab()]
    finally:
        capture.release()
    gap = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    return min(max(1000 / gap, 1.0), LARGEST_RATE) if gap > 0 else RATE


def printable(path: Path) -> str:
    """A path as it can be shown: what is no character, or would move the cursor, stands there by its code."""
    name = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def read(file: Path | IO[bytes]) -> np.ndarray:
    """The picture in a file, upright: uint8 [h, w] or [h, w, 3]. Raises UserError where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                return plain(upright(picture))
    except UnidentifiedImageError:
        raise UserError(f"it is none of {', '.join(FORMATS)}") from None
    except PermissionError:
        raise UserError("you may not read it") from None
    except Exception as trouble:  # each of Pillow's readers has its own way to say that a file is damaged
        raise UserError(f"it is damaged ({trouble})") from None


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say; data that cannot be read cost themselves alone, not the pixels."""
    picture.load()
    with contextlib.suppress(Exception):  # they are read by many parsers, each with errors of its own
        return ImageOps.exif_transpose(picture)
    return picture


def plain(picture: Image.Image) -> np.ndarray:
    """Any picture as uint8 [h, w] or [h, w, 3]: 16 bits become 8, and what is transparent becomes white."""
    if picture.mode == "F":
        raise ValueError("its grey levels are fractions, and nothing says of what")
    if picture.mode.startswith("I"):
        return (np.asarray(picture) / 257).round().astype("uint8")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.new("RGBA", clear.size, "white")
        picture.alpha_composite(clear)
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def find(inputs: list[str]) -> tuple[list[Source], int]:
    """What `inputs` stand for: files, "camera:1", pictures and videos of folders; and how many other files are there.

    Hidden files and links to folders are left out. Raises UserError for an input that does not exist.
    """
    found, others = [], 0
    for text in inputs:
        path = Path(text)
        name, _, number = text.partition(":")
        if path.is_dir():
            closed: list[OSError] = []  # folders that may not be listed are skipped like files that may not be read
            files = [Path(folder, file) for folder, _, names in os.walk(path, onerror=closed.append) for file in names]
            folders = {Path(trouble.filename).relative_to(path) for trouble in closed}
            places = sorted({file.relative_to(path) for file in files} | folders)
            places = [place for place in places if not any(part.startswith(".") for part in place.parts)]
            seen = [Source(path / place, place, _kind(place)) for place in places
                    if _seen(place) or place in folders]  # fmt: skip
            others += len(places) - len(seen)
            found += seen
        elif path.exists():
            found.append(Source(path, Path(path.name), _kind(path)))
        elif name == CAMERA and (number or "0").isdecimal():
            found.append(Source(path, Path(number or "0"), CAMERA))
        else:
            raise UserError(f"{printable(path)} is neither a file nor a folder, nor a camera, like {CAMERA}:0")
    if not found:
        raise UserError(f"there are no pictures or videos in {', '.join(inputs)}")
    return found, others


def _seen(path: Path) -> bool:
    """Whether a file of a folder is looked at: by its name a picture or a video."""
    return path.suffix.lower() in PICTURES + VIDEOS


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "table" if suffix in TABLES else "video" if suffix in VIDEOS else "picture"
