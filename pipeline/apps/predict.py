"""Prediction of the expressions of faces in pictures, tables, videos or camera frames.

Reads the given inputs and a trained network. Prints a table; on request, writes it to a file, and annotated pictures.

Exit status: 0 success, 1 invalid input, 3 some files were skipped (they are listed), 130 stopped by Ctrl-C.
"""

import csv
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.apps import annotate, detect, light
from pipeline.apps.sources import CAMERA, Picture, Source, find, printable
from pipeline.cells.progress import count
from pipeline.competition import CLASSES
from pipeline.errors import UserError

SKIPPED = 3  # exit status if files were skipped
TOGETHER = 16  # pictures per batch
WIDTH = 24  # of a file name on the terminal, so that a line has 80 columns
NO_FACE = "no face"
RELEASED = "released"
FORMULA = ("=", "+", "-", "@")  # a spreadsheet would evaluate cells that begin with one of these
SUFFIXES = {"picture": ".png", "video": ".mp4", CAMERA: ".mp4"}  # of annotated files
Seen = tuple[Source, Picture, np.ndarray, np.ndarray]  # a picture, the boxes of its faces, and their crops


def targets(sources: list[Source], out: Path | None) -> dict[str, Path]:
    """Return the annotated file of each source: in the folder `out`, or `out` itself if there is only one source."""
    if out is None:
        return {}
    if not any(source.kind in SUFFIXES for source in sources):
        raise UserError(f"{sources[0]} is a table, which cannot be annotated; leave out --out")
    if len(sources) == 1 and out.suffix and not out.is_dir():
        return {str(sources[0]): out}
    paths = {}
    for source in sources:
        if suffix := SUFFIXES.get(source.kind):
            path = out / source.place
            paths[str(source)] = path if path.suffix == suffix else path.with_name(f"{path.name}{suffix}")
    if len(set(paths.values())) < len(paths):
        raise UserError(f"two inputs would have the same name in {out}; predict them one after the other")
    return paths


class Output:
    """Output of the results: on the terminal, to the table, and to annotated pictures and videos."""

    def __init__(self, sources: list[Source], table: Path | None, out: Path | None, stack: ExitStack) -> None:
        self.stack = stack
        self.targets = targets(sources, out)
        self.writers: dict[str, Any] = {}
        self.skipped = 0
        self.written: dict[str, None] = {}  # an ordered set of names
        self.predictions: list[np.ndarray] = []  # probabilities [n, 7] of each picture
        self.labelled: list[tuple[int, np.ndarray]] = []  # labels of pictures, and their probabilities
        inputs = {os.stat(source.path)[1:3] for source in sources if os.path.exists(source.path)}
        for target in (*self.targets.values(), *([table] if table else [])):
            if target.exists() and os.stat(target)[1:3] in inputs:
                raise UserError(f"{target} is an input file; write to another file")
        self.table: Any = None
        if table and table.is_file() and table.suffix.lower() != ".csv":
            raise UserError(f"{table} exists and is not a .csv file; write to another file")
        if table:
            table.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(table.open("w", newline="", encoding="utf-8"))
            self.table = csv.writer(file, lineterminator="\n")
            self.table.writerow(["source", "frame", "left", "top", "width", "height", "label", *CLASSES])
            self.written[printable(table)] = None
        self._line("", "", CLASSES)

    def put(self, source: Source, picture: Picture, boxes: np.ndarray, probabilities: np.ndarray, heat: Any) -> None:
        """Output the faces of a picture, or one line without a face."""
        self.predictions.append(probabilities)
        if picture.label >= 0:
            self.labelled.append((picture.label, probabilities[0]))
        name, frame = str(source), picture.frame or ""
        lines: list[tuple[Any, ...]] = [
            (left, top, side, side, CLASSES[int(row.argmax())], *(round(float(value), 6) for value in row))
            for (left, top, side), row in zip(boxes.round().astype(int).tolist(), probabilities, strict=True)
        ]
        for line in lines or [(*[""] * 4, NO_FACE, *[""] * len(CLASSES))]:
            percentages = [f"{value:.0%}" for value in line[5:]] if lines else line[5:]
            self._line(f"{name}:{frame}" if frame else name, line[4], percentages)
            if self.table:
                self.table.writerow([f"'{name}" if name.startswith(FORMULA) else name, frame, *line])
        if name in self.targets:
            annotated = annotate.annotate(picture.pixels, boxes, probabilities, heat)
            self._draw(source, self.targets[name], annotated)

    def skip(self, what: object, why: Exception) -> None:
        """Report an input that cannot be read, or a file that cannot be written."""
        self.skipped += 1
        print(f"skipped {what}: {why}", file=sys.stderr, flush=True)

    def summary(self) -> None:
        """Print the number of faces per predicted label; for labelled input, also confusion matrix and accuracy."""
        labels = np.concatenate([np.zeros(0, int), *(each.argmax(axis=1) for each in self.predictions)])
        if len(labels) > 1:
            print()
            self._line("faces by label", f"{len(labels):,}", np.bincount(labels, minlength=len(CLASSES)))
        if self.labelled:
            from pipeline.evaluation import metrics  # imports scipy and scikit-learn, which is slow

            truth, rows = (np.array(column) for column in zip(*self.labelled, strict=True))
            score = metrics.accuracy(rows, truth)
            for number, name in enumerate(CLASSES):
                predicted = rows[truth == number].argmax(axis=1)
                self._line(f"labelled {name}", f"{len(predicted):,}", np.bincount(predicted, minlength=len(CLASSES)))
            print(f"accuracy {score['accuracy']:.2%}, 95% interval {score['low']:.2%} to {score['high']:.2%}")

    def _line(self, title: str, label: str, values: Any) -> None:
        shown = title if len(title) <= WIDTH else f"…{title[1 - WIDTH :]}"
        cells = (f"{value:>{max(4, len(name))}}" for value, name in zip(values, CLASSES, strict=True))
        print(f"{shown:<{WIDTH}} {label:<8} {' '.join(cells)}".rstrip(), flush=True)

    def _draw(self, source: Source, target: Path, picture: Image.Image) -> None:
        """Write one picture, or the next frame of a video."""
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
        except ValueError as error:  # also from Pillow, if a picture is too large for its format
            del self.written[printable(target)]
            self.skip(self.targets.pop(str(source)), error)


