"""Pictures in folders, in the layouts that go round; and what is refused."""

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
    """As msambare/fer2013 on Kaggle has it; the numbers rise with the rows, and need numeric sorting."""
    split = SPLITS[USAGE[row]]
    return f"{'train' if USAGE[row] == 0 else 'test'}/{CLASSES[LABELS[row]]}/{split}_{7 + 31 * row}.png"


def two_way(row, held_out="test"):
    """As atulapra/Emotion-detection has it: numbered within a class and a folder."""
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
    """A project whose params.yaml takes pictures from folders."""
    settings.write({"source": "folders"})
    incoming.FOLDER.mkdir(parents=True)
    return stand


def prepared():
    download.main()
    prepare.main()
    data = faces.load()
    return data, solution.join(data.labels, solution.load())


# Layouts


@pytest.mark.parametrize(
    "form", ["plain", "deeper", "one zip", "one tar", "a zip a split", "linked", "classes alone", "JPEG"]
)
def test_file_names_with_the_official_split_give_the_competitions_table(place, monkeypatch, form):
    counts = np.zeros((3, 7), int)
    np.add.at(counts, (USAGE, LABELS), 1)
    monkeypatch.setattr(pictures, "CLASS_COUNTS", tuple(map(tuple, counts.tolist())))
    files, folder = drawn(official), incoming.FOLDER
    if form == "plain":
        put(files | dict.fromkeys((".DS_Store", "train/happy/Thumbs.db", "README.md", "fer2013.bib"), b""), folder)
    elif form == "deeper":
        put({f"archive/Images/{name.upper()}": content for name, content in files.items()}, folder)
    elif form == "linked":
        put(files, place / "elsewhere")
        for part in ("train", "test"):
            (folder / part).symlink_to(place / "elsewhere" / part)
    elif form == "classes alone":
        put({name.partition("/")[2]: content for name, content in files.items()}, folder)
    elif form == "JPEG":  # grey, though stored in colours
        files = {name.replace(".png", ".jpg"): encoded(PIXELS[row], "JPEG", "RGB") for row, name in enumerate(files)}
        put(files, folder)
    elif form == "one tar":
        put(files, place / "elsewhere")
        with tarfile.open(folder / "archive.tar.gz", "w:gz") as archive:
            archive.add(place / "elsewhere", ".")
    else:
        for part in ("train/", "test/") if form == "a zip a split" else ("",):
            with zipfile.ZipFile(folder / f"{part[:-1] or 'archive'}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    if name.startswith(part):  # with the signs that some Windows programs write
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
    assert (provenance.standing(facts), facts["official"]) == ("folders", False)
    assert facts["split"] == "by the file names (Training_, PublicTest_, PrivateTest_)"


@pytest.mark.parametrize("held_out", ["test", "validation", "val"])
def test_a_folder_that_is_held_out_is_private_test_and_public_test_stays_empty(place, held_out):
    put(drawn(lambda row: two_way(row, held_out)), incoming.FOLDER)
    data, labels = prepared()
    assert np.bincount(data.usage).tolist() == [56, 0, 42]
    by_name = sorted(range(len(LABELS)), key=lambda row: (USAGE[row] > 0, int(re.findall(r"\d+", two_way(row))[0]),
                                                          CLASSES[LABELS[row]]))  # fmt: skip
    np.testing.assert_array_equal(data.pixels, PIXELS[by_name])
    np.testing.assert_array_equal(labels, LABELS[by_name])
    facts = provenance.read()
    assert provenance.standing(facts) == "other split"
    assert facts["split"] == (
        f"by the folders: train/ stands as Training, {held_out}/ stands as PrivateTest; PublicTest is empty"
    )


def names(*groups):
    """Paths of a few pictures a class; `groups` as FOLDER, or FOLDER:PREFIX."""
    return [
        f"{folder}/{name}/{prefix}{number}.png".lstrip("/")
        for folder, _, prefix in (group.partition(":") for group in groups)
        for name in CLASSES for number in (9, 10)
    ]  # fmt: skip


@pytest.mark.parametrize(("paths", "rows", "says"), [
    (names("train", "val", "test"), [14, 14, 14], "val/ stands as PublicTest"),
    (names("Training", "PublicTest", "PrivateTest"), [14, 14, 14], "publictest/ stands as PublicTest.*; but other"),
    (names("train:Training_", "val:PublicTest_", "test:PrivateTest_"), [14, 14, 14], "by the file names .*; but other"),
    (names("train:Training_", "test:PrivateTest_"), [14, 0, 14], "PublicTest is empty; but other numbers"),
    (names("train:Training_", "test:Training_x"), [14, 0, 14], "by the folders"),
    (names("train:Training_", "test:PrivateTest_", "test:im"), [14, 0, 28], "by the folders"),
])  # fmt: skip
def test_the_file_names_tell_the_split_where_all_do(paths, rows, says):
    found = pictures.layout(paths)
    assert np.bincount(found.usage, minlength=3).tolist() == rows
    assert re.search(says, found.says)
    assert not found.official
    assert (np.diff(found.usage.astype(int)) >= 0).all()
    assert "9.png" in found.paths[0]
    assert pictures.layout(paths[::-1]).paths == found.paths
    assert [CLASSES[label] for label in found.labels] == [path.split("/")[-2] for path in found.paths]


# What is refused


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
    ({f"images/{name}": PNG for name in names("extra", "test")}, "images/extra/angry/10.png: its split is not known"),
    (dict.fromkeys(names(":Training_", ":im"), PNG), "its split is not known"),
    (GOOD | {"images/train/sad/9.png": PNG}, "images/train/sad/9.png"),
    (GOOD | {"train/fear/x.png": PNG, "train/fearful/x.png": PNG}, "train/fear/x.png"),
])  # fmt: skip
def test_folders_that_cannot_be_understood_are_refused_and_what_was_there_stays(place, files, message):
    download.RAW.mkdir()
    (download.RAW / "good").write_text("stays")
    put(files, incoming.FOLDER)
    with pytest.raises(UserError, match=message) as refusal:
        download.main()
    assert "\n" not in str(refusal.value)
    assert [path.name for path in download.RAW.iterdir()] == ["good"]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "cannot be read"), (encoded(FACE, "GIF"), "cannot be read"), (PNG[:-200], "cannot be read"),
    (encoded(FACE, "JPEG")[:-300], "cannot be read"), (encoded(FACE[:47]), "48 x 47 pixels"),
    *((content, "no grey picture") for content in (
        encoded(COLOUR), encoded(COLOUR, "JPEG"), encoded(COLOUR, "PNG", "P"), encoded(FACE, "PNG", "RGBA"),
        encoded(FACE, "PNG", "1"), encoded(FACE, "PNG", "I;16"),
    )),
])  # fmt: skip
def test_a_picture_that_is_none_of_a_grey_face_is_refused_by_its_name_and_the_faces_stay(place, content, message):
    put(GOOD | {"train/sad/odd_1.png": content}, incoming.FOLDER / "deep")
    faces.PATH.write_bytes(b"stays")
    with pytest.raises(UserError, match=f"data/incoming/deep/train/sad/odd_1.png .*{message}") as refusal:
        download.main()
    assert "\n" not in str(refusal.value)
    assert faces.PATH.read_bytes() == b"stays"


