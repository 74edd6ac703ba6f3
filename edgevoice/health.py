"""How the engine fares: one registry of figures, told on the topic `health`.

    results ──> Figures <── sources, asked for when a report is due (publisher, microphone, ...)
                   ├── report() ──> Reporter ──> publish.py, now and every so many seconds
                   └── report(), stages() ──> metrics.py ──> Prometheus

What is kept is bounded: counts, and the latencies of the last results.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from edgevoice.capture import CaptureCounters
from edgevoice.errors import EdgevoiceError
from edgevoice.events import Reason, Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgevoice.events import Result

_log = logging.getLogger(__name__)

WINDOW_RESULTS: Final = 512
"""Latencies kept: a day's commands of a household, and enough for the 95th percentile."""

LATENCY: Final = "latency"
"""From the last word to the answer, of what was heard live: silence and stages."""

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the histograms' parts: Prometheus' own, and below them for stages that take no time; above is
recognition.timeout_s."""

_THROTTLED: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
"""Of Raspberry Pi's firmware, as hexadecimal text; its bits: documentation of `vcgencmd get_throttled`."""

_THROTTLED_NOW: Final = 0b1111  # under-voltage, frequency capped, throttled, soft temperature limit
_UNDER_VOLTAGE_NOW: Final = 0b1
_SINCE_BOOT_SHIFT: Final = 16  # the same four bits, for what has happened since the machine started


@dataclass(slots=True)
class Histogram:
    """How many of some times were how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """Of those that exceed the bound before, and not the one of this place; the last: all bounds."""

    sum_s: float = 0.0

    def add(self, duration_s: float) -> None:
        """Take one."""
        self.counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s


class Figures:
    """What has happened since the start; counted and asked for from any thread.

    Args:
        clock: seconds.
        root: of the file system, in which the kernel tells about the machine.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, root: Path = Path("/")) -> None:
        self._clock = clock
        self._root = root
        self._start_s = clock()
        self._lock = threading.Lock()
        self._utterances = dict.fromkeys(("accepted", *get_args(Reason)), 0)
        self._latencies_ms: deque[float] = deque(maxlen=WINDOW_RESULTS)
        self._stages = {name: Histogram() for name in (LATENCY, *Timings.__slots__)}
        self._sources: dict[str, Callable[[], Mapping[str, object]]] = {
            "audio": lambda: asdict(CaptureCounters())
        }

    def count(self, result: Result) -> None:
        """Take a result."""
        with self._lock:
            self._utterances["accepted" if result.accepted else result.reason or "out_of_grammar"] += 1
            if result.latency_ms is not None:
                self._latencies_ms.append(result.latency_ms)
                self._stages[LATENCY].add(result.latency_ms / 1000)
            for stage, ms in asdict(result.timings).items():
                if ms > 0:  # it had something to do
                    self._stages[stage].add(ms / 1000)

    def watch(self, group: str, read: Callable[[], Mapping[str, object]]) -> None:
        """Have a group of figures asked for whenever a report is due; in place of one of its name."""
        with self._lock:
            self._sources[group] = read

    def report(self) -> dict[str, object]:
        """Everything now, as JSON types; groups of figures by their names."""
        with self._lock:
            utterances, latencies_ms = dict(self._utterances), sorted(self._latencies_ms)
            sources = dict(self._sources)
        return {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "uptime_s": round(self._clock() - self._start_s, 3),
            "memory_bytes": _memory_bytes(self._root),
            "temperature_c": temperature_c(self._root),
            "throttled": throttled(self._root),
            "utterances": utterances,
            "latency_ms": {
                "count": len(latencies_ms),
                "p50": percentile(latencies_ms, 50),
                "p95": percentile(latencies_ms, 95),
            },
            **{group: dict(read()) for group, read in sources.items()},
        }

    def stages(self) -> dict[str, Histogram]:
        """How long each stage took, and under LATENCY an answer, since the start."""
        with self._lock:
            return {
                stage: Histogram(list(found.counts), found.sum_s) for stage, found in self._stages.items()
            }


class Reporter:
    """Tells a report now and every so many seconds, in a thread of its own.

    Args:
        figures: what is told.
        tell: given each report.
        interval_s: seconds between two.
    """

    def __init__(
        self, figures: Figures, tell: Callable[[dict[str, object]], None], interval_s: float
    ) -> None:
        self._figures = figures
        self._tell = tell
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgevoice-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tell no more."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._tell(self._figures.report())
            while not self._closed.wait(self._interval_s):
                self._tell(self._figures.report())
        except EdgevoiceError as error:  # the publisher was closed before us
            _log.debug("no more reports: %s", error)


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the smallest of some ordered values that so many of them do not exceed; None of none."""
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1] if ordered else None


def _memory_bytes(root: Path) -> int | None:
    """Main memory in use by this process; None where the kernel does not tell."""
    text = _read(root / "proc/self/statm")  # proc(5): size, resident, ... in pages
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") if text else None


def temperature_c(root: Path) -> float | None:
    """Of the processor; None where there is no sensor."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    # A Pi has one, "cpu-thermal"; others have several, of which those of a processor have such names.
    zones.sort(key=lambda zone: not any(word in (_read(zone / "type") or "") for word in ("cpu", "pkg")))
    texts = (_read(zone / "temp") for zone in zones)
    return next((int(text) / 1000 for text in texts if text and text.lstrip("-").isdigit()), None)


def throttled(root: Path) -> dict[str, bool] | None:
    """Whether the machine is slowed down by heat or a weak power supply; None where it does not tell."""
    text = _read(root / _THROTTLED)
    try:
        bits = int(text or "", 16)
    except ValueError:
        return None
    return {
        "now": bool(bits & _THROTTLED_NOW),
        "under_voltage_now": bool(bits & _UNDER_VOLTAGE_NOW),
        "since_boot": bool(bits >> _SINCE_BOOT_SHIFT & _THROTTLED_NOW),
        "under_voltage_since_boot": bool(bits >> _SINCE_BOOT_SHIFT & _UNDER_VOLTAGE_NOW),
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):  # a sensor may be there and not answer
        return None
