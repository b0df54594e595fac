"""Muon: momentum with orthogonalised updates per kernel, so that all directions are learned equally fast."""

from typing import Any

import keras
from keras import ops

from pipeline.competition import CLASSES

MOMENTUM = 0.95
STEPS = 5  # Newton-Schulz iterations
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz polynomial (Jordan et al. 2024)
RMS = 0.2  # root mean square of an update, matching AdamW's (Liu et al. 2025, section 2.2)
ADAM_RATE = 0.1  # factor of the learning rate for AdamW
BETAS = (0.9, 0.999)
EPSILON = 1e-7


def orthogonalized(x: keras.KerasTensor) -> keras.KerasTensor:
    """Return the nearest matrix with all singular values close to 1, by Newton-Schulz iteration: float [m, n]."""
    a, b, c = COEFFICIENTS
    tall = x.shape[0] > x.shape[1]
    x = ops.transpose(x) if tall else x
    x = x / (ops.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ ops.transpose(x)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return ops.transpose(x) if tall else x


class Muon(keras.optimizers.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) with updates scaled as AdamW's (arXiv 2502.16982).

    The kernel of a convolution is reshaped to a matrix [height * width * input channels, output channels]. (Keras's
    Muon uses AdamW for convolutions.) Biases, normalisation and the last layer use AdamW at a tenth of the rate.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        """Create a momentum for every variable, and a velocity for those that use AdamW."""
        if self.built:
            return
        super().build(variables)
        self._momenta: list[keras.Variable] = []
        self._velocities: list[keras.Variable | None] = []
        for variable in variables:
            self._momenta.append(self.add_variable_from_reference(variable, name="momentum"))
            adam = not is_matrix(variable)
            self._velocities.append(self.add_variable_from_reference(variable, name="velocity") if adam else None)

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.KerasTensor
    ) -> None:
        """Update one variable by one step."""
        index = self._get_variable_index(variable)  # as in Keras's optimizers; with TensorFlow the variable has no path
        momentum, velocity = self._momenta[index], self._velocities[index]
        if velocity is not None:
            self._adamw(gradient, variable, learning_rate * ADAM_RATE, momentum, velocity)
            return
        self.assign_add(momentum, ops.add(gradient, momentum * (MOMENTUM - 1)))
        ahead = ops.reshape(ops.add(gradient, MOMENTUM * momentum), (-1, variable.shape[-1]))
        step = learning_rate * orthogonalized(ahead)
        step = step * ops.sqrt(ops.maximum(ahead.shape[0], ahead.shape[1])) * RMS
        self.assign_sub(variable, ops.reshape(step, variable.shape))

    def _adamw(
        self, gradient: Any, variable: keras.Variable, rate: Any, momentum: keras.Variable, velocity: keras.Variable
    ) -> None:
        step = ops.cast(self.iterations + 1, variable.dtype)
        powers = [ops.power(ops.cast(beta, variable.dtype), step) for beta in BETAS]
        scale = ops.cast(rate, variable.dtype) * ops.sqrt(1 - powers[1]) / (1 - powers[0])
        self.assign_add(momentum, ops.multiply(ops.subtract(gradient, momentum), 1 - BETAS[0]))
        self.assign_add(velocity, ops.multiply(ops.subtract(ops.square(gradient), velocity), 1 - BETAS[1]))
        self.assign_sub(variable, ops.divide(ops.multiply(momentum, scale), ops.add(ops.sqrt(velocity), EPSILON)))


def is_matrix(variable: keras.Variable) -> bool:
    """Return whether Muon updates a variable: a kernel, neither of the last layer nor with three axes (attention)."""
    return variable.path.endswith("kernel") and variable.shape[-1] != len(CLASSES) and len(variable.shape) != 3


def build(**shared: Any) -> keras.Optimizer:
    """Return Muon with the constants of this module."""
    return Muon(**shared)
