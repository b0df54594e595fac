"""Datasets of pictures in folders: known layouts and errors."""

import io
import re
import tarfile
import zipfile

import numpy as np
import pytest
import settings
from PIL import Image

from pipeline.competition import CLASSES, SPLITS
from pipeline.data import faces, incoming, pictures, prepare, provenance, solution, synthetic
from pipeline.errors import UserError
from pipeline.kaggle import download

PIXELS, LABELS, USAGE = synthetic.competition(56, 21, seed=7)
ATULAPRA = {"disgust": "disgusted", "fear": "fearful", "surprise": "surprised"}


def encoded(pixels, kind="PNG", mode=None):
    file, picture = io.BytesIO(), Image.fromarray(pixels)
    picture.convert(mode or picture.mode).save(file, kind)
    return file.getvalue()


def official(row):
    """Return the path in msambare/fer2013 on Kaggle; the numbers increase with the rows and need numeric sorting."""
    split = SPLITS[USAGE[row]]
    return f"{'train' if USAGE[row] == 0 else 'test'}/{CLASSES[LABELS[row]]}/{split}_{7 + 31 * row}.png"


def two_way(row, held_out="test"):
    """Return the path in atulapra/Emotion-detection, numbered within each class and folder."""
    folder, name = "train" if USAGE[row] == 0 else held_out, CLASSES[LABELS[row]]
    before = (LABELS[:row] == LABELS[row]) & ((USAGE[:row] == 0) == (USAGE[row] == 0))
    return f"{folder}/{ATULAPRA.get(name, name)}/im{before.sum()}.png"


def drawn(name_of):
    return {name_of(row): encoded(PIXELS[row]) for row in range(len(LABELS))}


def put(files, folder):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


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
    return data, solution.join(data.labels, solution.load())


# Layouts


FORMS = ["plain", "nested", "one zip", "one tar", "zip per split", "linked", "classes only", "JPEG"]


@pytest.mark.parametrize("form", FORMS)
def test_file_names_with_the_official_split_give_the_competitions_table(place, monkeypatch, form):
    counts = np.zeros((3, 7), int)
    np.add.at(counts, (USAGE, LABELS), 1)
    monkeypatch.setattr(pictures, "CLASS_COUNTS", tuple(map(tuple, counts.tolist())))
    files, folder = drawn(official), incoming.FOLDER
    if form == "plain":
        put(files | dict.fromkeys((".DS_Store", "train/happy/Thumbs.db", "README.md", "fer2013.bib"), b""), folder)
    elif form == "nested":
        put({f"archive/Images/{name.upper()}": content for name, content in files.items()}, folder)
    elif form == "linked":
        put(files, place / "elsewhere")
        for part in ("train", "test"):
            (folder / part).symlink_to(place / "elsewhere" / part)
    elif form == "classes only":
        put({name.partition("/")[2]: content for name, content in files.items()}, folder)
    elif form == "JPEG":  # grey pixels stored as RGB
        files = {name.replace(".png", ".jpg"): encoded(PIXELS[row], "JPEG", "RGB") for row, name in enumerate(files)}
        put(files, folder)
    elif form == "one tar":
        put(files, place / "elsewhere")
        with tarfile.open(folder / "archive.tar.gz", "w:gz") as archive:
            archive.add(place / "elsewhere", ".")
    else:
        for part in ("train/", "test/") if form == "zip per split" else ("",):
            with zipfile.ZipFile(folder / f"{part[:-1] or 'archive'}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    if name.startswith(part):  # with backslashes, like some Windows programs
                        archive.writestr(name.removeprefix(part).replace("/", "\\"), content)
    data, labels = prepared()
    if form == "JPEG":
        assert np.abs(data.pixels.astype(int) - PIXELS).mean() < 8
    else:
        np.testing.assert_array_equal(data.pixels, PIXELS)
    np.testing.assert_array_equal(data.usage, USAGE)
    np.testing.assert_array_equal(labels, LABELS)
    assert (data.labels[USAGE != 0] == -1).all()
    facts = provenance.read()
    assert (provenance.kind(facts), facts["official"]) == ("folders", False)
    assert facts["split"] == "by the file names (Training_, PublicTest_, PrivateTest_)"


@pytest.mark.parametrize("held_out", ["test", "validation", "val"])
def test_a_held_out_folder_is_private_test_and_public_test_is_empty(place, held_out):
    put(drawn(lambda row: two_way(row, held_out)), incoming.FOLDER)
    data, labels = prepared()
    assert np.bincount(data.usage).tolist() == [56, 0, 42]
    by_name = sorted(range(len(LABELS)), key=lambda row: (USAGE[row] > 0, int(re.findall(r"\d+", two_way(row))[0]),
                                                          CLASSES[LABELS[row]]))  # fmt: skip
    np.testing.assert_array_equal(data.pixels, PIXELS[by_name])
    np.testing.assert_array_equal(labels, LABELS[by_name])
    facts = provenance.read()
    assert provenance.kind(facts) == "other split"
    assert facts["split"] == f"by the folders: train/ as Training, {held_out}/ as PrivateTest; PublicTest is empty"


def names(*groups):
    """Return paths of two pictures per class; each group is FOLDER or FOLDER:PREFIX."""
    return [
        f"{folder}/{name}/{prefix}{number}.png".lstrip("/")
        for folder, _, prefix in (group.partition(":") for group in groups)
        for name in CLASSES for number in (9, 10)
    ]  # fmt: skip


@pytest.mark.parametrize(("paths", "rows", "says"), [
    (names("train", "val", "test"), [14, 14, 14], "val/ as PublicTest"),
    (names("Training", "PublicTest", "PrivateTest"), [14, 14, 14], "publictest/ as PublicTest.*; but"),
    (names("train:Training_", "val:PublicTest_", "test:PrivateTest_"), [14, 14, 14], "by the file names .*; but"),
    (names("train:Training_", "test:PrivateTest_"), [14, 0, 14], "PublicTest is empty; but"),
    (names("train:Training_", "test:Training_x"), [14, 0, 14], "by the folders"),
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
COLOUR = np.dstack([FACE, FACE, 255 - FACE])
PNG = encoded(FACE)


@pytest.mark.parametrize(("files", "message"), [
    ({}, "no picture of angry, disgust"),
    ({"README.md": b"", "fer2013.csv": b""}, "no picture of angry"),
    (GOOD | {"train/contempt/1.png": PNG}, "train/contempt/1.png"),
    (GOOD | {"train/3/1.png": PNG}, "train/3/1.png"),
    (GOOD | {"one.png": PNG}, "one.png"),
    ({name: face for name, face in GOOD.items() if "train/sad" not in name}, "no picture of sad"),
    ({name: face for name, face in GOOD.items() if "train" in name}, "no picture is held out"),
    ({f"images/{name}": PNG for name in names("extra", "test")}, "images/extra/angry/10.png: its split"),
    (dict.fromkeys(names(":Training_", ":im"), PNG), "its split"),
    (GOOD | {"images/train/sad/9.png": PNG}, "images/train/sad/9.png"),
    (GOOD | {"train/fear/x.png": PNG, "train/fearful/x.png": PNG}, "train/fear/x.png"),
])  # fmt: skip
def test_an_unknown_layout_is_an_error_and_old_files_are_kept(place, files, message):
    download.RAW.mkdir()
    (download.RAW / "good").write_text("kept")
    put(files, incoming.FOLDER)
    with pytest.raises(UserError, match=f"(?-s:^.*{message}.*$)"):
        download.main()
    assert [path.name for path in download.RAW.iterdir()] == ["good"]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "cannot be read"), (encoded(FACE, "GIF"), "cannot be read"), (PNG[:-200], "cannot be read"),
    (encoded(FACE, "JPEG")[:-300], "cannot be read"), (encoded(FACE[:47]), "48 x 47 pixels"),
    *((content, "not an 8-bit greyscale picture") for content in (
        encoded(COLOUR), encoded(COLOUR, "JPEG"), encoded(COLOUR, "PNG", "P"), encoded(FACE, "PNG", "RGBA"),
        encoded(FACE, "PNG", "1"), encoded(FACE, "PNG", "I;16"),
    )),
])  # fmt: skip
def test_an_invalid_picture_is_an_error_with_its_name(place, content, message):
    put(GOOD | {"train/sad/odd_1.png": content}, incoming.FOLDER / "deep")
    with pytest.raises(UserError, match=f"^data/incoming/deep/train/sad/odd_1.png .*{message}.*$"):
        download.main()


