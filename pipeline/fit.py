"""The training loop: pixels and labels in, probabilities out. It needs Keras and numpy alone, on any Keras backend."""

import math
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline import augment, backend, files
from pipeline.command import Refusal
from pipeline.competition import CLASSES, SIDE
from pipeline.recipe import Recipe

PREDICTION_BATCH = 128
SCALINGS = {"unit": (1 / 255, 0.0), "symmetric": (2 / 255, -1.0), "raw": (1.0, 0.0)}  # factor, offset
RECALIBRATION = 16  # batches
HISTORY = ("epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy")


class Feed(keras.layers.Layer):
    """Row numbers in, network input out: all pictures lie on the device as uint8, and are varied and scaled there."""

    def __init__(self, pixels: np.ndarray, recipe: Recipe) -> None:
        super().__init__(dtype="float32")
        self.pixels = keras.Variable(pixels[..., None], dtype="uint8", trainable=False, name="pixels")
        self.recipe = recipe
        self.chance = keras.random.SeedGenerator()  # from the global seed: see backend.prepare

    def call(self, rows: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """int32 [n] to float32 [n, 48, 48, 1]."""
        pictures = ops.cast(ops.take(self.pixels, rows, axis=0), "float32")
        if training:
            pictures = augment.vary(pictures, self.recipe, self.chance)
        factor, offset = SCALINGS[self.recipe.scaling]
        return pictures * factor + offset


class Predictor(keras.Model):
    """Row numbers, and whether to mirror each, in; probabilities that sum to 1 out."""

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__()
        self.feed = feed
        self.network = network

    def call(self, batch: tuple[keras.KerasTensor, keras.KerasTensor]) -> keras.KerasTensor:
        """int32 [n] and bool [n] to float32 [n, 7]."""
        rows, mirrored = batch
        pictures = self.feed(rows, training=False)
        pictures = ops.where(mirrored[:, None, None, None], ops.flip(pictures, axis=2), pictures)
        outputs = ops.cast(self.network(pictures, training=False), "float32")
        outputs = ops.maximum(outputs, 1e-7)  # seven sigmoids can all be 0
        return outputs / ops.sum(outputs, axis=1, keepdims=True)

    def views(self, rows: np.ndarray, flip: bool) -> np.ndarray:
        """Probabilities of `rows`: float32 [1, n, 7], or with `flip` [2, n, 7], the second of their mirror images."""
        # Whole batches only: one compiled program, and no odd last batch for oneDNN.
        padded = np.resize(rows, math.ceil(len(rows) / PREDICTION_BATCH) * PREDICTION_BATCH).astype("int32")
        parts = [
            [
                self.predict_on_batch((batch, np.full(len(batch), mirrored)))
                for batch in padded.reshape(-1, PREDICTION_BATCH)
            ]
            for mirrored in ([False, True] if flip else [False])
        ]
        return np.stack([np.concatenate(view)[: len(rows)] for view in parts])

    def probabilities(self, rows: np.ndarray, flip: bool) -> np.ndarray:
        """Probabilities of `rows`: float32 [n, 7], the mean over their `views`."""
        mean: np.ndarray = self.views(rows, flip).mean(axis=0)
        return mean


@dataclass
class Progress:
    """How far a training has come: the finished epochs, and the seconds that they took."""

    history: list[dict[str, float]] = field(default_factory=list)  # one a finished epoch, with HISTORY's keys
    seconds: float = 0.0


class Checkpoint:
    """A training's whole state in one file, replaced after every epoch in a single step.

    Parameters
    ----------
    path : the file. Its name must carry everything that the training depends on, so that no other's state is taken.
        Whatever ends a process or a machine, the last whole epoch stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, variables: list[keras.Variable], progress: Progress) -> None:
        """Write `variables` (weights, optimizer, random states) and `progress`."""
        state: dict[str, Any] = {f"v{i}": ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        table = np.array([[epoch[key] for key in HISTORY] for epoch in progress.history])
        files.replace(self.path, lambda file: np.savez(file, history=table, seconds=progress.seconds, **state))

    def restore(self, variables: list[keras.Variable]) -> Progress:
        """Put the saved state into `variables`; a Progress without epochs where nothing whole was saved."""
        if not self.path.exists():
            return Progress()
        try:
            with np.load(self.path) as file:
                saved = dict(file)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
            print(f"{self.path} is damaged; training starts anew", flush=True)
            return Progress()
        for i, variable in enumerate(variables):
            variable.assign(saved[f"v{i}"])
        history = [dict(zip(HISTORY, map(float, row), strict=True)) for row in saved["history"]]
        return Progress(history, float(saved["seconds"]))


def learning_rate(recipe: Recipe, losses: list[float]) -> float:
    """The rate for the epoch that follows those with these training losses.

    "plateau" is Keras's ReduceLROnPlateau (a fall below 0.0001 is none), on the training loss: the validation rows are
    scored later, and so may not steer the training.
    """
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * len(losses) / recipe.epochs)) / 2
    if recipe.schedule == "triangle":  # the rate in the middle of the epoch
        done = (len(losses) + 0.5) / recipe.epochs
        return recipe.learning_rate * min(done / 0.2, (1 - done) / 0.8)
    rate, best, waited = recipe.learning_rate, math.inf, 0
    if recipe.schedule == "plateau":
        for loss in losses:
            if loss < best - 1e-4:
                best, waited = loss, 0
            else:
                waited += 1
                if waited == recipe.plateau_patience:
                    rate, waited = rate * recipe.plateau_factor, 0
    return rate


def compiled(feed: Feed, network: keras.Model, recipe: Recipe) -> keras.Model:
    """`network` behind `feed`, ready to train on row numbers and one-hot labels."""
    trainer = keras.Sequential([keras.layers.Input((), dtype="int32"), feed, network])
    decay = recipe.weight_decay or None
    optimizers = {
        "adam": lambda: keras.optimizers.Adam(recipe.learning_rate, weight_decay=decay),
        "sgd": lambda: keras.optimizers.SGD(recipe.learning_rate, 0.9, nesterov=True, weight_decay=decay),
    }
    optimizer = optimizers[recipe.optimizer]()
    if decay:  # of the kernels alone: biases and what normalises stay (Jia et al. 2018, arXiv 1807.11205)
        optimizer.exclude_from_weight_decay([v for v in network.trainable_variables if v.name != "kernel"])
    losses = {"categorical": keras.losses.CategoricalCrossentropy, "binary": keras.losses.BinaryCrossentropy}
    trainer.compile(
        optimizer=optimizer,
        loss=losses[recipe.loss](label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        jit_compile=keras.backend.backend() == "jax",  # on a CPU, XLA makes TensorFlow's convolutions 8 times slower
    )
    return trainer


def agreement(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean log-loss and accuracy of float [n, 7] against the true classes int [n]."""
    chosen = probabilities[np.arange(len(labels)), labels].astype("float64")
    return float(-np.log(np.maximum(chosen, 1e-7)).mean()), float((probabilities.argmax(1) == labels).mean())


class Recalibrator(keras.Model):
    """Replaces batch normalisation's moving averages by means over some batches, with the weights as they are now.

    The averages follow the weights slowly; after few steps, or at a high rate, they belong to a network that is no more
    (Wu & Johnson 2021, arXiv 2105.07576, section 3, "PreciseBN").
    """

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__()
        self.feed = feed
        self.network = network
        self.normalisers = [one for one in network.layers if isinstance(one, keras.layers.BatchNormalization)]

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        """int32 [n] to the network's outputs, as in training: pictures varied, and with dropout."""
        return self.network(self.feed(rows, training=True), training=True)

    def measure(self, batches: np.ndarray) -> None:
        """Set the averages to what they are over `batches`, int [k, batch_size]: rows to see."""
        averages = [v for one in self.normalisers for v in (one.moving_mean, one.moving_variance)]
        momenta = [one.momentum for one in self.normalisers]
        for one in self.normalisers:
            one.momentum = 0.0  # while this program is traced: a moving average is then the last batch's
        seen = []
        for rows in batches.astype("int32"):
            self.predict_on_batch(rows)
            seen.append([ops.convert_to_numpy(v) for v in averages])
        for one, momentum in zip(self.normalisers, momenta, strict=True):
            one.momentum = momentum
        for variable, values in zip(averages, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))


