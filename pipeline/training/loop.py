"""The training loop: pixels and labels in, probabilities out. It needs Keras and numpy alone, on any Keras backend."""

import math
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline import files
from pipeline.command import Refusal
from pipeline.competition import CLASSES, SIDE
from pipeline.recipe import Recipe
from pipeline.training import augment, backend

PREDICTION_BATCH = 128
SCALINGS = {"unit": (1 / 255, 0.0), "symmetric": (2 / 255, -1.0), "raw": (1.0, 0.0)}  # factor, offset
RECALIBRATION = 16  # batches
HISTORY = ("epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy")


class Feed(keras.layers.Layer):
    """Row numbers and what was drawn for each in, network input out: all pictures lie on the device, as uint8."""

    def __init__(self, pixels: np.ndarray, recipe: Recipe) -> None:
        super().__init__(dtype="float32")
        pixels = augment.contrast(pixels, recipe.contrast)
        self.pixels = keras.Variable(pixels[..., None], dtype="uint8", trainable=False, name="pixels")
        self.recipe = recipe

    def varied(self, batch: tuple[keras.KerasTensor, keras.KerasTensor], side: int) -> keras.KerasTensor:
        """Rows int32 [n] and drawn float32 [n, WIDTH] to float32 [n, side, side, 1]."""
        return self._scaled(augment.vary(self._pictures(batch[0]), batch[1], self.recipe, side))

    def shown(self, batch: tuple[keras.KerasTensor, keras.KerasTensor]) -> keras.KerasTensor:
        """Rows int32 [n] and maps float32 [n, 8] to float32 [n, crop, crop, 1]."""
        return self._scaled(augment.show(self._pictures(batch[0]), batch[1], self.recipe.crop))

    def _pictures(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        return ops.cast(ops.take(self.pixels, rows, axis=0), "float32")

    def _scaled(self, pictures: keras.KerasTensor) -> keras.KerasTensor:
        factor, offset = SCALINGS[self.recipe.scaling]
        return pictures * factor + offset


class Learner(keras.Model):
    """The network behind its feed, as it trains: (rows int32 [n], drawn float32 [n, WIDTH]) in, its outputs out."""

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__()
        self.feed = feed
        self.network = network
        self.built = True  # of parts that are
        self.side = feed.recipe.crop
        self.train_function: Any = None
        self.programs: dict[int, Any] = {}  # compiled, one a side

    def call(self, batch: tuple[keras.KerasTensor, keras.KerasTensor], training: bool = False) -> keras.KerasTensor:
        """To float32 [n, 7]."""
        return self.network(self.feed.varied(batch, self.side), training=training)

    def see(self, side: int) -> None:
        """Train on pictures so many pixels across from now on."""
        self.programs[self.side] = self.train_function
        self.side = side
        self.train_function = self.programs.get(side)


class Predictor(keras.Model):
    """Row numbers, and a map for each, in; probabilities that sum to 1 out."""

    def __init__(self, feed: Feed, network: keras.Model) -> None:
        super().__init__()
        self.feed = feed
        self.network = network
        self.built = True  # of parts that are

    def call(self, batch: tuple[keras.KerasTensor, keras.KerasTensor]) -> keras.KerasTensor:
        """int32 [n] and float32 [n, 8] to float32 [n, 7]."""
        outputs = ops.cast(self.network(self.feed.shown(batch), training=False), "float32")
        outputs = ops.maximum(outputs, 1e-7)  # seven sigmoids can all be 0
        return outputs / ops.sum(outputs, axis=1, keepdims=True)

    def views(self, rows: np.ndarray, views: list[np.ndarray]) -> np.ndarray:
        """Probabilities of `rows` under each of `augment.views`: float32 [views, n, 7]."""
        if not len(rows):
            return np.zeros((len(views), 0, len(CLASSES)), "float32")
        # Whole batches only: one compiled program, and no odd last batch for oneDNN.
        padded = np.resize(rows, math.ceil(len(rows) / PREDICTION_BATCH) * PREDICTION_BATCH).astype("int32")
        parts = [
            [
                self.predict_on_batch((batch, np.tile(view, (len(batch), 1))))
                for batch in padded.reshape(-1, PREDICTION_BATCH)
            ]
            for view in views
        ]
        return np.stack([np.concatenate(view)[: len(rows)] for view in parts])

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities of `rows` as they are: float32 [n, 7]."""
        plain: np.ndarray = self.views(rows, augment.views(self.feed.recipe)[:1])[0]
        return plain


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


@keras.saving.register_keras_serializable("pipeline")
class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of every step under "cosine" and "linear": a climb over `warmup`, then down to zero at the last step.

    Parameters
    ----------
    steps : of the whole training.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps = steps

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """The rate of `step`, from 0 up."""
        done = (ops.cast(step, "float32") + 0.5) / self.steps
        warmup = self.recipe.warmup
        left = ops.clip((1 - done) / (1 - warmup), 0, 1)
        if self.recipe.schedule == "cosine":
            left = (1 - ops.cos(math.pi * left)) / 2
        return self.recipe.learning_rate * (ops.minimum(left, done / warmup) if warmup else left)


class Muon(keras.optimizers.Muon):
    """Momentum whose steps are made orthogonal, kernel by kernel, so that no direction is learned slowly.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon); a step is as long as one of AdamW (Liu et al. 2025, arXiv
    2502.16982). Keras leaves convolutions to AdamW; here a kernel is the matrix of its taps and input
    channels by its output channels. What is no kernel, and the last layer, learns by AdamW at a tenth of the rate.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(adam_lr_ratio=0.1, adam_weight_decay=options["weight_decay"], **options)

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return not variable.path.endswith("kernel") or variable.shape[-1] == len(CLASSES) or len(variable.shape) == 3

    def _muon_update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, lr: keras.KerasTensor, m: keras.Variable
    ) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        ahead = ops.reshape(ops.add(gradient, self.momentum * m), (-1, variable.shape[-1]))
        step = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(ahead, self.ns_steps))
        self.assign_sub(variable, ops.reshape(step, variable.shape))


