"""The password of the page is known by its hash only, and damaged files are told from right ones."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from edgevoice.errors import ConfigError, UsageError
from edgevoice.web_password import Verifier, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Edgevoice

PASSWORD = "correct horse ß"  # noqa: S105 - of a test


def test_right_and_wrong(tmp_path: Path) -> None:
    """Only the password is right; the file does not hold it, and two of it differ."""
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, PASSWORD)
    write(other, PASSWORD)
    verifier = Verifier(one)
    assert verifier.verify(PASSWORD)
    for wrong in ("", PASSWORD[:-1], PASSWORD + " ", "x" * 1000, "\ud800"):
        assert not verifier.verify(wrong)
    assert "horse" not in one.read_text()
    assert one.read_text() != other.read_text()
    assert stat.S_IMODE(one.stat().st_mode) == 0o600


def test_rights_of_a_file_stay(tmp_path: Path) -> None:
    """Who has prepared a file for the service's group keeps it so."""
    path = tmp_path / "password"
    path.touch()
    path.chmod(0o640)
    write(path, PASSWORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("password", ["", "short", "two\nlines of it", "x" * 257])
def test_what_is_no_password(tmp_path: Path, password: str) -> None:
    """Nothing is written."""
    with pytest.raises(UsageError, match="take another one"):
        write(tmp_path / "password", password)
    assert not (tmp_path / "password").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        PASSWORD,
        "scrypt:16384:8:1:AAAA",
        "scrypt:16383:8:1:AAAA:AAAA",  # no power of two
        "scrypt:4194304:8:1:AAAA:AAAA",  # 4 GB
        "scrypt:16384:8:1:AAA:AAAA",  # no base64
        "scrypt:0:0:0:AAAA:AAAA",
    ],
)
def test_what_is_no_hash(tmp_path: Path, content: str) -> None:
    """It is said at the start, not to who logs in."""
    path = tmp_path / "password"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"^web\.password_file: .* holds no hash"):
        Verifier(path)


def test_no_file(tmp_path: Path) -> None:
    """Nor does a service start without the password that it was told to ask for."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Verifier(tmp_path / "absent")


def test_command(edgevoice: Edgevoice, tmp_path: Path) -> None:
    """`edgevoice web password` reads a line, and writes where the configuration says."""
    path = tmp_path / "edgevoice.yaml"
    path.write_text("web: {listen: '0.0.0.0:8490', password_file: web-password}\n")
    done = edgevoice("web", "password", "--config", path, stdin=f"{PASSWORD}\n".encode())
    assert done.returncode == 0, done.stderr
    assert Verifier(tmp_path / "web-password").verify(PASSWORD)
    done = edgevoice("web", "password", stdin=f"{PASSWORD}\n".encode())
    assert done.returncode == 2
    assert b"web.password_file is not set" in done.stderr
