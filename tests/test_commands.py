"""Commands come in over a real broker, are carried out and answered; what makes no sense does no harm."""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgevoice import commands
from edgevoice.attention import MAX_PLAYING_S
from edgevoice.broker import MqttSettings
from edgevoice.commands import Commands
from edgevoice.errors import AudioError, UsageError
from edgevoice.microphone import Microphone
from edgevoice.publish import Publisher
from edgevoice.testing import Broker, Front, Subscriber
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.capture import MicrophoneSource
    from tests.conftest import Edgevoice

WINDOW_S = 5.0
LONG_S = 10.0  # for a busy machine


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@contextmanager
def serving(broker: Broker, site: str) -> Iterator[Commands]:
    """A publisher that takes commands."""
    publisher = Publisher(MqttSettings(broker.host, broker.port), site)
    try:
        publisher.connect()
        served = Commands(WINDOW_S)
        publisher.serve(served.take)
        yield served
    finally:
        publisher.close()


@contextmanager
def client(broker: Broker) -> Iterator[Client]:
    """A client that sends."""
    sender = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    sender.connect(broker.host, broker.port, clean_start=True)
    sender.loop_start()
    yield sender
    sender.disconnect()
    sender.loop_stop()


def send(
    sender: Client, topic: str, payload: bytes, *, retain: bool = False, answer: str | None = None
) -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if answer:
        properties.ResponseTopic = answer
        properties.CorrelationData = b"\0key"
    sender.publish(topic, payload, qos=1, retain=retain, properties=properties).wait_for_publish(LONG_S)


def no_microphone() -> Microphone:
    def open_source() -> MicrophoneSource:
        raise AudioError("there is none")

    return Microphone(open_source)


class TestParse:
    """What a payload may be."""

    @pytest.mark.parametrize(
        ("name", "payload", "value"),
        [
            ("mute", b"ON", True),
            ("mute", b" off\n", False),
            ("mute", b"True", True),
            ("mute", b"false", False),
            ("playing", b"on", True),
            ("playing", b"OFF", False),
            ("playing", b"2.5", 2.5),
            ("playing", b"60", 60.0),
            ("listen", b"", None),
            ("listen", b"0", 0.0),
            ("listen", b"10", 10.0),
            ("mute", b"", None),
            ("threshold", b"", None),
            ("threshold", b"0.75", 0.75),
            ("threshold", b"1", 1.0),
        ],
    )
    def test_good(self, name: str, payload: bytes, value: object) -> None:
        """Words in any case, decimal numbers, or nothing."""
        assert commands.parse(name, payload) == value

    @pytest.mark.parametrize(
        ("name", "payload"),
        [
            ("mute", b"1"),
            ("threshold", b"1.01"),
            ("threshold", b"ON"),
            ("mute", b"\xff\0"),
            ("mute", b"on" + b" " * 100),
            ("playing", b""),
            ("playing", b"-1"),
            ("playing", b"nan"),
            ("playing", b"1e3"),
            ("playing", b"61"),
            ("playing", "٣".encode()),
            ("listen", b"ON"),
            ("listen", b"9" * 10_000_000),
            ("volume", b"1"),
            ("mute/mute", b"on"),
        ],
    )
    def test_bad(self, name: str, payload: bytes) -> None:
        """The message has what was seen, cut, and what is allowed."""
        with pytest.raises(UsageError, match=r"allowed (is|are)") as caught:
            commands.parse(name, payload)
        assert len(str(caught.value)) < 200
        assert str(caught.value).isprintable()


class TestCommands:
    """What they do."""

    def test_mute(self) -> None:
        """The microphone of now, and the one that is opened later."""
        taken = Commands(WINDOW_S)
        taken.take("mute", b"ON")
        taken.microphone = first = no_microphone()
        assert first.muted
        taken.take("mute", b"OFF")
        assert not first.muted

    def test_playing(self) -> None:
        """For seconds, until its end, or until the limit."""
        for start, end in ((b"2", None), (b"ON", b"OFF"), (b"ON", b"0"), (b"ON", None)):
            taken = Commands(WINDOW_S)
            assert taken.attention.hears(1)
            taken.take("playing", start)
            assert not taken.attention.hears(2)
            if end:
                taken.take("playing", end)
            assert taken.attention.hears(4 if end or start == b"2" else 2 + MAX_PLAYING_S)

    def test_listen(self) -> None:
        """For as long as configured, or as it says."""
        for payload, until_s in ((b"", WINDOW_S), (b"20", 20.0)):
            taken = Commands(WINDOW_S)
            taken.take("listen", payload)
            assert not taken.attention.take(until_s + 0.1, until_s + 1)
            assert taken.attention.take(until_s - 0.1, until_s + 1)

    def test_retained(self) -> None:
        """Only muting is still meant."""
        taken = Commands(WINDOW_S)
        taken.microphone = microphone = no_microphone()
        for name, payload in (("mute", b"ON"), ("listen", b""), ("playing", b"ON"), ("say-again", b"")):
            taken.take(name, payload, retained=True)
        assert microphone.muted
        assert taken.attention.hears(1)
        assert not taken.attention.take(1, 2)