def test_a_folder_that_cannot_be_read_stops_it(place, close):
    put(GOOD, incoming.FOLDER)
    close("test/sad")
    with pytest.raises(PermissionError):
        download.main()


def test_a_picture_that_stands_there_twice_is_refused(place):
    put(GOOD, incoming.FOLDER)
    put({"._train.zip": b"\0\5\26\7"}, incoming.FOLDER)  # as macOS leaves it beside train.zip
    name = next(name for name in GOOD if name.startswith("train/angry/"))
    with zipfile.ZipFile(incoming.FOLDER / "train.zip", "w") as archive:
        archive.writestr(name.removeprefix("train/"), PNG)
    with pytest.raises(UserError, match=f"{name} stands there twice"):
        download.main()


def test_grey_pictures_in_any_form_are_the_same(place):
    for kind, mode in (("PNG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "L"), ("BMP", "RGB")):
        np.testing.assert_array_equal(pictures.decode(encoded(FACE, kind, mode), "x"), FACE)


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"no zip"])
def test_a_damaged_zip_is_refused_by_its_name(place, damage):
    with zipfile.ZipFile(place / "whole.zip", "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
    (incoming.FOLDER / "faces.zip").write_bytes(damage((place / "whole.zip").read_bytes()))
    with pytest.raises(UserError, match=r"data/incoming/faces\.zip is damaged"):
        download.main()


def test_the_packed_pictures_are_the_same_again_and_their_damage_is_told(place):
    put(GOOD, incoming.FOLDER)
    download.main()
    first = (download.RAW / pictures.NAME).read_bytes()
    download.main()
    assert (download.RAW / pictures.NAME).read_bytes() == first
    (download.RAW / pictures.NAME).write_bytes(first[:-9])
    with pytest.raises(UserError, match=r"pictures\.npz is damaged.*dvc repro -f download"):
        prepare.main()


def test_what_unpacks_to_more_than_any_competition_file_is_refused_before_memory_is_full(place, monkeypatch):
    monkeypatch.setattr(incoming, "LARGEST", 100_000)
    synthetic.write(place, PIXELS, LABELS, USAGE, names={"fer2013.tar.gz"})
    with pytest.raises(UserError, match="more than 100,000 bytes"):
        prepare.read_file(place / "fer2013.tar.gz")
