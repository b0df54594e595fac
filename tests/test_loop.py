"""The training loop keeps its promises: rates, scalings, probabilities, refusals, and the same bytes every time."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.metrics import accuracy_score, log_loss

from pipeline import architectures
from pipeline.config import Recipe
from pipeline.errors import UserError
from pipeline.training import augment, backend, contrasts, loop, schedules
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.models import Feed, Predictor, Recalibrator
from pipeline.training.optimizers.muon import Muon

pytestmark = pytest.mark.usefixtures("started")
ROOT = Path(__file__).parent.parent
RECIPE = {
    "epochs": 3, "batch_size": 8, "learning_rate": 0.01, "plateau_factor": 0.5, "plateau_patience": 1,
    "progressive_side": 32, "tta_flip": False, "recalibrate": False, "precision": "float32",
}  # fmt: skip
VARIED = {
    "scaling": "symmetric", "contrast": "local", "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "flip": True,
    "random_erasing": 0.3, "mixup": 0.3, "cutmix": 0.3, "unaugmented_epochs": 1,
    "label_smoothing": 0.1, "weight_decay": 0.001, "ema": 0.8, "recalibrate": True,
    "tta_flip": True, "tta_shift": 2, "tta_zoom": 0.1,
}  # fmt: skip
EVERYTHING = VARIED | {"schedule": "plateau"}
# For a network that takes pictures of any side.
ANYWHERE = {"crop": 40, "progressive_epochs": 1, "progressive_side": 32}
ROWS = np.arange(64)
LABELS = ROWS % 7
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
HEADS = pytest.mark.parametrize(("loss", "head"), [("categorical", "softmax"), ("binary", "sigmoid")])


def recipe(**changes):
    return Recipe.model_validate(RECIPE | changes)


def faces(count=64):
    """Made-up pictures, uint8 [count, 48, 48]: the class (row % 7) is a bright bar's height; left and right differ."""
    pixels = np.random.default_rng(0).integers(0, 100, (count, 48, 48))
    for i, picture in enumerate(pixels):
        top = 2 + 6 * (i % 7)
        picture[top : top + 5, :30] += 150
    return pixels.astype("uint8")


def tiny(head="softmax"):
    """The smallest network with all that has a state: weights, moving statistics, chance (dropout)."""
    pooled = [layers.Input((48, 48, 1)), layers.AveragePooling2D(4), layers.Flatten(), layers.BatchNormalization()]
    hidden = [layers.Dense(16, activation="relu"), layers.Dropout(0.1)]
    return keras.Sequential([*pooled, *hidden, layers.Dense(7, activation=head)])


def anywhere(*first):
    """The same for pictures of any side, with every kind of kernel."""
    body = [layers.Conv2D(8, 5, strides=3), layers.BatchNormalization(), layers.SeparableConv2D(8, 3)]
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.1), layers.Dense(7, activation="softmax")]
    return keras.Sequential([layers.Input((None, None, 1)), *first, *body, *head])


def mini_xception():
    return architectures.build("mini_xception")


class Stop(Exception):
    """An interruption."""


