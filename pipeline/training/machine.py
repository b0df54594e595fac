"""Hardware of this machine, and the library and precision that suit it, without importing any library."""

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

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # in /proc/cpuinfo; the last is ARM's
# Packages that each library needs to use a GPU: without them, TensorFlow and JAX from pip run on the CPU.
ON_GPU = {"tensorflow": ("nvidia.cudnn",), "jax": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "torch": ("torch",)}
_held: list[IO[bytes]] = []  # lock files, open until this process ends


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, IndexError, StopIteration):
        return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Return the numbers of the NVIDIA GPUs that this process may use, without importing a library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number and number != "-1"]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]  # CUDA numbers visible GPUs from 0


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def reaches_gpu(library: str) -> bool:
    """Return whether there is a GPU, and the packages that `library` needs to use it."""
    return bool(gpus()) and any(map(_installed, ON_GPU[library]))


def choose(wanted: str) -> str:
    """Return the Keras backend to use: KERAS_BACKEND if it is set, else `wanted`.

    "auto" is JAX if there are a GPU and JAX's CUDA plugin. Otherwise it is the first installed one of TensorFlow (the
    fastest of the three on a CPU, see docs/speed.md), JAX and PyTorch. Raises UserError for an unknown KERAS_BACKEND.
    """
    wanted = os.environ.get("KERAS_BACKEND") or wanted
    if wanted not in ("auto", *BACKENDS):
        raise UserError(f"KERAS_BACKEND is {wanted!r}; it must be auto, {', '.join(BACKENDS)}, or not set")
    if wanted != "auto":
        return wanted
    return "jax" if reaches_gpu("jax") else next(filter(_installed, BACKENDS), BACKENDS[0])


@cache
def bfloat16_on_cpu() -> bool:
    """Return whether the processor multiplies bfloat16; emulation is many times slower than float32."""
    try:
        return bool(BFLOAT16_FLAGS & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False


def products(wanted: str, library: str, network: str) -> str:
    """Return the precision `wanted`; if it is "auto", bfloat16 if the machine supports it, else float32.

    Networks with depthwise convolutions use float32 on a CPU, as TensorFlow trains them slower in bfloat16
    (docs/speed.md).
    """
    if wanted != "auto":
        return wanted
    on_cpu = library == "tensorflow" and bfloat16_on_cpu()  # no gain in the other libraries' CPU kernels
    fast = reaches_gpu(library) or (on_cpu and not architectures.separable(network))
    return "bfloat16" if fast else "float32"


def suitable(learned: str, library: str, network: str) -> str:
    """Return the precision for predictions of a network that was trained in precision `learned`, on any machine.

    It is bfloat16 if the network was trained in bfloat16 and this machine supports it, else float32.
    """
    return products("float32" if learned == "float32" else "auto", library, network)


def device() -> str:
    """Return the kind of device that computes: "gpu", or the machine type, for example x86_64."""
    return "gpu" if gpus() else platform.machine()


def versions(name: str) -> dict[str, str]:
    """Return library `name` and the versions that its results depend on ("none" if a package is not installed)."""
    return {"backend": name} | {part: version(part) for part in (name, "keras")}


def version(package: str) -> str:
    """Return the version of an installed package, or of its variant for CPUs only; "none" if there is neither."""
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


@cache
def claim_gpu() -> None:
    """Reserve one of several GPUs for this process until it ends, and set CUDA_VISIBLE_DEVICES to it.

    Each GPU has a lock file per user, which the system releases when the process ends for any reason. If all GPUs are
    reserved, processes share them, chosen by process number.
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
