"""Hermes over a real broker: what skills of Rhasspy and Snips send and expect."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from edgevoice import hermes as module
from edgevoice.attention import Attention
from edgevoice.broker import MqttSettings
from edgevoice.config import Config, HermesConfig, MqttConfig, load
from edgevoice.errors import ConfigError
from edgevoice.hermes import MAX_BYTES, MAX_SESSIONS, speaking
from edgevoice.publish import Publisher
from edgevoice.recognise import Recogniser
from edgevoice.testing import Broker, Subscriber
from tests import results
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.native import Model
    from tests.conftest import Edgevoice, Sample

ACCEPTED = dataclasses.replace(
    results.ACCEPTED,
    text="Dim the floor lamp to forty percent.",
    intent="HassLightSet",
    slots={"name": "floor lamp", "brightness": 40, "domain": "light"},
    slots_raw={"name": "floor lamp", "brightness": "forty"},
)
REFUSED = dataclasses.replace(
    ACCEPTED, utterance_id="u2", accepted=False, reason="low_confidence", confidence=0.2, heard="dim the lump"
)
SITE = "attic"


class House:
    """A broker, edgevoice's end of Hermes, and a skill that hears all and says what it likes."""

    def __init__(self, subscriber: Subscriber, take_result: Any, recogniser: Recogniser) -> None:
        self.attention = Attention()
        self.subscriber = subscriber
        self.result = take_result
        self.recogniser = recogniser
        self._read = 0

    def tell(self, topic: str, fields: dict[str, Any] | str, **more: Any) -> None:
        """Publish as a skill."""
        text = fields if isinstance(fields, str) else json.dumps({"siteId": SITE, **fields})
        self.subscriber.publish(f"hermes/{topic}", text, **more)

    def next(self, topic: str) -> dict[str, Any]:
        """Wait for the next message on a topic, after those that were read."""

        def places() -> list[int]:
            new = range(self._read, len(self.subscriber.messages))
            return [i for i in new if self.subscriber.messages[i].topic == f"hermes/{topic}"]

        wait_until(lambda: bool(places()))
        at = places()[0]
        self._read = at + 1
        message = self.subscriber.messages[at]
        fields: dict[str, Any] = message.json()
        assert message.expiry_s is not None
        assert not message.retain
        return fields

    def count(self, topic: str) -> int:
        """How many came."""
        return sum(message.topic == f"hermes/{topic}" for message in self.subscriber.messages)

    def can_be_said(self) -> frozenset[str]:
        """Intents."""
        return self.recogniser.active.at(self.recogniser.compiled.blocks, 0.0)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def recogniser(model: Model) -> Iterator[Recogniser]:
    opened = Recogniser(Config(), model=model)
    yield opened
    opened.close()


@contextmanager
def house_at(broker: Broker, recogniser: Recogniser, **wake: Any) -> Iterator[House]:
    config = dataclasses.replace(
        Config(),
        site=SITE,
        mqtt=MqttConfig(host=broker.host, port=broker.port),
        hermes=HermesConfig(enabled=True),
        wake=dataclasses.replace(Config().wake, **wake),
        endpoint=dataclasses.replace(Config().endpoint, max_utterance_s=1.0 if wake else 15.0),
    )
    publisher = Publisher(MqttSettings(broker.host, broker.port), SITE)
    publisher.connect()
    attention = Attention()
    with Subscriber(broker.port, "hermes/#") as subscriber:
        with speaking(config, publisher, recogniser, attention) as (take,):
            house = House(subscriber, take, recogniser)
            house.attention = attention
            until_answered(house)
            yield house
        publisher.close()


def until_answered(house: House) -> None:
    """Wait until what is sent arrives."""
    deadline_s = time.monotonic() + 10
    while not house.count("nlu/intentNotRecognized"):
        assert time.monotonic() < deadline_s
        house.tell("nlu/query", {"input": "are you there", "id": "probe"})
        time.sleep(0.05)
    time.sleep(0.1)  # for other probes
    house._read = len(house.subscriber.messages)


@pytest.fixture
def house(broker: Broker, recogniser: Recogniser) -> Iterator[House]:
    with house_at(broker, recogniser) as opened:
        yield opened


