"""Name the expressions of the faces in pictures, tables, videos, or before a camera.

Reads what is named, and a trained network (the released one, unless told otherwise). Prints a table; writes what
--csv and --out say. A video's answers are exponential averages over its frames (see --smooth).

Exit status: 0 all was read, 1 nothing could begin, 3 some files were skipped (they are named), 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import csv
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline import command
from pipeline.apps import annotate, detect, networks
from pipeline.apps.networks import Network
from pipeline.apps.sources import CAMERA, Picture, Source, Unusable, find
from pipeline.errors import UserError

SKIPPED = 3  # the exit status where something was
TOGETHER = (128, 2**27)  # faces, and bytes of pictures, that are judged at a time
SHOWN = 100  # lines of the table, where all of them stand in a file
NO_FACE = "no face"
SUFFIXES = {"picture": (".png", ".jpg", ".jpeg", ".webp"), "video": (".mp4", ".avi"), CAMERA: (".mp4", ".avi")}


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


def look(source: Source, picture: Picture, detector: detect.Detector | None, options: argparse.Namespace) -> Seen:
    """Find the faces of a picture; without `detector` it is one itself, its middle square."""
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(picture.pixels)).convert("L"))
    if picture.aligned or detector is None:
        height, width = grey.shape
        side = min(height, width)
        boxes = np.array([[(width - side) / 2, (height - side) / 2, side]])
    else:
        boxes = detect.widen(detector.boxes(grey), options.margin)[: None if options.faces == "all" else 1]
    faces = [detect.crop(grey, box) for box in boxes]
    keep = (options.out and source.kind != "table") or source.kind == CAMERA
    return Seen(source, picture, boxes, np.array(faces, "uint8").reshape(-1, 48, 48), picture.pixels if keep else None)


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
    """One call of the command: judges what it is given in batches, and puts the answers where they belong."""

    def __init__(self, options: argparse.Namespace, network: Network, sources: list[Source], stack: ExitStack) -> None:
        self.options = options
        self.network = network
        self.drawings = Drawings(options.out, sources, stack)
        self.waiting: list[Seen] = []
        self.tracks: dict[int, detect.Tracks] = {}
        self.pictures = self.faces = self.lines = self.skipped = 0
        self.width = min(40, max(len(str(source)) for source in sources))
        self.table: Any = None
        if options.csv:
            unharmed(options.csv, sources)
            file = stack.enter_context(options.csv.open("w", newline="", encoding="utf-8"))
            self.table = csv.writer(file, lineterminator="\n")
            self.table.writerow(["source", "frame", "left", "top", "width", "height", "label", *network.classes])
        self.say = partial(print, flush=True)

    def add(self, seen: Seen) -> None:
        """Take one picture more; judge those that wait where they are enough."""
        self.waiting.append(seen)
        size = sum(0 if each.pixels is None else each.pixels.nbytes for each in self.waiting)
        live = seen.source.kind == CAMERA
        if live or size > TOGETHER[1] or sum(len(each.faces) + 1 for each in self.waiting) > TOGETHER[0]:
            self.judge()

    def skip(self, what: object, why: Exception) -> None:
        """Say that something cannot be read, or drawn."""
        self.skipped += 1
        self.say(f"skipped {what}: {why}", file=sys.stderr)

    def judge(self) -> None:
        """Answer all that wait."""
        seen, self.waiting = self.waiting, []
        if not seen:
            return
        faces = np.concatenate([each.faces for each in seen])
        answers = self.network.probabilities(faces)
        ends = np.cumsum([len(each.faces) for each in seen])
        parts = [slice(end - len(each.faces), end) for each, end in zip(seen, ends, strict=True)]
        placed = [each.boxes for each in seen]
        for number, (each, part) in enumerate(zip(seen, parts, strict=True)):
            if each.source.kind in ("video", CAMERA):
                tracks = self.tracks.setdefault(id(each.source), detect.Tracks(self.options.smooth))
                placed[number], answers[part] = tracks.follow(each.picture.seconds, each.boxes, answers[part])
        heat = None
        if self.options.explain and len(faces):
            heat = self.network.attention(faces, answers.argmax(axis=1))
        for each, part, boxes in zip(seen, parts, placed, strict=True):
            found = answers[part]
            self.pictures += 1
            self.faces += len(boxes)
            self.write(each, boxes, found)
            if each.pixels is not None:
                glow = None if heat is None else heat[part]
                drawn = annotate.annotate(each.pixels, boxes, found, self.network.classes, glow)
                try:
                    self.drawings.add(each.source, drawn)
                except (Unusable, ValueError) as reason:  # Pillow's, of a picture that is too large for its form
                    self.skip(self.drawings.targets.pop(id(each.source)), reason)

    def write(self, seen: Seen, boxes: np.ndarray, answers: np.ndarray) -> None:
        """Put a picture's faces, or that it has none, into the table on the terminal and into the file."""
        source, frame = str(seen.source), "" if seen.picture.frame is None else seen.picture.frame
        for box, answer in zip(boxes.round().astype(int).tolist(), answers, strict=True):
            label = self.network.classes[int(answer.argmax())]
            self._line(source, frame, " ".join(map(str, box)), label, [f"{part:.1%}" for part in answer])
            if self.table:
                left, top, side = box
                self.table.writerow([source, frame, left, top, side, side, label, *(f"{part:.6f}" for part in answer)])
        if not len(boxes):
            self._line(source, frame, "", NO_FACE, [""] * len(self.network.classes))
            if self.table:
                self.table.writerow([source, frame, *[""] * 4, NO_FACE, *[""] * len(self.network.classes)])

    def _line(self, source: str, frame: object, box: str, label: str, parts: Sequence[str]) -> None:
        if not self.lines:
            self._print("source", "frame", "left top side", "label", self.network.classes)
        self.lines += 1
        if not self.table or self.lines <= SHOWN:
            self._print(source, frame, box, label, parts)

    def _print(self, source: str, frame: object, box: str, label: str, parts: Sequence[str]) -> None:
        shown = source if len(source) <= self.width else f"…{source[1 - self.width :]}"
        cells = (f"{part:>{max(6, len(name))}}" for part, name in zip(parts, self.network.classes, strict=True))
        self.say(f"{shown:<{self.width}}  {frame:>6}  {box:>14}  {label:<8}  {'  '.join(cells)}")


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


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    made = argparse.ArgumentParser(
        "python -m pipeline.apps.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="a picture; a folder, with all in it; a .csv or .tar.gz in a form of the competition; a video; "
        f"{CAMERA} or {CAMERA}:1",
    )  # fmt: skip
    made.add_argument(
        "--network", default=networks.RELEASED, metavar="NAME",
        help="released (the default); or of what was trained here: ensemble, an architecture (the mean of its folds), "
        "or one fold, like small_resnet-0",
    )  # fmt: skip
    made.add_argument("--csv", type=Path, metavar="FILE", help="write the answers there: box in pixels, probabilities")
    made.add_argument(
        "--out", type=Path, metavar="PATH",
        help="write annotated pictures and videos there: a folder, or for one input a file (.png, .mp4 ...)",
    )  # fmt: skip
    made.add_argument("--explain", action="store_true", help="show in --out where the network looks (Grad-CAM)")
    made.add_argument("--faces", choices=("largest", "all"), default="largest", help="of a picture (default: largest)")
    made.add_argument("--no-detect", action="store_true", help="look for no faces: every picture is one, cropped")
    made.add_argument(
        "--margin", type=partial(_number, -0.4, 4), default=detect.MARGIN, metavar="PART",
        help=f"of a found box's side, added on every side (default: {detect.MARGIN}, measured by bench/detection.py)",
    )  # fmt: skip
    made.add_argument(
        "--smooth", type=partial(_number, 0, 60), default=0.5, metavar="SECONDS",
        help="time constant of the average over a video's frames, face by face (default: 0.5; 0: none)",
    )  # fmt: skip
    made.add_argument("--frames", type=partial(_number, 1, 1e9), metavar="N", help="stop after N frames of each input")

    def refuse(message: str) -> NoReturn:
        sys.exit(command.refuse(f"{message}; python -m pipeline.apps.predict --help tells what there is"))

    made.error = refuse  # type: ignore[method-assign]
    return made


