"""The training loop keeps its promises: rates, scalings, probabilities, refusals, and the same bytes every time."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.metrics import accuracy_score, log_loss

from pipeline import architectures, backend, fit, machine
from pipeline.command import Refusal
from pipeline.recipe import Recipe

RECIPE = Recipe(
    epochs=3, batch_size=8, optimizer="adam", learning_rate=0.01, schedule="constant", plateau_factor=0.5,
    weight_decay=0.0, label_smoothing=0.0,
    plateau_patience=1, loss="categorical", scaling="unit", rotation=0.0, shift=0.0, zoom=0.0, flip=False,
    flip_at_test=False, recalibrate=False, precision="float32",
)  # fmt: skip
EVERYTHING = {
    "schedule": "plateau", "scaling": "symmetric", "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "flip": True,
}  # fmt: skip
ROWS = np.arange(64)
LABELS = ROWS % 7


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    """As a cell is trained: with all that backend.py does to Keras."""
    backend.start(machine.choose("auto"))


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(RECIPE.model_dump() | changes)


def faces(count: int = 64) -> np.ndarray:
    """Made-up pictures, uint8 [count, 48, 48]: the class (row % 7) is a bright bar's height; left and right differ."""
    pixels = np.random.default_rng(0).integers(0, 100, (count, 48, 48))
    for i, picture in enumerate(pixels):
        top = 2 + 6 * (i % 7)
        picture[top : top + 5, :30] += 150
    return pixels.astype("uint8")


def tiny(head: str = "softmax") -> keras.Model:
    """The smallest network with all that has a state: weights, moving statistics, chance (dropout)."""
    return keras.Sequential(
        [
            layers.Input((48, 48, 1)),
            layers.AveragePooling2D(4),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.1),
            layers.Dense(7, activation=head),
        ]
    )


def mini_xception() -> keras.Model:
    return architectures.build("mini_xception")


class Stop(Exception):
    """An interruption."""


def train(
    checkpoint: Path,
    settings: Recipe,
    build: Callable[[], keras.Model] = tiny,
    seed: int = 1,
    rows: np.ndarray = ROWS[:48],
    validation_labels: np.ndarray = LABELS[48:],
    trainer: fit.Trainer | None = None,
    **callbacks: Callable[[Any], None],
) -> tuple[fit.Predictor, fit.Progress]:
    """Train as a cell is trained: 48 of 64 faces, 16 watched."""
    trainer = trainer or fit.Trainer(build, faces(), settings, seed)
    progress = fit.fit(
        trainer, rows, LABELS[rows], ROWS[48:], validation_labels, seed, fit.Checkpoint(checkpoint), **callbacks
    )
    return trainer.predictor, progress


def outcome(trained: tuple[fit.Predictor, fit.Progress]) -> dict[str, Any]:
    """All that a training leaves but its duration, as bytes and exact numbers."""
    predictor, progress = trained
    return {
        "weights": [weight.tobytes() for weight in predictor.network.get_weights()],
        "history": progress.history,
        "probabilities": predictor.probabilities(ROWS, flip=True).tobytes(),
    }


# learning_rate


def keras_plateau(losses: list[float], factor: float, patience: int) -> list[float]:
    """The rate of every epoch as keras.callbacks.ReduceLROnPlateau sets it, and the one after."""
    model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=factor, patience=patience)
    callback.set_model(model)
    callback.on_train_begin()
    rates = [float(model.optimizer.learning_rate)]
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        rates.append(float(model.optimizer.learning_rate))
    return rates


