"""A small run without Keras: faces, folds and cells of made-up predictions, and all that the evaluation reads."""

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

ROWS = (70, 14, 21)  # of each split
MODELS = ("plain_net", "deep_net")
STUDENT = "pupil"


def labels():
    """Of all rows, those of the test splits as well."""
    return np.arange(sum(ROWS)) % len(CLASSES)


def probabilities(seed, truth, skill=2.0):
    """Float32 [n, 7] that favour the true class, drawn by a seed of any kind."""
    chance = np.random.default_rng(int(hashlib.sha256(repr(seed).encode()).hexdigest()[:8], 16))
    scores = chance.normal(0, 1, (len(truth), len(CLASSES))) + skill * np.eye(len(CLASSES))[truth]
    return (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype("float32")


def faces():
    """Distinct pictures; the first of each test split has a duplicate in Training, and one of Training another."""
    usage = np.repeat([0, 1, 2], ROWS).astype("uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (sum(ROWS), SIDE, SIDE)).astype("uint8")
    first = np.cumsum(ROWS)
    pixels[[first[0], first[1], 11]] = pixels[[3, 4, 40]]
    return Faces(pixels, np.where(usage == TRAINING, labels(), -1).astype("int8"), usage)


def params(**changes):
    """Write a params.yaml with two models and a student in two folds."""
    model = {"architecture": "vgg8", "epochs": 2}
    settings.dump(settings.LEAST | {
        "models": {name: model | {"seed": seed} for seed, name in enumerate(MODELS)},
        "students": {STUDENT: model | {"teachers": [MODELS[0]], "teacher_weight": 0.5}},
        "ensemble": {"method": "weights", "members": [*MODELS, STUDENT]},
    } | changes)  # fmt: skip
    return config.load()


def write_cell(run, name, fold, data, dealt, **arrays):
    """Write what a cell would hold; `arrays` replace or (where None) remove arrays of predictions.npz."""
    rows, tests = dealt.held_out(fold), data.test_rows()
    every = {"rows": rows.astype("int32"), "attention": np.full((7, SIDE, SIDE), 40 * fold, "uint8")}
    for suffix, skill in (("", 2.0), ("_plain", 1.5)):
        every[f"oof{suffix}"] = probabilities((name, fold, "oof", suffix), labels()[rows], skill)
        every[f"test{suffix}"] = probabilities((name, fold, "test", suffix), labels()[tests], skill)
    every = {key: array for key, array in (every | arrays).items() if array is not None}
    content = io.BytesIO()
    np.savez_compressed(content, **every)
    history = pd.DataFrame([[epoch, 0.01, 2.0, 0.2, 1.9, 0.3] for epoch in (1, 2)], columns=list(HISTORY))
    contents = {
        "weights": b"",
        "predictions.npz": content.getvalue(),
        "history.csv": history.to_csv(index=False).encode(),
    }
    model = run.model(name)
    plan = Plan(model=name, architecture=model.architecture, seed=run.seed_of(name), backend="auto",
                recipe=model.used(), code={})  # fmt: skip
    about = {
        "model": name, "fold": fold, "key": "0" * 16, "faces": data.digest, "folds": dealt.digest,
        "seconds": 60.0 + fold, "parameters": 1000 + len(name), "multiply_adds": 2_000_000, "precision": "float32",
        "backend": "tensorflow", "keras": "3", "processor": "abacus", "weights_sha256": files.sha256(b""),
        "sha256": {file: files.sha256(contents[file]) for file in store.FILES[:-1]}, "plan": plan.model_dump(),
    }  # fmt: skip
    store.write(
        store.folder(run, name, fold), store.weights(name, fold), contents | {"cell.json": files.as_json(about)}
    )


def external(name, rows, skill=2.0, **changes):
    """Write external/NAME.npz, `oof` of these rows; `changes` replace its arrays."""
    arrays = {"oof": probabilities((name, "oof"), labels()[rows], skill),
              "test": probabilities((name, "test"), labels()[ROWS[0] :], skill)}  # fmt: skip
    path = config.EXTERNAL / f"{name}.npz"
    files.replace(path, lambda file: np.savez(file, **(arrays | changes)))


def build(known=True, **changes):
    """Write a run into this folder up to its cells, but for what audit says of it beside data/duplicates.csv.

    Parameters
    ----------
    known : whether the labels of test rows are. changes : of params.yaml.
    """
    run, data = params(**changes), faces()
    data.save()
    files.write_json(provenance.PATH, {"source": "local", "official": False, "files": {}})
    truth = labels()[ROWS[0] :] if known else np.full(sum(ROWS[1:]), -1)
    solution.save(solution.table(data.test_rows(), data.usage[data.test_rows()], truth))
    folds.main()
    dealt = folds.load(data)
    identical = np.zeros(sum(ROWS), int)
    identical[[11, 40, ROWS[0], sum(ROWS[:2])]] = 1
    duplicates = pd.DataFrame({"row": range(sum(ROWS)), "identical": identical, "near": 0})
    files.write(audit.DUPLICATES, duplicates.to_csv(index=False).encode())
    for name in run.names:
        for fold in run.folds:
            write_cell(run, name, fold, data, dealt)
    Path(config.EXTERNAL).mkdir(exist_ok=True)
    return run, data, dealt


def result(path):
    """A JSON file."""
    return json.loads(Path(path).read_text())
