"""Pictures in folders, in the layouts that go round; and what is refused."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import settings
from PIL import Image

from pipeline.competition import CLASSES, SPLITS
from pipeline.data import archives, faces, incoming, pictures, prepare, provenance, solution, synthetic
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


def put(files, folder=incoming.FOLDER):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project whose params.yaml takes pictures from folders."""
    monkeypatch.chdir(tmp_path)
    settings.write({"source": "folders"})
    incoming.FOLDER.mkdir(parents=True)
    return tmp_path


def prepared():
    download.main()
    prepare.main()
    data = faces.load()
    return data, solution.join(data.labels, solution.load())


# Layouts


@pytest.mark.parametrize("form", ["plain", "deeper", "zip", "tar", "a zip a split", "classes alone", "JPEG"])
def test_file_names_with_the_official_split_give_the_competitions_table(place, monkeypatch, form):
    counts = np.zeros((3, 7), int)
    np.add.at(counts, (USAGE, LABELS), 1)
    monkeypatch.setattr(pictures, "CLASS_COUNTS", tuple(map(tuple, counts.tolist())))
    files = {official(row): encoded(PIXELS[row]) for row in range(len(LABELS))}
    if form == "plain":
        put(files | {".DS_Store": b"", "train/happy/Thumbs.db": b"", "README.md": b""})
    elif form == "deeper":
        put({f"archive/Images/{name.upper()}": content for name, content in files.items()})
    elif form == "classes alone":
        put({name.partition("/")[2]: content for name, content in files.items()})
    elif form == "JPEG":  # grey, though stored in colours
        put({name.replace(".png", ".jpg"): encoded(PIXELS[row], "JPEG", "RGB") for row, name in enumerate(files)})
    elif form == "zip":
        put({"archive.zip": zipped({name.replace("/", "\\"): content for name, content in files.items()})})  # Windows
    elif form == "a zip a split":
        for part in ("train/", "test/"):
            inside = {name.removeprefix(part): each for name, each in files.items() if name.startswith(part)}
            put({f"{part[:-1]}.zip": zipped(inside)})
    else:
        with tarfile.open(incoming.FOLDER / "archive.tar.gz", "w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    data, labels = prepared()
    assert np.abs(data.pixels.astype(int) - PIXELS).mean() < (8 if form == "JPEG" else 1e-9)
    np.testing.assert_array_equal(data.usage, USAGE)
    np.testing.assert_array_equal(labels, LABELS)
    assert (data.labels[USAGE != 0] == -1).all()
    assert provenance.standing(provenance.read()) == "folders"
    assert not provenance.read()["official"]


@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_a_folder_that_is_held_out_is_private_test_and_public_test_stays_empty(place, held_out):
    """As atulapra/Emotion-detection has it: numbered within a class and a folder."""
    for row, label in enumerate(LABELS):
        name = CLASSES[label]
        folder = "train" if USAGE[row] == 0 else held_out
        put({f"{folder}/{ATULAPRA.get(name, name)}/im{row}.png": encoded(PIXELS[row])})
    data, labels = prepared()
    order = np.argsort(USAGE > 0, kind="stable")
    assert np.bincount(data.usage).tolist() == [56, 0, 42]
    np.testing.assert_array_equal(data.pixels, PIXELS[order])
    np.testing.assert_array_equal(labels, LABELS[order])
    assert provenance.standing(provenance.read()) == "other split"


def names(*groups):
    """Paths of a few pictures a class; `groups` as FOLDER, or FOLDER:PREFIX."""
    return [
        f"{folder}/{name}/{prefix}{number}.png".lstrip("/")
        for folder, _, prefix in (group.partition(":") for group in groups)
        for name in CLASSES for number in (9, 10)
    ]  # fmt: skip


@pytest.mark.parametrize(("groups", "rows"), [
    (["train", "val", "test"], [14, 14, 14]), (["Training", "PublicTest", "PrivateTest"], [14, 14, 14]),
    (["train:Training_", "test:PrivateTest_"], [14, 0, 14]), (["train:Training_", "test:Training_x"], [14, 0, 14]),
    (["train:Training_", "val:Training_x", "test:PrivateTest_"], [14, 14, 14]),
    (["train:Training_", "test:PrivateTest_", "test:im"], [14, 0, 28]),
])  # fmt: skip
def test_the_file_names_tell_the_split_where_all_do_and_none_contradicts_its_folder(groups, rows):
    paths = names(*groups)
    found = pictures.layout(paths)
    assert np.bincount(found.usage, minlength=3).tolist() == rows
    assert not found.official  # other numbers than the competition's
    assert (np.diff(found.usage.astype(int)) >= 0).all()
    assert "9.png" in found.paths[0]
    assert pictures.layout(paths[::-1]).paths == found.paths
    assert [CLASSES[label] for label in found.labels] == [path.split("/")[-2] for path in found.paths]


# What is refused

PNG = encoded(PIXELS[0])
GOOD = dict.fromkeys(names("train", "test"), PNG)
REFUSED = {
    "nothing": ({}, "data/incoming"),
    "no pictures": ({"README.md": b"", "fer2013.csv": b""}, "data/incoming"),
    "no class": (GOOD | {"train/contempt/1.png": PNG}, "train/contempt/1.png"),
    "a number": (GOOD | {"train/3/1.png": PNG}, "train/3/1.png"),
    "no sad": ({name: PNG for name in GOOD if "train/sad" not in name}, "sad"),
    "none held out": ({name: PNG for name in GOOD if "train" in name}, "held out"),
    "no split": (dict.fromkeys(names(":Training_", ":im"), PNG), "angry/im10.png"),
    "twice": (GOOD | {"images/train/sad/9.png": PNG}, "images/train/sad/9.png"),
    "other names": (GOOD | {"train/fear/x.png": PNG, "train/fearful/x.png": PNG}, "train/fearful/x.png"),
    "webp": (GOOD | {"train/sad/1.webp": PNG}, "train/sad/1.webp"),
    "too large": (GOOD | {"train/sad/big.png": bytes(2**20 + 1)}, "1,048,577"),
    "packed too": (GOOD | {"train.zip": zipped({"angry/9.png": PNG})}, "train/angry/9.png"),
    "damaged zip": ({"faces.zip": zipped(GOOD)[:-30]}, "faces.zip"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folders_that_cannot_be_understood_are_refused_and_what_was_there_stays(place, case):
    files, named = REFUSED[case]
    put({"good": b"stays"}, download.RAW)
    put(files)
    with pytest.raises(UserError) as refusal:
        download.main()
    assert named in str(refusal.value)
    assert [path.name for path in download.RAW.iterdir()] == ["good"]


COLOUR = np.dstack([PIXELS[0], PIXELS[0], 255 - PIXELS[0]])
ODD = {
    "empty": b"", "text": b"no picture", "GIF": encoded(PIXELS[0], "GIF"), "cut": PNG[:-200],
    "cut JPEG": encoded(PIXELS[0], "JPEG")[:-300], "damaged": PNG.replace(b"IDAT", b"IDAX"),
    "narrow": encoded(PIXELS[0][:47]), "large": encoded(np.tile(PIXELS[0], (5, 5))), "colour": encoded(COLOUR),
    "palette": encoded(COLOUR, "PNG", "P"), "alpha": encoded(PIXELS[0], "PNG", "RGBA"),
    "deep": encoded(PIXELS[0], "PNG", "I;16"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_a_picture_that_is_none_of_a_grey_face_is_refused_by_its_name_and_the_faces_stay(place, kind):
    put(GOOD | {"train/sad/odd_1.png": ODD[kind]}, incoming.FOLDER / "deep")
    faces.PATH.write_bytes(b"stays")
    download.main()
    with pytest.raises(UserError, match=r"data/incoming/deep/train/sad/odd_1\.png"):
        prepare.main()
    assert faces.PATH.read_bytes() == b"stays"


def test_a_folder_that_cannot_be_read_stops_it(place, close):
    put(GOOD)
    close("test/sad")
    with pytest.raises(PermissionError):
        download.main()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "L"), ("BMP", "RGB")])
def test_grey_pictures_in_any_form_are_the_same(kind, mode):
    np.testing.assert_array_equal(pictures.decode(encoded(PIXELS[0], kind, mode), "x"), PIXELS[0])


def test_too_many_bytes_of_pictures_are_refused(place, monkeypatch):
    put(GOOD)
    monkeypatch.setattr(archives, "LARGEST", 5 * len(PNG))
    with pytest.raises(UserError, match="data/incoming"):
        download.main()


def test_the_packed_pictures_are_the_same_again_and_their_damage_is_told(place):
    put(GOOD)
    download.main()
    first = (download.RAW / pictures.NAME).read_bytes()
    download.main()
    assert (download.RAW / pictures.NAME).read_bytes() == first
    (download.RAW / pictures.NAME).write_bytes(first[:-9])
    with pytest.raises(UserError, match=r"pictures\.zip.*dvc repro -f download"):
        prepare.main()
