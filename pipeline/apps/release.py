"""Pack one trained network for use: its weights under 5 MB, what one must know to use them, and a model card.

Outside the graph. Reads params.yaml, data/faces.npz, data/folds.csv, data/solution.csv, data/duplicates.csv,
results/ensemble.json, results/analysis.json and artifacts/. Writes released/NETWORK.npz (kernels in float16, all else
in float32), released/NETWORK.json and released/README.md, its card, in place of what was released before. The scores
are those of the packed network, measured anew. Without NETWORK: the one with the best out-of-fold accuracy. Without
FOLD: the network that did not see fold 0.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from pipeline import architectures, files, params, recipe
from pipeline.competition import CLASSES, PRIVATE, PUBLIC
from pipeline.data import faces, folds, provenance, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, metrics, submission
from pipeline.evaluation.submission import percent
from pipeline.stages import train
from pipeline.training import backend, cells, machine

if TYPE_CHECKING:
    import keras

FOLDER = Path("released")
LIMIT = 5_000_000  # bytes of weights: git holds them
TEMPLATE = Path(__file__).parent / "release.md.j2"


def pack(network: "keras.Model") -> dict[str, np.ndarray]:
    """The variables of `network` by their paths: kernels in float16, all else in float32."""
    from keras import ops

    packed = {}
    for variable in network.weights:
        values = ops.convert_to_numpy(variable)
        packed[variable.path] = values.astype("float16") if variable.name.endswith("kernel") else values
    return packed


def unpack(network: "keras.Model", packed: dict[str, np.ndarray]) -> None:
    """Put what `pack` returned into a network of the same architecture. Raises UserError where it is of another."""
    wanted = {variable.path: variable for variable in network.weights}
    if {path: tuple(variable.shape) for path, variable in wanted.items()} != {
        path: values.shape for path, values in packed.items()
    }:
        raise UserError(f"the weights are not those of {network.name}")
    for path, variable in wanted.items():
        variable.assign(packed[path].astype("float32"))


def find() -> Path:
    """The JSON file of the released network."""
    found = sorted(FOLDER.glob("*.json"))
    if len(found) != 1:
        raise UserError(f"{FOLDER}/ holds {len(found)} networks instead of one; make it with: make release")
    return found[0]


def load() -> tuple["keras.Model", dict[str, Any]]:
    """The released network, and its metadata. Keras must run already; nothing in the files is executed."""
    path = find()
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        content = path.with_suffix(".npz").read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError("its weights are not those that its JSON file tells of")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            packed = dict(arrays)
        if about["architecture"] not in architectures.names() or float(about["temperature"]) <= 0:
            raise ValueError("its architecture or its temperature is none")
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as trouble:
        raise UserError(f"{path.with_suffix('')} cannot be read ({trouble}); make it with: make release") from None
    import keras

    keras.utils.clear_session()  # variables are found by their paths, and layers are numbered from the start
    network = architectures.build(about["architecture"])
    unpack(network, packed)
    return network, about


def measure(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy with its interval, and what a card says beside it, of float [n, 7] against int [n]."""
    return {
        "rows": len(labels),
        **{key: round(value, 6) for key, value in metrics.accuracy(probabilities, labels).items()},
        "macro_f1": round(metrics.macro_f1(probabilities, labels), 6),
    }


def choose() -> str:
    """The architecture with the best out-of-fold accuracy."""
    best: str = ensemble.result(
        lambda whole: max(recipe.names(), key=lambda name: np.mean(whole["submissions"][name]["folds"]))
    )
    return best


