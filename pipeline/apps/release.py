"""Release of one trained network: its weights in less than 5 MB, their description, and a model card.

Reads params.yaml, the data, the cell with its weights, results/ensemble.json and results/analysis.json. Writes
released/MODEL.safetensors (kernels in float16, other weights in float32), released/MODEL.json, released/MODEL.onnx and
the model card, released/README.md; they replace the previous release. The scores are measured on the packed network.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline import config, files
from pipeline.apps import export, networks, packed
from pipeline.apps.packed import FOLDER, LIMIT, WEIGHTS, Released
from pipeline.cells import store
from pipeline.competition import CLASSES, PRIVATE, PUBLIC
from pipeline.data import faces, folds, provenance, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, metrics, submission

TEMPLATE = Path(__file__).parent / "release.md.j2"


def measure(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return rows, accuracy with its interval, and macro-F1 of float [n, 7] against int [n]."""
    return {
        "rows": len(labels),
        **{key: round(value, 6) for key, value in metrics.accuracy(probabilities, labels).items()},
        "macro_f1": round(metrics.macro_f1(probabilities, labels), 6),
    }


def choose(names: list[str]) -> str:
    """Return the model with the best out-of-fold accuracy."""
    submissions = ensemble.result(names).submissions
    return max(names, key=lambda name: np.mean(submissions[name].folds))


def scores(
    predict: Callable[[np.ndarray], np.ndarray], data: faces.Faces, truth: np.ndarray, held_out: np.ndarray,
    duplicates: np.ndarray,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Compute the scores of a network on rows that it was not trained on.

    Parameters
    ----------
    predict : maps rows, int [m], to probabilities [m, 7]. truth : int [n], labels of all rows, -1 if unknown.
    held_out : int, rows of its fold. duplicates : bool [n], rows whose picture is also in Training.
    """
    parts = {"held-out fold of Training": held_out, "PublicTest": data.rows(PUBLIC), "PrivateTest": data.rows(PRIVATE)}
    scores: dict[str, dict[str, Any]] = {}
    for name, rows in parts.items():
        if len(rows) and (truth[rows] >= 0).all():
            probabilities, unique = predict(rows), ~duplicates[rows]
            scores[name] = measure(probabilities, truth[rows])
            scores[name]["by_class"] = metrics.by_class(probabilities, truth[rows])
            if name == "PrivateTest" and unique.any():
                scores["PrivateTest without duplicates"] = measure(probabilities[unique], truth[rows][unique])
    return scores


def card(about: Released) -> str:
    """Render the model card from the content of the JSON file."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = submission.percent
    note = board.NOTES.get(about.data["provenance"], "")
    return environment.from_string(TEMPLATE.read_text()).render(about.model_dump(), note=note)


def round_weights(member: networks.Member, held_out: np.ndarray) -> dict[str, float]:
    """Replace the weights of a network by their packed values, and return how its predictions change.

    Parameters
    ----------
    held_out : uint8 [m, 48, 48], pictures that it was not trained on.
    """
    before = member.probabilities(held_out)
    packed.unpack(member.network, packed.pack(member.network))
    after = member.probabilities(held_out)
    return {
        "largest_difference": round(float(abs(after - before).max()), 6),
        "equal_labels": round(float((after.argmax(1) == before.argmax(1)).mean()), 6),
    }


def write(network: networks.Network, facts: dict[str, Any]) -> Released:
    """Write all files of a halved network, replacing the previous release; return the content of the JSON file.

    Parameters
    ----------
    network : with one member. facts : the other fields of packed.Released.
    """
    ((member,),) = network.members.values()
    name, notes = member.facts.model, packed.notes(member.facts, network.temperature, len(member.views))
    weights = packed.to_safetensors(packed.pack(member.network), notes)
    sha256 = files.sha256(weights)
    with tempfile.TemporaryDirectory() as folder:
        checked, pictures = export.export(network, Path(folder) / name, [".onnx"], notes | {"sha256": sha256})
        contents = {WEIGHTS: weights, ".onnx": (Path(folder) / f"{name}.onnx").read_bytes()}
    for ending, content in contents.items():
        if len(content) > LIMIT:
            raise UserError(f"{name}{ending} has {len(content):,} bytes, more than {LIMIT:,}; name a smaller network")
    about = Released(
        **dict(member.facts), classes=CLASSES, temperature=network.temperature, views=len(member.views),
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
    """Run the command; without a name, release the model with the best out-of-fold accuracy."""
    settings, data = config.load(), faces.load()
    name, number = name or choose(settings.names), settings.fold(fold)
    settings.model(name)
    assignment, truth = folds.load(data), solution.join(data.labels, solution.load(data))
    trained = store.load(settings, name, number, data, assignment).about
    singles = submission.single_networks(submission.analysis(), name)
    network = networks.load(f"{name}-{number}", "tensorflow", "float32")  # needed for ONNX
    held_out = assignment.held_out(number)
    member = network.members[name][0]
    changed = round_weights(member, data.pixels[held_out])
    duplicates = (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy()
    about = write(network, {
        "parameters": trained.parameters, "teachers": tuple(trained.plan.teachers),
        "teacher_weight": trained.plan.teacher_weight, "float16": changed, "mean_over_folds": singles["mean"],
        "scores": scores(lambda rows: member.probabilities(data.pixels[rows]), data, truth, held_out, duplicates),
        "data": {"faces": data.digest, "provenance": provenance.kind(provenance.read())},
        "trained_with": {"backend": trained.backend, **(trained.model_extra or {}), "processor": trained.processor},
    })  # fmt: skip
    print(f"{FOLDER / name}{WEIGHTS}: {about.bytes / 1e6:.2f} MB; model card: {FOLDER / 'README.md'}")
