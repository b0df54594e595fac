"""Small project for tests: synthetic faces in two folds, two models and a student."""

import functools

import fake_run
import numpy as np
import settings
import tiny

from pipeline.cells import planning
from pipeline.data import folds, synthetic
from pipeline.data.faces import Faces

SHORT = {"epochs": 2, "batch_size": 8, "rotation": 10.0, "flip": True, "precision": "float32"}
DOCUMENT = settings.LEAST | {
    "seed": 7, "backend": "tensorflow", "data": {"source": "local"}, "recipes": {"short": SHORT},
    "models": {
        "one": {"architecture": "mini_xception", "recipe": "short"},
        "two": {"architecture": "mini_xception", "recipe": "short", "seed": 8, "contrast": "histogram"},
    },
    "students": {
        "pupil": {"architecture": "small_vgg", "recipe": "short", "teachers": ["one", "two"], "teacher_weight": 0.5}
    },
    "ensemble": {"method": "weights", "members": ["one", "two", "pupil"]},
}  # fmt: skip


@functools.cache
def faces():
    """Return 168 Training and 42 test faces with two duplicates: within Training, and between Training and test."""
    pixels, labels, usage = synthetic.competition(training=168, test=21, seed=3)
    pixels[5], pixels[11] = pixels[40], pixels[170]
    return Faces(pixels, np.where(usage == 0, labels, -1).astype("int8"), usage.astype("uint8"))


def write(**changes):
    """Write params.yaml."""
    settings.dump(DOCUMENT | changes)


def project(folder, patch, **changes):
    """Create the project with tiny networks in `folder`, and change to it."""
    patch.chdir(folder)
    tiny.instead(patch)
    for name in ("artifacts/cells", "artifacts/students", "external", "results"):
        (folder / name).mkdir(parents=True)
    write(**changes)
    faces().save()
    folds.main()
    planning.main()


def judge():
    """Write the labels, duplicates and provenance that later stages read; return the faces."""
    fake_run.judge(faces(), np.arange(42) % 7, source="synthetic")
    return faces()
