"""A file has its old content or the whole new one, whatever happens on the way."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import UserError


def test_content_is_new_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep/down/a.bin"
    for content in (b"old", b"new"):
        files.replace(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


DAMAGE = [ValueError("x"), KeyError("x"), EOFError(), OSError(5, "Input/output error"), AttributeError("x")]


@pytest.mark.parametrize("trouble", [*DAMAGE, FileNotFoundError(2, "No such file")])
def test_whatever_is_wrong_with_a_file_is_told_with_its_remedy(trouble, tmp_path):
    word = "missing" if isinstance(trouble, FileNotFoundError) else "damaged"
    with (
        pytest.raises(UserError, match=f"a.bin is {word}.*; make it with: dvc repro x"),
        files.reading(tmp_path / "a.bin", "dvc repro x"),
    ):
        raise trouble
    with pytest.raises(UserError, match=r"^as it was$"), files.reading(tmp_path / "a.bin", "dvc repro x"):
        raise UserError("as it was")


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_old_content_stays_where_writing_fails(trouble, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the new")
        raise trouble

    with pytest.raises(type(trouble)) as raised:
        files.replace(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(trouble, OSError):
        assert raised.value.filename == str(path)


def test_a_device_that_is_full_is_told_by_the_name_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "mkstemp", lambda **_: (os.open("/dev/full", os.O_WRONLY), str(tmp_path / "p")))
    with pytest.raises(OSError, match="No space left on device") as raised:
        files.replace(tmp_path / "a.bin", lambda file: file.write(b"x" * 100_000))
    assert raised.value.filename == str(tmp_path / "a.bin")


def test_git_changes_no_line_ends_of_what_is_known_by_its_digest():
    paths = ["artifacts/cells/a/fold0/history.csv", "submissions/ensemble.csv", "results/report.md", "dvc.lock",
             "params.yaml", "pipeline/files.py", "requirements.lock", "results/plots/board.png"]  # fmt: skip
    command = ["git", "-C", Path(__file__).parent.parent, "check-attr", "text", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == ["unset"] * len(paths)