def scores(
    ask: Callable[[np.ndarray], np.ndarray], data: faces.Faces, truth: np.ndarray, held_out: np.ndarray,
    duplicates: np.ndarray,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """What the card says of a network on rows that it has not seen.

    Parameters
    ----------
    ask : probabilities [m, 7] of rows, int [m]. truth : int [n], labels of all rows. held_out : int, rows of its fold.
    duplicates : bool [n], which rows show a picture that stands in Training as well.
    """
    private = data.rows(PRIVATE)
    parts = {"held-out fold of Training": held_out, "PublicTest": data.rows(PUBLIC), "PrivateTest": private}
    found: dict[str, dict[str, Any]] = {}
    for name, rows in parts.items():
        if len(rows) and (truth[rows] >= 0).all():
            probabilities = ask(rows)
            found[name] = measure(probabilities, truth[rows])
            found[name]["by_class"] = metrics.by_class(probabilities, truth[rows])
            if name == "PrivateTest":
                alone = ~duplicates[rows]
                if alone.any():
                    found["PrivateTest without duplicates"] = measure(probabilities[alone], truth[rows][alone])
    return found


def card(about: dict[str, Any]) -> str:
    """The model card of a network, by what its JSON file says."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = percent
    note = board.NOTES.get(about["data"]["standing"], "")
    return environment.from_string(TEMPLATE.read_text()).render(about, note=note)


def main(name: str = "", fold: str = "0") -> None:
    """Run the command."""
    name = name or choose()
    number = folds.number(fold)
    settings, data = recipe.read(name), faces.load()
    rows, fold_of = folds.load(data)
    library = machine.choose(params.backend())
    cell = train.plan(data, fold_of, name, number, library)
    if not cell.done():
        raise UserError(f"{cell} is not trained as {params.PATH} wants it; run: make repro")
    timing, siblings = json.loads(cell.paths()["timing"].read_text()), submission.singles(submission.analysis(), name)
    backend.start(library)
    from pipeline.training import augment, loop

    trainer = loop.Trainer(partial(architectures.build, name), data.pixels, cell.settings, seed=0, steps=1)
    trainer.network.load_weights(cell.paths()["weights"])
    packed = pack(trainer.network)
    path = FOLDER / f"{name}.npz"
    if (size := sum(values.nbytes for values in packed.values())) > LIMIT:
        raise UserError(f"{name} takes {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}; name a smaller network")
    unpack(trainer.network, packed)
    views = augment.views(settings)

    def ask(wanted: np.ndarray) -> np.ndarray:
        mean: np.ndarray = trainer.predictor.views(wanted, views).mean(axis=0)
        return mean

    held_out, truth = rows[fold_of == number], solution.join(data.labels, solution.load())
    found = scores(ask, data, truth, held_out, (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy())
    _, before, _ = ensemble.read_cell(name, number)
    after = ask(held_out)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **packed)
    about = {
        "architecture": name,
        "classes": list(CLASSES),
        "input": {"side": settings.crop, "scaling": settings.scaling, "contrast": settings.contrast},
        "temperature": ensemble.temperatures([name])[name],
        "views": len(views),
        "parameters": trainer.network.count_params(),
        "bytes": len(content.getvalue()),
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        "fold": number,
        "seed": cell.seed,
        "recipe": settings.model_dump(),
        "lesson": cell.lesson.model_dump() if cell.lesson else None,
        "scores": found,
        "mean_over_folds": siblings["mean"],
        "float16": {
            "largest_difference": round(float(abs(after - before).max()), 6),
            "equal_labels": round(float((after.argmax(1) == before.argmax(1)).mean()), 6),
        },
        "data": {"sha256": data.digest.hex(), "standing": provenance.standing(provenance.read())},
        "trained_with": cells.computed_with(timing),
    }
    new = {
        path: content.getvalue(),
        path.with_suffix(".json"): files.as_json(about),
        FOLDER / "README.md": card(about).encode(),
    }
    for target, what in new.items():
        files.write(target, what)
    for other in set(architectures.names()) - {name}:  # what was released before
        for ending in (".json", ".npz"):
            (FOLDER / f"{other}{ending}").unlink(missing_ok=True)
    print(f"{path}: {about['bytes'] / 1e6:.2f} MB; the card is {FOLDER / 'README.md'}")
