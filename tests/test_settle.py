"""Which of several microphones answers: on clocks of our own, with messages that take their time."""

from __future__ import annotations

import heapq
import itertools
import json
import random
import socket
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgevoice.broker import MqttSettings
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.publish import ALL_BIDS, Publisher
from edgevoice.settle import MAX_BID_BYTES, Settlement
from edgevoice.testing import Broker, Subscriber
from tests import schemas
from tests.results import ACCEPTED as ANY
from tests.test_network import listening, speak

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgevoice.events import Result
    from tests.conftest import Sample

WAIT_S = 0.15
ACCEPTED = replace(ANY, start_s=10.0, end_s=11.5, latency_ms=250.0, clarity_db=20.0, alternatives=())


def bid(site: str, *, start_ms: float = 1700, end_ms: float = 200, clarity_db: float = 30) -> bytes:
    fields = {"site": site, "utterance_id": "other", "start_ms_ago": start_ms, "end_ms_ago": end_ms}
    return json.dumps({**fields, "clarity_db": clarity_db}).encode()


class Site:
    """One settlement and what came of it."""

    def __init__(self, name: str = "hall") -> None:
        self.bids: list[dict[str, Any]] = []
        self.told: list[Result] = []
        self._told = threading.Event()
        self.settlement = Settlement(
            name, WAIT_S, lambda text: self.bids.append(json.loads(text)), self._tell
        )

    def _tell(self, result: Result) -> None:
        self.told.append(result)
        self._told.set()

    def hear(self, payload: bytes) -> None:
        """As from the broker."""
        self.settlement.hear("edgevoice/other/bid", payload, retained=False)

    def outcome(self) -> Result:
        """Wait for what it tells."""
        assert self._told.wait(5)
        (result,) = self.told
        return result


@pytest.fixture
def site() -> Any:
    opened = Site()
    yield opened
    opened.settlement.close()


def test_alone_it_answers_after_the_wait(site: Site) -> None:
    """Until then it holds the result back, and tells the others when the speech was."""
    site.settlement.offer(ACCEPTED)
    assert not site.told
    assert site.outcome() == ACCEPTED
    (told,) = site.bids
    assert (told["site"], told["utterance_id"], told["clarity_db"]) == ("hall", "u1", 20.0)
    assert (told["start_ms_ago"], told["end_ms_ago"]) == (1750.0, 250.0)


@pytest.mark.parametrize(
    "result",
    [
        replace(ACCEPTED, accepted=False, reason="low_confidence"),
        replace(ACCEPTED, latency_ms=None),  # a recording
    ],
)
def test_what_nobody_else_answers_is_told_at_once(site: Site, result: Result) -> None:
    """Refusals and recordings neither wait nor bid."""
    site.settlement.offer(result)
    assert site.told == [result]
    assert not site.bids


@pytest.mark.parametrize(("clarity_db", "answers"), [(19.9, True), (20.1, False)])
@pytest.mark.parametrize("before", [True, False])
def test_the_clearest_answers(site: Site, clarity_db: float, *, answers: bool, before: bool) -> None:
    """Whichever bid came first."""
    if before:
        site.hear(bid("kitchen", clarity_db=clarity_db))
    site.settlement.offer(ACCEPTED)
    if not before:
        site.hear(bid("kitchen", clarity_db=clarity_db))
    outcome = site.outcome()
    assert outcome.accepted is answers
    assert outcome.reason == (None if answers else "elsewhere")
    assert len(site.bids) == 1


def test_an_older_bid_is_about_to_be_answered(site: Site) -> None:
    """However clearly we have heard it, there is no point in a bid."""
    site.hear(bid("kitchen", clarity_db=1.0))
    time.sleep(WAIT_S * 0.6)
    site.settlement.offer(ACCEPTED)
    assert site.outcome().reason == "elsewhere"
    assert not site.bids


