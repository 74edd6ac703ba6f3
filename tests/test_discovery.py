"""Home Assistant finds us, follows what we do, and forgets what is gone; over a real broker."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import cli_ha, discovery
from edgevoice.broker import Connection, MqttSettings, mqtt_settings
from edgevoice.commands import Commands
from edgevoice.config import Config, HomeAssistantConfig, MqttConfig, WakeConfig
from edgevoice.discovery import Discovery, components, config_topic, configuration, device_id
from edgevoice.errors import BrokerError, ConfigError
from edgevoice.health import Figures
from edgevoice.publish import Publisher
from edgevoice.testing import Broker, Subscriber
from tests import schemas
from tests.conftest import running
from tests.home_assistant import PREFIX, HomeAssistant
from tests.results import ACCEPTED
from tests.test_end_to_end import pcm, room, write_config

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from edgevoice.events import Samples
    from tests.conftest import Edgevoice

INTENTS = ("SetTemperature", "Licht an")
PROMPT_S = 1.0
"""The bar for discovery after a connection or a birth message."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


def grammar(intents: Sequence[str] = INTENTS) -> dict[str, Any]:
    """Fields of the topic `grammar`."""
    return {
        "name": "home", "names": ["home", "guests"], "file": "home.yaml", "language": "en",
        "intents": list(intents), "only": None, "lists": [], "loaded": ACCEPTED.time, "error": None,
    }  # fmt: skip


class Edge:
    """What a running edgevoice announces, without one that hears."""

    def __init__(self, broker: Broker, site: str, intents: Sequence[str] = INTENTS) -> None:
        self.config = Config(
            site=site,
            mqtt=MqttConfig(host=broker.host, port=broker.port),
            wake=WakeConfig(mode="push_to_talk"),
            home_assistant=HomeAssistantConfig(discovery=True),
        )
        self.publisher = Publisher(mqtt_settings(self.config), site)
        self.discovery = Discovery(self.config, self.publisher)
        self.publisher.set_state("listening")
        self.publisher.set_settings({"muted": False, "threshold": 0.5})
        figures = Figures()
        figures.watch("mqtt", self.publisher.figures)
        self.publisher.set_health(figures.report())
        self.set_intents(intents)
        self.publisher.connect()

    def set_intents(self, intents: Sequence[str]) -> None:
        """Announce another grammar."""
        self.publisher.set_grammar(grammar(intents))
        self.discovery.set_grammar(grammar(intents))


@contextmanager
def edge(broker: Broker, site: str, intents: Sequence[str] = INTENTS) -> Iterator[Edge]:
    made = Edge(broker, site, intents)
    try:
        yield made
    finally:
        made.publisher.close()
        cli_ha.remove(made.config)


