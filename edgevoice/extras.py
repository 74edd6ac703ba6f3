"""What only some need is installed when they do: the extras of pyproject.toml, and how to get one here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

DEBIAN: Final = Path("/usr/lib/edgevoice")
"""Where the Debian package is, which has the extras `web` and `home-assistant`."""

_BESIDE: Final = "sudo python3 -m pip install --target /usr/local/lib/edgevoice"
_OF_DEBIAN: Final = {
    # The matplotlib of Debian 12 cannot draw the report's legends.
    "eval": "sudo apt install python3-scipy python3-matplotlib  # plots: Debian 13 or newer",
    # It needs NumPy, which is Debian's here.
    "wake": f"sudo apt install python3-pip && {_BESIDE} --no-deps pyopen-wakeword",
    "zeroconf": "sudo apt install python3-zeroconf",
}


def remedy(extra: str, folder: Path = Path(__file__).parents[1]) -> str:
    """Return the command that installs an extra.

    Args:
        extra: its name in pyproject.toml.
        folder: in which this package is.
    """
    if folder == DEBIAN:
        return _OF_DEBIAN.get(extra, "sudo apt install --reinstall edgevoice")
    return f"{sys.executable} -m pip install 'edgevoice[{extra}]'"
