"""The command `edgevoice web password`."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from edgevoice import web_password
from edgevoice.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgevoice.config import Config


def password(options: argparse.Namespace, config: Config) -> None:
    """Ask for the password of the page, and keep what scrypt makes of it."""
    path = options.file or config.web.password_file
    if path is None:
        raise UsageError("web.password_file is not set; set it, or name a FILE")
    web_password.write(path, _ask())
    print(f"written to {path}; edgevoice takes it when it is started again")


def _ask() -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        line = sys.stdin.readline(web_password.MAX_BYTES + 2) if sys.stdin is not None else ""
        return line.removesuffix("\n").removesuffix("\r")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise UsageError("these are two different passwords; type the same twice")
    return first
