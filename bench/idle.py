"""What listening to a silent room costs: `edgevoice run` on a real sound server, measured over minutes.

    python bench/idle.py [SECONDS]

For digital silence, and for a quiet room, prints the share of one core and how often a second the process
wakes up. The microphone is a null sink of a PulseAudio of its own, whose own work is not counted.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
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


def main(seconds: float) -> None:
    """Measure and print."""
    print(f"{'':16} {'% of a core':>12} {'wakeups/s':>10}")
    with SoundServer() as server, tempfile.TemporaryDirectory() as folder:
        room = Path(folder) / "room.wav"
        noise = np.random.default_rng(0).standard_normal(round((seconds + 3 * SETTLE_S) * 16_000))
        soundfile.write(room, noise * 10 ** (ROOM_DBFS / 20), 16_000, subtype="PCM_16")
        defaults = Path(folder) / "edgevoice.yaml"
        defaults.touch()
        environment = {
            **os.environ,
            **server.environment,  # another home, where no models are
            "EDGEVOICE_MODELS": str(models.models_dir()),
            "EDGEVOICE_CONFIG": str(defaults),
        }
        service = [sys.executable, "-m", "edgevoice", "run"]
        _report("digital silence", service, seconds, environment)
        with _running(["paplay", "--device=mic", str(room)], environment):
            _report("a quiet room", service, seconds, environment)


def _report(name: str, command: list[str], seconds: float, environment: dict[str, str]) -> None:
    with _running(command, environment) as process:
        time.sleep(SETTLE_S)
        cpu_s, wakeups, at_s = *_used(process.pid), time.monotonic()
        time.sleep(seconds)
        if process.poll() is not None:
            sys.exit("edgevoice run ended; its message stands above")
        cpu_after_s, wakeups_after, after_s = *_used(process.pid), time.monotonic()
    elapsed_s = after_s - at_s
    share, woken = (cpu_after_s - cpu_s) / elapsed_s, (wakeups_after - wakeups) / elapsed_s
    print(f"{name:16} {100 * share:12.2f} {woken:10.0f}", flush=True)


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _used(pid: int) -> tuple[float, int]:
    """CPU time of all threads, and how often they gave the core back to wait, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    wakeups = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                wakeups += int(line.split()[1])
    return cpu_s, wakeups


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