@pytest.mark.parametrize(("other", "answers"), [("attic", True), ("yard", False)])
def test_a_tie_is_for_the_last_in_the_alphabet(site: Site, other: str, *, answers: bool) -> None:
    """So that there is one."""
    site.settlement.offer(ACCEPTED)
    site.hear(bid(other, clarity_db=20.0))
    assert site.outcome().accepted is answers


def test_other_speech_is_another_command(site: Site) -> None:
    """What was said before, or in another room at another time, is answered by whoever heard it."""
    site.settlement.offer(ACCEPTED)
    site.hear(bid("kitchen", start_ms=4000, end_ms=1600))
    assert site.outcome().accepted


def test_our_own_bid_is_no_rival(site: Site) -> None:
    """The broker sends it back to us."""
    site.hear(bid("hall"))
    site.settlement.offer(ACCEPTED)
    assert site.outcome().accepted


@pytest.mark.parametrize(
    "payload",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"7",
            b'"x"',
            b"{}",
            b"\xff",
            b"{" * 500,
            b"[" * 900,
            bid("x" * MAX_BID_BYTES),
        ),
        *(bid("a", start_ms=100, end_ms=200), bid("a", start_ms=-1, end_ms=-2), bid("a", start_ms=1e9)),
        *(bid("a", clarity_db=float("nan")), bid("a", start_ms=float("inf")), bid("a").replace(b'"a"', b"1")),
        bid("a").replace(b"1700", b'"long"'),
    ],
)
def test_what_is_no_bid_is_logged_and_left(
    site: Site, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may write to the broker."""
    site.hear(payload)
    assert "not understood" in caplog.text
    site.settlement.offer(ACCEPTED)
    assert site.outcome().accepted


def test_close_settles_what_waits() -> None:
    """Nothing is lost."""
    site = Site()
    for i in range(3):
        site.settlement.offer(replace(ACCEPTED, utterance_id=str(i)))
    site.settlement.close()
    assert [result.utterance_id for result in site.told] == ["0", "1", "2"]


def test_many_bids_are_forgotten(site: Site) -> None:
    """Memory is bounded."""
    for i in range(10_000):
        site.hear(bid(f"s{i}"))
    assert len(site.settlement._bids) <= 256


@pytest.mark.parametrize("seed", range(20))
def test_of_fifty_sites_one_answers(seed: int) -> None:
    """Each hears a command a little sooner or later; a message takes up to 30 ms to each of the others."""
    choice = random.Random(seed)  # noqa: S311 - a simulation
    answers: dict[int, list[str]] = {}
    steps: list[tuple[float, int, Callable[[], None]]] = []
    number = itertools.count()
    now_s = 0.0
    sites: list[_Simulated] = []

    def at(when_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(steps, (when_s, next(number), do))

    def spread(text: str) -> None:
        for each in sites:
            hear = partial(each.hear, "", text.encode(), retained=False)
            at(now_s + choice.uniform(0.001, 0.03), hear)

    sites = [_Simulated(f"site{i}", lambda: now_s, at, spread, answers) for i in range(50)]
    for command in range(10):
        spoken_s = 10.0 * command + 5
        for each in sites:
            if choice.random() < 0.8:
                late_s = choice.choice([choice.uniform(0.2, 0.3), choice.uniform(0.5, 0.9)])
                result = replace(
                    ACCEPTED,
                    utterance_id=str(command),
                    latency_ms=1000 * late_s,
                    clarity_db=choice.uniform(5, 30),
                    end_s=ACCEPTED.start_s + choice.uniform(1.2, 1.6),
                )
                at(spoken_s + late_s, partial(each.offer, result))
    while steps:
        now_s, _, do = heapq.heappop(steps)
        do()
    assert {command: len(who) for command, who in answers.items()} == dict.fromkeys(range(10), 1)


def test_over_a_broker_one_answers() -> None:
    """Twenty sites, each with its connection; the clearest has the intent, the others say who was clearer."""
    choice = random.Random(1)  # noqa: S311 - a simulation
    clarities_db = choice.sample(range(40), 20)
    with Broker() as broker, Subscriber(broker.port, "edgevoice/#") as subscriber, ExitStack() as stack:
        settlements = []
        for i in range(20):
            publisher = stack.enter_context(
                closing(Publisher(MqttSettings(broker.host, broker.port), f"s{i}"))
            )
            # Twenty in one process are slow, so they wait longer than machines of their own would.
            settlement = Settlement(f"s{i}", 2.0, publisher.bid, publisher.publish)
            stack.enter_context(closing(settlement))
            publisher.also_take([ALL_BIDS], settlement.hear)
            publisher.connect()
            settlements.append(settlement)
        for settlement, clarity_db in zip(settlements, clarities_db, strict=True):
            settlement.offer(replace(ACCEPTED, utterance_id=str(clarity_db), clarity_db=float(clarity_db)))
        for settlement in settlements:
            settlement.close()
        subscriber.wait_for(lambda m: "/intent/" in m.topic)
    results = [m for m in subscriber.messages if "/intent/" in m.topic or m.topic.endswith("/rejected")]
    assert len(results) == 20
    accepted = [message for message in results if "/intent/" in message.topic]
    assert [message.json()["utterance_id"] for message in accepted] == [str(max(clarities_db))]
    assert {m.json()["reason"] for m in results if m not in accepted} == {"elsewhere"}
    bids = [message for message in subscriber.messages if message.topic.endswith("/bid")]
    assert len(bids) == 20
    for message in bids:
        schemas.check(message)


def test_two_that_run(tmp_path: Path, child_environment: dict[str, str], samples: tuple[Sample, ...]) -> None:
    """One sentence into two running edgevoices, one of which hears it in noise: the other one answers."""
    said = next(sample for sample in samples if sample.path.stem == "turn-on-desk-lamp")
    noise = np.random.default_rng(1).standard_normal(len(said.read()) + SAMPLE_RATE_HZ) * 0.004
    with Broker() as broker, Subscriber(broker.port, "edgevoice/#") as subscriber, ExitStack() as stack:
        callers = []
        for site in ("near", "far"):
            path = tmp_path / f"{site}.yaml"
            path.write_text(
                f"site: {site}\nmqtt: {{host: {broker.host}, port: {broker.port}, settle_ms: 500}}\n"
            )
            _, address = stack.enter_context(listening(child_environment, "--config", str(path)))
            callers.append(stack.enter_context(socket.create_connection(address)))
        threads = [
            threading.Thread(target=speak, args=(caller, said, added))
            for caller, added in zip(callers, (None, noise.astype(np.float32)), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        subscriber.wait_for(lambda m: m.topic.endswith("/rejected"), 10)
        subscriber.wait_for(lambda m: "/intent/" in m.topic)
    results = {
        m.topic: m.json() for m in subscriber.messages if "intent/" in m.topic or "rejected" in m.topic
    }
    assert set(results) == {"edgevoice/near/intent/HassTurnOn", "edgevoice/far/rejected"}
    assert results["edgevoice/far/rejected"]["reason"] == "elsewhere"


class _Simulated(Settlement):
    """A settlement whose wait is a step of the simulation, in place of a thread."""

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        at: Callable[[float, Callable[[], None]], None],
        spread: Callable[[str], None],
        answers: dict[int, list[str]],
    ) -> None:
        def tell(result: Result) -> None:
            if result.accepted:
                answers.setdefault(int(result.utterance_id), []).append(name)

        super().__init__(name, WAIT_S, spread, tell, clock)
        self.close()  # ends the thread
        self._at = at

    def offer(self, result: Result) -> None:
        """As the settlement does, and note when the wait is over."""
        waiting = len(self._offers)
        super().offer(result)
        if len(self._offers) > waiting:
            self._at(self._clock() + WAIT_S, self._settle)
