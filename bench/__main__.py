"""Race this pipeline against what others use, on this machine, and see how near its ceiling each comes.

Writes results/bench.json and prints its tables. All contenders of one race live on, each in a process of its own, and
take turns, ROUNDS times; what is reported is the median (the ceiling: the best). Takes about 20 minutes on two cores,
which should have nothing else to do. Contenders whose package is missing are left out and named.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from ruamel.yaml import YAML
from tabulate import tabulate
from tqdm import tqdm

from bench import contenders
from bench.contenders import Racers
from pipeline import files
from pipeline.apps import demo
from pipeline.command import guarded
from pipeline.competition import SPLIT_ROWS, SPLITS
from pipeline.config import BACKENDS, Recipe
from pipeline.data import synthetic
from pipeline.training import machine

ROUNDS = 5
PATH = Path("results/bench.json")
# Each network with what its source's recipe has that costs time; what params.yaml tunes must not change the race.
NETWORKS = {
    "alizadeh_same": Recipe(epochs=1, batch_size=64, scaling="raw", flip=True, recalibrate=False),
    "vgg8": Recipe(epochs=1, batch_size=64, rotation=20.0, shift=0.1, flip=True, recalibrate=False),
    "mini_xception": Recipe(epochs=1, batch_size=32, scaling="symmetric", rotation=10.0, shift=0.1, zoom=0.1, flip=True,
                            recalibrate=False),
}  # fmt: skip
STAGES = ("download", "prepare", "audit", "folds", "plan", "train 0", "train 1", "ensemble", "score", "report")
# A process counts the memory of the one that it was forked from as its own: so a small one stands between.
LAUNCHER = """import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)"""


def kinds() -> dict[str, str]:
    """The contenders, and why one is left out ("" where it is not); _x2: two at a time, with one thread each."""
    torch = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"
    narrow = torch or ("" if machine.bfloat16_on_cpu() else "this processor has no bfloat16 products")
    tensorflow = "" if importlib.util.find_spec("tensorflow") else "TensorFlow is not installed"
    return {
        "ours": "", "ours_x2": "", "reference": tensorflow, "pytorch_float32": torch, "pytorch_bfloat16": narrow,
        "pytorch_bfloat16_x2": narrow,
    }  # fmt: skip


def race_one(name: str, limits: dict[str, list[float]], bar: tqdm) -> dict[str, Any]:
    """Training and prediction of one network by all contenders; the ceiling in between is added to `limits`."""
    pixels, labels, _ = synthetic.competition(training=2048, test=7, seed=2013)
    with ExitStack() as stack:
        racers, speeds = {}, {}
        for kind in (kind for kind, why in kinds().items() if not why):
            bar.set_description(f"{name}, {kind} gets ready")
            needs = (contenders.serve, kind, name, NETWORKS[name], pixels[:2048], labels[:2048])
            racers[kind], speeds[kind] = Racers(2 if kind.endswith("_x2") else 1, *needs), {"train": [], "predict": []}
            stack.callback(racers[kind].close)
        for number in range(ROUNDS):
            bar.set_description(f"{name}, round {number + 1} of {ROUNDS}")
            for key, value in contenders.ceiling().items():
                limits.setdefault(key, []).append(value)
            for word in ("train", "predict"):
                for kind, racer in racers.items():
                    speeds[kind][word].append(sum(racer.ask(word)))
            bar.update()
        facts = {kind: racer.ask("facts") for kind, racer in racers.items()}
    return {
        "multiply_adds": facts["ours"][0]["multiply_adds"],
        "batch_size": NETWORKS[name].batch_size,
        "augmentation_ms_a_batch": round(facts["ours"][0]["augmentation_ms"], 2),
        "contenders": {
            kind: {
                **{f"{word}_pictures_per_s": round(statistics.median(s), 1) for word, s in speed.items()},
                "train_rounds": [round(value, 1) for value in speed["train"]],
                "peak_mb": round(sum(each["peak_mb"] for each in facts[kind])),
            }
            for kind, speed in speeds.items()
        },
    }


def race() -> dict[str, Any]:
    """Training and prediction of the three networks, and the ceiling."""
    limits: dict[str, list[float]] = {}
    with tqdm(total=len(NETWORKS) * ROUNDS, unit="step") as bar:
        networks = {name: race_one(name, limits, bar) for name in NETWORKS}
    return {
        "left_out": {kind: why for kind, why in kinds().items() if why},
        "networks": networks,
        "ceiling": {key: round(max(values), 1) for key, values in limits.items()},
        "ceiling_medians": {key: round(statistics.median(values), 1) for key, values in limits.items()},
    }


def stages() -> dict[str, Any]:
    """Seconds and peak MB of each stage, with random faces as many as the competition's, mini_xception, one epoch."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        project, random = Path(folder), np.random.default_rng(2013)
        demo.build(project)
        model = {"architecture": "mini_xception", "epochs": 1}
        document = YAML(typ="safe").load(demo.PARAMS) | {"models": {"mini_xception": model}, "students": {}}
        document |= {"data": {"source": "local"}, "ensemble": {"method": "weights", "members": ["mini_xception"]}}
        YAML().dump(document, project / "params.yaml")
        with open(project / "data/incoming/fer2013.csv", "w") as file:
            file.write("emotion,pixels,Usage\n")
            for split in np.repeat(SPLITS, SPLIT_ROWS):
                pixels = " ".join(map(str, random.integers(0, 256, 2304).tolist()))
                file.write(f"{random.integers(0, 7)},{pixels},{split}\n")
        for stage in tqdm(STAGES, unit="stage"):
            words = [sys.executable, "-m", "pipeline", *stage.replace("train", "train mini_xception").split()]
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", LAUNCHER, *words], cwd=project, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{stage} failed: {done.stderr}")
            found[stage] = {"seconds": round(time.perf_counter() - started, 2), "peak_mb": int(done.stdout) // 1024}
    return found


def race_table(found: dict[str, Any]) -> str:
    """Training and prediction, a line a network and contender."""
    limit = max(value for key, value in found["ceiling"].items() if "copy" not in key)  # in any precision
    lines = []
    for name, network in found["networks"].items():
        reference = network["contenders"].get("reference", {}).get("train_pictures_per_s")
        for kind, speed in network["contenders"].items():
            train = speed["train_pictures_per_s"]
            gflops = 6 * network["multiply_adds"] * train / 1e9
            lines.append([
                name, kind, train, gflops, f"{gflops / limit:.0%}", f"{train / reference:.2f}" if reference else "",
                speed["predict_pictures_per_s"], speed["peak_mb"],
            ])  # fmt: skip
    table = tabulate(
        lines, floatfmt=",.0f", intfmt=",", tablefmt="github", disable_numparse=[4, 5],
        headers=["network", "who", "trained/s", "GFLOP/s", "of ceiling", "to reference", "predicted/s", "peak MB"],
        colalign=["left", "left", *["right"] * 6],
    )  # fmt: skip
    ceiling_line = ", ".join(f"{key} {value:,.1f}" for key, value in found["ceiling"].items())
    left_out = "".join(f"Left out: {kind} ({why}).\n" for kind, why in found["left_out"].items())
    return f"Ceiling, GFLOP/s: {ceiling_line}\n\n{table}\n{left_out}"


def stages_table(found: dict[str, Any]) -> str:
    """A line a stage."""
    lines = [[stage, *entry.values()] for stage, entry in found.items()]
    return tabulate(lines, headers=["stage", "s", "peak MB"], tablefmt="github", floatfmt=",.2f", intfmt=",")


def show(found: dict[str, Any]) -> str:
    """The tables of the sections that were run."""
    head = f"{found['machine']['processor']}, {found['machine']['cores']} cores; medians of {ROUNDS} rounds."
    tables = {"race": race_table, "stages": stages_table}
    return "\n\n".join([head, *(table(found[name]) for name, table in tables.items() if name in found)])


def main(section: Annotated[Literal["all", "race", "stages"], typer.Argument(help="What to measure.")] = "all") -> None:
    """Race this pipeline against what others use, and measure its stages."""
    known = [*BACKENDS, "keras", "numpy", "pandas"]
    here = {
        "processor": machine.processor(), "cores": os.cpu_count(), "bfloat16": machine.bfloat16_on_cpu(),
        "system": platform.system(), "python": platform.python_version(), "rounds": ROUNDS,
        "versions": {name: importlib.metadata.version(name) for name in known if importlib.util.find_spec(name)},
    }  # fmt: skip
    before = json.loads(PATH.read_text()) if PATH.exists() else {}
    found = before if before.get("machine") == here else {"machine": here}
    for name, measure in {"race": race, "stages": stages}.items():
        if section in ("all", name):
            found[name] = measure()
            files.write_json(PATH, found)
    print(show(found))


if __name__ == "__main__":
    typer.run(guarded(main))
