"""What listening to a silent room costs: `edgevoice run` on a real sound server, measured over minutes.

    python bench/idle.py [SECONDS] [BLOCK_FRAMES]

For digital silence, and for a quiet room, prints the share of one core and how often a second the process
wakes up: all of it, and each thread that does. "listener" is ours, "portaudio" is PortAudio's, which calls us
with each block, "threaded-ml" that of PulseAudio's client library, which gets it from the server. The
microphone is a null sink of a PulseAudio of its own, whose own work is not counted. BLOCK_FRAMES is the
configuration's audio.block_frames.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from edgevoice import models  # noqa: E402
from tests.sound_server import SoundServer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS: Final = 120.0
SETTLE_S: Final = 10.0  # to load, and to forget the start
ROOM_DBFS: Final = -60.0  # RMS of a quiet room at a usual gain
SELDOM: Final = 0.5  # wakeups a second of a thread that is not worth a line

# The service, with the names of its threads where /proc shows them; PortAudio's has that of who opened it.
SERVICE: Final = """
import pathlib, threading
run = threading.Thread.run
def named(thread):
    pathlib.Path("/proc/thread-self/comm").write_text(thread.name.removeprefix("edgevoice-")[:15])
    run(thread)
threading.Thread.run = named
import edgevoice.__main__
"""


@dataclass(frozen=True, slots=True)
class Thread:
    """What a thread of the service used."""

    name: str
    share: float
    """Of one core."""

    woken: float
    """Times a second."""


def main(seconds: float, block_frames: int) -> None:
    """Measure and print."""
    print(f"{'':16} {'% of a core':>12} {'wakeups/s':>10}")
    for name, threads in measure(seconds, block_frames):
        _line(name, sum(thread.share for thread in threads), sum(thread.woken for thread in threads))
        for thread in threads:
            if thread.woken > SELDOM:
                _line(f"  {thread.name}", thread.share, thread.woken)


def measure(seconds: float, block_frames: int) -> Iterator[tuple[str, list[Thread]]]:
    """Yield what each thread used in digital silence, and in a quiet room."""
    with SoundServer() as server, tempfile.TemporaryDirectory() as folder:
        server.unplug()
        server.plug_in(rewinds=True)
        room = Path(folder) / "room.wav"
        noise = np.random.default_rng(0).standard_normal(round((seconds + 3 * SETTLE_S) * 16_000))
        soundfile.write(room, noise * 10 ** (ROOM_DBFS / 20), 16_000, subtype="PCM_16")
        defaults = Path(folder) / "edgevoice.yaml"
        defaults.write_text(f"audio: {{block_frames: {block_frames}}}\n", "utf-8")
        environment = {
            **os.environ,
            **server.environment,  # another home, where no models are
            "EDGEVOICE_MODELS": str(models.models_dir()),
            "EDGEVOICE_CONFIG": str(defaults),
        }
        service = [sys.executable, "-c", SERVICE, "run"]
        yield "digital silence", _measure(service, seconds, environment)
        with _running(["paplay", "--device=mic", str(room)], environment):
            yield "a quiet room", _measure(service, seconds, environment)


def _measure(command: list[str], seconds: float, environment: dict[str, str]) -> list[Thread]:
    """Return the threads of a program, the one that wakes up most often first."""
    with _running(command, environment) as process:
        time.sleep(SETTLE_S)
        before, at_s = _used(process.pid), time.monotonic()
        time.sleep(seconds)
        if process.poll() is not None:
            sys.exit("edgevoice run ended; its message stands above")
        after, elapsed_s = _used(process.pid), time.monotonic() - at_s
    threads = []
    for number, (name, cpu_s, wakeups) in after.items():
        _, cpu_before_s, wakeups_before = before.get(number, (name, 0.0, 0))
        threads.append(
            Thread(name, (cpu_s - cpu_before_s) / elapsed_s, (wakeups - wakeups_before) / elapsed_s)
        )
    return sorted(threads, key=lambda thread: -thread.woken)


def _line(name: str, share: float, woken: float) -> None:
    print(f"{name:16} {100 * share:12.2f} {woken:10.0f}", flush=True)


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _used(pid: int) -> dict[str, tuple[str, float, int]]:
    """Of each thread: name, CPU time so far, and how often it gave the core back to wait."""
    threads = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            comm = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        threads[task.name] = comm, cpu_s, int(status.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return threads


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
