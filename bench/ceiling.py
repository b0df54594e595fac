"""What the machine can do at most: the largest matrix products in float32 and bfloat16, and a copy in memory."""

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pipeline.training import machine


def _best(work: Callable[[], Any], amount: float) -> float:
    """`amount` a second in the fastest of five tries: a ceiling, not an average."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return amount / min(times)


def _products() -> dict[str, tuple[Callable[[], Any], int]]:
    """Matrix products by precision and library, with the matrices' side."""
    side, small = 2048, 256  # small, where bfloat16 is emulated: that takes a minute otherwise
    one = np.random.default_rng(0).random((side, side), dtype="float32")
    found: dict[str, tuple[Callable[[], Any], int]] = {"float32 NumPy": (lambda: one @ one, side)}
    try:
        import torch
    except ImportError:
        return found
    full = torch.from_numpy(one)
    narrow = side if machine.bfloat16_on_cpu() else small
    half = full[:narrow, :narrow].bfloat16()
    return found | {"float32 PyTorch": (lambda: full @ full, side), "bfloat16 PyTorch": (lambda: half @ half, narrow)}


def serve(pipe: Connection) -> None:
    """Answer each word with GFLOP/s a product and GB/s of a copy (read and written); None ends it."""
    products = _products()
    source = np.ones(2**26, dtype="uint8")
    target = np.empty_like(source)
    pipe.send("ready")
    while pipe.recv():
        pipe.send(
            {name: _best(work, 2 * side**3 / 1e9) for name, (work, side) in products.items()}
            | {"copy GB/s": _best(lambda: np.copyto(target, source), 2 * source.nbytes / 1e9)}
        )
