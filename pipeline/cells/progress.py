"""How a training tells how far it is."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.training.checkpoint import Progress


def duration(seconds: float) -> str:
    """A duration as people say it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def count(cells: int) -> str:
    """A number of cells."""
    return f"{cells} cell{'' if cells == 1 else 's'}"


class Display:
    """One line an epoch; within it a percentage where a person watches.

    Parameters
    ----------
    name : of the training. epochs : all of it.
    watched : whether the finished part of each epoch may be shown too.
    """

    def __init__(self, name: str, epochs: int, watched: bool) -> None:
        self.name = name
        self.epochs = epochs
        self.watched = watched and sys.stdout.isatty()
        self.done = 0
        self.shown = 0.0

    def batch(self, part: float) -> None:
        """Overwrite the line with the finished part of this epoch, at most five times a second."""
        now = time.monotonic()
        if self.watched and now - self.shown > 0.2:
            self.shown = now
            print(f"\r{self.name}  {self.done + 1}/{self.epochs}  {part:4.0%} ", end="", flush=True)

    def epoch(self, progress: "Progress") -> None:
        """Print the line of the epoch that has just ended, with the time that the others will take."""
        if not self.done and len(progress.history) > 1:
            print(f"{self.name}  goes on after epoch {len(progress.history) - 1}")
        self.done = len(progress.history)
        last = progress.history[-1]
        mean = progress.seconds / self.done
        held_out = f"  val {last['val_accuracy']:6.2%}" if last["val_accuracy"] == last["val_accuracy"] else ""
        print(
            f"{chr(13) if self.watched else ''}{self.name}  {self.done:>{len(str(self.epochs))}}/{self.epochs}  "
            f"loss {last['loss']:.4f}{held_out}  {mean:.0f} s/epoch, "
            f"{duration(mean * (self.epochs - self.done))} left",
            flush=True,
        )
