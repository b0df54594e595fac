"""The training loop: rates, scalings, probabilities, errors and reproducible bytes."""

import functools
import random
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from keras import layers
from settings import python, refuses
from sklearn.metrics import accuracy_score, log_loss

from pipeline.config import Recipe
from pipeline.errors import UserError
from pipeline.training import augment, backend, contrasts, loop, schedules
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.models import Feed, Predictor
from pipeline.training.optimizers.muon import Muon

pytestmark = pytest.mark.usefixtures("started")
RECIPE = {
    "epochs": 3, "batch_size": 8, "learning_rate": 0.01, "plateau_factor": 0.5, "plateau_patience": 1,
    "progressive_side": 32, "tta_flip": False, "recalibrate": False, "precision": "float32",
}  # fmt: skip
VARIED = {
    "scaling": "symmetric", "contrast": "local", "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "flip": True,
    "random_erasing": 0.3, "mixup": 0.3, "cutmix": 0.3, "unaugmented_epochs": 1,
    "label_smoothing": 0.1, "weight_decay": 0.001, "ema": 0.8, "recalibrate": True,
    "tta_flip": True, "tta_shift": 2, "tta_zoom": 0.1, "schedule": "plateau",
}  # fmt: skip
# For networks that accept pictures of any side
ANYWHERE = {"crop": 40, "progressive_epochs": 1, "progressive_side": 32}
ROWS = np.arange(64)
LABELS = ROWS % 7


def recipe(**changes):
    return Recipe.model_validate(RECIPE | changes)


def faces(count=64):
    """Return uint8 [count, 48, 48]: the height of a bright bar is the class (row % 7); left and right differ."""
    pixels = np.random.default_rng(0).integers(0, 100, (count, 48, 48))
    for i, picture in enumerate(pixels):
        top = 2 + 6 * (i % 7)
        picture[top : top + 5, :30] += 150
    return pixels.astype("uint8")


def tiny(head="softmax"):
    """Return a small nested network with every kind of state: weights, moving statistics, random numbers (dropout)."""
    inner = keras.Sequential([layers.AveragePooling2D(4), layers.Flatten(), layers.BatchNormalization()])
    hidden = [layers.Dense(16, activation="relu"), layers.Dropout(0.1)]
    return keras.Sequential([layers.Input((48, 48, 1)), inner, *hidden, layers.Dense(7, activation=head)])


def anywhere():
    """Return a small network for pictures of any side, with every kind of kernel."""
    body = [layers.Conv2D(8, 5, strides=3), layers.BatchNormalization(), layers.SeparableConv2D(8, 3)]
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.1), layers.Dense(7, activation="softmax")]
    return keras.Sequential([layers.Input((None, None, 1)), *body, *head])


def new_trainer(settings, build=tiny, seed=1, rows=ROWS[:48]):
    """Return a new trainer for epochs over `rows`."""
    return loop.Trainer(build, faces(), settings, seed, len(rows) // settings.batch_size)


def train(path, settings, build=tiny, seed=1, rows=ROWS[:48], monitored=ROWS[48:], trainer=None, **more):
    """Train as a cell is trained, with 48 of 64 faces; 16 are monitored. Return the predictor and the progress."""
    trainer = trainer or new_trainer(settings, build, seed, rows)
    data = loop.Rows(rows, loop.one_hot(LABELS[rows]), monitored, LABELS[monitored])
    return trainer.predictor, loop.fit(trainer, data, seed, Checkpoint(path), **more)


def observe(path, settings, see, build=tiny):
    """Train, and return the trainer, its progress, and the value of `see(trainer)` after each step."""
    trainer, seen = new_trainer(settings, build), []
    _, progress = train(path, settings, trainer=trainer, on_batch=lambda part: seen.append(see(trainer)))
    return trainer, progress, seen


def outcome(trained):
    """Return all results of a training except its duration, as bytes and exact numbers."""
    predictor, progress = trained
    return {
        "weights": [weight.tobytes() for weight in predictor.network.get_weights()],
        "history": progress.history,
        "probabilities": predictor.views(ROWS, augment.tta_maps(predictor.feed.recipe)).tobytes(),
    }


def numbers(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_muon_updates_convolutions_orthogonally_and_the_rest_as_adam():
    kernel, last, shift = (keras.Variable(np.zeros(shape, "float32")) for shape in ((3, 3, 4, 5), (5, 7), (5,)))
    for variable, path in ((kernel, "a/kernel"), (last, "b/kernel"), (shift, "b/bias")):
        variable._path = path
    optimizer = Muon(learning_rate=0.5, weight_decay=None)
    optimizer.build([kernel, last, shift])
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=variable.shape).astype("float32") for variable in (kernel, last, shift)]
    optimizer.apply(gradients, [kernel, last, shift])
    step = keras.ops.convert_to_numpy(kernel).reshape(36, 5)
    sizes = np.linalg.svd(step, compute_uv=False) / (0.5 * 0.2 * 6)  # rate, RMS, square root of the longer side
    assert ((sizes > 0.6) & (sizes < 1.3)).all()
    assert np.sum(step * gradients[0].reshape(36, 5)) < 0
    for variable, gradient in ((last, gradients[1]), (shift, gradients[2])):
        np.testing.assert_allclose(variable, -0.05 * np.sign(gradient), rtol=1e-3)


