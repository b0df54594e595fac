"""Ways to read the competition's 300 MB of text: python -m bench.reading WAY FILE FOLDER prints seconds and peak MB."""

import resource
import sys
import time
from pathlib import Path

import numpy as np

SPLITS = {"Training": 28_709, "PublicTest": 3_589, "PrivateTest": 3_589}
PIXELS = 2304


def write(path: Path, splits: dict[str, int] = SPLITS) -> None:
    """A file in the form of fer2013.csv, as large as it, with random grey levels and labels."""
    chance = np.random.default_rng(2013)
    words = np.array([str(level) for level in range(256)])
    with open(path, "w") as file:
        file.write("emotion,pixels,Usage\n")
        for split in np.repeat(list(splits), list(splits.values())):
            pixels = " ".join(words[chance.integers(0, 256, PIXELS)])
            file.write(f"{chance.integers(0, 7)},{pixels},{split}\n")


def ours(path: Path, out: Path) -> None:
    """Our way: every check, and the labels of the test rows put away."""
    from pipeline.data import prepare

    faces, hidden = prepare.hide_test_labels(prepare.read_folder(path.parent))
    faces.save(out / "faces.npz")
    hidden.to_csv(out / "solution.csv", index=False)


def pandas_fromstring(path: Path, out: Path) -> None:
    """The usual way: one np.fromstring a row."""
    import pandas as pd

    table = pd.read_csv(path)
    pixels = np.stack([np.fromstring(text, dtype="uint8", sep=" ") for text in table["pixels"]])
    np.savez(out / "faces.npz", pixels=pixels, labels=table["emotion"].to_numpy("int8"))


def polars_columns(path: Path, out: Path) -> None:
    """Polars: split the column of pixels, cast it as a whole."""
    import polars as pl

    table = pl.read_csv(path)
    pixels = table["pixels"].str.split(" ").explode().cast(pl.UInt8).to_numpy().reshape(-1, PIXELS)
    np.savez(out / "faces.npz", pixels=pixels, labels=table["emotion"].to_numpy().astype("int8"))


def pyarrow_columns(path: Path, out: Path) -> None:
    """PyArrow: split the column of pixels, cast it as a whole."""
    import pyarrow as pa
    from pyarrow import compute, csv

    table = csv.read_csv(path, read_options=csv.ReadOptions(block_size=2**26))
    parts = [
        compute.cast(compute.list_flatten(compute.split_pattern(chunk, " ")), pa.uint8()).to_numpy()
        for chunk in table["pixels"].chunks
    ]
    np.savez(out / "faces.npz", pixels=np.concatenate(parts).reshape(-1, PIXELS), labels=table["emotion"].to_numpy())


WAYS = {"ours": ours, "pandas_fromstring": pandas_fromstring, "polars": polars_columns, "pyarrow": pyarrow_columns}


def main() -> None:
    """Run one way once."""
    way, path, out = WAYS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(exist_ok=True)
    {"ours": lambda: __import__("pipeline.data.prepare"), "pandas_fromstring": lambda: __import__("pandas")}.get(
        sys.argv[1], lambda: __import__(sys.argv[1])
    )()  # imports are no work
    started = time.perf_counter()
    way(path, out)
    print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
