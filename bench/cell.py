"""What a cell costs besides its work: python -m bench.cell NETWORK TIME, started at TIME, prints the seconds.

The cell is trained twice in one process. The second time all is imported, loaded, traced and compiled, so that the rest
is work; what the first took longer, from TIME on, is overhead.
"""

import sys
import time
from pathlib import Path

from pipeline import train


def main() -> None:
    """Measure once, in a folder whose params.yaml has the network."""
    name, started = sys.argv[1], float(sys.argv[2])
    data, rows, fold_of, cells = train.planned()
    cell = next(cell for cell in cells if cell.architecture == name)
    ends = []
    for folder in ("first", "again"):
        path = Path("artifacts", folder, "state.npz").absolute()
        train.train(data, rows, fold_of, cell, path)
        path.unlink()
        ends.append(time.time())
    print((ends[0] - started) - (ends[1] - ends[0]))


if __name__ == "__main__":
    main()
