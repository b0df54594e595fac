"""How every command stops: bad input ends in one sentence and exit status 1, never in a traceback."""

import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.errors import UserError


def say(text: object) -> int:
    """Print an error on standard error, a line for each of its own, and return the exit status for it."""
    for line in str(text).splitlines() or [""]:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(line.split()))
        print(f"error: {shown}", file=sys.stderr, flush=True)
    return 1


def guarded(main: Callable[..., None]) -> Callable[..., None]:
    """A command that leaves with its exit status.

    A UserError or an OSError that `main` raises is printed as one sentence (status 1); so is Ctrl-C (status 130).
    Anything else is a defect and keeps its traceback.
    """

    @functools.wraps(main)
    def run(*words: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end that can be told, as Ctrl-C is
        status: Any = 0
        for stream in (sys.stdout, sys.stderr):  # a locale must not stop anything; what it lacks is escaped
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            main(*words, **options)
        except SystemExit as end:
            status = end.code
        except UserError as trouble:
            status = say(trouble)
        except OSError as trouble:
            place = f" ({trouble.filename})" if trouble.filename else ""
            status = 1 if _left(trouble) else say(f"{trouble.strerror or trouble}{place}")
        except KeyboardInterrupt as stop:
            where = f" ({stop})" if str(stop) else ""
            print(f"\nstopped{where}; the same command goes on from there", file=sys.stderr)
            status = 130
        try:
            if sys.stdout:  # None where it is closed
                sys.stdout.flush()
        except OSError as trouble:
            status = status or (1 if _left(trouble) else say(trouble.strerror))
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes when it ends
        sys.exit(status)

    return run


def _left(trouble: OSError) -> bool:
    """Whether it is that nobody reads standard output any more, as after "| head": nothing to speak of."""
    if not isinstance(trouble, BrokenPipeError) or not sys.stdout:
        return False
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return any(events & select.POLLERR for _, events in pipe.poll(0))
