"""Name the expressions of the faces in pictures, tables, videos, or before a camera.

Reads what is named, and a trained network. Prints a table; writes the table and annotated pictures where it is told to.

Exit status: 0 all was read, 1 nothing could begin, 3 some files were skipped (they are named), 130 stopped by Ctrl-C.
"""

import csv
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.apps import annotate, detect, networks
from pipeline.apps.networks import Network
from pipeline.apps.sources import CAMERA, Picture, Source, Unusable, find
from pipeline.competition import CLASSES, SIDE
from pipeline.errors import UserError

SKIPPED = 3  # the exit status where something was
TOGETHER = (128, 2**27)  # faces, and bytes of pictures, that are predicted at a time
SHOWN = 100  # lines of the table, where all of them stand in a file
NO_FACE = "no face"
SUFFIXES = {"picture": (".png", ".jpg", ".jpeg", ".webp"), "video": (".mp4", ".avi"), CAMERA: (".mp4", ".avi")}


@dataclass(frozen=True)
class Options:
    """What to look for, and what to draw; as python -m pipeline predict --help explains them."""

    out: Path | None
    explain: bool
    every_face: bool
    margin: float
    smooth: float


@dataclass(frozen=True)
class Seen:
    """A picture whose faces are found: their boxes, float [n, 3], and themselves, uint8 [n, 48, 48].

    Parameters
    ----------
    pixels : of the whole, where it shall be drawn.
    """

    source: Source
    picture: Picture
    boxes: np.ndarray
    faces: np.ndarray
    pixels: np.ndarray | None


def look(source: Source, picture: Picture, detector: detect.Detector | None, options: Options) -> Seen:
    """Find the faces of a picture; without `detector` it is one itself, its middle square."""
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(picture.pixels)).convert("L"))
    if picture.aligned or detector is None:
        height, width = grey.shape
        side = min(height, width)
        boxes = np.array([[(width - side) / 2, (height - side) / 2, side]])
    else:
        boxes = detect.widen(detector.boxes(grey), options.margin)[: None if options.every_face else 1]
    faces = [detect.crop(grey, box) for box in boxes]
    keep = (options.out and source.kind != "table") or source.kind == CAMERA
    return Seen(
        source, picture, boxes, np.array(faces, "uint8").reshape(-1, SIDE, SIDE), picture.pixels if keep else None
    )


class Window:
    """A live picture on this machine's screen. Raises UserError where there is none."""

    def __init__(self) -> None:
        try:
            import tkinter

            self.root = tkinter.Tk()
        except Exception as trouble:  # without tkinter an ImportError, without a display its own
            raise UserError(f"no window can be opened here ({trouble})") from None
        self.root.title("Expressions (close the window to stop)")
        self.open = True
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.label = tkinter.Label(self.root)
        self.label.pack()

    def show(self, picture: Image.Image) -> None:
        """Put `picture` into the window. Raises KeyboardInterrupt once it was closed."""
        from PIL import ImageTk

        self.shown = ImageTk.PhotoImage(picture, master=self.root)  # Tk keeps no reference of its own
        self.label.configure(image=self.shown)
        self.root.update()
        if not self.open:
            raise KeyboardInterrupt

    def close(self) -> None:
        """End the window, at the next picture."""
        self.open = False


class Drawings:
    """The annotated pictures and videos of a run, under the path `out`, or in this very file if there is one source."""

    def __init__(self, out: Path | None, sources: list[Source], stack: ExitStack) -> None:
        self.stack = stack
        self.targets: dict[int, Path] = {}
        self.writers: dict[int, Any] = {}
        self.window: Window | None = None
        drawn = [source for source in sources if source.kind != "table"] if out else []
        taken: set[Path] = set()
        for source in drawn:
            assert out is not None  # else nothing is drawn
            suffixes = SUFFIXES[source.kind]
            if len(sources) == 1 and out.suffix.lower() in suffixes and not out.is_dir():
                target = out
            else:
                more = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
                names = (source.place.with_name(f"{source.place.stem}{each}{suffixes[0]}") for each in more)
                target = next(out / name for name in names if out / name not in taken)
            taken.add(target)
            self.targets[id(source)] = target
            unharmed(target, sources)

    def add(self, source: Source, picture: Image.Image) -> None:
        """Write one picture, or a video's next frame; a camera's is shown."""
        if self.window and source.kind == CAMERA:
            self.window.show(picture)
        target = self.targets.get(id(source))
        if target is None:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.kind == "picture":
            picture.save(target, optimize=True)
            return
        cv2 = detect.opencv()
        if id(source) not in self.writers:
            code = cv2.VideoWriter_fourcc(*("MJPG" if target.suffix.lower() == ".avi" else "mp4v"))
            writer = cv2.VideoWriter(str(target), code, source.rate, picture.size)
            if not writer.isOpened():
                raise Unusable(f"{target} cannot be written as a video")
            self.stack.callback(writer.release)
            self.writers[id(source)] = writer
        self.writers[id(source)].write(np.asarray(picture)[..., ::-1])


