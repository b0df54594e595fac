"""How every command starts and stops: bad input ends in one sentence and exit status 1, never in a traceback."""

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any


class Refusal(Exception):
    """Input that cannot be used. Its text says what is wrong, where, and what to do."""


def refuse(text: object) -> int:
    """Print `text` on one line of standard error and return the exit status for it."""
    print(f"error: {' '.join(str(text).split())}", file=sys.stderr, flush=True)
    return 1


def run(main: Callable[..., None], usage: str) -> None:
    """Call `main` with the command line's words and leave with its exit status.

    Parameters
    ----------
    main : the command. A Refusal or an OSError that it raises is printed as one sentence (status 1); so is
        Ctrl-C (status 130). Anything else is a defect and keeps its traceback.
    usage : what the command takes, for example "python -m pipeline.stages.train ARCHITECTURE FOLD". Its words in capitals are
        passed to `main`, those in [BRACKETS] if they are given.
    """
    words = sys.argv[1:]
    takes = [word for word in usage.split() if word.isupper()]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end that can be told, as Ctrl-C is
    status: Any = 0
    try:
        if {"-h", "--help"} & set(words):
            print(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n\nusage: {usage}")
        elif sum(not word.startswith("[") for word in takes) <= len(words) <= len(takes):
            main(*words)
        else:
            raise Refusal(f"cannot use the arguments {words}; usage: {usage}")
    except SystemExit as end:
        status = end.code
    except Refusal as refusal:
        status = refuse(refusal)
    except OSError as trouble:
        place = f" ({trouble.filename})" if trouble.filename else ""
        status = 1 if _left(trouble) else refuse(f"{trouble.strerror or trouble}{place}")
    except KeyboardInterrupt as stop:
        where = f" ({stop})" if str(stop) else ""
        print(f"\nstopped{where}; the same command goes on from there", file=sys.stderr)
        status = 130
    try:
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except OSError as trouble:
        status = status or (1 if _left(trouble) else refuse(trouble.strerror))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes when it ends
    sys.exit(status)


def _left(trouble: OSError) -> bool:
    """Whether it is that nobody reads standard output any more, as after "| head": nothing to speak of."""
    if not isinstance(trouble, BrokenPipeError) or not sys.stdout:
        return False
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return any(events & select.POLLERR for _, events in pipe.poll(0))