class TestDevice:
    """What Home Assistant sees."""

    def test_whole(self, broker: Broker) -> None:
        """All entities, their states and a trigger for each intent, within a second, without a warning."""
        with HomeAssistant(broker.port) as home, edge(broker, "default") as ours:
            started_s = time.monotonic()
            home.wait_for(lambda it: bool(it.available) and it.states.get("grammar") == "home")
            home.wait_for(lambda it: it.states["health_memory"] is not None)
            assert time.monotonic() - started_s < PROMPT_S
            assert home.triggers == set(INTENTS)
            assert home.components["command"]["event_types"] == list(INTENTS)
            ours.publisher.publish(ACCEPTED)
            ours.discovery.tell(ACCEPTED)
            home.wait_for(lambda it: bool(it.fired and it.events and it.states["text"]))
            ours.publisher.publish(replace(ACCEPTED, accepted=False, reason="low_confidence"))
            home.wait_for(lambda it: it.states["refusal"] == "low_confidence")
            ours.publisher.set_state("speech")
            home.wait_for(lambda it: it.states["speech"] == "ON")
            assert home.fired == ["SetTemperature"]
            (event,) = home.events
            assert event["slots"] == {"room": "küche", "degrees": 20}
            assert home.states | {"health_memory": "", "health_temperature": ""} == {
                "text": "Küche auf zwanzig Grad", "intent": "SetTemperature", "confidence": "93.0",
                "latency": "282", "refusal": "low_confidence", "state": "speech", "speech": "ON",
                "mute": "OFF", "threshold": "0.5", "grammar": "home", "command": None,
                "health_temperature": "", "health_memory": "", "health_latency": None,
                "health_overflows": "0", "health_losses": "0",
                "health_reconnects": "0",
            }  # fmt: skip
            assert home.problems == []

    def test_refused_ones_fire_nothing(self, broker: Broker) -> None:
        """A refusal, or what another site has answered, is no event."""
        with HomeAssistant(broker.port) as home, edge(broker, "quiet") as ours:
            home.wait_for(lambda it: it.states.get("mute") == "OFF")
            for reason in ("low_confidence", "elsewhere"):
                ours.discovery.tell(replace(ACCEPTED, accepted=False, reason=reason))
            ours.discovery.tell(replace(ACCEPTED, utterance_id="last"))
            home.wait_for(lambda it: bool(it.events))
            assert [event["utterance_id"] for event in home.events] == ["last"]

    @pytest.mark.parametrize("born", [True, False], ids=["born", "silent"])
    def test_home_assistant_starts_later(self, broker: Broker, born: bool) -> None:
        """Everything is there when it starts, and again when it says that it has."""
        with edge(broker, "early"):
            with Subscriber(broker.port, f"{PREFIX}/device/#") as again, HomeAssistant(broker.port) as home:
                home.wait_for(lambda it: bool(it.available) and it.states.get("mute") == "OFF")
                again.wait_for(1)
                if born:
                    started_s = time.monotonic()
                    home.say_born()
                    again.wait_for(2)
                    assert time.monotonic() - started_s < PROMPT_S
            assert not home.events
            assert not home.fired
            assert home.problems == []

    def test_a_broker_that_forgot(self) -> None:
        """A broker that was started anew is told everything, too."""
        with Broker() as forgetful, edge(forgetful, "again"):
            forgetful.kill()
            forgetful.start()
            with HomeAssistant(forgetful.port) as home:
                home.wait_for(lambda it: bool(it.available) and it.states.get("mute") == "OFF", 15)
            assert home.problems == []

    def test_two_sites(self, broker: Broker) -> None:
        """Each has a device of its own, also where their names differ in what an id cannot have."""
        sites = ("a.b", "a_b", "a-b", "A_b")
        assert len({device_id(site) for site in sites}) == len(sites)
        with (
            Subscriber(broker.port, f"{PREFIX}/device/#") as seen,
            edge(broker, "a.b"),
            edge(broker, "a_b"),
        ):
            configs = {message.topic: message.json() for message in seen.wait_for(2)}
        ids = [
            {part["unique_id"] for part in config["components"].values() if "unique_id" in part}
            for config in configs.values()
        ]
        assert len(ids) == 2
        assert not ids[0] & ids[1]

    def test_muted_from_there(self, broker: Broker) -> None:
        """A switch, a number and a button do what they say, and show what came of it."""
        with HomeAssistant(broker.port) as home, edge(broker, "set") as ours:
            known: Any = SimpleNamespace(min_confidence=0.5)
            taken = Commands(5.0, (known,), ours.publisher.set_settings)
            ours.publisher.serve(taken.take)
            home.wait_for(lambda it: it.states.get("mute") == "OFF")
            home.operate("mute", "ON")
            home.operate("threshold", "0.75")
            home.wait_for(lambda it: it.states["threshold"] == "0.75" and it.states["mute"] == "ON")
            home.operate("listen", "")
            deadline_s = time.monotonic() + 5
            while not taken.attention.take(0.0, 1.0):
                assert time.monotonic() < deadline_s
            assert known.min_confidence == 0.75
            assert home.problems == []


