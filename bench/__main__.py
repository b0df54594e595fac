"""Race this pipeline against what others use, on this machine, and see how near its ceiling each comes.

Writes results/bench.json and prints its tables. Every contender runs in a process of its own; all of one race live
on and take turns, ROUNDS times; what is reported is the median (the ceiling: the best). Takes about 20 minutes on two
cores, which should have nothing else to do; with a SECTION (race, reading, overhead, memory) only that is done anew.
The section precision, what bfloat16 costs in accuracy on the faces in data/, is done only when named: half an hour.
Contenders whose package is missing are left out, and said to be: pip install -r bench/requirements.txt brings them.
"""

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from pipeline.params import BACKENDS
from pipeline.stages import train
from ruamel.yaml import YAML
from tabulate import tabulate
from tqdm import tqdm

from bench import ceiling, contenders, precision, reading
from pipeline import command, files, params, recipe
from pipeline.apps import demo
from pipeline.data import faces, synthetic
from pipeline.errors import UserError
from pipeline.training import machine

ROUNDS = 5
STEPS = {"race": 3 * ROUNDS, "reading": ROUNDS, "overhead": ROUNDS, "memory": 10, "precision": 4}
UNASKED = ("race", "reading", "overhead", "memory")
# Each network with what its source's recipe has that costs time; what params.yaml tunes must not change the race.
NETWORKS: dict[str, dict[str, Any]] = {
    "alizadeh_same": {"batch_size": 64, "scaling": "raw", "flip": True},
    "vgg8": {"batch_size": 64, "rotation": 20.0, "shift": 0.1, "flip": True},
    "mini_xception": {
        "batch_size": 32, "scaling": "symmetric", "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "flip": True,
    },
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "epochs": 1, "batch_size": 128, "optimizer": "adam", "weight_decay": 0.0, "learning_rate": 0.001,
    "schedule": "constant", "warmup": 0.0, "plateau_factor": 0.1, "plateau_patience": 10, "average": 0.0,
    "loss": "categorical", "label_smoothing": 0.0, "contrast": "none", "scaling": "unit", "crop": 48, "rotation": 0.0,
    "shift": 0.0, "zoom": 0.0, "flip": False, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0, "plain_epochs": 0,
    "early_epochs": 0, "early_side": 36, "flip_at_test": True, "shift_at_test": 0, "zoom_at_test": 0.0,
    "recalibrate": False, "precision": "auto",
}  # fmt: skip
PATH = Path("results/bench.json")
ROOT = Path(__file__).parent.parent


class Racer:
    """A process that does what it is told, and says how fast."""

    def __init__(self, serve: Callable[..., None], *needs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *needs), daemon=True)
        self.process.start()
        theirs.close()
        self.hear()  # ready

    def say(self, word: str) -> None:
        """Let it begin with `word`."""
        self.pipe.send(word)

    def hear(self) -> Any:
        """Its answer, once it has one."""
        return self.pipe.recv()

    def ask(self, word: str) -> Any:
        """Its answer to `word`."""
        self.say(word)
        return self.hear()

    def close(self) -> None:
        """Let it end."""
        self.pipe.send(None)
        self.process.join()


class Pair:
    """Two Racers who work at the same time: their speeds and sizes are added up."""

    def __init__(self, *needs: Any) -> None:
        self.both = [Racer(*needs), Racer(*needs)]

    def ask(self, word: str) -> Any:
        """Their answers to `word`."""
        if word == "facts":
            return {"peak_mb": sum(racer.ask(word)["peak_mb"] for racer in self.both)}
        for racer in self.both:
            racer.say(word)
        return sum(racer.hear() for racer in self.both)

    def close(self) -> None:
        """Let them end."""
        for racer in self.both:
            racer.close()


def kinds() -> dict[str, str]:
    """The contenders, and why one is left out ("" where it is not); _x2: two at a time, with one thread each."""
    torch = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"
    narrow = torch or ("" if machine.bfloat16_on_cpu() else "this processor has no bfloat16 products")
    tensorflow = "" if importlib.util.find_spec("tensorflow") else "TensorFlow is not installed"
    return {
        "ours": "", "ours_x2": "", "reference": tensorflow, "pytorch_float32": torch, "pytorch_bfloat16": narrow,
        "pytorch_bfloat16_x2": narrow,
    }  # fmt: skip


