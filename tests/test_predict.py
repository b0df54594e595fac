"""`python -m pipeline predict`, on everything that people may point it at."""

import argparse
import ast
import csv
import importlib
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipeline.__main__ import app
from pipeline.apps import annotate, detect, networks, predict, sources
from pipeline.competition import CLASSES
from pipeline.data import synthetic

ROOT = Path(__file__).parent.parent
ASTRONAUT = skimage.data.astronaut()  # Eileen Collins, in the public domain (NASA)
FACE = (175, 64, 101)  # left, top, side
PIXELS, LABELS, USAGE = synthetic.competition(training=14, test=7, seed=2)


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return networks.load()


@pytest.fixture
def run(network, monkeypatch, tmp_path, capsys):
    """Run the command with these words, in tmp_path: its exit status, output, errors and, with --csv, its rows."""
    monkeypatch.setattr(networks, "load", lambda which: network)
    monkeypatch.chdir(tmp_path)

    def start(*words):
        with pytest.raises(SystemExit) as end:
            app(["predict", *map(str, words)])
        out, err = capsys.readouterr()
        table = Path("table.csv")
        rows = list(csv.DictReader(table.open(newline=""))) if table.exists() else []
        return argparse.Namespace(status=end.value.code, out=out, err=err, rows=rows)

    return start


def save(name, pixels=ASTRONAUT, **words):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    picture.save(name, **words)
    return name


def probabilities(row):
    return np.array([float(row[name]) for name in CLASSES])


def test_a_face_is_found_named_and_written_down(run):
    done = run(save("astronaut.png"), "--csv", "table.csv")
    assert done.status == 0
    (row,) = done.rows
    assert (row["source"], row["frame"], row["label"]) == ("astronaut.png", "", "happy")
    assert [int(row[key]) for key in ("left", "top", "width")] == pytest.approx(FACE, abs=6)
    assert row["width"] == row["height"]
    assert probabilities(row).sum() == pytest.approx(1, abs=1e-5)
    header, line = done.out.splitlines()
    assert [len(header), *map(header.index, ("label", "neutral"))] == [
        len(line), line.index("happy"), header.index("neutral"),
    ]  # fmt: skip
    assert f"{probabilities(row)[3]:.1%}" in line
    assert "1 pictures, 1 faces, 0 skipped" in done.err
    assert "pictures/s" in done.err


def test_no_face_is_told(run):
    save("chelsea.png", skimage.data.chelsea())  # a cat
    save("dot.png", ASTRONAUT[:1, :1])
    save("thread.png", np.zeros((3, 20000), "uint8"))
    done = run("chelsea.png", "dot.png", "thread.png", "--csv", "table.csv")
    assert done.status == 0
    assert [row["label"] for row in done.rows] == ["no face"] * 3
    assert {row["left"] + row["happy"] for row in done.rows} == {""}
    assert done.out.count("no face") == 3


def test_every_kind_of_picture_is_seen_as_the_same(run):
    grey = Image.fromarray(ASTRONAUT).convert("L")
    clear = Image.fromarray(np.dstack([ASTRONAUT, np.full(ASTRONAUT.shape[:2], 255, "uint8")]))
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying on its side
    save("colour.png")
    save("grey.png", grey)
    save("deep.png", np.asarray(grey).astype("uint16") * 257)
    save("deep.tif", np.asarray(grey).astype("uint16") * 257)
    save("wide.tif", np.asarray(grey).astype("int32"))
    save("alpha.png", clear)
    save("faint.webp", clear, lossless=True)
    save("grey_alpha.png", clear.convert("LA"))
    save("palette.png", Image.fromarray(ASTRONAUT).quantize(256))
    save("cmyk.jpg", Image.fromarray(ASTRONAUT).convert("CMYK"), quality=98)
    save("turned.jpg", np.rot90(ASTRONAUT), exif=turned, quality=98)
    save("turned.png", np.rot90(ASTRONAUT), exif=turned)
    done = run(".", "--csv", "table.csv")
    assert done.status == 0
    assert len(done.rows) == 12
    wanted = probabilities(next(row for row in done.rows if row["source"] == "colour.png"))
    for row in done.rows:
        assert [int(row[key]) for key in ("left", "top", "width")] == pytest.approx(FACE, abs=6), row["source"]
        # What loses nothing but colour must be the same but for rounding; lossy forms may move a box by a pixel.
        near = 0.01 if row["source"] not in ("palette.png", "cmyk.jpg", "turned.jpg") else 0.15
        np.testing.assert_allclose(probabilities(row), wanted, atol=near, err_msg=row["source"])


