"""How the engine fares is told, and what is kept for it is bounded."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgevoice.broker import MqttSettings
from edgevoice.errors import BrokerError
from edgevoice.events import Result
from edgevoice.health import WINDOW_RESULTS, Figures, Reporter, percentile
from edgevoice.publish import Publisher
from edgevoice.testing import Broker, Subscriber
from tests.conftest import wait_until

if TYPE_CHECKING:
    from pathlib import Path

RESULT = Result(
    utterance_id="u",
    time="2026-01-01T12:00:00+01:00",
    start_s=0,
    end_s=1,
    text=None,
    intent=None,
    slots={},
    slots_raw={},
    confidence=0,
    accepted=True,
    reason=None,
)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestFigures:
    """What is counted."""

    def test_utterances(self) -> None:
        """Each result counts once, as accepted or by its reason; what never came is 0."""
        figures = Figures()
        for result in (
            RESULT,
            RESULT,
            replace(RESULT, accepted=False, reason="ambiguous"),
        ):
            figures.count(result)
        utterances: Any = figures.report()["utterances"]
        assert utterances["accepted"] == 2
        assert utterances["ambiguous"] == 1
        assert utterances["no_speech"] == 0

    def test_latency(self) -> None:
        """Percentiles are of those that are heard live, the last of them only."""
        figures = Figures()
        assert figures.report()["latency_ms"] == {"count": 0, "p50": None, "p95": None}
        figures.count(RESULT)
        for ms in range(1, 101):
            figures.count(replace(RESULT, latency_ms=float(ms)))
        assert figures.report()["latency_ms"] == {"count": 100, "p50": 50, "p95": 95}
        for _ in range(WINDOW_RESULTS):
            figures.count(replace(RESULT, latency_ms=7.0))
        assert figures.report()["latency_ms"] == {"count": WINDOW_RESULTS, "p50": 7, "p95": 7}

    @pytest.mark.parametrize(
        ("ordered", "percent", "value"), [([], 50, None), ([3], 95, 3), ([1, 2], 50, 1), ([1, 2], 51, 2)]
    )
    def test_percentile(self, ordered: list[float], percent: float, value: float | None) -> None:
        """The nearest rank."""
        assert percentile(ordered, percent) == value

    def test_sources(self) -> None:
        """Groups are asked for with each report; the last of one name counts."""
        figures, seen = Figures(), [0]
        assert figures.report()["audio"] == {
            "overflows": 0, "card_overflows": 0, "late": 0, "gaps": 0, "losses": 0
        }  # fmt: skip
        figures.watch("audio", lambda: {"overflows": seen[0]})
        seen[0] = 5
        assert figures.report()["audio"] == {"overflows": 5}

    def test_uptime(self) -> None:
        """Since the figures were made."""
        now_s = [100.0]
        figures = Figures(clock=lambda: now_s[0])
        now_s[0] = 162.5
        assert figures.report()["uptime_s"] == 62.5

    def test_from_many_threads(self) -> None:
        """Nothing is lost."""
        figures = Figures()

        def count() -> None:
            for _ in range(1000):
                figures.count(RESULT)

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        utterances: Any = figures.report()["utterances"]
        assert utterances["accepted"] == 8000


class TestMachine:
    """What the kernel tells."""

    def test_memory(self) -> None:
        """Resident memory of this process."""
        report: Any = Figures().report()
        assert 10e6 < report["memory_bytes"] < 10e9
        held = bytearray(64_000_000)
        more: Any = Figures().report()
        assert more["memory_bytes"] - report["memory_bytes"] > 50e6
        assert held

    def test_pi(self, tmp_path: Path) -> None:
        """A Raspberry Pi tells its temperature, and that its power supply is weak."""
        write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "52368\n")
        # Under-voltage and throttled now, and since the start, as 0x50005 in Raspberry Pi's documentation.
        write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
        report = Figures(root=tmp_path).report()
        assert report["temperature_c"] == 52.368
        assert report["throttled"] == {
            "now": True, "under_voltage_now": True, "since_boot": True, "under_voltage_since_boot": True
        }  # fmt: skip
        write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "80000\n")
        assert Figures(root=tmp_path).report()["throttled"] == {
            "now": False, "under_voltage_now": False, "since_boot": True, "under_voltage_since_boot": False
        }  # fmt: skip

    def test_several_sensors(self, tmp_path: Path) -> None:
        """That of the processor is taken, and one that does not answer is passed over."""
        for number, (kind, temp) in enumerate((("acpitz", "20000"), ("x86_pkg_temp", "61000"))):
            write(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", kind)
            write(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", temp)
        assert Figures(root=tmp_path).report()["temperature_c"] == 61
        write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "")
        assert Figures(root=tmp_path).report()["temperature_c"] == 20

    def test_nothing_is_told(self, tmp_path: Path) -> None:
        """Another machine has none of it."""
        report = Figures(root=tmp_path).report()
        assert (report["memory_bytes"], report["temperature_c"], report["throttled"]) == (None, None, None)


class TestReporter:
    """Reports on the topic `health`."""

    def test_periodic(self) -> None:
        """The first comes at once, the others as often as asked, retained, with the publisher's figures."""
        with Broker() as broker, Subscriber(broker.port, "edgevoice/+/health") as subscriber:
            publisher, figures = Publisher(MqttSettings(broker.host, broker.port)), Figures()
            publisher.connect()
            figures.watch("mqtt", publisher.figures)
            reporter = Reporter(figures, publisher.set_health, 0.3)
            try:
                first = subscriber.wait_for(1, timeout_s=2)[0]
                assert first.retain
                assert first.topic == "edgevoice/default/health"
                assert first.json()["mqtt"]["version"] == "5"
                start_s = time.monotonic()
                publisher.publish(RESULT)
                figures.count(RESULT)
                third = subscriber.wait_for(3)[2]
                assert 0.2 < time.monotonic() - start_s < 2
                assert third.json()["mqtt"]["delivered"] == 1
                assert third.json()["utterances"]["accepted"] == 1
            finally:
                reporter.close()
                publisher.close()

    def test_ends(self) -> None:
        """Closing does not wait for the next report, and a closed publisher ends the reports."""
        told: list[dict[str, object]] = []
        reporter = Reporter(Figures(), told.append, 3600)
        wait_until(lambda: len(told) == 1)
        start_s = time.monotonic()
        reporter.close()
        assert time.monotonic() - start_s < 1
        json.dumps(told, allow_nan=False)

        def refuse(_fields: dict[str, object]) -> None:
            raise BrokerError("the publisher is closed; make a new one")

        Reporter(Figures(), refuse, 0.01).close()
