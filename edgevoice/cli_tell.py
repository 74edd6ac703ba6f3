"""The command `edgevoice tell`: sends a command to a running edgevoice and waits until it is carried out.

connected -> subscribed to a topic of our own -> the command, which names that topic -> the answer there
"""

from __future__ import annotations

import json
import queue
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgevoice import commands
from edgevoice.broker import UNSUPPORTED_VERSION, connect, mqtt_settings, new_client, remedy
from edgevoice.errors import BrokerError, ConfigError, UsageError
from edgevoice.publish import base_topic

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from edgevoice.config import Config

_NO_SUBSCRIBER: Final = 0x10  # MQTT 5: the broker has nobody to give this message to


def run(name: str, value: str, config: Config) -> None:
    """Send the command and wait for the answer.

    Raises:
        ConfigError: no broker is configured.
        UsageError: the command makes no sense, here or there.
        BrokerError: the broker cannot be used, or nobody answers.
    """
    if config.mqtt.host is None:
        raise ConfigError("mqtt.host is not set; name the broker that edgevoice run uses")
    if name in commands.NAMES:  # others are known to who runs
        commands.parse(name, value.encode("utf-8", "replace"))
    teller = _Teller(config, name, value)
    try:
        answer = teller.ask()
    finally:
        teller.close()
    try:
        fields = json.loads(answer)
        done, failure = fields["ok"], fields.get("error")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BrokerError(
            f"{commands.shown(answer)} is no answer of edgevoice; see what else answers on {teller.topic}"
        ) from None
    if done is not True:
        raise UsageError(str(failure))


class _Teller:
    """One command and its answer; each step begins the next, in paho's network thread."""

    def __init__(self, config: Config, name: str, value: str) -> None:
        base = base_topic(config.site)
        self.topic = f"{base}/set/{name}"
        self._key = secrets.token_hex(8)
        self._answer_topic = f"{base}/answer/{self._key}"
        self._value = value
        self._timeout_s = config.mqtt.connect_timeout_s
        # Not the configured client_id: the broker would disconnect the one we want to reach.
        self._settings = replace(mqtt_settings(config), client_id=None)
        self._outcomes: queue.SimpleQueue[bytes | BrokerError] = queue.SimpleQueue()
        self._client = new_client(self._settings, f"edgevoice-tell-{self._key}", self._timeout_s)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    def ask(self) -> bytes:
        """Send the command and return the answer."""
        connect(self._client, self._settings)
        self._client.loop_start()
        outcome: bytes | BrokerError
        try:
            outcome = self._outcomes.get(timeout=self._timeout_s)
        except queue.Empty:
            outcome = self._nobody()
        if isinstance(outcome, BrokerError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _nobody(self) -> BrokerError:
        return BrokerError(
            f"nobody answers on {self.topic}; is edgevoice running, with this site, "
            f"at the broker {self._settings.address}?"
        )

    def _fail(self, reason: ReasonCode) -> None:
        what = remedy(str(reason))
        if reason.value == UNSUPPORTED_VERSION:
            what += f"; with MQTT 3.1.1 nobody can answer: use mosquitto_pub -t {self.topic} -m ..."
        self._outcomes.put(
            BrokerError(f"the MQTT broker at {self._settings.address} refused {self.topic}: {what}")
        )

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            self._fail(reason)
        else:
            client.subscribe(self._answer_topic)

    def _on_subscribe(
        self, client: Client, _data: Any, _id: int, reasons: list[ReasonCode], _props: Any
    ) -> None:
        if reasons[0].is_failure:
            self._fail(reasons[0])
            return
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self._answer_topic
        properties.CorrelationData = self._key.encode()
        properties.MessageExpiryInterval = max(1, round(self._timeout_s))  # later nobody waits
        client.publish(self.topic, self._value, qos=1, properties=properties)

    def _on_publish(self, _client: Client, _data: Any, _id: int, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            self._fail(reason)
        elif reason.value == _NO_SUBSCRIBER:
            self._outcomes.put(self._nobody())

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if getattr(message.properties, "CorrelationData", None) == self._key.encode():
            self._outcomes.put(bytes(message.payload))
