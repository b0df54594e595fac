"""Contenders of the speed comparison. Each has its own process, which waits until it is called."""

import importlib.util
import multiprocessing
import os
import resource
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from pipeline import architectures
from pipeline.config import Recipe
from pipeline.training import backend, machine

TRAINING_ROWS = {"alizadeh_same": 256, "vgg8": 192, "mini_xception": 1920}  # a few seconds on two cores
PREDICTED_ROWS = {"alizadeh_same": 256, "vgg8": 256, "mini_xception": 2048}


class Pipeline:
    """Our pipeline, with the backend and precision that it selects for the machine."""

    def __init__(self, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
        library = machine.choose("auto")
        backend.start(library)
        from pipeline.training import augment, loop

        recipe = recipe.model_copy(update={"precision": machine.products(recipe.precision, library, name)})
        steps = TRAINING_ROWS[name] // recipe.batch_size
        self.trainer = loop.Trainer(lambda: architectures.build(name), pixels, recipe, 0, steps)
        self.rows = lambda rows: loop.Rows(rows, loop.one_hot(labels), rows[:0], rows[:0])
        self.maps, self.epoch = augment.tta_maps(recipe), 0

    def train(self, rows: np.ndarray) -> None:
        """Train one epoch of complete batches."""
        self.epoch += 1
        self.trainer.train_epoch(self.rows(rows), 0, self.epoch, lambda part: None)

    def predict(self, rows: np.ndarray) -> None:
        """Predict the mean probabilities of each picture and its mirror image."""
        self.trainer.predictor.views(rows, self.maps).mean(axis=0)


class Reference:
    """Method of the sources: unmodified Keras on TensorFlow, `fit` with ImageDataGenerator, picture by picture."""

    def __init__(self, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
        os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)  # TensorFlow's default
        os.environ["KERAS_BACKEND"] = "tensorflow"  # not backend.start, which adds our own kernels
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
        """Train one epoch of `rows`."""
        self.network.fit(self.generator.flow(self.pictures[rows], self.targets[rows], self.batch), verbose=0)

    def predict(self, rows: np.ndarray) -> None:
        """Predict as the pipeline does, with one call per view."""
        views = (self.pictures[rows], self.pictures[rows][:, :, ::-1])
        np.mean([self.network.predict(view, batch_size=self.batch, verbose=0) for view in views], axis=0)


def ceiling() -> dict[str, float]:
    """Return the machine's peak performance in GFLOP/s, measured by large matrix products."""
    side = 2048
    matrix = np.random.default_rng(0).random((side, side), dtype="float32")
    factors: dict[str, Any] = {"float32 NumPy": matrix}
    if importlib.util.find_spec("torch"):
        import torch

        factors["float32 PyTorch"] = torch.from_numpy(matrix)
        if machine.bfloat16_on_cpu():
            factors["bfloat16 PyTorch"] = torch.from_numpy(matrix).bfloat16()
    return {
        name: 2 * side**3 / 1e9 / min(timeit.repeat("each @ each", globals={"each": each}, number=1))
        for name, each in factors.items()
    }


def make(kind: str, *needs: Any) -> Any:
    """Return the contender `kind`: ours, reference, or pytorch_PRECISION. Its library is imported only here."""
    if kind in ("ours", "reference"):
        return (Pipeline if kind == "ours" else Reference)(*needs)
    from bench import pytorch

    return pytorch.Contender(*needs, kind.removeprefix("pytorch_"))


HERE: dict[str, Any] = {}  # the contender of this process, and the name of its network


def start(kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Create a contender in this process; train twice to compile and to fill caches."""
    if kind.endswith("_x2"):  # two of these share the machine
        for part in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM"):
            os.environ[f"{part}_THREADS"] = "1"
    HERE.update(contender=make(kind.removesuffix("_x2"), name, recipe, pixels, labels), name=name)
    for _ in range(2):
        HERE["contender"].train(np.arange(TRAINING_ROWS[name]))
    HERE["contender"].predict(np.arange(min(256, PREDICTED_ROWS[name])))


def speed(word: str) -> float:
    """Return pictures per second of this process's contender in training ("train") or prediction ("predict")."""
    rows = np.arange((TRAINING_ROWS if word == "train" else PREDICTED_ROWS)[HERE["name"]])
    started = time.perf_counter()
    getattr(HERE["contender"], word)(rows)
    return len(rows) / (time.perf_counter() - started)


def peak_mb() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def multiply_adds() -> int:
    """Return the multiply-adds of a forward pass of our contender's network."""
    from pipeline.training import cell

    return cell.multiply_adds(HERE["contender"].trainer.network)


class Racers:
    """Processes with one contender each, working at the same time: two for a kind that ends in _x2, otherwise one."""

    def __init__(self, kind: str, *needs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, context, start, (kind, *needs)) for _ in range(1 + kind.endswith("_x2"))]
        self.ask(peak_mb)  # waits until they are ready

    def ask(self, function: Callable[..., Any], *words: Any) -> list[Any]:
        """Return the results of a function of this module, called in every process."""
        return [each.result() for each in [pool.submit(function, *words) for pool in self.pools]]

    def close(self) -> None:
        """End the processes."""
        for pool in self.pools:
            pool.shutdown()
