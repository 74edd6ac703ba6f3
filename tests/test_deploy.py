"""What is put on a Raspberry Pi: the unit, the configuration, the installer."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from edgevoice import config
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Edgevoice

DEPLOY = ROOT / "deploy" / "raspberrypi"
UNIT = DEPLOY / "edgevoice.service"

ANALYZE = shutil.which("systemd-analyze") or ""
EXPOSURE = 25
"""Tenths: what `systemd-analyze security` may find, of 100."""


def read_unit() -> dict[str, dict[str, str]]:
    """Sections and settings."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=")  # the last of a name counts
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT, "utf-8")
    return {name: dict(parser[name]) for name in parser.sections()}


class TestUnit:
    """The service as systemd sees it."""

    def test_settings(self) -> None:
        """It is notified, watched, restarted within limits, and no root."""
        service = read_unit()["Service"]
        assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
        assert service["ExecStart"].endswith("run --config /etc/edgevoice/edgevoice.yaml")
        assert (service["User"], service["SupplementaryGroups"]) == ("edgevoice", "audio")
        assert service["Restart"] == "on-failure"
        assert service["RestartPreventExitStatus"] == "2"  # wrong configuration or grammar
        assert "-HUP" in service["ExecReload"]
        limits = read_unit()["Unit"]
        # What hangs is noticed within a recognition and two times WatchdogSec; five times that must count.
        cycle_s = (
            2 * int(service["WatchdogSec"])
            + int(service["RestartSec"])
            + config.Config().recognition.timeout_s
        )
        assert int(limits["StartLimitBurst"]) * cycle_s < int(limits["StartLimitIntervalSec"])

    @pytest.mark.skipif(not ANALYZE, reason="no systemd-analyze")
    def test_analyze(self, tmp_path: Path) -> None:
        """Systemd understands each line, and finds little that the service may do."""
        unit = tmp_path / UNIT.name
        program = "/bin/true"  # verify wants it to be there
        unit.write_text(UNIT.read_text("utf-8").replace("/opt/edgevoice/bin/edgevoice", program), "utf-8")
        for command in (
            ["verify", str(unit)],
            ["security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)],
        ):
            done = subprocess.run([ANALYZE, *command], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout[-200:]


def test_configuration(edgevoice: Edgevoice) -> None:
    """It is in order, and but for what the comments say it is as the defaults are."""
    path = DEPLOY / "edgevoice.yaml"
    assert edgevoice("config", "check", "--config", path).returncode == 0
    assert config.load(path) == config.Config()