def race(folder: Path, bar: tqdm) -> dict[str, Any]:
    """Training and prediction of the three networks, and the ceiling measured in between."""
    pixels, labels, _ = synthetic.competition(training=2048, test=7, seed=2013)
    left_out = {kind: why for kind, why in kinds().items() if why}
    limits: dict[str, list[float]] = {}
    found: dict[str, Any] = {"left_out": left_out, "networks": {}}
    with ExitStack() as outer:
        top = Racer(ceiling.serve)
        outer.callback(top.close)
        for name, own in NETWORKS.items():
            settings = params.parse(name, recipe.Recipe, PLAIN | own)
            with ExitStack() as stack:
                racers: dict[str, Racer | Pair] = {}
                for kind in kinds():
                    if kind not in left_out:
                        bar.set_description(f"{name}, {kind} gets ready")
                        needs = (contenders.serve, kind, name, settings, pixels[:2048], labels[:2048])
                        racers[kind] = Pair(*needs) if kind.endswith("_x2") else Racer(*needs)
                        stack.callback(racers[kind].close)
                speeds: dict[str, dict[str, list[float]]] = {kind: {"train": [], "predict": []} for kind in racers}
                for number in range(ROUNDS):
                    bar.set_description(f"{name}, round {number + 1} of {ROUNDS}")
                    for key, value in top.ask("go").items():
                        limits.setdefault(key, []).append(value)
                    for word in ("train", "predict"):
                        for kind, racer in racers.items():
                            speeds[kind][word].append(racer.ask(word))
                    bar.update()
                facts = {kind: racer.ask("facts") for kind, racer in racers.items()}
            own = facts["ours"]
            found["networks"][name] = {
                "multiply_adds": own["multiply_adds"],
                "batch_size": settings.batch_size,
                "augmentation_ms_a_batch": round(own["augmentation_ms"], 2),
                "contenders": {
                    kind: {
                        **{f"{word}_pictures_per_s": round(statistics.median(s), 1) for word, s in speed.items()},
                        "train_rounds": [round(value, 1) for value in speed["train"]],
                        "peak_mb": round(facts[kind]["peak_mb"]),
                    }
                    for kind, speed in speeds.items()
                },
            }
    found["ceiling"] = {key: round(max(values), 1) for key, values in limits.items()}
    found["ceiling_medians"] = {key: round(statistics.median(values), 1) for key, values in limits.items()}
    return found


def competition_file(folder: Path) -> Path:
    """A new fer2013.csv of the real size, in a folder of its own."""
    path = folder / "raw/fer2013.csv"
    path.parent.mkdir()
    reading.write(path)
    return path


def read(folder: Path, bar: tqdm) -> dict[str, Any]:
    """Reading the competition's text, each way in a fresh process, in turns."""
    path = competition_file(folder)
    packages = {"ours": "numpy", "pandas_fromstring": "pandas", "polars": "polars", "pyarrow": "pyarrow"}
    ways = [way for way, package in packages.items() if importlib.util.find_spec(package)]
    runs: dict[str, list[list[float]]] = {way: [] for way in ways}
    for number in range(ROUNDS):
        bar.set_description(f"reading {path.stat().st_size / 1e6:.0f} MB, round {number + 1} of {ROUNDS}")
        for way in ways:
            words = [sys.executable, "-W", "ignore", "-m", "bench.reading", way, str(path), str(folder / "out")]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            runs[way].append([float(word) for word in done.stdout.split()])
        bar.update()
    table = {
        way: {
            "seconds": round(statistics.median(s for s, _ in pairs), 2),
            "peak_mb": round(max(peak for _, peak in pairs)),
        }
        for way, pairs in runs.items()
    }
    return {"bytes": path.stat().st_size, "left_out": [way for way in packages if way not in ways], "ways": table}


