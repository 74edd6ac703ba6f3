"""Results through a broker that is killed again and again, and how soon one arrives through one that is not.

    .venv/bin/python bench/broker.py [--intents 10000] [--kills 50] [--seed 1]

Results are published evenly in time, while a mosquitto is killed (SIGKILL) and started again at random times.
A subscriber that reads the bytes of its socket itself, and is back within 10 ms, notes what arrives and when.
"""

from __future__ import annotations

import argparse
import logging
import random
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

import edgevoice.publish
from edgevoice.broker import MqttSettings
from edgevoice.errors import BrokerError
from edgevoice.events import Result
from edgevoice.health import Figures, percentile
from edgevoice.publish import Publisher, PublisherCounters
from edgevoice.testing import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATE_HZ: Final = 100.0  # of results; nobody speaks so fast, but 10,000 shall take less than two minutes
EXPIRY_S: Final = 0.5  # short, so that short outages let results grow stale
RECONNECT_S: Final = (0.1, 0.5)  # in place of 1 and 10 s, that there is time between 50 outages
MAX_OUTAGE_S: Final = 0.7  # some longer than EXPIRY_S
DRAIN_S: Final = 10.0  # until everything is settled at the end

RESULT: Final = Result(
    utterance_id="",
    time="2026-01-01T12:00:00+01:00",
    start_s=1.0,
    end_s=2.5,
    text="Turn on the desk lamp.",
    intent="HassTurnOn",
    slots={"name": "desk lamp"},
    slots_raw={"name": "desk lamp"},
    confidence=0.99,
    accepted=True,
    reason=None,
    latency_ms=250.0,
)


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the results."""

    published: int
    counters: PublisherCounters
    received: int
    """Different ones that arrived."""

    duplicates: int
    """Messages that arrived again."""

    late: int
    """Different ones that were older than their time when they arrived."""

    oldest_s: float
    """Greatest age on arrival."""

    growth_bytes: int
    """Of this process's memory, from a tenth of the way to the end."""

    @property
    def lost(self) -> int:
        """Neither acknowledged nor counted as dropped."""
        seen = self.counters
        return self.published - seen.delivered - seen.stale - seen.overflowed - seen.refused

    def __str__(self) -> str:
        seen = self.counters
        return (
            f"{self.published} results, {seen.reconnects} connections after the first: {seen.delivered} "
            f"acknowledged, {seen.stale} expired, {seen.overflowed} dropped, {seen.refused} refused, "
            f"{self.lost} unaccounted for\n"
            f"{self.received} arrived, {self.duplicates} of them again; {self.late} were older than "
            f"{EXPIRY_S:g} s, the oldest {self.oldest_s * 1000:.0f} ms; "
            f"memory {self.growth_bytes / 1e6:+.1f} MB"
        )


class Wire:
    """Reads what a broker sends for edgevoice/+/intent/#, byte by byte, with MQTT 3.1.1 and no help."""

    def __init__(self, port: int) -> None:
        self.arrivals: list[tuple[float, int]] = []
        """Monotonic time and number of each result."""
        self._port = port
        self._closed = False
        self._subscribed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._subscribed.wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._closed = True
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            with suppress(OSError, EOFError), socket.create_connection(("127.0.0.1", self._port)) as broker:
                self._read(broker)
            time.sleep(0.01)

    def _read(self, broker: socket.socket) -> None:
        broker.settimeout(0.2)
        # CONNECT: 3.1.1, clean session, no keep-alive, name "wire"; SUBSCRIBE 1, quality of service 0.
        broker.sendall(b"\x10\x10\0\x04MQTT\x04\x02\0\0\0\x04wire")
        topic = b"edgevoice/+/intent/#"
        broker.sendall(bytes([0x82, len(topic) + 5, 0, 1, 0, len(topic)]) + topic + b"\0")
        for kind, body in _packets(broker, lambda: self._closed):
            if kind == 0x90:  # SUBACK
                self._subscribed.set()
            elif kind == 0x30:  # PUBLISH, without an identifier at this quality of service
                payload = body[2 + int.from_bytes(body[:2]) :]
                number = int(payload.split(b'"utterance_id": "', 1)[1].split(b'"', 1)[0])
                self.arrivals.append((time.monotonic(), number))