def plateau(recipe: Recipe, losses: list[float]) -> float:
    """The rate for the epoch that follows those with these training losses.

    "plateau" is Keras's ReduceLROnPlateau (a fall below 0.0001 is none), on the training loss: the validation rows are
    scored later, and so may not steer the training. Under "constant" the losses do not matter.
    """
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


def compiled(feed: Feed, network: keras.Model, recipe: Recipe, steps: int) -> Learner:
    """`network` behind `feed`, ready to train for so many steps."""
    learner = Learner(feed, network)
    stepwise = recipe.schedule in ("cosine", "linear")
    shared: dict[str, Any] = {
        "learning_rate": Rate(recipe, steps) if stepwise else recipe.learning_rate,
        "weight_decay": recipe.weight_decay or None,
        "use_ema": recipe.average > 0,
        "ema_momentum": recipe.average,
    }
    optimizers: dict[str, Callable[..., keras.Optimizer]] = {
        "adam": keras.optimizers.Adam,
        "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
        "muon": Muon,
    }
    optimizer = optimizers[recipe.optimizer](**shared)
    if recipe.weight_decay:  # of the kernels alone: biases and what normalises stay (Jia et al. 2018, arXiv 1807.11205)
        optimizer.exclude_from_weight_decay([v for v in network.trainable_variables if not v.name.endswith("kernel")])
    losses = {"categorical": keras.losses.CategoricalCrossentropy, "binary": keras.losses.BinaryCrossentropy}
    learner.compile(
        optimizer=optimizer,
        loss=losses[recipe.loss](label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        jit_compile=keras.backend.backend() == "jax",  # on a CPU, XLA makes TensorFlow's convolutions 8 times slower
    )
    return learner


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
        self.built = True  # of parts that are
        parts = network._flatten_layers()  # those inside of other layers, too
        self.normalisers = [one for one in parts if isinstance(one, keras.layers.BatchNormalization)]

    def call(self, batch: tuple[keras.KerasTensor, keras.KerasTensor]) -> keras.KerasTensor:
        """As a Learner's in training: pictures varied, and with dropout."""
        return self.network(self.feed.varied(batch, self.feed.recipe.crop), training=True)

    def measure(self, batches: np.ndarray, drawn: np.ndarray) -> None:
        """Set the averages to what they are over `batches`, int [k, batch_size], varied as `drawn`."""
        averages = [v for one in self.normalisers for v in (one.moving_mean, one.moving_variance)]
        momenta = [one.momentum for one in self.normalisers]
        for one in self.normalisers:
            one.momentum = 0.0  # while this program is traced: a moving average is then the last batch's
        seen = []
        for rows, how in zip(batches.astype("int32"), drawn.reshape(*batches.shape, -1), strict=True):
            self.predict_on_batch((rows, how))
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
    seed : decides the initial weights and all chance. steps : in an epoch.
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

    def _parts(self, pixels: np.ndarray, seed: int) -> tuple[Feed, keras.Model, Learner]:
        backend.prepare(seed, self.recipe.precision)
        network = self.build()
        feed = Feed(pixels, self.recipe)
        model = compiled(feed, network, self.recipe, self.recipe.epochs * self.steps)
        model.optimizer.build(network.trainable_variables)
        return feed, network, model

    def state(self) -> list[keras.Variable]:
        """Everything that changes in training: weights, moving statistics, optimizer, random states."""
        return state_of(self.network, self.model)

    def reset(self, seed: int) -> None:
        """Become, to the bit, what a new Trainer with this seed is, without compiling anything again."""
        _, network, model = self._parts(np.zeros((1, SIDE, SIDE), "uint8"), seed)
        for kept, fresh in zip(self.state(), state_of(network, model), strict=True):
            kept.assign(fresh)

    def settle(self, rows: np.ndarray, chance: np.random.Generator, plain: bool) -> None:
        """Turn the network into the one to be judged: averaged weights, measured statistics, as the recipe wants it.

        Parameters
        ----------
        rows : int [n], training rows to measure by. chance : varies them. plain : as in `augment.draw`.
        """
        if self.recipe.average:
            self.model.optimizer.finalize_variable_values(self.network.trainable_variables)
            for variable in self.network.trainable_variables:  # JAX gives memory away: theirs must not be the average's
                variable.assign(ops.copy(variable))
        if self.recipe.recalibrate:
            rows = rows[: RECALIBRATION * self.recipe.batch_size].reshape(-1, self.recipe.batch_size)
            self.recalibrator.measure(rows, augment.draw(self.recipe, rows.size, chance, self.recipe.crop, plain))


def state_of(network: keras.Model, model: Learner) -> list[keras.Variable]:
    """The variables of `network` and of its optimizer; the pictures never change."""
    return [*network.variables, *model.optimizer.variables]


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
    """Train a `trainer` that is new or was reset, going on from `checkpoint` if it holds a state, and settle it.

    The validation rows are only watched: they steer neither the rate nor the choice of an epoch.

    Parameters
    ----------
    train_rows, validation_rows : int [m], rows of the trainer's pictures; there may be no validation rows.
    train_labels : int [m], classes 0 to 6; or float [m, 7], probabilities. validation_labels : int [m].
    seed : fixes the order of the rows; the network and the augmentation carry their own.
    report : called after every epoch. step : called after every batch with the finished part of the epoch, 0 to 1.

    Raises
    ------
    Refusal : where there are fewer training rows than a batch has, or the loss is not finite any more.
    """
    recipe, model, network = trainer.recipe, trainer.model, trainer.network
    if len(train_rows) < recipe.batch_size:
        raise Refusal(
            f"batch_size {recipe.batch_size} is more than the {len(train_rows)} training rows; make it smaller"
        )
    state = trainer.state()
    progress = checkpoint.restore(state)
    targets = train_labels if train_labels.ndim == 2 else np.eye(len(CLASSES), dtype="float32")[train_labels]
    # Whole batches only, here too: the rows that are left over are others in every epoch.
    count = trainer.steps * recipe.batch_size
    before: list[np.ndarray] = []

    def keep(epoch: int, logs: dict[str, Any]) -> None:
        before[:] = [ops.convert_to_numpy(variable) for variable in network.variables]

    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: step((batch + 1) / trainer.steps),
        on_epoch_end=keep,  # then Keras's `fit` ends by putting averaged weights into the network
    )

    def settle(epoch: int) -> None:
        chance = np.random.default_rng((seed, epoch, 1))
        trainer.settle(
            chance.permutation(train_rows)[:count], chance, plain=recipe.epochs - epoch <= recipe.plain_epochs
        )

    for epoch in range(len(progress.history), recipe.epochs):
        started = time.perf_counter()
        if recipe.schedule in ("constant", "plateau"):
            model.optimizer.learning_rate = plateau(recipe, [past["loss"] for past in progress.history])
        rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))
        model.see(recipe.early_side if epoch < recipe.early_epochs else recipe.crop)
        chance = np.random.default_rng((seed, epoch))
        order = chance.permutation(len(train_rows))[:count]
        drawn = augment.draw(recipe, count, chance, model.side, plain=recipe.epochs - epoch <= recipe.plain_epochs)
        kept, mixed = augment.own(drawn), targets[order].reshape(-1, recipe.batch_size, len(CLASSES))
        answers = kept * targets[order] + (1 - kept) * mixed[:, ::-1].reshape(count, -1)
        inputs = (train_rows[order].astype("int32"), drawn)
        logs = model.fit(
            **backend.batches(inputs, answers, recipe.batch_size), shuffle=False, verbose=0, callbacks=[callback]
        ).history
        loss, accuracy = logs["loss"][0], logs["accuracy"][0]
        settle(epoch)
        seen = (math.nan, math.nan)
        if len(validation_rows):
            seen = agreement(trainer.predictor.probabilities(validation_rows), validation_labels)
        for variable, value in zip(network.variables, before, strict=True):
            variable.assign(value)  # training goes on from where it was
        if not math.isfinite(loss) or (len(validation_rows) and not math.isfinite(seen[0])):
            raise Refusal(f"the loss became {loss} in epoch {epoch + 1}; make learning_rate smaller")
        progress.history.append(dict(zip(HISTORY, (epoch + 1, rate, loss, accuracy, *seen), strict=True)))
        progress.seconds += time.perf_counter() - started
        checkpoint.save(state, progress)
        report(progress)
    settle(recipe.epochs - 1)
    return progress
