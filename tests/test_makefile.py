"""Options and setup of the Makefile, in a copy with an empty lock file."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest
import typer
from settings import LISTING, ROOT

from pipeline import __main__

SETUP = runpy.run_path(str(ROOT / ".ci/setup.py"))
EMPTY, OTHER = "# no packages\n", "# no packages, but another digest\n"
ABSENT = "no-such-package==1 --hash=sha256:" + "0" * 64


@pytest.fixture
def place(tmp_path):
    """Create a folder with the Makefile and .ci/."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.lock").write_text(EMPTY)
    return tmp_path


@pytest.fixture
def stand_in(place):
    """Replace Python by a script that prints its arguments."""
    python = place / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nshift\nfor word in "$@"; do printf "<%s>" "$word"; done\necho\n')
    python.chmod(0o755)
    return place


def make(place, *words, **more):
    return subprocess.run(["make", "-s", *words], cwd=place, env=os.environ | more, capture_output=True, text=True)


EVIL = "$(shell touch pwned) cost $5 `touch pwned` \"q\" 's' \\ $(touch pwned); touch pwned"
REPORT = "<dvc><repro><--force><--single-item><report>"


@pytest.mark.parametrize(("words", "printed"), [
    (["train", "YES=0"], ["<pipeline><train>"]), (["train", "YES=n"], ["<pipeline><train>"]),
    (["submit"], ["<pipeline><submit><--><ensemble>"]),
    (["train", "JOBS=2", "THREADS=1", "EXECUTOR=dask", "ADDRESS=a:1", "YES=1"],
     ["<pipeline><train><--jobs=2><--threads=1><--executor=dask><--address=a:1><--yes>"]),
    (["submit", f"NAME={EVIL}", f"MESSAGE={EVIL}", "FORCE=1"],
     [f"<pipeline><submit><--message={EVIL}><--force><--><{EVIL}>"]),
    (["leaderboard", "REFRESH=1", "FORMAT=md"], ["<pipeline><leaderboard><--refresh><--format=md>"]),
    (["predict", "INPUT=a b.png", "OPTIONS=--out o --csv *"], ["<pipeline><predict><--out><o><--csv><*><--><a b.png>"]),
    (["release"], ["<pipeline><release><--><><0>"]), (["score", "FILE=-m"], ["<pipeline><score><--><-m>"]),
    (["export", "NAME=a", "FOLD=1"], ["<pipeline><export><--><a><1>"]),
    (["outside", "FILE=-a.h5", "SIDE=64", "SCALING=raw", "CLASSES=a,b", "OUT=o.json"],
     ["<pipeline><outside><--side=64><--scaling=raw><--classes=a,b><--out=o.json><--><-a.h5>"]),
    (["speedrun", "ALL=1"], ["<pipeline><speedrun><--all>", REPORT]),
    (["seeds", "SEEDS=1 2"], ["<pipeline><seeds><1><2>", REPORT]),
    (["repro"], ["<pipeline><check>", "<dvc><repro>", "<pipeline><leaderboard>"]),
], ids=lambda words: " ".join(words[:2])[:20])  # fmt: skip
def test_a_target_passes_its_options_unchanged_from_the_command_line(stand_in, words, printed):
    elsewhere = {"NAME": "other", "MESSAGE": "other", "FORCE": "1", "JOBS": "7", "FILE": "x", "YES": "1", "ALL": "1"}
    done = make(stand_in, "--old-file=setup", "--old-file=light", *words, **elsewhere)
    assert (done.returncode, done.stdout.splitlines()) == (0, printed)
    assert not (stand_in / "pwned").exists()


def test_only_commands_without_keras_and_kaggle_have_the_light_environment(stand_in):
    for command, more in (
        ("predict", "OPTIONS=--out b --explain"), ("predict", "OPTIONS=--network a"), ("leaderboard", "REFRESH=1"),
    ):  # fmt: skip
        plain, whole = (make(stand_in, "-n", command, *words).stdout for words in ([], [more]))
        assert ("setup.py light" in plain, "setup.py light" in whole, "setup.py" in whole) == (True, False, True)


