"""The one place that knows the library under Keras: it starts it, and sets its seeds and its precision."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.command import Refusal


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


def start(name: str, cache_folder: Path | None = None) -> None:
    """Import Keras over library `name`. Once a process: a second library is refused.

    `cache_folder` keeps compiled programs between processes, for JAX.
    """
    os.environ["KERAS_BACKEND"] = name
    if cache_folder is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder))
    try:
        with _muted():
            import keras
    except ImportError as missing:
        raise Refusal(f"{missing}; install {name}, or let params.yaml's backend be auto") from None
    if keras.backend.backend() != name:
        raise Refusal(f"this process runs {keras.backend.backend()} already, so it cannot run {name}")
    if name == "tensorflow":
        _fuse_normalisation()


def _fuse_normalisation() -> None:
    """Let batch normalisation train by TensorFlow's one kernel instead of Keras's ten elementwise passes over memory.

    The numbers are the same but for rounding; mini_xception trains 1.5 times as fast (bench/README.md).
    """
    import keras
    import tensorflow as tf

    composed = keras.layers.BatchNormalization.call

    def call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        plain = self.trainable and self.scale and self.center and not self.renorm and self.axis in (-1, 3)
        if not training or not plain or mask is not None or inputs.dtype != tf.float32 or len(inputs.shape) != 4:
            return composed(self, inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma.value, offset=self.beta.value, mean=[], variance=[], epsilon=self.epsilon
        )
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        batch = (mean, variance * (count - 1) / count)  # the kernel's variance is the unbiased one, Keras's is not
        for average, value in zip((self.moving_mean, self.moving_variance), batch, strict=True):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs

    call.fused = True  # type: ignore[attr-defined]
    if not hasattr(composed, "fused"):
        keras.layers.BatchNormalization.call = call


def prepare(seed: int, precision: str) -> None:
    """Seed every source of randomness, ask for deterministic kernels, and set the precision of products.

    Parameters
    ----------
    seed : from 0 up.
    precision : "float32" or "bfloat16". On TensorFlow without a GPU the latter is oneDNN's automatic mixed precision
        (convolutions and matrix products in bfloat16, sums, weights and everything else in float32), elsewhere
        Keras's mixed_bfloat16.
    """
    import keras
    import keras.src.random.seed_generator as layer_seeds

    keras.utils.clear_session()  # layers are numbered from the start: the same names in every weights file
    keras.utils.set_random_seed(seed)
    # Keras seeds weights and dropout from Python's one global generator, which other threads of a process (Dask's
    # workers have some) draw from too. A private one gives the same numbers, undisturbed.
    layer_seeds.python_random = random.Random(seed)
    mixed = precision == "bfloat16"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        on_cpu = not tf.config.list_physical_devices("GPU")
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": mixed and on_cpu})
        mixed = mixed and not on_cpu
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")
