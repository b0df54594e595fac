"""What this machine has, and so which library and precision suit it; known before any library is imported."""

import fcntl
import glob
import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

from pipeline import architectures
from pipeline.config import BACKENDS
from pipeline.errors import UserError

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of /proc/cpuinfo; the last is ARM's
# What each library needs beside itself to use a GPU: as pip brings them, the first two run on the CPU.
ON_GPU = {"tensorflow": ("nvidia.cudnn",), "jax": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "torch": ("torch",)}
_held: list[IO[bytes]] = []  # open for as long as this process lives


def processor() -> str:
    """The name of this machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, IndexError, StopIteration):
        return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """The numbers of the NVIDIA GPUs that this process may use, without waking any library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number and number != "-1"]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]  # CUDA counts those it sees from 0


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def reaches_gpu(library: str) -> bool:
    """Whether there is a GPU, and beside `library` what it needs to use it."""
    return bool(gpus()) and any(map(_installed, ON_GPU[library]))


def choose(wanted: str) -> str:
    """The library to run: what KERAS_BACKEND says, else `wanted`, else ("auto") the right one for this machine.

    That is JAX where there are a GPU and JAX's CUDA plugin, else the first that is installed of TensorFlow (the fastest
    of the three on a CPU, see docs/speed.md), JAX and PyTorch.
    """
    wanted = os.environ.get("KERAS_BACKEND") or wanted
    if wanted not in ("auto", *BACKENDS):
        raise UserError(f"KERAS_BACKEND is {wanted!r}; it must be auto, {', '.join(BACKENDS)}, or not set")
    if wanted != "auto":
        return wanted
    return "jax" if reaches_gpu("jax") else next(filter(_installed, BACKENDS), BACKENDS[0])


@cache
def bfloat16_on_cpu() -> bool:
    """Whether the processor multiplies bfloat16; emulated, it takes many times longer than float32."""
    try:
        return bool(BFLOAT16_FLAGS & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False


def products(wanted: str, library: str, network: str) -> str:
    """The precision that "auto" stands for: bfloat16 where the machine is made for it.

    On a CPU not for networks with depthwise convolutions, which TensorFlow trains slower so (docs/speed.md).
    """
    if wanted != "auto":
        return wanted
    on_cpu = library == "tensorflow" and bfloat16_on_cpu()  # the others' CPU kernels gain nothing by it
    fast = reaches_gpu(library) or (on_cpu and not architectures.separable(network))
    return "bfloat16" if fast else "float32"


def suitable(learned: str, library: str, network: str) -> str:
    """The precision to use a network in that was trained in `learned`, maybe by a machine that multiplies otherwise.

    bfloat16 where it was trained so and this machine is made for it, else float32.
    """
    return products("float32" if learned == "float32" else "auto", library, network)


def device() -> str:
    """What kind of device computes: "gpu", or the machine, like x86_64."""
    return "gpu" if gpus() else platform.machine()


def versions(name: str) -> dict[str, str]:
    """What computes: library `name`, and the versions that its results depend on ("none" for what is not installed)."""
    return {"backend": name} | {part: _version(part) for part in (name, "keras")}


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


@cache
def claim_gpu() -> None:
    """Where there are several GPUs, take one that no other process of this machine has taken, until this one ends.

    A lock on a file of this machine and user stands for a GPU: the system opens it when the process dies, however that
    happens. Processes beyond the number of GPUs share them by turns.
    """
    numbers = gpus()
    if len(numbers) < 2:
        return
    chosen = numbers[os.getpid() % len(numbers)]
    for number in numbers:
        file = open(Path(tempfile.gettempdir()) / f"fer2013-{os.getuid()}-gpu{number}.lock", "ab")  # noqa: SIM115 (stays open)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        chosen = number
        break
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen
