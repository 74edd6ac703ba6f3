"""How to install an extra, where edgevoice is."""

from __future__ import annotations

import sys
import tomllib

import pytest

from edgevoice import extras
from tests.conftest import ROOT


@pytest.mark.parametrize("extra", ["eval", "home-assistant", "wake", "web", "zeroconf"])
def test_remedy(extra: str) -> None:
    """It is for this Python, and for an extra that there is; the Debian package has its own way."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert extra in declared
    assert extras.remedy(extra) == f"{sys.executable} -m pip install 'edgevoice[{extra}]'"
    packaged = extras.remedy(extra, extras.DEBIAN)
    assert "edgevoice[" not in packaged
    bundled = (ROOT / "deploy/debian/requirements.txt").read_text("utf-8")
    has_all = all(requirement.partition(">")[0] + "==" in bundled for requirement in declared[extra])
    assert ("--reinstall" in packaged) == has_all
