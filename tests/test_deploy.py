"""What is put on a Raspberry Pi: the unit, the configuration, the installer (dry)."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from edgevoice import config
from tests.conftest import ROOT

if TYPE_CHECKING:
    from tests.conftest import Edgevoice

DEPLOY = ROOT / "deploy" / "raspberrypi"
DEBIAN = ROOT / "deploy" / "debian"
UNIT = DEPLOY / "edgevoice.service"
INSTALLER = DEPLOY / "install.sh"

ANALYZE = shutil.which("systemd-analyze") or ""
DEBIAN_NAMES = {"cffi-backend": "cffi", "pyaudio": "PyAudio", "yaml": "PyYAML"}

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
        assert (
            service["ExecStart"] == "edgevoice run --config /etc/edgevoice/edgevoice.yaml"
        )  # found by systemd
        assert service["ExecStartPre"].startswith("-edgevoice models pull ")  # offline it starts all the same
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
        unit.write_text(
            re.sub(r"(?m)^(Exec\w+=-?)edgevoice", rf"\1{program}", UNIT.read_text("utf-8")), "utf-8"
        )
        for command in (
            ["verify", str(unit)],
            ["security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)],
        ):
            done = subprocess.run([ANALYZE, *command], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout[-200:]


def test_configuration(edgevoice: Edgevoice) -> None:
    """It is in order, and as the defaults are, but for the one folder that the service may write to."""
    path = DEPLOY / "edgevoice.yaml"
    assert edgevoice("config", "check", "--config", path).returncode == 0
    records = config.RecordsConfig(folder=Path("/var/lib/edgevoice/records"))
    model = config.ModelConfig(name="tiny.en-q8_0")
    assert config.load(path) == config.Config(model=model, records=records)


class TestInstaller:
    """What install.sh would do to a machine that is a folder here."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Path:
        """One with 512 MB and four cores, without edgevoice."""
        device_tree = tmp_path / "proc" / "device-tree"
        device_tree.mkdir(parents=True)
        (device_tree / "model").write_bytes(b"Raspberry Pi Zero 2 W Rev 1.0\0")
        (tmp_path / "proc" / "meminfo").write_text("MemTotal:         426032 kB\nMemFree: 1 kB\n")
        (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\n" * 4)
        return tmp_path

    def installer(self, machine: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it, dry."""
        return subprocess.run(
            [INSTALLER, "--dry-run", *options],
            env={"PATH": os.environ["PATH"], "DESTDIR": str(machine)},
            capture_output=True,
            text=True,
            check=False,
        )

    def dry_run(self, machine: Path, *options: str) -> str:
        """What it prints; nothing of the machine changes."""
        before = sorted(machine.rglob("*"))
        done = self.installer(machine, *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(machine.rglob("*")) == before
        assert done.stdout.endswith("nothing was changed\n")
        return done.stdout

    def test_new(self, machine: Path) -> None:
        """A small board gets the small model and one compiler at a time; the service starts at the end."""
        said = self.dry_run(machine, "--device", "USB Mic")
        assert "Raspberry Pi Zero 2 W Rev 1.0: 416 MB of memory, 4 cores" in said
        steps = [
            "apt-get install", "useradd --system", "--groups audio", "EDGEVOICE_JOBS=1",
            "models pull --quiet tiny.en-q8_0", "write /usr/local/bin/edgevoice",
            'name: "tiny.en-q8_0"',
            'device: "USB Mic"', "config check", "edgevoice.service /etc/systemd/system/edgevoice.service",
            "edgevoice doctor", "samples/turn-on-desk-lamp.flac", "systemctl restart edgevoice",
        ]  # fmt: skip
        assert [step for step in steps if step not in said] == []
        assert "edgevoice listen" not in said  # nobody is there to speak
        assert "threads" not in said  # they are edgevoice's own choice

    def test_recording(self, machine: Path, edgevoice: Edgevoice) -> None:
        """What it plays at the end is understood with the command it prints, in the words it looks for."""
        said = self.dry_run(machine, "--model", "tiny.en")
        (line,) = (line for line in said.splitlines() if "turn-on-desk-lamp.flac" in line)
        done = edgevoice(*line.split()[1:])
        wanted = re.search(r'== \*"(.*)"\*', INSTALLER.read_text("utf-8"))
        assert wanted
        assert done.returncode == 0
        assert wanted[1] in done.stdout.decode()

    @pytest.mark.parametrize(
        ("features", "options", "model"),
        [
            ("fp asimd evtstrm crc32 cpuid", [], "tiny.en"),
            ("fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimddp", [], "tiny.en-q8_0"),
            ("fp asimd asimddp", ["--model", "tiny.en"], "tiny.en"),
        ],
        ids=["4", "5", "asked"],
    )
    def test_model(self, machine: Path, features: str, options: list[str], model: str) -> None:
        """With dot products and room enough it has 8 bits, too, unless another model is asked for."""
        (machine / "proc" / "meminfo").write_text("MemTotal:        3884356 kB\n")
        (machine / "proc" / "cpuinfo").write_text(f"processor\t: 0\nFeatures\t: {features}\n" * 4)
        assert f'name: "{model}"' in self.dry_run(machine, *options)

    def test_again(self, machine: Path) -> None:
        """A configuration stays; a larger board gets the whole model."""
        (machine / "etc" / "edgevoice").mkdir(parents=True)
        (machine / "etc" / "edgevoice" / "edgevoice.yaml").write_text("site: attic\n")
        (machine / "proc" / "meminfo").write_text("MemTotal:        3884356 kB\n")
        said = self.dry_run(machine)
        assert "/etc/edgevoice/edgevoice.yaml stays as it is" in said
        assert "sed" not in said
        assert "models pull --quiet tiny.en\n" in said

    @pytest.mark.skipif(not shutil.which("dpkg-query"), reason="no Debian")
    @pytest.mark.parametrize("state", ["install ok installed", "deinstall ok config-files"])
    @pytest.mark.parametrize("options", [[], ["--uninstall"]], ids=" ".join)
    def test_beside_the_package(self, machine: Path, state: str, options: list[str]) -> None:
        """Where the Debian package is, or what is left of it, it does nothing and names the way out."""
        status = machine / "var" / "lib" / "dpkg" / "status"
        status.parent.mkdir(parents=True)
        status.write_text(
            f"Package: edgevoice\nStatus: {state}\nVersion: 0.1.0\nArchitecture: amd64\n"
            "Maintainer: x\nDescription: x\n"
        )
        done = self.installer(machine, *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert "sudo apt purge edgevoice" in done.stderr

    def test_remove(self, machine: Path) -> None:
        """Configuration and models go only when that is asked for."""
        said = self.dry_run(machine, "--uninstall")
        assert "rm -rf /etc/systemd/system/edgevoice.service /usr/local/bin/edgevoice /opt/edgevoice" in said
        assert "rm -rf /etc/edgevoice" not in said
        assert "kept: /etc/edgevoice, /var/lib/edgevoice" in said
        purged = self.dry_run(machine, "--uninstall", "--purge")
        assert "rm -rf /etc/edgevoice /var/lib/edgevoice" in purged
        assert "userdel edgevoice" in purged

    @pytest.mark.parametrize(
        "options", [["--devise", "x"], ["--device"], ["--device", 'a"b'], ["--purge"]], ids=" ".join
    )
    def test_wrong_usage(self, options: list[str]) -> None:
        """It ends with 2 and one line before anything is done."""
        done = subprocess.run([INSTALLER, "--dry-run", *options], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("install.sh: ")
        assert done.stderr.count("\n") == 1

    def test_shellcheck(self) -> None:
        """Nothing to complain about."""
        program = Path(sys.executable).with_name("shellcheck")
        done = subprocess.run([program, INSTALLER], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


class TestDebianPackage:
    """What deploy/debian says; scripts/deb.py tries what is built of it."""

    def test_python_packages(self) -> None:
        """What pyproject.toml and those inside want is inside or Debian's, in a version that they allow."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extras = project["optional-dependencies"]
        ours = map(Requirement, project["dependencies"] + extras["web"] + extras["home-assistant"])
        wanted = {each.name: each.specifier for each in ours}
        control = (DEBIAN / "control").read_text("utf-8")
        found = dict(re.findall(r"python3-(\S+) \(>= (?:1:)?([\d.]+)\)", control))
        found = {DEBIAN_NAMES.get(name, name): version for name, version in found.items()}
        inside = dict(
            re.findall(r"^(\S+)==(\S+)", (DEBIAN / "requirements.txt").read_text("utf-8"), re.MULTILINE)
        )
        assert inside.keys().isdisjoint(found)
        for name in inside:
            for each in map(Requirement, importlib.metadata.requires(name) or ()):
                if each.marker is None or each.marker.evaluate({"extra": "", "python_version": "3.11"}):
                    wanted.setdefault(
                        DEBIAN_NAMES.get(each.name, each.name).replace("_", "-"), each.specifier
                    )
        assert (inside | found).keys() == wanted.keys()
        assert [name for name, version in (inside | found).items() if version not in wanted[name]] == []

    def test_version(self) -> None:
        """The newest entry of the changelog is this version."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        assert (DEBIAN / "changelog").read_text("utf-8").startswith(f"edgevoice ({project['version']})")

    def test_shellcheck(self) -> None:
        """Nothing to complain about in what runs as root."""
        scripts = [
            DEBIAN / f"edgevoice.{name}" for name in ("preinst", "postinst", "prerm", "postrm", "rtupdate")
        ]
        program = Path(sys.executable).with_name("shellcheck")
        done = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_package_is_whole() -> None:
    """What lies beside the Python files is installed with them, and so found outside of a checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["edgevoice"]
    data = [path for path in (ROOT / "edgevoice").iterdir() if path.suffix not in (".py", ".so", "")]
    assert data != []
    assert [path.name for path in data if not any(map(path.match, patterns))] == []
