"""The command `edgevoice ha remove`: takes the device out of Home Assistant and off the broker."""

from __future__ import annotations

import queue
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from edgevoice.broker import connect, mqtt_settings, new_client, remedy
from edgevoice.discovery import config_topic, device_id
from edgevoice.errors import BrokerError, ConfigError
from edgevoice.publish import base_topic

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from edgevoice.config import Config

_RETAINED_S: Final = 1.0  # in which a broker sends what it has retained; one in the house needs milliseconds
_SET: Final = ("set/mute", "set/threshold", "set/grammar")
"""What Home Assistant retains, as discovery.py asks it to."""

_OURS: Final = ("settings", "last", "state", "grammar", "health", "availability")
"""What edgevoice retains, and sends again while it runs."""


def remove(config: Config) -> str:
    """Remove the device, and say what was done.

    Raises:
        ConfigError: no broker is configured.
        BrokerError: the broker cannot be used, or has refused some topics; which, and all others are clear.
    """
    if config.mqtt.host is None:
        raise ConfigError("mqtt.host is not set; name the broker that Home Assistant uses")
    remover = _Remover(config)
    try:
        runs = remover.open()
        topic = config_topic(config.site, config.home_assistant.prefix)
        levels = _SET if runs else (*_SET, *_OURS)
        failures = {
            each: failure
            for each in (topic, *(f"{base_topic(config.site)}/{level}" for level in levels))
            if (failure := remover.clear(each))
        }
    finally:
        remover.close()
    if failures:
        refused = "; ".join(f"{each}: {failure}" for each, failure in failures.items())
        raise BrokerError(
            f"the MQTT broker at {config.mqtt.host}:{config.mqtt.port} did not take {len(failures)} of "
            f"{len(levels) + 1} topics, the others are clear: {refused}; check its access rules and try again"
        )
    done = f"{device_id(config.site)} is removed from Home Assistant"
    if runs:
        done += (
            "; edgevoice runs, and with home_assistant.discovery it announces itself again when it connects"
        )
    return done


class _Remover:
    """One connection."""

    def __init__(self, config: Config) -> None:
        self._availability = f"{base_topic(config.site)}/availability"
        self._timeout_s = config.mqtt.connect_timeout_s
        # Not the configured client_id: the broker would disconnect the one that runs.
        self._settings = replace(mqtt_settings(config), client_id=None)
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # a failure, or None
        self._presence: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._client = new_client(self._settings, f"edgevoice-ha-{secrets.token_hex(4)}", self._timeout_s)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    def open(self) -> bool:
        """Connect, and return whether edgevoice runs."""
        connect(self._client, self._settings)
        self._client.loop_start()
        self._reply("connecting")
        try:
            return self._presence.get(timeout=_RETAINED_S) == b"online"
        except queue.Empty:
            return False

    def clear(self, topic: str) -> str | None:
        """Have the broker forget what is retained on a topic, and return why it does not.

        Raises:
            BrokerError: it is gone.
        """
        self._client.publish(topic, b"", qos=1, retain=True)
        return self._answer(topic)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _reply(self, what: str) -> None:
        if failure := self._answer(what):
            raise self._error(what, failure)

    def _answer(self, what: str) -> str | None:
        try:
            return self._replies.get(timeout=self._timeout_s)
        except queue.Empty:
            raise self._error(what, "no answer in time; is it an MQTT broker?") from None

    def _error(self, what: str, failure: str) -> BrokerError:
        return BrokerError(f"the MQTT broker at {self._settings.address}, {what}: {failure}")

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            self._replies.put(remedy(str(reason)))
        else:
            client.subscribe(self._availability)

    def _on_subscribe(
        self, _client: Client, _data: Any, _id: int, reasons: list[ReasonCode], _props: Any
    ) -> None:
        self._replies.put(remedy(str(reasons[0])) if reasons[0].is_failure else None)

    def _on_publish(self, _client: Client, _data: Any, _id: int, reason: ReasonCode, _props: Any) -> None:
        self._replies.put(str(reason) if reason.is_failure else None)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._presence.put(bytes(message.payload))
