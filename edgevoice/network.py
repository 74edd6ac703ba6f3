"""Sound over a socket: whoever connects is the microphone, one sender after another.

    nobody ── connects ──> Sender: its frames ── it goes, or says too little ──> nobody, ...

A sender has the address for itself. Others are turned away at once: what waits for its turn would be heard
too late. Who sends faster than anybody speaks is slowed down by not being read. So nothing is stored here but
the block of 32 ms that is being read, whatever is sent.
"""

from __future__ import annotations

import logging
import re
import select
import socket
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from edgevoice.audio import Converter
from edgevoice.capture import STALL_S, CaptureCounters, RawSource
from edgevoice.errors import AudioError, UsageError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.microphone import Microphone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.events import Frame
    from edgevoice.publish import State

_log = logging.getLogger(__name__)

SCHEMES: Final = ("tcp:", "unix:")
"""What an address begins with."""

_LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 8  # who may wait to be let in or turned away, which takes 0.25 s at most
_PAUSE_S: Final = 0.25  # between two senders, so that thousands of them cost neither processor nor log
_POLL_S: Final = 0.25  # how soon others are turned away while a sender is silent
_AHEAD_S: Final = 10.0  # a network that hung delivers at once what it held back
_PACE: Final = 1.01  # of real time, for who is so far ahead; no clock is that fast, so nobody else is held up


