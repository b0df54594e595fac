"""Bring pictures from wherever they are: files, folders, tables in the competition's forms, videos, a camera."""

import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.apps import detect
from pipeline.data import prepare
from pipeline.errors import UserError

# Not all that Pillow knows: some readers start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
TABLES = (".csv", ".gz")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
RATE = 25.0  # frames a second where a video does not say it
CAMERA = "camera"


class Unusable(Exception):
    """Why a file is skipped."""


@dataclass(frozen=True)
class Picture:
    """One picture: uint8 [h, w], or [h, w, 3] in red, green, blue.

    Parameters
    ----------
    frame : number of the frame in a video, or of the row in a table, from 1 up. seconds : when it was, by a
        clock of the source's own. aligned : whether it shows a face as FER2013 does, and nothing else.
    """

    pixels: np.ndarray
    frame: int | None = None
    seconds: float = 0.0
    aligned: bool = False


@dataclass
class Source:
    """A file, or a camera.

    Parameters
    ----------
    place : where it stands in the folder that was named; of a camera, its number. kind : "picture", "table", "video" or
        CAMERA. rate : of frames, and count : of pictures, as far as they are known; better once it is open.
    """

    path: Path
    place: Path
    kind: str
    rate: float = RATE
    count: int = 1

    def __str__(self) -> str:
        return printable(self.path)

    def pictures(self) -> Iterator[Picture]:
        """All of its pictures. Raises Unusable for what cannot be read."""
        if self.kind == CAMERA:
            yield from self._frames(int(self.place.name))
            return
        if not self.path.is_file():
            raise Unusable("it is no file that can be opened")
        if not self.path.stat().st_size:
            raise Unusable("it is empty")
        if self.kind == "picture":
            yield Picture(read(self.path))
        elif self.kind == "video":
            yield from self._frames(str(self.path))
        else:
            try:
                table = prepare.read_file(self.path)
            except (UserError, OSError) as trouble:
                raise Unusable(str(trouble)) from None
            self.count = len(table.pixels)
            for row, pixels in enumerate(table.pixels, 1):
                yield Picture(pixels, row, aligned=True)

    def _frames(self, device: int | str) -> Iterator[Picture]:
        cv2 = detect.opencv()
        try:
            capture = cv2.VideoCapture(device)
        except (cv2.error, UnicodeError) as trouble:
            raise Unusable(str(trouble)) from None
        try:
            self.rate = capture.get(cv2.CAP_PROP_FPS) or RATE
            self.count = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            number, now = 0, 0.0
            while True:
                whole, frame = capture.read()
                if not whole:
                    break
                number += 1
                # A camera's frames come as fast as they are judged, whatever it says.
                told = time.monotonic() if self.kind == CAMERA else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # Where the container's clock stands still, or steps back at a cut, the next frame is due.
                now = told if number == 1 or told > now else now + 1 / self.rate
                yield Picture(frame[..., ::-1], number, now)
        finally:
            capture.release()
        if not number:
            raise Unusable("OpenCV can read no frame of it")
        lasts = self.count / self.rate  # some containers only estimate the count; then it is wrong, and this is right
        if self.kind != CAMERA and now + 1 / self.rate < 0.9 * lasts:
            raise Unusable(f"it breaks off after {number:,} frames, {now:.1f} of about {lasts:.1f} seconds")


def printable(path: Path) -> str:
    """A path as it can be shown: what is no character, or would move the cursor, stands there by its code."""
    name = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def read(path: Path) -> np.ndarray:
    """The picture in a file, upright: uint8 [h, w] or [h, w, 3]. Raises Unusable where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                return plain(ImageOps.exif_transpose(picture))
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unusable(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise Unusable(f"it is none of {', '.join(FORMATS)}, nor a table or video by its name") from None
    except Exception as trouble:  # each of Pillow's readers has its own way to say that a file is damaged
        raise Unusable(f"it is damaged ({trouble or type(trouble).__name__})") from None


def plain(picture: Image.Image) -> np.ndarray:
    """Any picture as uint8 [h, w] or [h, w, 3]: 16 bits become 8, and what is transparent becomes white."""
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype("int64")
        if levels.min() < 0 or levels.max() > 65535:
            raise Unusable("its grey levels are beyond 16 bits")
        if picture.mode == "I" and levels.max() <= 255:
            return levels.astype("uint8")  # 8 bits in 32
        return (levels / 257).round().astype("uint8")
    if picture.mode == "F":
        raise Unusable("its grey levels are fractions, and nothing says of what")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.new("RGBA", clear.size, "white")
        picture.alpha_composite(clear)
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def find(inputs: list[str]) -> list[Source]:
    """What `inputs` stand for: files, all files of folders (hidden ones and links to folders left out), "camera:1".

    Raises UserError for one that does not exist.
    """
    found = []
    for text in inputs:
        path = Path(text)
        name, _, number = text.partition(":")
        if name == CAMERA and (number or "0").isdecimal() and not path.exists():
            found.append(Source(path, Path(number or "0"), CAMERA))
        elif path.is_dir():
            closed: list[OSError] = []  # folders that cannot be read: named when their turn comes
            inside = [
                Path(folder) / file for folder, _, files in os.walk(path, onerror=closed.append) for file in files
                if not any(part.startswith(".") for part in (Path(folder) / file).relative_to(path).parts)
            ]  # fmt: skip
            inside += [Path(os.fsdecode(trouble.filename)) for trouble in closed]
            found += [Source(file, file.relative_to(path), _kind(file)) for file in sorted(inside)]
        elif os.path.lexists(path):
            found.append(Source(path, Path(path.name), _kind(path)))
        else:
            raise UserError(f"{printable(path)} is neither a file nor a folder, nor a camera, like {CAMERA}:0")
    if not found:
        raise UserError(f"there are no files in {', '.join(printable(Path(text)) for text in inputs)}")
    return found


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "table" if suffix in TABLES else "video" if suffix in VIDEOS else "picture"
