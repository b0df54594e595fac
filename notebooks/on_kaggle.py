# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # FER2013 on Kaggle: from the mounted files to `submission.csv`
#
# In the panel next to this notebook:
#
# 1. **Add Input**: the competition *Challenges in Representation Learning: Facial Expression Recognition Challenge*
#    (accept its rules once).
# 2. Choose a **GPU** as accelerator.
# 3. Switch **Internet** on, or attach the repository as a dataset.
#
# Then **Run All**. The output folder will contain `submission.csv`, `scores.csv`, `results/` (start with `report.html`)
# and `artifacts/` (the trained networks and their predictions).

# %%
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from IPython.display import Image, display
from packaging.requirements import Requirement

CODE = os.environ.get("FER2013_CODE", "")  # URL or folder of the repository; "": the attached dataset
INPUT = Path(os.environ.get("FER2013_INPUT", "/kaggle/input"))
OUTPUT = Path(os.environ.get("FER2013_OUTPUT", "/kaggle/working"))
PROJECT = Path(tempfile.gettempdir()) / "fer2013"  # working folder; an interrupted run resumes from it

# %% [markdown]
# ## The code

# %%
if not CODE:
    places = [place for depth in range(1, 5) for place in INPUT.glob(f"{'*/' * depth}pipeline/config.py")]
    if not places:
        raise FileNotFoundError(f"{INPUT} contains no code: set CODE above, or attach the repository as a dataset")
    CODE = str(places[0].parents[1])
if (PROJECT / "pipeline").exists():
    print(f"using the existing {PROJECT}")
elif re.match(r"\w+://|git@", CODE):
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", CODE, str(PROJECT)], check=True)
    for name in ("results", "artifacts"):  # those of the committed run
        shutil.rmtree(PROJECT / name, ignore_errors=True)
else:
    shutil.copytree(Path(CODE, "pipeline"), PROJECT / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    if Path(CODE, "external").is_dir():
        shutil.copytree(Path(CODE, "external"), PROJECT / "external")
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copyfile(Path(CODE, name), PROJECT / name)
print(f"the code is from {CODE}")

# %%
NOT_HERE = {"dvc", "kaggle", "six", "tensorflow"}  # the stages need neither the first three nor a certain backend


def is_missing(wanted: Requirement) -> bool:
    """Return whether a package must be installed. Installed packages are kept, except a Keras that is too old."""
    if wanted.name in NOT_HERE:
        return False
    try:
        found = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return wanted.name == "keras" and found not in wanted.specifier


dependencies = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
missing = [line for line in dependencies if is_missing(Requirement(line))]
print(f"to install: {', '.join(missing) or 'nothing'}")
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)

# %% [markdown]
# ## The data

# %%
sys.path.insert(0, str(PROJECT))
from ruamel.yaml import YAML  # noqa: E402

from pipeline.competition import CHECKSUMS, SLUG  # noqa: E402
from pipeline.training import machine  # noqa: E402

mounted = next((place for place in (INPUT / SLUG, INPUT / "competitions" / SLUG) if place.is_dir()), None)
if mounted is None:
    raise FileNotFoundError(f"{INPUT} contains no {SLUG}: attach the competition with Add Input, next to this notebook")
incoming = PROJECT / "data/incoming"
incoming.mkdir(parents=True, exist_ok=True)
for path in sorted(mounted.rglob("*")):
    if path.is_file() and (path.name in CHECKSUMS or path.suffix == ".zip"):
        (incoming / path.name).unlink(missing_ok=True)
        (incoming / path.name).symlink_to(path)
        print(f"{path.name}  {path.stat().st_size:,} bytes")

yaml, params = YAML(), PROJECT / "params.yaml"
document = yaml.load(params.read_text())
document["data"]["source"] = "local"
yaml.dump(document, params)

# %% [markdown]
# ## The run
#
# The backend is JAX if it finds a GPU, otherwise TensorFlow. Each GPU trains one network at a time. All commands work
# on files, so **Run All** after an interruption resumes from the last epoch, as long as the machine is the same.

# %%
sees_gpu = subprocess.run([sys.executable, "-c", "import jax; jax.devices('gpu')"], capture_output=True).returncode == 0
otherwise = "tensorflow" if importlib.util.find_spec("tensorflow") else "auto"
os.environ.setdefault("KERAS_BACKEND", "jax" if sees_gpu else otherwise)
os.environ["YES"] = "1"  # allow long trainings
JOBS = int(os.environ.get("JOBS") or max(1, len(machine.gpus())))
print(f"{machine.choose('auto')} on {len(machine.gpus())} GPUs, {JOBS} networks in parallel")


def run(*words: str) -> None:
    """Run a command of the pipeline and print its output immediately."""
    started, verb = time.monotonic(), " ".join(words)
    print(f"--- {verb}", flush=True)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline", *words], cwd=PROJECT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"{verb} failed with status {process.returncode}; see the output above")
    print(f"--- {verb}: {time.monotonic() - started:.0f} s", flush=True)


def train(names: list[str]) -> None:
    """Train all folds of these models, JOBS in parallel."""
    with ThreadPoolExecutor(JOBS) as pool:
        models = document["models"] | document["students"]
        folds = {name: range(models[name].get("folds", document["folds"])) for name in names}
        cells = [pool.submit(run, "train", name, str(fold)) for name in names for fold in folds[name]]
        try:
            for cell in cells:
                cell.result()
        finally:
            pool.shutdown(cancel_futures=True)


for verb in ("check", "download", "prepare", "audit", "folds", "plan"):
    run(verb)
train(list(document["models"]))
for name in document["students"]:
    run("soft-targets", name)
train(list(document["students"]))
for verb in ("ensemble", "score", "report"):
    run(verb)

# %% [markdown]
# ## The results

# %%
OUTPUT.mkdir(parents=True, exist_ok=True)
shutil.copyfile(PROJECT / "submissions/ensemble.csv", OUTPUT / "submission.csv")
shutil.copyfile(PROJECT / "submissions/scores.csv", OUTPUT / "scores.csv")
shutil.copytree(PROJECT / "results", OUTPUT / "results", dirs_exist_ok=True)
PARTS = ("plan", "cells", "students", "weights")
for part in PARTS:
    if (PROJECT / "artifacts" / part).exists():
        shutil.copytree(PROJECT / "artifacts" / part, OUTPUT / "artifacts" / part, dirs_exist_ok=True)
run("leaderboard")

# %%
for name in ("board", "curves", "confusion"):
    display(Image(PROJECT / f"results/plots/{name}.png"))
