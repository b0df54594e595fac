"""Command line of the project: one command per stage of dvc.yaml and per verb of the Makefile."""

import functools
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.command import guarded

app = typer.Typer(
    help="Facial expression recognition on FER2013, from the competition's files to scored submissions. "
    "Models, recipes and folds are defined in params.yaml. Run `make` for the everyday commands.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
STAGES, RUNS, KAGGLE = "Stages of dvc.yaml", "Whole runs", "Kaggle"
USE, MEASURE = "Use of trained networks", "Analysis and experiments"
Register = Callable[[Callable[..., None]], Callable[..., None]]


def verb(panel: str, module: str = "", function: str = "main", settings: bool = True) -> Register:
    """Return a decorator that registers a function as a command; its docstring is the help text.

    Parameters
    ----------
    panel : heading of the help page under which the command is listed.
    module, function : the command calls this function of pipeline.MODULE with its options. Default: the function that
        is registered.
    settings : whether to validate params.yaml before the command starts.
    """

    def register(declared: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(declared)
        def run(**options: Any) -> None:
            if settings:
                call("config", function="load")
            if module:
                call(module, function=function, **options)
            else:
                declared(**options)

        return app.command(rich_help_panel=panel)(guarded(run))

    return register


def call(module: str, *words: Any, function: str = "main", **options: Any) -> None:
    """Import pipeline.MODULE and call one of its functions. Late imports keep the help page fast."""
    getattr(import_module(f"pipeline.{module}"), function)(*words, **options)


@verb(STAGES, "kaggle.download")
def download() -> None:
    """Collect the competition's files in data/raw/, as data.source of params.yaml says."""


@verb(STAGES, "data.prepare")
def prepare() -> None:
    """Convert data/raw/ to data/faces.npz, with the test labels apart in data/solution.csv."""


@verb(STAGES, "data.folds")
def folds() -> None:
    """Assign the Training rows to the cross-validation folds of every model, in data/folds/."""


@verb(STAGES, "evaluation.audit")
def audit() -> None:
    """Count classes, constant pictures and duplicates, in results/data.json."""


@verb(STAGES)
def plan(
    show: Annotated[bool, typer.Option("--show", help="Also list stale cells, reasons and estimated times.")] = False,
) -> None:
    """Write the resolved recipe and code digests of every model to artifacts/plan/."""
    call("cells.planning", function="show" if show else "main")


@verb(STAGES)
def train(
    model: Annotated[str | None, typer.Argument(help="Model or student. Default: train all stale cells.")] = None,
    fold: Annotated[str | None, typer.Argument(help="Fold that is held out, or several: 0,1. Default: all.")] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Retrain cells even if they are up to date.")] = False,
    adopt: Annotated[
        str | None, typer.Option(metavar="REASON", help="Keep a stale cell that the changed code does not affect.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Networks to train in parallel.", min=1, max=256, metavar="N")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads per training. For 2 jobs on 2 cores: 1.", min=1, max=999, metavar="N")
    ] = None,
    executor: Annotated[Literal["loky", "dask", "ray"], typer.Option(help="Library that runs the jobs.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler or Ray cluster.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Allow trainings over ten minutes.", envvar="YES")] = False,
) -> None:
    """Train all cells that are stale, those of one MODEL, or some of its folds."""
    if (retrain and (model is None or adopt)) or (adopt is not None and not (fold and adopt)):
        raise typer.BadParameter("--retrain needs a MODEL, --adopt a MODEL, a FOLD and a reason, and not --retrain")
    if address and executor == "loky":
        raise typer.BadParameter("--address needs --executor dask or ray")
    if threads is not None:  # TensorFlow reads it when it is imported
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    if model is None:
        call("cells.train", jobs, executor, address, yes, function="main_all")
    elif adopt:
        call("cells.train", model, fold, adopt, function="adopt")
    else:
        call("cells.train", model, fold, jobs, executor, address, retrain, yes)


@verb(STAGES, "cells.soft_targets")
def soft_targets(student: Annotated[str, typer.Argument(help="Name of a student in params.yaml.")]) -> None:
    """Average the teachers' predictions as the soft targets of a student."""


@verb(STAGES, "evaluation.ensemble")
def ensemble() -> None:
    """Average the folds of each model, and blend the models into the ensemble."""


@verb(STAGES)
def score(
    file: Annotated[Path | None, typer.Argument(help="Score only this submission file, and write nothing.")] = None,
) -> None:
    """Write and score all submissions, or score one FILE."""
    if file is None:
        call("evaluation.score")
    else:
        call("evaluation.score", file, function="score_file")


@verb(STAGES, "evaluation.report")
def report() -> None:
    """Write the report: results/report.html and results/report.md."""


@verb(RUNS)
def check() -> None:
    """Validate params.yaml, and report the errors in it."""
    print("params.yaml is valid")


@verb(RUNS, "cells.pack", "pack")
def pack(archive: Annotated[Path, typer.Argument(help="Archive to write.")] = Path("fer2013-run.tar.gz")) -> None:
    """Pack code, data and finished cells for a machine without DVC, for example with a GPU."""


@verb(RUNS, "cells.pack", "unpack")
def unpack(archive: Annotated[Path, typer.Argument(help="Archive of the other machine's artifacts/.")]) -> None:
    """Import the cells that another machine trained for this run."""


@verb(RUNS)
def quick() -> None:
    """Run the whole pipeline on a fifth of the real faces, in quick/."""
    call("apps.demo", quick=True)


@verb(RUNS, "apps.demo", settings=False)
def demo() -> None:
    """Run the whole pipeline on synthetic drawn faces, in demo/."""


@verb(KAGGLE, "kaggle.submit")
def submit(
    name: Annotated[str, typer.Argument(help="Name of the submission file: submissions/NAME.csv.")] = "ensemble",
    message: Annotated[str, typer.Option(help="Description shown in Kaggle's list of submissions.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Submit even if Kaggle already has the same file.")] = False,
) -> None:
    """Submit a file to Kaggle, and wait for its score."""


@verb(KAGGLE, "kaggle.leaderboard")
def leaderboard(
    refresh: Annotated[bool, typer.Option("--refresh", help="First fetch the scores from Kaggle.")] = False,
    form: Annotated[Literal["text", "md", "csv", "json"], typer.Option("--format", help="Output format.")] = "text",
) -> None:
    """Rank our submissions among the teams of the 2013 competition."""


@verb(USE, "apps.predict", settings=False)
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders, .csv, .tar.gz, videos, or camera[:NUMBER].")],
    network: Annotated[str, typer.Option(help="released, ensemble, speedrun, MODEL or MODEL-FOLDS.")] = "released",
    csv: Annotated[Path | None, typer.Option(help="Table to write: boxes, labels and probabilities.")] = None,
    out: Annotated[Path | None, typer.Option(help="File or folder for annotated pictures and videos.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add Grad-CAM heat maps to the files in --out.")] = False,
    faces: Annotated[Literal["largest", "all"], typer.Option(help="Faces to classify in each picture.")] = "largest",
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Skip detection: each picture is one face.")] = False,
    smooth: Annotated[
        float, typer.Option(help="Seconds over which a video's predictions are averaged.", min=0, max=60, metavar="SEC")
    ] = 0.5,
) -> None:
    """Classify the expressions of faces in pictures, tables, videos or a camera's stream."""


@verb(USE, "apps.serve", settings=False)
def serve(
    port: Annotated[int, typer.Option(help="TCP port; 0 selects a free one.", min=0, max=65535, metavar="N")] = 8013,
    host: Annotated[str, typer.Option(help="Address; 0.0.0.0 admits all machines, without password.")] = "127.0.0.1",
) -> None:
    """Start a local web page that classifies pictures and camera frames."""


@verb(USE, "apps.release")
def release(
    name: Annotated[str, typer.Argument(help="Model to release. Default: the best out of fold.")] = "",
    fold: Annotated[str, typer.Argument(help="Folds whose networks are packed, like 0 or 0,1,2.")] = "0",
) -> None:
    """Pack trained networks of one model into released/, with a model card."""


@verb(USE, "apps.export", settings=False)
def export(
    name: Annotated[str, typer.Argument(help="Trained model to export. Default: the released network.")] = "",
    fold: Annotated[str, typer.Argument(help="Fold whose network is exported. Default: the first.")] = "",
) -> None:
    """Export a network to ONNX and LiteRT, in artifacts/exported/."""


@verb(USE, "apps.outside")
def outside(
    file: Annotated[str, typer.Argument(help="Keras file: .keras, .h5 or .hdf5.")],
    side: Annotated[int, typer.Option(help="Input width and height in pixels.", min=8, max=1024, metavar="N")] = 48,
    scaling: Annotated[
        Literal["unit", "symmetric", "raw"], typer.Option(help="Input range: 0..1, -1..1 or 0..255.")
    ] = "unit",
    classes: Annotated[str, typer.Option(help="Class names in the order of its outputs, if not the usual one.")] = "",
    out: Annotated[str, typer.Option(help="JSON file to write the scores to.")] = "",
) -> None:
    """Evaluate a Keras network from outside this project."""


@verb(MEASURE, "evaluation.browse")
def browse() -> None:
    """Write artifacts/browse.html: out-of-fold errors, disagreement and duplicates, picture by picture."""


@verb(MEASURE, "evaluation.limits")
def limits(
    names: Annotated[list[str] | None, typer.Argument(help="Models to analyse. Default: all.")] = None,
    hours: Annotated[
        list[float] | None, typer.Option(help="Budget in core-hours per fold; may be repeated.", min=0.01, max=1e6)
    ] = None,
) -> None:
    """Estimate the Brier score of ensembles of infinitely many networks, per model and combined."""


@verb(MEASURE, "experiments.speedrun")
def speedrun(
    every: Annotated[bool, typer.Option("--all", help="Train all seeds, for results/speedrun.json.")] = False,
) -> None:
    """Train a small network on all Training rows, and score it."""


@verb(MEASURE, "experiments.claims")
def claims(
    name: Annotated[str, typer.Argument(help="Reference network. Default: all.")] = "",
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the source's.", min=1, metavar="N")] = None,
) -> None:
    """Reproduce published networks with the recipes and protocols of their sources."""


@verb(MEASURE, "experiments.seeds")
def seeds(
    numbers: Annotated[list[int], typer.Argument(help="Two or more seeds.", min=0, max=2**32 - 1, metavar="SEED")],
) -> None:
    """Repeat the whole run with other seeds, and report mean and standard deviation."""


if __name__ == "__main__":
    app(prog_name="python -m pipeline")