def _packets(broker: socket.socket, ended: Callable[[], bool]) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of each MQTT packet until the end."""
    held = b""
    while True:
        with suppress(TimeoutError):
            data = broker.recv(65_536)
            if not data:
                return
            held += data
        if ended():
            return
        while len(held) >= 2:
            at, length, shift = 1, 0, 0  # the length has 7 bits a byte, the eighth says that it goes on
            while at < len(held):
                length |= (held[at] & 0x7F) << shift
                shift += 7
                at += 1
                if held[at - 1] < 0x80:
                    break
            else:
                break
            if len(held) < at + length:
                break
            yield held[0] & 0xF0, held[at : at + length]
            held = held[at + length :]


def outages(intents: int, kills: int, seed: int) -> list[tuple[float, float]]:
    """When the broker is killed, in seconds from the beginning, and for how long it stays away.

    Each kill has its share of the whole time, and comes at a random moment of the first half of it: so there
    is a connection to kill.
    """
    chance = random.Random(seed)  # noqa: S311 - the same ones again
    share_s = intents / RATE_HZ / kills
    return [
        ((number + chance.uniform(0.0, 0.5)) * share_s, chance.uniform(0, MAX_OUTAGE_S))
        for number in range(kills)
    ]


def deliver(intents: int, kills: int, seed: int) -> Account:
    """Publish through kills, and say what became of it."""
    published_s = [0.0] * intents
    figures = Figures()
    with ExitStack() as stack:
        broker = stack.enter_context(Broker())
        wire = stack.enter_context(Wire(broker.port))
        publisher = Publisher(MqttSettings(broker.host, broker.port, intent_expiry_s=EXPIRY_S))
        stack.callback(publisher.close)
        publisher.connect()
        begin_s = time.monotonic()
        killed = threading.Event()

        def kill() -> None:
            for at_s, away_s in outages(intents, kills, seed):
                time.sleep(max(0.0, begin_s + at_s - time.monotonic()))
                broker.kill()
                time.sleep(away_s)
                broker.start()
            killed.wait()  # mosquitto ends with the thread that started it

        killer = threading.Thread(target=kill)
        killer.start()
        first_bytes = 0
        for number in range(intents):
            time.sleep(max(0.0, begin_s + number / RATE_HZ - time.monotonic()))
            published_s[number] = time.monotonic()
            publisher.publish(replace(RESULT, utterance_id=str(number)))
            if number == intents // 10:
                first_bytes = _memory_bytes(figures)
        publisher.flush(DRAIN_S)
        time.sleep(0.2)  # from the broker to the subscriber
        growth_bytes = _memory_bytes(figures) - first_bytes
        killed.set()
        killer.join()
        counters = publisher.counters
        arrivals = list(wire.arrivals)
    ages_s: dict[int, float] = {}
    for at_s, number in arrivals:
        ages_s[number] = max(ages_s.get(number, 0.0), at_s - published_s[number])
    return Account(
        published=intents,
        counters=counters,
        received=len(ages_s),
        duplicates=len(arrivals) - len(ages_s),
        late=sum(age_s > EXPIRY_S for age_s in ages_s.values()),
        oldest_s=max(ages_s.values(), default=0.0),
        growth_bytes=growth_bytes,
    )


def latencies_ms(intents: int) -> list[float]:
    """Time from publish() to the subscriber of each result, in order of size."""
    with Broker() as broker, Wire(broker.port) as wire:
        publisher = Publisher(MqttSettings(broker.host, broker.port))
        publisher.connect()
        published_s = []
        begin_s = time.monotonic()
        for number in range(intents):
            time.sleep(max(0.0, begin_s + number / RATE_HZ - time.monotonic()))
            published_s.append(time.monotonic())
            publisher.publish(replace(RESULT, utterance_id=str(number)))
        if not publisher.flush(DRAIN_S):
            raise BrokerError("not every result was acknowledged, although nothing happened to the broker")
        time.sleep(0.2)
        publisher.close()
        return sorted((at_s - published_s[number]) * 1000 for at_s, number in wire.arrivals)


def hurry() -> None:
    """Make the waits between connections short, for this process."""
    edgevoice.publish._RECONNECT_MIN_S, edgevoice.publish._RECONNECT_MAX_S = RECONNECT_S  # type: ignore[misc]  # noqa: SLF001


def _memory_bytes(figures: Figures) -> int:
    seen = figures.report()["memory_bytes"]
    return seen if isinstance(seen, int) else 0


def main() -> int:
    """Run both, print what came, and return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--intents", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # each outage is a warning, and so is each result that expired
    seen_ms = latencies_ms(2_000)
    p50_ms, p99_ms = percentile(seen_ms, 50), percentile(seen_ms, 99)
    print(f"from publish() to the subscriber: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, of {len(seen_ms)}")
    hurry()
    account = deliver(options.intents, options.kills, options.seed)
    print(account)
    return int(account.lost != 0 or account.late > 0 or p99_ms is None or p99_ms > 10)


if __name__ == "__main__":
    sys.exit(main())