def made(settings, build=tiny, seed=1, rows=ROWS[:48]):
    """A new trainer for epochs over `rows`."""
    return loop.Trainer(build, faces(), settings, seed, len(rows) // settings.batch_size)


def train(checkpoint, settings, build=tiny, seed=1, rows=ROWS[:48], watched=ROWS[48:], trainer=None, **more):
    """Train as a cell is trained: 48 of 64 faces, 16 watched. Returns the predictor and the progress."""
    trainer = trainer or made(settings, build, seed, rows)
    labels = more.pop("labels", LABELS[watched])
    seen = loop.Rows(rows, loop.one_hot(LABELS[rows]), watched, labels)
    return trainer.predictor, loop.fit(trainer, seen, seed, Checkpoint(checkpoint), **more)


def outcome(trained):
    """All that a training leaves but its duration, as bytes and exact numbers."""
    predictor, progress = trained
    return {
        "weights": [weight.tobytes() for weight in predictor.network.get_weights()],
        "history": progress.history,
        "probabilities": predictor.views(ROWS, augment.tta_maps(predictor.feed.recipe)).tobytes(),
    }


def numbers(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_nothing_need_be_watched(tmp_path):
    watched, unwatched = (train(tmp_path / f"{k}.npz", recipe(), watched=ROWS[k:])[1].history for k in (48, 64))
    assert [epoch["loss"] for epoch in unwatched] == [epoch["loss"] for epoch in watched]
    assert all(math.isnan(epoch["val_loss"]) for epoch in unwatched)


def test_muon_takes_orthogonal_steps_with_convolutions_and_adams_with_the_rest():
    kernel, last, shift = (keras.Variable(np.zeros(shape, "float32")) for shape in ((3, 3, 4, 5), (5, 7), (5,)))
    for variable, path in ((kernel, "a/kernel"), (last, "b/kernel"), (shift, "b/bias")):
        variable._path = path
    optimizer = Muon(learning_rate=0.5, weight_decay=None)
    optimizer.build([kernel, last, shift])
    chance = np.random.default_rng(0)
    gradients = [chance.normal(size=variable.shape).astype("float32") for variable in (kernel, last, shift)]
    optimizer.apply(gradients, [kernel, last, shift])
    step = keras.ops.convert_to_numpy(kernel).reshape(36, 5)
    sizes = np.linalg.svd(step, compute_uv=False) / (0.5 * 0.2 * 6)  # rate, AdamW's usual size, root of the longer side
    assert ((sizes > 0.6) & (sizes < 1.3)).all()
    assert np.sum(step * gradients[0].reshape(36, 5)) < 0
    for variable, gradient in ((last, gradients[1]), (shift, gradients[2])):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), -0.05 * np.sign(gradient), rtol=1e-3)


# Rates


@pytest.mark.parametrize("losses", [
    [1.0] * 9, [1.0 - 0.00009 * i for i in range(8)], [1.0 - 0.00011 * i for i in range(8)],
    [round(2 + noise, 4) for noise in np.random.default_rng(0).normal(0, 1, 40)],
], ids=["flat", "falling too little", "falling just enough", "noise"])  # fmt: skip
@pytest.mark.parametrize(("factor", "patience"), [(0.1, 1), (0.1, 2), (0.9, 3), (0.5, 12)])
def test_plateau_is_keras_reduce_lr_on_plateau(losses, factor, patience):
    settings = recipe(schedule="plateau", learning_rate=0.1, plateau_factor=factor, plateau_patience=patience)
    model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=factor, patience=patience)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        wanted = float(model.optimizer.learning_rate)
        assert schedules.plateau(settings, losses[: epoch + 1]) == pytest.approx(wanted, rel=1e-5)


def rates(steps, **changes):
    """The rate of each of `steps` steps, and of one more."""
    rate = schedules.Stepwise(recipe(**changes), steps)
    return np.array([float(rate(step)) for step in range(steps + 1)])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_rates_climb_evenly_and_then_fall_along_a_line_or_half_a_wave_to_zero(schedule, warmup):
    found = rates(10, schedule=schedule, learning_rate=0.8, warmup=warmup)
    first = round(10 * warmup)
    np.testing.assert_allclose(found[:first], [0.2, 0.6][:first], rtol=1e-5)
    fall = np.append(np.arange(10 - first, 0, -1) - 0.5, 0) / (10 - first)  # the middles of the steps
    wanted = fall if schedule == "linear" else (1 - np.cos(np.pi * fall)) / 2
    np.testing.assert_allclose(found[first:], 0.8 * wanted, atol=1e-6)


