"""The training loop: from pixels and targets to a trained network, on any Keras backend."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from pipeline.competition import CLASSES, SIDE
from pipeline.config import Recipe
from pipeline.errors import UserError
from pipeline.training import augment, backend, optimizers, schedules
from pipeline.training.cell import HISTORY
from pipeline.training.checkpoint import Checkpoint, Progress
from pipeline.training.models import Feed, Learner, Predictor, Recalibrator

RECALIBRATION = 16  # batches


@dataclass(frozen=True)
class Rows:
    """Rows and targets of one training.

    Parameters
    ----------
    train : int [m], rows of the trainer's pictures.
    targets : float32 [m, 7], target probabilities of the training rows.
    validation : int [k], monitored rows; k may be 0. They affect neither the learning rate nor the choice of an epoch.
    labels : int [k], classes of the validation rows.
    """

    train: np.ndarray
    targets: np.ndarray
    validation: np.ndarray
    labels: np.ndarray


class Generalised(keras.losses.Loss):
    """Generalised cross-entropy (Zhang & Sabuncu 2018, arXiv 1805.07836): (1 - p^q) / q, of smoothed targets.

    Its minimiser is proportional to the true probabilities to the power of 1 / (1 - q): a temperature.
    """

    def __init__(self, label_smoothing: float, q: float = 0.5) -> None:
        super().__init__()
        self.label_smoothing, self.q = label_smoothing, q

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of each row."""
        targets = y_true * (1 - self.label_smoothing) + self.label_smoothing / len(CLASSES)
        return ops.sum(targets * (1 - ops.power(ops.clip(y_pred, 1e-7, 1), self.q)) / self.q, axis=-1)


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Encode classes, int [n], as float32 [n, 7]."""
    found: np.ndarray = np.eye(len(CLASSES), dtype="float32")[labels]
    return found


def compiled(feed: Feed, network: keras.Model, recipe: Recipe, steps: int) -> Learner:
    """Compile a Learner of `feed` and `network` for a training of `steps` steps."""
    learner = Learner(feed, network)
    stepwise = recipe.schedule in ("cosine", "linear")
    optimizer = optimizers.build(recipe, schedules.Stepwise(recipe, steps) if stepwise else recipe.learning_rate)
    if recipe.weight_decay:  # only of kernels, not of biases and normalisation (Jia et al. 2018, arXiv 1807.11205)
        optimizer.exclude_from_weight_decay([v for v in network.trainable_variables if not v.name.endswith("kernel")])
    losses = {"categorical": keras.losses.CategoricalCrossentropy, "binary": keras.losses.BinaryCrossentropy,
              "generalised": Generalised}
    learner.compile(
        optimizer=optimizer,
        loss=losses[recipe.loss](label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        jit_compile=keras.config.backend() == "jax",  # XLA makes TensorFlow's CPU convolutions 8 times slower
    )
    return learner


def validation_scores(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return mean log loss and accuracy of probabilities, float [n, 7], for labels, int [n]; NaN if n is 0."""
    if not len(labels):
        return math.nan, math.nan
    chosen = probabilities[np.arange(len(labels)), labels].astype("float64")
    return float(-np.log(np.maximum(chosen, 1e-7)).mean()), float((probabilities.argmax(1) == labels).mean())


