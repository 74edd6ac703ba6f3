"""One connection to the MQTT broker: MQTT 5, or 3.1.1 where the broker knows no more.

    MqttSettings -> Dialer.open() -> Connection: send() one message after the other, until it is lost

paho makes the connection and serves it in a thread of its own. A connection that was lost is never made
again; a new one takes its place. So nothing that the old one held can be sent once more, however late.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import socket
import ssl
import stat
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgevoice.config import mqtt_password
from edgevoice.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from paho.mqtt.client import MQTTMessage

    from edgevoice.config import Config

_log = logging.getLogger(__name__)

MAX_PACKET_BYTES: Final = 1_100_000
"""Longest message we take: a list of 1 MB (reload.py) with its topic. MQTT 5 tells the broker so."""

UNSUPPORTED_VERSION: Final = 0x84
"""Of a broker that does not know our MQTT (MQTT 5, 3.2.2.2); paho makes 3.1.1's code 1 the same."""

_ACKNOWLEDGE_S: Final = 10.0  # a broker needs milliseconds; by default a result is void after half of this
_SUBSCRIBE_S: Final = 2.0  # as long as results may wait for it
_MAX_MQTT_BYTES: Final = 268_435_455  # the length of a packet has 28 bits (MQTT 5, 1.5.5)
_HEADER_BYTES: Final = 16  # type, length of packet, topic and properties, packet identifier, expiry
_GOODBYE_S: Final = 1.0  # to hand a broker that reads slowly our last word
_PROMPT_S: Final = 0.1  # from publish() to here on a busy machine; MQTT counts whole seconds
_AT_LEAST_ONCE: Final = 1  # MQTT's quality of service
_SURE_DOUBTS: Final = 2  # once may be a broker that starts
_TAKEN_OVER: Final = 0x8E  # MQTT 5, 3.14.2.1: another client has come with our client id
_UNSPECIFIED: Final = 0x80  # the reason paho gives when a connection ends without one


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
    """Encrypted, TLS 1.2 or later, and the broker's certificate is checked."""

    ca_file: str | os.PathLike[str] | None = None
    """PEM certificates to trust in place of the system's."""

    cert_file: str | os.PathLike[str] | None = None
    """Our own certificate (PEM), for a broker that asks for one."""

    key_file: str | os.PathLike[str] | None = None
    """Its key (PEM), not encrypted; None: it is in cert_file, too."""

    keepalive_s: int = 30
    """A machine that vanished is announced as offline after one and a half times this."""

    intent_expiry_s: float = 5.0
    """A result older than this is dropped, by us or by the broker."""

    connect_timeout_s: float = 5.0
    """How long the broker may take to answer."""

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
        if not 0 < self.connect_timeout_s <= 120:  # as in the configuration
            raise ConfigError(
                f"mqtt connect_timeout_s is {self.connect_timeout_s}; use more than 0, at most 120"
            )
        if self.password is not None and not self.username:
            raise ConfigError("mqtt password is set without username; set both")
        for name in ("ca_file", "cert_file", "key_file"):
            if (value := getattr(self, name)) is not None and not self.tls:
                raise ConfigError(f"mqtt {name} is {str(value)!r} but tls is off; set tls: true")
        if self.key_file is not None and self.cert_file is None:
            raise ConfigError("mqtt key_file is set without cert_file; set both")

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
        cert_file=mqtt.tls.cert_file,
        key_file=mqtt.tls.key_file,
        keepalive_s=mqtt.keepalive_s,
        intent_expiry_s=mqtt.intent_expiry_s,
        connect_timeout_s=mqtt.connect_timeout_s,
    )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to the broker."""

    topic: str
    payload: bytes
    expires_s: float | None = None
    """On the monotonic clock; None for a retained value, which is always the latest."""


class Dialer:
    """Opens connections, and remembers which MQTT the broker knows.

    Args:
        settings: the broker.
        client_id: ours.
        will: retained; what the broker says for us when we vanish.
        on_message: given each message that comes, in paho's thread.
        on_end: told that a connection was lost, there, too.

    Raises:
        ConfigError: certificates or key cannot be used.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        will: Outgoing,
        on_message: Callable[[Connection, MQTTMessage], None],
        on_end: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.client_id = client_id
        self.will = will
        self.on_message = on_message
        self.on_end = on_end
        self.tls = tls_context(settings) if settings.tls else None
        self._version = MQTTv5
        self._doubts = 0  # how often in a row MQTT 5 failed without a word, and 3.1.1 did not

    def open(self) -> Connection:
        """Connect, log in, and return the connection.

        A broker that refuses MQTT 5 is asked for 3.1.1 at once, and from then on. So is one that just hangs
        up or says nothing when it sees MQTT 5, as some old ones do; but as that is also what a broker does
        that is about to start or to end, it is asked for 5 once more the next time.

        Raises:
            BrokerError: names the broker and why it could not be used.
        """
        try:
            connection = Connection(self, self._version)
        except _VersionError as refusal:
            if self._version == MQTTv311:
                raise
            connection = self._open_old(refusal)
        else:
            self._doubts = 0
        return connection

    def _open_old(self, refusal: _VersionError) -> Connection:
        try:
            connection = Connection(self, MQTTv311)
        except BrokerError:
            raise refusal from None
        self._doubts += 1
        if refusal.certain or self._doubts >= _SURE_DOUBTS:
            self._version = MQTTv311
        _log.warning(
            "the MQTT broker at %s knows only MQTT 3.1.1: it does not drop what grows stale while it waits "
            "for a subscriber, and who sends a command gets no answer",
            self.settings.address,
        )
        return connection