def test_an_unreadable_folder_is_an_error(place, close):
    put(GOOD, incoming.FOLDER)
    close("test/sad")
    with pytest.raises(PermissionError):
        download.main()


def test_a_repeated_picture_is_an_error(place):
    put(GOOD, incoming.FOLDER)
    put({"._train.zip": b"\0\5\26\7"}, incoming.FOLDER)  # written by macOS next to train.zip
    name = next(name for name in GOOD if name.startswith("train/angry/"))
    with zipfile.ZipFile(incoming.FOLDER / "train.zip", "w") as archive:
        archive.writestr(name.removeprefix("train/"), PNG)
    with pytest.raises(UserError, match=f"{name}: .* repeated"):
        download.main()


def test_grey_pictures_in_any_format_give_equal_pixels(place):
    for kind, mode in (("PNG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "L"), ("BMP", "RGB")):
        np.testing.assert_array_equal(pictures.decode(encoded(FACE, kind, mode), "x"), FACE)


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"not a zip"])
def test_a_damaged_zip_is_an_error_with_its_name(place, damage):
    with zipfile.ZipFile(place / "whole.zip", "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
    (incoming.FOLDER / "faces.zip").write_bytes(damage((place / "whole.zip").read_bytes()))
    with pytest.raises(UserError, match=r"data/incoming/faces\.zip is damaged"):
        download.main()


def test_the_decoded_pictures_are_reproducible_and_their_damage_is_an_error(place):
    put(GOOD, incoming.FOLDER)
    download.main()
    first = (download.RAW / pictures.NAME).read_bytes()
    download.main()
    assert (download.RAW / pictures.NAME).read_bytes() == first
    (download.RAW / pictures.NAME).write_bytes(first[:-9])
    with pytest.raises(UserError, match=r"pictures\.npz is damaged.*dvc repro -f download"):
        prepare.main()


def test_a_file_that_unpacks_to_more_than_the_limit_is_an_error(place, monkeypatch):
    monkeypatch.setattr(incoming, "LARGEST", 100_000)
    synthetic.write(place, PIXELS, LABELS, USAGE, names={"fer2013.tar.gz"})
    with pytest.raises(UserError, match="more than 100,000 bytes"):
        prepare.read_file(place / "fer2013.tar.gz")
