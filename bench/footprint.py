"""What the service needs: memory, time to start, threads, descriptors, and wakeups while nobody speaks.

    .venv/bin/python bench/footprint.py [--model NAME] [--utterances N] [--seconds S] [--json FILE]

Starts `edgevoice run` as it is, with a broker, where systemd would listen. Plays recordings to its standard
input until it has answered N of them (the samples, and coffee orders if EDGEVOICE_EVAL_DATA names their
folder), then one of 13 s, then silence at its own pace for S seconds. Prints what the kernel says of the
process at each stage. The files it reads at the start are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from edgevoice.audio import read_audio  # noqa: E402
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ  # noqa: E402
from edgevoice.testing import Broker  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.events import Samples

PAUSE_S: Final = 1.5  # ends whatever was said
LONG_S: Final = 13.0  # of speech: with pre-roll and tail below the 15 s of endpoint.max_utterance_s
PATIENCE_S: Final = 60.0  # for one answer, on a busy machine
QUIET_S: Final = 3.0  # without another answer: it has answered everything


class Service:
    """`edgevoice run`, what it is told and what it says.

    Args:
        folder: for its files.
        port: of the broker.
        model: its name.
        watchdog_s: silence after which systemd would take it for dead; 0: it would wait for ever.
        more: lines of the configuration.
    """

    def __init__(
        self, folder: Path, port: int, model: str, *, watchdog_s: float = 0.0, more: str = ""
    ) -> None:
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "notify"))
        self._told.settimeout(PATIENCE_S)
        config = folder / "edgevoice.yaml"
        config.write_text(f"mqtt: {{host: {Broker.host}, port: {port}}}\n{more}", "utf-8")
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
        }
        command = [sys.executable, "-m", "edgevoice", "run", "--config", str(config), "--model", model]
        started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [*command, "--input", "-"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        while not self._told.recv(4096).startswith(b"READY=1"):
            pass
        self.ready_s = time.monotonic() - started
        self.answers = 0
        self.told: list[tuple[float, str]] = []
        """What systemd was told since it was ready, and when, by time.monotonic()."""
        for work in (self._count, self._listen):
            threading.Thread(target=work, daemon=True).start()

    def _count(self) -> None:
        for _ in self.process.stdout or ():
            self.answers += 1

    def _listen(self) -> None:
        """Take what systemd would be told, lest it waits in the socket."""
        self._told.settimeout(None)
        while message := self._told.recv(4096):
            self.told.append((time.monotonic(), message.decode()))

    def play(self, samples: Samples) -> None:
        """Send sound, as fast as it is taken."""
        if self.process.stdin is None:
            return
        self.process.stdin.write((samples * 32767).astype("<i2").tobytes())
        self.process.stdin.flush()

    def settle(self) -> None:
        """Wait until nothing more is said."""
        seen, since_s = self.answers, time.monotonic()
        while time.monotonic() - since_s < QUIET_S:
            time.sleep(0.1)
            if self.answers != seen:
                seen, since_s = self.answers, time.monotonic()

    def state(self) -> dict[str, float]:
        """What the kernel says of it now: MB, and counts."""
        proc = Path(f"/proc/{self.process.pid}")
        status = dict(re.findall(r"(\w+):\s+(\d+)", (proc / "status").read_text()))
        memory = {name: int(status[name]) / 1024 for name in ("VmHWM", "VmRSS", "RssAnon", "RssFile")}
        return {
            **memory,
            "threads": int(status["Threads"]),
            "descriptors": len(list((proc / "fd").iterdir())),
        }

    def mappings(self) -> dict[str, float]:
        """MB resident in each mapped file, the heap and other anonymous memory, largest first."""
        sizes: Counter[str] = Counter()
        name = ""
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            if found := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
                name = Path(found[1]).name or "anonymous"
            elif line.startswith("Rss:"):
                sizes[name] += int(line.split()[1])
        return {name: size / 1024 for name, size in sizes.most_common()}

    def used(self) -> tuple[float, int]:
        """CPU seconds of all threads, and how often they gave the core back to wait, so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        wakeups = 0
        for status in Path(f"/proc/{self.process.pid}/task").glob("*/status"):
            found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)
            wakeups += int(found[1]) if found else 0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), wakeups


@contextmanager
def running(broker: Broker, model: str, *, watchdog_s: float = 0.0, more: str = "") -> Iterator[Service]:
    """Run the service while a block runs; see Service."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), broker.port, model, watchdog_s=watchdog_s, more=more)
        try:
            yield service
        finally:
            service.process.terminate()
            service.process.wait()


def recordings() -> list[Samples]:
    """The samples, then coffee orders where there are any."""
    folders = [ROOT / "samples"]
    if data := os.environ.get("EDGEVOICE_EVAL_DATA"):
        folders.append(Path(data) / "coffee_commands")
    return [read_audio(path) for folder in folders for path in sorted(folder.glob("*.flac"))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny.en-q8_0")
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0, help="of silence")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    speech = recordings()
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ), np.float32)
    stages = {}
    with Broker() as broker, running(broker, options.model) as service:
        stages["ready"] = service.state()
        clips = cycle(speech)
        while service.answers < options.utterances:
            service.play(np.concatenate([next(clips), pause]))
        service.settle()
        stages[f"{service.answers} utterances"] = service.state()
        mappings = service.mappings()
        # Said without pauses: what is quieter than speech is left out.
        words = np.concatenate([each[np.abs(each) > 0.02] for each in speech])
        service.play(np.concatenate([words[: round(LONG_S * SAMPLE_RATE_HZ)], pause, pause]))
        service.settle()
        stages[f"one of {LONG_S:g} s"] = service.state()
        cpu_s, wakeups = service.used()
        for _ in range(round(options.seconds * SAMPLE_RATE_HZ / FRAME_SAMPLES)):
            time.sleep(FRAME_SAMPLES / SAMPLE_RATE_HZ)
            service.play(np.zeros(FRAME_SAMPLES, np.float32))
        after_s, woken = service.used()
        idle = {
            "cpu_percent": 100 * (after_s - cpu_s) / options.seconds,
            "wakeups_per_s": (woken - wakeups) / options.seconds,
        }
        stages["silence"] = service.state()
        ready_s = service.ready_s
    print(
        f"{options.model}: ready after {ready_s:.2f} s; {idle['cpu_percent']:.1f} % of a core and "
        f"{idle['wakeups_per_s']:.0f} wakeups/s in silence"
    )
    print(f"{'':20}" + "".join(f"{name:>12}" for name in stages["ready"]))
    for name, state in stages.items():
        print(f"{name:20}" + "".join(f"{value:12.1f}" for value in state.values()))
    print(
        "resident after the utterances, MB: "
        + ", ".join(f"{name} {mb:.1f}" for name, mb in list(mappings.items())[:12])
    )
    if options.json:
        figures = {
            "model": options.model,
            "ready_s": ready_s,
            **idle,
            "stages": stages,
            "mappings_mb": mappings,
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
