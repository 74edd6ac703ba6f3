"""Results to MQTT 5: soon or never.

The way of one result:

1. publish() turns it into JSON, notes until when it is worth anything and puts it into a bounded queue; the
   thread that recognises never waits for the network.
2. The sender thread takes it when a connection stands, drops it if its time is over, and hands it to paho.
3. It waits for the broker's acknowledgement before it takes the next one, so paho never holds more than one.
   If none comes in time, it breaks the connection itself.
4. If the connection breaks in between, paho would send that one again, however late. So on each new
   connection we take it back from paho before it can, and decide again as in 2. A result can arrive twice
   only when its acknowledgement was lost, within its time; `utterance_id` tells.

Locks: paho calls on_publish() with its message lock held, and the sender calls paho with ours held. So
on_publish() never takes ours: acknowledgements travel through a queue.

Commands come in on the same connection (commands.py): serve() subscribes, and again on each new connection.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import secrets
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgevoice.config import mqtt_password
from edgevoice.errors import BrokerError, ConfigError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from paho.mqtt.client import MQTTMessage

    from edgevoice.config import Config
    from edgevoice.events import Result

_log = logging.getLogger(__name__)

State = Literal["listening", "speech", "recognising", "muted", "lost"]
"""What the engine is doing; lost: the microphone is gone."""

MAX_LEVEL_CHARACTERS: Final = 100
"""Longest topic level made of a name; names are a few words, and a topic has a limit of 65,535 bytes."""

_QUEUE_RESULTS: Final = 64  # more than anyone says within an outage short enough for them to matter
_CLOSE_S: Final = 2.0  # how long a clean end may wait for the broker
_ACKNOWLEDGE_S: Final = 10.0  # a broker needs milliseconds; by default a result is void after half of this
_RECONNECT_MIN_S: Final = 1  # soon enough for a broker that restarts
_RECONNECT_MAX_S: Final = (
    10  # a broker in the same house can bear it; longer waits leave people speaking in vain
)
_TAKEN_BACK: Final = "connection lost"  # the fate of a message whose acknowledgement cannot come any more
_UNSPECIFIED: Final = 0x80  # the reason paho gives when a connection ends without one
_AT_LEAST_ONCE: Final = 1  # MQTT's quality of service


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is and how to log in.

    Raises:
        ConfigError: a value out of range, or one that has no effect without another.
    """

    host: str = "localhost"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str | None = None
    """Must be unique at the broker; None derives one from the site, with a random end."""

    tls: bool = False
    ca_file: str | os.PathLike[str] | None = None
    """PEM certificates to trust in place of the system's."""

    keepalive_s: int = 30
    """A machine that vanished is announced as offline after one and a half times this."""

    intent_expiry_s: float = 5.0
    """A result older than this is dropped, by us or by the broker."""

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("mqtt host is empty; give the broker's name or address")
        if not 1 <= self.port <= 65_535:
            raise ConfigError(f"mqtt port is {self.port}; use 1 to 65535 (usual: 1883, with TLS 8883)")
        if not 1 <= self.keepalive_s <= 65_535:
            raise ConfigError(f"mqtt keepalive_s is {self.keepalive_s}; use 1 to 65535")
        if not 0 < self.intent_expiry_s <= 3_600:  # an hour later no command is meant any more
            raise ConfigError(
                f"mqtt intent_expiry_s is {self.intent_expiry_s}; use more than 0, at most 3600"
            )
        if self.password is not None and not self.username:
            raise ConfigError("mqtt password is set without username; set both")
        if self.ca_file is not None and not self.tls:
            raise ConfigError(f"mqtt ca_file is {str(self.ca_file)!r} but tls is off; set tls: true")

    @property
    def address(self) -> str:
        """host:port, for messages."""
        return f"{self.host}:{self.port}"


