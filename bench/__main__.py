"""Race this pipeline against what others use, on this machine, and see how near its ceiling each comes.

Writes results/bench.json and prints its tables. Every contender runs in a process of its own; all of one race live
on and take turns, ROUNDS times; what is reported is the median (the ceiling: the best). Takes about 20 minutes on two
cores, which should have nothing else to do. Contenders whose package is missing are left out, and said to be:
pip install -r bench/requirements.txt brings them.
"""

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

from ruamel.yaml import YAML
from tabulate import tabulate
from tqdm import tqdm

from bench import ceiling, contenders, reading
from pipeline import command, competition, demo, machine, recipe, synthetic
from pipeline.params import BACKENDS

ROUNDS = 5
NETWORKS = ("alizadeh_same", "vgg8", "mini_xception")
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
        self.pipe.recv()  # ready

    def ask(self, word: str) -> Any:
        """Its answer to `word`."""
        self.pipe.send(word)
        return self.pipe.recv()

    def close(self) -> None:
        """Let it end."""
        self.pipe.send(None)
        self.process.join()


def kinds() -> dict[str, str]:
    """The contenders, and why one is left out ("" where it is not)."""
    torch = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"
    narrow = torch or ("" if machine.bfloat16_on_cpu() else "this processor has no bfloat16 products")
    tensorflow = "" if importlib.util.find_spec("tensorflow") else "TensorFlow is not installed"
    return {"ours": "", "reference": tensorflow, "pytorch_float32": torch, "pytorch_bfloat16": narrow}


def race(bar: tqdm) -> dict[str, Any]:
    """Training and prediction of the three networks, and the ceiling measured in between."""
    pixels, labels, _ = synthetic.competition(training=2048, test=7, seed=2013)
    left_out = {kind: why for kind, why in kinds().items() if why}
    limits: dict[str, list[float]] = {}
    found: dict[str, Any] = {"left_out": left_out, "networks": {}}
    with ExitStack() as outer:
        top = Racer(ceiling.serve)
        outer.callback(top.close)
        for name in NETWORKS:
            settings = recipe.read(name)
            with ExitStack() as stack:
                racers = {}
                for kind in kinds():
                    if kind not in left_out:
                        bar.set_description(f"{name}, {kind} gets ready")
                        racers[kind] = Racer(contenders.serve, kind, name, settings, pixels[:2048], labels[:2048])
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


def read(folder: Path, bar: tqdm) -> dict[str, Any]:
    """Reading the competition's text, each way in a fresh process, in turns."""
    path = folder / "raw/fer2013.csv"
    path.parent.mkdir()
    reading.write(path)
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


