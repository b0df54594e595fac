"""The command line: every stage of dvc.yaml and every other verb, with help, types and completion."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.command import guarded

app = typer.Typer(
    help="FER2013 from the competition's files to scored submissions.", no_args_is_help=True,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode=None,
)  # fmt: skip
STAGES, TRAINING, KAGGLE, USE, MEASURE = "Stages of dvc.yaml", "Training", "Kaggle", "Using networks", "Measuring"
Jobs = Annotated[int, typer.Option(help="How many to train at a time.", min=1, max=256, envvar="JOBS")]
Threads = Annotated[
    int | None, typer.Option(help="Threads of each; with two jobs on two cores 1 is fastest.", min=1, max=999)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before long trainings.", envvar="YES")]
Model = Annotated[str, typer.Argument(help="A model of params.yaml.")]
Fold = Annotated[str, typer.Argument(help="A fold of params.yaml.")]


def verb(panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command under a heading; its docstring is its help."""
    return lambda function: app.command(rich_help_panel=panel)(guarded(function))


def call(module: str, *words: Any, function: str = "main", **options: Any) -> None:
    """Call a function of pipeline.MODULE, which is imported only now."""
    getattr(import_module(f"pipeline.{module}"), function)(*words, **options)


def limit_threads(threads: int | None) -> None:
    """Tell TensorFlow, before it is imported, how many threads each training may use."""
    if threads is not None:
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)


@verb(STAGES)
def download() -> None:
    """Bring the competition's files to data/raw/."""
    call("kaggle.download")


@verb(STAGES)
def prepare() -> None:
    """Read them into data/faces.npz, and put the test labels into data/solution.csv."""
    call("data.prepare")


@verb(STAGES)
def folds() -> None:
    """Deal the Training rows into data/folds.csv."""
    call("data.folds")


@verb(STAGES)
def audit() -> None:
    """Count classes, constant pictures and duplicates."""
    call("evaluation.audit")


@verb(STAGES)
def plan(
    show: Annotated[bool, typer.Option(help="Print what is stale, why, and how long it will take.")] = False,
) -> None:
    """Write artifacts/plan/: all that decides each model's cells."""
    call("cells.planning", function="show" if show else "main")


@verb(STAGES)
def soft_targets(student: Annotated[str, typer.Argument(help="A student of params.yaml.")]) -> None:
    """Average what a student's teachers say of the rows that they were trained on."""
    call("cells.soft_targets", student)


@verb(STAGES)
def train(
    model: Annotated[str | None, typer.Argument(help="A model of params.yaml; without one, all stale cells.")] = None,
    fold: Annotated[str | None, typer.Argument(help="One of its folds.")] = None,
    anew: Annotated[bool, typer.Option(help="Train it even if it is there.")] = False,
    jobs: Jobs = 1,
    threads: Threads = None,
    executor: Annotated[Literal["loky", "dask", "ray"], typer.Option(help="What runs the trainings.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Of a Dask scheduler or Ray cluster that runs already.")] = None,
    yes: Yes = False,
) -> None:
    """Train one cell, or every cell that DVC calls out of date, JOBS at a time."""
    limit_threads(threads)
    if model is not None and fold is None:
        raise typer.BadParameter("name a fold too: python -m pipeline train MODEL FOLD")
    if model is None:
        call("cells.train", jobs, executor, address, yes, function="main_all")
    else:
        call("cells.train", model, fold, anew, yes)


@verb(STAGES)
def ensemble() -> None:
    """Blend the folds of every model, and the models with each other."""
    call("evaluation.ensemble")


@verb(STAGES)
def score(
    file: Annotated[Path | None, typer.Argument(help="Score this submission file, and write nothing.")] = None,
) -> None:
    """Write every submission and score it; or score one FILE."""
    if file is None:
        call("evaluation.score")
    else:
        call("evaluation.score", file, function="score_file")


@verb(STAGES)
def report() -> None:
    """Write results/report.html and results/report.md."""
    call("evaluation.report")


