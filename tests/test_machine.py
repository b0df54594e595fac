"""Library, precision and GPU are chosen by what the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.training import machine

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize(("installed", "devices", "chosen"), [
    ("tensorflow jax torch", "", "tensorflow"), ("jax torch", "", "jax"), ("torch", "0", "torch"),
    ("tensorflow jax", "0", "tensorflow"),  # this JAX does not know the GPU
    ("tensorflow jax jax_cuda12_plugin", "0", "jax"), ("tensorflow jax jax_cuda13_plugin", "0,1", "jax"),
    ("tensorflow jax jax_cuda12_plugin", "-1", "tensorflow"), ("", "", "tensorflow"),
])  # fmt: skip
def test_auto_is_the_library_that_suits_the_machine(installed, devices, chosen, monkeypatch):
    monkeypatch.setattr(machine, "_installed", installed.split().__contains__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert machine.choose("auto") == chosen
    assert machine.choose("torch") == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert machine.choose("torch") == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(UserError, match="KERAS_BACKEND is 'theano'"):
        machine.choose("auto")


@pytest.mark.parametrize(("library", "devices", "beside", "processor", "precision"), [
    ("tensorflow", "", "", True, "bfloat16"), ("tensorflow", "", "", False, "float32"),
    ("tensorflow", "0", "nvidia.cudnn", False, "bfloat16"), ("tensorflow", "", "nvidia.cudnn", False, "float32"),
    ("jax", "", "", True, "float32"), ("jax", "0", "jax_cuda13_plugin", False, "bfloat16"),
    ("jax", "0", "", False, "float32"), ("torch", "", "", True, "float32"), ("torch", "0", "torch", False, "bfloat16"),
    ("tensorflow", "0", "", False, "float32"),  # the GPU lies idle, and the processor would emulate bfloat16
    ("tensorflow", "0", "", True, "bfloat16"),
])  # fmt: skip
def test_auto_is_bfloat16_where_it_is_fast(library, devices, beside, processor, precision, monkeypatch):
    monkeypatch.setattr(machine, "bfloat16_on_cpu", lambda: processor)
    monkeypatch.setattr(machine, "_installed", {beside}.__contains__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert machine.products("auto", library, "vgg8") == precision
    depthwise = "bfloat16" if devices and beside else "float32"  # slow in bfloat16, on a CPU
    assert machine.products("auto", library, "mini_xception") == depthwise
    for wanted in ("float32", "bfloat16"):
        assert machine.products(wanted, library, "mini_xception") == wanted
    assert machine.suitable("bfloat16", library, "vgg8") == precision  # whatever the machine that trained it was
    assert machine.suitable("float32", library, "vgg8") == "float32"


def claim(folder, devices):
    """A process that claims a GPU twice, says which it sees, and lives until its input ends."""
    code = (
        "import os; from pipeline.training import machine; machine.claim_gpu(); machine.claim_gpu();"
        "print(os.getpid(), os.environ['CUDA_VISIBLE_DEVICES'], flush=True); input()"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": devices, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def seen(worker):
    pid, devices = worker.stdout.readline().split()
    return int(pid), devices


def test_each_process_claims_a_gpu_of_its_own_and_death_frees_it(tmp_path):
    workers = [claim(tmp_path, "2,5")]
    assert seen(workers[0])[1] == "2"
    workers.append(claim(tmp_path, "2,5"))
    assert seen(workers[1])[1] == "5"
    workers.append(claim(tmp_path, "2,5"))  # one too many: it shares
    pid, devices = seen(workers[2])
    assert devices == ["2", "5"][pid % 2]
    workers[0].kill()
    workers[0].wait()
    workers.append(claim(tmp_path, "2,5"))
    assert seen(workers[3])[1] == "2"
    for worker in workers[1:]:
        worker.communicate("\n")


@pytest.mark.parametrize(("files", "numbers"), [([], []), (["/dev/nvidia2", "/dev/nvidia5"], ["0", "1"])])
def test_gpus_are_numbered_as_cuda_does(files, numbers, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: files)
    assert machine.gpus() == numbers
