import os

import pytest

from pipeline import config

# These take longest. Two processes share the tests file by file: what is long must not begin last.
FIRST = ("clone", "graph", "loop", "cells", "architectures", "experiments", "predict", "notebook", "real_data")


def pytest_collection_modifyitems(items):
    """Bring the longest files forward; within a file the order stays."""
    places = {f"test_{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def _fresh_config():
    """Let no test see the params.yaml of another's folder: what is read is kept for the length of a command."""
    config.load.cache_clear()
    yield
    config.load.cache_clear()


@pytest.fixture
def close(monkeypatch):
    """Let nobody, not even root, list a folder whose path ends so."""
    scandir = os.scandir

    def closed(end):
        def refusing(path):
            if str(path).endswith(end):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)

    return closed


@pytest.fixture(scope="session")
def started():
    """Start Keras as a cell is trained: with all that backend.py does to it."""
    from pipeline.training import backend, machine

    backend.start(machine.choose("auto"))


@pytest.fixture
def stand(tmp_path, monkeypatch):
    """Stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