def _number(low: float, high: float, text: str) -> float:
    with contextlib.suppress(ValueError):
        if low <= float(text) <= high:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} must be a number from {low:g} to {high:g}")


def main(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.explain and not options.out:
        raise UserError("--explain draws into what --out writes: say where, with --out FOLDER")
    sources = find(options.inputs)
    live = any(source.kind == CAMERA for source in sources)
    detector = None
    if live or any(source.kind == "video" for source in sources):
        detect.opencv()
    if not options.no_detect and any(source.kind != "table" for source in sources):
        detector = detect.Detector()
    with ExitStack() as stack:
        network = networks.load(options.network)
        run = Run(options, network, sources, stack)
        if live:
            try:
                run.drawings.window = Window()
            except UserError as reason:
                print(f"{reason}: the answers stand here alone; Ctrl-C stops", file=sys.stderr, flush=True)
        bar = stack.enter_context(tqdm(total=len(sources), unit="picture", disable=None, leave=False))
        run.say = partial(bar.write, file=sys.stdout)
        stopped, started = False, time.monotonic()
        try:
            for source, found in every(sources, options.frames and int(options.frames), bar):
                if isinstance(found, Unusable):
                    run.skip(source, found)
                else:
                    run.add(look(source, found, detector, options))
            run.judge()
        except KeyboardInterrupt:
            stopped = True
    took = time.monotonic() - started
    if run.lines > SHOWN and options.csv:
        print(f"… and {run.lines - SHOWN:,} lines more in {options.csv}")
    print(
        f"{run.pictures:,} pictures, {run.faces:,} faces, {run.skipped:,} skipped, in {took:.1f} s: "
        f"{run.pictures / max(took, 1e-9):.1f} pictures/s",
        file=sys.stderr,
    )
    sys.exit(130 if stopped and not live else SKIPPED if run.skipped else 0)
