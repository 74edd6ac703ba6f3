"""What goes over MQTT is what docs/schemas says, and nothing else does; see test_end_to_end.py, too."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgevoice import commands
from edgevoice.broker import MqttSettings
from edgevoice.commands import Commands
from edgevoice.errors import UsageError
from edgevoice.events import Reason
from edgevoice.health import Figures, Reporter
from edgevoice.publish import Publisher, State
from edgevoice.testing import Broker, Subscriber
from tests import schemas
from tests.conftest import ROOT
from tests.results import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


def test_every_schema_is_one() -> None:
    """Each file is a JSON Schema of draft 2020-12, with a title and a description."""
    names = {path.stem for path in schemas.FOLDER.iterdir()}
    sent = {"intent", "rejected", "state", "availability", "grammar", "health", "answer", "bid"}
    sent |= {"settings", "event", "last", "device-config", "feedback"}
    assert names == sent | {f"set-{name}" for name in (*commands.NAMES, "grammar", "intents", "lists")}
    for name in names:
        schema = schemas.validator(name).schema
        assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
        assert schema["title"]
        assert schema["description"]


def test_what_is_sent(broker: Broker) -> None:
    """Results with every reason, all states, presence and health pass their schemas at a real subscriber."""
    with Subscriber(broker.port, "edgevoice/sent/#") as subscriber:
        publisher, figures = Publisher(MqttSettings(broker.host, broker.port), "sent"), Figures()
        publisher.connect()
        figures.watch("mqtt", publisher.figures)
        figures.watch("queues", lambda: {"utterances": 0, "results": publisher.waiting})
        reporter = Reporter(figures, publisher.set_health, 0.1)
        results = [ACCEPTED, *(replace(ACCEPTED, accepted=False, reason=each) for each in get_args(Reason))]
        results.append(replace(results[-1], text=None, intent=None, slots={}, slots_raw={}, alternatives=()))
        for result in results:
            publisher.publish(result)
            figures.count(result)
        publisher.set_settings({"muted": True, "threshold": 0.5})
        for state in get_args(State):
            publisher.set_state(state)
            assert publisher.flush(5)
        subscriber.wait_for(lambda m: "/health" in m.topic and m.json()["utterances"]["accepted"] == 1)
        reporter.close()
        publisher.close()
        subscriber.wait_for(lambda m: m.payload == b"offline")
    for message in subscriber.messages:
        schemas.check(message)
    seen = {schemas.name_of(message.topic) for message in subscriber.messages}
    assert seen == {"intent", "rejected", "state", "settings", "availability", "health"}
    assert sum("/state" in message.topic for message in subscriber.messages) == len(get_args(State))


def test_answers(broker: Broker) -> None:
    """What is answered to a good and to a bad command."""
    publisher = Publisher(MqttSettings(broker.host, broker.port), "answers")
    publisher.serve(Commands(5.0).take)
    publisher.connect()
    with Subscriber(broker.port, "back") as subscriber:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = "back"
        for payload in ("ON", "LOUD"):
            subscriber._client.publish("edgevoice/answers/set/mute", payload, properties=properties)
        answers = [message.payload for message in subscriber.wait_for(2)]
    publisher.close()
    assert all(schemas.accepts("answer", answer) for answer in answers)
    assert len(set(answers)) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"confidence": 1.5}, "more than the maximum"),
        ({"accepted": False}, "the wrong topic"),
        ({"extra": 1}, "a field nobody wrote down"),
        ({"reason": "low_confidence"}, "a reason for what was accepted"),
    ],
)
def test_schema_can_fail(broker: Broker, change: dict[str, Any], why: str) -> None:
    """A payload that is otherwise is refused."""
    publisher = Publisher(MqttSettings(broker.host, broker.port), "fails")
    with Subscriber(broker.port, "edgevoice/fails/intent/#") as subscriber:
        publisher.connect()
        publisher.publish(ACCEPTED)
        fields = subscriber.wait_for(1)[0].json()
    publisher.close()
    assert schemas.validator("intent").is_valid(fields)
    assert not schemas.validator("intent").is_valid({**fields, **change}), why


@given(
    st.sampled_from(commands.NAMES),
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(
            ["", " ", "ON", "off", "True", "60", "60.0", "60.1", "61", "0", "007", "1.", "٣", "1e1"]
        ),
        st.floats(0, 100).map(str),
    ),
)
def test_what_is_taken(name: str, text: str) -> None:
    """A command without JSON is taken if, and only if, its schema takes it."""
    try:
        commands.parse(name, text.encode())
        taken = True
    except UsageError:
        taken = False
    assert schemas.accepts(f"set-{name}", text.encode()) is taken


def test_examples_of_the_documents() -> None:
    """The payloads that docs/mqtt.md shows pass, too."""
    shown = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "mqtt.md").read_text("utf-8"), re.DOTALL)
    result, health = (json.loads(each) for each in shown)
    schemas.validator("intent").validate(result)
    schemas.validator("health").validate(health)


def test_counters_have_their_place() -> None:
    """Every counter of the publisher is in the schema of health."""
    properties = schemas.validator("health").schema["properties"]["mqtt"]["properties"]
    counters = asdict(Publisher(MqttSettings()).counters)
    assert set(properties) == {*counters, "version"}
