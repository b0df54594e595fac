"""Name the expressions of the faces in pictures, tables, videos, or before a camera.

Reads what is named, and a trained network. Prints a table; writes the table and annotated pictures where it is told to.

Exit status: 0 all was read, 1 nothing could begin, 3 some files were skipped (they are named), 130 stopped by Ctrl-C.
"""

import csv
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.apps import annotate, detect, light
from pipeline.apps.sources import CAMERA, Picture, Source, find, printable
from pipeline.competition import CLASSES, SIDE
from pipeline.errors import UserError

SKIPPED = 3  # the exit status where something was
TOGETHER = 16  # pictures that are predicted at a time
WIDTH = 24  # of a file's name on the terminal, so that a line has 80 columns
NO_FACE = "no face"
RELEASED = "released"
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute begins so
SUFFIXES = {"picture": ".png", "video": ".mp4", CAMERA: ".mp4"}  # of what is drawn


@dataclass(frozen=True)
class Seen:
    """A picture whose faces are found: their boxes, float [n, 3], and themselves, uint8 [n, 48, 48]."""

    source: Source
    picture: Picture
    boxes: np.ndarray
    faces: np.ndarray


def look(source: Source, picture: Picture, detector: detect.Detector | None, most: int | None) -> Seen:
    """Find a picture's largest faces, at `most` so many; without `detector` it is one itself, its middle square."""
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(picture.pixels)).convert("L"))
    if picture.aligned or detector is None:
        height, width = grey.shape
        side = min(height, width)
        boxes = np.array([[(width - side) / 2, (height - side) / 2, side]])
    else:
        boxes = detector.boxes(grey)[:most]
    faces = [detect.crop(grey, box) for box in boxes]
    return Seen(source, picture, boxes, np.array(faces, "uint8").reshape(-1, SIDE, SIDE))


def targets(sources: list[Source], out: Path | None) -> dict[str, Path]:
    """Where each source is drawn: below the folder `out`, or in this very file if there is one source."""
    if out is None:
        return {}
    if len(sources) == 1 and out.suffix and not out.is_dir():
        return {str(sources[0]): out}
    found = {}
    for source in sources:
        if suffix := SUFFIXES.get(source.kind):
            place = out / source.place
            found[str(source)] = place if place.suffix == suffix else place.with_name(f"{place.name}{suffix}")
    if len(set(found.values())) < len(found):
        raise UserError(f"two inputs have the same name below {out}; predict them one after the other")
    return found


