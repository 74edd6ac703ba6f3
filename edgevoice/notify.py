"""What systemd is told about the service, and how it wants to be told (sd_notify(3), sd-daemon(3)).

    READY=1, STATUS=..., RELOADING=1, STOPPING=1, WATCHDOG=1 ──> one datagram each ──> $NOTIFY_SOCKET

Without that variable nothing happens. What cannot be sent is left out: the service is more important than
what is said about it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

_log = logging.getLogger(__name__)

_MAX_STATUS: Final = 500
"""Characters; `systemctl status` shows one line."""


class Notifier:
    """The way to systemd; may be used from any thread, and in a signal's handler.

    Args:
        environment: in which systemd says where it listens, and how often it wants to hear WATCHDOG=1.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # of the abstract namespace, see unix(7)
            self._address = "\0" + self._address[1:]
        elif self._address and not self._address.startswith("/"):
            _log.warning(
                "NOTIFY_SOCKET is no path and not abstract: %.100r; systemd is not told", self._address
            )
            self._address = ""
        self.watchdog_s: Final = _watchdog_s(environment) if self._address else None
        """Silence after which systemd takes us for dead; None: it does not care."""
        self._told = False  # that it cannot be told

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self._address != ""

    def ready(self, status: str) -> bool:
        """Say that what there is to start has been started, also that a reload is done."""
        return self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> bool:
        """Say what goes on, for people."""
        return self._send(f"STATUS={_line(status)}")

    def reloading(self) -> bool:
        """Say that configuration is being read again; ready() ends it."""
        # The time lets systemd tell this reload's READY=1 from one that was on its way.
        return self._send(
            f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self) -> bool:
        """Say that we are about to end."""
        return self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> bool:
        """Say that all goes on."""
        return self._send("WATCHDOG=1")

    def _send(self, message: str) -> bool:
        """Send a message; False if that cannot be done now, and then never waits for it."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
                there.setblocking(False)  # systemd may be busy, and its queue full
                there.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            level = logging.DEBUG if self._told else logging.WARNING
            self._told = True
            _log.log(level, "systemd cannot be told %s: %s", message.partition("\n")[0], error)
            return False
        self._told = False
        return True


class JournalFormatter(logging.Formatter):
    """Each line begins with its priority, which the journal takes off and keeps (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a message."""
        levels = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}  # syslog(3)
        prefix = f"<{levels.get(record.levelno, 3)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to a stream goes to the journal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is closed, or no file
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return after how long a silence we are taken for dead; None if that is no business of this process."""
    interval, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not interval.isdecimal() or int(interval) == 0:
        return None
    return int(interval) / 1e6 if process in ("", str(os.getpid())) else None


def _line(status: str) -> str:
    """Return a text as one line, which ends where the message's does."""
    return " ".join(status.split())[:_MAX_STATUS]
