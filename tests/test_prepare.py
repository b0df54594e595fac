import gzip
import io
import itertools
import re
import tarfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.competition import SPLITS
from pipeline.data import faces, prepare, solution
from pipeline.errors import UserError

TEMPLATES = {
    "fer2013.csv": ("emotion,pixels,Usage", "{emotion},{pixels},{usage}"),
    "icml_face_data.csv": ("emotion, Usage, pixels", "{emotion},{usage},{pixels}"),
    "train.csv": ("emotion,pixels", '{emotion},"{pixels}"'),
    "test.csv": ("pixels", '"{pixels}"'),
}
FORMS = ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv", "train.csv")
BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(prepare, "BLOCK", 32)


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


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("rows", [ROWS, interleaved(ROWS)], ids=["in_blocks", "interleaved"])
@pytest.mark.parametrize(("end", "bom", "last_end"), [
    (b"\n", b"", True), (b"\r\n", BOM, True), (b"\n", BOM, False), (b"\r\n", b"", False), (b"\n \r\n\n", b"", True),
])  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_faces_in_the_competitions_order(project, capsys, form, end, bom, last_end, rows):
    put(prepare.RAW, form, rows, end=end, bom=bom, last_end=last_end)
    if form == "icml_face_data.csv" and not last_end:  # whose last number may then be cut
        with pytest.raises(UserError, match=rf"line {LAST + 1}: the line does not end"):
            prepare.main()
        return
    prepare.main()
    found, known = faces.load(), form != "train.csv"
    np.testing.assert_array_equal(found.pixels, [plainly(row.pixels).reshape(48, 48) for row in ROWS])
    assert list(found.labels) == [int(row.emotion) if row.usage == "Training" else -1 for row in ROWS]
    assert [SPLITS[split] for split in found.usage] == [row.usage for row in ROWS]
    lines = [f"{number},{row.usage},{row.emotion if known else ''}" for number, row in enumerate(ROWS) if row in TESTS]
    assert solution.PATH.read_text() == "\n".join(["row,usage,emotion", *lines, ""])
    text = capsys.readouterr().out
    assert text.startswith("45 faces (35 Training, 5 PublicTest, 5 PrivateTest); test labels ")
    assert text.endswith(f"{'known' if known else 'unknown'}; NOT the competition's own row counts\n")


def test_labels_in_test_csv_go_to_the_solution_alone(tmp_path):
    put(tmp_path, "train.csv")
    (tmp_path / "test.csv").write_bytes(content_of("train.csv", TESTS))
    found, hidden = prepare.hide_test_labels(prepare.read_folder(tmp_path))
    assert set(found.labels[found.test_rows()]) == {-1}
    assert list(hidden.emotion) == [int(row.emotion) for row in TESTS]


def test_a_column_usage_of_test_csv_must_say_the_competitions_order(tmp_path):
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


def test_other_test_labels_change_nothing_but_the_solution_and_a_refusal_changes_nothing(project):
    put(project / prepare.RAW, "fer2013.csv", [replace(row, emotion="3") if row in TESTS else row for row in ROWS])
    prepare.main()
    scrambled = faces.PATH.read_bytes(), solution.PATH.read_bytes()
    put(project / prepare.RAW, "fer2013.csv")
    prepare.main()
    before = faces.PATH.read_bytes(), solution.PATH.read_bytes()
    assert [new == old for new, old in zip(before, scrambled, strict=True)] == [True, False]
    put(project / prepare.RAW, "fer2013.csv", with_row(LAST, replace(ROWS[-1], emotion="7")))
    with pytest.raises(UserError, match="line 46"):
        prepare.main()
    assert (faces.PATH.read_bytes(), solution.PATH.read_bytes()) == before


# test.csv beside a file that holds everything


