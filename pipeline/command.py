"""Error handling and exit status of all commands: bad input ends with an error message and status 1, no traceback."""

import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.errors import UserError


def print_error(text: object) -> int:
    """Print each line of an error message to standard error, with control characters escaped. Return exit status 1."""
    for line in str(text).splitlines() or [""]:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(line.split()))
        print(f"error: {shown}", file=sys.stderr, flush=True)
    return 1


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
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            status = 1 if _reader_gone(error) else print_error(f"{error.strerror or error}{place}")
        except KeyboardInterrupt as interrupt:
            details = f" ({interrupt})" if str(interrupt) else ""
            print(f"\nstopped{details}; the same command resumes from there", file=sys.stderr)
            status = 130
        try:
            if sys.stdout:  # None if the process was started with it closed
                sys.stdout.flush()
        except OSError as error:
            status = status or (1 if _reader_gone(error) else print_error(error.strerror))
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again at exit
        sys.exit(status)

    return run


def _reader_gone(error: OSError) -> bool:
    """Return whether the reader of standard output has closed the pipe, as in "| head". This needs no message."""
    if not isinstance(error, BrokenPipeError) or not sys.stdout:
        return False
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return any(events & select.POLLERR for _, events in pipe.poll(0))
