"""How every command starts and stops: bad input ends in one sentence and exit status 1, never in a traceback."""

import os
import signal
import sys
from collections.abc import Callable


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
    usage : what the command takes, for example "python -m pipeline.train ARCHITECTURE FOLD". Its words in capitals are
        passed to `main`, those in [BRACKETS] if they are given.
    """
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n\nusage: {usage}")
        sys.exit(0)
    takes = [word for word in usage.split() if word.isupper()]
    if not sum(not word.startswith("[") for word in takes) <= len(words) <= len(takes):
        sys.exit(refuse(f"cannot use the arguments {words}; usage: {usage}"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end that can be told, as Ctrl-C is
    try:
        main(*words)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough, like "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
        sys.exit(1)
    except Refusal as refusal:
        sys.exit(refuse(refusal))
    except OSError as trouble:
        place = f" ({trouble.filename})" if trouble.filename else ""
        sys.exit(refuse(f"{trouble.strerror or trouble}{place}"))
    except KeyboardInterrupt as stop:
        where = f" ({stop})" if str(stop) else ""
        print(f"\nstopped{where}; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
