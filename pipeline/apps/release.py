"""Pack one trained network for use: its weights under 5 MB, what one must know to use them, and a model card.

Reads params.yaml, the data, the cell with its weights, results/ensemble.json and results/analysis.json. Writes
released/MODEL.safetensors (kernels in float16, all else in float32), released/MODEL.json, released/MODEL.onnx and
released/README.md, its card, in place of what was released before. The scores are those of the packed network,
measured anew.
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
    """Accuracy with its interval, and what a card says beside it, of float [n, 7] against int [n]."""
    return {
        "rows": len(labels),
        **{key: round(value, 6) for key, value in metrics.accuracy(probabilities, labels).items()},
        "macro_f1": round(metrics.macro_f1(probabilities, labels), 6),
    }


def choose(names: list[str]) -> str:
    """The model with the best out-of-fold accuracy."""
    found = ensemble.result(names).submissions
    return max(names, key=lambda name: np.mean(found[name].folds))


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
    parts = {"held-out fold of Training": held_out, "PublicTest": data.rows(PUBLIC), "PrivateTest": data.rows(PRIVATE)}
    found: dict[str, dict[str, Any]] = {}
    for name, rows in parts.items():
        if len(rows) and (truth[rows] >= 0).all():
            probabilities, alone = ask(rows), ~duplicates[rows]
            found[name] = measure(probabilities, truth[rows])
            found[name]["by_class"] = metrics.by_class(probabilities, truth[rows])
            if name == "PrivateTest" and alone.any():
                found["PrivateTest without duplicates"] = measure(probabilities[alone], truth[rows][alone])
    return found


def card(about: Released) -> str:
    """The model card of a network, by what its JSON file says."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = submission.percent
    note = board.NOTES.get(about.data["provenance"], "")
    return environment.from_string(TEMPLATE.read_text()).render(about.model_dump(), note=note)


def halve(member: networks.Member, held_out: np.ndarray) -> dict[str, float]:
    """Let a network predict from now on as what is packed of it does: what that changes.

    Parameters
    ----------
    held_out : uint8 [m, 48, 48], pictures that it has not seen.
    """
    before = member.probabilities(held_out)
    packed.unpack(member.network, packed.pack(member.network))
    after = member.probabilities(held_out)
    return {
        "largest_difference": round(float(abs(after - before).max()), 6),
        "equal_labels": round(float((after.argmax(1) == before.argmax(1)).mean()), 6),
    }


def write(network: networks.Network, facts: dict[str, Any]) -> Released:
    """Write all files of a halved network in place of those before: what the JSON file says.

    Parameters
    ----------
    network : of one member. facts : what its own do not tell, see packed.Released.
    """
    ((member,),) = network.members.values()
    name, notes = member.facts.model, packed.notes(member.facts, network.temperature, len(member.views))
    weights = packed.as_file(packed.pack(member.network), notes)
    sha256 = files.sha256(weights)
    with tempfile.TemporaryDirectory() as folder:
        checked, told = export.export(network, Path(folder) / name, [".onnx"], notes | {"sha256": sha256})
        contents = {WEIGHTS: weights, ".onnx": (Path(folder) / f"{name}.onnx").read_bytes()}
    for ending, content in contents.items():
        if len(content) > LIMIT:
            raise UserError(f"{name}{ending} takes {len(content):,} bytes, more than {LIMIT:,}; name a smaller network")
    about = Released(
        **dict(member.facts), classes=CLASSES, temperature=network.temperature, views=len(member.views),
        bytes=len(weights), sha256=sha256, onnx=checked[f"{name}.onnx"] | {"pictures": told}, **facts,
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
    """Run the command; without a name for the model with the best out-of-fold accuracy."""
    settings, data = config.load(), faces.load()
    name, number = name or choose(settings.names), settings.fold(fold)
    settings.model(name)
    dealt, truth = folds.load(data), solution.join(data.labels, solution.load(data))
    cell, siblings = store.load(settings, name, number, data, dealt), submission.singles(submission.analysis(), name)
    told = cell.about
    network = networks.load(f"{name}-{number}", "tensorflow", "float32")  # as ONNX is made
    held_out = dealt.held_out(number)
    member = network.members[name][0]
    changed = halve(member, data.pixels[held_out])
    duplicates = (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy()
    about = write(network, {
        "parameters": told.parameters, "teachers": tuple(told.plan.teachers),
        "teacher_weight": told.plan.teacher_weight, "float16": changed, "mean_over_folds": siblings["mean"],
        "scores": scores(lambda rows: member.probabilities(data.pixels[rows]), data, truth, held_out, duplicates),
        "data": {"faces": data.digest, "provenance": provenance.standing(provenance.read())},
        "trained_with": {"backend": told.backend, **(told.model_extra or {}), "processor": told.processor},
    })  # fmt: skip
    print(f"{FOLDER / name}{WEIGHTS}: {about.bytes / 1e6:.2f} MB; the card is {FOLDER / 'README.md'}")
