"""Those who race in training and prediction, each in a process of its own that waits until it is called."""

import os
import resource
import time
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
from pipeline.recipe import Recipe

from pipeline import architectures
from pipeline.evaluation import report
from pipeline.training import backend, machine

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
        from pipeline.training import loop

        self.recipe = recipe.model_copy(update={"precision": machine.products(recipe.precision, library, name)})
        steps = TRAINING_ROWS[name] // recipe.batch_size
        self.trainer = loop.Trainer(lambda: architectures.build(name), pixels, self.recipe, 0, steps)
        self.targets = np.eye(7, dtype="float32")[labels]
        self.chance = np.random.default_rng(0)

    def train(self, rows: np.ndarray) -> None:
        """As `loop.fit` trains an epoch."""
        from pipeline.training import augment

        drawn = augment.draw(self.recipe, len(rows), self.chance, self.recipe.crop)
        batches = backend.batches((rows.astype("int32"), drawn), self.targets[rows], self.recipe.batch_size)
        self.trainer.model.fit(**batches, shuffle=False, verbose=0)

    def predict(self, rows: np.ndarray) -> None:
        """As a cell judges rows."""
        from pipeline.training import augment

        self.trainer.predictor.views(rows, augment.views(self.recipe)).mean(axis=0)

    def facts(self) -> dict[str, float]:
        """Multiply-adds of a forward pass, and milliseconds a batch that augmentation takes, drawing included."""
        import keras

        from pipeline.training import augment

        feed, recipe = self.trainer.feed, self.recipe
        rows = np.arange(recipe.batch_size, dtype="int32")

        class Fed(keras.Model):
            def __init__(self, varied: bool) -> None:
                super().__init__()
                self.feed = feed
                self.varied = varied
                self.built = True  # of parts that are

            def call(self, batch: tuple[keras.KerasTensor, keras.KerasTensor]) -> keras.KerasTensor:
                if self.varied:
                    pictures = self.feed.varied(batch, recipe.crop)
                else:
                    pictures = keras.ops.cast(keras.ops.take(self.feed.pixels, batch[0], axis=0), "float32")
                # Only one number leaves the device, so that copying pictures out is not measured.
                return keras.ops.sum(pictures, axis=(1, 2, 3))

        took = {}
        drawn = augment.draw(recipe, len(rows), self.chance, recipe.crop)
        for varied in (True, False):
            model, times = Fed(varied), []
            for _ in range(40):
                started = time.perf_counter()
                if varied:
                    drawn = augment.draw(recipe, len(rows), self.chance, recipe.crop)
                model.predict_on_batch((rows, drawn))
                times.append(time.perf_counter() - started)
            took[varied] = float(np.median(times[5:]))
        return {
            "multiply_adds": report.multiply_adds(report.at_full_size(self.trainer.network)),
            "augmentation_ms": 1000 * max(0.0, took[True] - took[False]),
        }


class Reference:
    """The sources' way: Keras over TensorFlow as it comes, `fit` on ImageDataGenerator, picture by picture."""

    def __init__(self, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
        os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)  # TensorFlow's own choice
        os.environ["KERAS_BACKEND"] = "tensorflow"  # not by backend.start, which brings our own kernels
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
    """The contender called `kind`: ours, reference, or pytorch_ and a precision. Some library is imported only now."""
    if kind == "ours":
        return Pipeline(name, recipe, pixels, labels)
    if kind == "reference":
        return Reference(name, recipe, pixels, labels)
    from bench import pytorch

    return pytorch.Contender(name, recipe, pixels, labels, kind.removeprefix("pytorch_"))


def serve(pipe: Connection, kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Answer "train" and "predict" with pictures a second, "facts" with what else there is to say; None ends it."""
    if kind.endswith("_x2"):  # two of these share the machine
        for part in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM"):
            os.environ[f"{part}_THREADS"] = "1"
    contender = make(kind.removesuffix("_x2"), name, recipe, pixels, labels)
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
