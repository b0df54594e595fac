"""How FER2013's pictures lie in the boxes that OpenCV's cascades find, and which margin suits the released network.

Reads data/faces.npz. Every picture is enlarged four times and surrounded by its own edge; then faces are searched. For
the cascade in use it also tells how often the released network gives the crop the label that it gives the picture.
"""

from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from pipeline import command
from pipeline.apps import detect, networks
from pipeline.competition import PUBLIC, SIDE
from pipeline.data import faces

ROWS, LARGER, AROUND = 1000, 4, 24
WAYS = [
    ("default", 1.1, 5),
    ("default", 1.1, 3),
    ("alt", 1.1, 3),
    ("alt2", 1.1, 3),
    ("alt2", 1.1, 5),
    ("alt2", 1.05, 3),
]


def surrounded(picture: np.ndarray) -> np.ndarray:
    """uint8 [48, 48] to [384, 384], of which it fills the middle half."""
    large = cv2.resize(picture, (SIDE * LARGER, SIDE * LARGER), interpolation=cv2.INTER_CUBIC)
    return cv2.copyMakeBorder(large, *[AROUND * LARGER] * 4, cv2.BORDER_REPLICATE)


def main() -> None:
    """Print both tables, and how many faces each cascade sees in scikit-image's pictures that have none."""
    data = faces.load()
    pixels = data.pixels[data.rows(PUBLIC)[:ROWS]]
    scenes = [surrounded(picture) for picture in pixels]
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    empty = [
        cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])
        if path.stem not in ("astronaut", "camera")  # there is a face in them
    ]
    lines, kept = [], {}
    for way in WAYS:
        detect.CASCADE, detect.STEP, detect.NEIGHBOURS = f"haarcascade_frontalface_{way[0]}.xml", *way[1:]
        detector = detect.Detector()
        found = [detector.boxes(scene)[:1] for scene in scenes]
        boxes = np.concatenate(found) / LARGER
        middle = np.median(boxes[:, :2] + boxes[:, 2:] / 2, axis=0) - AROUND
        quartiles = np.percentile(boxes[:, 2], (25, 50, 75))
        false = sum(len(detector.boxes(picture)) for picture in empty)
        lines.append([*way, f"{len(boxes) / ROWS:.1%}", *quartiles.round(1), *middle.round(1), false])
        kept[way] = found
    headers = ["cascade", "step", "neighbours", "found", "box, quartile", "median", "quartile", "x", "y", "false"]
    print(tabulate(lines, headers, disable_numparse=True), flush=True)
    network = networks.load()
    found = kept["alt2", 1.1, 3]
    seen = np.flatnonzero([len(boxes) for boxes in found])
    before = network.probabilities(pixels[seen]).argmax(axis=1)
    for margin in np.arange(-0.1, 0.16, 0.02):
        crops = [detect.crop(scenes[i], detect.widen(found[i], margin)[0]) for i in seen]
        same = (network.probabilities(np.stack(crops)).argmax(axis=1) == before).mean()
        print(f"margin {margin:+.2f}  same label {same:.1%} of {len(seen)}", flush=True)


if __name__ == "__main__":
    command.run(main, "python -m bench.detection")