class TestResults:
    """What is said becomes an intent in a session of its own."""

    def test_intent(self, house: House) -> None:
        """Every field, as the documents of Rhasspy and the code of Snips have them."""
        house.result(ACCEPTED)
        started = house.next("dialogueManager/sessionStarted")
        assert started == {"siteId": SITE, "sessionId": "u1", "customData": None, "lang": "en"}
        captured = house.next("asr/textCaptured")
        assert {
            key: captured[key] for key in ("text", "likelihood", "siteId", "sessionId", "wakewordId", "lang")
        } == {
            "text": "Dim the floor lamp to forty percent.",
            "likelihood": 0.93,
            "siteId": SITE,
            "sessionId": "u1",
            "wakewordId": None,
            "lang": "en",
        }
        assert captured["asrTokens"][0][2] == {
            "value": "floor",
            "confidence": 0.93,
            "rangeStart": 8,
            "rangeEnd": 13,
            "time": None,
        }
        parsed = house.next("nlu/intentParsed")
        intent = house.next("intent/HassLightSet")
        slot = {"confidence": 0.93, "confidenceScore": 0.93, "alternatives": []}
        expected = {
            "input": "Dim the floor lamp to forty percent.",
            "rawInput": "Dim the floor lamp to forty percent.",
            "intent": {"intentName": "HassLightSet", "confidenceScore": 0.93},
            "siteId": SITE,
            "id": "u1",
            "sessionId": "u1",
            "customData": None,
            "slots": [
                {
                    "entity": "name",
                    "slotName": "name",
                    "value": {"kind": "Custom", "value": "floor lamp"},
                    "rawValue": "floor lamp",
                    "range": {"start": 8, "end": 18, "rawStart": 8, "rawEnd": 18},
                    **slot,
                },
                {
                    "entity": "brightness",
                    "slotName": "brightness",
                    "value": {"kind": "Number", "value": 40},
                    "rawValue": "forty",
                    "range": {"start": 22, "end": 27, "rawStart": 22, "rawEnd": 27},
                    **slot,
                },
                {
                    "entity": "domain",
                    "slotName": "domain",
                    "value": {"kind": "Custom", "value": "light"},
                    "rawValue": "light",
                    "range": None,
                    **slot,
                },
            ],
        }
        assert parsed == expected
        more = {"asrTokens", "asrConfidence", "wakewordId", "lang"}
        assert {key: value for key, value in intent.items() if key not in more} == expected
        assert (intent["asrConfidence"], intent["wakewordId"], intent["lang"]) == (0.93, None, "en")
        house.tell("dialogueManager/endSession", {"sessionId": "u1", "customData": "done"})
        assert house.next("dialogueManager/sessionEnded") == {
            "siteId": SITE,
            "sessionId": "u1",
            "customData": "done",
            "termination": {"reason": "nominal"},
        }

    def test_refused(self, house: House) -> None:
        """No intent, and the session ends with the reason; what nobody said is nothing."""
        house.result(dataclasses.replace(REFUSED, reason="no_speech"))
        house.result(REFUSED)
        assert house.next("asr/textCaptured")["text"] == "dim the lump"
        assert house.next("nlu/intentNotRecognized") == {
            "siteId": SITE,
            "input": "dim the lump",
            "id": "u2",
            "sessionId": "u2",
            "customData": None,
        }
        assert house.next("dialogueManager/sessionEnded")["termination"] == {"reason": "intentNotRecognized"}
        assert house.count("asr/textCaptured") == 1

    def test_next_before_the_last_was_answered(self, house: House) -> None:
        """Nobody has to wait for a skill: the session before ends, and another begins."""
        house.result(ACCEPTED)
        house.result(dataclasses.replace(ACCEPTED, utterance_id="u3"))
        ended = house.next("dialogueManager/sessionEnded")
        assert (ended["sessionId"], ended["termination"]) == ("u1", {"reason": "nominal"})
        assert house.next("intent/HassLightSet")["sessionId"] == "u3"

    def test_names_become_levels(self, house: House) -> None:
        """An intent cannot change the topic."""
        house.result(dataclasses.replace(ACCEPTED, intent="a/b+#"))
        assert house.next("intent/a_b__")["intent"]["intentName"] == "a/b+#"