@pytest.mark.parametrize("form", FORMS[:3])
def test_a_test_csv_that_agrees_with_the_whole_file_changes_nothing(tmp_path, form):
    put(tmp_path, "train.csv")
    put(tmp_path, form, interleaved(ROWS))
    found, hidden = prepare.hide_test_labels(prepare.read_folder(tmp_path))
    np.testing.assert_array_equal(found.pixels[-1].ravel(), plainly(ROWS[-1].pixels))
    assert hidden.emotion.notna().all()


@pytest.mark.parametrize("tests", [
    TESTS[::-1], [*TESTS[5:], *TESTS[:5]], TESTS[:-1], [*TESTS, TESTS[0]],
    [replace(TESTS[0], pixels="0" + TESTS[0].pixels[TESTS[0].pixels.index(" ") :]), *TESTS[1:]],
], ids=["backwards", "private_first", "row_missing", "row_too_many", "one_pixel_differs"])  # fmt: skip
def test_a_test_csv_that_disagrees_with_the_whole_file_is_refused(tmp_path, tests):
    put(tmp_path, "fer2013.tar.gz")
    (tmp_path / "test.csv").write_bytes(content_of("test.csv", tests))
    words = f"{tmp_path / 'test.csv'} does not hold the test pictures of {tmp_path / 'fer2013.tar.gz'}"
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


@pytest.mark.parametrize("seed", range(4))
def test_decoding_equals_plain_parsing(seed):
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, rows=1 + seed)
    found = prepare.decode_pixels(fields)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [plainly(field) for field in fields])


def test_decoding_knows_every_grey_level_beside_the_extremes():
    for number in range(256):
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


BAD_FIELDS = [
    ("pixels", sevens(2303), "there are 2,303 pixels instead of 2,304"),
    ("pixels", sevens(2305), "there are 2,305 pixels instead of 2,304"),
    ("pixels", "", "there are 0 pixels instead of 2,304"),
    ("pixels", "999 " + sevens(2303), "the pixel '999' is not a whole number from 0 to 255"),
    *(("pixels", sevens(2303, f" {last}"), f"the pixel {shown!r} is not a whole number") for last, shown in [
        *((each, each) for each in ("256", "-1", "+1", "1.5", "1e1", "x", "1000", "0001", "7\0")), ("\xe9", "\ufffd"),
        ("7\xa07", "7\ufffd7"),
    ]),
    *(("pixels", sevens(2303, f"{blank}7"), "characters that are not blanks") for blank in "\t\r"),
    *(("emotion", each, f"the emotion {each!r} is none of 0, 1,") for each in ("7", "-1", "happy", "3.0", "")),
    *(("usage", each, f"the Usage {each!r} is none of Training,") for each in ("Test", "training", "")),
]  # fmt: skip


@pytest.mark.parametrize("number", [1, 33, LAST])
@pytest.mark.parametrize(("column", "value", "words"), BAD_FIELDS, ids=lambda field: field[-20:])
def test_a_bad_field_is_refused_with_its_file_and_line(tmp_path, column, value, words, number):
    path = tmp_path / "fer2013.csv"
    put(tmp_path, path.name, with_row(number, replace(ROWS[number - 1], **{column: value})))
    with pytest.raises(UserError) as refusal:
        prepare.read_file(path)
    assert f"{path}, line {number + 1}: " in str(refusal.value)
    assert words in str(refusal.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_pixel_is_refused_in_every_form(tmp_path, form):
    number = 34
    put(tmp_path, form, with_row(number, replace(ROWS[number - 1], pixels=sevens(2303, " 256"))))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / form}, line {number + 1}: the pixel")):
        prepare.read_folder(tmp_path)


# Refusals: rows and files


@pytest.mark.parametrize("number", [1, 33, LAST])
@pytest.mark.parametrize(("line", "count"), [
    ("3", 1), (f"3,{sevens(2304)}", 2), (f"3,{sevens(2304)},Training,", 4),
    (f"3,{sevens(2304).replace(' ', ',')},Training", 2306),
], ids=["label_only", "no_usage", "one_too_many", "commas_between_pixels"])  # fmt: skip
def test_a_row_with_too_few_or_too_many_fields_is_refused(tmp_path, line, count, number):
    path = tmp_path / "fer2013.csv"
    lines = lines_of(path.name, ROWS)
    lines[number] = line.encode()
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=re.escape(f"{path}, line {number + 1}: it has {count} fields instead of 3")):
        prepare.read_file(path)


