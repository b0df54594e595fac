"""The project's folder, and a minimal valid params.yaml for tests, with changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import UserError

ROOT = Path(__file__).parent.parent
LEAST = {
    "seed": 1, "backend": "auto", "data": {"source": "local", "training_faces": 14, "test_faces": 7}, "folds": 2,
    "duplicates": "keep", "recipes": {}, "models": {"small_vgg": {"architecture": "small_vgg", "epochs": 1}},
    "students": {}, "ensemble": {"members": ["small_vgg"]},
}  # fmt: skip

# A command of the pipeline whose last line of output lists the imported modules.
LISTING = ("import atexit, runpy, sys; atexit.register(lambda: print(*sys.modules)); sys.argv[0] = 'pipeline';"
           "runpy.run_module('pipeline', run_name='__main__')")  # fmt: skip


def dump(document):
    """Write a complete params.yaml to the working directory, and clear the cached one."""
    config.PATH.write_text(json.dumps(document))  # JSON is valid YAML
    config.load.cache_clear()


def write(data=None, **sections):
    """Write the minimal params.yaml; `data` overrides keys of its section, `sections` replace sections."""
    dump(LEAST | sections | {"data": LEAST["data"] | (data or {})})


def python(code, **environment):
    """Run code in a process that can import the pipeline and the tests."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"} | environment
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def refuses(message, command, /, *words, **options):
    """Assert that a command raises UserError with a `message`, a regular expression."""
    with pytest.raises(UserError, match=message):
        command(*words, **options)