def mqtt_settings(config: Config) -> MqttSettings:
    """Return the broker of a configuration that names one.

    Raises:
        ConfigError: the password cannot be read, or values contradict each other.
    """
    mqtt = config.mqtt
    return MqttSettings(
        host=mqtt.host or "",
        port=mqtt.port,
        username=mqtt.username,
        password=mqtt_password(config),
        client_id=mqtt.client_id or "",
        tls=mqtt.tls.enabled,
        ca_file=mqtt.tls.ca_file,
        keepalive_s=mqtt.keepalive_s,
        intent_expiry_s=mqtt.intent_expiry_s,
    )


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


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    expires_s: float | None
    """On the monotonic clock; None for a retained value, which is always the latest."""


def topic_level(name: str) -> str:
    """Make one level of a topic of a name.

    `+ # /`, which a topic would read as structure, and what MQTT forbids (control characters, surrogates,
    non-characters) become `_`; the rest is cut to MAX_LEVEL_CHARACTERS. Two names may so share a topic: the
    payload has the exact one.
    """
    level = "".join("_" if character in "+#/" or not _is_text(character) else character for character in name)
    return level[:MAX_LEVEL_CHARACTERS] or "_"


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
        """Take it, in the publisher's thread."""


class Publisher:
    """Publishes results, the engine's state and its presence below `edgevoice/<site>/`.

    `intent/<name>` and `rejected` get results, QoS 1, not retained, with a message expiry; `state` and
    `availability` (online, offline) are retained, and the broker itself says offline when we vanish.

    Results may be published before connect() and during an outage: they wait for as long as they are fresh.

    Args:
        settings: the broker.
        site: this engine's name among others at the broker.
    """

    def __init__(self, settings: MqttSettings, site: str = "default") -> None:
        self._settings = settings
        self._site = site
        self._prefix = f"edgevoice/{topic_level(site)}"
        self._client_id = settings.client_id or f"edgevoice-{topic_level(site)}-{secrets.token_hex(4)}"
        self._changed = threading.Condition()  # guards all below
        self._client: Client | None = None
        self._sender: threading.Thread | None = None
        self._connected = False
        self._closed = False
        self._failure: str | None = None  # why the broker did not take us
        self._results: deque[_Message] = deque()
        self._retained: dict[str, bytes] = {}  # topic -> latest value
        self._due: dict[str, None] = {}  # topics of retained values to send, in order
        self._in_flight: _Message | None = None
        self._delivered = self._stale = self._overflowed = self._refused = self._unanswered = 0
        self._failures_reported = 0
        self._take_command: TakeCommand | None = None
        self._others: tuple[str, ...] = ()  # other topics, and who takes what comes there
        self._take_other: TakeMessage | None = None
        self._answers: set[int] = set()  # ids of answers on their way; only paho's network thread has it
        # (message id, why it failed); "" stands for acknowledged, _TAKEN_BACK for a lost connection
        self._outcomes: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return f"Publisher({self._settings.address}, site={self._site!r}, connected={self._connected})"

    @property
    def connected(self) -> bool:
        """Whether a connection stands; it is restored in the background."""
        return self._connected

    @property
    def counters(self) -> PublisherCounters:
        """What became of the results so far."""
        return PublisherCounters(
            self._delivered, self._stale, self._overflowed, self._refused, self._unanswered
        )

    def connect(self, timeout_s: float = 5.0) -> None:
        """Connect to the broker once; afterwards the connection is restored in the background.

        Raises:
            BrokerError: names the broker and why it could not be used; connect() may be called again.
        """
        with self._changed:
            self._check_open()
            if self._client is not None:
                return
            self._failure = None
        deadline_s = time.monotonic() + timeout_s
        try:
            client = self._make_client(timeout_s)
            client.connect(
                self._settings.host, self._settings.port, self._settings.keepalive_s, clean_start=True
            )
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be one
            raise BrokerError(
                f"no connection to the MQTT broker at {self._settings.address}: {why_not(error)}"
            ) from error
        client.loop_start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._connected or self._failure is not None, deadline_s - time.monotonic()
            )
            failure = self._failure or f"no answer within {timeout_s:g} s; is it an MQTT broker?"
            if self._connected:
                self._client = client
                self._sender = threading.Thread(target=self._send_all, name="edgevoice-publish", daemon=True)
                self._sender.start()
                return
        client.disconnect()
        client.loop_stop()
        del client  # closes paho's wake-up sockets now, not when the traceback is collected
        raise BrokerError(f"the MQTT broker at {self._settings.address} did not take us: {failure}")

    def publish(self, result: Result) -> None:
        """Queue a result; returns at once.

        Raises:
            BrokerError: the publisher is closed.
        """
        name = result.intent if result.accepted else None
        level = "rejected" if name is None else f"intent/{topic_level(name)}"
        payload = json.dumps(result_fields(result, self._site), ensure_ascii=False, allow_nan=False)
        self._queue_result(f"{self._prefix}/{level}", payload)

    def _queue_result(self, topic: str, payload: str) -> None:
        message = _Message(
            topic,
            payload.encode("utf-8", "replace"),  # a lone surrogate has no UTF-8
            time.monotonic() + self._settings.intent_expiry_s,
        )
        with self._changed:
            self._check_open()
            if len(self._results) >= _QUEUE_RESULTS:
                self._results.popleft()  # the oldest is the first to be stale anyway
                self._overflowed += 1
            self._results.append(message)
            self._changed.notify_all()

    def send(self, topic: str, fields: dict[str, object]) -> None:
        """Queue a message on any topic, which expires and is counted as a result is; returns at once.

        Raises:
            BrokerError: the publisher is closed.
        """
        payload = json.dumps(_json_value(fields), ensure_ascii=False, allow_nan=False)
        self._queue_result(topic, payload)

    def also_take(self, topics: Sequence[str], take: TakeMessage) -> None:
        """Take what is published on other topics, too, from now on, and again on each new connection."""
        with self._changed:
            self._check_open()
            self._others, self._take_other = tuple(topics), take
            if self._connected and self._client is not None:
                self._client.subscribe([(topic, _AT_LEAST_ONCE) for topic in topics])

    def set_state(self, state: State) -> None:
        """Announce what the engine is doing; returns at once, and only the latest state is kept.

        Raises:
            BrokerError: the publisher is closed.
        """
        with self._changed:
            self._check_open()
            self._retain("state", state)

    def set_grammar(self, fields: dict[str, object]) -> None:
        """Announce which grammar is in use, as set_state() does a state.

        Raises:
            BrokerError: the publisher is closed.
        """
        with self._changed:
            self._check_open()
            self._retain("grammar", json.dumps(fields, ensure_ascii=False))

    def serve(self, take: TakeCommand) -> None:
        """Take commands on `edgevoice/<site>/set/<name>` from now on, and answer who wants an answer."""
        with self._changed:
            self._check_open()
            self._take_command = take
            if self._connected and self._client is not None:
                self._subscribe(self._client)

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
            client, sender = self._client, self._sender
            farewell = self._connected and self._wait_idle(_CLOSE_S)
            if farewell:
                self._retain("availability", "offline")
                farewell = self._wait_idle(_CLOSE_S)
            self._client = None  # tells the sender to end
            self._changed.notify_all()
        if client is None or sender is None:
            return
        self._outcomes.put(None)
        # If our offline did not get through, the broker shall publish the last will in its place.
        reason = "Normal disconnection" if farewell else "Disconnect with will message"
        client.disconnect(ReasonCode(PacketTypes.DISCONNECT, reason))
        client.loop_stop()
        sender.join()

    # -- the sender thread ----------------------------------------------------------------------------------

    def _send_all(self) -> None:
        while (message_id := self._hand_over()) is not None:
            failure = self._await_outcome(message_id)
            if failure is None:
                return
            with self._changed:
                message, self._in_flight = self._in_flight, None
                if message is not None:
                    self._settle(message, failure)
                self._changed.notify_all()

    def _settle(self, message: _Message, failure: str) -> None:
        """Keep the books on a message that paho has done with; call with the lock held."""
        is_result = message.expires_s is not None
        if failure == _TAKEN_BACK:
            if is_result:  # retained values are due on each connection anyway
                self._results.appendleft(message)
        elif failure:
            self._refused += is_result
            _log.error(
                "the broker refused a message on %s: %s; check its access rules", message.topic, failure
            )
        else:
            self._delivered += is_result

    def _hand_over(self) -> int | None:
        """Wait for something to send and give it to paho; None when the publisher ends."""
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._client is None or (self._connected and bool(self._due or self._results))
                )
                if self._client is None:
                    return None
                message = self._take()
                if message is None:
                    self._changed.notify_all()
                    continue
                self._in_flight = message
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                if message.expires_s is not None:
                    properties.MessageExpiryInterval = max(1, math.ceil(message.expires_s - time.monotonic()))
                return self._client.publish(
                    message.topic,
                    message.payload,
                    qos=_AT_LEAST_ONCE,
                    retain=message.expires_s is None,
                    properties=properties,
                ).mid

    def _take(self) -> _Message | None:
        """Next message to send, retained values first; None if what waited was stale."""
        if self._due:
            topic = next(iter(self._due))
            del self._due[topic]
            return _Message(topic, self._retained[topic], None)
        message = self._results.popleft()
        if message.expires_s is not None and time.monotonic() >= message.expires_s:
            self._stale += 1
            _log.warning("dropped a result for %s: it is older than its time", message.topic)
            return None
        return message

    def _await_outcome(self, message_id: int) -> str | None:
        """Wait for the end of a message: "" acknowledged, else why not; None when the publisher ends."""
        while True:
            try:
                outcome = self._outcomes.get(timeout=_ACKNOWLEDGE_S)
            except queue.Empty:
                self._break_connection()
                continue  # the next connection brings the message back
            if outcome is None:
                return None
            if outcome[0] == message_id:
                return outcome[1]

    def _break_connection(self) -> None:
        """End a connection on which no acknowledgement comes; paho then makes a new one."""
        with self._changed:
            connection = self._client.socket() if self._client and self._connected else None
            if not isinstance(connection, socket.socket):  # gone meanwhile
                return
            self._unanswered += 1
        _log.warning(
            "the MQTT broker at %s did not acknowledge a message within %g s; ending the connection",
            self._settings.address,
            _ACKNOWLEDGE_S,
        )
        try:
            # Not the method of a TLS socket, which takes its state away from the thread that reads from it.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError as error:
            _log.debug("the connection had ended already: %s", error)

    # -- called by paho's network thread --------------------------------------------------------------------

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            self._fail(remedy(str(reason)))
            return
        # Clean start: nothing is left of the last session, so nothing may be sent again on its behalf.
        for message in client.drop_out_messages():
            self._outcomes.put((message.mid, _TAKEN_BACK))
        self._answers.clear()
        with self._changed:
            self._failure = None
            self._connected = True
            self._due = {topic: None for topic in self._retained if topic != self._topic("availability")}
            if not self._closed:
                self._retain("availability", "online")
            self._subscribe(client)
            self._changed.notify_all()
        _log.info("connected to the MQTT broker at %s", self._settings.address)

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any
    ) -> None:
        with self._changed:
            was_connected, self._connected = self._connected, False
            self._changed.notify_all()
        if not was_connected:
            self._fail("it closed the connection; is it an MQTT 5 broker, and does tls fit it?")
        elif not self._closed:
            why = remedy(str(reason)) if reason.value != _UNSPECIFIED else "the connection broke"
            if self._settings.client_id:  # brokers rarely say so when they replace one client by another
                why += f"; if this repeats, does another client use client_id {self._settings.client_id!r}?"
            _log.warning(
                "lost the MQTT broker at %s: %s; connecting again in the background",
                self._settings.address,
                why,
            )

    def _on_publish(
        self, _client: Client, _data: Any, message_id: int, reason: ReasonCode, _props: Any
    ) -> None:
        if message_id in self._answers:
            self._answers.discard(message_id)
        else:
            self._outcomes.put((message_id, str(reason) if reason.is_failure else ""))

    def _on_subscribe(
        self, _client: Client, _data: Any, _id: int, reasons: list[ReasonCode], _props: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            _log.error(
                "the broker refuses us commands on %s: %s; check its access rules",
                " or ".join([self._topic("set/#"), *self._others[:1]]),
                next(reason for reason in reasons if reason.is_failure),
            )

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        if not message.topic.startswith(self._topic("set/")):
            if self._take_other is not None:
                self._take_other(message.topic, bytes(message.payload), retained=message.retain)
            return
        if self._take_command is None:
            return
        answer: dict[str, object] = {"ok": True}
        try:
            name = message.topic.removeprefix(self._topic("set/"))
            self._take_command(name, bytes(message.payload), retained=message.retain)
        except UsageError as error:
            _log.warning("a command was not carried out: %s", error)
            answer = {"ok": False, "error": str(error)}
        topic = getattr(message.properties, "ResponseTopic", None)
        if topic is None or message.retain:  # who retained it does not wait any more
            return
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = math.ceil(self._settings.intent_expiry_s)
        if (key := getattr(message.properties, "CorrelationData", None)) is not None:
            properties.CorrelationData = key
        try:
            # At most once: who waits sends again, and nothing piles up here.
            sent = client.publish(topic, json.dumps(answer), properties=properties)
        except ValueError as error:  # a topic that is none
            _log.warning("a command asks for an answer where none can go: %s", error)
        else:
            self._answers.add(sent.mid)

    # -- helpers --------------------------------------------------------------------------------------------

    def _make_client(self, timeout_s: float) -> Client:
        client = new_client(self._settings, self._client_id, timeout_s)
        client.reconnect_delay_set(_RECONNECT_MIN_S, _RECONNECT_MAX_S)
        client.will_set(self._topic("availability"), b"offline", qos=_AT_LEAST_ONCE, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _subscribe(self, client: Client) -> None:
        own = [self._topic("set/#")] if self._take_command is not None else []
        if topics := [*own, *self._others]:
            client.subscribe([(topic, _AT_LEAST_ONCE) for topic in topics])

    def _topic(self, level: str) -> str:
        return f"{self._prefix}/{level}"

    def _retain(self, level: str, value: str) -> None:
        """Set a retained value and have it sent, now or on the next connection; call with the lock held."""
        self._retained[self._topic(level)] = value.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        self._due[self._topic(level)] = None
        self._changed.notify_all()

    def _fail(self, failure: str) -> None:
        """Note why the broker does not take us, and log the first reason of an outage."""
        with self._changed:
            news = self._failure is None and self._client is not None
            self._failure = self._failure or failure
            self._changed.notify_all()
        if news:
            _log.warning("the MQTT broker at %s does not take us: %s", self._settings.address, failure)

    def _wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to send or to be acknowledged; call with the lock held."""
        return self._changed.wait_for(lambda: not (self._results or self._due or self._in_flight), timeout_s)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("the publisher is closed; make a new one")


def new_client(settings: MqttSettings, client_id: str, timeout_s: float) -> Client:
    """Make a client that is not connected yet."""
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5)
    if settings.username:
        client.username_pw_set(settings.username, settings.password)
    if settings.tls:
        client.tls_set_context(_tls_context(settings))
    client.connect_timeout = timeout_s
    return client


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise BrokerError(
            f"mqtt ca_file {str(settings.ca_file)!r} cannot be used ({error}); give PEM certificates"
        ) from error


def why_not(error: Exception) -> str:
    """Say why a connection could not be made, and what to do."""
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror}); check mqtt host"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the broker running, and on this port?"
    if isinstance(error, TimeoutError):
        return "no answer in time; check address and firewall"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}); set mqtt ca_file or the name it is for"
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}); does this port speak TLS?"
    return f"{error}; check mqtt host and port"


def remedy(reason: str) -> str:
    """Add what to do to a reason of the broker's."""
    lowered = reason.lower()
    if "authori" in lowered or "password" in lowered:
        return f"{reason}; check mqtt username and password"
    if "protocol version" in lowered:
        return f"{reason}; it must speak MQTT 5 (mosquitto 1.6 or later)"
    return reason


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
