"""Datasets of pictures in folders: known layouts and errors."""

import io
import re

import numpy as np
import pytest
import settings
from PIL import Image
from settings import refuses
from test_download import pack, put

from pipeline.competition import CLASSES, SPLITS
from pipeline.data import faces, incoming, pictures, prepare, provenance, solution, synthetic
from pipeline.kaggle import download

PIXELS, LABELS, USAGE = synthetic.competition(56, 21, seed=7)
ATULAPRA = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")  # its names of the classes


def encoded(pixels, kind="PNG", mode=None):
    file, picture = io.BytesIO(), Image.fromarray(pixels)
    picture.convert(mode or picture.mode).save(file, kind)
    return file.getvalue()


def official(row):
    """Return the path in msambare/fer2013 on Kaggle; the numbers increase with the rows and need numeric sorting."""
    split = SPLITS[USAGE[row]]
    return f"{'train' if USAGE[row] == 0 else 'test'}/{CLASSES[LABELS[row]]}/{split}_{7 + 31 * row}.png"


@pytest.fixture
def place(stand):
    """Create a project whose params.yaml selects pictures in folders."""
    settings.write({"source": "folders"})
    incoming.FOLDER.mkdir(parents=True)
    return stand


def prepared():
    download.main()
    prepare.main()
    data = faces.load()
    return data, solution.load(data)


# Layouts


@pytest.mark.parametrize("form", ["nested", "JPEG", "Windows zip", "links"])
def test_file_names_with_the_official_split_give_the_competitions_table(place, monkeypatch, form):
    counts = [np.bincount(LABELS[split == USAGE], minlength=7).tolist() for split in range(3)]
    monkeypatch.setattr(pictures, "CLASS_COUNTS", counts)
    files = {official(row): encoded(PIXELS[row]) for row in range(len(LABELS))}
    folder, elsewhere = incoming.FOLDER, place / "elsewhere"
    put(files, elsewhere)
    if form == "nested":
        put({f"archive/Images/{name.upper()}": content for name, content in files.items()}, folder)
        put(dict.fromkeys((".DS_Store", "archive/Images/TRAIN/HAPPY/Thumbs.db", "README.md"), b""), folder)
    elif form == "JPEG":  # grey pixels stored as RGB
        files = {name.replace(".png", ".jpg"): encoded(PIXELS[row], "JPEG", "RGB") for row, name in enumerate(files)}
        put(files, folder)
    elif form == "Windows zip":
        hidden = {"__MACOSX/train/happy/._1.png": b"not a picture"}  # macOS adds such files
        pack(folder / "archive.zip", {name.replace("/", "\\"): content for name, content in (files | hidden).items()})
    else:
        for part in ("train", "test"):
            (folder / part).symlink_to(elsewhere / part)
    data, labels = prepared()
    assert np.abs(data.pixels.astype(int) - PIXELS).mean() <= (8 if form == "JPEG" else 0)
    np.testing.assert_array_equal(data.usage, USAGE)
    np.testing.assert_array_equal(labels, LABELS)
    assert (data.labels[USAGE != 0] == -1).all()
    facts = provenance.read()
    assert (provenance.kind(facts), facts["official"]) == ("folders", False)
    assert facts["split"].startswith("by the file names")


@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_a_held_out_folder_is_private_test_and_public_test_is_empty(place, held_out):
    for row, (label, usage) in enumerate(zip(LABELS, USAGE, strict=True)):
        name = f"{held_out if usage else 'train'}/{ATULAPRA[label]}/im{row}.png"
        put({name: encoded(PIXELS[row])}, incoming.FOLDER)
    data, labels = prepared()
    assert np.bincount(data.usage).tolist() == [56, 0, 42]
    np.testing.assert_array_equal(data.pixels, PIXELS)
    np.testing.assert_array_equal(labels, LABELS)
    facts = provenance.read()
    assert provenance.kind(facts) == "other split"
    parts = ("train/ as Training", f"{held_out}/ as PrivateTest", "PublicTest is empty")
    assert all(part in facts["split"] for part in parts)


