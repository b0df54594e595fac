"""Those who race in training and prediction, each in a process of its own that waits until it is called."""

import importlib.util
import multiprocessing
import os
import resource
import time
import timeit
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pipeline import architectures
from pipeline.config import Recipe
from pipeline.training import backend, machine

TRAINING_ROWS = {"alizadeh_same": 256, "vgg8": 192, "mini_xception": 1920}  # a few seconds' work on two cores
PREDICTED_ROWS = {"alizadeh_same": 256, "vgg8": 256, "mini_xception": 2048}


class Pipeline:
    """Our pipeline, with the library and precision that it chooses for the machine."""

    def __init__(self, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
        library = machine.choose("auto")
        backend.start(library)
        from pipeline.training import loop

        self.recipe = recipe.model_copy(update={"precision": machine.products(recipe.precision, library, name)})
        steps = TRAINING_ROWS[name] // recipe.batch_size
        self.trainer = loop.Trainer(lambda: architectures.build(name), pixels, self.recipe, 0, steps)
        self.labels = labels
        self.epoch = 0

    def train(self, rows: np.ndarray) -> None:
        """An epoch of whole batches."""
        from pipeline.training import loop

        chosen = loop.Rows(rows, loop.one_hot(self.labels), rows[:0], rows[:0])
        self.epoch += 1
        self.trainer.train_epoch(chosen, 0, self.epoch, lambda part: None)

    def predict(self, rows: np.ndarray) -> None:
        """Mean probabilities of each picture and its mirror image."""
        from pipeline.training import augment

        self.trainer.predictor.views(rows, augment.tta_maps(self.recipe)).mean(axis=0)

    def facts(self) -> dict[str, float]:
        """Multiply-adds of a forward pass, and milliseconds a batch of augmentation, the way to the device included."""
        import keras

        from pipeline.training import augment, cell, models

        recipe, random = self.recipe, np.random.default_rng(0)
        mean = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D()])
        shown = models.Learner(self.trainer.feed, mean)  # one number a picture leaves the device

        def augmented() -> None:
            drawn = augment.draw(recipe, recipe.batch_size, random, recipe.crop)
            shown.predict_on_batch((np.arange(recipe.batch_size, dtype="int32"), drawn))

        milliseconds = 1000 * float(np.median(timeit.repeat(augmented, number=1, repeat=40)))
        return {"multiply_adds": cell.multiply_adds(self.trainer.network), "augmentation_ms": milliseconds}


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
        """An epoch of `rows`."""
        self.network.fit(self.generator.flow(self.pictures[rows], self.targets[rows], self.batch), verbose=0)

    def predict(self, rows: np.ndarray) -> None:
        """As the pipeline's, once a view."""
        views = (self.pictures[rows], self.pictures[rows][:, :, ::-1])
        np.mean([self.network.predict(view, batch_size=self.batch, verbose=0) for view in views], axis=0)


def ceiling() -> dict[str, float]:
    """What the machine can do at most: GFLOP/s of the largest matrix products, and GB/s of a copy in memory."""
    side, source = 2048, np.ones(2**26, "uint8")
    one, target, flops = np.random.default_rng(0).random((side, side), dtype="float32"), source.copy(), 2 * side**3
    work: dict[str, tuple[Any, int]] = {"float32 NumPy": (lambda: one @ one, flops)}
    if importlib.util.find_spec("torch"):
        import torch

        full = torch.from_numpy(one)
        half = full.bfloat16()
        work["float32 PyTorch"] = (lambda: full @ full, flops)
        if machine.bfloat16_on_cpu():
            work["bfloat16 PyTorch"] = (lambda: half @ half, flops)
    work["copy GB/s"] = (lambda: np.copyto(target, source), 2 * source.nbytes)
    return {name: amount / 1e9 / min(timeit.repeat(run, number=1)) for name, (run, amount) in work.items()}


def make(kind: str, *needs: Any) -> Any:
    """The contender called `kind`: ours, reference, or pytorch_ and a precision. Some library is imported only now."""
    if kind in ("ours", "reference"):
        return (Pipeline if kind == "ours" else Reference)(*needs)
    from bench import pytorch

    return pytorch.Contender(*needs, kind.removeprefix("pytorch_"))


def serve(pipe: Connection, kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Reply to "train" and "predict" with pictures a second, "facts" with what else there is to say; None ends it."""
    if kind.endswith("_x2"):  # two of these share the machine
        for part in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM"):
            os.environ[f"{part}_THREADS"] = "1"
    contender = make(kind.removesuffix("_x2"), name, recipe, pixels, labels)
    rows = {"train": np.arange(TRAINING_ROWS[name]), "predict": np.arange(PREDICTED_ROWS[name])}
    for _ in range(2):  # compiles, and fills caches
        contender.train(rows["train"])
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


class Racers:
    """Processes that work at the same time, and say how fast."""

    def __init__(self, count: int, serve: Any, *needs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(count)]
        self.pipes = [ours for ours, _ in pipes]
        for _, theirs in pipes:
            context.Process(target=serve, args=(theirs, *needs), daemon=True).start()
            theirs.close()
        for pipe in self.pipes:
            pipe.recv()  # ready

    def ask(self, word: str) -> list[Any]:
        """Their replies to `word`."""
        for pipe in self.pipes:
            pipe.send(word)
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> None:
        """Let them end."""
        for pipe in self.pipes:
            pipe.send(None)