class Trainer:
    """Network with its compiled programs for training and prediction, reusable for any number of folds and seeds.

    Parameters
    ----------
    build : function that builds the network.
    pixels : uint8 [n, 48, 48], all pictures.
    recipe : with a precision other than "auto".
    seed : determines the initial weights and all randomness.
    steps : number of steps per epoch.
    """

    def __init__(
        self, build: Callable[[], keras.Model], pixels: np.ndarray, recipe: Recipe, seed: int, steps: int
    ) -> None:
        self.build = build
        self.recipe = recipe
        self.steps = steps
        self.feed, self.network, self.model = self._parts(pixels, seed)
        self.predictor = Predictor(self.feed, self.network)
        self.recalibrator = Recalibrator(self.feed, self.network)
        self.kept: list[np.ndarray] = []

    def _parts(self, pixels: np.ndarray, seed: int) -> tuple[Feed, keras.Model, Learner]:
        backend.prepare(seed, self.recipe.precision)
        network = self.build()
        feed = Feed(pixels, self.recipe)
        model = compiled(feed, network, self.recipe, self.recipe.epochs * self.steps)
        model.optimizer.build(network.trainable_variables)
        return feed, network, model

    def state(self) -> list[keras.Variable]:
        """Return all variables that training changes: weights, moving statistics, optimizer, random states."""
        return [*self.network.variables, *self.model.optimizer.variables]

    def reset(self, seed: int) -> None:
        """Reset to the state of a new Trainer with this seed, bit by bit, without compiling again."""
        _, network, model = self._parts(np.zeros((1, SIDE, SIDE), "uint8"), seed)
        fresh = [*network.variables, *model.optimizer.variables]
        for kept, new in zip(self.state(), fresh, strict=True):
            kept.assign(new)

    def plain(self, epoch: int) -> bool:
        """Return whether an epoch (the first is 0) is without augmentation."""
        return self.recipe.epochs - epoch <= self.recipe.unaugmented_epochs

    def finalise(self, rows: np.ndarray, seed: int, epoch: int) -> None:
        """Prepare the network for prediction: average its weights (EMA) and recalibrate, according to the recipe.

        Parameters
        ----------
        rows : int [n], the training rows, from which the recalibration batches are drawn.
        seed, epoch : determine the drawn rows and their augmentation.
        """
        recipe = self.recipe
        if recipe.ema:
            self.model.optimizer.finalize_variable_values(self.network.trainable_variables)
            for variable in self.network.trainable_variables:  # JAX donates buffers: do not share them with the average
                variable.assign(ops.copy(variable))
        if recipe.recalibrate:
            random = np.random.default_rng((seed, epoch, 1))
            chosen = random.permutation(rows)[: self.steps * recipe.batch_size][: RECALIBRATION * recipe.batch_size]
            drawn = augment.draw(recipe, chosen.size, random, recipe.crop, self.plain(epoch))
            self.recalibrator.measure(chosen.reshape(-1, recipe.batch_size), drawn)

    def train_epoch(self, rows: Rows, seed: int, epoch: int, on_batch: Callable[[float], None]) -> tuple[float, float]:
        """Train one epoch (the first is 0) on complete batches; return its loss and accuracy.

        The rows that do not fill a batch are left out; they differ between epochs.
        """
        recipe = self.recipe
        count = self.steps * recipe.batch_size
        self.model.see(recipe.progressive_side if epoch % (recipe.epochs // max(1, recipe.cycles)) < recipe.progressive_epochs else recipe.crop)
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(rows.train))[:count]
        drawn = augment.draw(recipe, count, random, self.model.side, self.plain(epoch))
        own = augment.own_part(recipe, drawn)
        mates = rows.targets[order].reshape(-1, recipe.batch_size, len(CLASSES))[:, ::-1].reshape(count, -1)
        targets = own * rows.targets[order] + (1 - own) * mates
        data = backend.batches((rows.train[order].astype("int32"), drawn), targets, recipe.batch_size)
        # Keras's `fit` ends by assigning averaged weights to the network; training continues from the weights before.
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: on_batch((batch + 1) / self.steps),
            on_epoch_end=lambda epoch, logs: self.keep(),
        )
        logs = self.model.fit(**data, shuffle=False, verbose=0, callbacks=[callback]).history
        return logs["loss"][0], logs["accuracy"][0]

    def keep(self) -> None:
        """Copy the current variables of the network."""
        self.kept = [ops.convert_to_numpy(variable) for variable in self.network.variables]

    def bring_back(self) -> None:
        """Restore the variables copied by `keep`."""
        for variable, value in zip(self.network.variables, self.kept, strict=True):
            variable.assign(value)

    def rate(self, losses: list[float]) -> float:
        """Set and return the learning rate of the next epoch, from the training losses of all earlier epochs."""
        optimizer = self.model.optimizer
        if self.recipe.schedule in ("constant", "plateau"):
            optimizer.learning_rate = schedules.plateau(self.recipe, losses)
        return float(ops.convert_to_numpy(optimizer.learning_rate))


def fit(
    trainer: Trainer,
    rows: Rows,
    seed: int,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    on_batch: Callable[[float], None] = lambda part: None,
    on_cycle: Callable[[], None] = lambda: None,
) -> Progress:
    """Train and finalise a new or reset `trainer`, resuming from `checkpoint` if it contains a state.

    Parameters
    ----------
    seed : determines the order of the rows and their augmentation.
    on_epoch : called after every epoch.
    on_batch : called after every batch with the finished fraction of the epoch, 0 to 1.

    Raises
    ------
    UserError : if there are fewer training rows than a batch needs, or the loss is not finite.
    """
    recipe = trainer.recipe
    if len(rows.train) < recipe.batch_size:
        raise UserError(f"batch_size {recipe.batch_size} is more than the {len(rows.train)} training rows")
    progress = checkpoint.restore(trainer.state())
    for epoch in range(len(progress.history), recipe.epochs):
        started = time.perf_counter()
        rate = trainer.rate([past["loss"] for past in progress.history])
        loss, accuracy = trainer.train_epoch(rows, seed, epoch, on_batch)
        trainer.finalise(rows.train, seed, epoch)
        scores = validation_scores(trainer.predictor.probabilities(rows.validation), rows.labels)
        if (epoch + 1) % (recipe.epochs // max(1, recipe.cycles)) == 0 and epoch + 1 < recipe.epochs:
            on_cycle()
        trainer.bring_back()
        if not math.isfinite(loss) or (len(rows.labels) and not math.isfinite(scores[0])):
            raise UserError(f"the loss became {loss} in epoch {epoch + 1}; make learning_rate smaller")
        progress.history.append(dict(zip(HISTORY, (epoch + 1, rate, loss, accuracy, *scores), strict=True)))
        progress.seconds += time.perf_counter() - started
        checkpoint.save(trainer.state(), progress)
        on_epoch(progress)
    trainer.finalise(rows.train, seed, recipe.epochs - 1)
    return progress