@pytest.mark.parametrize(("words", "message"), [
    (["train", "THREAD=1"], "no option THREAD; make help"), (["train", "NAME=small_vgg"], "no option NAME; make help"),
    (["FILE=mine.csv"], "no option FILE; make help"), (["score"], "FILE is missing; for example: make score FILE="),
    (["submit", "NAME="], "empty: NAME"), (["leaderboard", "REFRESH=2"], "REFRESH=2: give 1 or 0"),
])  # fmt: skip
def test_an_unknown_option_one_of_another_command_or_a_missing_one_is_an_error(stand_in, words, message):
    done = make(stand_in, "--old-file=setup", *words)
    assert (done.returncode, done.stdout, message in done.stderr) == (2, "", True)


def test_the_leaderboard_imports_only_packages_of_the_light_environment():
    output = subprocess.check_output([sys.executable, "-c", LISTING, "leaderboard"], cwd=ROOT, text=True)
    heavy = {"dvc", "h5py", "jinja2", "kaggle", "keras", "markdown_it", "matplotlib", "tensorflow", "vl_convert"}
    assert not heavy & set(output.splitlines()[-1].split())


def test_help_lists_every_target_and_each_calls_a_command(place):
    text = (place / "Makefile").read_text()
    targets, shown = re.findall(r"(?m)^([a-z]+):.* ##", text), make(place).stdout
    assert len([target for target in targets if f"make {target} " in shown]) == len(targets) > 15
    assert max(map(len, shown.splitlines())) <= 80
    assert set(re.findall(r"\$\(RUN\) ([a-z]+)", text)) <= set(typer.main.get_command(__main__.app).commands)


# Setup


def setup(place):
    return make(place, "setup", f"PYTHON={sys.executable}")


def link(place):
    return os.readlink(place / ".venv")


@pytest.mark.slow
def test_each_lock_file_has_its_environment_which_is_never_destroyed(place):
    done = setup(place)
    assert (done.returncode, done.stderr, "installing" in done.stdout) == (0, "", True)
    first = link(place)
    (place / first / "mark").touch()
    subprocess.run([place / ".venv/bin/python", "-c", "import pip"], check=True)

    library = place / first / "lib" / "python{}.{}".format(*sys.version_info)
    library.rename(place / first / "lib/python2.7")
    done = setup(place)
    assert (done.returncode, link(place)) == (2, first)
    assert f"rm -r {first}" in done.stderr
    (place / first / "lib/python2.7").rename(library)

    (place / "requirements.lock").write_text(ABSENT)
    done = make(place, "plan", f"PYTHON={sys.executable}", PIP_NO_INDEX="1")
    assert (done.returncode, link(place)) == (2, first)
    assert "is incomplete, and .venv is unchanged" in done.stderr

    (place / "requirements.lock").write_text(OTHER)
    assert first in setup(place).stdout
    assert link(place) != first

    (place / "requirements.lock").write_text(EMPTY)  # restored, as by git checkout
    assert "installing" not in setup(place).stdout
    assert make(place, "clean").returncode == 0
    assert sorted(path.name for path in place.glob(".venv*")) == [".venv", first]
    assert (place / ".venv/mark").exists()


def test_the_light_environment_contains_its_packages_and_their_dependencies():
    locked = list(SETUP["packages"]())
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["light"]["packages"]
    light = {each.partition("==")[0] for each in SETUP["needed"](locked, names).splitlines() if "==" in each}
    assert {re.sub("[.]", "-", name) for name in names} | {"flatbuffers", "pydantic-core"} < light  # also dependencies
    assert not light & {"tensorflow", "keras", "dvc", "ray", "pytest"}
    assert (ROOT / "requirements.lock").read_text().endswith("".join(lines for _, lines, _ in locked))


def test_two_setups_build_one_environment_and_an_incomplete_one_is_rebuilt(place):
    (place / ".venv").mkdir()
    (place / ".venv/notes.txt").write_text("mine")
    command = ["make", "-s", "setup", f"PYTHON={sys.executable}"]
    both = [subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    output = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert (output.count("installing"), output.count("waiting for it")) == (1, 1)
    assert (place / ".venv-old/notes.txt").read_text() == "mine"  # a folder is renamed, not deleted
    mark = place / ".venv/.whole"
    mark.unlink()
    assert "installing" in setup(place).stdout
    assert mark.read_text() == "all\n"
    assert [path.read_text() for path in place.glob(".venv/lib/*/site-packages/project.pth")] == [f"{place}\n"]


def test_a_link_to_another_environment_is_not_replaced(place):
    (place / ".venv").symlink_to("mine")
    done = setup(place)
    assert (done.returncode, "error: .venv is a link to mine" in done.stderr) == (2, True)
    assert (link(place), list(place.glob(".venv-*"))) == ("mine", [])