class Trainer:
    """A network with all that trains and asks it, compiled once and used for any number of folds and seeds.

    Parameters
    ----------
    build : makes the network. pixels : uint8 [n, 48, 48], all pictures. recipe : with a precision that is not "auto".
    seed : decides the initial weights and all chance.
    """

    def __init__(self, build: Callable[[], keras.Model], pixels: np.ndarray, recipe: Recipe, seed: int) -> None:
        self.build = build
        self.recipe = recipe
        self.feed, self.network, self.model = self._parts(pixels, seed)
        self.predictor = Predictor(self.feed, self.network)
        self.recalibrator = Recalibrator(self.feed, self.network)

    def _parts(self, pixels: np.ndarray, seed: int) -> tuple[Feed, keras.Model, keras.Model]:
        backend.prepare(seed, self.recipe.precision)
        network = self.build()
        feed = Feed(pixels, self.recipe)
        model = compiled(feed, network, self.recipe)
        model.optimizer.build(model.trainable_variables)
        return feed, network, model

    def state(self) -> list[keras.Variable]:
        """Everything that changes in training: weights, moving statistics, optimizer, random states."""
        return state_of(self.feed, self.model)

    def reset(self, seed: int) -> None:
        """Become, to the bit, what a new Trainer with this seed is, without compiling anything again."""
        feed, _, model = self._parts(np.zeros((1, SIDE, SIDE), "uint8"), seed)
        for kept, fresh in zip(self.state(), state_of(feed, model), strict=True):
            kept.assign(fresh)