@pytest.mark.parametrize(("name", "words"), [
    ("fer2013.csv", "fields instead of 3 (is the file cut off?)"), ("icml_face_data.csv", "pixels instead of 2,304"),
    ("train.csv", "a quotation mark is missing (is the file cut off?)"), ("test.csv", "a quotation mark is missing"),
])  # fmt: skip
def test_a_file_cut_off_inside_the_last_row_is_refused(tmp_path, name, words):
    path = tmp_path / name
    path.write_bytes(content_of(name)[:-1000])
    with pytest.raises(UserError, match=re.escape(f"{path}, line {LAST + 1}: ") + ".*" + re.escape(words)):
        prepare.read_file(path)


ROW = f"3,{sevens(2304)},Training\n".encode()
HEADER = "the first line must name the column pixels"
BAD_FILES = [
    (b"", HEADER),
    (b"emotion,pixels,Usage\n", "has no rows"),
    (b"emotion,pixels,Usage\n\n \n", "has no rows"),
    (ROW, HEADER),
    (b"emotion,Usage\n3,Training\n", HEADER),
    (b"emotion,Pixels,Usage\n" + ROW, "it is 'emotion,Pixels,"),
    (b"emotion,pixels,Usage,id\n" + ROW, "it is 'emotion,pixels,Usage,id"),
    (b"pixels,pixels\n" + ROW, "each once"),
    (b"emotion,emotion,pixels\n" + ROW, "each once"),
    (b"emotion,pixels,\n" + ROW, "it is 'emotion,pixels,"),
    (b"\xe9motion,pixels,Usage\n" + ROW, "it is '\ufffdmotion,pixels,"),
    ("emotion,pixels".encode("utf-16"), HEADER),
    (b"<!DOCTYPE html>\n<html></html>\n", "it is '<!DOCTYPE html>"),
    (gzip.compress(ROW, mtime=0), HEADER),
]
BAD_ARCHIVES = [
    (b"<!DOCTYPE html>", "is damaged"),
    (content_of("fer2013.csv"), "is damaged"),
    (gzip.compress(b"no archive" * 100, mtime=0), "is damaged"),
    *((archive(**{"fer2013.csv": content_of("fer2013.csv")})[:-cut], "is damaged") for cut in (1, 5, 1000, 100_000)),
    (archive(README=b"about", **{"other.csv": b"pixels\n"}), "holds no fer2013.csv"),
    (archive(**{"fer2013.csv": b""}), HEADER),
    (archive(**{"fer2013.csv": None}), "fer2013.csv"),
]


@pytest.mark.parametrize(("name", "content", "words"), [
    *(("fer2013.csv", *each) for each in BAD_FILES), *(("fer2013.tar.gz", *each) for each in BAD_ARCHIVES),
], ids=itertools.count())  # fmt: skip
def test_a_file_that_is_not_the_competitions_is_refused(tmp_path, name, content, words):
    path = tmp_path / name
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


