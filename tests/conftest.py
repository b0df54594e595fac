"""Fixtures for all tests."""

import os

import pytest

from pipeline import config
from pipeline.training import tensorflow_cpu

tensorflow_cpu.before_import()  # as in commands: TensorFlow reads these on import, and some tests import Keras first

# Git sets these in hooks; tests that commit in a temporary folder would commit in this project instead.
for name in [each for each in os.environ if each.startswith("GIT_")]:
    del os.environ[name]

# The slowest files. Two processes share the tests file by file, so these must start first.
FIRST = ("clone", "graph", "loop", "cells", "architectures", "experiments", "predict", "notebook")


def pytest_collection_modifyitems(items):
    """Run the slowest files first; the order within a file is unchanged."""
    order = [f"test_{name}.py" for name in FIRST]
    items.sort(key=lambda item: order.index(item.path.name) if item.path.name in order else len(order))


@pytest.fixture(autouse=True)
def _fresh_config():
    """Clear the cached params.yaml, which is kept for the duration of a command."""
    config.load.cache_clear()
    yield
    config.load.cache_clear()


@pytest.fixture
def _locked(monkeypatch):
    """Make folders with the name "locked" unreadable, even for root."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.fixture(scope="session")
def started():
    """Start Keras with the settings of backend.py, as in the training of a cell."""
    from pipeline.training import backend, machine

    backend.start(machine.choose("auto"))


@pytest.fixture
def stand(tmp_path, monkeypatch):
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
