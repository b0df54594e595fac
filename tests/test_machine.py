"""Choice of library, precision and GPU by the machine's hardware."""

import os
import subprocess
import sys

import pytest
from settings import ROOT, refuses

from pipeline.training import machine


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize(("installed", "devices", "chosen"), [
    ("torch", "0", "torch"), ("", "", "tensorflow"), ("tensorflow jax", "0", "tensorflow"),
    ("tensorflow jax jax_cuda13_plugin", "0,1", "jax"), ("tensorflow jax jax_cuda12_plugin", "-1", "tensorflow"),
])  # fmt: skip
def test_auto_selects_the_library_that_suits_the_machine(installed, devices, chosen, monkeypatch):
    monkeypatch.setattr(machine, "_installed", installed.split().__contains__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert machine.choose("auto") == chosen
    assert machine.choose("torch") == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert machine.choose("torch") == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    refuses("KERAS_BACKEND is 'theano'", machine.choose, "auto")


@pytest.mark.parametrize(("library", "devices", "beside", "processor", "precision"), [
    ("tensorflow", "", "", True, "bfloat16"), ("tensorflow", "", "", False, "float32"),
    ("tensorflow", "0", "nvidia.cudnn", False, "bfloat16"), ("jax", "", "", True, "float32"),
    ("tensorflow", "0", "", False, "float32"),  # without cuDNN the GPU is unused, and the processor emulates bfloat16
])  # fmt: skip
def test_auto_precision_is_bfloat16_if_it_is_fast(library, devices, beside, processor, precision, monkeypatch):
    monkeypatch.setattr(machine, "bfloat16_on_cpu", lambda: processor)
    monkeypatch.setattr(machine, "_installed", {beside}.__contains__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert machine.products("auto", library, "vgg8") == precision
    depthwise = "bfloat16" if devices and beside else "float32"  # slow in bfloat16 on a CPU
    assert machine.products("auto", library, "mini_xception") == depthwise
    for wanted in ("float32", "bfloat16"):
        assert machine.products(wanted, library, "mini_xception") == wanted
    assert machine.suitable("bfloat16", library, "vgg8") == precision  # on any machine, whichever trained it
    assert machine.suitable("float32", library, "vgg8") == "float32"


def claim(folder):
    """Start a process that claims one of two GPUs twice, and lives until its input ends; return it and its GPU."""
    code = (
        "import os; from pipeline.training import machine; machine.claim_gpu(); machine.claim_gpu();"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); input()"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "2,5", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)
    return worker, worker.stdout.readline().strip()


def test_each_process_claims_its_own_gpu_until_it_ends(tmp_path):
    (first, one), (second, two), (third, shared) = (claim(tmp_path) for _ in range(3))
    assert (one, two, shared) == ("2", "5", ("2", "5")[third.pid % 2])
    first.kill()
    first.wait()
    fourth, free = claim(tmp_path)
    assert free == "2"
    for worker in (second, third, fourth):
        worker.communicate("\n")
