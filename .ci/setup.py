"""Install what requirements.lock names, for `make setup`: each lock has its own environment, .venv-DIGEST.

.venv is a link to the one of the lock that lies here. The link is set when that environment is whole, so nothing that
works is ever destroyed. A lock that comes back finds its environment there. Needs no packages.

The word `light` installs only what [tool.light] of pyproject.toml names, and what that needs; a later set-up adds the
rest. The word `named` says that the user has named this Python: it is an error where the environment has another.
Where the lock names uv, uv installs the packages, as it takes a sixth of pip's time; pip does where uv fails.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK, LINK = Path("requirements.lock"), Path(".venv")


def stop(text):
    """End with one sentence."""
    sys.exit("error: " + text)


def packages():
    """What the lock names: of each package its name, its lines there, and the names of those that need it."""
    for lines in re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8"))[1:]:
        yield re.match(r"[\w.-]+", lines).group(), lines, set(re.findall(r"(?m)^ +#(?: via)? +(\S+)$", lines))


def needed(found, names):
    """The lines of these packages and of all that they need."""
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    size = 0
    while size < len(names):  # until nothing is added
        size = len(names)
        names |= {name for name, _, users in found if users & names}
    return "".join(lines for name, lines, _ in found if name in names)


def run(command, lines):
    """Install these lines of the lock; whether it went well."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        return not subprocess.run([*command, "--quiet", "--require-hashes", "-r", file.name], check=False).returncode


def install(folder, light):
    """Build an environment at its place, or add to it what it lacks; what a broken try left there is cleared first."""
    if not (3, 11) <= sys.version_info < (3, 14):
        name = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"this is Python {name}, not 3.11 to 3.13; name another: make setup PYTHON=python3.12")
    import tomllib

    found = list(packages())
    lines = "".join(each for _, each, _ in found)
    if not LOCK.read_text(encoding="utf-8").strip():
        stop(f"{LOCK} names no package; bring it back: git checkout {LOCK}")
    if light:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        lines = needed(found, project["tool"]["light"]["packages"])
    print(f"installing {lines.count('==')} packages of {LOCK} into {folder}/ ...", flush=True)
    python = str(folder / "bin/python")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    there = (
        whole(folder, True)
        or not subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=False).returncode
    )
    installer = "".join(each for name, each, _ in found if name == "uv")
    uv = installer and there and run(pip, installer)
    uv = uv and run([str(folder / "bin/uv"), "pip", "install", "--python", python], lines)
    if not (there and (uv or run(pip, lines))):
        stop(f"{folder} is not whole, and {LINK} is as it was; run make setup again")
    (folder / ".gitignore").write_text("*\n")
    for place in folder.glob("lib/*/site-packages"):  # so that `import pipeline` works in any folder
        (place / "project.pth").write_text(f"{Path.cwd()}\n")
    mark = folder / ".whole.part"
    mark.write_text("light\n" if light else "all\n")
    mark.replace(folder / ".whole")


def whole(folder, light):
    """Whether the environment runs, and has all that is asked for."""
    mark = folder / ".whole"
    has = mark.read_text() if mark.exists() and (folder / "bin/python").exists() else ""
    return has == "all\n" or (light and has == "light\n")


def switch(folder):
    """Let .venv lead to an environment, in a single step; a folder of this name, as older versions made, is renamed."""
    new, old = Path(".venv-link"), Path(".venv-old")
    if new.is_symlink():
        new.unlink()
    new.symlink_to(folder)
    if LINK.exists() and not LINK.is_symlink():
        if old.exists():
            stop(f"{LINK} is a folder, and so is {old}; remove the one that you do not need")
        LINK.rename(old)
    new.replace(LINK)
    print(f".venv is now {folder}")
    others = [str(path) for path in sorted(Path().glob(".venv-*")) if path.is_dir() and path != folder]
    if others:
        print("kept: {} (make clean removes them)".format(", ".join(others)))


def check_python(folder):
    """Stop where the user has named a Python, and the environment has another."""
    library = folder / "lib" / "python{}.{}".format(*sys.version_info)
    if "named" in sys.argv[1:] and whole(folder, True) and not library.exists():
        stop(f"{folder} has another Python than the one you name; remove it (rm -r {folder}), and run make setup again")


def main():
    """Run the command."""
    if not LOCK.exists():
        stop(f"{LOCK} is missing here; run make in the project's folder")
    if LINK.is_symlink() and not os.readlink(str(LINK)).startswith(".venv-"):
        stop(f"{LINK} is a link to {os.readlink(str(LINK))}, which this must not change; remove the link")
    light = "light" in sys.argv[1:]
    folder = Path(".venv-" + hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12])
    if LINK.is_symlink() and os.readlink(str(LINK)) == str(folder) and whole(folder, light):
        check_python(folder)
        return
    with LOCK.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make setup is at work here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        check_python(folder)
        if not whole(folder, light):
            install(folder, light)
        switch(folder)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, LookupError) as trouble:
        stop(f"{trouble}; {LOCK} and pyproject.toml come back by git checkout")
