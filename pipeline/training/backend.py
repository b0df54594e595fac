"""Start of Keras on one of its backends, with seeds and precision."""

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
    """Suppress standard error, where C++ libraries print messages on import that no log level disables."""
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
    """Import Keras with backend `name`, and override the settings of the user's keras.json.

    A process has one backend; starting it again has no effect.

    Parameters
    ----------
    cache : folder of JAX's compiled programs, shared by all processes.

    Raises
    ------
    UserError : if `name` is not installed, or this process already runs a different backend.
    """
    os.environ["KERAS_BACKEND"] = name
    tensorflow_cpu.before_import()
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    try:
        with _muted():
            import keras
    except ImportError as missing:
        raise UserError(
            f"{missing}; run make setup, or install {name} yourself, or set backend to auto in params.yaml"
        ) from None
    if keras.config.backend() != name:
        raise UserError(f"this process runs {keras.config.backend()} already, so it cannot run {name}")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    if name == "tensorflow":
        tensorflow_cpu.fuse_normalisation()


def batches(inputs: tuple[np.ndarray, ...], targets: np.ndarray, size: int) -> dict[str, Any]:
    """Return arguments of `keras.Model.fit` for one epoch of complete batches of the arrays, in their order."""
    import keras

    if keras.config.backend() == "tensorflow":
        return {"x": tensorflow_cpu.dataset(inputs, targets, size)}
    return {"x": inputs, "y": targets, "batch_size": size}


def prepare(seed: int, precision: str) -> None:
    """Seed all random generators, enable deterministic kernels, and set the precision of products.

    Parameters
    ----------
    seed : int, at least 0.
    precision : "float32" or "bfloat16". On TensorFlow's CPU, "bfloat16" is oneDNN's automatic mixed precision:
        convolutions and matrix products in bfloat16; sums, weights and all else in float32. Elsewhere it is Keras's
        mixed_bfloat16.
    """
    import keras
    import keras.src.random.seed_generator as layer_seeds

    keras.utils.clear_session()  # restarts the numbering of layers: the same names in every weights file
    keras.utils.set_random_seed(seed)
    # Keras draws layer seeds from Python's global generator, and has no public option for a different one. Threads of
    # Dask's workers use the global generator too. A separate generator gives the same numbers, unaffected by them.
    layer_seeds.python_random = random.Random(seed)
    mixed = precision == "bfloat16"
    if keras.config.backend() == "tensorflow":
        mixed = tensorflow_cpu.set_precision(precision)
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")