# Rates


@pytest.mark.parametrize("losses", [
    1 - 0.00009 * np.arange(8), 1 - 0.00011 * np.arange(8), np.random.default_rng(0).normal(2, 1, 40),
], ids=["falling too little", "falling just enough", "noise"])  # fmt: skip
@pytest.mark.parametrize("patience", [1, 3])
def test_plateau_is_keras_reduce_lr_on_plateau(losses, patience):
    settings = recipe(schedule="plateau", learning_rate=0.1, plateau_factor=0.9, plateau_patience=patience)
    model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.9, patience=patience)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        wanted = float(model.optimizer.learning_rate)
        assert schedules.plateau(settings, losses[: epoch + 1]) == pytest.approx(wanted, rel=1e-5)


def rates(steps, **changes):
    """Return the rate of each of `steps` steps, and of one more."""
    rate = schedules.Stepwise(recipe(**changes), steps)
    return np.array([float(rate(step)) for step in range(steps + 1)])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_rates_increase_linearly_and_then_decrease_to_zero(schedule, warmup):
    result = rates(10, schedule=schedule, learning_rate=0.8, warmup=warmup)
    first = round(10 * warmup)
    np.testing.assert_allclose(result[:first], [0.2, 0.6][:first], rtol=1e-5)
    left = np.append(np.arange(10 - first, 0, -1) - 0.5, 0) / (10 - first)  # at the middle of each step
    expected = left if schedule == "linear" else (1 - np.cos(np.pi * left)) / 2
    np.testing.assert_allclose(result[first:], 0.8 * expected, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_weight_decay_affects_only_kernels_at_the_rate_of_each_step(optimizer):
    """Without gradients, a step multiplies a kernel by 1 - weight decay * rate."""
    schedule = {"schedule": "linear", "warmup": 0.2, "learning_rate": 0.8}
    settings, network = recipe(optimizer=optimizer, weight_decay=0.1, **schedule), anywhere()
    optimizer = loop.compiled(Feed(faces(), settings), network, settings, 5).optimizer
    for variable in network.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    zeros = [keras.ops.zeros_like(variable) for variable in network.trainable_variables]
    left = 1.0
    for rate in rates(5, **schedule)[:5]:
        optimizer.apply(zeros, network.trainable_variables)
        left *= 1 - 0.1 * rate
        for variable in network.trainable_variables:
            np.testing.assert_allclose(variable, left if "kernel" in variable.name else 1, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["plateau", "linear"])
def test_history_contains_the_rate_of_every_epoch(schedule, tmp_path):
    changes = {"schedule": schedule, "learning_rate": 0.5, "warmup": 0.1, "epochs": 4}  # too high: the loss jumps
    settings = recipe(**changes)
    _, progress, used = observe(tmp_path / "c", settings, lambda trainer: float(trainer.model.optimizer.learning_rate))
    losses = [epoch["loss"] for epoch in progress.history]
    expected = [schedules.plateau(settings, losses[:epoch]) for epoch in range(4)]
    assert (len(set(expected)) > 1) == (schedule == "plateau")
    next_steps = np.repeat(expected, 6)
    if schedule == "linear":
        of_steps = rates(24, **changes)
        expected, next_steps = of_steps[:24:6], of_steps[1:]
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in progress.history], expected, rtol=1e-5)
    np.testing.assert_allclose(used, next_steps, rtol=1e-5, atol=1e-7)


