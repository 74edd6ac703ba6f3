"""Faults of the world around a running service: it goes on, or ends in order, and says which.

Sound that fails is in test_faults.py, a broker that fails in test_broker_faults.py, what systemd is told of a
part that hangs in test_notify.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.testing import Broker, Subscriber
from tests.conftest import ROOT, running, wait_until
from tests.test_end_to_end import one_sentence, pcm
from tests.test_notify import LONG_S, Systemd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgevoice.events import Samples

STOP_S = 10.0
"""Some 0.3 s on an idle machine; 5.5 were seen on one with ten times the work it can do."""

YEAR_S = 365 * 86_400
CC = shutil.which("cc") or ""

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long offset(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += offset();
    return status;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec seen;
    clock_gettime(CLOCK_REALTIME, &seen);
    now->tv_sec = seen.tv_sec;
    now->tv_usec = seen.tv_nsec / 1000;
    return 0;
}
"""
"""A time of day that is wrong by what a file says; every other clock is right."""


class Service:
    """`edgevoice run` with a socket for its sound, under a systemd of ours and with a broker."""

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        speech: Samples,
        *,
        broker: Broker | None = None,
        more: str = "",
        start: Sequence[str] = ("-m", "edgevoice"),
        notify: str | None = None,
    ) -> None:
        self._stack = ExitStack()
        self.systemd = Systemd(str(folder / "notify"))
        config = folder / "edgevoice.yaml"
        mqtt = f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\n" if broker else ""
        config.write_text(mqtt + more)
        self._sound = folder / "sound"
        self._speech = pcm(np.concatenate([speech, np.zeros(SAMPLE_RATE_HZ, np.float32)]))
        variables = {**environment, **self.systemd.environment}
        if notify is not None:
            variables["NOTIFY_SOCKET"] = notify
        self._run = running(
            variables, "run", "--config", config, "--input", f"unix:{self._sound}", start=start
        )

    def __enter__(self) -> Self:
        self._stack.enter_context(self.systemd)
        self.child = self._stack.enter_context(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait_until_ready(self) -> None:
        """Wait for READY=1."""
        self.systemd.wait_for("^READY=1")

    def say(self) -> socket.socket:
        """Say "turn on the desk lamp", and keep the connection."""
        sender = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        wait_until(self._sound.is_socket, LONG_S)
        wait_until(lambda: sender.connect_ex(str(self._sound)) == 0, LONG_S)
        sender.sendall(self._speech)
        return sender

    def hear(self) -> None:
        """Say it, and see it printed."""
        assert self.child.stdout is not None
        with self.say():
            assert b"-> HassTurnOn name=desk lamp" in self.child.stdout.readline()

    def end(self) -> str:
        """End it in order, soon, and return its log."""
        started_s = time.monotonic()
        self.child.terminate()
        try:
            assert self.child.wait(LONG_S) == 0
        except subprocess.TimeoutExpired:
            self.child.send_signal(signal.SIGABRT)  # the log then has where each thread is
            assert self.child.stderr is not None
            pytest.fail(self.child.stderr.read().decode())
        assert time.monotonic() - started_s < STOP_S
        assert self.child.stderr is not None
        log = self.child.stderr.read().decode()
        assert "Traceback" not in log
        return log


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as opened:
        yield opened


class TestOutput:
    """Nobody takes what is printed."""

    def test_closed(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples, broker: Broker
    ) -> None:
        """Commands go on to the broker; that they are not printed is said once."""
        with (
            Subscriber(broker.port, "edgevoice/default/intent/+") as subscriber,
            Service(child_environment, tmp_path, speech, broker=broker) as service,
        ):
            service.wait_until_ready()
            assert service.child.stdout is not None
            service.child.stdout.close()
            for count in (1, 2):
                with service.say():
                    subscriber.wait_for(count, LONG_S)
            log = service.end()
        assert log.count("results cannot be printed, and go only to others: [Errno 32] Broken pipe") == 1

    def test_full_disk(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples, broker: Broker
    ) -> None:
        """Likewise when what is printed goes to a file on a full disk."""
        program = (
            "import os, sys\nfrom edgevoice import cli\n"
            "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nsys.exit(cli.main(sys.argv[1:]))"
        )
        with (
            Subscriber(broker.port, "edgevoice/default/intent/+") as subscriber,
            Service(child_environment, tmp_path, speech, broker=broker, start=("-c", program)) as service,
        ):
            service.wait_until_ready()
            with service.say():
                subscriber.wait_for(1, LONG_S)
            assert "No space left on device" in service.end()

    def test_nobody_else_gets_it(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples
    ) -> None:
        """Without a broker it is of no use without a reader, and ends."""
        with Service(child_environment, tmp_path, speech) as service:
            service.wait_until_ready()
            assert service.child.stdout is not None
            service.child.stdout.close()
            with service.say():
                assert service.child.wait(LONG_S) == 0
            service.systemd.wait_for("^STOPPING=1")

    def test_blocked(self, child_environment: dict[str, str], tmp_path: Path, speech: Samples) -> None:
        """Who takes nothing out of the pipe stops it all: the watchdog sees that and is not fed."""
        program = (
            "import sys\nfrom edgevoice import cli, watchdog\nwatchdog.GRACE_S = 0.2\n"
            "sys.exit(cli.main(sys.argv[1:]))"
        )
        more = "recognition: {timeout_s: 2}\n"
        with Service(child_environment, tmp_path, speech, more=more, start=("-c", program)) as service:
            service.wait_until_ready()
            assert service.child.stdout is not None
            room = Path(f"/proc/{service.child.pid}/fd/1")
            pipe = os.open(room, os.O_WRONLY | os.O_NONBLOCK)
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(pipe, b"x")
            os.close(pipe)
            with service.say():
                service.systemd.wait_for("^STATUS=stuck: a recognition or its result takes")
            since = len(service.systemd.messages)
            time.sleep(1)
            assert "WATCHDOG=1" not in service.systemd.messages[since:]


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT])
def test_crash(
    child_environment: dict[str, str], tmp_path: Path, speech: Samples, how: signal.Signals
) -> None:
    """The engine crashes: the log has where each thread was, and the status is the signal's, for systemd."""
    program = (
        "import os, sys\nfrom edgevoice import cli, native\n"
        f"native.Session.recognise = lambda *_, **__: os.kill(os.getpid(), {int(how)})\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    with Service(child_environment, tmp_path, speech, start=("-c", program)) as service, service.say():
        assert service.child.wait(LONG_S) == -how
        assert service.child.stderr is not None
        log = service.child.stderr.read().decode()
    assert "Fatal Python error: " in log
    assert "in recognise" in log
    assert "in _listen" in log  # and the other threads


def test_stands_still(
    child_environment: dict[str, str], tmp_path: Path, speech: Samples, broker: Broker
) -> None:
    """A process that was stopped goes on: the watchdog is fed again, and the next command is understood."""
    with Service(child_environment, tmp_path, speech, broker=broker) as service:
        service.wait_until_ready()
        service.child.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        since = len(service.systemd.messages)
        time.sleep(1.5)
        assert service.systemd.messages[since:] == []
        service.child.send_signal(signal.SIGCONT)
        service.systemd.wait_for("^WATCHDOG=1", since)
        service.hear()
        service.end()


@pytest.mark.skipif(not CC, reason="no C compiler")
def test_clock_jumps(
    child_environment: dict[str, str], tmp_path: Path, speech: Samples, broker: Broker
) -> None:
    """The time of day jumps a year ahead and two back: only `time` follows, and nothing expires or hangs."""
    source, library, offset = (tmp_path / name for name in ("clock.c", "clock.so", "offset"))
    source.write_text(CLOCK)
    offset.write_text("0")
    subprocess.run([CC, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {**child_environment, "LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    with (
        Subscriber(broker.port, "edgevoice/default/intent/+") as subscriber,
        Service(environment, tmp_path, speech, broker=broker) as service,
    ):
        service.wait_until_ready()
        for count, jump_s in enumerate((0, YEAR_S, -YEAR_S), start=1):
            since = len(service.systemd.messages)
            offset.write_text(str(jump_s))
            service.hear()
            result = subscriber.wait_for(count, LONG_S)[-1]
            year = int(time.strftime("%Y", time.gmtime(time.time() + jump_s)))
            assert result.json()["time"].startswith(str(year))
            assert result.expiry_s is not None
            assert 0 < result.expiry_s <= 5
            assert 0 < result.json()["latency_ms"] < 10_000
            service.systemd.wait_for("^WATCHDOG=1", since)
            assert not [text for text in service.systemd.messages if "stuck" in text or "no broker" in text]
        assert "dropped" not in service.end()


class MemoryGroup:
    """A control group with a limit of memory, of version 2 or 1, as systemd makes one for MemoryMax=.

    Raises:
        OSError: none can be made here.
    """

    def __init__(self) -> None:
        v1 = Path("/sys/fs/cgroup/memory")
        self._limit, self._anonymous, parent = (
            ("memory.limit_in_bytes", "rss", v1) if v1.is_dir() else ("memory.max", "anon", v1.parent)
        )
        self._folder = parent / f"edgevoice-test-{os.getpid()}"
        self._folder.mkdir()
        if not (self._folder / self._limit).is_file():
            self.close()
            raise OSError(f"{self._folder} had no {self._limit}")
        # What would go to a swap is not killed.
        swap = "memory.swappiness" if v1.is_dir() else "memory.swap.max"
        with contextlib.suppress(FileNotFoundError):
            (self._folder / swap).write_text("0")

    @property
    def start(self) -> tuple[str, str]:
        """What starts the service in it."""
        return "-c", (
            f"import os, sys\nopen({str(self._folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            "from edgevoice import cli\nsys.exit(cli.main(sys.argv[1:]))"
        )

    def limit(self, size_bytes: int) -> None:
        """Set the limit, once there is room for it: files in memory have to go first."""

        def set_it() -> bool:
            try:
                (self._folder / self._limit).write_text(str(size_bytes))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
            return True

        wait_until(set_it, LONG_S)

    def used(self) -> int:
        """Bytes that are in no file."""
        stat = dict(line.split() for line in (self._folder / "memory.stat").read_text().splitlines())
        return int(stat[self._anonymous])

    def kills(self) -> int:
        """How often the kernel ended something for want of memory."""
        name = "memory.oom_control" if self._limit == "memory.limit_in_bytes" else "memory.events"
        return int(dict(line.split() for line in (self._folder / name).read_text().splitlines())["oom_kill"])

    def close(self) -> None:
        """Remove it, when nothing is in it any more."""

        def remove() -> bool:
            try:
                self._folder.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
            return True

        wait_until(remove, LONG_S)


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    try:
        group = MemoryGroup()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    with contextlib.closing(group):
        yield group


def test_memory_cap(
    child_environment: dict[str, str],
    tmp_path: Path,
    speech: Samples,
    broker: Broker,
    memory_group: MemoryGroup,
) -> None:
    """What MemoryMax= of the unit allows is enough; beyond a limit the kernel ends it, and others learn that.

    Started again it works: nothing is left behind that would be in its way.
    """
    unit = (ROOT / "deploy/raspberrypi/edgevoice.service").read_text("utf-8")
    max_mb = int(unit.partition("\nMemoryMax=")[2].partition("M\n")[0])
    for folder, more_mb in (("first", 2), ("second", None)):
        (tmp_path / folder).mkdir()
        memory_group.limit(max_mb * 2**20)
        with (
            Subscriber(broker.port, "edgevoice/default/availability") as subscriber,
            Service(
                child_environment, tmp_path / folder, speech, broker=broker, start=memory_group.start
            ) as service,
        ):
            service.wait_until_ready()
            if more_mb is None:
                service.hear()
                service.end()
                continue
            subscriber.wait_for(lambda message: message.payload == b"online", LONG_S)
            memory_group.limit(memory_group.used() + more_mb * 2**20)
            with contextlib.suppress(OSError):  # it may not live to hear all of it
                service.say()
            assert service.child.wait(LONG_S) == -signal.SIGKILL
            subscriber.wait_for(lambda message: message.payload == b"offline", LONG_S)
        assert memory_group.kills() == 1


@pytest.mark.parametrize("limit_mb", [200, 300, 400])
def test_too_little_memory(child_environment: dict[str, str], limit_mb: int) -> None:
    """A limit of addresses is met when something is opened: one sentence with a remedy, and exit code 3."""
    done = limited(child_environment, limit_mb)
    assert done.returncode == 3
    assert "out of memory: " in one_sentence(done)
    assert "raise the limit" in one_sentence(done)


def test_no_more_threads(child_environment: dict[str, str], speech: Samples) -> None:
    """Python has no memory, or may have no thread: one sentence, exit code 3."""
    for error in ("MemoryError()", 'RuntimeError("can\'t start new thread")'):
        program = (
            "import sys\nfrom edgevoice import cli, listen\n"
            f"def start(*_): raise {error}\nlisten.Listener.__enter__ = start\n"
            "sys.exit(cli.main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "recognize", "-"],
            input=pcm(speech),
            capture_output=True,
            env=child_environment,
            check=False,
        )
        assert done.returncode == 3
        assert "out of memory (" in one_sentence(done)


def limited(environment: dict[str, str], limit_mb: int) -> subprocess.CompletedProcess[bytes]:
    """Run a command with no more addresses than that."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb * 2**20,) * 2)

    return subprocess.run(
        [sys.executable, "-m", "edgevoice", "recognize", "-"],
        input=b"",
        capture_output=True,
        env=environment,
        preexec_fn=limit,
        check=False,
    )


class TestNotify:
    """Systemd does not listen."""

    @contextmanager
    def deaf(self, path: Path) -> Iterator[str]:
        """A socket that nobody reads, and that is full."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sender.sendto(b"x", str(path))
                yield str(path)

    @pytest.mark.parametrize("kind", ["nobody", "full", "nonsense", "none"])
    def test_goes_on(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples, kind: str
    ) -> None:
        """It works all the same, says so once, and waits for nobody."""
        with ExitStack() as stack:
            address = {"nobody": str(tmp_path / "gone"), "nonsense": "\u0442\u0430\u043c", "none": ""}.get(
                kind
            )
            address = address if address is not None else stack.enter_context(self.deaf(tmp_path / "deaf"))
            service = stack.enter_context(Service(child_environment, tmp_path, speech, notify=address))
            service.hear()
            log = service.end()
        assert log.count("WARNING edgevoice.notify") == (0 if kind == "none" else 1)


class TestStop:
    """SIGTERM ends it soon, whatever it does."""

    @pytest.mark.parametrize("after_s", [0.1, 0.6, 1.1])
    def test_at_the_start(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples, after_s: float
    ) -> None:
        """While Python, the model or the grammar is loaded."""
        with Service(child_environment, tmp_path, speech) as service:
            time.sleep(after_s)
            started_s = time.monotonic()
            service.child.terminate()
            code = service.child.wait(LONG_S)
            assert time.monotonic() - started_s < STOP_S
            assert code in (0, -signal.SIGTERM)  # systemd takes either for a clean end
            assert service.child.stderr is not None
            assert b"Traceback" not in service.child.stderr.read()

    def test_while_it_hears(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples, broker: Broker
    ) -> None:
        """While somebody speaks, and while that is recognised."""
        for wanted in ("^STATUS=speech", "^STATUS=recognising"):
            folder = tmp_path / wanted[-5:]
            folder.mkdir()
            with Service(child_environment, folder, speech, broker=broker) as service:
                service.wait_until_ready()
                with service.say():
                    service.systemd.wait_for(wanted)
                    service.end()

    def test_while_it_reloads(
        self, child_environment: dict[str, str], tmp_path: Path, speech: Samples
    ) -> None:
        """While a grammar is compiled, which takes long."""
        program = (
            "import sys, time\nfrom edgevoice import cli, recognise\n"
            "prepare, seen = recognise.Recogniser.prepare, []\n"
            "def slow(self, file):\n"
            "    seen.append(file)\n"
            "    if len(seen) > 1: print('compiling', flush=True); time.sleep(30)\n"
            "    return prepare(self, file)\n"
            "recognise.Recogniser.prepare = slow\n"
            "sys.exit(cli.main(sys.argv[1:]))"
        )
        with Service(child_environment, tmp_path, speech, start=("-c", program)) as service:
            service.wait_until_ready()
            service.child.send_signal(signal.SIGHUP)
            assert service.child.stdout is not None
            assert service.child.stdout.readline() == b"compiling\n"
            service.end()
