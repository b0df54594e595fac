"""Start Keras on one of its backends, and set seeds and precision."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.training import tensorflow_cpu


@contextmanager
def _muted() -> Iterator[None]:
    """Without standard error while C++ libraries announce themselves (no log level reaches that)."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def start(name: str, cache: Path | None = None) -> None:
    """Import Keras on backend `name`, once a process, whatever the user's own keras.json says.

    Parameters
    ----------
    cache : folder that keeps compiled programs between processes, for JAX.

    Raises
    ------
    UserError : where `name` is not installed, or the process runs another backend already.
    """
    os.environ["KERAS_BACKEND"] = name
    tensorflow_cpu.before_import()
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    try:
        with _muted():
            import keras
    except ImportError as missing:
        raise UserError(f"{missing}; install {name}, or set backend to auto in params.yaml") from None
    if keras.config.backend() != name:
        raise UserError(f"this process runs {keras.config.backend()} already, so it cannot run {name}")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    if name == "tensorflow":
        tensorflow_cpu.fuse_normalisation()


def batches(inputs: tuple[np.ndarray, ...], targets: np.ndarray, size: int) -> dict[str, Any]:
    """What `keras.Model.fit` takes to train once on whole batches of arrays, in their order."""
    import keras

    if keras.config.backend() == "tensorflow":
        return {"x": tensorflow_cpu.dataset(inputs, targets, size)}
    return {"x": inputs, "y": targets, "batch_size": size}


def prepare(seed: int, precision: str) -> None:
    """Seed every source of randomness, ask for deterministic kernels, and set the precision of products.

    Parameters
    ----------
    seed : from 0 up.
    precision : "float32" or "bfloat16". On TensorFlow's CPU the latter is oneDNN's automatic mixed precision:
        convolutions and matrix products in bfloat16; sums, weights and all else in float32. Elsewhere it is Keras's
        mixed_bfloat16.
    """
    import keras
    import keras.src.random.seed_generator as layer_seeds

    keras.utils.clear_session()  # layers are numbered from the start: the same names in every weights file
    keras.utils.set_random_seed(seed)
    # Keras draws layer seeds from Python's global generator, which Dask's worker threads draw from too, and has no
    # public way to name another. A private one gives the same numbers, undisturbed.
    layer_seeds.python_random = random.Random(seed)
    mixed = precision == "bfloat16"
    if keras.config.backend() == "tensorflow":
        mixed = tensorflow_cpu.set_precision(precision)
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")