def test_what_is_transparent_is_white():
    half = np.zeros((4, 4, 4), "uint8")
    half[:2] = (255, 0, 0, 255)
    pixels = sources.plain(Image.fromarray(half))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def bomb(side):
    """A PNG that says that it is `side` pixels square."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_what_cannot_be_used_is_named_and_skipped(run):
    folder = Path("all")
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/loop").symlink_to(folder.absolute(), target_is_directory=True)
    save(folder / "deep/er/good.png")
    whole = Path(save("whole.jpg")).read_bytes()
    bad = {
        "empty.png": (b"", "it is empty"),
        "text.png": (b"not a picture\n" * 40, "it is none of BMP"),
        "cut.jpg": (whole[: len(whole) // 2], "it is damaged"),
        "bomb.png": (bomb(60000), "more than 89,478,485 pixels"),
        "large.png": (bomb(10000), "more than 89,478,485 pixels"),
        "lies.png": (bomb(900), "it is damaged"),
        "page.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is none of BMP"),
        "row.csv": (b"pixels\n1 2 3\n", "3 pixels instead of 2,304"),
        "other.csv": (b"a,b\n1,2\n", "columns must be pixels"),
        "no.tar.gz": (b"nothing packed", "is damaged"),
        "film.mp4": (b"no film" * 99, "can read no frame"),
        "fractions.tif": (None, "fractions"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content or b"")
    save(folder / "fractions.tif", Image.fromarray(np.zeros((9, 9), "float32")))
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    (folder / ".hidden").write_bytes(b"not looked at")
    strange = os.fsencode(folder) + b"/\xff\x1b[31m\n.png"
    Path(os.fsdecode(strange)).write_bytes(b"")
    done = run(folder, "--csv", "table.csv")
    assert done.status == predict.SKIPPED == 3
    assert [row["source"] for row in done.rows] == ["all/deep/er/good.png"]
    for name, (_, reason) in bad.items():
        (line,) = (line for line in done.err.splitlines() if f"skipped all/{name}: " in line)
        assert reason in line
    assert "skipped all/gone.png: it is no file" in done.err
    assert "skipped all/pipe.png: it is no file" in done.err
    assert r"skipped all/\xff\x1b[31m\n.png: it is empty" in done.err
    assert f"1 pictures, 1 faces, {len(bad) + 3} skipped" in done.err
    assert done.err.count("skipped all/") == len(bad) + 3


@pytest.mark.parametrize(("words", "message"), [
    (["nowhere.png"], "nowhere.png is neither a file nor a folder"),
    (["empty"], "there are no files in empty"),
    (["astronaut.png", "--explain"], "--explain draws into what --out writes"),
    (["astronaut.png", "--out", "astronaut.png"], "astronaut.png is one of the files to be read"),
    (["astronaut.png", "--csv", "astronaut.png"], "astronaut.png is one of the files to be read"),
    (["astronaut.png", "--margin", "ten"], "--margin"), (["astronaut.png", "--smooth", "-1"], "--smooth"),
    ([], "inputs"), (["astronaut.png", "--what"], "--what"),
])  # fmt: skip
def test_what_cannot_begin_is_an_error(run, words, message):
    save("astronaut.png")
    Path("empty").mkdir()
    before = Path("astronaut.png").read_bytes()
    done = run(*words)
    assert done.status in (1, 2)
    assert message in done.err.replace("INPUTS", "inputs")
    assert Path("astronaut.png").read_bytes() == before


def test_a_camera_that_is_not_there_is_named_and_skipped(run):
    assert run("camera:77").status == predict.SKIPPED


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "icml_face_data.csv", "fer2013.tar.gz"])
def test_the_competitions_files_are_predicted_as_they_are(run, network, name):
    synthetic.write(Path(), PIXELS, LABELS, USAGE, names={name})
    done = run(name, "--csv", "table.csv", "--out", "drawn")
    rows = {"train.csv": PIXELS[USAGE == 0], "test.csv": PIXELS[USAGE != 0]}.get(name, PIXELS)
    assert done.status == 0
    assert [int(row["frame"]) for row in done.rows] == list(range(1, len(rows) + 1))
    np.testing.assert_allclose([probabilities(row) for row in done.rows], network.probabilities(rows), atol=2e-6)
    assert not Path("drawn").exists()


def test_without_detection_a_picture_of_48_pixels_is_seen_byte_for_byte(run, network):
    for row, pixels in enumerate(PIXELS[:3]):
        save(f"faces/{row}.png", pixels)
    done = run("faces", "--no-detect", "--csv", "table.csv")
    np.testing.assert_allclose([probabilities(row) for row in done.rows], network.probabilities(PIXELS[:3]), atol=2e-6)
    assert [done.rows[0][key] for key in ("left", "top", "width", "height")] == ["0", "0", "48", "48"]


def test_the_longest_table_stands_in_the_file_alone(run, monkeypatch):
    monkeypatch.setattr(predict, "SHOWN", 5)
    synthetic.write(Path(), PIXELS, LABELS, USAGE, names={"icml_face_data.csv"})
    done = run("icml_face_data.csv", "--csv", "table.csv")
    assert len(done.out.splitlines()) == 1 + 5 + 1
    assert f"{len(PIXELS) - 5} lines more in table.csv" in done.out
    assert len(done.rows) == len(PIXELS)


def test_all_faces_or_the_largest(run):
    both = np.concatenate(
        [ASTRONAUT[:300, 100:350], np.kron(ASTRONAUT[30:200, 140:310], np.ones((2, 2, 1), "uint8"))[:300]], 1
    )
    save("both.png", both)
    largest = run("both.png", "--csv", "table.csv").rows
    everyone = run("both.png", "--csv", "table.csv", "--faces", "all").rows
    assert len(largest) == 1
    assert len(everyone) == 2
    assert largest[0] == everyone[0]
    assert int(everyone[0]["width"]) > int(everyone[1]["width"])


def test_annotated_pictures_keep_their_places_and_names(run):
    save("in/a.png")
    save("in/a.jpg")
    save("in/sub/a.png")
    done = run("in", "--out", "out", "--explain")
    assert done.status == 0
    drawn = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.png"))
    assert drawn == ["a-2.png", "a.png", "sub/a.png"]
    result = np.asarray(Image.open("out/sub/a.png").convert("RGB")).astype(int)
    left, top, side = FACE
    assert result.shape == ASTRONAUT.shape
    changed = (result != ASTRONAUT).any(axis=2)
    assert changed[top : top + side, left : left + side].mean() > 0.9  # the heat lies over the face
    assert not changed[300:].any()
    assert run("in/a.png", "--out", "one.png").status == 0
    plain = np.asarray(Image.open("one.png").convert("RGB"))
    inside = np.s_[top + 8 : top + side - 8, left + 8 : left + side - 8]
    np.testing.assert_array_equal(plain[inside], ASTRONAUT[inside])


def test_small_pictures_are_enlarged_so_that_one_can_read():
    drawn = annotate.annotate(PIXELS[0], np.array([[0, 0, 48.0]]), np.eye(7)[:1])
    assert min(drawn.size) >= annotate.SHORTEST


def test_bars_hide_no_face():
    pixels = np.full((600, 900, 3), 128, "uint8")
    boxes = np.array([[100, 100, 150.0], [260, 100, 150.0], [700, 400, 180.0]])
    drawn = np.asarray(annotate.annotate(pixels, boxes, np.eye(7)[:3]))
    for left, top, side in boxes.astype(int):
        assert (drawn[top + 6 : top + side - 6, left + 6 : left + side - 6] == 128).mean() > 0.95


def film(name, frames=24, rate=12.0, code="MJPG"):
    """The portrait, moving to the left by two pixels a frame."""
    writer = cv2.VideoWriter(str(name), cv2.VideoWriter_fourcc(*code), rate, (320, 300))
    for number in range(frames):
        writer.write(np.ascontiguousarray(ASTRONAUT[:300, 20 + 2 * number : 340 + 2 * number, ::-1]))
    writer.release()
    return name


def test_a_video_gives_a_line_a_frame_and_an_annotated_video(run):
    done = run(film("film.avi"), "--csv", "table.csv", "--out", "drawn.mp4")
    assert done.status == 0
    assert [int(row["frame"]) for row in done.rows] == list(range(1, 25))
    assert {row["label"] for row in done.rows} == {"happy"}
    lefts = [int(row["left"]) for row in done.rows]
    assert lefts[0] - lefts[-1] == pytest.approx(2 * 23, abs=16)  # it follows, somewhat late
    capture = cv2.VideoCapture("drawn.mp4")
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (24, 12)
    assert run("film.avi", "--csv", "table.csv", "--frames", "5", "--smooth", "0").status == 0
    assert len(Path("table.csv").read_text().splitlines()) == 1 + 5


def test_a_video_that_breaks_off_is_said_to(run):
    whole = Path(film("film.avi", frames=50)).read_bytes()
    Path("cut.avi").write_bytes(whole[: len(whole) // 2])
    done = run("cut.avi", "--no-detect", "--csv", "table.csv")
    assert done.status == predict.SKIPPED
    assert 10 < len(done.rows) < 40
    reached = f"{len(done.rows)} frames, {(len(done.rows) - 1) / 12:.1f} of about {50 / 12:.1f} seconds"
    assert f"skipped cut.avi: it breaks off after {reached}" in done.err


def test_a_video_of_uneven_frames_has_its_own_times_and_does_not_break_off(run, monkeypatch):
    """Browsers record such: the container counts the frames that there would be at its highest rate."""
    film("film.avi")
    opened = cv2.VideoCapture

    class Uneven:
        def __init__(self, device):
            self.film = opened(device)
            self.read, self.release = self.film.read, self.film.release

        def get(self, what):
            return self.film.get(what) * (2 if what in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_POS_MSEC) else 1)

    monkeypatch.setattr(cv2, "VideoCapture", Uneven)
    times = [picture.seconds for picture in sources.Source(Path("film.avi"), Path("film.avi"), "video").pictures()]
    assert times == pytest.approx([number / 6 for number in range(24)], abs=1e-3)
    assert run("film.avi", "--no-detect", "--csv", "table.csv").status == 0


def test_a_clock_that_stands_still_or_steps_back_goes_on(run, monkeypatch):
    """As of films that were cut together, or whose container tells no times."""
    film("film.avi", frames=6)
    opened, told = cv2.VideoCapture, iter([0, 100, 0, 0, 900, 100])

    class Cut:
        def __init__(self, device):
            self.film = opened(device)
            self.read, self.release = self.film.read, self.film.release

        def get(self, what):
            return next(told) if what == cv2.CAP_PROP_POS_MSEC else self.film.get(what)

    monkeypatch.setattr(cv2, "VideoCapture", Cut)
    times = [picture.seconds for picture in sources.Source(Path("film.avi"), Path("film.avi"), "video").pictures()]
    assert times == pytest.approx([0, 0.1, 0.1 + 1 / 12, 0.1 + 2 / 12, 0.9, 0.9 + 1 / 12])


def test_what_is_explained_is_the_label_that_is_shown(run, monkeypatch):
    film("film.avi", frames=6)

    def changing(_, faces):
        """Sure of another class than before from the third face on, which smoothing follows later."""
        said = np.full((len(faces), 7), 0.02, "float32")
        said[np.arange(len(faces)), np.where(np.arange(len(faces)) < 3, 3, 5)] = 0.88
        return said

    def attention(_, faces, labels):
        asked.extend(labels)
        return np.zeros(faces.shape)

    asked = []
    monkeypatch.setattr(networks.Network, "probabilities", changing)
    monkeypatch.setattr(networks.Network, "attention", attention)
    done = run("film.avi", "--csv", "table.csv", "--out", "drawn.avi", "--explain", "--smooth", "1")
    assert done.status == 0
    shown = [CLASSES.index(row["label"]) for row in done.rows]
    assert shown == asked
    assert shown == [3] * 6  # a quarter of a second is not enough to change


def test_a_drawing_that_cannot_be_written_is_named_and_the_others_are(run):
    save("in/long.png", np.zeros((100, 17000), "uint8"))
    assert run("in/long.png", "--no-detect", "--out", "long.webp").status == predict.SKIPPED
    save("in/good.png")
    done = run("in", "--no-detect", "--out", "out")
    assert done.status == 0
    assert len(list(Path("out").iterdir())) == 2


def test_a_folder_that_cannot_be_read_is_named_and_skipped(run, close):
    save("in/good.png")
    save("in/closed/good.png")
    close("in/closed")
    done = run("in", "--no-detect", "--csv", "table.csv")
    assert done.status == predict.SKIPPED
    assert [row["source"] for row in done.rows] == ["in/good.png"]
    assert "skipped in/closed: it is no file that can be opened" in done.err


def test_a_camera_without_a_display_says_so_and_answers(run, monkeypatch):
    film("film.avi", frames=3)
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda device: opened({1: "film.avi"}[device]))
    monkeypatch.delenv("DISPLAY", raising=False)
    done = run("camera:1", "--csv", "table.csv", "--out", "seen.avi")
    assert done.status == 0
    assert done.err.startswith("no window can be opened here (")
    assert [row["source"] for row in done.rows] == ["camera:1"] * 3
    assert Path("seen.avi").stat().st_size > 1000


def test_a_window_that_is_closed_ends_a_camera(run, monkeypatch):
    film("film.avi", frames=9)
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda device: opened("film.avi"))
    shown = []

    class Window:
        def show(self, picture):
            shown.append(picture.size)
            if len(shown) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(predict, "Window", Window)
    assert run("camera").status == 0
    assert shown == [(384, 360)] * 2 or len(shown) == 2


def square(*numbers):
    return np.array([numbers], float)


def test_averages_follow_a_face_with_their_time_constant():
    tracks = detect.Tracks(seconds=0.5)
    before, after = np.eye(7)[:1], np.eye(7)[1:2]
    tracks.follow(0.0, square(10, 10, 50), before)
    for frame in range(1, 6):  # half a second, in steps of a tenth
        boxes, answers = tracks.follow(frame / 10, square(20, 10, 50), after)
    assert answers[0, 1] == pytest.approx(1 - np.exp(-1))
    assert answers.sum() == pytest.approx(1)
    assert boxes[0, 0] == pytest.approx(20 - 10 * np.exp(-1))


def test_faces_are_not_mixed_with_each_other_nor_with_the_past():
    tracks = detect.Tracks(seconds=0.5)
    both = np.concatenate([square(0, 0, 50), square(200, 0, 50)])
    tracks.follow(0.0, both, np.eye(7)[[0, 1]])
    boxes, answers = tracks.follow(0.1, both[::-1], np.eye(7)[[1, 0]])  # found in another order
    np.testing.assert_array_equal(boxes, both[::-1])
    np.testing.assert_allclose(answers, np.eye(7)[[1, 0]], atol=1e-12)
    _, answers = tracks.follow(0.2, square(500, 0, 50), np.eye(7)[3:4])  # somebody else
    assert answers[0, 3] == 1
    _, answers = tracks.follow(5.0, square(0, 0, 50), np.eye(7)[4:5])  # long after
    assert answers[0, 4] == 1
    assert detect.Tracks(0).follow(1.0, both, np.eye(7)[:2])[1].tolist() == np.eye(7)[:2].tolist()


@pytest.mark.parametrize(("one", "other", "share"), [
    ((0, 0, 10), (0, 0, 10), 1.0), ((0, 0, 10), (5, 0, 10), 1 / 3), ((0, 0, 10), (20, 20, 5), 0.0),
    ((0, 0, 10), (2, 2, 5), 0.25),
])  # fmt: skip
def test_overlap_is_intersection_over_union(one, other, share):
    assert detect.overlap(np.array(one, float), np.array(other, float)) == pytest.approx(share)


def test_a_crop_beyond_the_picture_repeats_its_edge():
    grey = np.tile(np.arange(96, dtype="uint8"), (96, 1))
    inside = detect.crop(grey, np.array([24.0, 24, 48]))
    np.testing.assert_array_equal(inside, grey[24:72, 24:72])
    beyond = detect.crop(grey, np.array([-48.0, 10, 96]))
    assert beyond.shape == (48, 48)
    assert (beyond[:, :23] == 0).all()
    assert beyond[0, -1] > 40
    assert detect.widen(square(10, 10, 100), 0.02).tolist() == [[8, 8, 104]]


@pytest.mark.parametrize("missing", ["absent", "too new"])
def test_without_opencv_there_is_one_clear_sentence_and_tables_still_work(run, monkeypatch, missing):
    original = importlib.import_module

    def imported(name, *words):
        if name != "cv2":
            return original(name, *words)
        if missing == "absent":
            raise ImportError("No module named 'cv2'")
        return argparse.Namespace(__version__="5.0.0")

    monkeypatch.setattr(importlib, "import_module", imported)
    save("astronaut.png")
    done = run("astronaut.png")
    assert done.status == 1
    assert "pip install 'opencv-python-headless<5'" in done.err
    assert run("astronaut.png", "--no-detect").status == 0
    synthetic.write(Path(), PIXELS, LABELS, USAGE, names={"test.csv"})
    assert run("test.csv").status == 0


def test_opencv_is_named_in_one_module_that_nothing_else_needs():
    users = [
        file.name for file in (ROOT / "pipeline").rglob("*.py")
        if re_import(file) or '"cv2"' in file.read_text()
    ]  # fmt: skip
    assert users == ["detect.py"]
    # Others (Keras, say) may import what is installed; nothing here may need it.
    code = "import sys; sys.modules['cv2'] = None; from pipeline.training import backend; backend.start('tensorflow');"
    code += "from pipeline.apps import predict; from pipeline.cells import train"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def re_import(file):
    """Whether `file` has an import of cv2."""
    nodes = ast.walk(ast.parse(file.read_text()))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return "cv2" in names


def test_what_lies_in_the_users_home_changes_nothing(tmp_path, network):
    (tmp_path / "keras.json").write_text(json.dumps(
        {"floatx": "float64", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}
    ))  # fmt: skip
    for row, pixels in enumerate(PIXELS[:3]):
        save(tmp_path / f"faces/{row}.png", pixels)
    (tmp_path / "faces/empty.png").write_bytes(b"")
    words = ["predict", str(tmp_path / "faces"), "--no-detect", "--csv", str(tmp_path / "table.csv")]
    done = subprocess.run([sys.executable, "-m", "pipeline", *words], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"KERAS_HOME": str(tmp_path)})  # fmt: skip
    assert done.returncode == predict.SKIPPED, done.stderr
    assert "Traceback" not in done.stderr
    rows = csv.DictReader((tmp_path / "table.csv").open(newline=""))
    np.testing.assert_allclose([probabilities(row) for row in rows], network.probabilities(PIXELS[:3]), atol=2e-6)