def names(*groups):
    """Return paths of two pictures per class; each group is FOLDER or FOLDER:PREFIX."""
    return [
        f"{folder}/{name}/{prefix}{number}.png".lstrip("/")
        for folder, _, prefix in (group.partition(":") for group in groups)
        for name in CLASSES for number in (9, 10)
    ]  # fmt: skip


@pytest.mark.parametrize(("paths", "rows", "says"), [
    (names("train", "val", "test"), [14, 14, 14], "val/ as PublicTest"),
    (names("train:Training_", "val:PublicTest_", "test:PrivateTest_"), [14, 14, 14], "by the file names .*; but"),
    (names("train:Training_", "test:PrivateTest_", "test:im"), [14, 0, 28], "by the folders"),
])  # fmt: skip
def test_file_names_determine_the_split_only_if_all_contain_one(paths, rows, says):
    layout = pictures.layout(paths)
    assert np.bincount(layout.usage, minlength=3).tolist() == rows
    assert re.search(says, layout.split_source)
    assert not layout.official
    assert (np.diff(layout.usage.astype(int)) >= 0).all()
    assert "9.png" in layout.paths[0]
    assert pictures.layout(paths[::-1]).paths == layout.paths
    assert [CLASSES[label] for label in layout.labels] == [path.split("/")[-2] for path in layout.paths]


# Errors


FACE = PIXELS[0]
GOOD = {name: encoded(FACE) for name in names("train", "test")}
PNG = encoded(FACE)


@pytest.mark.parametrize(("files", "message"), [
    (GOOD | {"train/contempt/1.png": PNG}, "train/contempt/1.png"),
    ({"fer2013.csv": b""}, "no picture of angry, disgust"),
    ({name: face for name, face in GOOD.items() if "train" in name}, "no picture is held out"),
    ({f"images/{name}": PNG for name in names("extra", "test")}, "images/extra/angry/10.png: its split"),
    (GOOD | {"train/fear/x.png": PNG, "train/fearful/x.png": PNG}, "train/fear/x.png"),
    (GOOD | {"train/sad/odd.png": PNG[:-200]}, "sad/odd.png cannot be read"),
    (GOOD | {"train/sad/odd.png": encoded(FACE[:47])}, "sad/odd.png has 48 x 47 pixels"),
    (GOOD | {"train/sad/odd.png": encoded(np.dstack([FACE, FACE, 255 - FACE]))}, "sad/odd.png is not an 8-bit grey"),
])  # fmt: skip
def test_an_unknown_layout_or_invalid_picture_is_an_error_and_old_files_are_kept(place, files, message):
    download.RAW.mkdir()
    (download.RAW / "good").write_text("kept")
    put(files, incoming.FOLDER)
    refuses(f"(?-s:^.*{message}.*$)", download.main)
    assert [path.name for path in download.RAW.iterdir()] == ["good"]


@pytest.mark.usefixtures("_locked")
def test_an_unreadable_folder_is_an_error(place):
    put(GOOD | {"test/locked/1.png": PNG}, incoming.FOLDER)
    with pytest.raises(PermissionError):
        download.main()


def test_a_repeated_picture_is_an_error(place):
    put(GOOD | {"._train.zip": b"\0\5\26\7"}, incoming.FOLDER)  # written by macOS next to train.zip
    pack(incoming.FOLDER / "train.zip", {"angry/9.png": PNG})
    refuses(r"train/angry/9\.png: .* repeated", download.main)


def test_grey_pictures_in_any_format_give_equal_pixels():
    for kind, mode in (("PNG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "L"), ("BMP", "RGB")):
        np.testing.assert_array_equal(pictures.decode(encoded(FACE, kind, mode), "x"), FACE)


def test_the_decoded_pictures_are_reproducible_and_their_damage_is_an_error(place):
    put(GOOD, incoming.FOLDER)
    download.main()
    first = (download.RAW / pictures.NAME).read_bytes()
    download.main()
    assert (download.RAW / pictures.NAME).read_bytes() == first
    (download.RAW / pictures.NAME).write_bytes(first[:-9])
    refuses(r"pictures\.npz is damaged.*dvc repro -f download", prepare.main)
