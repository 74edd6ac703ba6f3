"""Home Assistant: a device of its own, announced over MQTT; nobody has to write YAML, and no token is needed.

    Grammar in use ─┐
    birth message ──┼─> Discovery ─> <prefix>/device/<id>/config, retained
    what it was ────┘        Result ─> edgevoice/<site>/event and last

Home Assistant keeps a component that is left out of a later configuration. It goes when it is sent once with
its platform alone; so the configuration that the broker still has from an earlier run, with another grammar,
is read first.

Protocol: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from edgevoice import __version__
from edgevoice.publish import base_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from edgevoice.config import Config
    from edgevoice.events import Result
    from edgevoice.publish import Publisher

_log = logging.getLogger(__name__)

MAX_STATE_CHARACTERS: Final = 255
"""Home Assistant takes a longer state for unknown."""

MAX_CONFIG_BYTES: Final = 1_000_000
"""Of a configuration that is read back: one of 1,000 intents has 300,000."""

_AVAILABLE: Final = b"online"  # the birth message, as Home Assistant sends it unless told otherwise
_Component = dict[str, object]


def device_id(site: str) -> str:
    """Name a site for Home Assistant, which takes letters, digits, - and _ only; different for each site."""
    return "edgevoice_" + _id(site)


def config_topic(site: str, prefix: str) -> str:
    """Where Home Assistant looks for our configuration."""
    return f"{prefix}/device/{device_id(site)}/config"


def components(
    site: str, intents: Iterable[str], grammars: Iterable[str], *, health: bool, asked: bool
) -> dict[str, _Component]:
    """Return what the device consists of, each with its key.

    Args:
        site: ours.
        intents: of the grammar.
        grammars: names to choose among.
        health: whether reports are published.
        asked: whether edgevoice can be asked to listen.
    """
    base, intents = base_topic(site), list(intents)
    found: dict[str, _Component] = {
        "command": {
            "platform": "event",
            "name": "Command",
            "icon": "mdi:account-voice",
            "state_topic": f"{base}/event",
            "event_types": intents,
        },
        "text": _sensor("Last command", f"{base}/last", "text", icon="mdi:text"),
        "intent": _sensor("Last intent", f"{base}/last", "intent", icon="mdi:tag"),
        "confidence": _sensor(
            "Confidence", f"{base}/last", "confidence", unit_of_measurement="%", icon="mdi:gauge"
        ),
        "latency": _sensor(
            "Latency", f"{base}/last", "latency_ms", unit_of_measurement="ms", icon="mdi:timer"
        ),
        "refusal": _sensor(
            "Last refusal",
            f"{base}/rejected",
            "reason",
            icon="mdi:ear-hearing-off",
            json_attributes_topic=f"{base}/rejected",
            json_attributes_template="{{ {'heard': value_json.heard, 'text': value_json.text} | tojson }}",
        ),
        "state": _sensor(
            "State", f"{base}/state", None, icon="mdi:state-machine", entity_category="diagnostic"
        ),
        "speech": {
            "platform": "binary_sensor",
            "name": "Speech",
            "device_class": "sound",
            "state_topic": f"{base}/state",
            "value_template": "{{ 'ON' if value == 'speech' else 'OFF' }}",
        },
        "mute": {
            "platform": "switch",
            "name": "Mute",
            "icon": "mdi:microphone-off",
            "command_topic": f"{base}/set/mute",
            "retain": True,  # who mutes it before a power cut is not heard after it
            "state_topic": f"{base}/settings",
            "value_template": "{{ 'ON' if value_json.muted else 'OFF' }}",
        },
        "threshold": {
            "platform": "number",
            "name": "Confidence threshold",
            "icon": "mdi:tune-vertical",
            "entity_category": "config",
            "command_topic": f"{base}/set/threshold",
            "retain": True,
            "state_topic": f"{base}/settings",
            "value_template": "{{ value_json.threshold }}",
            "min": 0,
            "max": 1,
            "step": 0.01,
        },
        "grammar": {
            "platform": "select",
            "name": "Grammar",
            "icon": "mdi:format-list-text",
            "entity_category": "config",
            "command_topic": f"{base}/set/grammar",
            "retain": True,
            "state_topic": f"{base}/grammar",
            "value_template": "{{ value_json.name }}",
            "options": list(grammars),
        },
        "reload": _button("Reload grammar", f"{base}/set/reload", "mdi:reload", entity_category="config"),
    }
    if asked:
        found["listen"] = _button("Listen", f"{base}/set/listen", "mdi:microphone-message")
    if health:
        found |= {f"health_{name}": sensor for name, sensor in _health(f"{base}/health").items()}
    unique = {key: component | {"unique_id": f"{device_id(site)}_{key}"} for key, component in found.items()}
    triggers: dict[str, _Component] = {
        f"intent_{_id(intent)}": {
            "platform": "device_automation",
            "automation_type": "trigger",
            "topic": f"{base}/event",
            "value_template": "{{ value_json.event_type }}",
            "payload": intent,
            "type": intent,
            "subtype": "command",
        }
        for intent in intents
    }
    return {**unique, **triggers}


def configuration(site: str, parts: dict[str, _Component], gone: dict[str, _Component] | None = None) -> str:
    """Return the payload that makes the device of its components, and takes some away that are gone."""
    version = {"sw_version": __version__}
    return json.dumps(
        {
            "device": {
                "identifiers": [device_id(site)],
                "name": "edgevoice" if site == "default" else f"edgevoice {site}",
                "manufacturer": "edgevoice",
                "model": "Offline voice commands",
                **version,
            },
            "origin": {"name": "edgevoice", **version},
            "availability_topic": f"{base_topic(site)}/availability",
            "qos": 1,
            "components": {**parts, **(gone or {})},
        },
        ensure_ascii=False,
    )


class Discovery:
    """Keeps Home Assistant informed.

    Args:
        config: of the service.
        publisher: connected or not.
    """

    def __init__(self, config: Config, publisher: Publisher) -> None:
        self._site = config.site
        self._health = config.mqtt.health_interval_s > 0
        self._asked = config.wake.mode != "always"
        self._publisher = publisher
        self._base = base_topic(config.site)
        self._topic = config_topic(config.site, config.home_assistant.prefix)
        self._birth = f"{config.home_assistant.prefix}/status"
        self._lock = threading.Lock()  # guards what follows
        self._parts: dict[str, _Component] = {}
        self._known: dict[str, Any] = {}  # all that were ever announced, as far as we know
        publisher.also_take((self._topic, self._birth), self._take)

    def set_grammar(self, fields: dict[str, Any]) -> None:
        """Announce a grammar, given as on the topic `grammar`."""
        parts = components(
            self._site, fields["intents"], fields["names"], health=self._health, asked=self._asked
        )
        with self._lock:
            if parts != self._parts:
                self._parts = parts
                self._announce()

    def tell(self, result: Result) -> None:
        """Announce an accepted result."""
        if not result.accepted or result.intent is None:
            return
        self._publisher.send(
            f"{self._base}/event",
            {
                "event_type": result.intent,
                "text": result.text,
                "slots": result.slots,
                "confidence": result.confidence,
                "confirm": result.confirm,
                "follows": result.follows,
                "utterance_id": result.utterance_id,
                "site": self._site,
                "time": result.time,
            },
        )
        last = {
            "text": (result.text or "")[:MAX_STATE_CHARACTERS],
            "intent": result.intent[:MAX_STATE_CHARACTERS],
            "confidence": round(100 * result.confidence, 1),
            "latency_ms": None if result.latency_ms is None else round(result.latency_ms),
            "time": result.time,
        }
        self._publisher.retain(f"{self._base}/last", json.dumps(last, ensure_ascii=False))

    def _announce(self) -> None:
        """Send the configuration, after one that takes away what is not there any more.

        Call with the lock held.
        """
        gone = _gone(self._known, self._parts)
        self._known |= self._parts
        first = configuration(self._site, self._parts, gone) if gone else None
        self._publisher.retain(self._topic, configuration(self._site, self._parts), first)

    def _take(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take what comes over MQTT, in the network's thread."""
        if topic == self._birth:
            if payload == _AVAILABLE:
                _log.info("Home Assistant has started; it is told everything again")
                self._publisher.resend()
        elif retained:  # of an earlier run; else it is what we have just sent
            before = _components_of(payload)
            with self._lock:
                self._known |= before
                if self._parts and _gone(before, self._parts):
                    self._announce()


