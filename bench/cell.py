"""Overhead of one cell, from the start of its process: python -m bench.cell NETWORK STARTED prints it in seconds.

STARTED is the time in seconds since 1970 at which the process was started. The cell is trained twice; the second time
everything is imported, loaded, traced and compiled, so what the first took beyond the second is overhead.
"""

import sys
import time
from pathlib import Path

from pipeline.stages import train


def main() -> None:
    """Measure in this folder's project."""
    name, started = sys.argv[1], float(sys.argv[2])
    data, rows, fold_of, cells = train.planned()
    cell = next(cell for cell in cells if cell.architecture == name)
    ends = []
    for number in range(2):
        checkpoint = Path(f"artifacts/checkpoints/bench{number}.npz")
        train.train(data, rows, fold_of, cell, checkpoint)
        checkpoint.unlink()
        ends.append(time.time())
    print(ends[0] - started - (ends[1] - ends[0]))


if __name__ == "__main__":
    main()
