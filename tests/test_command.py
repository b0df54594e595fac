"""Exit status and messages of commands, tested in processes, and the command line."""

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import settings
from typer.testing import CliRunner

from pipeline import __main__

HEAD = """
import signal, sys
from pipeline import command
from pipeline.errors import UserError
@command.guarded
def main():
    {}
main()
"""
STOPPED = "the same command resumes from there\n"
MUCH = "print('text' * 100_000)"


def start(body, output=subprocess.PIPE):
    """Run a command with the given body of main() and standard output, buffered as usual."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONPATH": str(settings.ROOT), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-c", HEAD.format(body)], env=environment, stdout=output, stderr=subprocess.PIPE, text=True,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(("body", "status", "out", "err"), [
    ("print('done'); sys.exit(7)", 7, "done\n", ""),
    (r"raise UserError('two\nlines\ta \x1b[31m\udcfc')", 1, "", "error: two\nerror: lines a \\x1b[31m\\udcfc\n"),
    ("open('no/file.txt')", 1, "", "error: No such file or directory (no/file.txt)\n"),
    ("raise KeyboardInterrupt('2 epochs')", 130, "", f"\nstopped (2 epochs); {STOPPED}"),
    ("signal.raise_signal(signal.SIGTERM)", 130, "", f"\nstopped; {STOPPED}"),
])  # fmt: skip
def test_a_command_exits_with_its_status_and_message(body, status, out, err):
    done = start(body)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_any_other_exception_keeps_its_traceback():
    done = start("raise ValueError('a bug')")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "Traceback (most recent call last):")
    assert "error: " not in done.stderr


@pytest.mark.parametrize(("body", "status"), [(MUCH, 1), ("print(); sys.exit(3)", 3)])
def test_a_closed_pipe_ends_the_command_without_a_message(body, status):
    reader, writer = os.pipe()
    os.close(reader)
    done = start(body, writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("body", ["print('text')", MUCH])
def test_a_full_disk_is_reported_once(body):
    with open("/dev/full", "wb") as full:
        done = start(body, full)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


# Command line


@pytest.fixture
def calls(stand, monkeypatch):
    """Record the calls of the command line, without executing them, in a folder with a params.yaml."""
    monkeypatch.delenv("YES", raising=False)
    settings.write()
    recorded, call = [], __main__.call

    def record(module, *words, function="main", **options):
        if module == "config":
            call(module, function=function)
        else:
            inspect.signature(getattr(import_module(f"pipeline.{module}"), function)).bind(*words, **options)
            recorded.append((module, function, *words, *options.items()))

    monkeypatch.setattr(__main__, "call", record)
    return recorded


def invoke(*words, **environment):
    return CliRunner().invoke(__main__.app, words, prog_name="python -m pipeline", env=environment)


@pytest.mark.parametrize(("words", "call"), [
    ("train", ("cells.train", "main_all", 1, "loky", None, False)),
    ("train --jobs 2 --threads 1 --executor dask --address a:1 -y",
     ("cells.train", "main_all", 2, "dask", "a:1", True)),
    ("train small_vgg 0 --retrain", ("cells.train", "main", "small_vgg", "0", 1, "loky", None, True, False)),
    ("plan", ("cells.planning", "main")), ("plan --show", ("cells.planning", "show")),
    ("score", ("evaluation.score", "main")), ("score a.csv", ("evaluation.score", "score_file", Path("a.csv"))),
    ("submit a --force", ("kaggle.submit", "main", ("name", "a"), ("message", ""), ("force", True))),
    ("unpack a.tar.gz", ("cells.pack", "unpack", ("archive", Path("a.tar.gz")))),
    ("seeds 1 2 3", ("experiments.seeds", "main", ("numbers", [1, 2, 3]))),
    ("train small_vgg 0,1 --adopt same", ("cells.train", "adopt", "small_vgg", "0,1", "same")),
    ("speedrun --all", ("experiments.speedrun", "main", ("every", True))),
    ("limits a --hours 1", ("evaluation.limits", "main", ("names", ["a"]), ("hours", [1.0]))),
])  # fmt: skip
def test_a_command_calls_its_module_with_typed_arguments(calls, monkeypatch, words, call):
    names = [f"TF_NUM_{part}_THREADS" for part in ("INTRAOP", "INTEROP")]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    done = invoke(*words.split())
    assert (done.exit_code, done.output, calls) == (0, "", [call])
    assert [os.environ.pop(name, "") for name in names] == ["1" if "--threads" in words else ""] * 2


def test_an_environment_variable_approves_long_trainings(calls):
    invoke("train", YES="1")
    assert calls[0][-1] is True


@pytest.mark.parametrize(("words", "hint"), [
    ("submit --forse", "--force"), ("train small_vgg --adopt same", "FOLD"), ("train --retrain", "MODEL"),
    ("train small_vgg 0 --adopt=", "reason"), ("train --address a:1", "executor"),
])  # fmt: skip
def test_an_invalid_command_line_is_an_error_with_a_hint_and_status_2(calls, words, hint):
    done = invoke(*words.split())
    assert (done.exit_code, calls) == (2, [])
    assert re.search(hint, done.stderr)


def test_params_yaml_is_validated_before_a_command_that_needs_it(calls):
    assert invoke("check").exit_code == 0
    settings.write(seed=-1)
    for word in ("check", "train", "download", "leaderboard"):
        done = invoke(word)
        assert (done.exit_code, calls) == (1, [])
        assert "error: params.yaml: seed" in done.stderr
    assert invoke("predict", "a.png").exit_code == 0
    assert [call[0] for call in calls] == ["apps.predict"]