class TestGone:
    """What is not there any more."""

    def test_intents_of_a_changed_grammar(self, broker: Broker) -> None:
        """They disappear, and new ones are there."""
        with HomeAssistant(broker.port) as home, edge(broker, "change") as ours:
            home.wait_for(lambda it: it.triggers == set(INTENTS))
            ours.set_intents(["Licht an", "Neu"])
            home.wait_for(lambda it: it.triggers == {"Licht an", "Neu"})
            home.wait_for(lambda it: it.components["command"]["event_types"] == ["Licht an", "Neu"])
            assert home.problems == []

    @pytest.mark.parametrize("late", [False, True], ids=["soon", "late"])
    def test_intents_of_an_earlier_run(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch, late: bool
    ) -> None:
        """Home Assistant goes on while edgevoice is started anew with another grammar.

        The configuration of before comes while it subscribes, or when it has begun to send.
        """
        if not late:
            subscribe = Connection.subscribe

            def subscribe_and_wait(connection: Connection, topics: Collection[str]) -> None:
                subscribe(connection, topics)
                time.sleep(0.2)

            monkeypatch.setattr(Connection, "subscribe", subscribe_and_wait)
        with HomeAssistant(broker.port) as home:
            first = Edge(broker, "restart")
            home.wait_for(lambda it: it.triggers == set(INTENTS))
            first.publisher.close()
            with edge(broker, "restart", ["Neu"]):
                home.wait_for(lambda it: it.triggers == {"Neu"})
                with Subscriber(broker.port, config_topic("restart", PREFIX)) as kept:
                    kept.wait_for(lambda m: {"platform"} not in map(set, m.json()["components"].values()))
            assert home.problems == []

    def test_connected_before_the_grammar_is_read(self, broker: Broker) -> None:
        """As in the service: what the broker has kept comes before there is anything to compare it with."""
        with HomeAssistant(broker.port) as home:
            first = Edge(broker, "slow")
            home.wait_for(lambda it: it.triggers == set(INTENTS))
            first.publisher.close()
            publisher = Publisher(mqtt_settings(first.config), "slow")
            publisher.connect()
            later = Discovery(first.config, publisher)
            time.sleep(0.2)
            later.set_grammar(grammar(["Neu"]))
            home.wait_for(lambda it: it.triggers == {"Neu"})
            publisher.close()
            cli_ha.remove(first.config)

    def test_twice_before_anything_is_sent(self, broker: Broker) -> None:
        """What was there only between two grammars disappears, and what was there before them."""
        with HomeAssistant(broker.port) as home, edge(broker, "quick", ["A", "B"]) as ours:
            home.wait_for(lambda it: it.triggers == {"A", "B"})
            with ours.publisher._changed:  # nothing can be sent
                ours.set_intents(["B", "C"])
                ours.set_intents(["D"])
            home.wait_for(lambda it: it.triggers == {"D"})

    @pytest.mark.parametrize(
        "payload",
        ["[", "[]", "{}", '{"components": 1}', '{"components": {"a": 1, "b": {"platform": 2}}}', "[" * 9000],
    )
    def test_nonsense_in_its_place(self, broker: Broker, payload: str) -> None:
        """What somebody else has put there is replaced."""
        topic = config_topic("odd", PREFIX)
        with Subscriber(broker.port, topic) as seen:
            seen.publish(topic, payload, retain=True)
            seen.wait_for(1)
            with edge(broker, "odd"):
                seen.wait_for(lambda m: schemas.accepts("device-config", m.payload))

    def test_removed(self, broker: Broker) -> None:
        """When edgevoice has ended, nothing of it is left at the broker, or in Home Assistant."""
        with HomeAssistant(broker.port) as home:
            ours = Edge(broker, "leaving")
            ours.discovery.tell(ACCEPTED)
            home.wait_for(lambda it: it.states.get("text") is not None)
            home.operate("mute", "ON")
            ours.publisher.close()
            assert cli_ha.remove(ours.config) == "edgevoice_leaving is removed from Home Assistant"
            home.wait_for(lambda it: not it.components)
        with Subscriber(broker.port) as later:
            time.sleep(0.2)
            assert [m.topic for m in later.messages if "leaving" in m.topic] == []

    def test_removed_while_it_runs(self, broker: Broker) -> None:
        """Then one is told that it comes again."""
        with edge(broker, "staying") as ours:
            assert "edgevoice runs" in cli_ha.remove(ours.config)

    def test_command(self, edgevoice: Edgevoice, broker: Broker, tmp_path: Path) -> None:
        """`edgevoice ha remove`: 0 when done, 2 without a broker's name, 5 without the broker."""
        done = edgevoice("ha", "remove", "--config", write_config(tmp_path, broker.port))
        assert (done.returncode, done.stdout) == (0, b"edgevoice_flat is removed from Home Assistant\n")
        assert edgevoice("ha", "remove").returncode == 2
        with Broker() as gone:
            config = write_config(tmp_path, gone.port)
        assert edgevoice("ha", "remove", "--config", config).returncode == 5

    def test_some_are_refused(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """What the access rules forbid is named, all of it, and the rest is gone: exit code 5."""
        ours = ("set/mute", "last", "availability")
        rules = tmp_path / "acl"
        rules.write_text(
            "topic read #\ntopic write homeassistant/#\n"
            + "".join(f"topic write edgevoice/flat/{level}\n" for level in ours)
        )
        with Broker(settings=[f"acl_file {rules}"]) as broker, Subscriber(broker.port) as subscriber:
            for level in ours:
                subscriber.publish(f"edgevoice/flat/{level}", "x", retain=True)
            done = edgevoice("ha", "remove", "--config", write_config(tmp_path, broker.port))
            with Subscriber(broker.port) as later:
                time.sleep(0.2)
                assert later.messages == []
        assert done.returncode == 5
        (line,) = done.stderr.decode().splitlines()
        assert "did not take 6 of 10 topics, the others are clear: " in line
        assert re.findall(r"edgevoice/flat/(\S+): Not authorized;", line) == [
            "set/threshold", "set/grammar", "settings", "state", "grammar", "health",
        ]  # fmt: skip

    def test_a_broker_that_refuses(self) -> None:
        """It is told with what to do."""
        with Broker(accounts={"u": "right"}) as strict:
            config = Config(mqtt=MqttConfig(host=strict.host, port=strict.port))
            with pytest.raises(BrokerError, match="connecting: Not authorized; check mqtt username"):
                cli_ha.remove(config)
        with pytest.raises(ConfigError, match=r"mqtt\.host is not set"):
            cli_ha.remove(Config())


@given(
    st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True),
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1), min_size=1, unique=True
    ),
)
def test_any_site_and_intents(site: str, intents: list[str]) -> None:
    """A device is as Home Assistant wants it whatever the names are, and each intent has its own trigger."""
    parts = components(site, intents, ["home"], health=True, asked=True)
    payload = json.loads(configuration(site, parts))
    schemas.validator("device-config").validate(payload)
    assert re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", config_topic(site, "homeassistant"))
    triggers = [part["type"] for part in parts.values() if part["platform"] == "device_automation"]
    assert triggers == intents