def timed(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds of `python -m WORDS` in `folder`, and its peak memory in MB (of its largest process)."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)} failed: {errors}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def overhead(folder: Path, bar: tqdm) -> dict[str, Any]:
    """Seconds that a cell takes besides its work, and a `dvc repro` that finds nothing to do."""
    tiny = folder / "tiny"
    demo.build(tiny, ROOT / "pipeline/demo.yaml")
    document = YAML(typ="safe").load((tiny / "params.yaml").read_text())
    document["data"] |= {"training_faces": 112, "test_faces": 14}
    document["folds"] = [0, 1]
    document["train"] |= {"epochs": 1}
    document["architectures"] = {name: {"batch_size": 28} for name in NETWORKS}
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
            cells[name].append(timed(tiny, "pipeline.train", name, "0")[0])
        idle.append(timed(tiny, "dvc", "repro")[0])
        nothing.append(timed(tiny, "pipeline.train")[0])
        bar.update()
    return {
        "tiny_cell_s": {name: round(statistics.median(times), 2) for name, times in cells.items()},
        "noop_dvc_repro_6_cells_s": round(statistics.median(idle), 2),
        "noop_train_6_cells_s": round(statistics.median(nothing), 2),
    }


def memory(folder: Path, bar: tqdm) -> dict[str, float]:
    """Peak MB of every stage on a competition of the real size, with mini_xception for one epoch."""
    full = folder / "full"
    demo.build(full, ROOT / "pipeline/demo.yaml")
    document = YAML(typ="safe").load((full / "params.yaml").read_text())
    document["data"]["source"] = "local"
    document["folds"] = [0, 1]
    document["train"] |= {"epochs": 1}
    document["architectures"] = {"mini_xception": {"batch_size": 128}}
    document["ensemble"] = {"method": "weights", "members": ["mini_xception"]}
    with open(full / "params.yaml", "w") as file:
        YAML().dump(document, file)
    (full / "data/incoming/fer2013.csv").symlink_to(folder / "raw/fer2013.csv")
    order = ["check", "download", "prepare", "folds", "audit", "train 0", "train 1", "ensemble", "score"]
    peaks = {}
    for stage in order:
        bar.set_description(f"memory of {stage}")
        name, *fold = stage.split()
        words = [f"pipeline.{name}", *(["mini_xception", *fold] if fold else [])]
        peaks[name] = round(timed(full, *words)[1])
        bar.update()
    return peaks


def show(found: dict[str, Any]) -> str:
    """The tables."""
    limit = max(value for key, value in found["race"]["ceiling"].items() if key.startswith("float32"))
    lines = []
    for name, network in found["race"]["networks"].items():
        reference = network["contenders"].get("reference", {}).get("train_pictures_per_s")
        for kind, speed in network["contenders"].items():
            train = speed["train_pictures_per_s"]
            gflops = 6 * network["multiply_adds"] * train / 1e9
            lines.append([
                name, kind, train, gflops, f"{gflops / limit:.0%}", f"{train / reference:.2f}" if reference else "",
                speed["predict_pictures_per_s"], speed["peak_mb"],
            ])  # fmt: skip
    race_table = tabulate(
        lines, floatfmt=",.0f", tablefmt="github", disable_numparse=[4, 5],
        headers=["network", "who", "trained/s", "GFLOP/s", "of ceiling", "to reference", "predicted/s", "peak MB"],
        colalign=["left", "left", *["right"] * 6],
    )  # fmt: skip
    read_table = tabulate(
        [[way, entry["seconds"], entry["peak_mb"]] for way, entry in found["reading"]["ways"].items()],
        headers=["reading 301 MB", "s", "peak MB"], tablefmt="github", floatfmt=",.2f", intfmt=",",
    )  # fmt: skip
    rest = {
        **{f"a tiny cell of {name}, s": value for name, value in found["overhead"]["tiny_cell_s"].items()},
        "dvc repro with nothing to do, 6 cells, s": found["overhead"]["noop_dvc_repro_6_cells_s"],
        "pipeline.train with nothing to do, 6 cells, s": found["overhead"]["noop_train_6_cells_s"],
        **{
            f"augmentation of a batch, {name}, ms": network["augmentation_ms_a_batch"]
            for name, network in found["race"]["networks"].items()
        },
        **{f"peak of {stage}, MB": value for stage, value in found["memory_mb"].items()},
    }
    left_out = "\n".join(f"Left out: {kind} ({why})." for kind, why in found["race"]["left_out"].items())
    head = ", ".join(f"{key} {value:,.1f}" for key, value in found["race"]["ceiling"].items())
    return (
        f"{found['machine']['processor']}, {found['machine']['cores']} cores. Ceiling, GFLOP/s: {head}\n\n"
        f"{race_table}\n"
        f"{left_out}\n\n{read_table}\n\n{tabulate(rest.items(), tablefmt='github', headers=['what', ''])}"
    )


def processor() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main() -> None:
    """Run the command."""
    steps = len(NETWORKS) * ROUNDS + 2 * ROUNDS + 9
    with tempfile.TemporaryDirectory() as name, tqdm(total=steps) as bar:
        folder = Path(name)
        known = [*BACKENDS, "keras", "numpy", "pandas", "polars", "pyarrow"]
        found = {
            "machine": {
                "processor": processor(), "cores": os.cpu_count(), "bfloat16": machine.bfloat16_on_cpu(),
                "system": platform.system(), "python": platform.python_version(),
                "versions": {p: machine.importlib.metadata.version(p) for p in known if importlib.util.find_spec(p)},
            },
            "rounds": ROUNDS,
            "race": race(bar),
            "reading": read(folder, bar),
            "overhead": overhead(folder, bar),
            "memory_mb": memory(folder, bar),
        }  # fmt: skip
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(found, indent=2) + "\n")
    print(show(found))
    print(f"\n{PATH} has it all. {competition.SIDE}x{competition.SIDE} pictures; medians of {ROUNDS} rounds.")


if __name__ == "__main__":
    command.run(main, "python -m bench")
