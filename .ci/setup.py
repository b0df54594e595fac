"""Installation of the packages in requirements.lock, for `make setup`. Uses only the standard library.

Each lock file has its own environment, .venv-DIGEST. .venv is a link to the environment of the current lock file, set
when this environment is complete, so a working environment is never destroyed. A restored lock file reuses its
environment.

Argument `light`: install only the packages in [tool.light] of pyproject.toml and their dependencies; a later setup adds
the others. Argument `named`: the user has chosen this Python; an environment with a different version is an error. If
the lock file contains uv, uv installs the packages in a sixth of pip's time, with pip as the fallback.
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
    """Exit with an error message and status 1."""
    sys.exit("error: " + text)


def packages():
    """Yield the name of each package in the lock file, its lines there, and the names of its dependents."""
    for lines in re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8"))[1:]:
        yield re.match(r"[\w.-]+", lines).group(), lines, set(re.findall(r"(?m)^ +#(?: via)? +(\S+)$", lines))


def needed(locked, names):
    """Return the lines of these packages and of all their dependencies."""
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    size = 0
    while size < len(names):  # repeat until no dependency is added
        size = len(names)
        names |= {name for name, _, users in locked if users & names}
    return "".join(lines for name, lines, _ in locked if name in names)


def run(command, lines):
    """Install these lines of the lock file. Return whether this succeeded."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        return not subprocess.run([*command, "--quiet", "--require-hashes", "-r", file.name], check=False).returncode


def install(folder, light):
    """Create an environment, or add the missing packages. The remains of an interrupted setup are removed first."""
    if not (3, 11) <= sys.version_info < (3, 14):
        name = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"this is Python {name}, not 3.11 to 3.13; choose another: make setup PYTHON=python3.12")
    import tomllib

    locked = list(packages())
    lines = "".join(each for _, each, _ in locked)
    if not LOCK.read_text(encoding="utf-8").strip():
        stop(f"{LOCK} contains no packages; restore it: git checkout {LOCK}")
    if light:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        lines = needed(locked, project["tool"]["light"]["packages"])
    print(f"installing {lines.count('==')} packages of {LOCK} into {folder}/ ...", flush=True)
    python = str(folder / "bin/python")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    create = [sys.executable, "-m", "venv", "--clear", str(folder)]
    created = whole(folder, True) or not subprocess.run(create, check=False).returncode
    installer = "".join(each for name, each, _ in locked if name == "uv")
    uv = installer and created and run(pip, installer)
    uv = uv and run([str(folder / "bin/uv"), "pip", "install", "--python", python], lines)
    if not (created and (uv or run(pip, lines))):
        stop(f"{folder} is incomplete, and {LINK} is unchanged; check the network, and run make setup again")
    (folder / ".gitignore").write_text("*\n")
    for packages_folder in folder.glob("lib/*/site-packages"):  # makes `import pipeline` work in any folder
        (packages_folder / "project.pth").write_text(f"{Path.cwd()}\n")
    mark = folder / ".whole.part"
    mark.write_text("light\n" if light else "all\n")
    mark.replace(folder / ".whole")


def whole(folder, light):
    """Return whether the environment is complete, or has at least the packages of `light` if that is enough."""
    mark = folder / ".whole"
    content = mark.read_text() if mark.exists() and (folder / "bin/python").exists() else ""
    paths = [path.read_text() for path in folder.glob("lib/*/site-packages/project.pth")]
    if paths != [f"{Path.cwd()}\n"]:  # the project's folder was moved
        return False
    return content == "all\n" or (light and content == "light\n")


def switch(folder):
    """Link .venv to an environment atomically. A folder .venv of an older version is renamed."""
    new, old = Path(".venv-link"), Path(".venv-old")
    if new.is_symlink():
        new.unlink()
    new.symlink_to(folder)
    if LINK.exists() and not LINK.is_symlink():
        if old.exists():
            stop(f"{LINK} is a folder, and so is {old}; remove the one that is not needed")
        LINK.rename(old)
    new.replace(LINK)
    print(f".venv is now {folder}")
    others = [str(path) for path in sorted(Path().glob(".venv-*")) if path.is_dir() and path != folder]
    if others:
        print("kept: {} (make clean removes them)".format(", ".join(others)))


def check_python(folder):
    """Exit with an error if the user has chosen a Python and the environment has a different version."""
    library = folder / "lib" / "python{}.{}".format(*sys.version_info)
    if "named" in sys.argv[1:] and whole(folder, True) and not library.exists():
        stop(
            f"{folder} has a different Python version than PYTHON; remove it (rm -r {folder}), and run make setup again"
        )


def main():
    """Run the command."""
    if not LOCK.exists():
        stop(f"{LOCK} is missing; run make in the project's folder")
    if LINK.is_symlink() and not os.readlink(str(LINK)).startswith(".venv-"):
        stop(f"{LINK} is a link to {os.readlink(str(LINK))}, which make setup does not replace; remove the link")
    light = "light" in sys.argv[1:]
    folder = Path(".venv-" + hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12])
    if LINK.is_symlink() and os.readlink(str(LINK)) == str(folder) and whole(folder, light):
        check_python(folder)
        return
    with LOCK.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make setup is running; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        check_python(folder)
        if not whole(folder, light):
            install(folder, light)
        switch(folder)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        stop(str(error))
    except (ValueError, LookupError) as error:
        stop(f"{error}; to restore {LOCK} and pyproject.toml: git checkout {LOCK} pyproject.toml")
