"""A result to publish."""

from __future__ import annotations

from edgevoice.events import Interpretation, Result, Timings

ACCEPTED = Result(
    utterance_id="u1",
    time="2026-01-01T12:00:00+01:00",
    start_s=1.0,
    end_s=2.5,
    text="Küche auf zwanzig Grad",
    intent="SetTemperature",
    slots={"room": "küche", "degrees": 20},
    slots_raw={"room": "Küche", "degrees": "zwanzig"},
    confidence=0.93,
    accepted=True,
    reason=None,
    alternatives=(Interpretation("Küche auf neunzig Grad", "SetTemperature", {"degrees": 90}, {}, -4.5),),
    timings=Timings(vad=1, mel=2, encode=3, search=4, match=5, explain=6),
    latency_ms=281.5,
)
"""With every field that an accepted one has."""
