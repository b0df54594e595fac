"""Draw where the networks look for each class: the mean of Grad-CAM's maps over pictures that they have not seen.

Reads data/faces.npz, data/folds.csv, and every network's weights of the first fold. Writes
results/plots/attention.png: averages, and no person's picture.
"""

import numpy as np

from pipeline import command, params, recipe
from pipeline.command import Refusal
from pipeline.competition import CLASSES
from pipeline.data import faces, folds
from pipeline.evaluation import figures
from pipeline.recipe import Recipe
from pipeline.training import backend, cells, machine

MOST = 50  # pictures a class: enough for a mean, and a second's work


def chosen(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """At most MOST of `rows` of each class, spread evenly over them: int [m]. `labels` are of `rows`."""
    parts = [rows[labels == label] for label in range(len(CLASSES))]
    places = [np.unique(np.linspace(0, len(part) - 1, min(MOST, len(part))).round().astype(int)) for part in parts]
    return np.concatenate([part[place] for part, place in zip(parts, places, strict=True)])


def class_means(pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean picture of every class, float [7, 48, 48]; all 0 where there is none."""
    means = np.zeros((len(CLASSES), *pictures.shape[1:]))
    for label in np.unique(labels):
        means[label] = pictures[labels == label].mean(axis=0)
    return means


def attention(name: str, fold: int, settings: Recipe, pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean map of every class, float [7, 48, 48], by a trained cell; all 0 for a network without convolutions.

    Parameters
    ----------
    pictures : uint8 [n, 48, 48]. labels : int [n], the class of each.
    """
    from pipeline.training import gradcam, loop

    backend.prepare(0, "float32")
    network = cells.restore(name, cells.path("weights", name, fold), cells.remedy(name, fold))
    try:
        cam = gradcam.GradCam(loop.Feed(pictures, settings), network)
    except Refusal as reason:
        print(reason)
        return np.zeros((len(CLASSES), *pictures.shape[1:]))
    return class_means(cam.maps(np.arange(len(pictures)), labels), labels)


def main() -> None:
    """Run the stage."""
    data = faces.load()
    rows, fold_of = folds.load(data)
    fold = folds.numbers()[0]
    held_out = rows[fold_of == fold]
    seen = chosen(held_out, data.labels[held_out])
    labels = data.labels[seen].astype(int)
    backend.start(machine.choose(params.backend()))
    maps = {name: attention(name, fold, recipe.read(name), data.pixels[seen], labels) for name in recipe.names()}
    means = class_means(data.pixels[rows], data.labels[rows].astype(int))
    counts = np.bincount(labels, minlength=len(CLASSES))
    figures.attention(maps, means, counts, figures.FOLDER / "attention.png")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.stages.explain")
