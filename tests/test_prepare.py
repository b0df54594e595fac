import gzip
import io
import re
import tarfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.competition import SPLITS, TRAINING
from pipeline.data import faces, prepare, solution
from pipeline.errors import UserError

TEMPLATES = {
    "fer2013.csv": ("emotion,pixels,Usage", "{emotion},{pixels},{usage}"),
    "icml_face_data.csv": ("emotion, Usage, pixels", "{emotion},{usage},{pixels}"),
    "train.csv": ("emotion,pixels", '{emotion},"{pixels}"'),
    "test.csv": ("pixels", '"{pixels}"'),
}
FORMS = ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv", "train.csv")
WHOLE_FORMS = FORMS[:3]
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    emotion: str
    pixels: str
    usage: str


def made_up_competition():
    rng = np.random.default_rng(2013)
    usage = np.repeat(SPLITS, (35, 5, 5))  # 45 rows: more than one block of 32
    labels = rng.integers(0, 7, len(usage))
    pixels = rng.integers(0, 256, (len(usage), prepare.PIXELS))
    return [
        Row(str(label), " ".join(map(str, picture)), str(split))
        for label, picture, split in zip(labels, pixels, usage, strict=True)
    ]


ROWS = made_up_competition()
LAST = len(ROWS)
TESTS = [row for row in ROWS if row.usage != "Training"]


def interleaved(rows):
    of_split = {split: iter([row for row in rows if row.usage == split]) for split in SPLITS}
    order = np.random.default_rng(7).permutation([row.usage for row in rows])
    return [next(of_split[split]) for split in order]


def lines_of(name, rows):
    header, template = TEMPLATES[name]
    return [line.encode("latin-1") for line in (header, *(template.format(**vars(row)) for row in rows))]


def content_of(name, rows=ROWS, end=b"\n", bom=b"", last_end=True):
    return bom + end.join(lines_of(name, rows)) + end * last_end


