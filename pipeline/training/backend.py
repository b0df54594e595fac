"""The one place that knows the library under Keras: it starts it, and sets its seeds and its precision."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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
    # In bfloat16 these leave oneDNN for a kernel that is slower still than what is left here (bench/README.md).
    os.environ.setdefault(
        "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_ALLOWLIST_REMOVE",
        "DepthwiseConv2dNative,DepthwiseConv2dNativeBackpropFilter,DepthwiseConv2dNativeBackpropInput",
    )
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
        _multiply_small_gradients()


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


SMALL_GRID = 8  # pixels across, up to which the gradient of a 3x3 kernel is a product of matrices


def _multiply_small_gradients() -> None:
    """Let 3x3 convolutions over small grids take their kernel's gradient as nine products of matrices, one a tap.

    oneDNN sums over one row of pixels at a time, so that of the 32 numbers that a bfloat16 product takes at once a grid
    6 pixels wide fills 6: the gradient of a kernel takes up to six times as long as the convolution (bench/README.md).
    """
    import keras
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return

    def taps(inputs: Any, upstream: Any, narrow: bool) -> Any:
        _, height, width, channels = inputs.shape
        if narrow:
            inputs, upstream = tf.cast(inputs, tf.bfloat16), tf.cast(upstream, tf.bfloat16)
        padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
        flat = tf.reshape(upstream, [-1, upstream.shape[3]])
        windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        products = [tf.matmul(tf.reshape(each, [-1, channels]), flat, transpose_a=True) for each in windows]
        return tf.reshape(tf.cast(tf.stack(products), tf.float32), [3, 3, channels, -1])

    plain = keras.layers.Conv2D.convolution_op

    def convolution_op(self: Any, inputs: Any, kernel: Any) -> Any:
        small = len(inputs.shape) == 4 and 0 < (inputs.shape[2] or 0) <= SMALL_GRID and inputs.shape[3] >= 64
        usual = (self.kernel_size, self.strides, self.dilation_rate, self.groups) == ((3, 3), (1, 1), (1, 1), 1)
        channels_last = self.padding == "same" and self.data_format == "channels_last"
        if not tf.is_tensor(inputs) or inputs.dtype != tf.float32 or not (small and usual and channels_last):
            return plain(self, inputs, kernel)
        narrow = bool(tf.config.optimizer.get_experimental_options().get("auto_mixed_precision_onednn_bfloat16"))

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def convolve(x: Any, weights: Any) -> Any:
            def gradient(upstream: Any) -> Any:
                back = tf.nn.conv2d_transpose(upstream, weights, tf.shape(x), 1, "SAME")
                return back, taps(x, upstream, narrow)

            return tf.nn.conv2d(x, weights, 1, "SAME"), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))

    convolution_op.by_taps = True  # type: ignore[attr-defined]
    if not hasattr(plain, "by_taps"):
        keras.layers.Conv2D.convolution_op = convolution_op


def batches(inputs: tuple[np.ndarray, ...], answers: np.ndarray, size: int) -> dict[str, Any]:
    """What `keras.Model.fit` takes to train once on whole batches of arrays that stand in their order.

    TensorFlow gets a dataset without autotuning, whose thread sleeps twice as long each time and holds up the end of
    an epoch until it wakes: 1.6 s of work took 2.6 s.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return {"x": inputs, "y": answers, "batch_size": size}
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices((inputs, answers)).batch(size, drop_remainder=True)
    return {"x": dataset.with_options(options)}


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
