"""Results to MQTT: soon or never.

The way of one result:

1. publish() turns it into JSON, notes until when it is worth anything and puts it into a bounded queue; the
   thread that recognises never waits for the network.
2. The publisher's thread, which also connects (broker.py), takes it when a connection stands, and drops it if
   its time is over.
3. It waits for the broker's acknowledgement before it takes the next one, so never more than one is on its
   way. If none comes in time, it breaks the connection itself.
4. If the connection breaks in between, the result goes back to the head of the queue, for the next
   connection, and 2 decides again. It can arrive twice only when its acknowledgement was lost, within its
   time; `utterance_id` tells.

Waits between connections double, up to a bound, and have jitter, so that a house full of machines does not
come back at once. Commands come in on the same connection (commands.py): serve() subscribes, and again on
each new one.
"""

from __future__ import annotations

import json
import logging
import math
import random
import secrets
import threading
from collections import deque
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Final, Literal, Protocol

from paho.mqtt.client import topic_matches_sub

from edgevoice.broker import MAX_PACKET_BYTES, Dialer, MqttSettings, Outgoing, clock_s
from edgevoice.errors import BrokerError, UsageError
from edgevoice.settle import BID_LIFE_S

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from paho.mqtt.client import MQTTMessage

    from edgevoice.broker import Connection
    from edgevoice.events import Result

_log = logging.getLogger(__name__)

State = Literal["listening", "speech", "recognising", "muted", "lost"]
"""What the engine is doing; lost: the microphone is gone."""

MAX_LEVEL_CHARACTERS: Final = 100
"""Longest topic level made of a name; names are a few words, and a topic has a limit of 65,535 bytes."""

_BID: Final = "bid"
ALL_BIDS: Final = f"edgevoice/+/{_BID}"
"""Topics of the bids of all sites."""

_QUEUE_BIDS: Final = 8  # more are of commands that were answered long ago
_QUEUE_RESULTS: Final = 64  # more than anyone says within an outage short enough for them to matter
_TRANSIT_S: Final = 0.02  # from here to a subscriber on a busy machine: what has less left would arrive stale
_CLOSE_S: Final = 2.0  # how long a clean end may wait for the broker
_RECONNECT_MIN_S: Final = 1.0  # soon enough for a broker that restarts
_RECONNECT_MAX_S: Final = (
    10.0  # a broker in the same house can bear it; longer waits leave people speaking in vain
)
_SETTLED_S: Final = 30.0  # a connection that lasted so long was no part of a quarrel; above _RECONNECT_MAX_S
_TAKEN_OVER_S: Final = 60.0  # who was thrown out by its own client id yields, lest the two throw each other


@dataclass(frozen=True, slots=True)
class PublisherCounters:
    """What became of the results so far."""

    delivered: int = 0
    """Acknowledged by the broker."""

    stale: int = 0
    """Dropped because they were older than intent_expiry_s when a connection stood."""

    overflowed: int = 0
    """Dropped, oldest first, because too many waited."""

    refused: int = 0
    """Refused by the broker, for example by its access rules."""

    unanswered: int = 0
    """Messages, presence and state among them, that a broker did not acknowledge in time; we connected again,
    and then sent the result if it was still fresh."""

    reconnects: int = 0
    """Connections after the first."""


def topic_level(name: str) -> str:
    """Make one level of a topic of a name.

    `+ # /`, which a topic would read as structure, and what MQTT forbids (control characters, surrogates,
    non-characters) become `_`; the rest is cut to MAX_LEVEL_CHARACTERS. Two names may so share a topic: the
    payload has the exact one.
    """
    level = "".join("_" if character in "+#/" or not _is_text(character) else character for character in name)
    return level[:MAX_LEVEL_CHARACTERS] or "_"


def base_topic(site: str) -> str:
    """Return below what all topics of a site are."""
    return f"edgevoice/{topic_level(site)}"


