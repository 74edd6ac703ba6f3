"""What systemd is told: the datagrams themselves, and those of a running service, on a real socket."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from edgevoice.capture import CaptureCounters
from edgevoice.errors import AudioError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame
from edgevoice.microphone import Microphone
from edgevoice.notify import JournalFormatter, Notifier, is_journal
from edgevoice.testing import Broker
from edgevoice.watchdog import AUDIO_S, Progress, Watchdog
from tests.conftest import running, wait_until
from tests.test_publish import server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples
    from tests.conftest import Sample

WATCHDOG_S = 0.4
LONG_S = 20.0  # for a busy machine


class Systemd:
    """Listens as systemd does, and keeps what it hears."""

    def __init__(self, address: str) -> None:
        self.messages: list[str] = []
        self.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(0.05)
        self._closed = False
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()

    def wait_for(self, pattern: str, since: int = 0) -> str:
        """Wait for a message, and return it."""
        found: list[str] = []

        def came() -> bool:
            found[:] = [text for text in self.messages[since:] if re.search(pattern, text)]
            return bool(found)

        try:
            wait_until(came, LONG_S)
        except AssertionError:
            pytest.fail(f"{pattern!r} did not come; came: {self.messages}")
        return found[0]

    def _listen(self) -> None:
        while not self._closed:
            try:
                self.messages.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(str(tmp_path / "notify")) as listening:
        yield listening


class TestNotifier:
    """One datagram for each thing that is said."""

    def test_nobody_listens(self) -> None:
        """Without the variable nothing is sent, and nothing fails."""
        notifier = Notifier({"WATCHDOG_USEC": "1000000"})
        assert not notifier.enabled
        assert notifier.watchdog_s is None
        assert not any([notifier.ready("x"), notifier.status("x"), notifier.alive(), notifier.stopping()])

    @pytest.mark.parametrize("abstract", [False, True])
    def test_messages(self, tmp_path: Path, abstract: bool) -> None:
        """A path or an abstract name; each text is as sd_notify(3) has it."""
        address = f"@edgevoice-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        with Systemd(address) as systemd:
            notifier = Notifier(systemd.environment)
            before_us = time.monotonic_ns() // 1000
            sent = [
                notifier.status("loading\nREADY=1"),
                notifier.ready("listening"),
                notifier.reloading(),
                notifier.alive(),
                notifier.stopping(),
            ]
            assert all(sent)
            wait_until(lambda: len(systemd.messages) == len(sent))
        status, ready, reloading, alive, stopping = systemd.messages
        assert status == "STATUS=loading READY=1"  # one line: it says nothing else
        assert ready == "READY=1\nSTATUS=listening"
        assert alive == "WATCHDOG=1"
        assert stopping.startswith("STOPPING=1\n")
        since_us = int(reloading.removeprefix("RELOADING=1\nMONOTONIC_USEC="))
        assert before_us <= since_us <= time.monotonic_ns() // 1000

    def test_dead_socket(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It is gone, or nobody reads it: told once in the log, never waited for."""
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
        assert not notifier.ready("x")
        assert not notifier.alive()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
            deaf.bind(str(tmp_path / "gone"))
            started_s = time.monotonic()
            assert not all(notifier.alive() for _ in range(2000))  # net.unix.max_dgram_qlen is 10 to 512
            assert time.monotonic() - started_s < 2

    def test_no_socket(self, caplog: pytest.LogCaptureFixture) -> None:
        """An address of another kind is refused."""
        assert not Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).enabled
        assert "vsock" in caplog.text

    @pytest.mark.parametrize(
        ("interval", "process", "seconds"),
        [
            ("30000000", "", 30.0),
            pytest.param("30000000", str(os.getpid()), 30.0, id="our-own"),
            ("30000000", "1", None),  # meant for another process
            ("", "", None),
            ("0", "", None),
            ("soon", "", None),
        ],
    )
    def test_watchdog(self, interval: str, process: str, seconds: float | None) -> None:
        """The interval counts for the process it is meant for."""
        environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": interval, "WATCHDOG_PID": process}
        assert Notifier(environment).watchdog_s == seconds


class FakeWork:
    """Busy since a time."""

    busy_since_s: float | None = None


