"""The competition's files in every form give the same faces, and errors contain file and line."""

import csv

import numpy as np
import pandas as pd
import pytest
from settings import refuses
from test_download import pack

from pipeline.competition import SPLITS
from pipeline.data import faces, prepare, solution

RAW = prepare.RAW
FORMS = ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv", "train.csv")
RNG = np.random.default_rng(2013)
ROWS = 45
USAGE = np.repeat([0, 1, 2], (35, 5, 5))
LABELS = RNG.integers(0, 7, ROWS)
PIXELS = RNG.integers(0, 256, (ROWS, 48, 48))
SEVENS = " ".join(["7"] * 2303)  # one less than a picture has


@pytest.fixture(autouse=True)
def _raw(stand):
    """Create an empty data/raw/."""
    RAW.mkdir(parents=True)


def table():
    """Return the columns of fer2013.csv as text."""
    pixels = [" ".join(map(str, picture.ravel())) for picture in PIXELS]
    return pd.DataFrame({"emotion": LABELS.astype(str), "pixels": pixels, "Usage": np.array(SPLITS)[USAGE]})


def put(form, rows):
    """Write the files of a form to data/raw/, in the formats of Kaggle."""
    if form == "fer2013.tar.gz":
        whole = rows.to_csv(index=False).encode()
        pack(RAW / form, {"fer2013/._fer2013.csv": b"from macOS", "fer2013/fer2013.csv": whole})
    elif form == "icml_face_data.csv":
        names = ["emotion", "Usage", "pixels"]
        rows.to_csv(RAW / form, columns=names, header=["emotion", " Usage", " pixels"], index=False)
    elif form == "train.csv":
        training = rows["Usage"] == "Training"
        tests = rows[~training].sort_values("Usage", ascending=False, kind="stable")
        rows[training].to_csv(RAW / form, columns=["emotion", "pixels"], index=False, quoting=csv.QUOTE_ALL)
        tests.to_csv(RAW / "test.csv", columns=["pixels"], index=False, quoting=csv.QUOTE_ALL)
    else:
        rows.to_csv(RAW / form, index=False)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_faces_in_the_competitions_order(capsys, form):
    order = RNG.permutation(ROWS)
    put(form, table().iloc[order])
    prepare.main()
    data, order = faces.load(), order[np.argsort(USAGE[order], kind="stable")]
    np.testing.assert_array_equal(data.pixels, PIXELS[order])
    np.testing.assert_array_equal(data.labels, np.where(USAGE == 0, LABELS[order], -1))
    np.testing.assert_array_equal(data.usage, USAGE)
    known = form != "train.csv"
    assert list(solution.load(data)[35:]) == list(LABELS[order[35:]] if known else [-1] * 10)
    assert ("test labels unknown" in capsys.readouterr().out) == (not known)


@pytest.mark.parametrize("form", FORMS[1:])
def test_line_ends_of_windows_and_blank_lines_change_nothing(form):
    put(form, table())
    for path in RAW.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n").rstrip())
    prepare.main()
    np.testing.assert_array_equal(faces.load().pixels, PIXELS)
    np.testing.assert_array_equal(faces.load().labels[:35], LABELS[:35])


@pytest.mark.parametrize(("column", "value", "problem"), [
    ("pixels", SEVENS, "2,303 pixels"), ("pixels", "", "0 pixels"), ("pixels", f"{SEVENS} 256", "pixels must be"),
    ("pixels", f"{SEVENS} \xe9", "pixels must be"), ("emotion", "7", "emotion"), ("emotion", "", "emotion"),
    ("Usage", "Test", "Usage"),
], ids=lambda field: field[-15:])  # fmt: skip
def test_an_invalid_field_is_an_error_with_its_file_and_line(column, value, problem):
    rows = table()
    rows.loc[ROWS - 1, column] = value
    put("fer2013.csv", rows)
    refuses(rf"^data/raw/fer2013\.csv, line {ROWS + 1}: .*{problem}", prepare.main)
    assert not faces.PATH.exists()


@pytest.mark.parametrize("text", [
    "", "emotion,pixels,Usage\n", "<!DOCTYPE html>\n<html></html>\n", f"emotion,pixels\n3,{SEVENS} 7\n",
    f"emotion,pixels,Usage\n3,{SEVENS} 7,Training,Training\n",
], ids=lambda text: text[:30])  # fmt: skip
def test_a_file_in_another_format_is_an_error(text):
    (RAW / "fer2013.csv").write_text(text)
    refuses(r"^data/raw/fer2013\.csv", prepare.main)


@pytest.mark.parametrize("lacking", ["Training", "PrivateTest", "labels"])
def test_an_incomplete_competition_is_an_error(lacking):
    rows = table()[table()["Usage"] != lacking]
    put("fer2013.csv", rows.drop(columns="emotion") if lacking == "labels" else rows)
    refuses(r"^data/raw lacks", prepare.main)


def test_the_columns_of_train_and_test_csv_decide_what_is_trained_on():
    put("train.csv", table())
    table()[35:][["emotion", "pixels"]].to_csv(RAW / "test.csv", index=False)  # these are test labels
    data, hidden = prepare.hide_test_labels(prepare.read_folder(RAW))
    assert set(data.labels[data.test_rows()]) == {-1}
    assert list(hidden["emotion"]) == list(LABELS[35:])
    table().to_csv(RAW / "train.csv", index=False)  # complete: its test rows would become Training rows
    refuses(r"^data/raw/train\.csv .*fer2013\.csv", prepare.main)