def archive(**members):
    """A .tar.gz of fer2013/NAME files; the content None makes a link that leads nowhere."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"fer2013/{name}")
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "nowhere"
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content or b""))
    return buffer.getvalue()


def put(folder, form, rows=ROWS, **text):
    folder.mkdir(parents=True, exist_ok=True)
    if form == "fer2013.tar.gz":
        csv = content_of("fer2013.csv", rows, **text)
        (folder / form).write_bytes(archive(README=b"about", **{"fer2013.csv": csv, "fer2013.bib": b"@misc"}))
    elif form == "train.csv":
        training = [row for row in rows if row.usage == "Training"]
        tests = [row for split in SPLITS[1:] for row in rows if row.usage == split]
        (folder / "train.csv").write_bytes(content_of("train.csv", training, **text))
        (folder / "test.csv").write_bytes(content_of("test.csv", tests, **text))
    else:
        (folder / form).write_bytes(content_of(form, rows, **text))


def with_row(number, row):
    return [*ROWS[: number - 1], row, *ROWS[number:]]


def plainly(field):
    return np.array([int(number) for number in field.split()])


# Every form, one competition


@pytest.fixture(scope="module")
def expected():
    usage = np.array([SPLITS.index(row.usage) for row in ROWS])
    return {
        "pixels": np.stack([plainly(row.pixels).reshape(48, 48) for row in ROWS]),
        "labels": [int(row.emotion) if row.usage == "Training" else -1 for row in ROWS],
        "usage": usage,
        "solution": [f"{number},{row.usage},{row.emotion}" for number, row in enumerate(ROWS) if row in TESTS],
    }


@pytest.mark.parametrize("rows", [ROWS, interleaved(ROWS)], ids=["in_blocks", "interleaved"])
@pytest.mark.parametrize("last_end", [True, False], ids=["ends_with_newline", "ends_without_newline"])
@pytest.mark.parametrize("bom", [b"", BOM], ids=["no_bom", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_faces_in_the_competitions_order(tmp_path, expected, form, end, bom, last_end, rows):
    put(tmp_path, form, rows, end=end, bom=bom, last_end=last_end)
    if form == "icml_face_data.csv" and not last_end:  # whose last number may then be cut
        with pytest.raises(UserError, match=rf"row {LAST}: the line does not end"):
            prepare.read_folder(tmp_path)
        return
    found, hidden = prepare.hide_test_labels(prepare.read_folder(tmp_path))
    np.testing.assert_array_equal(found.pixels, expected["pixels"])
    np.testing.assert_array_equal(found.labels, expected["labels"])
    np.testing.assert_array_equal(found.usage, expected["usage"])
    assert list(hidden.columns) == ["row", "usage", "emotion"]
    assert list(hidden.row) == list(found.test_rows())
    assert list(hidden.usage) == [row.usage for row in TESTS]
    if form == "train.csv":
        assert hidden.emotion.isna().all()
    else:
        assert list(hidden.emotion) == [int(row.emotion) for row in TESTS]


def test_rows_of_a_split_keep_their_order_where_labels_and_pictures_repeat(tmp_path):
    marked = [replace(row, pixels=" ".join([str(number)] * prepare.PIXELS)) for number, row in enumerate(ROWS)]
    mixed = interleaved(marked)
    put(tmp_path, "fer2013.csv", mixed)
    found, _ = prepare.hide_test_labels(prepare.read_folder(tmp_path))
    assert [row.usage for row in mixed] != [row.usage for row in marked]
    assert list(found.pixels[:, 0, 0]) == list(range(LAST))


def test_labels_in_test_csv_go_to_the_solution_alone(tmp_path):
    put(tmp_path, "train.csv")
    (tmp_path / "test.csv").write_bytes(content_of("train.csv", TESTS))
    found, hidden = prepare.hide_test_labels(prepare.read_folder(tmp_path))
    assert set(found.labels[found.test_rows()]) == {-1}
    assert list(hidden.emotion) == [int(row.emotion) for row in TESTS]


def test_a_column_usage_of_test_csv_must_say_the_competitions_order(tmp_path, expected):
    put(tmp_path, "train.csv")
    header, *rows = content_of("test.csv", TESTS).decode().splitlines()
    usage = ["PublicTest" if row < len(rows) // 2 else "PrivateTest" for row in range(len(rows))]

    def write(said):
        lines = [f"{header},Usage", *(f"{row},{split}" for row, split in zip(rows, said, strict=True))]
        (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")

    write(usage)
    assert len(prepare.read_folder(tmp_path).labels)
    write(usage[::-1])
    with pytest.raises(UserError, match="its column Usage is not PublicTest, then PrivateTest"):
        prepare.read_folder(tmp_path)


def test_blank_lines_are_no_rows(tmp_path, expected):
    (tmp_path / "fer2013.csv").write_bytes(content_of("fer2013.csv", end=b"\n \r\n\n"))
    np.testing.assert_array_equal(prepare.read_file(tmp_path / "fer2013.csv").pixels, expected["pixels"])


# The stage


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_the_stage_writes_faces_and_a_solution(project, capsys, expected, form):
    put(project / prepare.RAW, form)
    prepare.main()
    np.testing.assert_array_equal(faces.load().pixels, expected["pixels"])
    np.testing.assert_array_equal(faces.load().labels, expected["labels"])
    known = form != "train.csv"
    lines = [line if known else line[:-1] for line in expected["solution"]]
    assert solution.PATH.read_text() == "\n".join(["row,usage,emotion", *lines, ""])
    said = capsys.readouterr().out
    assert "45 faces (35 Training, 5 PublicTest, 5 PrivateTest)" in said
    assert said.endswith(f"test labels {'known' if known else 'unknown'}; NOT the competition's own row counts\n")


def test_other_test_labels_change_nothing_but_the_solution(project):
    put(project / prepare.RAW, "fer2013.csv")
    prepare.main()
    before, hidden = faces.PATH.read_bytes(), solution.PATH.read_bytes()
    scrambled = [replace(row, emotion=str((int(row.emotion) + 1) % 7)) if row in TESTS else row for row in ROWS]
    put(project / prepare.RAW, "fer2013.csv", scrambled)
    prepare.main()
    assert faces.PATH.read_bytes() == before
    assert solution.PATH.read_bytes() != hidden


def test_a_refusal_leaves_what_was_there_before(project):
    put(project / prepare.RAW, "fer2013.csv")
    prepare.main()
    before = faces.PATH.read_bytes(), solution.PATH.read_bytes()
    put(project / prepare.RAW, "fer2013.csv", with_row(LAST, replace(ROWS[-1], emotion="7")))
    with pytest.raises(UserError, match="row 45"):
        prepare.main()
    assert (faces.PATH.read_bytes(), solution.PATH.read_bytes()) == before


# test.csv beside a file that holds everything


@pytest.mark.parametrize("form", WHOLE_FORMS)
def test_a_test_csv_that_agrees_with_the_whole_file_changes_nothing(tmp_path, expected, form):
    put(tmp_path, "train.csv")
    put(tmp_path, form, interleaved(ROWS))
    found, hidden = prepare.hide_test_labels(prepare.read_folder(tmp_path))
    np.testing.assert_array_equal(found.pixels, expected["pixels"])
    assert hidden.emotion.notna().all()


@pytest.mark.parametrize("form", WHOLE_FORMS)
@pytest.mark.parametrize(
    "tests",
    [
        TESTS[::-1],
        [*TESTS[5:], *TESTS[:5]],
        TESTS[:-1],
        [*TESTS, TESTS[0]],
        [replace(TESTS[0], pixels="0" + TESTS[0].pixels[TESTS[0].pixels.index(" ") :]), *TESTS[1:]],
    ],
    ids=["backwards", "private_first", "row_missing", "row_too_many", "one_pixel_differs"],
)
def test_a_test_csv_that_disagrees_with_the_whole_file_is_refused(tmp_path, form, tests):
    put(tmp_path, form)
    (tmp_path / "test.csv").write_bytes(content_of("test.csv", tests))
    words = f"{tmp_path / 'test.csv'} does not hold the test pictures of {tmp_path / form}"
    with pytest.raises(UserError, match=re.escape(words)):
        prepare.read_folder(tmp_path)


# Decoding pixels


def random_fields(rng, rows):
    numbers = np.where(  # 1-, 2- and 3-digit numbers alike, and the ends of their ranges
        rng.random((rows, prepare.PIXELS)) < 0.3,
        rng.choice([0, 9, 10, 99, 100, 199, 200, 249, 250, 255], (rows, prepare.PIXELS)),
        rng.integers(0, rng.choice([10, 100, 256], (rows, prepare.PIXELS))),
    )
    widths = rng.choice(4, numbers.shape, p=[0.7, 0.1, 0.1, 0.1])  # some have leading zeros
    gaps = rng.choice([1, 2, 5], numbers.shape, p=[0.8, 0.1, 0.1])
    return [
        b" " * rng.integers(3)
        + b"".join(b"%0*d%*s" % (width, number, gap, b"") for number, width, gap in zip(*row, strict=True))
        for row in zip(numbers.tolist(), widths.tolist(), gaps.tolist(), strict=True)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_decoding_equals_plain_parsing(seed):
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, rows=1 + seed)
    found = prepare.decode_pixels(fields)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [plainly(field) for field in fields])


@pytest.mark.parametrize("number", range(256))
def test_decoding_knows_every_grey_level_beside_the_extremes(number):
    field = b" ".join([b"%d 0 %d 255" % (number, number)] * (prepare.PIXELS // 4))
    np.testing.assert_array_equal(prepare.decode_pixels([field]), [plainly(field)])


@pytest.mark.parametrize("seed", range(8))
def test_decoding_refuses_exactly_what_is_not_2304_grey_levels(seed):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        fields = [bytearray(field) for field in random_fields(rng, rows=6)]
        for number in rng.integers(0, len(fields), 2):
            fields[number][rng.integers(len(fields[number]))] = rng.choice(list(b"0129  .-x\0\xa0"))
        fields = [bytes(field) for field in fields]
        good = [
            len(field.split(b" ")) - field.split(b" ").count(b"") == prepare.PIXELS
            and all(re.fullmatch(rb"[0-9]{0,3}", number) and int(number or b"0") <= 255 for number in field.split(b" "))
            for field in fields
        ]
        if all(good):
            np.testing.assert_array_equal(prepare.decode_pixels(fields), [plainly(field) for field in fields])
        else:
            with pytest.raises(prepare.BadField) as bad:
                prepare.decode_pixels(fields)
            assert bad.value.args[0] == good.index(False)


# Refusals: one bad field


def sevens(count, last=""):
    return " ".join(["7"] * count) + last


NO_GREY_LEVEL = "is not a whole number from 0 to 255"
BAD_FIELDS = {
    "one_pixel_too_few": ("pixels", sevens(2303), "there are 2,303 pixels instead of 2,304"),
    "one_pixel_too_many": ("pixels", sevens(2305), "there are 2,305 pixels instead of 2,304"),
    "no_pixels": ("pixels", "", "there are 0 pixels instead of 2,304"),
    "above_255": ("pixels", sevens(2303, " 256"), f"the pixel '256' {NO_GREY_LEVEL}"),
    "above_255_first": ("pixels", "999 " + sevens(2303), f"the pixel '999' {NO_GREY_LEVEL}"),
    "negative": ("pixels", sevens(2303, " -1"), f"the pixel '-1' {NO_GREY_LEVEL}"),
    "signed": ("pixels", sevens(2303, " +1"), f"the pixel '+1' {NO_GREY_LEVEL}"),
    "fraction": ("pixels", sevens(2303, " 1.5"), f"the pixel '1.5' {NO_GREY_LEVEL}"),
    "exponent": ("pixels", sevens(2303, " 1e1"), f"the pixel '1e1' {NO_GREY_LEVEL}"),
    "letter": ("pixels", sevens(2303, " x"), f"the pixel 'x' {NO_GREY_LEVEL}"),
    "four_digits": ("pixels", sevens(2303, " 1000"), f"the pixel '1000' {NO_GREY_LEVEL}"),
    "four_digits_with_zeros": ("pixels", sevens(2303, " 0001"), f"the pixel '0001' {NO_GREY_LEVEL}"),
    "nul_byte": ("pixels", sevens(2303, " 7\0"), f"the pixel '7\\x00' {NO_GREY_LEVEL}"),
    "letter_not_ascii": ("pixels", sevens(2303, " \xe9"), f"the pixel '\ufffd' {NO_GREY_LEVEL}"),
    "blank_not_ascii": ("pixels", sevens(2303, "\xa07"), f"the pixel '7\ufffd7' {NO_GREY_LEVEL}"),
    "tab": ("pixels", sevens(2303, "\t7"), "characters that are not blanks"),
    "carriage_return_inside": ("pixels", sevens(2303, "\r7"), "characters that are not blanks"),
    "label_too_high": ("emotion", "7", "the emotion '7' is none of 0, 1, 2, 3, 4, 5, 6"),
    "label_negative": ("emotion", "-1", "the emotion '-1' is none of 0,"),
    "label_in_words": ("emotion", "happy", "the emotion 'happy' is none of 0,"),
    "label_with_fraction": ("emotion", "3.0", "the emotion '3.0' is none of 0,"),
    "label_empty": ("emotion", "", "the emotion '' is none of 0,"),
    "usage_unknown": ("usage", "Test", "the Usage 'Test' is none of Training, PublicTest, PrivateTest"),
    "usage_in_small_letters": ("usage", "training", "the Usage 'training' is none of Training,"),
    "usage_empty": ("usage", "", "the Usage '' is none of Training,"),
}


@pytest.mark.parametrize("number", [1, 7, 33, 40, LAST])
@pytest.mark.parametrize(("column", "value", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_bad_field_is_refused_with_its_file_and_row(tmp_path, column, value, words, number):
    path = tmp_path / "fer2013.csv"
    put(tmp_path, path.name, with_row(number, replace(ROWS[number - 1], **{column: value})))
    with pytest.raises(UserError) as refusal:
        prepare.read_file(path)
    assert f"{path}, row {number}: " in str(refusal.value)
    assert words in str(refusal.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_pixel_is_refused_in_every_form(tmp_path, form):
    number = 34
    put(tmp_path, form, with_row(number, replace(ROWS[number - 1], pixels=sevens(2303, " 256"))))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / form}, row {number}: the pixel")):
        prepare.read_folder(tmp_path)


# Refusals: rows and files


@pytest.mark.parametrize("number", [1, 33, LAST])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"3", "it has 1 fields instead of 3"),
        (b"3," + sevens(2304).encode(), "it has 2 fields instead of 3"),
        (b"3," + sevens(2304).encode() + b",Training,", "it has 4 fields instead of 3"),
        (b"3," + sevens(2304).replace(" ", ",").encode() + b",Training", "it has 2306 fields instead of 3"),
    ],
    ids=["label_only", "no_usage", "one_too_many", "commas_between_pixels"],
)
def test_a_row_with_too_few_or_too_many_fields_is_refused(tmp_path, line, words, number):
    path = tmp_path / "fer2013.csv"
    lines = lines_of(path.name, ROWS)
    lines[number] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=re.escape(f"{path}, row {number}: {words}")):
        prepare.read_file(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fer2013.csv", "fields instead of 3 (is the file cut off?)"),
        ("icml_face_data.csv", "pixels instead of 2,304"),
        ("train.csv", "a quotation mark is missing (is the file cut off?)"),
        ("test.csv", "a quotation mark is missing (is the file cut off?)"),
    ],
)
def test_a_file_cut_off_inside_the_last_row_is_refused(tmp_path, name, words):
    path = tmp_path / name
    path.write_bytes(content_of(name)[:-1000])
    with pytest.raises(UserError, match=re.escape(f"{path}, row {LAST}: ") + ".*" + re.escape(words)):
        prepare.read_file(path)


ROW = f"3,{sevens(2304)},Training\n".encode()
BAD_FILES = {
    "empty": (b"", "the first line must name the column pixels"),
    "header_only": (b"emotion,pixels,Usage\n", "has no rows"),
    "header_and_blank_lines": (b"emotion,pixels,Usage\n\n \n", "has no rows"),
    "no_header": (ROW, "the first line must name the column pixels"),
    "no_pixels": (b"emotion,Usage\n3,Training\n", "the first line must name the column pixels"),
    "pixels_in_capitals": (b"emotion,Pixels,Usage\n" + ROW, "it is 'emotion,Pixels,Usage"),
    "unknown_column": (b"emotion,pixels,Usage,id\n" + ROW, "it is 'emotion,pixels,Usage,id"),
    "pixels_twice": (b"pixels,pixels,Usage\n" + ROW, "each once"),
    "emotion_twice": (b"emotion,emotion,pixels\n" + ROW, "each once"),
    "nameless_column": (b"emotion,pixels,\n" + ROW, "it is 'emotion,pixels,"),
    "not_ascii": (b"\xe9motion,pixels,Usage\n" + ROW, "it is '\ufffdmotion,pixels,Usage"),
    "utf_16": ("emotion,pixels,Usage\n".encode("utf-16"), "the first line must name the column pixels"),
    "web_page": (b"<!DOCTYPE html>\n<html></html>\n", "it is '<!DOCTYPE html>"),
    "archive": (gzip.compress(ROW, mtime=0), "the first line must name the column pixels"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_not_the_competitions_is_refused(tmp_path, content, words):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        prepare.read_file(path)
    assert str(refusal.value).startswith(str(path))
    assert words in str(refusal.value)


# Refusals: archives


@pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_is_cut_off_is_refused(tmp_path, part):
    path = tmp_path / "fer2013.tar.gz"
    whole = archive(**{"fer2013.csv": content_of("fer2013.csv")})
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=re.escape(f"{path} is damaged or cut off")):
        prepare.read_file(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html>", "is damaged or cut off"),
        (content_of("fer2013.csv"), "is damaged or cut off"),
        (gzip.compress(b"no archive" * 100, mtime=0), "is damaged or cut off"),
        (archive(README=b"about", **{"other.csv": b"pixels\n"}), "holds no fer2013.csv"),
        (archive(**{"fer2013.csv": b""}), "the first line must name the column pixels"),
        (archive(**{"fer2013.csv": None}), "fer2013.csv"),
    ],
    ids=["web_page", "csv", "gzip_of_something_else", "without_fer2013_csv", "empty_fer2013_csv", "link_to_nowhere"],
)
def test_an_archive_that_is_not_the_competitions_is_refused(tmp_path, content, words):
    path = tmp_path / "fer2013.tar.gz"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        prepare.read_file(path)
    assert str(refusal.value).startswith(str(path))
    assert words in str(refusal.value)


# Refusals: folders


def without(column, name):
    """The file `name` without one column of fer2013.csv's header."""
    header, template = TEMPLATES[name]
    rows = [template.format(**vars(row)).split(",") for row in ROWS]
    gone = [field.strip() for field in header.split(",")].index(column)
    return "\n".join(",".join([*row[:gone], *row[gone + 1 :]]) for row in [header.split(","), *rows]).encode() + b"\n"


