"""The command line: every stage of dvc.yaml and every other verb, with help, types and completion."""

import functools
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.command import guarded

app = typer.Typer(
    help="FER2013 from the competition's files to scored submissions. What decides the results stands in params.yaml; "
    "`make` lists the verbs for every day.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
STAGES, KAGGLE, USE, MEASURE = "Stages of dvc.yaml", "Kaggle", "Using networks", "Measuring"

Jobs = Annotated[int, typer.Option(help="Networks to train at a time.", min=1, max=256, metavar="N")]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of each; with two jobs on two cores 1 is fastest.", min=1, max=999, metavar="N"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before long trainings.", envvar="YES")]


def verb(panel: str, settings: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command under a heading; its docstring is its help.

    Parameters
    ----------
    settings : whether all of params.yaml must be right before it starts.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*words: Any, **options: Any) -> None:
            if settings:
                call("config", function="load")
            function(*words, **options)

        return app.command(rich_help_panel=panel)(guarded(run))

    return register


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
    """Read them into data/faces.npz, and put the test labels away."""
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
    show: Annotated[bool, typer.Option("--show", help="Print what is stale, why, and how long it will take.")] = False,
) -> None:
    """Write all that decides each model's cells to artifacts/plan/."""
    call("cells.planning", function="show" if show else "main")


@verb(STAGES)
def train(
    model: Annotated[str | None, typer.Argument(help="A model of params.yaml; without one, all stale cells.")] = None,
    fold: Annotated[str | None, typer.Argument(help="One of its folds.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Train the cell even if it is there.")] = False,
    adopt: Annotated[str, typer.Option(metavar="WHY", help="Take a cell that other code made as it is.")] = "",
    jobs: Jobs = 1,
    threads: Threads = None,
    executor: Annotated[Literal["loky", "dask", "ray"], typer.Option(help="What runs the trainings.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Of a running Dask scheduler or Ray cluster.")] = None,
    yes: Yes = False,
) -> None:
    """Train one cell (MODEL FOLD), or every cell that DVC calls stale."""
    if model is None and (anew or adopt):
        raise typer.BadParameter("--anew and --adopt go with a MODEL and a FOLD")
    if model is not None and fold is None:
        raise typer.BadParameter("name a fold too: python -m pipeline train MODEL FOLD")
    limit_threads(threads)
    if model is None:
        call("cells.train", jobs, executor, address, yes, function="main_all")
    elif adopt:
        call("cells.train", model, fold, adopt, function="adopt")
    else:
        call("cells.train", model, fold, anew, yes)


@verb(MEASURE)
def pack(
    archive: Annotated[Path, typer.Argument(help="Write it there.")] = Path("fer2013-run.tar.gz"),
) -> None:
    """Pack the run for a machine without DVC, for example with a GPU."""
    call("cells.pack", archive, function="pack")


@verb(MEASURE)
def unpack(archive: Annotated[Path, typer.Argument(help="An archive of the other machine's artifacts/.")]) -> None:
    """Take the cells that another machine has trained."""
    call("cells.pack", archive, function="unpack")


@verb(STAGES)
def soft_targets(student: Annotated[str, typer.Argument(help="A student of params.yaml.")]) -> None:
    """Average what a student's teachers predict of their training rows."""
    call("cells.soft_targets", student)


@verb(STAGES)
def ensemble() -> None:
    """Blend the folds of every model, and the models with each other."""
    call("evaluation.ensemble")


@verb(STAGES)
def score(
    file: Annotated[Path | None, typer.Argument(help="Score this submission file alone, and write nothing.")] = None,
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


@verb(STAGES)
def check() -> None:
    """Check params.yaml, and report every mistake in it."""
    print("params.yaml is right")


@verb(KAGGLE)
def submit(
    name: Annotated[str, typer.Argument(help="Send submissions/NAME.csv.")] = "ensemble",
    message: Annotated[str, typer.Option(help="For Kaggle's list.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Send it even if Kaggle has the same bytes.")] = False,
) -> None:
    """Send a submission to Kaggle and wait for its score."""
    call("kaggle.submit", name, message, force)


@verb(KAGGLE)
def leaderboard(
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask Kaggle for its scores first.")] = False,
    form: Annotated[Literal["text", "md", "csv", "json"], typer.Option("--format", help="How to print it.")] = "text",
) -> None:
    """Show our submissions beside the teams of 2013."""
    call("kaggle.leaderboard", refresh, form)


@verb(USE, settings=False)
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders, .csv, .tar.gz, videos, or camera[:NUMBER].")],
    network: Annotated[str, typer.Option(help="released, ensemble, MODEL or MODEL-FOLD.")] = "released",
    csv: Annotated[Path | None, typer.Option(help="Write boxes, labels and probabilities there.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write annotated pictures and videos there.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show in --out where the network looks (Grad-CAM).")
    ] = False,
    faces: Annotated[Literal["largest", "all"], typer.Option(help="Which faces of a picture.")] = "largest",
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Every picture is one face: look for none.")] = False,
    smooth: Annotated[
        float, typer.Option(help="Seconds over which a video's predictions are averaged.", min=0, max=60, metavar="SEC")
    ] = 0.5,
) -> None:
    """Name the expressions in pictures, tables, videos, or at a camera."""
    call("apps.predict", inputs, network=network, csv=csv, out=out, explain=explain, faces=faces, no_detect=no_detect,
         smooth=smooth)  # fmt: skip


