"""Through a broker that is killed at random times, every result is accounted for, and none arrives late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import broker
import edgevoice.publish

if TYPE_CHECKING:
    import pytest


def test_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered, expired or dropped; duplicates only within their time; memory stays as it is."""
    monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", broker.RECONNECT_S[0])
    monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MAX_S", broker.RECONNECT_S[1])
    account = broker.deliver(intents=500, kills=5, seed=1)
    seen = account.counters
    assert account.lost == 0, account
    assert account.late == 0, account
    assert seen.reconnects >= 3  # of 5; a busy machine may miss a short one
    assert seen.stale + seen.overflowed > 0, "the outages were too short to show anything"
    # A kill takes with it what the broker had acknowledged and not passed on, and what came meanwhile.
    assert account.received >= 0.9 * seen.delivered, account
    assert account.duplicates <= 5, account  # at most the one on its way at each kill
    assert account.growth_bytes < 8e6, account


def test_latency() -> None:
    """A result is with a subscriber within milliseconds."""
    seen_ms = broker.latencies_ms(200)
    assert len(seen_ms) == 200
    assert seen_ms[100] < 10  # its median; the bound for the 99th percentile is for an idle machine


def test_outages() -> None:
    """One seed gives one course of events."""
    assert broker.outages(1000, 10, 3) == broker.outages(1000, 10, 3) != broker.outages(1000, 10, 4)
