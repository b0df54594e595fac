"""What TensorFlow's CPU kernels need to be fast, each with what it gives; nothing else in the project is so specific.

The figures are of one training step of deep_vgg and small_vgg, and of mini_xception where it is named: bench/README.md.
"""

import os
from typing import Any

import numpy as np

SMALL_GRID = 8  # pixels across, up to which a 3x3 kernel's gradient is a product of matrices


def before_import() -> None:
    """Set what TensorFlow reads when it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no start-up messages
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # on AMD it is off by default, at half the speed
    # In bfloat16 these leave oneDNN for a kernel that is slower than float32's: mini_xception.
    depthwise = "DepthwiseConv2dNative"
    names = ",".join(depthwise + end for end in ("", "BackpropFilter", "BackpropInput"))
    os.environ.setdefault("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_ALLOWLIST_REMOVE", names)


def accelerate() -> None:
    """Install the faster normalisation and kernel gradients in Keras's layers, once a process."""
    _fuse_normalisation()
    _multiply_small_gradients()


def _fuse_normalisation() -> None:
    """Train batch normalisation by TensorFlow's one kernel, not by Keras's ten elementwise passes over memory.

    The numbers are the same but for rounding. deep_vgg trains 1.38 times as fast, mini_xception 1.5 times.
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


def _taps(inputs: Any, upstream: Any, narrow: bool) -> Any:
    """The gradient of a 3x3 kernel as nine products of matrices, one a tap: float32 [3, 3, channels, filters]."""
    import tensorflow as tf

    _, height, width, channels = inputs.shape
    if narrow:
        inputs, upstream = tf.cast(inputs, tf.bfloat16), tf.cast(upstream, tf.bfloat16)
    padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
    flat = tf.reshape(upstream, [-1, upstream.shape[3]])
    windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    products = [tf.matmul(tf.reshape(each, [-1, channels]), flat, transpose_a=True) for each in windows]
    return tf.reshape(tf.cast(tf.stack(products), tf.float32), [3, 3, channels, -1])


def _multiply_small_gradients() -> None:
    """Compute the kernel gradients of 3x3 convolutions over small grids as matrix products.

    oneDNN sums over one row of pixels at a time. Of the 32 numbers that a bfloat16 product takes at once, a grid of 6
    pixels fills 6.
    """
    import keras
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return
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
                return back, _taps(x, upstream, narrow)

            return tf.nn.conv2d(x, weights, 1, "SAME"), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))

    convolution_op.by_taps = True  # type: ignore[attr-defined]
    if not hasattr(plain, "by_taps"):
        keras.layers.Conv2D.convolution_op = convolution_op


def dataset(inputs: tuple[np.ndarray, ...], targets: np.ndarray, size: int) -> Any:
    """Whole batches of arrays, in their order, as a dataset without autotuning.

    Autotuning's thread sleeps twice as long each time and holds up the end of an epoch until it wakes.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(size, drop_remainder=True).with_options(options)


def set_precision(precision: str) -> bool:
    """Ask for oneDNN's automatic mixed precision; return whether Keras's own is wanted instead (on a GPU)."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    mixed = precision == "bfloat16"
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": mixed and not on_gpu})
    return mixed and on_gpu
