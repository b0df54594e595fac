"""Error handling and exit status of all commands: bad input ends with an error message and status 1, no traceback.

Also runs other commands, in processes of their own.
"""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def print_error(text: object) -> int:
    """Print each line of an error message to standard error, with control characters escaped. Return exit status 1."""
    for line in str(text).splitlines() or [""]:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(line.split()))
        print(f"error: {shown}", file=sys.stderr, flush=True)
    return 1


def python(*words: str, folder: Path = Path(), capture: bool = False, **environment: str) -> str:
    """Run `python -m WORDS` in `folder`, and return its output if `capture`. Raises UserError if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # DVC's stages run `python`
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=os.environ | environment | {"PATH": path}, check=False,
        stdout=subprocess.PIPE if capture else None, text=True,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed in {folder.absolute()} (see above); the same command resumes there")
    return done.stdout or ""


def guarded(main: Callable[..., None]) -> Callable[..., None]:
    """Return a command that calls `main` and ends the process with the right exit status.

    A UserError or OSError is printed as an error message (status 1), Ctrl-C and SIGTERM as a note (status 130).
    Any other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(*words: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        status: Any = 0
        for stream in (sys.stdout, sys.stderr):  # escape characters that the locale cannot encode
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            main(*words, **options)
        except SystemExit as end:
            status = end.code
        except UserError as error:
            status = print_error(error)
        except BrokenPipeError:  # the reader of the output is gone, as in "| head"
            status = 1
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            status = print_error(f"{error.strerror or error}{place}")
        except KeyboardInterrupt as interrupt:
            details = f" ({interrupt})" if str(interrupt) else ""
            print(f"\nstopped{details}; the same command resumes from there", file=sys.stderr)
            status = 130
        try:
            if sys.stdout:  # None if the process was started with it closed
                sys.stdout.flush()
        except OSError as error:
            status = status or (1 if isinstance(error, BrokenPipeError) else print_error(error.strerror))
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again at exit
        sys.exit(status)

    return run