class TestDialogue:
    """Sessions that a skill begins, continues and ends."""

    def test_action(self, house: House) -> None:
        """Said first, then listened to with a filter, answered, continued, ended."""
        init = {"type": "action", "text": "Which lamp?", "intentFilter": ["HassTurnOn"]}
        house.tell("dialogueManager/startSession", {"init": init, "customData": "c"})
        session = house.next("dialogueManager/sessionStarted")
        assert session["customData"] == "c"
        said = house.next("tts/say")
        assert (said["text"], said["siteId"], said["lang"]) == ("Which lamp?", SITE, "en")
        assert said["sessionId"] == session["sessionId"]
        assert not house.attention.hears(0.0)  # not to what it says itself
        house.tell("tts/sayFinished", {"id": said["id"]})
        wait_until(lambda: house.can_be_said() == {"HassTurnOn"})
        assert house.attention.hears(1.0)
        house.result(dataclasses.replace(ACCEPTED, intent="HassTurnOn"))
        intent = house.next("intent/HassTurnOn")
        assert (intent["sessionId"], intent["customData"]) == (session["sessionId"], "c")
        wait_until(lambda: len(house.can_be_said()) > 1)
        again = {
            "sessionId": session["sessionId"],
            "intentFilter": ["HassNevermind"],
            "sendIntentNotRecognized": True,
        }
        house.tell("dialogueManager/continueSession", {**again, "customData": "d"})
        wait_until(lambda: house.can_be_said() == {"HassNevermind"})
        house.result(REFUSED)
        unknown = house.next("dialogueManager/intentNotRecognized")
        assert (unknown["sessionId"], unknown["customData"]) == (session["sessionId"], "d")
        assert not house.count("dialogueManager/sessionEnded")
        house.tell("dialogueManager/endSession", {"sessionId": session["sessionId"], "text": "Bye."})
        house.tell("tts/sayFinished", {"id": house.next("tts/say")["id"]})
        ended = house.next("dialogueManager/sessionEnded")
        assert ended["termination"] == {"reason": "nominal"}
        assert len(house.can_be_said()) > 1

    def test_notification(self, house: House) -> None:
        """Said, and over; without a voice in the house it ends, too."""
        house.tell("dialogueManager/startSession", {"init": {"type": "notification", "text": "Dinner!"}})
        house.tell("tts/sayFinished", {"id": house.next("tts/say")["id"]})
        assert house.next("dialogueManager/sessionEnded")["termination"] == {"reason": "nominal"}

    def test_queue(self, house: House) -> None:
        """One after the other; what may not wait is refused, and so is one too many."""
        house.tell("dialogueManager/startSession", {"init": {"type": "action"}, "customData": "0"})
        first = house.next("dialogueManager/sessionStarted")
        for number in range(1, MAX_SESSIONS + 1):
            house.tell(
                "dialogueManager/startSession", {"init": {"type": "action"}, "customData": str(number)}
            )
            assert house.next("dialogueManager/sessionQueued")["customData"] == str(number)
        house.tell("dialogueManager/startSession", {"init": {"type": "action"}, "customData": "too many"})
        assert first["sessionId"] in house.next("error/dialogueManager")["error"]
        house.tell("dialogueManager/startSession", {"init": {"type": "action", "canBeEnqueued": False}})
        house.next("error/dialogueManager")
        house.tell("dialogueManager/endSession", {"sessionId": first["sessionId"]})
        house.next("dialogueManager/sessionEnded")
        assert house.next("dialogueManager/sessionStarted")["customData"] == "1"

    def test_nobody_answers(
        self, broker: Broker, recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither the person, nor the voice, nor the skill: each wait has an end, which is told."""
        monkeypatch.setattr(module, "ANSWER_S", 0.2)
        monkeypatch.setattr(module, "SAY_S", 0.2)
        with house_at(broker, recogniser, window_s=1.0) as house:
            house.result(ACCEPTED)
            assert house.next("dialogueManager/sessionEnded")["termination"] == {"reason": "timeout"}
            started_s = time.monotonic()
            house.tell("dialogueManager/startSession", {"init": {"type": "action", "text": "Well?"}})
            house.next("tts/say")
            assert house.next("dialogueManager/sessionEnded")["termination"] == {"reason": "timeout"}
            assert 2.1 < time.monotonic() - started_s < 6

    def test_ends_with_the_service(self, broker: Broker, recogniser: Recogniser) -> None:
        """No session stays open, so no light does."""
        with house_at(broker, recogniser) as house:
            house.tell("dialogueManager/startSession", {"init": {"type": "action"}})
            house.next("dialogueManager/sessionStarted")
            subscriber = Subscriber(broker.port, "hermes/dialogueManager/sessionEnded")
        ended = subscriber.wait_for(1)[0].json()
        subscriber.close()
        assert ended["termination"] == {"reason": "error"}

    def test_wake_word_of_others(self, house: House) -> None:
        """Who detects one begins a session here."""
        house.tell("hotword/porcupine/detected", {"modelId": "porcupine"})
        session = house.next("dialogueManager/sessionStarted")
        house.result(ACCEPTED)
        assert house.next("intent/HassLightSet")["sessionId"] == session["sessionId"]


class TestOthersManage:
    """Another dialogue manager asks for each part."""

    def test_listening(self, house: House) -> None:
        """The session is theirs: nothing is started or ended here."""
        asked = {"sessionId": "theirs", "intentFilter": ["HassLightSet"]}
        house.tell("asr/startListening", asked)
        wait_until(lambda: house.can_be_said() == {"HassLightSet"})
        house.result(ACCEPTED)
        assert house.next("asr/textCaptured")["sessionId"] == "theirs"
        assert house.next("intent/HassLightSet")["sessionId"] == "theirs"
        house.tell("asr/startListening", asked)
        wait_until(lambda: house.can_be_said() == {"HassLightSet"})
        house.tell("asr/stopListening", {"sessionId": "theirs"})
        wait_until(lambda: len(house.can_be_said()) > 1)
        assert not house.count("dialogueManager/sessionStarted")

    def test_hotword_off(self, house: House) -> None:
        """Nothing is heard that is not asked for, until nobody wants that any more."""
        for reason in ("dialogueSession", "playAudio"):
            house.tell("hotword/toggleOff", {"reason": reason})
        wait_until(lambda: house.attention.only_asked)
        house.tell("hotword/toggleOn", {"reason": "playAudio"})
        house.tell("nlu/query", {"input": "next song", "id": "after"})
        house.next("nlu/intentParsed")
        assert house.attention.only_asked
        house.tell("hotword/toggleOn", {"reason": "dialogueSession"})
        wait_until(lambda: not house.attention.only_asked)

    def test_query(self, house: House) -> None:
        """A text is understood as if it had been said, within the filter."""
        query = {
            "input": "set a pizza timer for twelve minutes",
            "id": "7",
            "sessionId": "s",
            "customData": "c",
        }
        house.tell("nlu/query", query)
        intent = house.next("intent/HassStartTimer")
        assert {each["slotName"]: each["value"]["value"] for each in intent["slots"]} == {
            "name": "pizza",
            "minutes": 12,
        }
        assert (intent["id"], intent["sessionId"], intent["customData"]) == ("7", "s", "c")
        house.tell("nlu/query", {**query, "intentFilter": ["HassTurnOn"]})
        assert house.next("nlu/intentNotRecognized")["id"] == "7"


class TestStrangers:
    """What is wrong, or not for us."""

    @pytest.mark.parametrize(
        ("topic", "text", "area"),
        [
            ("nlu/query", "no JSON", "nlu"),
            ("nlu/query", "[1]", "nlu"),
            ("nlu/query", "[" * 50_000, "nlu"),
            ("nlu/query", '{"siteId": "attic"}', "nlu"),
            ("nlu/query", '{"siteId": "attic", "input": "x", "intentFilter": "y"}', "nlu"),
            ("nlu/query", json.dumps({"siteId": "attic", "input": "x" * 501}), "nlu"),
            ("nlu/query", json.dumps({"siteId": "attic", "input": "x" * MAX_BYTES}), "nlu"),
            ("nlu/query", '{"siteId": 7, "input": "x"}', "nlu"),
            ("asr/startListening", '{"siteId": "attic", "sessionId": []}', "asr"),
            ("hotword/toggleOff", '{"siteId": "attic", "reason": {}}', "hotword"),
            ("dialogueManager/startSession", '{"siteId": "attic"}', "dialogueManager"),
            ("dialogueManager/startSession", '{"siteId": "attic", "init": {"type": 1}}', "dialogueManager"),
            (
                "dialogueManager/continueSession",
                '{"siteId": "attic", "sessionId": "none"}',
                "dialogueManager",
            ),
            ("dialogueManager/endSession", '{"siteId": "attic"}', "dialogueManager"),
        ],
    )
    def test_told(self, house: House, topic: str, text: str, area: str) -> None:
        """Says what is wrong on the topic for errors, and goes on."""
        house.tell(topic, text)
        error = house.next(f"error/{area}")
        assert error["siteId"] == SITE
        assert error["context"] == f"hermes/{topic}"
        assert 5 < len(error["error"]) < 300
        house.tell("nlu/query", {"input": "next song", "id": "after"})
        assert house.next("nlu/intentParsed")["id"] == "after"

    def test_other_sites_and_other_times(self, house: House) -> None:
        """Another site's is not ours, and a retained message was meant for another time."""
        house.tell("nlu/query", {"siteId": "cellar", "input": "next song", "id": "1"})
        house.tell("dialogueManager/startSession", {"siteId": "cellar", "init": {"type": "action"}})
        house.tell("nlu/query", {"input": "next song", "id": "3"})
        assert house.next("nlu/intentParsed")["id"] == "3"
        assert not house.count("dialogueManager/sessionStarted")

    def test_retained(self, broker: Broker, recogniser: Recogniser) -> None:
        """What was asked before we were there is not answered."""
        with Subscriber(broker.port, "none/#") as skill:
            skill.publish(
                "hermes/nlu/query",
                json.dumps({"siteId": SITE, "input": "next song", "id": "old"}),
                retain=True,
            )
            with house_at(broker, recogniser) as house:
                house.tell("nlu/query", {"input": "next song", "id": "new"})
                assert house.next("nlu/intentParsed")["id"] == "new"
                assert [m.json()["id"] for m in house.subscriber.messages if "intentParsed" in m.topic] == [
                    "new"
                ]
            skill.publish("hermes/nlu/query", "", retain=True)


def test_needs_a_broker(tmp_path: Path) -> None:
    """Without one it has no effect, which is an error."""
    path = tmp_path / "edgevoice.yaml"
    path.write_text("hermes: {enabled: true}\n")
    with pytest.raises(ConfigError, match=r"hermes\.enabled: Hermes is spoken over MQTT"):
        load(path)


def test_service(edgevoice: Edgevoice, broker: Broker, tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    """`edgevoice run` with recordings: each command on Hermes, beside edgevoice's own topics."""
    path = tmp_path / "edgevoice.yaml"
    path.write_text(f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nhermes: {{enabled: true}}\n")
    said = [sample for sample in samples if sample.accepted][:4]
    with Subscriber(broker.port, "#") as subscriber:
        done = edgevoice("run", "--config", path, "--input", *(sample.path for sample in said))
        assert done.returncode == 0, done.stderr.decode()
        subscriber.wait_for(lambda m: m.payload == b"offline")
        messages = list(subscriber.messages)
    heard = [m.json() for m in messages if m.topic.startswith("hermes/intent/")]
    assert [
        (m["intent"]["intentName"], {s["slotName"]: s["value"]["value"] for s in m["slots"]}) for m in heard
    ] == [(sample.intent, sample.slots) for sample in said]
    ended = [m.json()["termination"]["reason"] for m in messages if m.topic.endswith("/sessionEnded")]
    assert ended == ["nominal", "nominal", "nominal", "error"]
    assert sum(m.topic.startswith("edgevoice/default/intent/") for m in messages) == 4