def _gone(before: dict[str, Any], now: Collection[str]) -> dict[str, _Component]:
    """Return what takes components away that are there no longer."""
    return {
        key: {"platform": component["platform"]}
        for key, component in before.items()
        if key not in now and isinstance(component, dict) and isinstance(component.get("platform"), str)
    }


def _components_of(payload: bytes) -> dict[str, Any]:
    """Return the components of a configuration; none of what is no configuration."""
    if len(payload) > MAX_CONFIG_BYTES:
        return {}
    try:
        found = json.loads(payload)["components"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sensor(name: str, topic: str, field: str | None, **more: object) -> _Component:
    """Return a sensor that shows a field of a JSON payload, or all of a text."""
    template = {} if field is None else {"value_template": f"{{{{ value_json.{field} }}}}"}
    return {"platform": "sensor", "name": name, "state_topic": topic, **template, **more}


def _button(name: str, topic: str, icon: str, **more: object) -> _Component:
    return {
        "platform": "button",
        "name": name,
        "icon": icon,
        "command_topic": topic,
        "payload_press": "",
        **more,
    }


def _health(topic: str) -> dict[str, _Component]:
    """Return sensors of the reports, for who looks after the machine."""
    measured: dict[str, object] = {"entity_category": "diagnostic", "state_class": "measurement"}
    counted: dict[str, object] = {"entity_category": "diagnostic", "state_class": "total_increasing"}
    return {
        "temperature": _sensor(
            "Temperature",
            topic,
            "temperature_c",
            device_class="temperature",
            unit_of_measurement="°C",
            **measured,
        ),
        "memory": _sensor(
            "Memory",
            topic,
            "memory_bytes",
            device_class="data_size",
            unit_of_measurement="B",
            suggested_unit_of_measurement="MB",
            **measured,
        ),
        "latency": _sensor(
            "Latency, 95th percentile",
            topic,
            "latency_ms.p95",
            unit_of_measurement="ms",
            icon="mdi:timer",
            **measured,
        ),
        "overflows": _sensor("Audio overflows", topic, "audio.overflows", icon="mdi:waveform", **counted),
        "losses": _sensor(
            "Microphone losses", topic, "audio.losses", icon="mdi:microphone-question", **counted
        ),
        "reconnects": _sensor("Reconnects", topic, "mqtt.reconnects", icon="mdi:lan-disconnect", **counted),
    }


def _id(name: str) -> str:
    """Return letters, digits, - and _ that are a name's alone."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
    # What was changed could be another one's name; so few names do not meet in 32 bits.
    return (
        plain
        if plain == name
        else f"{plain}_{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
    )
