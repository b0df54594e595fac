"""`python -m pipeline predict` on pictures, tables, videos and cameras, valid and invalid."""

import csv
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image
from settings import LISTING, ROOT
from sklearn.metrics import confusion_matrix
from test_download import pack
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.apps import detect, light, networks, predict, sources
from pipeline.competition import CLASSES
from pipeline.data import synthetic

ASTRONAUT = skimage.data.astronaut()  # Eileen Collins, in the public domain (NASA)
FACE = (175, 64, 101)  # left, top, side
PIXELS, LABELS, USAGE = synthetic.competition(training=14, test=7, seed=2)


@pytest.fixture(scope="module")
def network():
    """The released network in ONNX Runtime, with attention maps of the whole face."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        loaded = light.load()
    loaded.attention = lambda faces, labels: np.ones(faces.shape)
    return loaded


@pytest.fixture
def run(network, monkeypatch, stand):
    """Return a function that runs the command; its result has status, output, errors and, with --csv, the rows."""
    monkeypatch.setattr(predict, "load", lambda which, explain: network)

    def start(*words):
        done = CliRunner().invoke(app, ["predict", *map(str, words)], catch_exceptions=False)
        rows = table(words[words.index("--csv") + 1]) if "--csv" in words else []
        return SimpleNamespace(status=done.exit_code, out=done.stdout, err=done.stderr, rows=rows)

    return start


def table(path):
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


def save(name, pixels=ASTRONAUT, **words):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(name, **words)
    return name


def probabilities(row):
    return np.array([float(row[name]) for name in CLASSES])


def box(row):
    assert row["width"] == row["height"]
    return [int(row[key]) for key in ("left", "top", "width")]


def square(*numbers):
    return np.array([numbers], float)


def test_faces_are_detected_and_classified_and_pictures_without_a_face_are_listed(run):
    save("a_portrait_with_a_long_name.png")
    save("cat.png", skimage.data.chelsea())
    done = run("a_portrait_with_a_long_name.png", "cat.png", "--csv", "table.csv")
    row, cat = done.rows
    assert (done.status, row["source"], row["label"]) == (0, "a_portrait_with_a_long_name.png", "happy")
    assert box(row) == pytest.approx(FACE, abs=6)
    assert probabilities(row).sum() == pytest.approx(1, abs=1e-5)
    assert (cat["label"], cat["left"], cat["happy"]) == ("no face", "", "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "2 pictures, 1 face, 0 skipped, 0 other files" in done.err
    assert ["--no-detect" in run(name).err for name in ("a_portrait_with_a_long_name.png", "cat.png")] == [False, True]


def test_all_picture_formats_give_the_same_prediction(run):
    colour = Image.fromarray(ASTRONAUT)
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation tag: stored rotated
    save("a.png")
    save("cmyk.jpg", colour.convert("CMYK"))
    save("deep.tif", np.asarray(colour.convert("L")).astype("uint16") * 257)
    save("palette.png", colour.quantize(256))
    save("clear.webp", colour.convert("RGBA"), lossless=True)
    save("turned.png", np.rot90(ASTRONAUT), exif=turned)
    save("odd.png", exif=b"not EXIF data")
    done = run(".", "--csv", "table.csv")
    assert (done.status, len(done.rows)) == (0, 7)
    for row in done.rows:
        assert box(row) == pytest.approx(FACE, abs=6), row["source"]
        tolerance = 0.15 if row["source"] in ("palette.png", "cmyk.jpg") else 0.01  # lossy: a box may move by a pixel
        np.testing.assert_allclose(probabilities(row), probabilities(done.rows[0]), atol=tolerance,
                                   err_msg=row["source"])  # fmt: skip


def test_transparent_pixels_become_white():
    pixels = sources.plain(Image.new("RGBA", (1, 1), (255, 0, 0, 51)))  # a fifth of red, the rest white
    assert pixels.tolist() == [[[255, 204, 204]]]


@pytest.mark.usefixtures("_locked")
def test_unusable_files_are_listed_and_skipped(run):
    save("all/deep/er/good.png")
    save("all/locked/unseen.png")
    Path("all/deep/loop").symlink_to(Path("all").absolute(), target_is_directory=True)
    contents = {
        "all/cut.jpg": Path(save("complete.jpg")).read_bytes()[:9000], "all/film.mp4": b"no film" * 99,
        "all/page.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",  # Ghostscript would run it
        os.fsdecode(b"all/\xff\x1b[31m\n.png"): b"", os.fsdecode(b"all/\xff.mp4"): b"no film",
        "row.csv": b"pixels\n1 2 3\n", "all/.hidden": b"", "all/notes.txt": b"",
    }  # fmt: skip
    for name, content in contents.items():
        Path(name).write_bytes(content)
    save("all/fractions.tif", Image.new("F", (9, 9)))
    save("all/deeper.tif", Image.new("I", (9, 9), 70_000))
    save("all/large.png", Image.new("1", (10_000, 10_000)))
    Path("all/gone.png").symlink_to("nowhere")
    done = run("all", "row.csv", "--csv", "table.csv")
    assert done.status == predict.SKIPPED == 3
    assert [row["source"] for row in done.rows] == ["all/deep/er/good.png"]
    skipped = {line.partition(": ")[0].removeprefix("skipped ") for line in done.err.splitlines()[:-2]}
    bad = ("cut.jpg", "deeper.tif", "film.mp4", "fractions.tif", "gone.png", "large.png", "locked", "page.png")
    assert skipped == {"row.csv", r"all/\xff\x1b[31m\n.png", r"all/\xff.mp4", *(f"all/{name}" for name in bad)}
    assert "all/page.png: it is damaged, or its format is not one of" in done.err
    assert "11 skipped, 1 other file," in done.err


@pytest.mark.parametrize(("words", "message"), [
    (["nowhere.png"], "nowhere.png"), (["astronaut.png", "--explain"], "--out"),
    (["astronaut.png", "--out", "astronaut.png"], "input file"), (["rows.csv", "--out", "a.png"], "table"),
    (["astronaut.png", "--csv", "astronaut.png"], "input file"),
    (["astronaut.png", "sub", "--out", "out"], "the same name"),
    (["sub/astronaut.png", "--csv", "astronaut.png"], "not a .csv"),
])  # fmt: skip
def test_invalid_arguments_are_errors_and_nothing_is_overwritten(run, words, message):
    before = Path(save("astronaut.png", PIXELS[0])).read_bytes()
    save("sub/astronaut.png", PIXELS[0])
    Path("rows.csv").touch()
    done = CliRunner().invoke(app, ["predict", *words])
    assert (done.exit_code, message in done.stderr) == (1, True)
    assert Path("astronaut.png").read_bytes() == before


def test_tables_are_predicted_without_face_detection_and_with_their_accuracy(run, network):
    synthetic.write(Path(), PIXELS, LABELS, USAGE, names={"fer2013.csv"})
    pack(Path("fer2013.tar.gz"), {"fer2013/fer2013.csv": Path("fer2013.csv").read_bytes()})
    done = run("fer2013.tar.gz", "--csv", "table.csv")
    expected = network.probabilities(PIXELS)
    assert done.status == 0
    assert [int(row["frame"]) for row in done.rows] == list(range(1, len(expected) + 1))
    np.testing.assert_allclose([probabilities(row) for row in done.rows], expected, atol=2e-6)
    predicted, lines = expected.argmax(axis=1), done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith(f"accuracy {(predicted == LABELS).mean():.2%}")
    confusion = np.array([line.split()[3:] for line in lines[-8:-1]], int)
    np.testing.assert_array_equal(confusion, confusion_matrix(LABELS, predicted, labels=range(7)))


def test_a_process_imports_little_writes_nothing_to_the_home_and_works_in_any_locale(tmp_path):
    """By default, ONNX Runtime writes an identifier of the device and events of each run to the home."""
    save(tmp_path / "=mü.png", PIXELS[0])
    save(tmp_path / "in/a\x1bb.png", PIXELS[1])
    (home := tmp_path / "home").mkdir()
    for name in ("released", "pipeline"):
        (tmp_path / name).symlink_to(ROOT / name)
    words = ["predict", "=mü.png", "in/a\x1bb.png", "--no-detect", "--csv", "ü.csv", "--out", "ö"]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", LISTING, *words], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, encoding="ascii")  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert [row["source"] for row in table(tmp_path / "ü.csv")] == ["'=mü.png", r"in/a\x1bb.png"]
    assert (tmp_path / "ö/=mü.png").exists()
    heavy = {"keras", "tensorflow", "sklearn", "pandas", "matplotlib", "scipy"}
    assert set(done.stdout.split()) & (heavy | {"onnxruntime"}) == {"onnxruntime"}
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_keras_predicts_wherever_onnx_runtime_cannot(stand, monkeypatch):
    monkeypatch.setattr(networks, "load", lambda which: f"{which} in Keras")
    shutil.copytree(ROOT / "released", "released")
    (path,) = Path("released").glob("*.onnx")
    assert isinstance(predict.load("released", explain=False), light.Network)
    assert predict.load("released", explain=True) == "released in Keras"
    assert predict.load("small_vgg", explain=False) == "small_vgg in Keras"
    with patch.dict(sys.modules, {"onnxruntime": None}):
        assert predict.load("released", explain=False) == "released in Keras"
    path.write_bytes(path.read_bytes()[:-1])
    assert predict.load("released", explain=False) == "released in Keras"


def test_the_largest_or_all_faces_are_predicted(run):
    small = np.kron(ASTRONAUT[30:200, 140:310], np.ones((2, 2, 1), "uint8"))[:300]
    save("both.png", np.concatenate([ASTRONAUT[:300, 100:350], small], 1))
    largest = run("both.png", "both.png", "--csv", "table.csv").rows  # given twice, read once
    both = run("both.png", "--csv", "table.csv", "--faces", "all").rows
    assert (len(largest), len(both), largest[0]) == (1, 2, both[0])
    assert int(both[0]["width"]) > int(both[1]["width"])


def test_annotated_pictures_keep_their_paths(run):
    for name in ("in/a.png", "in/a.jpg", "in/sub/a.png"):
        save(name)
    assert run("in", "--out", "out", "--explain").status == 0
    drawn = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.png"))
    assert drawn == ["a.jpg.png", "a.png", "sub/a.png"]
    left, top, side = FACE
    changed = (np.asarray(Image.open("out/sub/a.png").convert("RGB")) != ASTRONAUT).any(axis=2)
    assert changed[top : top + side, left : left + side].mean() > 0.9  # covered by the heat map
    assert not changed[300:].any()
    assert run("in/a.png", "--out", "one.png", "--csv", "new/folder/table.csv").status == 0
    inside = np.s_[top + 8 : top + side - 8, left + 8 : left + side - 8]
    np.testing.assert_array_equal(np.asarray(Image.open("one.png").convert("RGB"))[inside], ASTRONAUT[inside])


def test_a_video_gives_one_row_per_frame_and_an_annotated_video(run):
    writer = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (320, 300))
    for left in range(20, 68, 2):  # the portrait moves to the left
        writer.write(np.ascontiguousarray(ASTRONAUT[:300, left : left + 320, ::-1]))
    writer.release()
    done = run("film.avi", "--csv", "table.csv", "--out", "drawn.mp4")
    assert [int(row["frame"]) for row in done.rows] == list(range(1, 25))
    assert {row["label"] for row in done.rows} == {"happy"}
    lefts = [int(row["left"]) for row in done.rows]
    assert lefts[0] - lefts[-1] == pytest.approx(2 * 23, abs=16)  # smoothing delays it
    assert run("film.avi", "--csv", "table.csv", "--smooth", "0").rows != done.rows
    capture = cv2.VideoCapture("drawn.mp4")
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (24, 12)


def test_the_frames_of_a_video_without_time_stamps_are_timed_by_its_rate(stand, monkeypatch):
    Path("film.mpg").touch()
    video = Mock(get=lambda what: 0.0)
    video.read.side_effect = [(True, ASTRONAUT)] * 3 + [(False, None)]
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: video)
    ((film,), _) = sources.find(["film.mpg"])
    assert [each.seconds for each in film.pictures()] == [0, 1 / sources.RATE, 2 / sources.RATE]


def test_an_annotated_picture_that_is_too_large_for_its_format_is_skipped(run):
    save("long.png", np.zeros((100, 17000), "uint8"))
    done = run("long.png", "--no-detect", "--out", "long.webp")
    assert (done.status, "long.webp" in done.err) == (predict.SKIPPED, True)


def test_a_camera_is_read_until_ctrl_c_and_a_missing_camera_is_skipped(run, monkeypatch):
    assert run("camera:77").status == predict.SKIPPED
    camera = Mock(get=lambda what: 0.0)
    camera.read.side_effect = [(True, ASTRONAUT[..., ::-1])] * 2 + [KeyboardInterrupt]
    monkeypatch.setattr(cv2, "VideoCapture", lambda device: camera)
    done = run("camera:1", "--csv", "table.csv", "--out", "seen.avi")
    assert (done.status, "2 pictures, 2 faces" in done.err) == (0, True)
    assert [row["source"] for row in done.rows] == ["camera:1"] * 2
    assert Path("seen.avi").stat().st_size > 1000


def test_each_face_has_its_own_moving_average_with_the_given_time_constant():
    tracks, still, moved = detect.Tracks(seconds=0.5), square(200, 0, 50), square(10, 0, 50)
    tracks.follow(0.0, np.concatenate([square(0, 0, 50), still]), np.eye(7)[[0, 1]])
    for frame in range(1, 6):  # half a second, in steps of a tenth; detected in another order
        boxes, smooth = tracks.follow(frame / 10, np.concatenate([still, moved]), np.eye(7)[[1, 2]])
    np.testing.assert_allclose(boxes[:, 0], [200, 10 - 10 * np.exp(-1)])
    old, new = np.exp(-1), 1 - np.exp(-1)
    np.testing.assert_allclose(smooth, [np.eye(7)[1], old * np.eye(7)[0] + new * np.eye(7)[2]], atol=1e-12)
    assert tracks.follow(0.6, square(500, 0, 50), np.eye(7)[3:4])[1][0, 3] == 1  # another place
    assert tracks.follow(5.0, square(0, 0, 50), np.eye(7)[4:5])[1][0, 4] == 1  # after the end of the track


def test_crops_beyond_the_picture_repeat_its_edge():
    grey = np.tile(np.arange(96, dtype="uint8"), (96, 1))
    np.testing.assert_array_equal(detect.crop(grey, np.array([24.0, 24, 48])), grey[24:72, 24:72])
    beyond = detect.crop(grey, np.array([-48.0, 10, 96]))
    assert ((beyond[:, :23] == 0).all(), beyond[0, -1] > 40) == (True, True)


@pytest.mark.parametrize("module", [None, SimpleNamespace(__version__="5.0.0")], ids=["absent", "too new"])
def test_without_opencv_only_face_crops_can_be_predicted(run, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "cv2", module)
    save("astronaut.png")
    done = run("astronaut.png")
    assert (done.status, "opencv-python-headless<5" in done.err) == (1, True)
    assert run("astronaut.png", "--no-detect").status == 0


@pytest.mark.parametrize(("stated", "gap", "expected"), [(1000.0, 50, 20.0), (0.0, 0, 25.0)])
def test_an_implausible_frame_rate_is_replaced_by_that_of_the_time_stamps(stated, gap, expected):
    stamps = itertools.count(0, gap)
    capture = Mock(get=lambda what: stated if what == "rate" else next(stamps))
    library = Mock(VideoCapture=lambda _: capture, CAP_PROP_FPS="rate", CAP_PROP_POS_MSEC="time")
    assert sources.rate(library, "a.webm") == expected