def unharmed(target: Path, sources: list[Source]) -> None:
    """Refuse to write over what shall be read."""
    if target.exists() and any(source.path.exists() and target.samefile(source.path) for source in sources):
        raise UserError(f"{target} is one of the files to be read; write to another")


class Run:
    """One call of the command: predicts what it is given in batches, and puts the results where they belong."""

    def __init__(
        self, options: Options, network: Network, sources: list[Source], table: Path | None, stack: ExitStack
    ) -> None:
        self.options = options
        self.network = network
        self.drawings = Drawings(options.out, sources, stack)
        self.waiting: list[Seen] = []
        self.tracks: dict[int, detect.Tracks] = {}
        self.pictures = self.faces = self.lines = self.skipped = 0
        self.width = min(40, max(len(str(source)) for source in sources))
        self.table: Any = None
        if table:
            unharmed(table, sources)
            file = stack.enter_context(table.open("w", newline="", encoding="utf-8"))
            self.table = csv.writer(file, lineterminator="\n")
            self.table.writerow(["source", "frame", "left", "top", "width", "height", "label", *CLASSES])
        self.say = partial(print, flush=True)

    def add(self, seen: Seen) -> None:
        """Take one picture more; predict those that wait where they are enough."""
        self.waiting.append(seen)
        size = sum(0 if each.pixels is None else each.pixels.nbytes for each in self.waiting)
        live = seen.source.kind == CAMERA
        if live or size > TOGETHER[1] or sum(len(each.faces) + 1 for each in self.waiting) > TOGETHER[0]:
            self.predict()

    def skip(self, what: object, why: Exception) -> None:
        """Say that something cannot be read, or drawn."""
        self.skipped += 1
        self.say(f"skipped {what}: {why}", file=sys.stderr)

    def predict(self) -> None:
        """Predict all that wait."""
        seen, self.waiting = self.waiting, []
        if not seen:
            return
        faces = np.concatenate([each.faces for each in seen])
        probabilities = self.network.probabilities(faces)
        ends = np.cumsum([len(each.faces) for each in seen])
        parts = [slice(end - len(each.faces), end) for each, end in zip(seen, ends, strict=True)]
        boxes = [each.boxes for each in seen]
        for number, (each, part) in enumerate(zip(seen, parts, strict=True)):
            if each.source.kind in ("video", CAMERA):
                tracks = self.tracks.setdefault(id(each.source), detect.Tracks(self.options.smooth))
                boxes[number], probabilities[part] = tracks.follow(
                    each.picture.seconds, each.boxes, probabilities[part]
                )
        heat = None
        if self.options.explain and len(faces):
            heat = self.network.attention(faces, probabilities.argmax(axis=1))
        for each, part, placed in zip(seen, parts, boxes, strict=True):
            self.tell(each, placed, probabilities[part])
            self.draw(each, placed, probabilities[part], None if heat is None else heat[part])

    def draw(self, seen: Seen, boxes: np.ndarray, probabilities: np.ndarray, heat: np.ndarray | None) -> None:
        """Annotate a picture, if that is wanted."""
        if seen.pixels is None:
            return
        try:
            self.drawings.add(seen.source, annotate.annotate(seen.pixels, boxes, probabilities, heat))
        except (Unusable, ValueError) as reason:  # Pillow's, of a picture that is too large for its form
            self.skip(self.drawings.targets.pop(id(seen.source)), reason)

    def tell(self, seen: Seen, boxes: np.ndarray, probabilities: np.ndarray) -> None:
        """Put a picture's faces, or that it has none, into the table on the terminal and into the file."""
        self.pictures += 1
        self.faces += len(boxes)
        source, frame = str(seen.source), "" if seen.picture.frame is None else seen.picture.frame
        for box, row in zip(boxes.round().astype(int).tolist(), probabilities, strict=True):
            label = CLASSES[int(row.argmax())]
            self._line(source, frame, " ".join(map(str, box)), label, [f"{part:.1%}" for part in row])
            if self.table:
                left, top, side = box
                self.table.writerow([source, frame, left, top, side, side, label, *(f"{part:.6f}" for part in row)])
        if not len(boxes):
            self._line(source, frame, "", NO_FACE, [""] * len(CLASSES))
            if self.table:
                self.table.writerow([source, frame, *[""] * 4, NO_FACE, *[""] * len(CLASSES)])

    def _line(self, source: str, frame: object, box: str, label: str, parts: Sequence[str]) -> None:
        if not self.lines:
            self._print("source", "frame", "left top side", "label", CLASSES)
        self.lines += 1
        if not self.table or self.lines <= SHOWN:
            self._print(source, frame, box, label, parts)

    def _print(self, source: str, frame: object, box: str, label: str, parts: Sequence[str]) -> None:
        shown = source if len(source) <= self.width else f"…{source[1 - self.width :]}"
        cells = (f"{part:>{max(6, len(name))}}" for part, name in zip(parts, CLASSES, strict=True))
        self.say(f"{shown:<{self.width}}  {frame:>6}  {box:>14}  {label:<8}  {'  '.join(cells)}")

    def all(self, sources: list[Source], frames: int | None, detector: detect.Detector | None, bar: Any) -> bool:
        """Predict all pictures of all sources, and return whether that was stopped by Ctrl-C."""
        try:
            for source, found in every(sources, frames, bar):
                if isinstance(found, Unusable):
                    self.skip(source, found)
                else:
                    self.add(look(source, found, detector, self.options))
            self.predict()
        except KeyboardInterrupt:
            return True
        return False


