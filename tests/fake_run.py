"""Small run without Keras: faces, folds, cells with random predictions, and all other inputs of the evaluation."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import settings

from pipeline import config, files
from pipeline.cells import store
from pipeline.competition import CLASSES, SIDE, TRAINING
from pipeline.data import folds, provenance, solution
from pipeline.data.faces import Faces
from pipeline.evaluation import audit
from pipeline.training.cell import HISTORY
from pipeline.training.plan import Plan

ROWS = (70, 14, 21)  # number of rows per split
MODELS = ("plain_net", "deep_net")
STUDENT = "pupil"


def labels():
    """Return the labels of all rows, including test rows."""
    return np.arange(sum(ROWS)) % len(CLASSES)


def probabilities(seed, truth, skill=2.0):
    """Return random probabilities, float32 [n, 7], that favour the true class; `seed` may be of any type."""
    rng = np.random.default_rng(int(hashlib.sha256(repr(seed).encode()).hexdigest()[:8], 16))
    scores = rng.normal(0, 1, (len(truth), len(CLASSES))) + skill * np.eye(len(CLASSES))[truth]
    return (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype("float32")


def faces():
    """Return faces with duplicates: the first of each test split in Training, and one within Training."""
    usage = np.repeat([0, 1, 2], ROWS).astype("uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (sum(ROWS), SIDE, SIDE)).astype("uint8")
    first = np.cumsum(ROWS)
    pixels[[first[0], first[1], 11]] = pixels[[3, 4, 40]]
    return Faces(pixels, np.where(usage == TRAINING, labels(), -1).astype("int8"), usage)


def params(**changes):
    """Write and load params.yaml with two models and a student in two folds."""
    model = {"architecture": "vgg8", "epochs": 2}
    settings.dump(settings.LEAST | {
        "models": {name: model | {"seed": seed} for seed, name in enumerate(MODELS)},
        "students": {STUDENT: model | {"teachers": [MODELS[0]], "teacher_weight": 0.5}},
        "ensemble": {"method": "weights", "members": [*MODELS, STUDENT]},
    } | changes)  # fmt: skip
    return config.load()


def about(plan, fold, **facts):
    """Return the content of cell.json; `facts` replace its values."""
    return {
        "model": plan.model, "fold": fold, "key": "0" * 16, "faces": "", "folds": "", "seconds": 60.0 + fold,
        "parameters": 1000 + len(plan.model), "multiply_adds": 2_000_000, "precision": "float32",
        "backend": "tensorflow", "keras": "3", "processor": "abacus", "weights_sha256": files.sha256(b""),
        "sha256": {}, "plan": plan.model_dump(),
    } | facts  # fmt: skip


def write_cell(run, name, fold, data, assignment, **arrays):
    """Write a cell; `arrays` replace arrays of predictions.npz."""
    rows, tests = assignment.held_out(fold), data.test_rows()
    predictions = {"rows": rows.astype("int32"), "attention": np.full((7, SIDE, SIDE), 40 * fold, "uint8")}
    for suffix, skill in (("", 2.0), ("_plain", 1.5)):
        predictions[f"oof{suffix}"] = probabilities((name, fold, "oof", suffix), labels()[rows], skill)
        predictions[f"test{suffix}"] = probabilities((name, fold, "test", suffix), labels()[tests], skill)
    content = io.BytesIO()
    np.savez_compressed(content, **(predictions | arrays))
    history = pd.DataFrame([[epoch, 0.01, 2.0, 0.2, 1.9, 0.3] for epoch in (1, 2)], columns=list(HISTORY))
    contents = {"predictions.npz": content.getvalue(), "history.csv": history.to_csv(index=False).encode()}
    model = run.model(name)
    plan = Plan(model=name, architecture=model.architecture, seed=run.seed_of(name), backend="auto",
                recipe=model.used(), code={})  # fmt: skip
    digests = {file: files.sha256(each) for file, each in contents.items()}
    facts = about(plan, fold, faces=data.digest, folds=assignment.digest, sha256=digests)
    contents |= {"weights": b"", "cell.json": files.as_json(facts)}
    store.write(store.folder(run, name, fold), store.weights(name, fold), contents)


def external(name, rows, skill=2.0, **changes):
    """Write external/NAME.npz with `oof` for these rows; `changes` replace its arrays."""
    arrays = {"oof": probabilities((name, "oof"), labels()[rows], skill),
              "test": probabilities((name, "test"), labels()[ROWS[0] :], skill)}  # fmt: skip
    path = config.EXTERNAL / f"{name}.npz"
    files.replace(path, lambda file: np.savez(file, **(arrays | changes)))


def judge(data, truth, identical=0, source="local"):
    """Write the labels of the test rows, and the duplicates and provenance that later stages read."""
    tests = data.test_rows()
    solution.save(solution.table(tests, data.usage[tests], truth))
    duplicates = pd.DataFrame({"row": range(len(data.usage)), "identical": identical, "near": 0})
    files.write(audit.DUPLICATES, duplicates.to_csv(index=False).encode())
    files.write_json(provenance.PATH, {"source": source, "official": False, "files": {}})


def build(known=True, **changes):
    """Write all files up to the cells, except results of the audit other than data/duplicates.csv.

    Parameters
    ----------
    known : whether the test labels are known. changes : sections of params.yaml.

    Returns
    -------
    Settings, faces and fold assignment.
    """
    run, data = params(**changes), faces()
    data.save()
    identical = np.isin(range(sum(ROWS)), [11, 40, ROWS[0], sum(ROWS[:2])]).astype(int)
    judge(data, labels()[ROWS[0] :] if known else np.full(sum(ROWS[1:]), -1), identical)
    folds.main()
    assignment = folds.load(data)
    for name, fold in run.cells:
        write_cell(run, name, fold, data, folds.load(data, name))
    Path(config.EXTERNAL).mkdir(exist_ok=True)
    return run, data, assignment


def result(path):
    """Load a JSON file."""
    return json.loads(Path(path).read_text())
