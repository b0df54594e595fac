"""A params.yaml for tests: the least that is valid, and what a test wants otherwise."""

import json
from pathlib import Path

from pipeline import config

LEAST = {
    "seed": 1, "backend": "auto", "data": {"source": "local", "training_faces": 14, "test_faces": 7}, "folds": [0, 1],
    "duplicates": "keep", "recipes": {}, "models": {"small_vgg": {"architecture": "small_vgg", "epochs": 1}},
    "students": {}, "ensemble": {"members": ["small_vgg"]},
}  # fmt: skip


def write(data=None, **sections):
    """Write it into this folder; keys of `data` are laid over those of its section, `sections` replace theirs."""
    document = LEAST | sections | {"data": LEAST["data"] | (data or {})}
    Path("params.yaml").write_text(json.dumps(document))  # JSON is YAML, too
    config.load.cache_clear()