# Fused batch normalisation


def normalised(call):
    """Return outputs, gradients and moving averages of a layer with the function `call`, for random inputs."""
    tf = pytest.importorskip("tensorflow")
    layer, rng = layers.BatchNormalization(momentum=0.9), np.random.default_rng(0)
    layer.build((None, 5, 6, 3))
    layer.gamma.assign(rng.normal(1, 0.2, 3))
    layer.beta.assign(rng.normal(0, 0.2, 3))
    inputs = tf.constant(rng.normal(2, 3, (4, 5, 6, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = call(layer, inputs, training=True)
        loss = tf.reduce_sum(outputs * rng.normal(0, 1, (4, 5, 6, 3)).astype("float32"))
    gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
    return [np.asarray(part) for part in (outputs, *gradients, layer.moving_mean, layer.moving_variance)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
def test_fused_normalisation_equals_keras_normalisation():
    fused = layers.BatchNormalization.call
    assert fused.fused
    backend.start("tensorflow")
    assert layers.BatchNormalization.call is fused  # not wrapped twice
    composed = fused.__closure__[0].cell_contents
    for ours, expected in zip(normalised(fused), normalised(composed), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


# Feed and Predictor


@pytest.mark.parametrize(("scaling", "factor", "offset"), [
    ("unit", 1 / 255, 0), ("symmetric", 2 / 255, -1), ("raw", 1, 0),
])  # fmt: skip
def test_contrast_and_scale_are_normalised_in_prediction_and_in_training(scaling, factor, offset):
    settings = recipe(**VARIED | {"scaling": scaling, "contrast": "histogram", "crop": 40})
    feed, rows = Feed(faces(), settings), ROWS[::-1].astype("int32")
    pixels = contrasts.normalise(faces()[::-1], "histogram")[..., None].astype("float32")
    shown = feed.shown((rows, np.tile(augment.tta_maps(settings)[0], (64, 1))))
    np.testing.assert_allclose(shown, factor * pixels[:, 4:44, 4:44] + offset, rtol=1e-5, atol=1e-5)
    drawn = augment.draw(settings, 64, np.random.default_rng(0), 36)
    varied = np.asarray(augment.vary(pixels, drawn, settings, 36))
    np.testing.assert_allclose(feed.varied((rows, drawn), 36), factor * varied + offset, rtol=1e-5, atol=1e-5)


def test_sigmoids_near_zero_are_normalised_without_division_by_zero():
    network = tiny("sigmoid")
    network.layers[-1].set_weights([np.zeros((16, 7)), np.full(7, -1e4)])
    probabilities = Predictor(Feed(faces(), recipe()), network).probabilities(ROWS)
    np.testing.assert_allclose(probabilities, np.full((64, 7), 1 / 7), atol=1e-5)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_views_are_predictions_for_each_map_and_any_number_of_rows(head):
    network, pixels, maps = tiny(head), faces(300), augment.tta_maps(recipe(tta_flip=True))
    outputs = np.stack([network(view[..., None] / np.float32(255)) for view in (pixels, pixels[:, :, ::-1])])
    expected = outputs / outputs.sum(axis=2, keepdims=True)
    assert (abs(expected[0] - expected[1]) > 1e-4).any(), "the views must differ"
    predictor, shuffled = Predictor(Feed(pixels, recipe()), network), np.random.default_rng(1).permutation(300)
    for count in (1, 128, 129):
        rows = shuffled[:count]
        views = predictor.views(rows, maps)
        np.testing.assert_allclose(views, expected[:, rows], atol=1e-5)
        np.testing.assert_array_equal(predictor.probabilities(rows), views[0])


# fit


@pytest.mark.parametrize(("loss", "head", "optimizer", "rate"), [
    ("categorical", "softmax", "adam", 0.01), ("binary", "sigmoid", "sgd", 0.05),
])  # fmt: skip
def test_training_learns_separable_pictures(loss, head, optimizer, rate, tmp_path):
    settings = recipe(loss=loss, optimizer=optimizer, epochs=12, learning_rate=rate)
    _, progress = train(tmp_path / "c.npz", settings, lambda: tiny(head), rows=ROWS)
    last = progress.history[-1]
    assert last["loss"] < progress.history[0]["loss"] / 4
    assert min(last["val_accuracy"], last["accuracy"]) > 0.9


def test_incomplete_batch_is_left_out_and_one_larger_than_the_rows_is_refused(tmp_path):
    parts = []
    train(tmp_path / "c.npz", recipe(batch_size=20, epochs=2), on_batch=parts.append)
    assert parts == [0.5, 1.0, 0.5, 1.0]
    with pytest.raises(UserError, match=r"batch_size 49 .* 48 training rows"):
        train(tmp_path / "d.npz", recipe(batch_size=49, schedule="linear", recalibrate=True))


def test_infinite_loss_is_refused_and_not_saved(tmp_path):
    steep = recipe().model_copy(update={"learning_rate": 1e30})  # more than params.yaml allows
    refuses(r"nan in epoch 1.*learning_rate", train, tmp_path / "c.npz", steep)
    assert not (tmp_path / "c.npz").exists()


@pytest.mark.parametrize(("build", "changes", "callback", "count"), [
    (tiny, {"optimizer": "muon"}, "on_epoch", 1),  # stops after the first epoch
    (anywhere, ANYWHERE | {"optimizer": "sgd", "schedule": "linear", "warmup": 0.3}, "on_batch", 9),  # in the second
])  # fmt: skip
def test_resumed_training_equals_an_uninterrupted_one_and_is_not_repeated(build, changes, callback, count, tmp_path):
    settings, path = recipe(**VARIED | changes), tmp_path / "c.npz"
    uninterrupted = outcome(train(tmp_path / "uninterrupted.npz", settings, build))
    interruption = Mock(side_effect=[None] * (count - 1) + [KeyboardInterrupt])
    with pytest.raises(KeyboardInterrupt):
        train(path, settings, build, **{callback: interruption})
    epochs = []
    resumed = train(path, settings, build, on_epoch=lambda progress: epochs.append(len(progress.history)))
    assert epochs == [2, 3]
    finished = train(path, settings, build, on_batch=lambda part: pytest.fail("a batch was trained"))
    assert outcome(resumed) == outcome(finished) == uninterrupted
    assert finished[1].seconds == resumed[1].seconds > 0
    path.write_bytes(path.read_bytes()[:-100])
    assert outcome(train(path, settings, build)) == uninterrupted, "from scratch, as the checkpoint is damaged"


# Training data


def test_targets_are_mixed_as_the_pictures_are(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "batches", batches := Mock(wraps=backend.batches))
    rows = ROWS[:61]  # 56 in complete batches
    settings = recipe(mixup=0.4, cutmix=0.5, flip=True, epochs=2)
    train(tmp_path / "c.npz", settings, rows=rows)
    epochs = [(*call.args[0], call.args[1]) for call in batches.call_args_list]
    assert len(epochs) == 2
    for order, drawn, targets in epochs:
        assert len(np.unique(order)) == len(order) == 56
        assert np.isin(order, rows).all()
        own = augment.own_part(settings, drawn)
        assert len(np.unique(own)) > 20
        partners = order.reshape(-1, 8)[:, ::-1].ravel()
        expected = own * np.eye(7)[LABELS[order]] + (1 - own) * np.eye(7)[LABELS[partners]]
        np.testing.assert_allclose(targets, expected, atol=1e-6)
    for first, second in list(zip(*epochs, strict=True))[:2]:
        assert (first != second).any(), "each epoch has its own order and augmentation"


def test_epochs_have_their_side_and_augmentation_and_each_side_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(augment, "draw", draw := Mock(wraps=augment.draw))
    monkeypatch.setattr(augment, "vary", vary := Mock(wraps=augment.vary))  # called while a program is traced
    settings = recipe(**VARIED | ANYWHERE)
    trainer, _, sides = observe(tmp_path / "1.npz", settings, lambda trainer: trainer.model.side, anywhere)
    # Three epochs of training and recalibration, and the final recalibration, which always has the side of prediction
    draws = [call.args[3:] for call in draw.call_args_list]
    assert draws == [(32, False), (40, False), (40, False), (40, False), (40, True), (40, True), (40, True)]
    assert sides == [32] * 6 + [40] * 12
    assert {call.args[3] for call in vary.call_args_list} == {32, 40}
    traced = vary.call_count
    trainer.reset(2)
    train(tmp_path / "2.npz", settings, seed=2, trainer=trainer)
    assert vary.call_count == traced


# Averaged weights and recalibration


def test_averaging_and_recalibration_affect_prediction_but_not_training(tmp_path):
    changes = {"optimizer": "muon", "flip": True, "shift": 0.1}
    (_, _, plain), (trainer, _, averaged) = (
        observe(tmp_path / f"{len(more)}.npz", recipe(**changes, **more), lambda one: numbers(one.network.variables))
        for more in ({}, {"ema": 0.8, "recalibrate": True})
    )
    assert len(averaged) == 18
    np.testing.assert_equal(plain, averaged)
    network = trainer.network
    for k in (k for k, variable in enumerate(network.variables) if variable.trainable):
        mean = functools.reduce(lambda mean, state: 0.8 * mean + 0.2 * state, [state[k] for state in averaged])
        np.testing.assert_allclose(network.variables[k], mean, rtol=1e-4, atol=1e-6)
        assert abs(mean - averaged[-1][k]).max() > 1e-3, "the last weights differ"


def test_averaged_weights_do_not_share_buffers_with_jax(stand):
    """JAX donates the buffers of the weights to the next step, which would destroy an average that shares them."""
    code = """
from pathlib import Path
from pipeline.training import backend
backend.start("jax")
import test_loop
_, progress = test_loop.train(Path("c.npz"), test_loop.recipe(ema=0.8, epochs=2))
assert len(progress.history) == 2
test_loop.test_recalibration_averages_the_statistics_of_batches_and_keeps_the_weights()
"""
    python(code, KERAS_BACKEND="jax")


def test_every_epoch_is_evaluated_as_if_it_were_the_last(tmp_path):
    changes = VARIED | {"unaugmented_epochs": 0, "schedule": "constant"}
    trained = {epochs: train(tmp_path / f"{epochs}.npz", recipe(**changes, epochs=epochs)) for epochs in (1, 3)}
    for epochs, (predictor, progress) in trained.items():
        last = progress.history[-1]
        probabilities = predictor.probabilities(ROWS[48:])
        assert last["val_loss"] == pytest.approx(log_loss(LABELS[48:], probabilities, labels=range(7)), rel=1e-5)
        assert last["val_accuracy"] == accuracy_score(LABELS[48:], probabilities.argmax(1))
        assert last == trained[3][1].history[epochs - 1]


def test_recalibration_averages_the_statistics_of_batches_and_keeps_the_weights():
    settings = recipe(shift=0.1)
    trainer = new_trainer(settings)
    before = numbers(trainer.network.trainable_weights)
    batches = ROWS[:48][::-1].reshape(6, 8)
    drawn = augment.draw(settings, 48, np.random.default_rng(3), 48)
    trainer.recalibrator.measure(batches, drawn)
    pictures = augment.vary(faces()[batches.ravel(), :, :, None].astype("float32"), drawn, settings, 48)
    pooled = np.reshape(pictures / 255, (6, 8, 12, 4, 12, 4)).mean(axis=(3, 5)).reshape(6, 8, -1)
    normaliser = trainer.network.layers[0].layers[2]
    np.testing.assert_allclose(normaliser.moving_mean, pooled.mean(axis=1).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(normaliser.moving_variance, pooled.var(axis=1).mean(axis=0), rtol=1e-3)
    assert normaliser.momentum == 0.99
    np.testing.assert_equal(numbers(trainer.network.trainable_weights), before)


def test_reset_trainer_equals_a_new_one_and_seeds_differ(tmp_path):
    settings = recipe(**VARIED | ANYWHERE | {"schedule": "linear", "precision": "bfloat16", "epochs": 2})
    new = outcome(train(tmp_path / "new.npz", settings, anywhere))
    trainer = new_trainer(settings, anywhere, seed=2)
    other = outcome(train(tmp_path / "other.npz", settings, seed=2, trainer=trainer))
    assert other["weights"] != new["weights"]
    trainer.reset(1)
    assert outcome(train(tmp_path / "again.npz", settings, trainer=trainer)) == new


def test_use_of_the_global_generator_changes_nothing(tmp_path):
    def disturbed():
        random.random()  # as threads of a Dask worker do
        return tiny()

    first, second = (outcome(train(tmp_path / build.__name__, recipe(epochs=1), build)) for build in (tiny, disturbed))
    assert first == second
