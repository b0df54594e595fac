import time

from sklearn.linear_model import LogisticRegression

from pipeline.competition import TRAINING
from pipeline.data import synthetic

HEADERS = {"train.csv": "emotion,pixels", "test.csv": "pixels", "icml_face_data.csv": "emotion, Usage, pixels"}


def written(folder, seed):
    synthetic.write(folder, *synthetic.competition(15, 8, seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_equal_seeds_give_equal_bytes_at_any_time(tmp_path, monkeypatch):
    first, other = written(tmp_path / "first", seed=1), written(tmp_path / "other", seed=2)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert written(tmp_path / "second", seed=1) == first
    assert all(first[name] != other[name] for name in first)
    assert all(first[name].decode().split("\n")[0] == header for name, header in HEADERS.items())


def test_expressions_can_be_learnt_from_the_pixels():
    pixels, labels, usage = synthetic.competition(700, 140, seed=3)
    small = pixels.reshape(-1, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(len(pixels), -1)
    small = (small - small.mean(axis=1, keepdims=True)) / small.std(axis=1, keepdims=True)  # without the light
    train = usage == TRAINING
    model = LogisticRegression(C=0.01, max_iter=300, tol=0.01).fit(small[train], labels[train])
    assert model.score(small[~train], labels[~train]) > 0.55  # about 0.7; chance level is 0.14
