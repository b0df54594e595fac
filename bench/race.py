"""Speed of the pipeline compared with Keras and PyTorch on this machine, and with the machine's peak performance.

Writes results/bench.json and prints a table. All contenders stay in memory, each in its own process, and take turns for
ROUNDS rounds. Reported are medians (for the peak performance: the maximum). It takes about 20 minutes on two cores,
which should be otherwise idle. Without PyTorch installed, its contenders are left out.
"""

import importlib.metadata
import importlib.util
import itertools
import multiprocessing
import os
import platform
import resource
import statistics
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from pipeline import architectures, files
from pipeline.config import BACKENDS, Recipe
from pipeline.data import synthetic
from pipeline.training import backend, machine

ROUNDS = 5
PATH = Path("results/bench.json")
# The parts of each source's recipe that cost time. They are fixed here, so that params.yaml does not change the race.
NETWORKS = {
    "alizadeh_same": Recipe(epochs=1, batch_size=64, scaling="raw", flip=True, recalibrate=False),
    "vgg8": Recipe(epochs=1, batch_size=64, rotation=20.0, shift=0.1, flip=True, recalibrate=False),
    "mini_xception": Recipe(epochs=1, batch_size=32, scaling="symmetric", rotation=10.0, shift=0.1, zoom=0.1, flip=True,
                            recalibrate=False),
}  # fmt: skip
TRAINING_ROWS = {"alizadeh_same": 256, "vgg8": 192, "mini_xception": 1920}  # a few seconds on two cores
PREDICTED_ROWS = {"alizadeh_same": 256, "vgg8": 256, "mini_xception": 2048}
HERE: dict[str, Any] = {}  # the contender of this process, and the name of its network


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


def start(kind: str, name: str, recipe: Recipe, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Create the contender `kind` in this process: ours, reference, or pytorch_PRECISION; _x2: with one thread.

    Trains twice to compile and to fill caches.
    """
    if kind.endswith("_x2"):  # two of these share the machine
        for part in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM"):
            os.environ[f"{part}_THREADS"] = "1"
    contender: Any = Reference if kind == "reference" else Pipeline
    if kind.startswith("pytorch"):
        from bench import pytorch  # a contender imports only its own library

        contender = partial(pytorch.Contender, kind.split("_")[1])
    HERE.update(contender=contender(name, recipe, pixels, labels), name=name)
    for _ in range(2):
        HERE["contender"].train(np.arange(TRAINING_ROWS[name]))
    HERE["contender"].predict(np.arange(min(256, PREDICTED_ROWS[name])))


def ask(pools: list[ProcessPoolExecutor], function: Callable[..., Any], *words: Any) -> list[Any]:
    """Return the results of a function, called in every process at the same time."""
    return [each.result() for each in [pool.submit(function, *words) for pool in pools]]


def measure(word: str) -> tuple[float, float]:
    """Return pictures per second in training ("train") or prediction ("predict"), and this process's peak MB."""
    rows = np.arange((TRAINING_ROWS if word == "train" else PREDICTED_ROWS)[HERE["name"]])
    started = time.perf_counter()
    getattr(HERE["contender"], word)(rows)
    speed = len(rows) / (time.perf_counter() - started)
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def kinds() -> list[str]:
    """Return the contenders available on this machine; _x2: two processes with one thread each."""
    names = ["ours", "ours_x2", "reference"]
    if importlib.util.find_spec("torch"):
        names.append("pytorch_float32")
        if machine.bfloat16_on_cpu():
            names += ["pytorch_bfloat16", "pytorch_bfloat16_x2"]
    return names


def race(name: str, limits: dict[str, float]) -> dict[str, Any]:
    """Measure training and prediction of one network by all contenders; update the peak performance in `limits`."""
    pixels, labels, _ = synthetic.competition(training=2048, test=7, seed=2013)
    entries: dict[str, dict[str, Any]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        racers: dict[str, list[ProcessPoolExecutor]] = {}
        for kind in kinds():
            needs = spawn, start, (kind, name, NETWORKS[name], pixels[:2048], labels[:2048])
            pools = [ProcessPoolExecutor(1, *needs) for _ in range(1 + kind.endswith("_x2"))]
            racers[kind] = [stack.enter_context(pool) for pool in pools]
            ask(racers[kind], os.getpid)  # waits until they are ready
        for number in range(ROUNDS):
            print(f"{name}, round {number + 1} of {ROUNDS}", flush=True)
            for key, value in ceiling().items():
                limits[key] = max(limits.get(key, 0.0), round(value, 1))
            for word, kind in itertools.product(("train", "predict"), racers):
                speeds, memory = zip(*ask(racers[kind], measure, word), strict=True)
                entry = entries.setdefault(kind, {"train_rounds": [], "predict_rounds": []})
                entry[f"{word}_rounds"].append(round(sum(speeds), 1))
                entry["peak_mb"] = round(sum(memory))
    for entry in entries.values():
        for word in ("train", "predict"):
            entry[f"{word}_pictures_per_s"] = statistics.median(entry[f"{word}_rounds"])
    return {"contenders": entries}


def show(results: dict[str, Any]) -> str:
    """Return the results as a table with one line per network and contender."""
    about, measured = results["machine"], results["race"]
    limit, lines = max(measured["ceiling"].values()), []  # in any precision
    for name, network in measured["networks"].items():
        reference = network["contenders"]["reference"]["train_pictures_per_s"]
        for kind, speed in network["contenders"].items():
            train = speed["train_pictures_per_s"]
            gflops = 6 * network["multiply_adds"] * train / 1e9
            lines.append([name, kind, train, gflops, f"{gflops / limit:.0%}", f"{train / reference:.2f}",
                          speed["predict_pictures_per_s"], speed["peak_mb"]])  # fmt: skip
    table = tabulate(
        lines, floatfmt=",.0f", intfmt=",", tablefmt="github", disable_numparse=[4, 5],
        headers=["network", "who", "trained/s", "GFLOP/s", "of ceiling", "to reference", "predicted/s", "peak MB"],
        colalign=["left", "left", *["right"] * 6],
    )  # fmt: skip
    ceiling = ", ".join(f"{key} {value:,.1f}" for key, value in measured["ceiling"].items())
    return (
        f"{about['processor']}, {about['cores']} cores; medians of {about['rounds']} rounds.\n\n"
        f"Ceiling, GFLOP/s: {ceiling}\n\n{table}"
    )


def main() -> None:
    """Compare the speed of this pipeline with Keras and PyTorch."""
    packages = [*BACKENDS, "keras", "numpy", "pandas"]
    about = {
        "processor": machine.processor(), "cores": os.cpu_count(), "bfloat16": machine.bfloat16_on_cpu(),
        "system": platform.system(), "python": platform.python_version(), "rounds": ROUNDS,
        "versions": {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name)},
    }  # fmt: skip
    limits: dict[str, float] = {}
    networks = {name: race(name, limits) for name in NETWORKS}
    backend.start(machine.choose("auto"))
    from pipeline.training import cell

    for name, network in networks.items():
        network["multiply_adds"] = cell.multiply_adds(architectures.build(name))
    results = {"machine": about, "race": {"networks": networks, "ceiling": limits}}
    files.write_json(PATH, results)
    print(show(results))
