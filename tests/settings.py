"""A params.yaml for tests: the least that is valid, and what a test wants otherwise."""

import json

from pipeline import config

LEAST = {
    "seed": 1, "backend": "auto", "data": {"source": "local", "training_faces": 14, "test_faces": 7}, "folds": [0, 1],
    "duplicates": "keep", "recipes": {}, "models": {"small_vgg": {"architecture": "small_vgg", "epochs": 1}},
    "students": {}, "ensemble": {"members": ["small_vgg"]},
}  # fmt: skip


def dump(document):
    """Write a whole params.yaml into this folder, and let nothing remember an older one."""
    config.PATH.write_text(json.dumps(document))  # JSON is YAML, too
    config.load.cache_clear()


def write(data=None, **sections):
    """Write the least into this folder; `data` is laid over its section, `sections` replace theirs."""
    dump(LEAST | sections | {"data": LEAST["data"] | (data or {})})