class TestBroker:
    """Over MQTT."""

    def test_answers(self, broker: Broker) -> None:
        """Who names a topic gets an answer there, good or bad, with what it gave to tell it by."""
        answers: list[tuple[Any, bytes]] = []
        with serving(broker, "answers") as served, client(broker) as sender:
            served.microphone = microphone = no_microphone()

            def keep(_client: Client, _data: Any, message: MQTTMessage) -> None:
                answers.append(
                    (json.loads(message.payload), getattr(message.properties, "CorrelationData", b""))
                )

            sender.on_message = keep
            sender.subscribe("back/#")
            send(sender, "edgevoice/answers/set/mute", b"ON", answer="back/here")
            send(sender, "edgevoice/answers/set/mute", b"LOUD", answer="back/here")
            wait_until(lambda: len(answers) == 2)
        assert microphone.muted
        assert answers[0] == ({"ok": True}, b"\0key")
        assert answers[1][0]["ok"] is False
        assert "LOUD" in answers[1][0]["error"]

    def test_nonsense_does_no_harm(self, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        """It is told in the log, and the next command is carried out."""
        with (
            caplog.at_level(logging.WARNING),
            serving(broker, "nonsense") as served,
            client(broker) as sender,
        ):
            served.microphone = microphone = no_microphone()
            for name, payload in (("mute", b"\xff\xfe"), ("playing", b"x" * 100_000), ("volume", b"")):
                send(sender, f"edgevoice/nonsense/set/{name}", payload)
            send(sender, "edgevoice/nonsense/set/mute", b"x", answer="edgevoice/nonsense/set/mute")
            send(sender, "edgevoice/nonsense/set/mute", b"ON")
            wait_until(lambda: microphone.muted)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) >= 4
        assert all(len(line) < 250 and line.isprintable() for line in lines)

    def test_after_an_outage(self) -> None:
        """Commands come in on the next connection, too; those kept for us are put in their place."""
        with Broker() as broker, serving(broker, "outage") as served:
            served.microphone = microphone = no_microphone()
            broker.kill()
            broker.start()
            with client(broker) as sender:
                for name in ("mute", "playing", "listen"):
                    send(
                        sender,
                        f"edgevoice/outage/set/{name}",
                        b"" if name == "listen" else b"ON",
                        retain=True,
                    )
                wait_until(lambda: microphone.muted)
                microphone.muted = False
            broker.kill()
            broker.start()
            with client(broker) as sender:
                send(sender, "edgevoice/outage/set/mute", b"ON", retain=True)
                wait_until(lambda: microphone.muted)

    def test_results_are_not_held_up(self, broker: Broker) -> None:
        """Answers on their way are not taken for acknowledgements of results."""
        publisher = Publisher(MqttSettings(broker.host, broker.port), "both")
        try:
            publisher.connect()
            publisher.serve(Commands(WINDOW_S).take)
            with client(broker) as sender, Subscriber(broker.port, "both/back") as subscriber:
                for _ in range(50):
                    send(sender, "edgevoice/both/set/listen", b"", answer="both/back")
                    publisher.set_state("listening")
                    publisher.set_state("speech")
                subscriber.wait_for(50)
                assert publisher.flush(LONG_S)
                assert publisher._connection is not None
                assert publisher._connection._answers == set()
                assert publisher.counters.unanswered == 0
        finally:
            publisher.close()


class TestTell:
    """`edgevoice tell`."""

    @staticmethod
    def configure(folder: Path, port: int, site: str) -> Path:
        """Write a configuration with a client_id, which must not be taken away from who is told."""
        path = folder / "edgevoice.yaml"
        path.write_text(f"site: {site}\nmqtt: {{host: 127.0.0.1, port: {port}, client_id: mine}}\n")
        return path

    def test_done(self, edgevoice: Edgevoice, broker: Broker, tmp_path: Path) -> None:
        """Exit code 0 when it is done, and not a word."""
        path = self.configure(tmp_path, broker.port, "tell")
        with serving(broker, "tell") as served:
            served.microphone = microphone = no_microphone()
            done = edgevoice("tell", "mute", "on", "--config", path)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            assert microphone.muted
            assert edgevoice("tell", "listen", "--config", path).returncode == 0
            assert served.attention.take(1, 2)

    def test_nobody_answers(self, edgevoice: Edgevoice, broker: Broker, tmp_path: Path) -> None:
        """Exit code 5, with the topic, and at once when the broker knows."""
        started_s = time.monotonic()
        done = edgevoice("tell", "listen", "--config", self.configure(tmp_path, broker.port, "nobody"))
        assert done.returncode == 5
        assert b"nobody answers on edgevoice/nobody/set/listen" in done.stderr
        assert time.monotonic() - started_s < LONG_S

    def test_no_broker(self, edgevoice: Edgevoice, tmp_path: Path) -> None:
        """Exit code 5 for one that is not there, 2 for none at all."""
        with Broker() as gone:
            port = gone.port
        assert edgevoice("tell", "listen", "--config", self.configure(tmp_path, port, "x")).returncode == 5
        done = edgevoice("tell", "listen")
        assert done.returncode == 2
        assert b"mqtt.host" in done.stderr

    def test_old_broker(self, edgevoice: Edgevoice, broker: Broker, tmp_path: Path) -> None:
        """One that cannot pass on an answer: exit code 5, and another way."""
        with Front(broker.port, "refuses") as old:
            done = edgevoice("tell", "listen", "--config", self.configure(tmp_path, old.port, "old"))
        assert done.returncode == 5
        assert b"nobody can answer: use mosquitto_pub -t edgevoice/old/set/listen" in done.stderr

    def test_nonsense(self, edgevoice: Edgevoice, broker: Broker, tmp_path: Path) -> None:
        """It is not even sent."""
        path = self.configure(tmp_path, broker.port, "x")
        done = edgevoice("tell", "playing", "loud", "--config", path)
        assert done.returncode == 2
        assert b"'loud' seen" in done.stderr
        assert edgevoice("tell", "volume", "1", "--config", path).returncode == 2
