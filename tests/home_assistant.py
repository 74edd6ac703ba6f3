"""What Home Assistant makes of what we announce, as observed (2025.4, 2026.11) and documented.

It takes devices, keeps their states and triggers, and notes as a problem whatever the real one would warn of.
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from tests import schemas

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

PREFIX: Final = "homeassistant"
_TOPIC: Final = re.compile(PREFIX + r"/device/([A-Za-z0-9_-]+/)?[A-Za-z0-9_-]+/config")
_WAIT_S: Final = 5.0
_JINJA: Final = SandboxedEnvironment(undefined=StrictUndefined)


class HomeAssistant:
    """One run of it, from its start to its end, at a real broker."""

    def __init__(self, port: int) -> None:
        self.problems: list[str] = []
        self.components: dict[str, dict[str, Any]] = {}
        """By their keys, of the only device."""
        self.states: dict[str, str | None] = {}
        """Of each component that has one; None: unknown."""
        self.events: list[dict[str, Any]] = []
        """What the event entity was told."""
        self.fired: list[str] = []
        """Types of the triggers that fired."""
        self.available: bool | None = None
        self._changed = threading.Condition()
        self._topics: set[str] = set()
        self._availability: str | None = None
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{PREFIX}/device/#", qos=1)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port, clean_start=True)
        self._client.loop_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say_born(self) -> None:
        """Send the birth message."""
        self._client.publish(f"{PREFIX}/status", "online", qos=1)

    def wait_for(self, true: Callable[[HomeAssistant], bool], timeout_s: float = _WAIT_S) -> None:
        """Wait until something is so."""
        with self._changed:
            assert self._changed.wait_for(lambda: true(self), timeout_s), (self.states, self.problems)

    def operate(self, key: str, value: str) -> None:
        """Do what a user does with a switch, a number, a select or a button: send a command."""
        component = self.components[key]
        if component["platform"] == "number":
            assert component["min"] <= float(value) <= component["max"]
        if component["platform"] == "select":
            assert value in component["options"]
        if component["platform"] == "button":
            value = component["payload_press"]
        self._client.publish(component["command_topic"], value, qos=1, retain=component.get("retain", False))

    @property
    def triggers(self) -> set[str]:
        """Types of the device triggers a user can choose."""
        found = (each for each in self.components.values() if each["platform"] == "device_automation")
        return {component["type"] for component in found}

    # ---- in paho's thread ----

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        with self._changed:
            try:
                if message.topic.startswith(f"{PREFIX}/device/"):
                    self._discover(message.topic, bytes(message.payload))
                else:
                    self._update(message)
            except Exception as error:  # noqa: BLE001 - it would end paho's thread without a word
                self.problems.append(f"{message.topic}: {type(error).__name__}: {error}")
            self._changed.notify_all()

    def _discover(self, topic: str, payload: bytes) -> None:
        if not _TOPIC.fullmatch(topic):
            self.problems.append(f"{topic} is no topic of a device")
            return
        if not payload:
            self.components.clear()
            self.states.clear()
            return
        found = json.loads(payload)
        error = next(schemas.validator("device-config").iter_errors(found), None)
        if error is not None:
            self.problems.append(f"{error.json_path}: {error.message}")
            return
        topics = {found["availability_topic"]}
        self._availability = found["availability_topic"]
        for key, component in found["components"].items():
            if set(component) == {"platform"}:
                self.components.pop(key, None)
                self.states.pop(key, None)
                continue
            self.components[key] = component
            names = ("state_topic", "json_attributes_topic", "topic")
            topics |= {component[name] for name in names if name in component}
            if "state_topic" in component:
                self.states.setdefault(key, None)
        ids = [each["unique_id"] for each in self.components.values() if "unique_id" in each]
        if len(set(ids)) < len(ids):
            self.problems.append("two entities have the same unique_id")
        for each in sorted(topics - self._topics):
            self._client.subscribe(each, qos=1)
        self._topics |= topics

    def _update(self, message: MQTTMessage) -> None:
        text = message.payload.decode()
        if not text:  # it ignores that
            return
        if message.topic == self._availability:
            self.available = {"online": True, "offline": False}[text]
        for key, component in self.components.items():
            if component.get("json_attributes_topic") == message.topic:
                json.loads(_render(component["json_attributes_template"], text))
            if message.topic not in (component.get("state_topic"), component.get("topic")):
                continue
            value = _render(component["value_template"], text) if "value_template" in component else text
            if component["platform"] == "device_automation":
                if message.retain:
                    self.problems.append(f"{key} would fire again at each start")
                if value == component.get("payload", value):
                    self.fired.append(component["type"])
            elif component["platform"] == "event":
                self.events.append(_event(component, value))
            else:
                self.states[key] = _state(component, value)


def _render(template: str, text: str) -> str:
    values: dict[str, Any] = {"value": text}
    if "value_json" in template:
        values["value_json"] = json.loads(text)
    return _JINJA.from_string(template).render(values)


def _event(component: dict[str, Any], value: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(value)
    if fields["event_type"] not in component["event_types"]:
        raise ValueError(f"unknown event type {fields['event_type']}")
    return fields


def _state(component: dict[str, Any], value: str) -> str | None:
    platform = component["platform"]
    if platform in ("binary_sensor", "switch") and value not in ("ON", "OFF"):
        raise ValueError(f"{value!r} is neither ON nor OFF")
    if platform == "select" and value not in component["options"]:
        raise ValueError(f"{value!r} is no option")
    if platform == "number" and not component["min"] <= float(value) <= component["max"]:
        raise ValueError(f"{value!r} is out of range")
    if platform == "sensor":
        if value == "None":
            return None
        if "unit_of_measurement" in component or "state_class" in component:
            float(value)
        if len(value) > 255:
            raise ValueError("the state is too long")
    return value
