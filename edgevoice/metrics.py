"""The figures of health.py as Prometheus' text, format 0.0.4.

    Figures ──> text_of() ──> GET /metrics

https://prometheus.io/docs/instrumenting/exposition_formats/ is the format. Its own client library would be a
second registry beside ours, and is larger than this file.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal

from edgevoice import __version__
from edgevoice.health import BOUNDS_S, LATENCY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgevoice.health import Figures, Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Samples = list[tuple[str, float]]
"""Labels as they are written, and the value."""


def text_of(figures: Figures, site: str) -> str:
    """Return everything now."""
    report: Any = figures.report()
    stages = figures.stages()
    lines = [*_families(report, site), *_histograms(stages)]
    return "\n".join(lines) + "\n"


def _families(report: Any, site: str) -> Iterator[str]:
    yield from _family(
        "info", "gauge", "1; which edgevoice this is.", [(_labels(version=__version__, site=site), 1)]
    )
    yield from _family("uptime_seconds", "gauge", "Since it was started.", [("", report["uptime_s"])])
    yield from _family(
        "resident_memory_bytes", "gauge", "Main memory that it uses.", _known(report["memory_bytes"])
    )
    yield from _family("temperature_celsius", "gauge", "Of the processor.", _known(report["temperature_c"]))
    yield from _family(
        "throttled",
        "gauge",
        "1 if heat or a weak power supply slows the machine down, or has since it was started.",
        _each("when", report["throttled"] or {}),
    )
    yield from _family(
        "utterances_total",
        "counter",
        "Results, accepted or by reason.",
        _each("outcome", report["utterances"]),
    )
    yield from _family(
        "audio_faults_total",
        "counter",
        "Of the microphone: blocks lost in our queue or the sound system's, late ones, gaps, losses of it.",
        _each("kind", report["audio"]),
    )
    yield from _family(
        "queue_length",
        "gauge",
        "Utterances that wait to be recognised, results that wait for the broker.",
        _each("queue", report.get("queues", {})),
    )
    yield from _mqtt(report.get("mqtt"))
    yield from _family(
        "records_total",
        "counter",
        "Records of utterances, kept, or lost because the disk was full or slow.",
        _each("outcome", report.get("records", {})),
    )


def _mqtt(mqtt: dict[str, Any] | None) -> Iterator[str]:
    if mqtt is None:
        return
    messages = {name: count for name, count in mqtt.items() if name not in ("version", "reconnects")}
    yield from _family(
        "mqtt_messages_total",
        "counter",
        "Results the broker has, too old, too many or refused, and what it did not acknowledge.",
        _each("outcome", messages),
    )
    yield from _family(
        "mqtt_reconnects_total", "counter", "Connections after the first.", [("", mqtt["reconnects"])]
    )
    yield from _family(
        "mqtt_connected", "gauge", "1 while there is a connection to the broker.",
        [("", mqtt["version"] is not None)],
    )  # fmt: skip


def _histograms(stages: dict[str, Histogram]) -> Iterator[str]:
    latency = {"": stages.pop(LATENCY)}
    for name, text, found in (
        ("latency_seconds", "From the last word to the answer, of what was heard live.", latency),
        ("stage_seconds", "Computing of each stage of an utterance, when it had something to do.", stages),
    ):
        full = f"edgevoice_{name}"
        yield from _head(full, "histogram", text)
        for stage, histogram in found.items():
            labels = {"stage": stage} if stage else {}
            sums = list(accumulate(histogram.counts))
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), sums, strict=True):
                yield f"{full}_bucket{_labels(**labels, le=bound)} {count}"
            yield f"{full}_sum{_labels(**labels)} {histogram.sum_s}"
            yield f"{full}_count{_labels(**labels)} {sums[-1]}"


def _family(name: str, kind: Literal["gauge", "counter"], text: str, samples: _Samples) -> Iterator[str]:
    """One metric; nothing of one that is not known here."""
    if samples:
        full = f"edgevoice_{name}"
        yield from _head(full, kind, text)
        for labels, value in samples:
            yield f"{full}{labels} {float(value):.16g}"


def _head(full: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"


def _known(value: float | None) -> _Samples:
    return [] if value is None else [("", value)]


def _each(label: str, values: Mapping[str, float]) -> _Samples:
    return [(_labels(**{label: name}), value) for name, value in values.items()]


def _labels(**labels: str) -> str:
    """Values are words of ours, a version and a site, none of which has anything to escape."""
    said = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""
