"""Whoever sends sound to a socket is heard, one after the other, and no sender can do harm."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest
import soundfile

from edgevoice.errors import AudioError, AudioFormatError, UsageError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ
from edgevoice.network import SocketMicrophone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.events import Frame, Samples
    from edgevoice.publish import State
    from tests.conftest import Edgevoice, Sample

LONG_S = 10.0  # for a busy machine
STALL_S = 0.5
BLOCK = b"\1\1" * FRAME_SAMPLES


class Ear:
    """Takes the frames of a socket in a thread of its own."""

    def __init__(self, address: str = "tcp:0") -> None:
        self.states: list[State] = []
        self.frames: list[Frame] = []
        self.microphone = SocketMicrophone(address, on_state=self.states.append, stall_s=STALL_S)
        self._thread = threading.Thread(target=self._take, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        started_s = time.monotonic()
        self.microphone.close()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()
        assert time.monotonic() - started_s < 0.5

    def _take(self) -> None:
        for frame in self.microphone:
            self.frames.append(frame)

    @property
    def positions(self) -> list[int]:
        """Of all frames so far."""
        return [frame.start_samples for frame in self.frames]

    def connect(self) -> socket.socket:
        """A sender."""
        scheme, _, place = self.microphone.address.partition(":")
        if scheme == "unix":
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(place)
            return caller
        host, _, port = place.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=LONG_S)

    def await_frames(self, count: int) -> None:
        """Wait until so many were taken in all."""
        deadline_s = time.monotonic() + LONG_S
        while len(self.frames) < count:
            assert time.monotonic() < deadline_s, len(self.frames)
            time.sleep(0.005)

    def await_lost(self, times: int) -> None:
        """Wait until it was told so often that nobody sends."""
        deadline_s = time.monotonic() + LONG_S
        while self.states.count("lost") < times:
            assert time.monotonic() < deadline_s, self.states
            time.sleep(0.005)


@pytest.fixture
def ear() -> Iterator[Ear]:
    with Ear() as opened:
        opened.await_lost(1)  # nobody is there at the start
        yield opened


def went(caller: socket.socket) -> bool:
    """Whether the other side ends the connection."""
    try:
        return caller.recv(1) == b""
    except ConnectionError:
        return True


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_samples(ear: Ear) -> None:
    """What is sent arrives, also when it comes in odd pieces; half a sample at the end is left out."""
    sent = np.arange(3 * FRAME_SAMPLES, dtype="<i2")
    data = sent.tobytes() + b"\1"
    with ear.connect() as caller:
        for first in range(0, len(data), 333):
            caller.sendall(data[first : first + 333])
            time.sleep(0.001)
    ear.await_frames(3)
    assert [float(x) * 32_768 for frame in ear.frames for x in frame.samples] == sent.tolist()
    assert np.diff(ear.positions).tolist() == [FRAME_SAMPLES, FRAME_SAMPLES]


def test_one_after_the_other(ear: Ear) -> None:
    """When one goes, it is lost; the next one may come, and its positions are those of the clock."""
    started_s = time.monotonic()
    for number in range(3):
        with ear.connect() as caller:
            caller.sendall(2 * BLOCK)
            ear.await_frames(2 * number + 2)
        ear.await_lost(number + 2)
        time.sleep(0.1)
    assert ear.microphone.counters.losses == 4
    for first, second in zip(ear.positions[::2], ear.positions[1::2], strict=True):
        assert second == first + FRAME_SAMPLES
    gaps = np.diff(ear.positions[1::2]) / SAMPLE_RATE_HZ
    assert gaps.min() > 0.1
    assert gaps.sum() < time.monotonic() - started_s


def test_second_sender(ear: Ear) -> None:
    """It is turned away at once, and the first one is heard on."""
    with ear.connect() as first, ear.connect() as second:
        for number in range(1, 10):
            first.sendall(BLOCK)
            ear.await_frames(number)
        assert went(second)
        first.sendall(BLOCK)
        ear.await_frames(10)
    assert len(set(np.diff(ear.positions))) == 1


@pytest.mark.parametrize("piece", [b"", b"\1", BLOCK[:100]], ids=len)
def test_too_slow(ear: Ear, piece: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Who says nothing, or nearly nothing, counts as lost, and the next one has a turn."""
    with ear.connect() as caller:
        started_s = time.monotonic()
        caller.settimeout(0.1)
        ended = False
        while not ended:
            assert time.monotonic() - started_s < LONG_S
            try:
                caller.sendall(piece)
                ended = went(caller)
            except TimeoutError:
                pass
            except ConnectionError:
                ended = True
    assert time.monotonic() - started_s > 0.9 * STALL_S
    with ear.connect() as caller:
        caller.sendall(BLOCK)
        ear.await_frames(1)
    assert "less than a block of sound came to tcp:127.0.0.1:" in caplog.text