def test_size_of_a_thousand_intents() -> None:
    """A large grammar's configuration is within the limit of what is read back, and of brokers."""
    parts = components(
        "default", [f"IntentNumber{i}" for i in range(1000)], ["home"], health=True, asked=True
    )
    assert len(configuration("default", parts)) < discovery.MAX_CONFIG_BYTES


def test_service(child_environment: dict[str, str], tmp_path: Path, broker: Broker, speech: Samples) -> None:
    """What is said to `edgevoice run` arrives as an event with its slots, and the grammar can be chosen."""
    (tmp_path / "guests.yaml").write_text(
        "language: en\nintents: {Hello: {data: [{sentences: [hello there]}]}}\n", encoding="utf-8"
    )
    more = "home_assistant: {discovery: true}\ngrammar: {choices: {guests: guests.yaml}}\n"
    config = write_config(tmp_path, broker.port, more=more)
    with (
        HomeAssistant(broker.port) as home,
        running(child_environment, "run", "--config", config, "--input", "-") as run,
    ):
        assert run.stdin is not None
        run.stdin.write(pcm(np.concatenate([speech, room(1)])))
        run.stdin.flush()
        home.wait_for(lambda it: bool(it.events and it.fired), 30)
        assert home.events[0]["slots"] == {"name": "desk lamp"}
        assert home.fired == ["HassTurnOn"]
        assert "HassTurnOff" in home.triggers
        home.operate("grammar", "guests")
        home.wait_for(lambda it: it.states["grammar"] == "guests" and it.triggers == {"Hello"}, 10)
        home.operate("threshold", "0.9")
        home.wait_for(lambda it: it.states["threshold"] == "0.9")
        run.stdin.close()
        assert run.wait(20) == 0
    assert home.problems == []
    assert "is removed" in cli_ha.remove(
        Config(site="flat", mqtt=MqttConfig(host=broker.host, port=broker.port))
    )


def test_settings_are_made_of_the_configuration() -> None:
    """A prefix of its own is used."""
    config = Config(home_assistant=HomeAssistantConfig(discovery=True, prefix="ha/test"))
    publisher = Publisher(MqttSettings(), "default")
    Discovery(config, publisher)
    assert publisher._filters() == {"ha/test/status", "ha/test/device/edgevoice_default/config"}