class _VersionError(BrokerError):
    """The broker may know an older MQTT only."""

    def __init__(self, text: str, *, certain: bool = False) -> None:
        super().__init__(text)
        self.certain = certain


class Connection:
    """One connection, from its beginning to its end; made by a Dialer.

    Raises:
        BrokerError: the broker cannot be reached, or does not take us.
    """

    def __init__(self, dialer: Dialer, version: MQTTProtocolVersion) -> None:
        settings = dialer.settings
        self.version = "5" if version == MQTTv5 else "3.1.1"
        self.alive = False
        self.lost_because: str | None = None
        """Why it ended, unless we wanted it."""
        self.taken_over = False
        """Whether it ended because another client has our client id."""
        self.unanswered = False
        """Whether we broke it because the broker did not acknowledge a message."""
        self._dialer = dialer
        self._most_bytes = _MAX_MQTT_BYTES
        self._address = settings.address
        self._opened: queue.SimpleQueue[BrokerError | None] = queue.SimpleQueue()
        # (message id, why it failed), "" if it did not; None: the connection is lost
        self._outcomes: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._answers: set[int] = set()  # ids of answers on their way; only paho's thread has it
        self._subscribed = threading.Event()
        self._ended = threading.Event()
        self._client = new_client(
            settings, dialer.client_id, settings.connect_timeout_s, version=version, tls=dialer.tls
        )
        self._client.will_set(
            dialer.will.topic, dialer.will.payload, qos=_AT_LEAST_ONCE, retain=dialer.will.expires_s is None
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        try:
            self._open(settings)
        except BrokerError:
            self.close()
            raise

    def _open(self, settings: MqttSettings) -> None:
        connect(self._client, settings)
        self._client.loop_start()
        try:
            failure = self._opened.get(timeout=settings.connect_timeout_s)
        except queue.Empty:
            why = f"no answer within {settings.connect_timeout_s:g} s; is it an MQTT broker?"
            failure = _VersionError(str(self._refusal(why)))
        if failure is not None:
            raise failure

    def send(self, message: Outgoing) -> str | None:
        """Send a message and wait until the broker has acknowledged it; for one thread.

        Returns:
            "" if it has, or why it refused; None if the connection is lost, and nobody knows.
        """
        if len(message.topic.encode()) + len(message.payload) + _HEADER_BYTES > self._most_bytes:
            # It would end the connection, and a retained one each that follows.
            return f"it takes {self._most_bytes} bytes at most, and this has {len(message.payload)}"
        properties = None
        if message.expires_s is not None and self.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            left_s = message.expires_s - clock_s()
            properties.MessageExpiryInterval = max(1, math.floor(left_s + _PROMPT_S))
        message_id = self._client.publish(
            message.topic,
            message.payload,
            qos=_AT_LEAST_ONCE,
            retain=message.expires_s is None,
            properties=properties,
        ).mid
        while True:
            try:
                outcome = self._outcomes.get(timeout=_ACKNOWLEDGE_S)
            except queue.Empty:
                self.unanswered = True
                self.alive = False
                self.lost_because = f"it did not acknowledge a message within {_ACKNOWLEDGE_S:g} s"
                self._break()
                return None
            if outcome is None:
                return None
            if outcome[0] == message_id:
                return outcome[1]

    def subscribe(self, topics: Collection[str]) -> None:
        """Ask for messages, and wait a little for the broker's consent. A refusal is logged."""
        self._subscribed.clear()
        self._client.subscribe([(topic, _AT_LEAST_ONCE) for topic in topics])
        self._subscribed.wait(_SUBSCRIBE_S)

    def answer(self, topic: str, payload: str, key: bytes | None, expiry_s: float) -> None:
        """Answer a message of MQTT 5, at most once: who waits sends again, and nothing piles up here.

        Called by on_message.

        Raises:
            ValueError: a topic that is none.
        """
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = math.ceil(expiry_s)
        if key is not None:
            properties.CorrelationData = key
        self._answers.add(self._client.publish(topic, payload, properties=properties).mid)

    def give_up(self) -> None:
        """End it from another thread, so that send() and the broker's last will do what they do then."""
        self._break()

    def close(self, *, farewell: bool = False) -> None:
        """End it and release everything; may be called twice.

        Args:
            farewell: what the last will says was said already; else the broker shall say it.
        """
        if self.alive:
            self.alive = False
            if self.version == "5" or farewell:
                reason = "Normal disconnection" if farewell else "Disconnect with will message"
                self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, reason))
                self._ended.wait(_GOODBYE_S)
        self._break()
        self._client.loop_stop()
        # Else client and connection hold each other, and paho's sockets wait for the garbage collector.
        self._client.on_connect = self._client.on_disconnect = self._client.on_publish = None
        self._client.on_subscribe = self._client.on_message = None

    def _break(self) -> None:
        """Cut it."""
        cut = self._client.socket()
        if not isinstance(cut, socket.socket):  # gone already
            return
        with contextlib.suppress(OSError):  # ended meanwhile
            # Not the method of a TLS socket, which takes its state away from the thread that reads from it.
            socket.socket.shutdown(cut, socket.SHUT_RDWR)

    def _refusal(self, why: str) -> BrokerError:
        return BrokerError(f"the MQTT broker at {self._address} does not take us: {why}")

    # -- called by paho's network thread --------------------------------------------------------------------

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, props: Any) -> None:
        if not reason.is_failure:
            self._most_bytes = getattr(props, "MaximumPacketSize", _MAX_MQTT_BYTES)
            self.alive = True
            self._opened.put(None)
        elif reason.value == UNSUPPORTED_VERSION:
            text = str(self._refusal(f"{reason}; it must speak MQTT 5 or 3.1.1"))
            self._opened.put(_VersionError(text, certain=True))
        else:
            self._opened.put(self._refusal(remedy(str(reason))))

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any
    ) -> None:
        if self.alive:
            self.alive = False
            self.lost_because = (
                remedy(str(reason)) if reason.value != _UNSPECIFIED else "the connection broke"
            )
            self.taken_over = reason.value == _TAKEN_OVER
        else:
            why = "it closed the connection; is it an MQTT broker, and does tls fit it?"
            if self._dialer.tls:
                why = "it closed the connection; does it want (another) certificate of ours, mqtt cert_file?"
            self._opened.put(_VersionError(str(self._refusal(why))))
        self._ended.set()
        self._subscribed.set()
        self._outcomes.put(None)
        self._dialer.on_end()

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
                "the broker refuses us messages: %s; check that its access rules let us read what "
                "docs/mqtt.md lists",
                next(reason for reason in reasons if reason.is_failure),
            )
        self._subscribed.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._dialer.on_message(self, message)


