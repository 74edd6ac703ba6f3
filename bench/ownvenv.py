"""A virtual environment of its own for each tool that measuring needs, in the cache, never in the project's.

A peer or a speech synthesiser brings dozens of packages that edgevoice must not depend on, or not in those
versions. Their environments lie in `~/.cache/edgevoice/bench` (`EDGEVOICE_CACHE` and `XDG_CACHE_HOME` count
as for the build), named after their packages, so a changed pin makes a new one. Nothing here needs more than
Python's standard library: scripts that start themselves again inside such an environment import it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_folder() -> Path:
    """Return the folder for environments and what they load, made when missing."""
    base = os.environ.get("EDGEVOICE_CACHE")
    folder = (
        Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgevoice"
    )
    folder = folder.expanduser().resolve() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python_with(name: str, packages: tuple[str, ...], alone: tuple[str, ...] = ()) -> Path:
    """Return the Python of an environment with these packages; the first time it is made with pip.

    Args:
        name: what it is for, the beginning of its folder's name.
        packages: requirements with versions.
        alone: requirements installed without what they in turn require.
    """
    wanted = "\n".join((sys.version, *packages, "--no-deps", *alone))
    folder = cache_folder() / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    with locked(folder):
        if not complete.is_file():
            print(f"making {folder} with pip: {' '.join(packages + alone)}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left behind
            run(sys.executable, "-m", "venv", str(folder))
            pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            run(*pip, *packages)
            if alone:
                run(*pip, "--no-deps", *alone)
            complete.touch()
    return python


def restart_with(name: str, packages: tuple[str, ...], alone: tuple[str, ...] = ()) -> None:
    """Go on in an environment with these packages: the running script is started again in it, once."""
    python = python_with(name, packages, alone)
    if Path(sys.prefix) != python.parents[1]:
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 (no shell is wanted)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, so that two runs at once do the work once."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a program; its output goes to stderr, so that stdout stays the script's."""
    subprocess.run(command, check=True, cwd=cwd, stdout=sys.stderr)  # noqa: S603 (our own arguments)
