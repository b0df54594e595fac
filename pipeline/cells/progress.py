"""Progress display of a training, and the formats of durations and counts."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.training.checkpoint import Progress


def duration(seconds: float) -> str:
    """Format a duration, like "45 s", "12 min" or "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def count(number: int, what: str = "cell") -> str:
    """Format a number of things, like "1 cell" or "5 cells"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class Display:
    """Display that prints one line per epoch and, on a terminal, the finished percentage of the current epoch.

    Parameters
    ----------
    name : name of the training. epochs : total number of epochs.
    watched : whether to show the percentage, if standard output is a terminal.
    """

    def __init__(self, name: str, epochs: int, watched: bool) -> None:
        self.name, self.epochs, self.done, self.shown = name, epochs, 0, 0.0
        self.watched = watched and sys.stdout.isatty()

    def batch(self, part: float) -> None:
        """Show the finished fraction of the current epoch, at most five times per second."""
        now = time.monotonic()
        if self.watched and now - self.shown > 0.2:
            self.shown = now
            print(f"\r{self.name}  {self.done + 1}/{self.epochs}  {part:4.0%} ", end="", flush=True)

    def epoch(self, progress: "Progress") -> None:
        """Print the results of the last epoch, and the remaining time."""
        if not self.done and len(progress.history) > 1:
            print(f"{self.name}  resumes after epoch {len(progress.history) - 1}")
        self.done = len(progress.history)
        last = progress.history[-1]
        mean = progress.seconds / self.done
        held_out = f"  val {last['val_accuracy']:6.2%}" if last["val_accuracy"] == last["val_accuracy"] else ""
        start = f"{chr(13) if self.watched else ''}{self.name}  {self.done:>{len(str(self.epochs))}}/{self.epochs}"
        left = duration(mean * (self.epochs - self.done))
        print(f"{start}  loss {last['loss']:.4f}{held_out}  {mean:.0f} s/epoch, {left} left", flush=True)