BAD_FOLDERS = {
    "nothing": ({}, "holds none of fer2013.tar.gz"),
    "train_alone": ({"train.csv": content_of("train.csv")}, "holds none of"),
    "test_alone": ({"test.csv": content_of("test.csv", TESTS)}, "holds none of"),
    "no_usage": ({"fer2013.csv": without("Usage", "fer2013.csv")}, "fer2013.csv: the column Usage is missing"),
    "no_usage_icml": (
        {"icml_face_data.csv": without("Usage", "icml_face_data.csv")},
        "icml_face_data.csv: the column Usage is missing",
    ),
    "no_labels": ({"fer2013.csv": without("emotion", "fer2013.csv")}, "the column emotion is missing"),
    "no_labels_icml": ({"icml_face_data.csv": without("emotion", "icml_face_data.csv")}, "emotion is missing"),
    "no_labels_in_train": (
        {"train.csv": without("emotion", "train.csv"), "test.csv": content_of("test.csv", TESTS)},
        "train.csv: the column emotion is missing",
    ),
    "everything_called_train": (  # its test rows must not become Training rows
        {"train.csv": content_of("fer2013.csv"), "test.csv": content_of("test.csv", TESTS)},
        "train.csv",
    ),
    **{
        f"no_{split}": (
            {"fer2013.csv": content_of("fer2013.csv", [row for row in ROWS if row.usage != split])},
            f"has no {split} rows",
        )
        for split in SPLITS
    },
}


@pytest.mark.parametrize(("files", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_folder_without_all_of_the_competition_is_refused(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refusal:
        prepare.hide_test_labels(prepare.read_folder(tmp_path))
    assert words in str(refusal.value)


def test_one_unlabelled_training_row_is_refused():
    usage = np.array([0, 0, 1, 2], np.uint8)
    table = prepare.Table(np.zeros((4, 48, 48), np.uint8), np.array([3, -1, 3, 3], np.int8), usage)
    assert usage[1] == TRAINING
    with pytest.raises(UserError, match="no labels for its Training rows"):
        prepare.hide_test_labels(table)