def result_fields(result: Result, site: str = "default") -> dict[str, object]:
    """Everything about a result as JSON types, the same on MQTT and from `edgevoice recognize --json`.

    Numbers are finite: NaN and infinities become None.
    """
    fields = {
        "utterance_id": result.utterance_id,
        "site": site,
        "time": result.time,
        "text": result.text,
        "intent": result.intent,
        "slots": result.slots,
        "slots_raw": result.slots_raw,
        "confidence": result.confidence,
        "accepted": result.accepted,
        "reason": result.reason,
        "heard": result.heard,
        "confirm": result.confirm,
        "follows": result.follows,
        "alternatives": [
            {"text": other.text, "intent": other.intent, "slots": other.slots, "score": other.score}
            for other in result.alternatives
        ],
        "start_s": result.start_s,
        "end_s": result.end_s,
        "latency_ms": result.latency_ms,
        "timings_ms": {**asdict(result.timings), "total": result.timings.total},
    }
    return {name: _json_value(value) for name, value in fields.items()}


class TakeCommand(Protocol):
    """Carries out a command; UsageError tells who sent it why not."""

    def __call__(self, name: str, payload: bytes, *, retained: bool) -> None:
        """Take its name, its topic from after `set/`, and what it says; in the publisher's thread."""


class TakeMessage(Protocol):
    """Takes what comes on other topics; must not wait, and raises nothing."""

    def __call__(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take it, in the network's thread."""


class Publisher:
    """Publishes results, the engine's state, its health and its presence below `edgevoice/<site>/`.

    `intent/<name>` and `rejected` get results, QoS 1, not retained, with a message expiry; `state`,
    `grammar`, `health` and `availability` (online, offline) are retained, and the broker itself says offline
    when we vanish.

    Results may be published before there is a connection and during an outage: they wait for as long as they
    are fresh.

    Args:
        settings: the broker.
        site: this engine's name among others at the broker.

    Raises:
        ConfigError: certificates or key cannot be used.
    """

    def __init__(self, settings: MqttSettings, site: str = "default") -> None:
        self._settings = settings
        self._site = site
        self._base = base_topic(site)
        client_id = settings.client_id or f"edgevoice-{topic_level(site)}-{secrets.token_hex(4)}"
        self._dialer = Dialer(
            settings,
            client_id,
            Outgoing(self._topic("availability"), b"offline"),
            self._on_message,
            self._on_end,
        )
        self._changed = threading.Condition()  # guards all below
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._closed = False  # takes nothing any more
        self._ending = False  # and sends nothing any more
        self._farewell = False  # the broker has our offline
        self._hurry = False  # somebody waits for a connection
        self._attempts = 0
        # Why there is no connection, or was none, in order, each told once; forgotten when one has lasted.
        self._failures: dict[str, None] = {}
        self._news = True  # since a connection was told of in the log
        self._told = False  # of the one that stands
        self._settles_s: float | None = None  # when it will have lasted; None: it has
        self._results: deque[Outgoing] = deque()
        self._retained: dict[str, bytes] = {}  # topic -> latest value
        self._first: dict[str, bytes] = {}  # topic -> what must be seen before that
        self._due: dict[str, None] = {}  # topics of retained values to send, in order
        self._in_flight: Outgoing | None = None
        self._delivered = self._stale = self._overflowed = self._refused = self._unanswered = 0
        self._connections = 0
        self._failures_reported = 0
        self._refusing: set[str] = set()  # topics on which the broker took nothing of late
        self._take_command: TakeCommand | None = None
        self._bids: deque[Outgoing] = deque(maxlen=_QUEUE_BIDS)
        self._others: list[tuple[frozenset[str], TakeMessage]] = []

    def __repr__(self) -> str:
        return f"Publisher({self._settings.address}, site={self._site!r}, connected={self.connected})"

    @property
    def connected(self) -> bool:
        """Whether a connection stands; it is restored in the background."""
        connection = self._connection
        return connection is not None and connection.alive

    @property
    def mqtt_version(self) -> str | None:
        """What is spoken on the connection: "5" or "3.1.1"; None without one."""
        connection = self._connection
        return connection.version if connection is not None and connection.alive else None

    @property
    def counters(self) -> PublisherCounters:
        """What became of the results so far."""
        return PublisherCounters(
            self._delivered,
            self._stale,
            self._overflowed,
            self._refused,
            self._unanswered,
            max(self._connections - 1, 0),
        )

    @property
    def failure(self) -> str | None:
        """Why there is no connection; None with one, or before the first attempt has failed."""
        with self._changed:
            return None if self.connected else next(reversed(self._failures), None)

    def figures(self) -> dict[str, object]:
        """The counters and what is spoken, for health.py."""
        return {**asdict(self.counters), "version": self.mqtt_version}

    @property
    def waiting(self) -> int:
        """Results that wait for the broker, the one on its way included."""
        in_flight = self._in_flight
        return len(self._results) + (in_flight is not None and in_flight.expires_s is not None)

    def start(self) -> None:
        """Connect in the background, now and whenever the connection is lost; failures are logged.

        Raises:
            BrokerError: the publisher is closed.
        """
        with self._changed:
            self._check_open()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edgevoice-publish", daemon=True)
                self._thread.start()

    def connect(self) -> None:
        """As start(), and wait for the outcome of one attempt.

        Raises:
            BrokerError: names the broker and why it could not be used; we go on trying until close().
        """
        self.start()
        with self._changed:
            attempts = self._attempts
            self._failures.clear()
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self.connected or self._closed or (self._attempts > attempts and self._failures)
            )
            if not self.connected:
                raise BrokerError(next(reversed(self._failures), "the publisher was closed"))

    def publish(self, result: Result) -> None:
        """Queue a result; returns at once.

        Raises:
            BrokerError: the publisher is closed.
        """
        name = result.intent if result.accepted else None
        level = "rejected" if name is None else f"intent/{topic_level(name)}"
        self._queue(self._topic(level), result_fields(result, self._site))

    def send(self, topic: str, fields: dict[str, object]) -> None:
        """Queue a message on any topic, which expires and is counted as a result is; returns at once.

        Raises:
            BrokerError: the publisher is closed.
        """
        self._queue(topic, {name: _json_value(value) for name, value in fields.items()})

    def _queue(self, topic: str, fields: dict[str, object]) -> None:
        payload = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        message = Outgoing(
            topic,
            payload.encode("utf-8", "replace"),  # a lone surrogate has no UTF-8
            clock_s() + self._settings.intent_expiry_s,
        )
        with self._changed:
            self._check_open()
            if len(self._results) >= _QUEUE_RESULTS:
                self._results.popleft()  # the oldest is the first to be stale anyway
                self._overflowed += 1
            self._results.append(message)
            self._changed.notify_all()

    def set_state(self, state: State) -> None:
        """Announce what the engine is doing; returns at once, and only the latest state is kept.

        Raises:
            BrokerError: the publisher is closed.
        """
        self._announce("state", state)

    def set_grammar(self, fields: dict[str, object]) -> None:
        """Announce which grammar is in use, as set_state() does a state.

        Raises:
            BrokerError: the publisher is closed.
        """
        self._announce("grammar", json.dumps(fields, ensure_ascii=False))

    def set_health(self, fields: dict[str, object]) -> None:
        """Announce how the engine fares, as set_state() does a state.

        Raises:
            BrokerError: the publisher is closed.
        """
        self._announce("health", json.dumps(fields, ensure_ascii=False, allow_nan=False))

    def set_settings(self, fields: dict[str, object]) -> None:
        """Announce what is set over MQTT, as set_state() does a state.

        Raises:
            BrokerError: the publisher is closed.
        """
        self._announce("settings", json.dumps(fields))

    def _announce(self, level: str, value: str) -> None:
        self.retain(self._topic(level), value)

    def retain(self, topic: str, value: str, first: str | None = None) -> None:
        """Announce a value on any topic, as set_state() does a state.

        Args:
            topic: where.
            value: the latest.
            first: a value that subscribers are sent before it, once; it may get lost with a connection.

        Raises:
            BrokerError: the publisher is closed.
        """
        with self._changed:
            self._check_open()
            self._retain(topic, value)
            if first is not None:
                self._first[topic] = first.encode("utf-8", "replace")

    def resend(self) -> None:
        """Announce all latest values again, for who has come after they were sent; returns at once."""
        with self._changed:
            self._due = dict.fromkeys(self._retained)
            self._changed.notify_all()

    def bid(self, payload: str) -> None:
        """Send a bid (settle.py) on `edgevoice/<site>/bid`, before everything else that waits; or never."""
        message = Outgoing(self._topic(_BID), payload.encode("utf-8", "replace"), clock_s() + BID_LIFE_S)
        with self._changed:
            self._bids.append(message)
            self._changed.notify_all()

    def also_take(self, topics: Iterable[str], take: TakeMessage) -> None:
        """Take what is published on other topics, too, from now on; they may have wildcards.

        Raises:
            BrokerError: the publisher is closed.
        """
        topics = frozenset(topics)
        with self._changed:
            self._check_open()
            self._others.append((topics, take))
        self._subscribe(topics)

    def serve(self, take: TakeCommand) -> None:
        """Take commands on `edgevoice/<site>/set/<name>` from now on, and answer who wants an answer.

        Raises:
            BrokerError: the publisher is closed.
        """
        with self._changed:
            self._check_open()
            self._take_command = take
        self._subscribe({self._topic("set/#")})

    def _subscribe(self, topics: Collection[str]) -> None:
        """Ask for messages on a connection that stands; on a new one, _use() does."""
        connection = self._connection
        if connection is not None and connection.alive:
            connection.subscribe(topics)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything handed over.

        Returns:
            False if time ran out, or if anything since the last flush was dropped or refused.
        """
        with self._changed:
            idle = self._wait_idle(timeout_s)
            failures = self._stale + self._overflowed + self._refused
            complete = idle and failures == self._failures_reported
            self._failures_reported = failures
            return complete

    def close(self) -> None:
        """Send what waits, say offline and disconnect; takes a few seconds at most, may be called twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            if self.connected and self._wait_idle(_CLOSE_S):
                self._retain(self._topic("availability"), "offline")
                self._farewell = self._wait_idle(_CLOSE_S) and self.connected
            self._ending = True
            self._changed.notify_all()
            thread, connection = self._thread, self._connection
        if connection is not None and not self._farewell:
            connection.give_up()  # the thread may wait for an acknowledgement
        if thread is not None:
            thread.join(_CLOSE_S)  # one that still waits for a broker to answer ends by itself

    # -- the publisher's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0  # in a row
        while not self._closed:
            started_s = clock_s()
            yields = False
            try:
                connection = self._dialer.open()
            except BrokerError as error:
                self._fail(str(error))
            else:
                try:
                    self._use(connection)
                finally:
                    connection.close(farewell=self._farewell)
                    self._leave(connection)
                yields = connection.taken_over
                if clock_s() - started_s > _SETTLED_S:
                    failures = 0
            delay_s = _TAKEN_OVER_S if yields else min(_RECONNECT_MIN_S * 2**failures, _RECONNECT_MAX_S)
            failures = min(failures + 1, 10)  # 2**10 s is far above the bound
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._hurry,
                    delay_s * random.uniform(0.5, 1.0),  # noqa: S311 - lest a whole house keeps step
                )

    def _use(self, connection: Connection) -> None:
        """Send what there is to send, until the connection or the publisher ends."""
        subscribed: set[str] = set()
        while True:
            if missing := self._filters() - subscribed:  # before anybody is told that we are there
                connection.subscribe(missing)
                subscribed |= missing
            with self._changed:
                if self._filters() <= subscribed:
                    self._begin(connection)
                    break
        self._told = False
        if self._news:
            self._tell(connection)
        while (message := self._next(connection)) is not None:
            failure = connection.send(message)
            with self._changed:
                if self._in_flight is not None:
                    self._settle(message, failure)
                self._in_flight = None
                self._changed.notify_all()

    def _begin(self, connection: Connection) -> None:
        """Have everything sent that a new connection must have; call with the lock held."""
        self._connection = connection
        self._connections += 1
        self._settles_s = clock_s() + _SETTLED_S
        self._hurry = False
        self._due = {topic: None for topic in self._retained if topic != self._topic("availability")}
        self._retain(self._topic("availability"), "offline" if self._closed else "online")
        self._bids.clear()  # of a time that is over

    def _next(self, connection: Connection) -> Outgoing | None:
        """Wait for a message to send, retained values first; None when there is nobody to send it to."""
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._ending or not connection.alive or self._bids or self._due or self._results,
                    None if self._settles_s is None else max(0.0, self._settles_s - clock_s()),
                )
                self._look_whether_settled(connection)
                if self._ending or not connection.alive:
                    return None
                if self._bids:
                    return self._bids.popleft()  # not in flight: nobody waits for it, and it is not counted
                if self._due:
                    topic = next(iter(self._due))
                    value = self._first.pop(topic, None)
                    if value is None:
                        value = self._retained[topic]
                        del self._due[topic]
                    self._in_flight = Outgoing(topic, value)
                    return self._in_flight
                if not self._results:  # it has only lasted
                    continue
                message = self._results.popleft()
                if message.expires_s is None or clock_s() + _TRANSIT_S < message.expires_s:
                    self._in_flight = message
                    return message
                self._stale += 1
                _log.warning("dropped a result for %s: it is older than its time", message.topic)
                self._changed.notify_all()

    def _settle(self, message: Outgoing, failure: str | None) -> None:
        """Keep the books on a message that was sent; call with the lock held."""
        is_result = message.expires_s is not None
        if failure is None:
            if is_result:  # retained values are due on each connection anyway
                self._results.appendleft(message)
        elif failure:
            self._refused += is_result
            level = logging.DEBUG if message.topic in self._refusing else logging.ERROR
            self._refusing.add(message.topic)
            _log.log(
                level,
                "the broker refused a message on %s: %s; check its access rules and limits",
                message.topic,
                failure,
            )
        else:
            self._delivered += is_result
            self._refusing.discard(message.topic)

    def _look_whether_settled(self, connection: Connection) -> None:
        """Forget what was before a connection that has lasted; call with the lock held."""
        if self._settles_s is not None and clock_s() >= self._settles_s:
            self._settles_s = None
            self._failures.clear()
            if not self._told:
                self._tell(connection)

    def _tell(self, connection: Connection) -> None:
        self._told, self._news = True, False
        _log.info("connected to the MQTT broker at %s, MQTT %s", self._settings.address, connection.version)

    def _leave(self, connection: Connection) -> None:
        """Note how a connection ended."""
        why = connection.lost_because
        if connection.taken_over:
            why = f"{why}; another client uses client_id {self._dialer.client_id!r}; give each its own"
        elif why and self._settings.client_id:  # mosquitto 2.0 does not say so, and MQTT 3.1.1 cannot
            why += f"; if this repeats, does another client use client_id {self._settings.client_id!r}?"
        failure = f"lost the MQTT broker at {self._settings.address}: {why}"
        with self._changed:
            self._connection = None
            self._unanswered += connection.unanswered
            self._changed.notify_all()
            if why is None or self._ending:
                return
            news = self._note(failure)
        # With each that was told of goes a line that it is lost: the last one says how it is.
        _log.log(
            logging.WARNING if news or self._told else logging.DEBUG,
            "%s; connecting again in the background",
            failure,
        )

    def _fail(self, failure: str) -> None:
        """Note why there is no connection, and log each reason once an outage."""
        with self._changed:
            self._attempts += 1
            self._hurry = False
            news = self._note(failure)
        if news and not self._closed:
            _log.warning("%s; trying again until it does", failure)

    def _note(self, failure: str) -> bool:
        """Note why there is no connection, and return whether that is new; call with the lock held."""
        news = failure not in self._failures
        self._failures.pop(failure, None)
        self._failures[failure] = None  # the last
        self._news = self._news or news
        self._changed.notify_all()
        return news

    # -- called by paho's network thread --------------------------------------------------------------------

    def _on_end(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _on_message(self, connection: Connection, message: MQTTMessage) -> None:
        if not message.topic.startswith(self._topic("set/")):
            for topics, take in list(self._others):
                if any(topic_matches_sub(topic, message.topic) for topic in topics):
                    take(message.topic, bytes(message.payload), retained=message.retain)
            return
        answer: dict[str, object] = {"ok": True}
        try:
            self._carry_out(message)
        except (UsageError, BrokerError) as error:  # BrokerError: we are about to end
            _log.warning("a command was not carried out: %s", error)
            answer = {"ok": False, "error": str(error)}
        topic = getattr(message.properties, "ResponseTopic", None)
        if topic is None or message.retain:  # who retained it does not wait any more
            return
        if topic.startswith(self._topic("")) and not topic.startswith(self._topic("answer/")):
            _log.warning("a command asks for an answer on %.100r, which is ours; none is sent", topic)
            return
        key = getattr(message.properties, "CorrelationData", None)
        try:
            connection.answer(topic, json.dumps(answer), key, self._settings.intent_expiry_s)
        except ValueError as error:  # a topic that is none
            _log.warning("a command asks for an answer where none can go: %s", error)

    def _carry_out(self, message: MQTTMessage) -> None:
        if self._take_command is None:
            raise UsageError("nothing is listening yet; send it again")
        if len(message.payload) > MAX_PACKET_BYTES:  # with MQTT 3.1.1 the broker does not know
            raise UsageError(f"{len(message.payload)} bytes seen; allowed are {MAX_PACKET_BYTES}; send less")
        name = message.topic.removeprefix(self._topic("set/"))
        self._take_command(name, bytes(message.payload), retained=message.retain)

    # -- helpers --------------------------------------------------------------------------------------------

    def _filters(self) -> set[str]:
        """Return what is subscribed to."""
        own = {self._topic("set/#")} if self._take_command is not None else set()
        return own.union(*(topics for topics, _ in self._others))

    def _topic(self, level: str) -> str:
        return f"{self._base}/{level}"

    def _retain(self, topic: str, value: str) -> None:
        """Set a retained value and have it sent, now or on the next connection; call with the lock held."""
        self._retained[topic] = value.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        self._due[topic] = None
        self._changed.notify_all()

    def _wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to send or to be acknowledged; call with the lock held."""
        return self._changed.wait_for(lambda: not (self._results or self._due or self._in_flight), timeout_s)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("the publisher is closed; make a new one")


def _is_text(character: str) -> bool:
    """Whether MQTT allows a character in a topic: no control, surrogate or non-character."""
    code = ord(character)
    return not (
        code < 0x20
        or 0x7F <= code <= 0x9F
        or 0xD800 <= code <= 0xDFFF
        or 0xFDD0 <= code <= 0xFDEF
        or code & 0xFFFE == 0xFFFE
    )


def _json_value(value: object) -> object:
    """Bring a value to JSON's types; NumPy's numbers come along, and what has no equal becomes text."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value)
