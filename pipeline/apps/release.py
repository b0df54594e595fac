"""Pack one trained network for use: its weights under 5 MB, what one must know to use them, and a model card.

Reads params.yaml, the data, the cell with its weights, results/ensemble.json and results/analysis.json. Writes
released/MODEL.npz (kernels in float16, all else in float32), released/MODEL.json and released/README.md, its card, in
place of what was released before. The scores are those of the packed network, measured anew.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline import config, files
from pipeline.apps import networks, packed
from pipeline.apps.packed import FOLDER, LIMIT, Released
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


def halved(member: networks.Member, held_out: np.ndarray, before: np.ndarray) -> tuple[bytes, dict[str, float]]:
    """Pack a network, and let it predict from then on as what is packed does: the packed bytes, and what that changed.

    Parameters
    ----------
    held_out : uint8 [m, 48, 48], pictures that it has not seen. before : float [m, 7], its probabilities of them.
    """
    arrays, content = packed.pack(member.network), io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    if (size := len(content.getvalue())) > LIMIT:
        raise UserError(f"{member.facts.model} takes {size:,} bytes, more than {LIMIT:,}; name a smaller network")
    packed.unpack(member.network, arrays)
    after = member.probabilities(held_out)
    return content.getvalue(), {
        "largest_difference": round(float(abs(after - before).max()), 6),
        "equal_labels": round(float((after.argmax(1) == before.argmax(1)).mean()), 6),
    }


def main(name: str, fold: str) -> None:
    """Run the command; without a name for the model with the best out-of-fold accuracy."""
    settings, data = config.load(), faces.load()
    name, number = name or choose(settings.names), settings.fold(fold)
    settings.model(name)
    dealt, truth = folds.load(data), solution.join(data.labels, solution.load(data))
    cell, siblings = store.load(settings, name, number, data, dealt), submission.singles(submission.analysis(), name)
    told = cell.about
    network = networks.load(f"{name}-{number}")
    member, held_out = network.members[name][0], dealt.held_out(number)
    content, changed = halved(member, data.pixels[held_out], cell.oof)
    duplicates = (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy()
    about = Released(
        **dict(member.facts), classes=CLASSES, temperature=network.temperature, views=len(member.views),
        parameters=told.parameters, bytes=len(content), sha256=files.sha256(content),
        teachers=tuple(told.plan.teachers), teacher_weight=told.plan.teacher_weight,
        scores=scores(lambda rows: member.probabilities(data.pixels[rows]), data, truth, held_out, duplicates),
        mean_over_folds=siblings["mean"], float16=changed,
        data={"faces": data.digest, "provenance": provenance.standing(provenance.read())},
        trained_with={"backend": told.backend, **(told.model_extra or {}), "processor": told.processor},
    )  # fmt: skip
    files.write(FOLDER / f"{name}.npz", content)
    files.write_json(FOLDER / f"{name}.json", about.model_dump(mode="json"))
    files.write(FOLDER / "README.md", card(about).encode())
    for other in set(FOLDER.glob("*.json")) - {FOLDER / f"{name}.json"}:
        other.with_suffix(".npz").unlink(missing_ok=True)
        other.unlink()
    print(f"{FOLDER / name}.npz: {about.bytes / 1e6:.2f} MB; the card is {FOLDER / 'README.md'}")