@OPTIMIZERS
def test_every_step_decays_kernels_alone_and_at_its_own_rate(optimizer):
    """Without gradients a step takes the weight decay's part of its rate from a kernel."""
    how = {"schedule": "linear", "warmup": 0.2, "learning_rate": 0.8}
    settings, network = recipe(optimizer=optimizer, weight_decay=0.1, **how), anywhere()
    optimizer = loop.compiled(Feed(faces(), settings), network, settings, 5).optimizer
    for variable in network.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    zeros = [keras.ops.zeros_like(variable) for variable in network.trainable_variables]
    left = 1.0
    for rate in rates(5, **how)[:5]:
        optimizer.apply(zeros, network.trainable_variables)
        left *= 1 - 0.1 * rate
        for variable in network.trainable_variables:
            np.testing.assert_allclose(variable, left if "kernel" in variable.name else 1, rtol=1e-5)
    names = {variable.name for variable in network.trainable_variables}
    assert names == {"kernel", "depthwise_kernel", "pointwise_kernel", "bias", "gamma", "beta"}


@pytest.mark.parametrize("schedule", ["constant", "plateau", "linear", "cosine"])
def test_every_epoch_has_the_rate_that_the_history_tells(schedule, tmp_path):
    how = {"schedule": schedule, "learning_rate": 0.5, "warmup": 0.1}  # too high: the loss jumps
    settings, used = recipe(**how, epochs=4), []
    trainer = made(settings)
    optimizer = trainer.model.optimizer
    note = {"on_batch": lambda part: used.append(float(optimizer.learning_rate))}
    _, progress = train(tmp_path / "c.npz", settings, trainer=trainer, **note)
    told = [epoch["learning_rate"] for epoch in progress.history]
    if schedule in ("linear", "cosine"):
        of_steps = rates(24, **how)
        np.testing.assert_allclose(told, of_steps[:24:6], rtol=1e-5)  # of each epoch's first step
        np.testing.assert_allclose(used, of_steps[1:], atol=1e-7)  # of the next step
        return
    losses = [epoch["loss"] for epoch in progress.history]
    wanted = [schedules.plateau(settings, losses[:epoch]) for epoch in range(4)]
    assert (len(set(wanted)) == 1) == (schedule == "constant")
    np.testing.assert_allclose(told, wanted, rtol=1e-6)
    np.testing.assert_allclose(used, np.repeat(wanted, 6), rtol=1e-6)


@pytest.mark.parametrize("loss", ["categorical", "binary"])
def test_label_smoothing_spreads_a_part_of_the_label(loss):
    settings = recipe(loss=loss, label_smoothing=0.2)
    model = loop.compiled(Feed(faces(), settings), tiny(), settings, 1)
    label, guess = np.eye(7)[[3]], np.full((1, 7), 0.1) + 0.3 * np.eye(7)[[3]]
    smooth = label * 0.8 + (0.2 / 7 if loss == "categorical" else 0.1)
    wanted = -(smooth * np.log(guess)).sum()
    if loss == "binary":
        wanted = -(smooth * np.log(guess) + (1 - smooth) * np.log(1 - guess)).mean()
    assert float(model.loss(label, guess)) == pytest.approx(wanted, rel=1e-5)


# Batch normalisation in one kernel


