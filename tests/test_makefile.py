"""What the Makefile itself decides; what its verbs run is tested with the modules."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def threads(text: str) -> subprocess.CompletedProcess[str]:
    """What make would pass on as TensorFlow's number of threads."""
    show = "--eval=show: ; @echo $$TF_NUM_INTRAOP_THREADS $$TF_NUM_INTEROP_THREADS"
    command = ["make", "-s", "-f", ROOT / "Makefile", show, "show", f"THREADS={text}"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(("text", "given"), {"": "", "1": "1 1", "16": "16 16"}.items())
def test_threads_are_handed_to_tensorflow(text: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert threads(text).stdout.strip() == given


@pytest.mark.parametrize("text", ["0", "-1", "abc", "1 2", "1.5", "%", "$(shell echo 1)"])
def test_threads_that_tensorflow_would_ignore_are_refused(text: str) -> None:
    done = threads(text)
    assert done.returncode == 2
    assert not done.stdout
    assert f"THREADS={text}: must be a whole number from 1 to 999" in done.stderr
