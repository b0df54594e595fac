"""Install what requirements.lock names, for `make setup`: each lock has its own environment, .venv-DIGEST.

.venv is a link to the one of the lock that lies here. The link is set when that environment is whole, so nothing that
works is ever destroyed. A lock that comes back finds its environment there. Needs no packages.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK, LINK = Path("requirements.lock"), Path(".venv")


def stop(text):
    """End with one sentence."""
    sys.exit("error: " + text)


def install(folder):
    """Build an environment at its place; what an earlier try left there is cleared first."""
    if not (3, 11) <= sys.version_info < (3, 14):
        name = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"this is Python {name}, not 3.11 to 3.13; name another: make setup PYTHON=python3.12")
    print(f"installing what {LOCK} names into {folder}/ ...", flush=True)
    python = str(folder / "bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    for words in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, "--requirement", str(LOCK)]):
        if subprocess.run(words, check=False).returncode:
            stop(f"{folder} is not whole, and {LINK} is as it was; run make setup again")
    (folder / ".gitignore").write_text("*\n")
    (folder / ".whole").touch()


def switch(folder):
    """Let .venv lead to an environment, in a single step; a folder of this name, as older versions made, goes."""
    new, old = Path(".venv-link"), Path(".venv-old")
    shutil.rmtree(str(old), ignore_errors=True)
    if new.is_symlink():
        new.unlink()
    new.symlink_to(folder)
    if LINK.exists() and not LINK.is_symlink():
        LINK.rename(old)
    new.replace(LINK)
    shutil.rmtree(str(old), ignore_errors=True)
    print(f".venv is now {folder}")
    others = [str(path) for path in sorted(Path().glob(".venv-*")) if path.is_dir() and path != folder]
    if others:
        print("kept, of other locks: {} (make clean removes them)".format(", ".join(others)))


def main():
    """Run the command."""
    if not LOCK.exists():
        stop(f"{LOCK} is missing here; run make in the project's folder")
    if LINK.is_symlink() and not os.readlink(str(LINK)).startswith(".venv-"):
        stop(f"{LINK} is a link to {os.readlink(str(LINK))}, which this must not change; remove the link")
    folder = Path(".venv-" + hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12])
    if LINK.is_symlink() and os.readlink(str(LINK)) == str(folder) and (folder / ".whole").exists():
        return
    with LOCK.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make setup is at work here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / ".whole").exists():
            install(folder)
        switch(folder)


main()
