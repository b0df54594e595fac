import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import command

HEAD = '''"""Paint the fence.

Reads paint.
"""
import signal, sys
from pathlib import Path
from pipeline import command
from pipeline.errors import UserError
'''


@pytest.fixture
def start(tmp_path):
    """Start a command whose main() has `body`, as a process of its own: it is what exit statuses are about."""

    def run(body, *words, takes="*words", usage="python -m fence"):
        script = tmp_path / "fence.py"
        script.write_text(f"{HEAD}\ndef main({takes}):\n    {body}\n\ncommand.run(main, {usage!r})\n")
        return subprocess.run(
            [sys.executable, str(script), *words],
            env=os.environ | {"PYTHONPATH": str(Path(command.__file__).parents[1]), "PYTHONUTF8": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def test_a_command_that_succeeds_leaves_with_0_and_its_own_output(start):
    done = start("print('painted')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "painted\n", "")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise UserError('fence.csv, row 3: no paint; bring some')", "error: fence.csv, row 3: no paint; bring some"),
        (r"raise UserError('two\nlines\r\n\n  and\ta tab ')", "error: two lines and a tab"),
        ("raise UserError('d\xe9j\xe0 vu')", "error: d\xe9j\xe0 vu"),
        ("open('no/paint.txt')", "error: No such file or directory (no/paint.txt)"),
        ("Path('folder').mkdir(); open('folder')", "error: Is a directory (folder)"),
        ("raise OSError('the line went dead')", "error: the line went dead"),
        (r"raise ConnectionError('no\nanswer')", "error: no answer"),
        ("raise OSError(28, 'No space left on device')", "error: No space left on device"),
        ("raise BrokenPipeError(32, 'Broken pipe')", "error: Broken pipe"),  # another pipe than its output
        ("raise TimeoutError(110, 'Connection timed out')", "error: Connection timed out"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_1(start, body, line):
    done = start(body)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{line}\n")


@pytest.fixture
def start_into(tmp_path):
    """Start such a command with its standard output at a file descriptor, buffered as a shell would have it."""

    def run(body, output, *words):
        script = tmp_path / "fence.py"
        script.write_text(f"{HEAD}\ndef main():\n    {body}\n\ncommand.run(main, 'python -m fence')\n")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        return subprocess.run(
            [sys.executable, str(script), *words],
            env=environment | {"PYTHONPATH": str(Path(command.__file__).parents[1])},
            stdout=output, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
        )  # fmt: skip

    return run


MUCH, LINES = "print('post' * 100_000)", "[print('post') for _ in range(100_000)]"


@pytest.mark.parametrize(
    ("body", "words", "status", "said"),
    [
        ("print('post')", [], 1, ""),
        (MUCH, [], 1, ""),
        (LINES, [], 1, ""),
        ("print('post'); sys.exit(3)", [], 3, ""),
        ("print('post'); raise UserError('no paint')", [], 1, "error: no paint\n"),
        ("print('post'); raise KeyboardInterrupt", [], 130, "\nstopped; the same command goes on from there\n"),
        ("pass", ["--help"], 1, ""),
    ],
)
def test_a_reader_that_goes_away_ends_it_without_a_word(start_into, body, words, status, said):
    reader, writer = os.pipe()
    os.close(reader)  # nobody will read
    try:
        done = start_into(body, writer, *words)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("body", ["print('post')", MUCH, LINES])
def test_a_full_disk_under_the_output_is_told_once(start_into, body):
    with open("/dev/full", "wb") as full:
        done = start_into(body, full)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_an_output_that_is_closed_is_no_trouble(tmp_path):
    script = tmp_path / "fence.py"
    script.write_text(f"{HEAD}\ndef main():\n    print('post')\n\ncommand.run(main, 'python -m fence')\n")
    environment = os.environ | {"PYTHONPATH": str(Path(command.__file__).parents[1])}
    words = ["sh", "-c", '"$0" "$1" >&-', sys.executable, str(script)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("body", ["raise KeyboardInterrupt", "signal.raise_signal(signal.SIGINT)"])
def test_ctrl_c_ends_in_one_sentence_and_status_130(start, body):
    done = start(body)
    assert done.returncode == 128 + signal.SIGINT == 130
    assert done.stdout == ""
    assert done.stderr.strip() == "stopped; the same command goes on from there"


@pytest.mark.parametrize("name", ["ValueError", "KeyError", "AssertionError", "RuntimeError", "MemoryError"])
def test_anything_else_is_a_defect_and_keeps_its_traceback(start, name):
    done = start(f"raise {name}('a defect')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert name in done.stderr.splitlines()[-1]
    assert "error: " not in done.stderr


def test_a_status_that_main_chose_is_kept(start):
    assert start("sys.exit(7)").returncode == 7


NONE, TWO, ONE_OR_TWO = "python -m fence", "python -m fence COLOUR COATS", "python -m fence COLOUR [COATS]"
PRINT = "print(*words, sep='|')"


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (NONE, []),
        (TWO, ["red", "2"]),
        (TWO, ["dark red", ""]),
        (TWO, ["RED", "-2"]),
        (ONE_OR_TWO, ["red"]),
        (ONE_OR_TWO, ["red", "2"]),
        ("python -m fence [COLOUR]", []),
    ],
)
def test_the_words_that_a_command_takes_are_passed_as_they_are(start, usage, words):
    done = start(PRINT, *words, usage=usage)
    assert (done.returncode, done.stdout, done.stderr) == (0, "|".join(words) + "\n", "")


def test_an_optional_word_that_is_not_given_leaves_mains_own_default(start):
    done = start("print(colour, coats)", "red", takes="colour, coats='once'", usage=ONE_OR_TWO)
    assert done.stdout == "red once\n"


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (NONE, ["red"]),
        (NONE, ["--verbose"]),
        (TWO, []),
        (TWO, ["red"]),
        (TWO, ["red", "2", "3"]),
        (ONE_OR_TWO, []),
        (ONE_OR_TWO, ["red", "2", "3"]),
    ],
)
def test_too_few_or_too_many_words_are_refused_with_the_usage(start, usage, words):
    done = start(PRINT, *words, usage=usage)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: cannot use the arguments {words}; usage: {usage}\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["red", "--help", "3", "4"]])
def test_help_shows_what_the_command_does_and_takes_without_starting_it(start, words):
    done = start("raise UserError('started')", *words, usage=TWO)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Paint the fence.\n\nReads paint.\n\nusage: {TWO}\n"


def test_refuse_returns_the_status_and_prints_one_line(capsys):
    assert command.refuse(ValueError("bad\n  paint")) == 1
    assert capsys.readouterr() == ("", "error: bad paint\n")
