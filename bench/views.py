"""Which views of a picture are worth their time: sets of them, by what a trained network has right out of fold.

Reads faces, folds and artifacts/models/. Prints the table of bench/README.md; it takes minutes a fold.
"""

import numpy as np
from tabulate import tabulate

from pipeline import command, params
from pipeline.data import faces, folds
from pipeline.evaluation import metrics
from pipeline.training import augment, backend, cells, loop, machine

SHIFTS, ZOOMS = (2, 1), (0.08, 0.15)
SETS = ([], [2], [1], [0.08], [0.15], [0.08, 0.15], [2, 0.08], [1, 0.08], [1, 0.08, 0.15], [1, 2, 0.08, 0.15])


def main(name: str = "small_resnet", chosen: str = "") -> None:
    """Run the command for some folds of a trained network, like "2,3,4", or for all."""
    data = faces.load()
    rows, fold_of = folds.load(data)
    wanted = [folds.number(fold) for fold in chosen.split(",")] if chosen else folds.numbers()
    library = machine.choose(params.backend())
    backend.start(library)
    judged: dict[float, list[np.ndarray]] = {step: [] for step in (0, *SHIFTS, *ZOOMS)}
    for fold in wanted:
        remedy = cells.remedy(name, fold)
        _, settings = cells.metadata(cells.path("about", name, fold), remedy)
        backend.prepare(0, machine.suitable(settings.precision, library, name))
        network = cells.restore(name, cells.path("weights", name, fold), remedy)
        predictor = loop.Predictor(loop.Feed(data.pixels, settings), network)
        for step, parts in judged.items():
            how = {"shift_at_test": step if step in SHIFTS else 0, "zoom_at_test": step if step in ZOOMS else 0.0}
            looks = augment.views(settings.model_copy(update={"flip_at_test": True, **how}))
            parts.append(predictor.views(rows[fold_of == fold], looks if step == 0 else looks[2:]))
    labels = np.concatenate([data.labels[rows[fold_of == fold]] for fold in wanted])
    table = []
    for steps in SETS:
        views = np.concatenate([np.concatenate(judged[step], axis=1) for step in (0, *steps)])
        mean = views.mean(axis=0)
        right = metrics.right(mean, labels).mean()
        words = [f"shifted by {step}" if step in SHIFTS else f"zoomed by {step}" for step in steps]
        table.append(
            [", ".join(words) or "the picture", len(views), f"{right:.2%}", metrics.cross_entropy(mean, labels)]
        )
    titles = ["views, each beside its mirror image", "", "out of fold", "log-loss"]
    print(tabulate(table, titles, tablefmt="github", floatfmt=".4f"))


if __name__ == "__main__":
    command.run(main, "python -m bench.views [NETWORK] [FOLDS]")
