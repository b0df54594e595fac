"""The competition's files in every form give the same faces, and errors contain file and line."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest

from pipeline.competition import SPLITS
from pipeline.data import faces, prepare, solution
from pipeline.errors import UserError

FORMS = ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv", "train.csv")
RNG = np.random.default_rng(2013)
ROWS = 45
USAGE = np.repeat([0, 1, 2], (35, 5, 5))
LABELS = RNG.integers(0, 7, ROWS)
PIXELS = RNG.integers(0, 256, (ROWS, 48, 48))
SEVENS = " ".join(["7"] * 2303)  # one less than a picture has


def table():
    """Return the columns of fer2013.csv as text."""
    pixels = [" ".join(map(str, picture.ravel())) for picture in PIXELS]
    return pd.DataFrame({"emotion": LABELS.astype(str), "pixels": pixels, "Usage": np.array(SPLITS)[USAGE]})


@pytest.fixture(autouse=True)
def _raw(stand):
    """Create an empty data/raw/."""
    prepare.RAW.mkdir(parents=True)


def archive(**members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"fer2013/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def contents(form, rows):
    """Return the files of a form by name, in the formats of Kaggle."""
    training = rows["Usage"] == "Training"
    tests = rows[~training].sort_values("Usage", ascending=False, kind="stable")
    if form == "train.csv":
        lines = "".join(f'{row.emotion},"{row.pixels}"\n' for row in rows[training].itertuples())
        quoted = "".join(f'"{pixels}"\n' for pixels in tests["pixels"])
        return {"train.csv": f"emotion,pixels\n{lines}".encode(), "test.csv": f"pixels\n{quoted}".encode()}
    if form == "icml_face_data.csv":
        lines = "".join(f"{row.emotion},{row.Usage},{row.pixels}\n" for row in rows.itertuples())
        return {form: f"emotion, Usage, pixels\n{lines}".encode()}
    whole = rows.to_csv(index=False).encode()
    return {form: archive(**{"._fer2013.csv": b"from macOS", "fer2013.csv": whole}) if form.endswith("gz") else whole}


def put(form, rows):
    for name, content in contents(form, rows).items():
        (prepare.RAW / name).write_bytes(content)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_faces_in_the_competitions_order(capsys, form):
    order = RNG.permutation(ROWS)
    put(form, table().iloc[order])
    prepare.main()
    data, order = faces.load(), order[np.argsort(USAGE[order], kind="stable")]
    np.testing.assert_array_equal(data.pixels, PIXELS[order])
    np.testing.assert_array_equal(data.labels, np.where(USAGE == 0, LABELS[order], -1))
    np.testing.assert_array_equal(data.usage, USAGE)
    hidden, known = solution.load(data), form != "train.csv"
    assert list(hidden["emotion"].fillna(-1)) == [label if known else -1 for label in LABELS[order[35:]]]
    out = capsys.readouterr().out
    assert "35 Training, 5 PublicTest, 5 PrivateTest" in out
    assert ("test labels unknown" in out) == (not known)


@pytest.mark.parametrize("form", FORMS[1:])
def test_line_ends_of_windows_and_blank_lines_change_nothing(form):
    put(form, table())
    for path in prepare.RAW.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n").rstrip())
    prepare.main()
    np.testing.assert_array_equal(faces.load().pixels, PIXELS)
    np.testing.assert_array_equal(faces.load().labels[:35], LABELS[:35])


def test_test_labels_change_only_the_solution_and_an_error_changes_nothing():
    scrambled = table()
    scrambled.loc[35:, "emotion"] = "3"
    written = []
    for rows in (scrambled, table()):
        put("fer2013.csv", rows)
        prepare.main()
        written.append((faces.PATH.read_bytes(), solution.PATH.read_bytes()))
    assert written[0][0] == written[1][0]
    assert written[0][1] != written[1][1]
    put("fer2013.csv", scrambled.replace({"emotion": {"3": "9"}}))
    with pytest.raises(UserError):
        prepare.main()
    assert (faces.PATH.read_bytes(), solution.PATH.read_bytes()) == written[1]


@pytest.mark.parametrize(("column", "value", "problem"), [
    ("pixels", SEVENS, "2,303 pixels"), ("pixels", f"{SEVENS} 7 7", "2,305 pixels"), ("pixels", "", "0 pixels"),
    *(("pixels", f"{SEVENS} {last}", "pixels must be") for last in ("256", "-1", "1.5", "\xe9")),
    ("emotion", "7", "emotion"), ("emotion", "", "emotion"), ("Usage", "Test", "Usage"),
], ids=lambda field: field[-15:])  # fmt: skip
def test_an_invalid_field_is_an_error_with_its_file_and_line(column, value, problem):
    rows = table()
    rows.loc[ROWS - 1, column] = value
    put("fer2013.csv", rows)
    with pytest.raises(UserError, match=rf"^data/raw/fer2013\.csv, line {ROWS + 1}: .*{problem}"):
        prepare.main()


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_file_is_an_error_in_every_form(form):
    put(form, table())
    path = prepare.RAW / form
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=f"^data/raw/{form}"):
        prepare.main()


ROW = f"3,{SEVENS} 7,Training\n"


@pytest.mark.parametrize(("name", "content"), [
    *(("fer2013.csv", text.encode()) for text in (
        "", "emotion,pixels,Usage\n", ROW, "<!DOCTYPE html>\n<html></html>\n",
        f"emotion,pixels\n3,{SEVENS} 7\n", f"emotion,pixels,Usage\n{ROW.replace('Training', 'Training,Training')}",
    )),
    ("fer2013.tar.gz", b"<!DOCTYPE html>"), ("fer2013.tar.gz", archive(**{"other.csv": b"pixels\n"})),
], ids=range(8))  # fmt: skip
def test_a_file_in_another_format_is_an_error(name, content):
    (prepare.RAW / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^data/raw/{name}"):
        prepare.main()


@pytest.mark.parametrize("lacking", ["train.csv", "test.csv", "Training", "PrivateTest", "labels"])
def test_an_incomplete_competition_is_an_error(lacking):
    put("train.csv" if lacking.endswith(".csv") else "fer2013.csv", table()[table()["Usage"] != lacking])
    if lacking.endswith(".csv"):
        (prepare.RAW / lacking).unlink()
    elif lacking == "labels":
        table()[["pixels", "Usage"]].to_csv(prepare.RAW / "fer2013.csv", index=False)
    with pytest.raises(UserError, match=lacking if lacking.endswith(".csv") else "^data/raw lacks"):
        prepare.main()


def test_the_columns_of_train_and_test_csv_decide_what_is_trained_on():
    put("train.csv", table())
    table()[35:][["emotion", "pixels"]].to_csv(prepare.RAW / "test.csv", index=False)  # these are test labels
    data, hidden = prepare.hide_test_labels(prepare.read_folder(prepare.RAW))
    assert set(data.labels[data.test_rows()]) == {-1}
    assert list(hidden["emotion"]) == list(LABELS[35:])
    table().to_csv(prepare.RAW / "train.csv", index=False)  # complete: its test rows would become Training rows
    with pytest.raises(UserError, match=r"^data/raw/train\.csv .*fer2013\.csv"):
        prepare.main()
