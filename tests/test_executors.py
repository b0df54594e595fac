"""Parallel tasks on every executor, also if workers die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.training import executors

RAY = pytest.param("ray", marks=pytest.mark.slow)
DATA = np.arange(300_000)  # 2.4 MB: large enough to be mapped or scattered


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Let workers import this module."""
    tests = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tests}{os.pathsep}{tests.parent}")


def total(data, factor):
    return int(data.sum()) * factor


def total_if_alive(data, factor, mark, deaths):
    """Kill the own process `deaths` times; the file `mark` counts."""
    if factor == 2 and (dead := len(mark.read_text()) if mark.exists() else 0) < deaths:
        mark.write_text("x" * (dead + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return total(data, factor)


def wait(data, folder):
    (folder / str(os.getpid())).touch()
    time.sleep(120)


def refuse(data, factor):
    if factor == 3:
        raise UserError(f"no {factor}")
    return factor


TASKS = {factor: (factor,) for factor in range(1, 6)}
WANTED = {factor: int(DATA.sum()) * factor for factor in range(1, 6)}


def test_tasks_run_sequentially_without_semaphores(monkeypatch, capsys):
    """Some containers have a small or read-only /dev/shm."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(executors.multiprocessing.get_context("spawn").__class__, "Semaphore", full)
    assert dict(executors.results(total, DATA, TASKS, "loky", 2, None)) == WANTED
    assert "/dev/shm" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["loky", "dask", RAY])
def test_task_of_a_killed_worker_is_repeated(name, tmp_path):
    tasks = {key: (*words, tmp_path / "mark", 1) for key, words in TASKS.items()}
    results = list(executors.results(total_if_alive, DATA, tasks, name, 2, None))
    assert (tmp_path / "mark").read_text() == "x"
    assert sorted(results) == sorted(WANTED.items())


@pytest.mark.parametrize("name", ["loky", "dask"])
def test_workers_that_die_repeatedly_are_an_error(name, tmp_path):
    tasks = {2: (2, tmp_path / "mark", 99)}
    with pytest.raises(UserError, match="workers did nothing but die"):
        list(executors.results(total_if_alive, DATA, tasks, name, 2, None))
    assert len((tmp_path / "mark").read_text()) >= 4, "they were started again"


@pytest.mark.parametrize("name", ["spark", "dask", RAY])
def test_unknown_executor_or_wrong_address_is_refused(name):
    with pytest.raises(UserError, match=f"EXECUTOR={name}"):
        list(executors.results(total, DATA, TASKS, name, 2, "nowhere"))


def test_workers_end_with_a_killed_driver(tmp_path):
    code = (
        "import sys; from pathlib import Path; import test_executors; from pipeline.training import executors;"
        "tasks = dict.fromkeys((1, 2), (Path(sys.argv[1]),));"
        "list(executors.results(test_executors.wait, 0, tasks, 'loky', 2, None))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 90  # less than the duration of the tasks
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.kill()
    driver.wait()
    while any(Path("/proc", path.name, "exe").exists() for path in tmp_path.iterdir()):  # a zombie has none
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["loky", "dask", RAY])
def test_error_of_a_worker_is_raised(name):
    with pytest.raises(UserError, match="no 3"):
        list(executors.results(refuse, DATA, TASKS, name, 2, None))


def visible(data, seconds):
    time.sleep(seconds)
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.slow
def test_ray_assigns_a_separate_gpu_to_each_worker(monkeypatch):
    """Ray believes the configured number of GPUs, so the test needs none."""
    import ray

    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **words: init(num_gpus=2, **words))
    devices = dict(executors.results(visible, DATA, dict.fromkeys(range(4), (1.0,)), "ray", 3, None))
    assert set(devices.values()) == {"0", "1"}