def load(which: str, explain: bool) -> Any:
    """Load the network `which`: in ONNX Runtime, which starts faster, if possible, otherwise in Keras."""
    if which == RELEASED and not explain and (network := light.load()):
        return network
    from pipeline.apps import networks

    return networks.load(which)


def batches(
    sources: list[Source], detector: detect.Detector | None, most: int | None, output: Output
) -> Iterator[list[Seen]]:
    """Yield all pictures of all sources in batches; a camera's frames one by one."""
    waiting: list[Seen] = []
    for source in sources:
        try:
            for picture in source.pictures():
                found = detect.faces(picture.pixels, None if picture.aligned else detector, most)
                waiting.append((source, picture, *found))
                if len(waiting) == TOGETHER or source.kind == CAMERA:
                    yield waiting
                    waiting = []
        except (UserError, OSError, UnicodeError) as error:
            output.skip(source, error)
    if waiting:
        yield waiting


def predict(network: Any, batch: list[Seen], tracks: dict[str, detect.Tracks], explain: bool) -> list[tuple[Any, ...]]:
    """Return each source and picture with boxes, probabilities and heat, smoothed over the frames of a video."""
    sources, pictures, boxes, crops = map(list, zip(*batch, strict=True))
    faces, ends = np.concatenate(crops), np.cumsum([len(each) for each in crops])[:-1]
    parts = np.split(network.probabilities(faces), ends)
    for i, (source, picture, *_) in enumerate(batch):
        if source.kind in ("video", CAMERA):
            boxes[i], parts[i] = tracks[str(source)].follow(picture.seconds, boxes[i], parts[i])
    heat: list[Any] = [None] * len(batch)
    if explain and len(faces):
        heat = np.split(network.attention(faces, np.concatenate(parts).argmax(axis=1)), ends)
    return list(zip(sources, pictures, boxes, parts, heat, strict=True))


def main(
    inputs: list[str], *, network: str, csv: Path | None, out: Path | None, explain: bool, faces: str, no_detect: bool,
    smooth: float,
) -> None:  # fmt: skip
    """Run the command."""
    if explain and not out:
        raise UserError("--explain needs --out: name a file or folder for the annotated pictures, --out FOLDER")
    sources, others = find(inputs)
    kinds = {source.kind for source in sources}
    if kinds & {"video", CAMERA}:
        detect.opencv()
    detector = detect.Detector() if not no_detect and kinds != {"table"} else None
    tracks: dict[str, detect.Tracks] = defaultdict(partial(detect.Tracks, smooth))
    started, stopped = time.monotonic(), False
    with ExitStack() as stack:
        model = load(network, explain)  # before anything is written
        output = Output(sources, csv, out, stack)
        if CAMERA in kinds:
            print("Ctrl-C stops; for a live picture: make serve", file=sys.stderr, flush=True)
        try:
            for batch in batches(sources, detector, None if faces == "all" else 1, output):
                for result in predict(model, batch, tracks, explain):
                    output.put(*result)
        except KeyboardInterrupt:
            stopped = True
    output.summary()
    found = sum(map(len, output.predictions))
    counts = f"{count(len(output.predictions), 'picture')}, {count(found, 'face')}"
    seconds = time.monotonic() - started
    print(f"{counts}, {output.skipped:,} skipped, {count(others, 'other file')}, in {seconds:.1f} s", file=sys.stderr)
    if detector and output.predictions and not found:
        print("if every picture is one face, skip the search for faces: --no-detect", file=sys.stderr)
    if output.written:
        names = list(output.written)
        print(f"written: {', '.join(names[:3])}{f' and {len(names) - 3:,} more' if names[3:] else ''}", file=sys.stderr)
    sys.exit(130 if stopped and CAMERA not in kinds else SKIPPED if output.skipped else 0)