def normalised(call, momentum):
    """Outputs, gradients and moving averages of a layer over made-up inputs, by one of two ways."""
    tf = pytest.importorskip("tensorflow")
    layer, chance = layers.BatchNormalization(momentum=momentum), np.random.default_rng(0)
    layer.build((None, 5, 6, 3))
    layer.gamma.assign(chance.normal(1, 0.2, 3))
    layer.beta.assign(chance.normal(0, 0.2, 3))
    inputs = tf.constant(chance.normal(2, 3, (4, 5, 6, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = call(layer, inputs, training=True)
        loss = tf.reduce_sum(outputs * chance.normal(0, 1, (4, 5, 6, 3)).astype("float32"))
    gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
    return [np.asarray(part) for part in (outputs, *gradients, layer.moving_mean, layer.moving_variance)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is TensorFlow's kernel")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_normalisation_gives_what_keras_gives(momentum):
    fused = layers.BatchNormalization.call
    assert fused.fused
    backend.start("tensorflow")
    assert layers.BatchNormalization.call is fused  # not wrapped twice
    composed = fused.__closure__[0].cell_contents
    for ours, wanted in zip(normalised(fused, momentum), normalised(composed, momentum), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


# Feed and Predictor


def shown(feed, rows=ROWS):
    """The pictures as the network is shown them at last, [n, side, side]."""
    maps = np.tile(augment.tta_maps(feed.recipe)[0], (len(rows), 1))
    return keras.ops.convert_to_numpy(feed.shown((rows.astype("int32"), maps)))[..., 0]


@pytest.mark.parametrize(("scaling", "black", "white"), [("unit", 0, 1), ("symmetric", -1, 1), ("raw", 0, 255)])
def test_scaling_takes_black_and_white_where_it_says(scaling, black, white):
    pixels = np.arange(256, dtype="uint8")[:, None, None].repeat(48, 1).repeat(48, 2)
    feed, rows = Feed(pixels, recipe(scaling=scaling)), np.array([255, 0, 51], "int32")
    varied = feed.varied((rows, augment.draw(feed.recipe, 3, np.random.default_rng(0), 48)), 48)
    for pictures in (shown(feed, rows), keras.ops.convert_to_numpy(varied)[..., 0]):
        assert (pictures.shape, pictures.dtype) == ((3, 48, 48), "float32")
        grey = black + (white - black) * 51 / 255
        np.testing.assert_allclose(pictures[:, 20, 30], [white, black, grey], atol=1e-5)


@pytest.mark.parametrize("contrast", ["none", "histogram", "local"])
def test_pictures_are_shown_as_they_are_and_varied_as_drawn_after_their_contrast(contrast):
    settings = recipe(**VARIED | {"scaling": "raw", "contrast": contrast, "crop": 40})
    feed, rows = Feed(faces(), settings), ROWS[::-1].astype("int32")
    pixels = faces()[::-1]
    if contrast != "none":
        pixels = contrasts.normalise(pixels, contrast)
        assert (pixels != faces()[::-1]).any()
    np.testing.assert_array_equal(shown(feed, rows), pixels[:, 4:44, 4:44])
    drawn = augment.draw(settings, 64, np.random.default_rng(0), 36)
    wanted = augment.vary(pixels[..., None].astype("float32"), drawn, settings, 36)
    np.testing.assert_array_equal(*numbers((feed.varied((rows, drawn), 36), wanted)))


def predictor(network, pixels):
    return Predictor(Feed(pixels, recipe()), network)


@pytest.mark.parametrize(("output", "wanted"), [([-1e4] * 7, [1 / 7] * 7), ([-1e4] * 6 + [0], [0] * 6 + [1])], ids=str)
def test_seven_sigmoids_near_zero_are_no_division_by_zero(output, wanted):
    network = tiny("sigmoid")
    network.layers[-1].set_weights([np.zeros((16, 7)), np.array(output)])
    np.testing.assert_allclose(predictor(network, faces()).probabilities(ROWS), np.tile(wanted, (64, 1)), atol=1e-5)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_views_are_the_networks_answers_to_each_and_any_number_of_rows_gives_what_each_gives_alone(head):
    network, pixels, maps = tiny(head), faces(300), augment.tta_maps(recipe(tta_flip=True))
    by_hand = []
    for view in (pixels, pixels[:, :, ::-1]):
        outputs = keras.ops.convert_to_numpy(network(view[..., None] / np.float32(255), training=False))
        by_hand.append(outputs / outputs.sum(1, keepdims=True))
    wanted = np.stack(by_hand)
    assert (abs(wanted[0] - wanted[1]) > 1e-4).any(), "the views must differ for the test to mean something"
    asked, shuffled = predictor(network, pixels), np.random.default_rng(1).permutation(300)
    for count in (1, 2, 127, 128, 129, 257):
        rows = shuffled[:count]
        found = asked.views(rows, maps)
        np.testing.assert_allclose(found, wanted[:, rows], atol=1e-5)
        np.testing.assert_array_equal(asked.probabilities(rows), found[0])  # the first alone is the plain one


def test_loss_and_accuracy_are_scikit_learns():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 64).astype("float32")
    loss, accuracy = loop.validation_scores(probabilities, LABELS)
    assert loss == pytest.approx(log_loss(LABELS, probabilities, labels=range(7)), rel=1e-5)
    assert accuracy == accuracy_score(LABELS, probabilities.argmax(1))


# fit


@pytest.mark.parametrize(("loss", "head", "optimizer", "rate"), [
    ("categorical", "softmax", "adam", 0.01), ("binary", "sigmoid", "sgd", 0.05),
    ("categorical", "softmax", "muon", 0.05),
])  # fmt: skip
def test_training_learns_separable_pictures(loss, head, optimizer, rate, tmp_path):
    settings = recipe(loss=loss, optimizer=optimizer, epochs=12, learning_rate=rate)
    trained, progress = train(tmp_path / "c.npz", settings, lambda: tiny(head), rows=ROWS)
    first, last = progress.history[0], progress.history[-1]
    assert last["loss"] < first["loss"] / 4
    seen = loop.validation_scores(trained.probabilities(ROWS[48:]), LABELS[48:])
    assert seen == (last["val_loss"], last["val_accuracy"])
    assert min(seen[1], last["accuracy"]) > 0.9


def test_last_batch_that_is_not_full_is_left_out_and_one_larger_than_the_rows_is_refused(tmp_path):
    parts = []
    train(tmp_path / "c.npz", recipe(batch_size=20, epochs=2), on_batch=parts.append)
    assert parts == [0.5, 1.0, 0.5, 1.0]
    with pytest.raises(UserError, match=r"batch_size 49 .* 48 training rows"):
        train(tmp_path / "d.npz", recipe(batch_size=49, schedule="linear", recalibrate=True))


@HEADS
def test_loss_that_is_not_finite_is_refused_and_not_saved(loss, head, tmp_path):
    steep = recipe(loss=loss).model_copy(update={"learning_rate": 1e30})  # more than params.yaml may say
    with pytest.raises(UserError, match=r"nan in epoch 1.*learning_rate"):
        train(tmp_path / "c.npz", steep, lambda: tiny(head))
    assert not (tmp_path / "c.npz").exists()


def stop_between_epochs():
    """A callback that interrupts after the first epoch."""

    def report(progress):
        raise Stop

    return {"on_epoch": report}


def stop_within_an_epoch():
    """A callback that interrupts in the middle of the second epoch."""
    halves = []

    def step(part):
        halves.append(part)
        if halves.count(0.5) == 2:
            raise Stop

    return {"on_batch": step}


SLOW = pytest.mark.slow
LINEAR = {"optimizer": "sgd", "schedule": "linear", "warmup": 0.3}


@pytest.mark.parametrize(("build", "changes", "stop"), [
    pytest.param(mini_xception, {"precision": "float32"}, stop_between_epochs, marks=SLOW),
    pytest.param(mini_xception, {"precision": "bfloat16"}, stop_between_epochs, marks=SLOW),
    (tiny, {"optimizer": "muon", "ema": 0.5}, stop_between_epochs),
    (tiny, {"schedule": "cosine"}, stop_within_an_epoch),
    (tiny, {"ema": 0.0, "recalibrate": False}, stop_between_epochs),
    (anywhere, ANYWHERE, stop_between_epochs),
    (anywhere, ANYWHERE | LINEAR, stop_within_an_epoch),
])  # fmt: skip
def test_interrupted_training_ends_with_the_bytes_of_an_uninterrupted_one(build, changes, stop, tmp_path):
    settings, parts = recipe(**EVERYTHING | changes), tmp_path / "parts.npz"
    whole = outcome(train(tmp_path / "whole.npz", settings, build))
    with pytest.raises(Stop):
        train(parts, settings, build, **stop())
    reported = []
    resumed = train(parts, settings, build, on_epoch=lambda progress: reported.append(len(progress.history)))
    assert reported == [2, 3]
    assert outcome(resumed) == whole


def test_finished_training_is_not_trained_again(tmp_path):
    first = train(tmp_path / "c.npz", recipe())
    again = train(tmp_path / "c.npz", recipe(), on_batch=lambda part: pytest.fail("a batch was trained"))
    assert outcome(again) == outcome(first)
    assert again[1].seconds == first[1].seconds


def test_validation_labels_cannot_change_the_training(tmp_path):
    settings = recipe(**EVERYTHING)  # with "plateau", which watches a loss
    true, scrambled = (
        outcome(train(tmp_path / f"{shift}.npz", settings, labels=(LABELS[48:] + shift) % 7)) for shift in (0, 3)
    )
    for one, other in zip(true["history"], scrambled["history"], strict=True):
        changed = {key for key in one if one[key] != other[key]}
        assert {"val_loss"} <= changed <= {"val_loss", "val_accuracy"}
    assert true | {"history": []} == scrambled | {"history": []}


# What is trained on


@pytest.fixture
def given(monkeypatch):
    """What the network will be given in each epoch: rows, what is drawn, targets."""
    seen, batches = [], backend.batches

    def watch(inputs, answers, size):
        seen.append((*inputs, answers))
        return batches(inputs, answers, size)

    monkeypatch.setattr(backend, "batches", watch)
    return seen


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 0.5}], ids=str)
def test_targets_are_mixed_as_the_pictures_are(how, tmp_path, given):
    rows = ROWS[:61]  # in whole batches: 56
    settings = recipe(**how, flip=True, epochs=2)
    train(tmp_path / "c.npz", settings, rows=rows)
    assert len(given) == 2
    for found, drawn, targets in given:
        assert len(np.unique(found)) == len(found) == 56
        assert np.isin(found, rows).all()
        kept = augment.own_part(settings, drawn)[:, 0]
        assert len(np.unique(kept)) > 20
        mates = found.reshape(-1, 8)[:, ::-1].ravel()
        wanted = kept[:, None] * np.eye(7)[LABELS[found]] + (1 - kept[:, None]) * np.eye(7)[LABELS[mates]]
        np.testing.assert_allclose(targets, wanted, atol=1e-6)
    assert (given[0][0] != given[1][0]).any(), "each epoch has its own order"
    assert (given[0][1] != given[1][1]).any()


def test_last_epochs_are_plain_and_first_ones_small(tmp_path, given):
    settings = recipe(**VARIED | {"unaugmented_epochs": 2, "epochs": 5} | ANYWHERE | {"progressive_epochs": 2})
    train(tmp_path / "c.npz", settings, anywhere)
    assert len(given) == 5
    for epoch, (rows, drawn, targets) in enumerate(given):
        side = 32 if epoch < 2 else 40
        a0, a1, b0, b1 = drawn[:, [0, 1, 3, 4]].T.astype("float64")
        angle, zoom = np.degrees(np.arctan2(-a1, b1)), np.hypot(a1, b1) / (40 / side)  # of 40 pixels in `side`
        assert abs(angle).max() < 10.001
        assert abs(zoom - 1).max() < 0.1001
        if epoch >= 3:
            np.testing.assert_allclose(abs(a0), 1)
            assert len(np.unique(a0)) == 2, "still mirrored"
            assert (b0 == 0).all()
            assert (drawn[:, 8:16] == 0).all(), "nothing else was drawn"
            np.testing.assert_array_equal(targets, np.eye(7)[LABELS[rows]])
        else:
            assert abs(angle).max() > 5
            assert (targets.max(axis=1) < 1).any()
            assert drawn[:, augment.MAP : augment.MAP + 4].any()


SIDES = []  # of the pictures, each time that a program is traced


class Probe(layers.Layer):
    """Notes what the network is given while it is compiled."""

    def call(self, pictures):
        if pictures.shape[1] is not None:
            SIDES.append(pictures.shape[1])
        return pictures


def test_early_epochs_have_a_program_that_is_compiled_once_and_statistics_are_of_pictures_like_theirs(
    tmp_path, monkeypatch
):
    asked, draw, sides = [], augment.draw, []

    def watch(recipe, count, chance, side, plain=False):
        asked.append((side, plain))
        return draw(recipe, count, chance, side, plain)

    monkeypatch.setattr(augment, "draw", watch)
    SIDES.clear()
    settings = recipe(**VARIED | ANYWHERE)
    trainer = made(settings, lambda: anywhere(Probe()))
    train(tmp_path / "1.npz", settings, trainer=trainer, on_batch=lambda part: sides.append(trainer.model.side))
    # Training and then measuring, three epochs, and measuring for good; always at the side that is judged.
    assert asked == [(32, False), (40, False), (40, False), (40, False), (40, True), (40, True), (40, True)]
    assert sides == [32] * 6 + [40] * 12
    assert set(SIDES) == {32, 40}
    traced, early, late = list(SIDES), trainer.model.programs[32], trainer.model.train_function
    assert early is not late
    trainer.reset(2)
    train(tmp_path / "2.npz", settings, seed=2, trainer=trainer)
    assert traced == SIDES
    assert (trainer.model.programs[32], trainer.model.train_function) == (early, late)


# What is judged


def steps(settings, path):
    """The network that training ends with, and its variables after each step."""
    trainer, found = made(settings), []
    network = trainer.network
    train(path, settings, trainer=trainer, on_batch=lambda part: found.append(numbers(network.variables)))
    return network, found


@OPTIMIZERS
def test_averaged_and_measured_networks_are_judged_and_training_goes_on_without_them(optimizer, tmp_path):
    settings = recipe(optimizer=optimizer, flip=True, shift=0.1)
    _, plain = steps(settings, tmp_path / "plain.npz")
    network, judged = steps(settings.model_copy(update={"ema": 0.8, "recalibrate": True}), tmp_path / "judged.npz")
    assert len(plain) == len(judged) == 18
    for one, other in zip(plain, judged, strict=True):
        assert [each.tobytes() for each in one] == [each.tobytes() for each in other]
    trained = [k for k, variable in enumerate(network.variables) if variable.trainable]
    for k in trained:  # the moving average over all steps
        mean = judged[0][k]
        for weights in judged[1:]:
            mean = 0.8 * mean + 0.2 * weights[k]
        np.testing.assert_allclose(network.variables[k], mean, rtol=1e-4, atol=1e-6)
        assert abs(mean - judged[-1][k]).max() > 1e-3, "the last weights are others"


def test_averaged_weights_are_no_part_of_what_jax_frees(tmp_path):
    """JAX gives the memory of a step's weights to the next step; an average that lay there would be gone."""
    code = """
from pathlib import Path
from pipeline.training import backend
backend.start("jax")
import test_loop
_, progress = test_loop.train(Path("c.npz"), test_loop.recipe(ema=0.8, epochs=2))
assert len(progress.history) == 2
"""
    environment = {"KERAS_BACKEND": "jax", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=os.environ | environment)


def test_every_epoch_is_judged_by_the_network_that_would_be_settled_then(tmp_path):
    changes = VARIED | {"unaugmented_epochs": 0, "schedule": "constant"}
    trained = {epochs: train(tmp_path / f"{epochs}.npz", recipe(**changes, epochs=epochs)) for epochs in (1, 3)}
    for epochs, (judge, progress) in trained.items():
        last = progress.history[-1]
        judged = loop.validation_scores(judge.probabilities(ROWS[48:]), LABELS[48:])
        assert judged == (last["val_loss"], last["val_accuracy"])
        assert last == trained[3][1].history[epochs - 1]


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_recalibration_gives_the_mean_statistics_of_the_batches_and_keeps_the_weights(shift):
    settings = recipe(shift=shift)
    trainer = made(settings)
    before = numbers(trainer.network.trainable_weights)
    batches = ROWS[:48][::-1].reshape(6, 8)
    drawn = augment.draw(settings, 48, np.random.default_rng(3), 48)
    trainer.recalibrator.measure(batches, drawn)
    pictures = augment.vary(faces()[batches.ravel(), :, :, None].astype("float32"), drawn, settings, 48)
    pooled = (keras.ops.convert_to_numpy(pictures) / 255).reshape(6, 8, 12, 4, 12, 4).mean(axis=(3, 5))
    pooled = pooled.reshape(6, 8, -1)
    normaliser = trainer.network.layers[2]
    np.testing.assert_allclose(normaliser.moving_mean, pooled.mean(axis=1).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(normaliser.moving_variance, pooled.var(axis=1).mean(axis=0), rtol=1e-3)
    assert normaliser.momentum == 0.99
    for old, new in zip(before, trainer.network.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_recalibration_finds_what_normalises_inside_of_other_layers():
    inner = keras.Sequential([layers.Conv2D(2, 3), layers.BatchNormalization()])
    network = keras.Sequential([layers.Rescaling(1.0), inner, layers.GlobalAveragePooling2D()])
    assert Recalibrator(Feed(faces(), recipe()), network).normalisers == [inner.layers[1]]


def test_recalibration_leaves_the_momentum_of_training_alone(tmp_path):
    """The programs of both are compiled once; whichever comes first must not fix the other's momentum."""
    plain, measured = made(recipe(epochs=1)), made(recipe(epochs=1))
    measured.recalibrator.measure(ROWS[:48].reshape(6, 8), augment.draw(plain.recipe, 48, np.random.default_rng(0), 48))
    measured.reset(1)
    first, second = (train(tmp_path / f"{i}.npz", plain.recipe, trainer=t) for i, t in enumerate((plain, measured)))
    assert outcome(first) == outcome(second)


@pytest.mark.parametrize("before", [pytest.param(1, id="same_seed", marks=SLOW), 2])
@pytest.mark.parametrize(("schedule", "precision"), [("plateau", "float32"), ("linear", "bfloat16")])
def test_same_seed_gives_the_same_bytes_after_a_reset_too_and_another_others(before, schedule, precision, tmp_path):
    changes = {"schedule": schedule, "precision": precision, "epochs": 2}
    settings = recipe(**EVERYTHING | ANYWHERE | changes)
    new = outcome(train(tmp_path / "new.npz", settings, anywhere))
    trainer = made(settings, anywhere, before)
    other = outcome(train(tmp_path / "before.npz", settings, seed=before, trainer=trainer))
    for key in ("weights", "probabilities"):
        assert (other[key] == new[key]) == (before == 1)
    trainer.reset(1)
    assert outcome(train(tmp_path / "again.npz", settings, trainer=trainer)) == new


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others get arrays, which Keras cuts itself")
def test_batches_are_whole_and_in_order():
    rows, drawn, answers = ROWS[:21].astype("int32"), np.arange(42.0).reshape(21, 2), np.eye(7)[LABELS[:21]]
    found = list(backend.batches((rows, drawn), answers, 8)["x"])
    assert len(found) == 2
    for i, ((which, how), targets) in enumerate(found):
        for got, wanted in ((which, rows), (how, drawn), (targets, answers)):
            np.testing.assert_array_equal(got, wanted[8 * i : 8 * i + 8])


def test_other_threads_that_draw_from_the_global_generator_change_nothing(tmp_path):
    def disturbed():
        random.random()  # as a thread of a Dask worker does
        return tiny()

    found = [outcome(train(tmp_path / build.__name__, recipe(epochs=1), build)) for build in (tiny, disturbed)]
    assert found[0] == found[1]
