"""Release of trained networks of one model: weights in less than 5 MB, their description, and a model card.

Reads params.yaml, the data, the cells with their weights, and results/ensemble.json. Writes released/MODEL.safetensors
(see packed.py), released/MODEL.json, released/MODEL.onnx and the model card, released/README.md; they replace the
previous release. Predictions are the mean over the networks. The scores are measured with the rounded weights.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from pipeline import config, files
from pipeline.apps import export, networks, packed
from pipeline.apps.packed import FOLDER, LIMIT, WEIGHTS, Released
from pipeline.cells import store
from pipeline.competition import CLASSES, PRIVATE, PUBLIC, SPLITS
from pipeline.data import faces, folds, provenance, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, metrics, report

TEMPLATE = Path(__file__).parent / "release.md.j2"
HELD_OUT = "held-out rows of Training"


def measure(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return rows, accuracy with its interval, and macro-F1 of float [n, 7] against int [n]."""
    return {
        "rows": len(labels),
        **{key: round(value, 7) for key, value in metrics.accuracy(probabilities, labels).items()},
        "macro_f1": round(metrics.macro_f1(probabilities, labels), 6),
    }


def choose(names: list[str]) -> str:
    """Return the model with the best out-of-fold accuracy."""
    submissions = ensemble.result(names).submissions
    return max(names, key=lambda name: np.mean(submissions[name].folds))


def scores(
    predictions: dict[str, tuple[np.ndarray, np.ndarray]], truth: np.ndarray, duplicates: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Compute the scores on rows that the networks were not trained on, where all labels are known.

    Parameters
    ----------
    predictions : rows, int [m], and their probabilities, float [m, 7], by name. truth : int [n], labels of all rows, -1
        if unknown. duplicates : bool [n], rows whose picture is also in Training.
    """
    scores: dict[str, dict[str, Any]] = {}
    for name, (rows, probabilities) in predictions.items():
        if len(rows) and (truth[rows] >= 0).all():
            unique = ~duplicates[rows]
            scores[name] = measure(probabilities, truth[rows])
            scores[name]["by_class"] = metrics.by_class(probabilities, truth[rows])
            if name == "PrivateTest" and unique.any():
                scores["PrivateTest without duplicates"] = measure(probabilities[unique], truth[rows][unique])
    return scores


def card(about: Released) -> str:
    """Render the model card from the content of the JSON file."""
    note = board.NOTES.get(about.data["provenance"], "")
    return report.render(TEMPLATE, about.model_dump() | {"note": note})


def round_weights(members: list[networks.Member], held_out: list[np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """Replace the weights of all networks by their packed values.

    Parameters
    ----------
    held_out : of each network, the pictures that it was not trained on, uint8 [m, 48, 48].

    Returns
    -------
    Probabilities of all held-out pictures, each by its own network, float32 [sum of m, 7]; and how they changed.
    """

    def predict() -> np.ndarray:
        return np.concatenate([each.probabilities(part) for each, part in zip(members, held_out, strict=True)])

    built = [each.network for each in members]
    before = predict()
    packed.unpack(built, packed.pack(built))
    after = predict()
    return after, {
        "largest_difference": round(float(abs(after - before).max()), 6),
        "equal_labels": round(float((after.argmax(1) == before.argmax(1)).mean()), 6),
    }


def write(network: networks.Network, facts: dict[str, Any]) -> Released:
    """Write all files of rounded networks, replacing the previous release; return the content of the JSON file.

    Parameters
    ----------
    network : of one model. facts : the other fields of packed.Released.
    """
    (members,) = network.members.values()
    first, name = members[0].facts, members[0].facts.model
    notes = packed.notes(first, network.temperature, len(members[0].views), len(members))
    arrays = packed.pack([each.network for each in members])
    weights = save(arrays, {"about": json.dumps(notes)})  # one key: the library does not keep the order of several
    sha256 = files.sha256(weights)
    with tempfile.TemporaryDirectory() as folder:
        checked, pictures = export.export(network, Path(folder) / name, [".onnx"], notes | {"sha256": sha256})
        contents = {WEIGHTS: weights, ".onnx": (Path(folder) / f"{name}.onnx").read_bytes()}
    for ending, content in contents.items():
        if len(content) > LIMIT:
            raise UserError(
                f"{name}{ending} has {len(content):,} bytes, more than {LIMIT:,}; name fewer folds or a smaller network"
            )
    about = Released(
        **dict(first), classes=CLASSES, temperature=network.temperature, views=len(members[0].views),
        bytes=len(weights), sha256=sha256, onnx=checked[f"{name}.onnx"] | {"pictures": pictures}, **facts,
    )  # fmt: skip
    contents[".json"] = files.as_json(about.model_dump(mode="json"))
    for ending, content in contents.items():
        files.write(FOLDER / f"{name}{ending}", content)
    files.write(FOLDER / "README.md", card(about).encode())
    for other in set(FOLDER.glob("*.json")) - {FOLDER / f"{name}.json"}:
        for ending in contents:
            other.with_suffix(ending).unlink(missing_ok=True)
    return about


def main(name: str, fold: str) -> None:
    """Run the command.

    Parameters
    ----------
    name : model; "" for the one with the best out-of-fold accuracy. fold : folds of its networks, like "0" or "0,1,2".
    """
    settings, data = config.load(), faces.load()
    name = name or choose(settings.names)
    numbers = settings.some_folds(name, fold)
    assignment, truth = folds.load(data, name), solution.load(data)
    trained, *_ = (store.load(settings, name, number, data, assignment).about for number in numbers)
    network = networks.load(f"{name}-{fold}", "tensorflow", "float32")  # needed for ONNX
    held_out = [assignment.held_out(number) for number in numbers]
    own, changed = round_weights(network.members[name], [data.pixels[rows] for rows in held_out])
    tests = {SPLITS[split]: data.rows(split) for split in (PUBLIC, PRIVATE)}
    predictions = {HELD_OUT: (np.concatenate(held_out), own)} | {
        title: (rows, network.probabilities(data.pixels[rows])) for title, rows in tests.items()
    }
    duplicates = (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy()
    about = write(network, {
        "folds": tuple(numbers), "run_folds": len(settings.folds_of(name)),
        "parameters": trained.parameters * len(numbers),
        "teachers": tuple(trained.plan.teachers), "teacher_weight": trained.plan.teacher_weight, "rounding": changed,
        "scores": scores(predictions, truth, duplicates),
        "data": {"faces": data.digest, "provenance": provenance.kind(provenance.read())},
        "trained_with": {"backend": trained.backend, **(trained.model_extra or {}), "processor": trained.processor},
    })  # fmt: skip
    print(f"{FOLDER / name}{WEIGHTS}: {about.bytes / 1e6:.2f} MB; model card: {FOLDER / 'README.md'}")
