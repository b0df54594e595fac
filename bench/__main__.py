"""Speed of the pipeline compared with Keras and PyTorch on this machine, and with the machine's peak performance.

Writes results/bench.json and prints a table. All contenders stay in memory, each in its own process, and take turns for
ROUNDS rounds. Reported are medians (for the peak performance: the maximum). It takes about 20 minutes on two cores,
which should be otherwise idle. Without PyTorch installed, its contenders are left out.
"""

import importlib.metadata
import importlib.util
import os
import platform
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
from tabulate import tabulate
from tqdm import tqdm

from bench import contenders
from bench.contenders import Racers
from pipeline import files
from pipeline.command import guarded
from pipeline.config import BACKENDS, Recipe
from pipeline.data import synthetic
from pipeline.training import machine

ROUNDS = 5
PATH = Path("results/bench.json")
# The parts of each source's recipe that cost time. They are fixed here, so that params.yaml does not change the race.
NETWORKS = {
    "alizadeh_same": Recipe(epochs=1, batch_size=64, scaling="raw", flip=True, recalibrate=False),
    "vgg8": Recipe(epochs=1, batch_size=64, rotation=20.0, shift=0.1, flip=True, recalibrate=False),
    "mini_xception": Recipe(epochs=1, batch_size=32, scaling="symmetric", rotation=10.0, shift=0.1, zoom=0.1, flip=True,
                            recalibrate=False),
}  # fmt: skip


def kinds() -> list[str]:
    """Return the contenders available on this machine; _x2: two processes with one thread each."""
    names = ["ours", "ours_x2", "reference"]
    if importlib.util.find_spec("torch"):
        names.append("pytorch_float32")
        if machine.bfloat16_on_cpu():
            names += ["pytorch_bfloat16", "pytorch_bfloat16_x2"]
    return names


def race_one(name: str, limits: dict[str, list[float]], bar: tqdm) -> dict[str, Any]:
    """Measure training and prediction of one network by all contenders; append the peak performance to `limits`."""
    pixels, labels, _ = synthetic.competition(training=2048, test=7, seed=2013)
    with ExitStack() as stack:
        racers, speeds = {}, {}
        for kind in kinds():
            bar.set_description(f"{name}, {kind} starts")
            racers[kind] = Racers(kind, name, NETWORKS[name], pixels[:2048], labels[:2048])
            speeds[kind] = {"train": [], "predict": []}
            stack.callback(racers[kind].close)
        for number in range(ROUNDS):
            bar.set_description(f"{name}, round {number + 1} of {ROUNDS}")
            for key, value in contenders.ceiling().items():
                limits.setdefault(key, []).append(value)
            for word in ("train", "predict"):
                for kind, racer in racers.items():
                    speeds[kind][word].append(sum(racer.ask(contenders.speed, word)))
            bar.update()
        memory = {kind: sum(racer.ask(contenders.peak_mb)) for kind, racer in racers.items()}
        (multiply_adds,) = racers["ours"].ask(contenders.multiply_adds)
    entries = {
        kind: {
            **{f"{word}_pictures_per_s": round(statistics.median(each), 1) for word, each in speed.items()},
            "train_rounds": [round(value, 1) for value in speed["train"]],
            "peak_mb": round(memory[kind]),
        }
        for kind, speed in speeds.items()
    }
    return {"multiply_adds": multiply_adds, "contenders": entries}


def race() -> dict[str, Any]:
    """Measure training and prediction of the three networks, and the peak performance."""
    limits: dict[str, list[float]] = {}
    with tqdm(total=len(NETWORKS) * ROUNDS, unit="step") as bar:
        networks = {name: race_one(name, limits, bar) for name in NETWORKS}
    return {"networks": networks, "ceiling": {key: round(max(values), 1) for key, values in limits.items()}}


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
    results = {"machine": about, "race": race()}
    files.write_json(PATH, results)
    print(show(results))


if __name__ == "__main__":
    typer.run(guarded(main))