class Output:
    """Puts the results of a run where they belong: on the terminal, into the table, and into pictures and videos."""

    def __init__(self, sources: list[Source], table: Path | None, out: Path | None, stack: ExitStack) -> None:
        self.stack = stack
        self.targets = targets(sources, out)
        self.writers: dict[str, Any] = {}
        self.pictures = self.skipped = 0
        self.written: dict[str, None] = {}  # in order
        self.found: list[np.ndarray] = []  # probabilities [n, 7] of each picture
        self.labelled: list[tuple[int, np.ndarray]] = []  # a picture's label, and its probabilities
        for target in (*self.targets.values(), *([table] if table else [])):
            there = [source.path for source in sources if os.path.exists(source.path)]
            if target.exists() and any(map(target.samefile, there)):
                raise UserError(f"{target} is one of the files to be read; write to another")
        self.table: Any = None
        if table:
            file = stack.enter_context(table.open("w", newline="", encoding="utf-8"))
            self.table = csv.writer(file, lineterminator="\n")
            self.table.writerow(["source", "frame", "left", "top", "width", "height", "label", *CLASSES])
            self.written[printable(table)] = None
        self._line("", "", CLASSES)

    def put(self, seen: Seen, boxes: np.ndarray, probabilities: np.ndarray, heat: np.ndarray | None) -> None:
        """Put a picture's faces, or that it has none, everywhere."""
        self.pictures += 1
        self.found.append(probabilities)
        if seen.picture.label >= 0:
            self.labelled.append((seen.picture.label, probabilities[0]))
        source, frame = str(seen.source), seen.picture.frame or ""
        lines: list[tuple[Any, ...]] = [
            (left, top, side, side, CLASSES[int(row.argmax())], *(round(float(part), 6) for part in row))
            for (left, top, side), row in zip(boxes.round().astype(int).tolist(), probabilities, strict=True)
        ]
        for line in lines or [(*[""] * 4, NO_FACE, *[""] * len(CLASSES))]:
            shares = [f"{part:.0%}" for part in line[5:]] if lines else line[5:]
            self._line(f"{source}:{frame}" if frame else source, line[4], shares)
            if self.table:
                self.table.writerow([f"'{source}" if source.startswith(FORMULA) else source, frame, *line])
        if source in self.targets:
            drawn = annotate.annotate(seen.picture.pixels, boxes, probabilities, heat)
            self._draw(seen.source, self.targets[source], drawn)

    def skip(self, what: object, why: Exception) -> None:
        """Say that something cannot be read, or drawn."""
        self.skipped += 1
        print(f"skipped {what}: {why}", file=sys.stderr, flush=True)

    def summary(self) -> None:
        """Print how many faces have each label and, where the labels are known, the accuracy and the confusions."""
        labels = np.concatenate([np.zeros(0, int), *(each.argmax(axis=1) for each in self.found)])
        if len(labels) > 1:
            print()
            self._line("faces by label", f"{len(labels):,}", _counts(labels))
        if self.labelled:
            from pipeline.evaluation import metrics  # scipy and scikit-learn take their time

            truth, rows = (np.array(column) for column in zip(*self.labelled, strict=True))
            score = metrics.accuracy(rows, truth)
            for number, name in enumerate(CLASSES):
                known = rows[truth == number].argmax(axis=1)
                self._line(f"labelled {name}", f"{len(known):,}", _counts(known))
            print(f"accuracy {score['accuracy']:.2%}, 95% interval {score['low']:.2%} to {score['high']:.2%}")

    def _line(self, place: str, label: str, parts: Any) -> None:
        shown = place if len(place) <= WIDTH else f"…{place[1 - WIDTH :]}"
        cells = (f"{part:>{max(4, len(name))}}" for part, name in zip(parts, CLASSES, strict=True))
        print(f"{shown:<{WIDTH}} {label:<8} {' '.join(cells)}".rstrip(), flush=True)

    def _draw(self, source: Source, target: Path, picture: Image.Image) -> None:
        """Write one picture, or a video's next frame."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.written[printable(target)] = None
            if source.kind == "picture":
                picture.save(target, optimize=True)
                return
            if str(source) not in self.writers:
                cv2, name = detect.opencv(), os.fsencode(target).decode()
                code = cv2.VideoWriter_fourcc(*("MJPG" if target.suffix.lower() == ".avi" else "mp4v"))
                self.writers[str(source)] = cv2.VideoWriter(name, code, source.rate, picture.size)
                self.stack.callback(self.writers[str(source)].release)
            if not self.writers[str(source)].isOpened():
                raise ValueError("it cannot be written as a video")
            self.writers[str(source)].write(np.asarray(picture)[..., ::-1])
        except ValueError as reason:  # Pillow's, of a picture that is too large for its form
            del self.written[printable(target)]
            self.skip(self.targets.pop(str(source)), reason)


def _counts(labels: np.ndarray) -> list[int]:
    counts: list[int] = np.bincount(labels, minlength=len(CLASSES)).tolist()
    return counts


def load(which: str, explain: bool) -> Any:
    """The network `which`: by ONNX Runtime if it can do what is asked, as it starts sooner; else by Keras."""
    if which == RELEASED and not explain and (found := light.load()):
        return found
    from pipeline.apps import networks

    return networks.load(which)


def batches(
    sources: list[Source], find_faces: Callable[[Source, Picture], Seen], output: Output
) -> Iterator[list[Seen]]:
    """All pictures of all sources, as many as are predicted together."""
    waiting: list[Seen] = []
    for source in sources:
        try:
            for picture in source.pictures():
                waiting.append(find_faces(source, picture))
                if len(waiting) == TOGETHER or source.kind == CAMERA:
                    yield waiting
                    waiting = []
        except (UserError, OSError, UnicodeError) as reason:
            output.skip(source, reason)
    if waiting:
        yield waiting


def predict(
    network: Any, batch: list[Seen], tracks: dict[str, detect.Tracks], explain: bool
) -> list[tuple[Seen, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Each picture with its boxes, probabilities and heat, over the frames of a video smoothed."""
    faces = np.concatenate([each.faces for each in batch])
    ends = np.cumsum([len(each.faces) for each in batch])[:-1]
    boxes = [each.boxes for each in batch]
    parts = np.split(network.probabilities(faces), ends)
    for place, each in enumerate(batch):
        if each.source.kind in ("video", CAMERA):
            follow = tracks[str(each.source)].follow
            boxes[place], parts[place] = follow(each.picture.seconds, boxes[place], parts[place])
    heat: list[Any] = [None] * len(batch)
    if explain and len(faces):
        heat = np.split(network.attention(faces, np.concatenate(parts).argmax(axis=1)), ends)
    return list(zip(batch, boxes, parts, heat, strict=True))


def main(
    inputs: list[str], *, network: str, csv: Path | None, out: Path | None, explain: bool, faces: str, no_detect: bool,
    smooth: float,
) -> None:  # fmt: skip
    """Run the command."""
    if explain and not out:
        raise UserError("--explain draws into what --out writes: say where, with --out FOLDER")
    sources, others = find(inputs)
    kinds = {source.kind for source in sources}
    if kinds & {"video", CAMERA}:
        detect.opencv()
    detector = detect.Detector() if not no_detect and kinds != {"table"} else None
    find_faces = partial(look, detector=detector, most=None if faces == "all" else 1)
    tracks: dict[str, detect.Tracks] = defaultdict(partial(detect.Tracks, smooth))
    started, stopped = time.monotonic(), False
    with ExitStack() as stack:
        asked = load(network, explain)  # before anything is written
        output = Output(sources, csv, out, stack)
        if CAMERA in kinds:
            print("Ctrl-C stops; to see yourself: make serve", file=sys.stderr, flush=True)
        try:
            for batch in batches(sources, find_faces, output):
                for found in predict(asked, batch, tracks, explain):
                    output.put(*found)
        except KeyboardInterrupt:
            stopped = True
    output.summary()
    print(
        f"{output.pictures:,} pictures, {sum(map(len, output.found)):,} faces, {output.skipped:,} skipped, "
        f"{others:,} other files, in {time.monotonic() - started:.1f} s",
        file=sys.stderr,
    )
    if output.written:
        names = list(output.written)
        print(f"written: {', '.join(names[:3])}{f' and {len(names) - 3:,} more' if names[3:] else ''}", file=sys.stderr)
    sys.exit(130 if stopped and CAMERA not in kinds else SKIPPED if output.skipped else 0)