@verb(USE, settings=False)
def serve(
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535, metavar="N")] = 8013,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in, without a password.")] = "127.0.0.1",
) -> None:
    """Name the expressions in pictures on a web page of this machine."""
    call("apps.serve", host, port)


@verb(USE)
def release(
    name: Annotated[str, typer.Argument(help="A model; without one, the best out of fold.")] = "",
    fold: Annotated[str, typer.Argument(help="The fold whose network is packed.")] = "0",
) -> None:
    """Pack a trained network into released/, with a model card."""
    call("apps.release", name, fold)


@verb(USE, settings=False)
def export(
    name: Annotated[str, typer.Argument(help="A trained model; without one, the released network.")] = "",
    fold: Annotated[str, typer.Argument(help="Its fold; without one, the first.")] = "",
) -> None:
    """Write a network for ONNX and LiteRT into artifacts/exported/."""
    call("apps.export", name, fold)


@verb(USE)
def outside(
    file: Annotated[str, typer.Argument(help="A Keras file: .keras, .h5 or .hdf5.")],
    side: Annotated[int, typer.Option(help="Pixels across that it takes.", min=8, max=1024, metavar="N")] = 48,
    scaling: Annotated[Literal["unit", "symmetric", "raw"], typer.Option(help="Grey levels that it takes.")] = "unit",
    classes: Annotated[str, typer.Option(help="Its outputs' names, where their order is another.")] = "",
    out: Annotated[str, typer.Option(help="Write the scores there, as .json.")] = "",
) -> None:
    """Score somebody else's Keras file."""
    call("apps.outside", file, side, scaling, classes, out)


@verb(USE)
def quick() -> None:
    """Run the whole pipeline on a fifth of the real faces, in quick/."""
    call("apps.demo", quick=True)


@verb(USE, settings=False)
def demo() -> None:
    """Run the whole pipeline on drawn faces, in demo/."""
    call("apps.demo")


@verb(MEASURE)
def browse() -> None:
    """Show mistakes, disagreement and duplicates out of fold, in artifacts/browse.html."""
    call("evaluation.browse")


@verb(MEASURE)
def limits(
    names: Annotated[list[str] | None, typer.Argument(help="Models of params.yaml; without one, all.")] = None,
    hours: Annotated[list[float] | None, typer.Option(help="A budget of core-hours a fold; several times.")] = None,
) -> None:
    """Foretell what infinitely many networks of each model, and of all together, would score."""
    call("evaluation.limits", names or [], hours or [1.0, 2.0, 5.0, 10.0])


@verb(MEASURE)
def speedrun(
    jobs: Jobs = 1,
    threads: Threads = None,
    every: Annotated[bool, typer.Option("--all", help="Train every seed, for results/speedrun.json.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Show what stands there, and train nothing.")] = False,
) -> None:
    """Train small networks on all Training rows, and score them."""
    limit_threads(threads)
    if record:
        call("experiments.speedrun", function="show_record")
    else:
        call("experiments.speedrun", jobs, every)


@verb(MEASURE)
def claims(
    name: Annotated[str, typer.Argument(help="A reference network; without one, all.")] = "",
    epochs: Annotated[int | None, typer.Option(help="Instead of the source's.", min=1, metavar="N")] = None,
) -> None:
    """Run the sources' own recipes and protocols."""
    call("experiments.claims", name, epochs)


@verb(MEASURE)
def seeds(
    numbers: Annotated[list[int], typer.Argument(help="Two or more seeds.", min=0, max=2**32 - 1, metavar="SEED")],
) -> None:
    """Run everything again with other seeds, for mean and deviation."""
    call("experiments.seeds", numbers)


if __name__ == "__main__":
    app(prog_name="python -m pipeline")