def environment() -> dict[str, str]:
    """That of a command in another folder: the same Python, this code."""
    here = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return os.environ | here


# A process counts the memory of the one that it was forked from as its own: so a small one stands between.
LAUNCHER = """import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)"""


def timed(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds of `python -m WORDS` in `folder`, and its peak memory in MB (of its largest process)."""
    started = time.perf_counter()
    command_line = [sys.executable, "-c", LAUNCHER, sys.executable, "-m", *words]
    done = subprocess.run(command_line, cwd=folder, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr}")
    return time.perf_counter() - started, int(done.stdout) / 1024


def overhead(folder: Path, bar: tqdm) -> dict[str, Any]:
    """Seconds of a cell in which nothing is learned (see cell.py), and of runs that find nothing to do."""
    tiny = folder / "tiny"
    demo.build(tiny, ROOT / "pipeline/demo.yaml")
    document = YAML(typ="safe").load((tiny / "params.yaml").read_text())
    document["data"] |= {"training_faces": 112, "test_faces": 14}
    document["folds"] = [0, 1]
    document["train"] |= {"epochs": 1}
    document["architectures"] = {name: {"batch_size": 28} for name in NETWORKS}
    document["students"] = {}
    document["ensemble"]["members"] = list(NETWORKS)
    with open(tiny / "params.yaml", "w") as file:
        YAML().dump(document, file)
    bar.set_description("dvc repro of a tiny competition")
    timed(tiny, "dvc", "repro")
    cells: dict[str, list[float]] = {name: [] for name in NETWORKS}
    idle, nothing = [], []
    for number in range(ROUNDS):
        bar.set_description(f"overhead, round {number + 1} of {ROUNDS}")
        for name in NETWORKS:
            words = [sys.executable, "-m", "bench.cell", name, str(time.time())]
            done = subprocess.run(words, cwd=tiny, env=environment(), capture_output=True, text=True, check=True)
            cells[name].append(float(done.stdout.split()[-1]))
        idle.append(timed(tiny, "dvc", "repro")[0])
        nothing.append(timed(tiny, "pipeline.stages.train")[0])
        bar.update()
    pixels = np.random.default_rng(0).integers(0, 256, (35_887, 48, 48)).astype("uint8")
    usage = np.repeat([0, 1, 2], [28_709, 3_589, 3_589]).astype("uint8")
    whole = faces.Faces(pixels, np.where(usage, -1, np.arange(len(usage)) % 7).astype("int8"), usage)
    whole.save(folder / "faces.npz")
    settings, loading = params.parse("bench", recipe.Recipe, PLAIN), []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        data = faces.load(folder / "faces.npz")
        train.fingerprint(data, np.zeros(28_709, "int64"), settings, "vgg8", 0, 0, "auto")
        loading.append(time.perf_counter() - started)
    return {
        "loading_s": round(statistics.median(loading), 2),
        "cell_s": {name: round(statistics.median(times), 2) for name, times in cells.items()},
        "noop_dvc_repro_6_cells_s": round(statistics.median(idle), 2),
        "noop_train_6_cells_s": round(statistics.median(nothing), 2),
    }


def memory(folder: Path, bar: tqdm) -> dict[str, float]:
    """Peak MB of the stages, but explain and the students', at the real size, with mini_xception for one epoch."""
    full = folder / "full"
    demo.build(full, ROOT / "pipeline/demo.yaml")
    document = YAML(typ="safe").load((full / "params.yaml").read_text())
    document["data"]["source"] = "local"
    document["folds"] = [0, 1]
    document["train"] |= {"epochs": 1}
    document["architectures"] = {"mini_xception": {"batch_size": 128}}
    document["students"] = {}
    document["ensemble"] = {"method": "weights", "members": ["mini_xception"]}
    with open(full / "params.yaml", "w") as file:
        YAML().dump(document, file)
    (full / "data/incoming/fer2013.csv").symlink_to(competition_file(folder))
    order = ["check", "download", "prepare", "folds", "audit", "train 0", "train 1", "ensemble", "score", "report"]
    peaks = {}
    for stage in order:
        bar.set_description(f"memory of {stage}")
        name, *fold = stage.split()
        words = [f"pipeline.{name}", *(["mini_xception", *fold] if fold else [])]
        peaks[name] = round(timed(full, *words)[1])
        bar.update()
    return peaks


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


def reading_table(found: dict[str, Any]) -> str:
    """Seconds and memory, a line a way."""
    return tabulate(
        [[way, entry["seconds"], entry["peak_mb"]] for way, entry in found["ways"].items()],
        headers=[f"reading {found['bytes'] / 1e6:.0f} MB of text", "s", "peak MB"],
        tablefmt="github", floatfmt=",.2f", intfmt=",",
    )  # fmt: skip


def overhead_table(found: dict[str, Any]) -> str:
    """Seconds in which nothing is learned."""
    cells = {
        f"a cell of {name}: start, imports, loading, tracing": seconds for name, seconds in found["cell_s"].items()
    }
    rest = {
        "reading and checking the faces of the real size": found["loading_s"],
        "dvc repro with nothing to do, 6 cells": found["noop_dvc_repro_6_cells_s"],
        "pipeline.stages.train with nothing to do, 6 cells": found["noop_train_6_cells_s"],
    }
    return tabulate((cells | rest).items(), headers=["overhead", "s"], tablefmt="github", floatfmt=".2f")


def memory_table(found: dict[str, Any]) -> str:
    """Peak memory, a line a stage."""
    return tabulate(found.items(), headers=["stage", "peak MB"], tablefmt="github", intfmt=",")


def precision_table(found: dict[str, Any]) -> str:
    """Accuracy in both precisions, and the difference."""
    lines = [[name, f"{found[name]['oof_accuracy']:.2%}", found[name]["oof_log_loss"]] for name in precision.PRECISIONS]
    low, high = found["points_95"]
    table = tabulate(
        lines, headers=[f"{found['network']}, {found['epochs']} epochs", "out of fold", "log-loss"], tablefmt="github",
        floatfmt=".4f", colalign=["left", "right", "right"],
    )  # fmt: skip
    return (
        f"{table}\nbfloat16 gives {found['points']:+.2f} points ({low:+.2f} to {high:+.2f}, 95 %; "
        f"McNemar p = {found['p_value']:.2f}) on {found['rows']:,} rows."
    )


def show(found: dict[str, Any]) -> str:
    """The tables of all sections that were run."""
    tables = {
        "race": race_table, "reading": reading_table, "overhead": overhead_table, "memory": memory_table,
        "precision": precision_table,
    }  # fmt: skip
    head = f"{found['machine']['processor']}, {found['machine']['cores']} cores; medians of {ROUNDS} rounds."
    return "\n\n".join([head, *(table(found[name]) for name, table in tables.items() if name in found)])


def main(section: str | None = None) -> None:
    """Run the command. Each section's results are written as soon as it is finished."""
    sections = {"race": race, "reading": read, "overhead": overhead, "memory": memory, "precision": precision.measure}
    if section is not None and section not in sections:
        raise UserError(f"there is no section {section!r}; there are {', '.join(sections)}")
    known = [*BACKENDS, "keras", "numpy", "pandas", "polars", "pyarrow"]
    here = {
        "processor": machine.processor(), "cores": os.cpu_count(), "bfloat16": machine.bfloat16_on_cpu(),
        "system": platform.system(), "python": platform.python_version(), "rounds": ROUNDS,
        "versions": {name: importlib.metadata.version(name) for name in known if importlib.util.find_spec(name)},
    }  # fmt: skip
    before = json.loads(PATH.read_text()) if PATH.exists() else {}
    found = before if before.get("machine") == here else {"machine": here}
    for name in [section] if section else UNASKED:
        with tempfile.TemporaryDirectory() as folder, tqdm(total=STEPS[name], unit="step") as bar:
            found[name] = sections[name](Path(folder), bar)
        files.write_json(PATH, found)
    print(show(found))


if __name__ == "__main__":
    command.run(main, "python -m bench [SECTION]")