class SocketMicrophone(Microphone):
    """Frames of whoever sends raw samples (signed 16-bit little-endian mono) to an address, until close().

    Args:
        address: "tcp:PORT" for this machine, "tcp:HOST:PORT" for a network, "unix:PATH" for this user. Port 0
            is a free one.
        rate_hz: sampling rate of what is sent.
        on_state: as for a microphone; "lost" while nobody sends.
        stall_s: how long a sender may take for a block of 32 ms.

    Raises:
        UsageError: the address is none.
        AudioError: it cannot be listened on, or the rate is out of range.
    """

    def __init__(
        self,
        address: str,
        rate_hz: int = SAMPLE_RATE_HZ,
        on_state: Callable[[State], None] = lambda _: None,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        Converter(rate_hz, 1, source=address)  # says what is wrong with the rate before anybody comes
        self._door = _Door(address)
        self.address: Final = self._door.address
        """With the port in use."""
        super().__init__(
            lambda: _Sender(self._door, self._door.let_in(), rate_hz, stall_s), on_state, wait=self._door.wait
        )

    def close(self) -> None:
        """End the iteration and free the address; may be called from another thread."""
        super().close()
        self._door.close()


class _Door:
    """Where senders connect."""

    def __init__(self, address: str) -> None:
        self._path = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
        try:
            self._socket = listen(address)
        except OSError as error:
            raise AudioError(
                f"{address} cannot be listened on ({error.strerror or error}); end the program that uses it, "
                "or choose another one"
            ) from None
        self._socket.setblocking(False)
        self.address = address
        if self._path is None:
            host, port = self._socket.getsockname()[:2]
            self.address = f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
        self._closed = threading.Event()
        self._lock = threading.Lock()  # lest it is closed while somebody is let in

    def let_in(self) -> socket.socket:
        """Return the connection of who came first; AudioError if nobody has come."""
        guest = self._accept()
        if guest is None:
            raise AudioError(f"nobody sends sound to {self.address}")
        return guest

    def turn_away(self) -> None:
        """Close the connections of those who have come while another sends."""
        for _ in range(_BACKLOG):
            guest = self._accept()
            if guest is None:
                return
            _log.debug("%s is in use: another sender is turned away", self.address)
            guest.close()

    def wait(self, duration_s: float) -> None:
        """Wait so long, or until somebody comes."""
        if not self._closed.wait(min(_PAUSE_S, duration_s)):
            _await(self._socket, select.POLLIN, duration_s - _PAUSE_S)

    def close(self) -> None:
        """Free the address, and wake who waits."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            _close(self._socket)
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def _accept(self) -> socket.socket | None:
        with self._lock:
            if self._closed.is_set():
                return None
            try:
                guest, _ = self._socket.accept()
            except BlockingIOError:  # nobody is there
                return None
            except OSError as error:  # gone again, or this process has too many files open
                _log.debug("nobody is let in: %s", error)
                return None
        guest.setblocking(False)
        return guest


class _Sender:
    """Frames of one connection, from its first sample until it ends, which is an AudioError."""

    def __init__(self, door: _Door, guest: socket.socket, rate_hz: int, stall_s: float) -> None:
        self.live = True
        self.counters = CaptureCounters()  # what is sent arrives, or the connection ends
        self._door = door
        self._guest = guest
        self._rate_hz = rate_hz
        self._stall_s = stall_s
        self._ahead_s = 0.0  # how much more was read than anybody can have spoken
        self._read_s = time.monotonic()  # when was read last
        self._closed = threading.Event()
        self._lock = threading.Lock()  # lest it is closed while it is read

    def __iter__(self) -> Iterator[Frame]:
        yield from RawSource(cast("BinaryIO", self), self._rate_hz)
        if not self._closed.is_set():
            raise AudioError(f"nobody sends sound to {self._door.address}")

    def discard(self) -> None:
        """Nothing waits here to be forgotten: who is muted is read all the same."""

    def read(self, size: int) -> bytes:
        """Wait for so many bytes; fewer at the end of the connection, and none after it."""
        self._keep_pace(size / (2 * self._rate_hz))
        deadline_s = time.monotonic() + self._stall_s
        data = b""
        while len(data) < size and (piece := self._receive(size - len(data))) != b"":
            # Who has ended this connection may have begun the next one already, which then is not another's.
            if not _await(self._guest, select.POLLRDHUP, 0):
                self._door.turn_away()
            if piece is not None:
                data += piece
            elif (left_s := deadline_s - time.monotonic()) > 0:
                _await(self._guest, select.POLLIN, min(left_s, _POLL_S))
            else:
                raise AudioError(
                    f"less than a block of sound came to {self._door.address} in {self._stall_s:g} s; "
                    f"send samples without a break, {self._rate_hz} of 16 bits a second"
                )
        return data

    def close(self) -> None:
        """End the connection, and wake who waits."""
        with self._lock:
            self._closed.set()
            _close(self._guest)

    def _keep_pace(self, length_s: float) -> None:
        """Wait as long as it takes to speak what is too far ahead."""
        now_s = time.monotonic()
        self._ahead_s = max(0.0, self._ahead_s - (now_s - self._read_s) * _PACE) + length_s
        self._read_s = now_s
        if self._ahead_s > _AHEAD_S:
            self._closed.wait(self._ahead_s - _AHEAD_S)

    def _receive(self, size: int) -> bytes | None:
        """Return what is there; None if that is nothing yet, empty when the connection has ended."""
        with self._lock:
            if self._closed.is_set():
                return b""
            try:
                return self._guest.recv(size)
            except BlockingIOError:
                return None
            except ConnectionError:  # it went without taking leave
                return b""


def listen(address: str) -> socket.socket:
    """Listen on tcp:PORT (of this machine), tcp:HOST:PORT or unix:PATH (for this user).

    Raises:
        UsageError: the address is none.
        OSError: it cannot be listened on.
    """
    if address.startswith("unix:"):
        return _listen_unix(Path(address.removeprefix("unix:")))
    return _listen_tcp(address)


def _listen_tcp(address: str) -> socket.socket:
    found = re.fullmatch(r"tcp:(?:(.*):)?([0-9]{1,5})", address)
    if found is None or int(found[2]) > 65_535:
        raise UsageError(f"{address}: no address to listen on; write tcp:PORT, tcp:HOST:PORT or unix:PATH")
    host = (found[1] or _LOOPBACK).removeprefix("[").removesuffix("]")  # as IPv6 is written
    family, *_, place = socket.getaddrinfo(host, int(found[2]), type=socket.SOCK_STREAM)[0]
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # also soon after it was in use
        server.bind(place)
        server.listen(_BACKLOG)
    except OSError:
        server.close()
        raise
    return server


def _listen_unix(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink()  # what a killed process leaves behind
        server.bind(str(path))
        path.chmod(0o600)  # before it listens, so that nobody else gets in
        server.listen(_BACKLOG)
    except OSError:
        server.close()
        raise
    return server


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def _await(connection: socket.socket, events: int, duration_s: float) -> bool:
    """Wait for something to happen to a socket, at most so long, and return whether it has."""
    number = connection.fileno()
    if number < 0:  # another thread has closed it
        return True
    poll = select.poll()
    poll.register(number, events)
    return bool(poll.poll(max(0.0, duration_s) * 1000))


def _close(connection: socket.socket) -> None:
    """Close it so that who waits for it in another thread wakes."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        _log.debug("closing: %s", error)  # the other side has gone already
    connection.close()