@verb(KAGGLE)
def submit(
    name: Annotated[str, typer.Argument(help="Send submissions/NAME.csv.")] = "ensemble",
    message: Annotated[str, typer.Option(help="For Kaggle's list.")] = "",
    force: Annotated[bool, typer.Option(help="Send it even if Kaggle has the same bytes.", envvar="FORCE")] = False,
) -> None:
    """Send a submission to Kaggle and wait for its score."""
    call("kaggle.submit", name or "ensemble", message, force)


@verb(KAGGLE)
def leaderboard(
    refresh: Annotated[bool, typer.Option(help="Ask Kaggle for its scores first.", envvar="REFRESH")] = False,
) -> None:
    """Show our submissions among the teams of 2013."""
    call("kaggle.leaderboard", refresh)


@verb(USE)
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders, .csv, .tar.gz, videos, or camera[:NUMBER].")],
    network: Annotated[str, typer.Option(help="released, ensemble, MODEL or MODEL-FOLD.")] = "released",
    csv: Annotated[Path | None, typer.Option(help="Write boxes, labels and probabilities there.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write annotated pictures and videos there.")] = None,
    explain: Annotated[bool, typer.Option(help="Show in --out where the network looks (Grad-CAM).")] = False,
    faces: Annotated[Literal["largest", "all"], typer.Option(help="Which faces of a picture.")] = "largest",
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Every picture is one face: look for none.")] = False,
    margin: Annotated[
        float, typer.Option(help="Part of a found box's side, added on every side.", min=-0.4, max=4)
    ] = 0.02,
    smooth: Annotated[
        float, typer.Option(help="Seconds over which a video's answers are averaged.", min=0, max=60)
    ] = 0.5,
    frames: Annotated[int | None, typer.Option(help="Stop after so many frames of each input.", min=1)] = None,
) -> None:
    """Name the expressions in pictures, tables, videos, or before a camera."""
    call("apps.predict", inputs, network=network, csv=csv, out=out, explain=explain, faces=faces, no_detect=no_detect,
         margin=margin, smooth=smooth, frames=frames)  # fmt: skip


@verb(USE)
def release(name: Annotated[str, typer.Argument(help="A model; without one, the best out of fold.")] = "",
            fold: Fold = "0") -> None:  # fmt: skip
    """Pack a trained network into released/, under 5 MB, with a model card."""
    call("apps.release", name, fold or "0")


@verb(USE)
def export(name: Annotated[str, typer.Argument(help="A trained model; without one, the released network.")] = "",
           fold: Annotated[str, typer.Argument(help="Its fold.")] = "") -> None:  # fmt: skip
    """Write a network for ONNX and LiteRT into artifacts/exported/."""
    call("apps.export", name, fold)


@verb(USE)
def outside(
    file: Annotated[str, typer.Argument(help="A Keras file.")],
    side: Annotated[int, typer.Option(help="Pixels across that it takes.", min=8, max=1024)] = 48,
    scaling: Annotated[Literal["unit", "symmetric", "raw"], typer.Option(help="Grey levels that it takes.")] = "unit",
    classes: Annotated[str, typer.Option(help="Its outputs' names, where their order is another.")] = "",
    out: Annotated[str, typer.Option(help="Write the scores there, as .json.")] = "",
) -> None:
    """Score somebody else's Keras file."""
    call("apps.outside", file, side, scaling, classes, out)


@verb(USE)
def demo() -> None:
    """Run the whole pipeline on drawn faces, in demo/."""
    call("apps.demo")


@verb(MEASURE)
def speedrun(jobs: Jobs = 1, threads: Threads = None) -> None:
    """Train small networks on all Training rows, and score them."""
    limit_threads(threads)
    call("experiments.speedrun", jobs)


@verb(MEASURE)
def claims(name: Annotated[str, typer.Argument(help="A reference network; without one, all.")] = "",
           epochs: Annotated[int | None, typer.Option(help="Instead of the source's.", min=1)] = None) -> None:  # fmt: skip
    """Run the sources' own recipes and protocols."""
    call("experiments.claims", name, epochs)


@verb(MEASURE)
def seeds(numbers: Annotated[list[int], typer.Argument(help="Two or more seeds.", min=0, max=2**32 - 1)]) -> None:
    """Run everything again with other seeds, for mean and deviation."""
    call("experiments.seeds", numbers)


if __name__ == "__main__":
    app(prog_name="python -m pipeline")