TEST = {"test.csv": content_of("test.csv", TESTS)}
BAD_FOLDERS = {
    "nothing": ({}, "holds none of fer2013.tar.gz"),
    "train_alone": ({"train.csv": content_of("train.csv")}, "holds none of"),
    "test_alone": (TEST, "holds none of"),
    "no_labels_in_train": (TEST | {"train.csv": without("emotion", "train.csv")}, "column emotion is missing"),
    "everything_called_train": (TEST | {"train.csv": content_of("fer2013.csv")}, "name it fer2013.csv"),
    **{
        f"no_{column}_in_{name}": ({name: without(column, name)}, f"the column {column} is missing")
        for column in ("Usage", "emotion") for name in ("fer2013.csv", "icml_face_data.csv")
    },
    **{
        f"no_{split}": ({"fer2013.csv": content_of("fer2013.csv", [row for row in ROWS if row.usage != split])}, split)
        for split in SPLITS
    },
    "one_class": ({"fer2013.csv": content_of("fer2013.csv", [replace(row, emotion="3") for row in ROWS])},
                  "has no Training rows of angry, disgust, fear, sad, surprise, neutral"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_folder_without_all_of_the_competition_is_refused(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refusal:
        prepare.hide_test_labels(prepare.read_folder(tmp_path))
    assert words in str(refusal.value)


def test_one_unlabelled_training_row_is_refused():
    usage = np.array([0, 0, 1, 2], np.uint8)
    table = prepare.Table(np.zeros((4, 48, 48), np.uint8), np.array([3, -1, 3, 3], np.int8), usage, "x")
    with pytest.raises(UserError, match="no labels for its Training rows"):
        prepare.hide_test_labels(table)


class Endless(io.RawIOBase):
    """A file without end, as a small archive may hold one; it counts what is read of it."""

    def __init__(self, start, line):
        self.start, self.line, self.done = start, line, 0

    def readline(self, size=-1):
        assert size > 0
        line = self.start or self.line[:size]
        self.start, self.done = b"", self.done + len(line)
        return line


@pytest.mark.parametrize(("line", "number"), [(b"1" * 2**20, 2), (b"\n", 1002), (ROW, 2)])
def test_a_line_or_a_file_without_end_is_refused_while_little_is_read(monkeypatch, line, number):
    monkeypatch.setattr(prepare.archives, "LARGEST", 1021)
    file = Endless(b"emotion,pixels,Usage\n", line)
    with pytest.raises(UserError, match=f"^x, line {number}: it is too long for a file of the competition"):
        prepare.read_table(file, "x")
    assert file.done < 2**17


# The test labels.


@pytest.mark.parametrize("content", [
    b"", b"row,usage\n0,PublicTest\n", b"0,PublicTest,1\n", b"row,usage,emotion\n0,PublicTest,1,1\n", b"\xff",
    *(f"row,usage,emotion\n3,PublicTest,0\n{line}\n".encode() for line in (
        "4,PublicTest,7", "4,PublicTest,1.0", "4,PublicTest,-1", "4,Training,1", "4,Test,1", "4,,1", "4.0,PublicTest,1",
        "5,PublicTest,1", "3,PublicTest,1", "99999999999999999999,PublicTest,1", "4,PublicTest,99999999999999999999",
        "4,PublicTest,nan",
    )),
    b"row,usage,emotion\n3,PublicTest,0\n4,PublicTest,",
])  # fmt: skip
def test_a_solution_of_another_form_is_refused(project, content):
    solution.PATH.parent.mkdir()
    solution.PATH.write_bytes(content)
    with pytest.raises(UserError, match=r"data/solution\.csv is damaged.*dvc repro -f prepare"):
        solution.load()


def test_a_solution_is_loaded_and_joined_and_must_be_of_the_faces(project):
    with pytest.raises(UserError, match="missing"):
        solution.load()
    put(project / prepare.RAW, "fer2013.csv")
    prepare.main()
    data, hidden = faces.load(), solution.load(faces.load())
    assert list(solution.join(data.labels, hidden)) == [int(row.emotion) for row in ROWS]
    solution.save(hidden.assign(emotion=hidden["emotion"].where(hidden["row"] > 35)))
    assert list(solution.join(data.labels, solution.load()))[34:37] == [
        int(ROWS[34].emotion),
        -1,
        int(ROWS[36].emotion),
    ]
    for other in (hidden[1:], hidden.assign(usage=hidden["usage"].iloc[::-1].to_list())):
        solution.save(other)
        with pytest.raises(UserError, match="it is not of these faces"):
            solution.load(data)
    with pytest.raises(UserError, match="is not of these faces"):
        solution.join(data.labels, hidden.assign(row=hidden["row"] + 1))