class FakeSource:
    """A microphone's stream of three frames, that then is lost."""

    live = True
    counters = CaptureCounters()

    def __iter__(self) -> Iterator[Frame]:
        for count in range(3):
            yield Frame(np.zeros(FRAME_SAMPLES, np.float32), count * FRAME_SAMPLES)
        raise AudioError("unplugged")

    def discard(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is held."""


class TestProgress:
    """What must go on, and what may wait."""

    now_s = 100.0

    def progress(self, *works: FakeWork) -> Progress:
        """Of some who may be busy for 15 s."""
        return Progress([("a recognition", work, 15.0) for work in works], lambda: self.now_s)

    def test_nothing_to_do(self) -> None:
        """Without a microphone nothing has to come, for days."""
        progress = self.progress(FakeWork())
        for _ in range(3):
            assert progress.stuck() is None
            self.now_s += 86_400

    def test_recognition(self) -> None:
        """A recognition may take its time, but not more; whose, does not matter."""
        other, work = FakeWork(), FakeWork()
        progress = self.progress(other, work)
        work.busy_since_s = self.now_s
        self.now_s += 14
        assert progress.stuck() is None
        self.now_s += 2
        assert progress.stuck() == "a recognition takes 16 s, and may take 15"
        work.busy_since_s = None
        assert progress.stuck() is None

    def test_sound(self) -> None:
        """Each frame is a sign of life; when nobody takes them any more, it is stuck."""
        microphone = Microphone(FakeSource)
        progress = self.progress()
        progress.microphone = microphone
        stream = iter(microphone)
        for _ in range(3):
            assert progress.stuck() is None
            self.now_s += AUDIO_S - 1
            next(stream)
        assert progress.stuck() is None
        self.now_s += AUDIO_S + 1
        assert progress.stuck() == "no sound was read for 16 s"
        next(stream, None)
        microphone.close()

    def test_muted(self) -> None:
        """Frames that are dropped are signs of life, too, and so is the opening."""
        microphone = Microphone(FakeSource, wait=lambda _: microphone.close())
        microphone.muted = True
        assert list(microphone) == []
        assert microphone.beats == 4

    def test_lost(self) -> None:
        """A microphone that is not there goes on trying, and says why."""
        tried = 0

        def wait(_: float) -> None:
            nonlocal tried
            tried += 1
            self.now_s += AUDIO_S - 1
            assert progress.stuck() is None
            assert microphone.failure == "no such device"
            if tried == 3:
                microphone.close()

        def absent() -> FakeSource:
            raise AudioError("no such device")

        microphone = Microphone(absent, wait=wait)
        progress = self.progress()
        progress.microphone = microphone
        assert list(microphone) == []
        assert tried == 3


class TestJournal:
    """The journal gets lines with priorities, one an utterance."""

    def test_priorities(self) -> None:
        """Each line has the one of its message."""
        formatter = JournalFormatter("%(name)s: %(message)s")

        def line(level: int, text: str) -> str:
            return formatter.format(logging.LogRecord("a", level, "", 0, text, (), None))

        assert line(logging.INFO, "b") == "<6>a: b"
        assert line(logging.WARNING, "b\nc") == "<4>a: b\n<4>c"
        assert line(logging.CRITICAL, "b") == "<3>a: b"

    def test_recognised(self, tmp_path: Path) -> None:
        """By the device and inode that systemd names (systemd.exec(5))."""
        with (tmp_path / "log").open("w") as stream:
            status = os.fstat(stream.fileno())
            assert is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
            assert not is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
            assert not is_journal(stream, {})
        assert not is_journal(stream, {})


def test_reloads(systemd: Systemd) -> None:
    """Asked for twice, it is ready again with the end of the second; also when it was not ready before."""
    with Watchdog(Notifier(systemd.environment), Progress([]), None) as watchdog:
        watchdog.reloads()
        watchdog.reloaded()
        watchdog.tell("listening")
        systemd.wait_for("^READY=1")
        since = len(systemd.messages)
        watchdog.reloads()
        watchdog.reloads()
        watchdog.reloaded()
        time.sleep(0.1)
        told = [text for text in systemd.messages[since:] if not text.startswith(("STATUS=", "WATCHDOG="))]
        assert [text.partition("\n")[0] for text in told] == ["RELOADING=1", "RELOADING=1"]
        watchdog.reloaded()
        systemd.wait_for("^READY=1", since)


# ---- the service ----


def pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def test_recording(child_environment: dict[str, str], systemd: Systemd, samples: tuple[Sample, ...]) -> None:
    """Ready when all is loaded, stopping when it ends, in this order."""
    with running({**child_environment, **systemd.environment}, "run", "--input", samples[0].path) as child:
        systemd.wait_for("^STOPPING=1")
        assert child.wait(20) == 0
    told = [text for text in systemd.messages if not text.startswith(("STATUS=", "WATCHDOG="))]
    assert [text.partition("\n")[0] for text in told] == ["READY=1", "STOPPING=1"]
    assert systemd.messages[-1].startswith("STOPPING=1")


def test_life(child_environment: dict[str, str], systemd: Systemd, tmp_path: Path, speech: Samples) -> None:
    """From the start without sound and broker, over both of them, a command and a reload, to a clean end."""
    broker = Broker()
    config = tmp_path / "edgevoice.yaml"
    config.write_text(f"mqtt: {{host: 127.0.0.1, port: {broker.port}, connect_timeout_s: 3}}\n")
    environment = {**child_environment, **systemd.environment}
    sound = tmp_path / "sound"
    with running(environment, "run", "--config", config, "--input", f"unix:{sound}") as child:
        ready = systemd.wait_for("READY=1")
        assert f"no microphone: nobody sends sound to unix:{sound}" in ready
        assert f"no broker: no connection to the MQTT broker at 127.0.0.1:{broker.port}" in ready
        since = len(systemd.messages)
        time.sleep(2 * WATCHDOG_S)
        assert systemd.messages[since:].count("WATCHDOG=1") >= 2  # without sound, too: it goes on trying
        with broker, socket.socket(socket.AF_UNIX) as sender:
            sender.connect(str(sound))
            sender.sendall(pcm(np.concatenate([speech, np.zeros(SAMPLE_RATE_HZ, np.float32)])))
            systemd.wait_for("^STATUS=speech; no broker|^STATUS=speech$", since)
            systemd.wait_for("^STATUS=[a-z]+$", since)  # the broker has been found, too
            assert child.stdout is not None
            assert b"-> HassTurnOn name=desk lamp" in child.stdout.readline()
            child.send_signal(signal.SIGHUP)
            systemd.wait_for("^RELOADING=1\nMONOTONIC_USEC=[0-9]+$", since)
            reloading = len(systemd.messages) - 1
            systemd.wait_for("^READY=1\nSTATUS=", reloading)
            child.terminate()
            systemd.wait_for("^STOPPING=1")
            assert child.wait(20) == 0
        assert child.stdout.read() == b""  # one line an utterance


@pytest.mark.parametrize(
    ("answer", "timeout_s", "patience_s", "why"),
    [
        (b"\x20\x03\0\0\0", 5, 20.0, "lost the MQTT broker at .*: the connection broke"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 0.5, 20.0, "does not take us: no answer within 0.5 s; is it"),
        (None, 120, 0.5, "no answer yet"),
    ],
    ids=["hangs up at the first message", "a web server", "says nothing"],
)
def test_no_broker(  # noqa: PLR0917 - fixtures
    child_environment: dict[str, str],
    systemd: Systemd,
    tmp_path: Path,
    answer: bytes | None,
    timeout_s: float,
    patience_s: float,
    why: str,
) -> None:
    """Whatever answers there in place of a broker: it is ready within seconds, and says what is wrong."""
    config = tmp_path / "edgevoice.yaml"
    program = (
        "import sys\nfrom edgevoice import cli, watchdog\n"
        f"watchdog.BROKER_S = {patience_s}\nsys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ("run", "--config", config, "--input", f"unix:{tmp_path / 'sound'}")
    with socket.create_server(("127.0.0.1", 0)) as mute, server(answer or b"") as answering:
        port = answering if answer else mute.getsockname()[1]
        config.write_text(f"mqtt: {{host: 127.0.0.1, port: {port}, connect_timeout_s: {timeout_s}}}\n")
        with running(
            {**child_environment, **systemd.environment}, *arguments, start=("-c", program)
        ) as child:
            ready = systemd.wait_for("^READY=1")
            assert re.search(f"; no broker: .*{why}", ready), ready
            since = len(systemd.messages)
            systemd.wait_for("^WATCHDOG=1", since)
            child.terminate()
            assert child.wait(20) == 0
            assert child.stderr is not None
            assert answer is None or re.search(why, child.stderr.read().decode())


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("native.Session.recognise", "a recognition or its result takes"),
        ("vad.Vad.score", "no sound was read"),
    ],
)
def test_hang(  # noqa: PLR0917 - fixtures
    child_environment: dict[str, str],
    systemd: Systemd,
    tmp_path: Path,
    speech: Samples,
    what: str,
    why: str,
) -> None:
    """When the engine or the detector hangs, the watchdog gets nothing more, and status and log say why.

    What ends it is systemd's signal; the log then says where each thread was.
    """
    config = tmp_path / "edgevoice.yaml"
    config.write_text("recognition: {timeout_s: 0.2}\n")
    program = (
        "import sys, threading\nfrom edgevoice import cli, native, vad, watchdog\n"
        "watchdog.GRACE_S = 0.2\nwatchdog.AUDIO_S = 1.6\n"  # 1.5: the longest wait for a sender
        f"{what} = lambda *_, **__: threading.Event().wait()\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    environment = {**child_environment, **systemd.environment}
    sound = tmp_path / "sound"
    arguments = ("run", "--config", config, "--input", f"unix:{sound}")
    with (
        running(environment, *arguments, start=("-c", program)) as child,
        socket.socket(socket.AF_UNIX) as sender,
    ):
        systemd.wait_for("^WATCHDOG=1")
        sender.connect(str(sound))
        sender.sendall(pcm(np.concatenate([speech, np.zeros(SAMPLE_RATE_HZ, np.float32)])))
        systemd.wait_for(f"^STATUS=stuck: .*{why}")
        since = len(systemd.messages)
        time.sleep(2 * WATCHDOG_S)
        assert "WATCHDOG=1" not in systemd.messages[since:]
        child.send_signal(signal.SIGABRT)
        _, log = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGABRT
    assert f"ERROR edgevoice.watchdog: {why}".encode() in log
    assert b"Fatal Python error: Aborted" in log
    assert b"in wait" in log