def test_a_file_with_header(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    """A WAV file is told to be one, and not heard; what comes after it is."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(SAMPLE_RATE_HZ, np.int16), SAMPLE_RATE_HZ, format="WAV")
    with ear.connect() as caller:
        caller.sendall(file.getvalue())
        assert went(caller)
    assert "begins like a WAV file; send samples without header" in caplog.text
    with ear.connect() as caller:
        caller.sendall(BLOCK)
        ear.await_frames(1)
    assert len(ear.frames) == 1


def test_flood() -> None:
    """Who sends faster than anybody speaks is slowed down, and nothing of it piles up."""
    microphone = SocketMicrophone("tcp:0")
    taken = 0

    def take() -> None:
        nonlocal taken
        for _ in microphone:
            taken += 1

    listener = threading.Thread(target=take, daemon=True)
    listener.start()
    tracemalloc.start()
    started_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(microphone.address.rpartition(":")[2]))) as caller:
        caller.setblocking(False)
        sent = 0
        while time.monotonic() - started_s < 1.0:
            try:
                sent += caller.send(1000 * BLOCK)
            except BlockingIOError:
                time.sleep(0.01)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    microphone.close()
    listener.join(LONG_S)
    assert 300 < taken < 313 + 2 * 32  # what may be ahead, and the second
    assert sent < 20_000_000  # what the system holds for both; an hour would be 115 MB
    assert peak < 5_000_000  # most of it is what is sent


def test_thousands_of_connections(ear: Ear) -> None:
    """They leave no open file behind, hardly a line in the log, and the next sender is heard."""
    before = open_files()
    port = int(ear.microphone.address.rpartition(":")[2])
    for _ in range(2000):
        with socket.socket() as caller:
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
    deadline_s = time.monotonic() + LONG_S
    while not ear.frames and time.monotonic() < deadline_s:  # some are still waiting to be turned away
        with ear.connect() as caller:
            try:
                caller.sendall(BLOCK)
                time.sleep(0.1)
            except ConnectionError:
                continue
    assert ear.frames
    ear.await_lost(2)
    assert open_files() <= before + 1


def test_muted(ear: Ear) -> None:
    """What is said meanwhile is dropped, and a gap remains."""
    with ear.connect() as caller:
        caller.sendall(BLOCK)
        ear.await_frames(1)
        ear.microphone.muted = True
        caller.sendall(5 * BLOCK)
        deadline_s = time.monotonic() + LONG_S
        while "muted" not in ear.states and time.monotonic() < deadline_s:
            time.sleep(0.005)
        time.sleep(0.1)
        ear.microphone.muted = False
        caller.sendall(BLOCK)
        ear.await_frames(2)
    assert np.diff(ear.positions).tolist() == [6 * FRAME_SAMPLES]


@pytest.mark.parametrize("sending", [True, False])
def test_close(sending: bool) -> None:
    """It ends at once, whether somebody sends or not, and the port is free."""
    with Ear() as ear:
        address = ear.microphone.address
        if sending:
            caller = ear.connect()
            caller.sendall(BLOCK)
            ear.await_frames(1)
    if sending:
        assert went(caller)
        caller.close()
    SocketMicrophone(address).close()
    ear.microphone.close()


def test_unix(tmp_path: Path) -> None:
    """A path is for its user only, what a killed process left is taken over, and it is gone at the end."""
    path = tmp_path / "sound"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with Ear(f"unix:{path}") as ear:
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AudioError, match=f"unix:{path} cannot be listened on .Address already in use"):
            SocketMicrophone(f"unix:{path}")
        with ear.connect() as caller:
            caller.sendall(BLOCK)
            ear.await_frames(1)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(AudioError, match="Address already in use"):
        SocketMicrophone(f"unix:{path}")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("address", ["tcp:", "tcp:sound", "tcp:70000", "tcp:127.0.0.1", "tcp:1:-1"])
def test_no_address(address: str) -> None:
    """It says how one is written."""
    with pytest.raises(UsageError, match=f"{address}: no address .* write tcp:PORT, tcp:HOST:PORT"):
        SocketMicrophone(address)


def test_address() -> None:
    """Without a host, nobody else can reach it; IPv6 is written in brackets."""
    addresses = {"tcp:0": r"127\.0\.0\.1", "tcp:localhost:0": ".+"}
    if Path("/proc/net/if_inet6").exists():  # this machine has IPv6
        addresses["tcp:[::1]:0"] = r"\[::1\]"
    for address, seen in addresses.items():
        microphone = SocketMicrophone(address)
        assert re.fullmatch(rf"tcp:{seen}:[1-9][0-9]*", microphone.address)
        microphone.close()
    with pytest.raises(AudioError, match=r"tcp:nobody\.invalid:0 cannot be listened on"):
        SocketMicrophone("tcp:nobody.invalid:0")
    with pytest.raises(AudioFormatError, match="500 Hz"):
        SocketMicrophone("tcp:0", 500)


def test_port_in_use(edgevoice: Edgevoice) -> None:
    """One sentence, and exit code 4; what is no address is a wrong argument."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = edgevoice("run", "--input", f"tcp:{port}")
    assert done.returncode == 4
    assert f"edgevoice: tcp:{port} cannot be listened on (Address already in use)" in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert edgevoice("run", "--input", "tcp:70000").returncode == 2


def test_command(child_environment: dict[str, str], samples: tuple[Sample, ...]) -> None:
    """`edgevoice run --input tcp:0` understands what two senders say in real time, and ends in order."""
    said = [sample for sample in samples if sample.accepted][:2]
    with listening(child_environment) as (child, address):
        assert child.stdout is not None
        for sample in said:
            with socket.create_connection(address) as caller:
                speak(caller, sample)
                assert f"-> {sample.intent} " in child.stdout.readline().decode()


@contextmanager
def listening(
    environment: dict[str, str], *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    """Run `edgevoice run --input tcp:0`, yield it and where it listens, and see it end in order."""
    with subprocess.Popen(
        [sys.executable, "-m", "edgevoice", "run", "--input", "tcp:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as child:
        assert child.stderr is not None
        try:
            lines = iter(child.stderr.readline, b"")
            found = next(
                filter(None, (re.search(rb"nobody sends sound to tcp:(.*):(\d+)", x) for x in lines))
            )
            yield child, (found[1].decode(), int(found[2]))
            child.send_signal(signal.SIGTERM)
            assert child.wait(LONG_S) == 0
            assert b"Traceback" not in child.stderr.read()
        finally:
            child.kill()


def speak(caller: socket.socket, sample: Sample, noise: Samples | None = None) -> None:
    """Say it at its own pace, and then nothing for a while; with noise, of that length, over all of it."""
    audio = np.concatenate([sample.read(), np.zeros(SAMPLE_RATE_HZ, np.float32)])
    if noise is not None:
        audio += noise
    started_s = time.monotonic()
    for first in range(0, len(audio), FRAME_SAMPLES):
        time.sleep(max(0.0, started_s + first / SAMPLE_RATE_HZ - time.monotonic()))
        caller.sendall((audio[first : first + FRAME_SAMPLES] * 32_767).astype("<i2").tobytes())
