"""Those who race in training and prediction, each in a process of its own that waits until it is called."""

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

TRAINING_ROWS = {"alizadeh_same": 256, "vgg8": 192, "mini_xception": 1920}  # a few seconds' work on two cores
PREDICTED_ROWS = {"alizadeh_same": 256, "vgg8": 256, "mini_xception": 2048}


class Pipeline:
    """Our pipeline, with the library and precision that it chooses for the machine."""

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
        """An epoch of whole batches."""
        self.epoch += 1
        self.trainer.train_epoch(self.rows(rows), 0, self.epoch, lambda part: None)

    def predict(self, rows: np.ndarray) -> None:
        """Mean probabilities of each picture and its mirror image."""
        self.trainer.predictor.views(rows, self.maps).mean(axis=0)


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
    """What the machine can do at most: GFLOP/s of the largest matrix products."""
    side = 2048
    one = np.random.default_rng(0).random((side, side), dtype="float32")
    factors: dict[str, Any] = {"float32 NumPy": one}
    if importlib.util.find_spec("torch"):
        import torch

        factors["float32 PyTorch"] = torch.from_numpy(one)
        if machine.bfloat16_on_cpu():
            factors["bfloat16 PyTorch"] = torch.from_numpy(one).bfloat16()
    return {
        name: 2 * side**3 / 1e9 / min(timeit.repeat("each @ each", globals={"each": each}, number=1))
        for name, each in factors.items()
    }


def make(kind: str, *needs: Any) -> Any:
    """The contender called `kind`: ours, reference, or pytorch_ and a precision. Some library is imported only now."""
    if kind in ("ours", "reference"):
        return (Pipeline if kind == "ours" else Reference)(*needs)
    from bench import pytorch

    return pytorch.Contender(*needs, kind.removeprefix("pytorch_"))


HERE: dict[str, Any] = {}  # what is in this process: the contender, and its network's name


def start(kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Make a contender in this process, and let it train twice: it compiles, and fills caches."""
    if kind.endswith("_x2"):  # two of these share the machine
        for part in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM"):
            os.environ[f"{part}_THREADS"] = "1"
    HERE.update(contender=make(kind.removesuffix("_x2"), name, recipe, pixels, labels), name=name)
    for _ in range(2):
        HERE["contender"].train(np.arange(TRAINING_ROWS[name]))
    HERE["contender"].predict(np.arange(min(256, PREDICTED_ROWS[name])))


def speed(word: str) -> float:
    """Pictures a second that this process's contender trains on ("train") or predicts ("predict")."""
    rows = np.arange((TRAINING_ROWS if word == "train" else PREDICTED_ROWS)[HERE["name"]])
    started = time.perf_counter()
    getattr(HERE["contender"], word)(rows)
    return len(rows) / (time.perf_counter() - started)


def peak_mb() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def multiply_adds() -> int:
    """Multiply-adds of a forward pass of our contender's network."""
    from pipeline.training import cell

    return cell.multiply_adds(HERE["contender"].trainer.network)


class Racers:
    """One process, or two for a kind that ends in _x2, with a contender each, that work at the same time."""

    def __init__(self, kind: str, *needs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, context, start, (kind, *needs)) for _ in range(1 + kind.endswith("_x2"))]
        self.ask(peak_mb)  # they are ready then

    def ask(self, function: Callable[..., Any], *words: Any) -> list[Any]:
        """What a function of this module gives in each process."""
        return [each.result() for each in [pool.submit(function, *words) for pool in self.pools]]

    def close(self) -> None:
        """Let them end."""
        for pool in self.pools:
            pool.shutdown()