def every(sources: list[Source], limit: int | None, bar: Any) -> Iterator[tuple[Source, Picture | Unusable]]:
    """All pictures of all sources, at most `limit` of each, and why a source ends early where it does."""
    for source in sources:
        count = 0
        try:
            for picture in itertools.islice(source.pictures(), limit):
                count += 1
                if count == 1:
                    bar.total += min(source.count, limit or source.count) - 1
                yield source, picture
                bar.update()
        except Unusable as reason:
            yield source, reason


def main(
    inputs: list[str], *, network: str, csv: Path | None, out: Path | None, explain: bool, faces: str, no_detect: bool,
    margin: float, smooth: float, frames: int | None,
) -> None:  # fmt: skip
    """Run the command."""
    if explain and not out:
        raise UserError("--explain draws into what --out writes: say where, with --out FOLDER")
    sources = find(inputs)
    live = any(source.kind == CAMERA for source in sources)
    if live or any(source.kind == "video" for source in sources):
        detect.opencv()
    searched = not no_detect and any(source.kind != "table" for source in sources)
    detector = detect.Detector() if searched else None
    options = Options(out, explain, faces == "all", margin, smooth)
    with ExitStack() as stack:
        run = Run(options, networks.load(network), sources, csv, stack)
        if live:
            try:
                run.drawings.window = Window()
            except UserError as reason:
                print(f"{reason}: the table stands here alone; Ctrl-C stops", file=sys.stderr, flush=True)
        bar = stack.enter_context(tqdm(total=len(sources), unit="picture", disable=None, leave=False))
        run.say = partial(bar.write, file=sys.stdout)
        started = time.monotonic()
        stopped = run.all(sources, frames, detector, bar)
    took = time.monotonic() - started
    if run.lines > SHOWN and csv:
        print(f"… and {run.lines - SHOWN:,} lines more in {csv}")
    print(
        f"{run.pictures:,} pictures, {run.faces:,} faces, {run.skipped:,} skipped, in {took:.1f} s: "
        f"{run.pictures / max(took, 1e-9):.1f} pictures/s",
        file=sys.stderr,
    )
    sys.exit(130 if stopped and not live else SKIPPED if run.skipped else 0)
