"""How commands stop, and what the command line offers: processes, as exit statuses are the point."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import settings
import typer
from typer.testing import CliRunner

from pipeline import __main__, command

ROOT = Path(command.__file__).parents[1]
HEAD = """
import signal, sys
from pathlib import Path
from pipeline import command
from pipeline.errors import UserError

@command.guarded
def main():
    {}

main()
"""


@pytest.fixture
def start(tmp_path):
    """Start a command whose main() has `body`, with its standard output at `output`, buffered as a shell would."""

    def run(body, output=subprocess.PIPE):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        return subprocess.run(
            [sys.executable, "-c", HEAD.format(body)], env=environment | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
            cwd=tmp_path, stdout=output, stderr=subprocess.PIPE, text=True, timeout=30,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("body", "status", "out", "err"), [
    ("print('painted')", 0, "painted\n", ""),
    ("sys.exit(7)", 7, "", ""),
    ("raise UserError('a.csv, line 3: no paint; bring some')", 1, "", "error: a.csv, line 3: no paint; bring some\n"),
    (r"raise UserError('two\nlines\r\n  and\ta tab ')", 1, "", "error: two\nerror: lines\nerror: and a tab\n"),
    (r"raise UserError('d\xe9j\xe0 \x1b[31m\udcfc')", 1, "", "error: d\xe9j\xe0 \\x1b[31m\\udcfc\n"),
    ("open('no/paint.txt')", 1, "", "error: No such file or directory (no/paint.txt)\n"),
    ("raise OSError('the line went dead')", 1, "", "error: the line went dead\n"),
    ("raise BrokenPipeError(32, 'Broken pipe')", 1, "", "error: Broken pipe\n"),  # another pipe than its output
    ("raise KeyboardInterrupt", 130, "", "\nstopped; the same command goes on from there\n"),
    ("raise KeyboardInterrupt('2 epochs are kept')", 130, "",
     "\nstopped (2 epochs are kept); the same command goes on from there\n"),
    ("signal.signal(signal.SIGINT, signal.default_int_handler); signal.raise_signal(signal.SIGINT)", 130, "",
     "\nstopped; the same command goes on from there\n"),
    ("signal.raise_signal(signal.SIGTERM)", 130, "", "\nstopped; the same command goes on from there\n"),
])  # fmt: skip
def test_a_command_leaves_with_its_status_and_one_sentence(start, body, status, out, err):
    done = start(body)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)
    assert 128 + signal.SIGINT == 130


def test_anything_else_is_a_defect_and_keeps_its_traceback(start):
    done = start("raise ValueError('a defect')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "error: " not in done.stderr


MUCH, LINES = "print('post' * 100_000)", "[print('post') for _ in range(100_000)]"


@pytest.mark.parametrize(("body", "status", "said"), [
    ("print('post')", 1, ""), (MUCH, 1, ""), (LINES, 1, ""), ("print('post'); sys.exit(3)", 3, ""),
    ("print('post'); raise UserError('no paint')", 1, "error: no paint\n"),
])  # fmt: skip
def test_a_reader_that_goes_away_ends_it_without_a_word(start, body, status, said):
    reader, writer = os.pipe()
    os.close(reader)  # nobody will read
    done = start(body, writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("body", ["print('post')", MUCH])
def test_a_full_disk_under_the_output_is_told_once(start, body):
    with open("/dev/full", "wb") as full:
        done = start(body, full)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_an_output_that_is_closed_is_no_trouble():
    words = ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, HEAD.format("print('post')")]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# The command line.


@pytest.fixture
def calls(stand, monkeypatch):
    """A folder with a params.yaml; what the command line calls is noted, not done."""
    monkeypatch.delenv("YES", raising=False)
    settings.write()
    noted, call = [], __main__.call

    def note(module, *words, function="main", **options):
        if module == "config":
            call(module, function=function)
        else:
            noted.append((module, function, *words, *options.items()))

    monkeypatch.setattr(__main__, "call", note)
    return noted


def invoke(*words, **environment):
    return CliRunner().invoke(__main__.app, words, prog_name="python -m pipeline", env=environment)


@pytest.mark.parametrize(("words", "call"), [
    ("train", ("cells.train", "main_all", 1, "loky", None, False)),
    ("train --jobs 2 --threads 1 --executor dask --address a:1 -y",
     ("cells.train", "main_all", 2, "dask", "a:1", True)),
    ("train small_vgg 0 --anew", ("cells.train", "main", "small_vgg", "0", True, False)),
    ("plan", ("cells.planning", "main")), ("plan --show", ("cells.planning", "show")),
    ("soft-targets student", ("cells.soft_targets", "main", "student")),
    ("score", ("evaluation.score", "main")), ("score a.csv", ("evaluation.score", "score_file", Path("a.csv"))),
    ("submit", ("kaggle.submit", "main", "ensemble", "", False)),
    ("submit a --message b --force", ("kaggle.submit", "main", "a", "b", True)),
    ("leaderboard --refresh", ("kaggle.leaderboard", "main", True, "text")),
    ("leaderboard --format csv", ("kaggle.leaderboard", "main", False, "csv")),
    ("outside a.h5 --side 64 --scaling raw", ("apps.outside", "main", "a.h5", 64, "raw", "", "")),
    ("seeds 1 2 3", ("experiments.seeds", "main", [1, 2, 3])),
    ("claims --epochs 2", ("experiments.claims", "main", "", 2)),
])  # fmt: skip
def test_a_verb_calls_its_module_with_typed_words(calls, monkeypatch, words, call):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    done = invoke(*words.split())
    assert (done.exit_code, done.output, calls) == (0, "", [call])
    assert os.environ.pop("TF_NUM_INTRAOP_THREADS", "") == ("1" if "--threads" in words else "")
    if words == "train":  # long trainings are agreed to by the environment, too
        invoke("train", YES="1")
        assert calls[1][-1] is True


@pytest.mark.parametrize(("words", "hint"), [
    ("trian", "Did you mean 'train'"), ("submit --forse", "--force"), ("train small_vgg", "MODEL FOLD"),
    ("train --anew", "MODEL"), ("train --jobs 0", "--jobs.* 1"), ("train --threads 1000", "--threads.* 999"),
    ("train --executor spark", "loky"), ("seeds 1 x", "SEED"), ("seeds", "SEED"), ("folds now", "now"),
])  # fmt: skip
def test_what_cannot_be_a_command_is_told_with_a_hint_and_status_2(calls, words, hint):
    done = invoke(*words.split())
    assert (done.exit_code, calls) == (2, [])
    assert re.search(hint, done.stderr)


def test_settings_are_checked_before_a_verb_that_needs_them_starts(calls):
    assert invoke("check").output == "params.yaml is right\n"
    settings.write(folds=[0, 2], seed=-1)
    for words in (["check"], ["train"], ["download"], ["leaderboard"]):
        done = invoke(*words)
        assert (done.exit_code, calls) == (1, [])
        assert done.stderr.count("error: params.yaml: ") == 1  # of two mistakes, those between keys come later
        assert "seed" in done.stderr
    assert invoke("predict", "a.png").exit_code == 0
    assert [call[0] for call in calls] == ["apps.predict"]


def test_every_verb_and_every_word_of_it_has_a_help(calls):
    verbs = typer.main.get_command(__main__.app).commands
    assert len(verbs) > 20
    for name, verb in verbs.items():
        assert verb.help.endswith("."), name
        assert all(word.help for word in verb.params), name
        done = invoke(name, "--help", COLUMNS="80")
        assert done.exit_code == 0
        assert max(map(len, done.output.splitlines())) <= 80
    assert calls == []
