"""Those who race in training and prediction, each in a process of its own that waits until it is called."""

import os
import resource
import time
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from pipeline import architectures, backend, machine, report
from pipeline.recipe import Recipe

TRAINING_ROWS = {"alizadeh_same": 256, "vgg8": 192, "mini_xception": 1920}  # a few seconds' work on two cores
PREDICTED_ROWS = {"alizadeh_same": 256, "vgg8": 256, "mini_xception": 2048}


class Contender(Protocol):
    """Who can be raced: both methods return when the work on all `rows` is done."""

    def train(self, rows: np.ndarray) -> None:
        """Take one training step a batch of `rows`."""

    def predict(self, rows: np.ndarray) -> None:
        """Probabilities of `rows`, averaged over each picture and its mirror image."""


class Pipeline:
    """Our pipeline, with the library and precision that it chooses for the machine."""

    def __init__(self, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
        library = machine.choose("auto")
        backend.start(library)
        from pipeline import fit

        exact = recipe.model_copy(update={"precision": machine.products(recipe.precision, library)})
        self.trainer = fit.Trainer(lambda: architectures.build(name), pixels, exact, seed=0)
        self.targets = np.eye(7, dtype="float32")[labels]
        self.batch = recipe.batch_size

    def train(self, rows: np.ndarray) -> None:
        """As `fit.fit` trains an epoch."""
        self.trainer.model.fit(
            rows.astype("int32"), self.targets[rows], batch_size=self.batch, shuffle=False, verbose=0
        )

    def predict(self, rows: np.ndarray) -> None:
        """As a cell judges rows."""
        self.trainer.predictor.probabilities(rows, flip=True)

    def facts(self) -> dict[str, float]:
        """Multiply-adds of a forward pass, and milliseconds a batch that augmentation takes."""
        import keras

        feed = self.trainer.feed

        class Fed(keras.Model):
            def __init__(self, training: bool) -> None:
                super().__init__()
                self.feed = feed
                self.training = training

            def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
                # Only one number leaves the device, so that copying pictures out is not measured.
                return keras.ops.sum(self.feed(rows, training=self.training), axis=(1, 2, 3))

        rows = np.arange(self.batch, dtype="int32")
        took = {}
        for training in (True, False):
            model, times = Fed(training), []
            for _ in range(40):
                started = time.perf_counter()
                model.predict_on_batch(rows)
                times.append(time.perf_counter() - started)
            took[training] = float(np.median(times[5:]))
        return {
            "multiply_adds": report.multiply_adds(self.trainer.network),
            "augmentation_ms": 1000 * max(0.0, took[True] - took[False]),
        }


class Reference:
    """The sources' way: Keras over TensorFlow as it comes, `fit` on ImageDataGenerator, picture by picture."""

    def __init__(self, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
        os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)  # TensorFlow's own choice
        backend.start("tensorflow")
        from keras._tf_keras.keras.preprocessing.image import ImageDataGenerator

        self.network = architectures.build(name)
        self.network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        self.pictures = pixels[..., None].astype("float32") / 255
        self.targets = np.eye(7, dtype="float32")[labels]
        self.batch = recipe.batch_size
        self.generator = ImageDataGenerator(
            rotation_range=recipe.rotation, width_shift_range=recipe.shift, height_shift_range=recipe.shift,
            zoom_range=recipe.zoom, horizontal_flip=recipe.flip,
        )  # fmt: skip

    def train(self, rows: np.ndarray) -> None:
        """One epoch of `rows`."""
        self.network.fit(self.generator.flow(self.pictures[rows], self.targets[rows], self.batch), verbose=0)

    def predict(self, rows: np.ndarray) -> None:
        """`predict`, once a view."""
        views = (self.pictures[rows], self.pictures[rows][:, :, ::-1])
        np.mean([self.network.predict(view, batch_size=self.batch, verbose=0) for view in views], axis=0)


def make(kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> Contender:
    """The contender called `kind`: ours, reference, or pytorch_ and a precision."""
    if kind == "ours":
        return Pipeline(name, recipe, pixels, labels)
    if kind == "reference":
        return Reference(name, recipe, pixels, labels)
    from bench import pytorch

    return pytorch.Contender(name, recipe, pixels, labels, kind.removeprefix("pytorch_"))


def serve(pipe: Connection, kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Answer "train" and "predict" with pictures a second, "facts" with what else there is to say; None ends it."""
    contender = make(kind, name, recipe, pixels, labels)
    rows = {"train": np.arange(TRAINING_ROWS[name]), "predict": np.arange(PREDICTED_ROWS[name])}
    for _ in range(2):  # compiles, and fills caches
        contender.train(rows["train"][: 2 * recipe.batch_size])
    contender.predict(rows["predict"][:256])
    pipe.send("ready")
    while word := pipe.recv():
        if word == "facts":
            facts = contender.facts() if isinstance(contender, Pipeline) else {}
            pipe.send(facts | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
            continue
        started = time.perf_counter()
        getattr(contender, word)(rows[word])
        pipe.send(len(rows[word]) / (time.perf_counter() - started))
