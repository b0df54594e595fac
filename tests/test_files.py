"""A file has its old or its complete new content, even if writing fails."""

import subprocess
from pathlib import Path

import pytest

from pipeline import files


def test_content_is_replaced_and_no_other_file_is_left(tmp_path):
    path = tmp_path / "deep/down/a.bin"
    for content in (b"old", b"new"):
        files.write(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "b.bin").touch()
    assert path.stat().st_mode == (tmp_path / "b.bin").stat().st_mode


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_old_content_is_kept_if_writing_fails(error, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the new")
        raise error

    with pytest.raises(type(error)):
        files.replace(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_git_changes_no_line_ends_of_files_with_a_recorded_digest():
    paths = ["artifacts/cells/a/fold0/history.csv", "submissions/ensemble.csv", "params.yaml", "pipeline/files.py"]
    command = ["git", "-C", Path(__file__).parent.parent, "check-attr", "text", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == ["unset"] * len(paths)
