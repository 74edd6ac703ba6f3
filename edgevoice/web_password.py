"""The password of the page: never kept, but for what scrypt makes of it.

edgevoice web password ──> scrypt:16384:8:1:SALT:HASH in web.password_file ──> Verifier
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from typing import TYPE_CHECKING, Final

from edgevoice.config import read_regular_file
from edgevoice.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MIN_CHARACTERS: Final = 8
"""The server takes one guess a second at the most, which is 32 million a year."""

MAX_BYTES: Final = 256

_N, _R, _P = 16_384, 8, 1  # 16 MB and some 50 ms of x86-64, as RFC 7914 has it for logins
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 1_000
_MAX_MEMORY_BYTES: Final = 64_000_000  # also of a file that others made: a board has 512 MB


def write(path: Path, password: str) -> None:
    """Write what is made of a password to a file of its own.

    One that is there keeps its owner and its rights; a new one is for its owner only.

    Raises:
        UsageError: the password is too short, too long or more than a line.
        OSError: the file cannot be written.
    """
    if len(password) < MIN_CHARACTERS or len(password.encode()) > MAX_BYTES or not password.isprintable():
        raise UsageError(
            f"a password of {len(password)} characters seen; allowed is one line of {MIN_CHARACTERS} "
            f"characters to {MAX_BYTES} bytes; take another one"
        )
    salt = secrets.token_bytes(_SALT_BYTES)
    text = ":".join(
        ["scrypt", str(_N), str(_R), str(_P), _text(salt), _text(_hash(password, salt, _N, _R, _P))]
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")


class Verifier:
    """Compares passwords with what a file says; in time that tells nothing.

    Args:
        path: of the file.

    Raises:
        ConfigError: the file cannot be read, or is none of ours.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = read_regular_file(path, _MAX_FILE_BYTES)
        except OSError as error:
            raise ConfigError(
                f"web.password_file: {path} cannot be read: {error.strerror}; write it with `edgevoice web "
                "password`, readable for the user of the service"
            ) from None
        base64_text = rb"([A-Za-z0-9+/]{1,200}={0,2})"
        found = re.fullmatch(
            rb"scrypt:(\d{1,7}):(\d{1,2}):(\d{1,2}):%b:%b\s*" % (base64_text, base64_text), content
        )
        try:
            if found is None:
                raise ValueError  # noqa: TRY301 - as what b64decode and scrypt raise
            self._n, self._r, self._p = (int(number) for number in found.groups()[:3])
            self._salt, self._hash = (base64.b64decode(text, validate=True) for text in found.groups()[3:])
            self.verify("")  # that these numbers can be used
        except ValueError:
            raise ConfigError(
                f"web.password_file: {path} holds no hash of a password; "
                "write it with `edgevoice web password`"
            ) from None

    def verify(self, password: str) -> bool:
        """Return whether this is the password; takes 50 ms and 16 MB."""
        if len(password.encode("utf-8", "replace")) > MAX_BYTES:
            return False
        return hmac.compare_digest(_hash(password, self._salt, self._n, self._r, self._p), self._hash)


def _hash(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"),
        salt=salt, n=n, r=r, p=p, dklen=_HASH_BYTES, maxmem=_MAX_MEMORY_BYTES,
    )  # fmt: skip


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
