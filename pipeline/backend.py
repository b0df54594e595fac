"""The one place that knows which library runs under Keras: its seeds, its precision, its versions."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _muted() -> Iterator[None]:
    """Without standard error, for as long as C++ libraries announce themselves (no log level reaches that)."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


with _muted():
    import keras


def prepare(seed: int, precision: str) -> None:
    """Seed every source of randomness, ask for deterministic kernels, and set the precision of products.

    Parameters
    ----------
    seed : from 0 up.
    precision : "float32" or "bfloat16". On TensorFlow without a GPU the latter is oneDNN's automatic mixed precision
        (convolutions and matrix products in bfloat16, sums, weights and everything else in float32), elsewhere
        Keras's mixed_bfloat16.
    """
    keras.utils.clear_session()  # layers are numbered from the start: the same names in every weights file
    keras.utils.set_random_seed(seed)
    mixed = precision == "bfloat16"
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        on_cpu = not tf.config.list_physical_devices("GPU")
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": mixed and on_cpu})
        mixed = mixed and not on_cpu
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")


def versions() -> dict[str, str]:
    """What computes: the backend and the versions that its results depend on."""
    import importlib.metadata

    name = keras.backend.backend()
    return {"backend": name, name: importlib.metadata.version(name), "keras": keras.__version__}