def clock_s() -> float:
    """The clock of Outgoing.expires_s."""
    return time.monotonic()


def new_client(
    settings: MqttSettings,
    client_id: str,
    timeout_s: float,
    *,
    version: MQTTProtocolVersion = MQTTv5,
    tls: ssl.SSLContext | None = None,
) -> Client:
    """Make a client that is not connected yet, and does not connect again by itself.

    Raises:
        ConfigError: certificates or key cannot be used.
    """
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False)
    if settings.username:
        client.username_pw_set(settings.username, settings.password)
    if settings.tls:
        client.tls_set_context(tls or tls_context(settings))
    client.connect_timeout = timeout_s
    return client


def connect(client: Client, settings: MqttSettings) -> None:
    """Connect a client of new_client(), without anything of an earlier session; on_connect tells the end.

    Raises:
        BrokerError: names the broker and why it cannot be reached.
    """
    more: dict[str, Any] = {}
    if client.protocol == MQTTv5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        more = {"clean_start": True, "properties": properties}
    try:
        client.connect(settings.host, settings.port, settings.keepalive_s, **more)
    except (OSError, ValueError) as error:  # ValueError: a host name that cannot be one
        raise BrokerError(
            f"no connection to the MQTT broker at {settings.address}: {why_not(error)}"
        ) from error


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """Make what checks the broker's certificate and shows ours.

    Raises:
        ConfigError: a file cannot be used; says which and what to do.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"mqtt ca_file {str(settings.ca_file)!r} cannot be used ({error}); give PEM certificates"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # older ones are broken (RFC 8996)
    if settings.cert_file is not None:
        key_file = settings.key_file or settings.cert_file
        try:
            # Without a password of ours, OpenSSL would ask the terminal for one.
            context.load_cert_chain(settings.cert_file, key_file, password="")
            mode = Path(key_file).stat().st_mode
        except OSError as error:
            raise ConfigError(
                f"mqtt cert_file {str(settings.cert_file)!r} with key_file {str(key_file)!r} cannot be used "
                f"({error}); give a PEM certificate and its key without a password"
            ) from None
        if mode & stat.S_IROTH:
            _log.warning("mqtt key_file: every user can read %s; run: chmod o-r %s", key_file, key_file)
    return context


def why_not(error: Exception) -> str:
    """Say why a connection could not be made, and what to do."""
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror}); check mqtt host"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the broker running, and on this port?"
    if isinstance(error, TimeoutError):
        return "no answer in time; check address and firewall"
    if isinstance(error, ssl.SSLCertVerificationError):
        expired = "expired" in error.verify_message or "not yet valid" in error.verify_message
        what = (
            "renew it at the broker, and check the clocks of both"
            if expired
            else "set mqtt ca_file or the name it is for"
        )
        return f"its certificate is not trusted ({error.verify_message}); {what}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}); does this port speak TLS, and want our certificate?"
    return f"{error}; check mqtt host and port"


def remedy(reason: str) -> str:
    """Add what to do to a reason of the broker's."""
    lowered = reason.lower()
    if "authori" in lowered or "password" in lowered:
        return f"{reason}; check mqtt username and password"
    return reason