def state_of(feed: Feed, model: keras.Model) -> list[keras.Variable]:
    """The variables of `model` and its optimizer but for the pictures, which never change."""
    return [v for v in model.variables + model.optimizer.variables if v is not feed.pixels]


def fit(
    trainer: Trainer,
    train_rows: np.ndarray,
    train_labels: np.ndarray,
    validation_rows: np.ndarray,
    validation_labels: np.ndarray,
    seed: int,
    checkpoint: Checkpoint,
    report: Callable[[Progress], None] = lambda progress: None,
    step: Callable[[float], None] = lambda part: None,
) -> Progress:
    """Train a `trainer` that is new or was reset, going on from `checkpoint` if it holds a state.

    The validation rows are only watched: they steer neither the rate nor the choice of an epoch.

    Parameters
    ----------
    train_rows, validation_rows : int [m], rows of the trainer's pictures; the labels are int [m], classes 0 to 6.
    seed : fixes the order of the rows; the network and the augmentation carry their own.
    report : called after every epoch. step : called after every batch with the finished part of the epoch, 0 to 1.

    Raises
    ------
    Refusal : where there are fewer training rows than a batch has, or the loss is not finite any more.
    """
    recipe, model, predictor = trainer.recipe, trainer.model, trainer.predictor
    if len(train_rows) < recipe.batch_size:
        raise Refusal(
            f"batch_size {recipe.batch_size} is more than the {len(train_rows)} training rows; make it smaller"
        )
    state = trainer.state()
    progress = checkpoint.restore(state)
    targets = np.eye(len(CLASSES), dtype="float32")[train_labels]
    # Whole batches only, here too: the rows that are left over are others in every epoch.
    batches = len(train_rows) // recipe.batch_size
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: step((batch + 1) / batches))

    for epoch in range(len(progress.history), recipe.epochs):
        started = time.perf_counter()
        rate = learning_rate(recipe, [past["loss"] for past in progress.history])
        model.optimizer.learning_rate = rate
        order = np.random.default_rng((seed, epoch)).permutation(len(train_rows))[: batches * recipe.batch_size]
        logs = model.fit(
            train_rows[order].astype("int32"), targets[order],
            batch_size=recipe.batch_size, shuffle=False, verbose=0, callbacks=[callback],
        ).history  # fmt: skip
        loss, accuracy = logs["loss"][0], logs["accuracy"][0]
        if recipe.recalibrate:
            trainer.recalibrator.measure(train_rows[order].reshape(batches, -1)[:RECALIBRATION])
        seen = agreement(predictor.probabilities(validation_rows, flip=False), validation_labels)
        if not math.isfinite(loss + seen[0]):
            raise Refusal(f"the loss became {loss} in epoch {epoch + 1}; make learning_rate smaller")
        progress.history.append(dict(zip(HISTORY, (epoch + 1, rate, loss, accuracy, *seen), strict=True)))
        progress.seconds += time.perf_counter() - started
        checkpoint.save(state, progress)
        report(progress)
    return progress