LOSSES = {
    "falling": [2.0, 1.5, 1.2, 1.0, 0.9, 0.8],
    "rising": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
    "flat": [1.0] * 9,
    "falling too little": [1.0 - 0.00009 * i for i in range(8)],
    "falling just enough": [1.0 - 0.00011 * i for i in range(8)],
    "rising, then falling": [1.0, 1.2, 1.1, 1.05, 0.9, 0.95, 0.93, 0.7],
    "noise": [round(2 + noise, 4) for noise in np.random.default_rng(0).normal(0, 1, 40)],
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize(("factor", "patience"), [(0.1, 1), (0.1, 2), (0.9, 3), (0.5, 12)])
def test_plateau_is_that_of_keras(losses: list[float], factor: float, patience: int) -> None:
    settings = recipe(schedule="plateau", learning_rate=0.1, plateau_factor=factor, plateau_patience=patience)
    rates = [fit.learning_rate(settings, losses[:epoch]) for epoch in range(len(losses) + 1)]
    np.testing.assert_allclose(rates, keras_plateau(losses, factor, patience), rtol=1e-5)


def test_constant_rate_stays_whatever_the_losses_are() -> None:
    assert {fit.learning_rate(recipe(), [1.0] * epoch) for epoch in range(20)} == {RECIPE.learning_rate}


def test_cosine_falls_from_the_full_rate_along_half_a_wave_to_zero() -> None:
    settings = recipe(schedule="cosine", epochs=4, learning_rate=2.0)
    rates = [fit.learning_rate(settings, [1.0] * epoch) for epoch in range(5)]
    np.testing.assert_allclose(rates, [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0], atol=1e-12)


def test_triangle_climbs_for_a_fifth_and_falls_to_zero() -> None:
    rates = [fit.learning_rate(recipe(schedule="triangle", epochs=10, learning_rate=0.8), [1.0] * n) for n in range(10)]
    np.testing.assert_allclose(rates, [0.2, 0.6, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.05])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_takes_from_kernels_alone(optimizer: str) -> None:
    settings = recipe(optimizer=optimizer, learning_rate=0.5, weight_decay=0.1)
    network = tiny()
    model = fit.compiled(fit.Feed(faces(), settings), network, settings)
    model.optimizer.build(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    zeros = [keras.ops.zeros_like(variable) for variable in network.trainable_variables]
    model.optimizer.apply(zeros, network.trainable_variables)
    after = {v.path: float(keras.ops.convert_to_numpy(v).mean()) for v in network.trainable_variables}
    for variable in network.trainable_variables:
        assert after[variable.path] == pytest.approx(0.95 if variable.name == "kernel" else 1.0, abs=1e-6)


@pytest.mark.parametrize("loss", ["categorical", "binary"])
def test_label_smoothing_spreads_a_part_of_the_label(loss: str) -> None:
    settings = recipe(loss=loss, label_smoothing=0.2)
    model = fit.compiled(fit.Feed(faces(), settings), tiny(), settings)
    label, guess = np.eye(7)[[3]], np.full((1, 7), 0.1) + 0.3 * np.eye(7)[[3]]
    smooth = label * 0.8 + (0.2 / 7 if loss == "categorical" else 0.1)
    wanted = -(smooth * np.log(guess)).sum()
    if loss == "binary":
        wanted = -(smooth * np.log(guess) + (1 - smooth) * np.log(1 - guess)).mean()
    assert float(model.loss(label, guess)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_every_epoch_has_the_rate_that_the_history_tells(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(schedule=schedule, epochs=4, learning_rate=0.5)  # too high: the loss jumps
    trainers: list[keras.Model] = []
    compiled = fit.compiled
    monkeypatch.setattr(fit, "compiled", lambda *needs: trainers.append(compiled(*needs)) or trainers[0])
    used: list[float] = []
    _, progress = train(
        tmp_path / "c.npz", settings, report=lambda p: used.append(float(trainers[0].optimizer.learning_rate))
    )
    losses = [epoch["loss"] for epoch in progress.history]
    wanted = [fit.learning_rate(settings, losses[:epoch]) for epoch in range(4)]
    assert len(set(wanted)) > 1
    assert [epoch["learning_rate"] for epoch in progress.history] == wanted
    np.testing.assert_allclose(used, wanted, rtol=1e-6)


def test_history_has_one_line_an_epoch_with_the_columns_in_order(tmp_path: Path) -> None:
    _, progress = train(tmp_path / "c.npz", recipe(epochs=2))
    assert [tuple(epoch) for epoch in progress.history] == [fit.HISTORY] * 2
    assert [epoch["epoch"] for epoch in progress.history] == [1, 2]


# Batch normalisation in one kernel


def normalised(call: Callable[..., Any], momentum: float) -> list[np.ndarray]:
    """Outputs, gradients and moving averages of a layer over made-up inputs, by one of two ways."""
    tf = pytest.importorskip("tensorflow")
    layer = layers.BatchNormalization(momentum=momentum)
    layer.build((None, 5, 6, 3))
    chance = np.random.default_rng(0)
    layer.gamma.assign(chance.normal(1, 0.2, 3))
    layer.beta.assign(chance.normal(0, 0.2, 3))
    inputs = tf.constant(chance.normal(2, 3, (4, 5, 6, 3)).astype("float32"))
    weights = tf.constant(chance.normal(0, 1, (4, 5, 6, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = call(layer, inputs, training=True)
        loss = tf.reduce_sum(outputs * weights)
    gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
    return [np.asarray(part) for part in (outputs, *gradients, layer.moving_mean, layer.moving_variance)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is TensorFlow's kernel")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_normalisation_gives_what_keras_gives(momentum: float) -> None:
    fused = layers.BatchNormalization.call
    assert fused.fused
    backend.start("tensorflow")
    assert layers.BatchNormalization.call is fused  # not wrapped twice
    composed = fused.__closure__[0].cell_contents
    for ours, wanted in zip(normalised(fused, momentum), normalised(composed, momentum), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


# Feed and Predictor


@pytest.mark.parametrize(("scaling", "black", "white"), [("unit", 0, 1), ("symmetric", -1, 1), ("raw", 0, 255)])
def test_scaling_takes_black_and_white_where_it_says(scaling: str, black: float, white: float) -> None:
    pixels = np.arange(256, dtype="uint8")[:, None, None].repeat(48, 1).repeat(48, 2)
    feed = fit.Feed(pixels, recipe(scaling=scaling))
    rows = np.array([255, 0, 51], "int32")
    pictures = keras.ops.convert_to_numpy(feed(rows))
    assert pictures.shape == (3, 48, 48, 1)
    assert pictures.dtype == "float32"
    grey = black + (white - black) * 51 / 255
    np.testing.assert_allclose(pictures[:, 20, 30, 0], [white, black, grey], atol=1e-5)


def test_pictures_vary_in_training_alone() -> None:
    feed = fit.Feed(faces(), recipe(**EVERYTHING | {"scaling": "raw"}))
    plain, varied = (keras.ops.convert_to_numpy(feed(ROWS.astype("int32"), training=on)) for on in (False, True))
    assert (plain[..., 0] == faces()).all()
    assert (plain != varied).any((1, 2, 3)).all()


def predictor(network: keras.Model, pixels: np.ndarray) -> fit.Predictor:
    return fit.Predictor(fit.Feed(pixels, recipe()), network)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_probabilities_sum_to_one(head: str, flip: bool) -> None:
    found = predictor(tiny(head), faces()).probabilities(ROWS, flip)
    assert found.shape == (64, 7)
    assert found.dtype == "float32"
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(("output", "wanted"), [([-1e4] * 7, [1 / 7] * 7), ([-1e4] * 6 + [0], [0] * 6 + [1])], ids=str)
def test_seven_sigmoids_near_zero_are_no_division_by_zero(output: list[float], wanted: list[float]) -> None:
    network = tiny("sigmoid")
    network.layers[-1].set_weights([np.zeros((16, 7)), np.array(output)])
    found = predictor(network, faces()).probabilities(ROWS, flip=True)
    np.testing.assert_allclose(found, np.tile(wanted, (64, 1)), atol=1e-5)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_flip_averages_a_picture_and_its_mirror_image(head: str) -> None:
    network, pixels = tiny(head), faces()
    by_hand = []
    for view in (pixels, pixels[:, :, ::-1]):
        outputs = keras.ops.convert_to_numpy(network(view[..., None] / np.float32(255), training=False))
        by_hand.append(outputs / outputs.sum(1, keepdims=True))
    assert (abs(by_hand[0] - by_hand[1]) > 1e-4).any(), "the views must differ for the test to mean something"
    both = predictor(network, pixels)
    np.testing.assert_allclose(both.probabilities(ROWS, flip=False), by_hand[0], atol=1e-5)
    np.testing.assert_allclose(both.probabilities(ROWS, flip=True), (by_hand[0] + by_hand[1]) / 2, atol=1e-5)


@pytest.fixture(scope="module")
def one_by_one() -> tuple[fit.Predictor, np.ndarray, np.ndarray]:
    """A predictor, 257 shuffled rows, and their probabilities, each asked for alone."""
    shuffled = np.random.default_rng(1).permutation(300)[:257]
    asked = predictor(tiny(), faces(300))
    return asked, shuffled, np.concatenate([asked.probabilities(shuffled[[i]], flip=False) for i in range(257)])


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257])
def test_any_number_of_rows_gives_what_each_row_gives_alone(
    count: int, one_by_one: tuple[fit.Predictor, np.ndarray, np.ndarray]
) -> None:
    asked, rows, wanted = one_by_one
    found = asked.probabilities(rows[:count], flip=False)
    assert found.shape == (count, 7)
    np.testing.assert_allclose(found, wanted[:count], rtol=1e-5)


def test_agreement_is_that_of_scikit_learn() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 64).astype("float32")
    loss, accuracy = fit.agreement(probabilities, LABELS)
    assert loss == pytest.approx(log_loss(LABELS, probabilities, labels=range(7)), rel=1e-5)
    assert accuracy == accuracy_score(LABELS, probabilities.argmax(1))


def test_agreement_is_finite_where_the_true_class_was_ruled_out() -> None:
    loss, accuracy = fit.agreement(np.eye(7, dtype="float32"), (np.arange(7) + 1) % 7)
    assert (round(loss), accuracy) == (16, 0)  # -log 1e-7


# fit


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("loss", "head"), [("categorical", "softmax"), ("binary", "sigmoid")])
def test_training_learns_separable_pictures(loss: str, head: str, optimizer: str, tmp_path: Path) -> None:
    rate = {"adam": 0.01, "sgd": 0.05}[optimizer]
    settings = recipe(loss=loss, optimizer=optimizer, epochs=12, learning_rate=rate)
    trained, progress = train(tmp_path / "c.npz", settings, lambda: tiny(head), rows=ROWS)
    first, last = progress.history[0], progress.history[-1]
    assert last["loss"] < first["loss"] / 4
    assert last["accuracy"] > 0.9
    seen = fit.agreement(trained.probabilities(ROWS[48:], flip=False), LABELS[48:])
    assert seen == (last["val_loss"], last["val_accuracy"])
    assert seen[1] > 0.9


def test_batch_as_large_as_the_training_rows_is_one_step(tmp_path: Path) -> None:
    parts: list[float] = []
    train(tmp_path / "c.npz", recipe(batch_size=48, epochs=1), step=parts.append)
    assert parts == [1.0]


def test_batch_larger_than_the_training_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="batch_size 49 is more than the 48 training rows"):
        train(tmp_path / "c.npz", recipe(batch_size=49))


def test_last_batch_that_is_not_full_is_left_out_with_other_rows_each_epoch(tmp_path: Path) -> None:
    parts: list[float] = []
    train(tmp_path / "c.npz", recipe(batch_size=20, epochs=2), step=parts.append)
    assert parts == [0.5, 1.0, 0.5, 1.0]


@pytest.mark.parametrize(("loss", "head"), [("categorical", "softmax"), ("binary", "sigmoid")])
def test_loss_that_is_not_finite_is_refused_and_not_saved(loss: str, head: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.npz"
    with pytest.raises(Refusal, match="the loss became nan in epoch 1; make learning_rate smaller"):
        train(checkpoint, recipe(loss=loss, learning_rate=1e30), lambda: tiny(head))
    assert not checkpoint.exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_gives_the_same_bytes(precision: str, tmp_path: Path) -> None:
    settings = recipe(**EVERYTHING, precision=precision)
    first, again, other = (outcome(train(tmp_path / f"{i}.npz", settings, seed=s)) for i, s in enumerate((1, 1, 2)))
    assert first == again
    assert first["weights"] != other["weights"]
    assert first["probabilities"] != other["probabilities"]


def stop_between_epochs() -> dict[str, Callable[[Any], None]]:
    """Callbacks that interrupt after the first epoch."""

    def report(progress: fit.Progress) -> None:
        raise Stop

    return {"report": report}


def stop_within_an_epoch() -> dict[str, Callable[[Any], None]]:
    """Callbacks that interrupt in the middle of the second epoch."""
    halves: list[float] = []

    def step(part: float) -> None:
        halves.append(part)
        if halves.count(0.5) == 2:
            raise Stop

    return {"step": step}


@pytest.mark.parametrize(
    ("build", "changes", "stop"),
    [
        pytest.param(mini_xception, {"precision": "float32"}, stop_between_epochs, id="mini_xception-float32"),
        pytest.param(mini_xception, {"precision": "bfloat16"}, stop_between_epochs, id="mini_xception-bfloat16"),
        pytest.param(tiny, {"optimizer": "sgd"}, stop_between_epochs, id="dropout-sgd"),
        pytest.param(tiny, {"schedule": "cosine"}, stop_within_an_epoch, id="dropout-within-an-epoch"),
        pytest.param(tiny, {"recalibrate": True}, stop_between_epochs, id="recalibrated"),
    ],
)
def test_interrupted_training_ends_with_the_bytes_of_an_uninterrupted_one(
    build: Callable[[], keras.Model],
    changes: dict[str, Any],
    stop: Callable[[], dict[str, Callable[[Any], None]]],
    tmp_path: Path,
) -> None:
    settings = recipe(**EVERYTHING | changes)
    whole = outcome(train(tmp_path / "whole.npz", settings, build))
    with pytest.raises(Stop):
        train(tmp_path / "parts.npz", settings, build, **stop())
    reported: list[int] = []
    resumed = train(tmp_path / "parts.npz", settings, build, report=lambda p: reported.append(len(p.history)))
    assert reported == [2, 3]
    assert outcome(resumed) == whole


def test_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first = train(tmp_path / "c.npz", recipe())
    again = train(tmp_path / "c.npz", recipe(), step=lambda part: pytest.fail("a batch was trained"))
    assert outcome(again) == outcome(first)
    assert again[1].seconds == first[1].seconds


def test_checkpoint_leaves_no_unfinished_file(tmp_path: Path) -> None:
    train(tmp_path / "deep/down/c.npz", recipe(epochs=1))
    assert [path.name for path in (tmp_path / "deep/down").iterdir()] == ["c.npz"]


def test_validation_labels_cannot_change_the_training(tmp_path: Path) -> None:
    settings = recipe(**EVERYTHING)  # with "plateau", which watches a loss
    true, scrambled = (
        outcome(train(tmp_path / f"{shift}.npz", settings, validation_labels=(LABELS[48:] + shift) % 7))
        for shift in (0, 3)
    )
    assert true["weights"] == scrambled["weights"]
    assert true["probabilities"] == scrambled["probabilities"]
    watched = {"val_loss", "val_accuracy"}
    for one, other in zip(true["history"], scrambled["history"], strict=True):
        assert {k: v for k, v in one.items() if k not in watched} == {
            k: v for k, v in other.items() if k not in watched
        }
        assert one["val_loss"] != other["val_loss"]


def test_recalibration_gives_the_mean_statistics_of_the_batches_and_keeps_the_weights() -> None:
    trainer = fit.Trainer(tiny, faces(), recipe(), 1)
    before = [weight.numpy() for weight in trainer.network.trainable_weights]
    batches = ROWS[:48].reshape(6, 8)
    trainer.recalibrator.measure(batches)
    pooled = (faces() / 255).reshape(64, 12, 4, 12, 4).mean(axis=(2, 4)).reshape(64, -1)
    normaliser = trainer.network.layers[2]
    means, variances = zip(*((pooled[rows].mean(axis=0), pooled[rows].var(axis=0)) for rows in batches), strict=True)
    np.testing.assert_allclose(normaliser.moving_mean, np.mean(means, axis=0), rtol=1e-4)
    np.testing.assert_allclose(normaliser.moving_variance, np.mean(variances, axis=0), rtol=1e-3)
    assert normaliser.momentum == 0.99
    for old, new in zip(before, trainer.network.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_recalibration_leaves_the_momentum_of_training_alone(tmp_path: Path) -> None:
    """The programs of both are compiled once; whichever comes first must not fix the other's momentum."""
    plain = fit.Trainer(tiny, faces(), recipe(epochs=1), 1)
    measured = fit.Trainer(tiny, faces(), recipe(epochs=1), 1)
    measured.recalibrator.measure(ROWS[:48].reshape(6, 8))
    measured.reset(1)
    first, second = (train(tmp_path / f"{i}.npz", plain.recipe, trainer=t) for i, t in enumerate((plain, measured)))
    assert outcome(first) == outcome(second)


@pytest.mark.parametrize("before", [1, 2], ids=["same_seed", "other_seed"])
def test_trainer_that_was_reset_trains_as_a_new_one(before: int, tmp_path: Path) -> None:
    settings = recipe(**EVERYTHING, recalibrate=True)
    new = outcome(train(tmp_path / "new.npz", settings))
    trainer = fit.Trainer(tiny, faces(), settings, before)
    train(tmp_path / "before.npz", settings, seed=before, trainer=trainer)
    programs = trainer.model.train_function
    trainer.reset(1)
    assert outcome(train(tmp_path / "again.npz", settings, trainer=trainer)) == new
    assert trainer.model.train_function is programs


def test_other_threads_that_draw_from_the_global_generator_change_nothing(tmp_path: Path) -> None:
    alone = outcome(train(tmp_path / "alone.npz", recipe(epochs=1)))

    def disturbed() -> keras.Model:
        random.random()  # as a thread of a Dask worker does
        return tiny()

    assert outcome(train(tmp_path / "disturbed.npz", recipe(epochs=1), disturbed)) == alone


def test_recalibration_makes_short_training_count(tmp_path: Path) -> None:
    plain, measured = (
        train(tmp_path / f"{on}.npz", recipe(epochs=6, recalibrate=on))[1].history[-1] for on in (False, True)
    )
    assert measured["val_loss"] < plain["val_loss"]
