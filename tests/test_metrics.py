"""What Prometheus is told is what the topic health tells, in Prometheus' own format."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgevoice import __version__
from edgevoice.events import Timings
from edgevoice.health import BOUNDS_S, Figures
from edgevoice.metrics import text_of
from tests.test_health import RESULT, write

if TYPE_CHECKING:
    from pathlib import Path

PROMTOOL = shutil.which("promtool")


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by its name and labels; each family has help and type, and is there once."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type != "unknown" for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    assert len(found) == len(samples)
    return found


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    """Of a warm machine, after an answer and a refusal."""
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "51540\n")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    figures = Figures(root=tmp_path)
    figures.watch("mqtt", lambda: {"delivered": 7, "stale": 1, "reconnects": 2, "version": "5"})
    figures.watch("queues", lambda: {"utterances": 1, "results": 3})
    figures.watch("records", lambda: {"kept": 5, "lost": 4})
    figures.watch("audio", lambda: {"overflows": 6, "losses": 1})
    figures.count(replace(RESULT, latency_ms=260.0, timings=Timings(encode=80.0, search=2.5)))
    figures.count(replace(RESULT, accepted=False, reason="ambiguous", timings=Timings(encode=20_000.0)))
    return figures


def test_figures(figures: Figures) -> None:
    """All that is counted is told; what is not known is left out."""
    found = read(text_of(figures, "kitchen"))
    for name, value in {
        "temperature_celsius": 51.54,
        "mqtt_reconnects_total": 2,
        "mqtt_connected": 1,
    }.items():
        assert found[f"edgevoice_{name}", ()] == value
    for name, label, text, value in (
        ("utterances_total", "outcome", "accepted", 1),
        ("utterances_total", "outcome", "ambiguous", 1),
        ("utterances_total", "outcome", "timeout", 0),
        ("audio_faults_total", "kind", "overflows", 6),
        ("queue_length", "queue", "results", 3),
        ("records_total", "outcome", "lost", 4),
        ("mqtt_messages_total", "outcome", "stale", 1),
        ("throttled", "when", "now", 1),
    ):
        assert found[f"edgevoice_{name}", ((label, text),)] == value
    assert found["edgevoice_info", (("site", "kitchen"), ("version", __version__))] == 1
    assert not any("memory" in name for name, _ in found)  # this machine has no /proc


def test_histograms(figures: Figures) -> None:
    """Parts count all that is not longer; what a stage did not do is not counted as done at once."""
    found = read(text_of(figures, "kitchen"))

    def buckets(name: str, **labels: str) -> list[float]:
        places = (*map(str, BOUNDS_S), "+Inf")
        return [found[f"{name}_bucket", tuple(sorted({**labels, "le": le}.items()))] for le in places]

    assert buckets("edgevoice_latency_seconds") == [0] * 8 + [1] * 6  # 0.25 < 0.26 <= 0.5
    assert buckets("edgevoice_stage_seconds", stage="search") == [0] + [1] * 13  # 2.5 ms is within 0.0025
    assert buckets("edgevoice_stage_seconds", stage="encode") == [0] * 6 + [1] * 7 + [2]
    assert found["edgevoice_stage_seconds_sum", (("stage", "encode"),)] == pytest.approx(20.08)
    assert found["edgevoice_stage_seconds_count", (("stage", "encode"),)] == 2
    assert buckets("edgevoice_stage_seconds", stage="explain") == [0] * 14


def test_the_topic_health_tells_the_same(figures: Figures) -> None:
    """Both come from one registry."""
    report: Any = figures.report()
    found = read(text_of(figures, "kitchen"))
    for outcome, count in report["utterances"].items():
        assert found["edgevoice_utterances_total", (("outcome", outcome),)] == count
    assert found["edgevoice_latency_seconds_count", ()] == report["latency_ms"]["count"]


def test_without_broker_and_records() -> None:
    """What there is not is not told."""
    assert not any("mqtt" in name or "records" in name for name, _ in read(text_of(Figures(), "kitchen")))


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool; it is in Debian's package prometheus")
def test_promtool(figures: Figures) -> None:
    """Prometheus' own checker has nothing to say."""
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=text_of(figures, "kitchen").encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
