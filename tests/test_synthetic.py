import time

from pipeline.data import synthetic

HEADERS = {"train.csv": "emotion,pixels", "test.csv": "pixels", "fer2013.csv": "emotion,pixels,Usage"}


def written(folder, seed):
    synthetic.write(folder, *synthetic.competition(15, 8, seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_equal_seeds_give_equal_bytes_at_any_time(tmp_path, monkeypatch):
    first, other = written(tmp_path / "first", seed=1), written(tmp_path / "other", seed=2)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert written(tmp_path / "second", seed=1) == first
    assert all(first[name] != other[name] for name in first)
    assert all(first[name].decode().split("\n")[0] == header for name, header in HEADERS.items())
