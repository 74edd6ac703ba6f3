"""Results reach a real broker soon or never, and our presence there is always true."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgevoice.broker
import edgevoice.publish
from edgevoice.broker import MqttSettings
from edgevoice.config import Config
from edgevoice.errors import BrokerError, ConfigError
from edgevoice.publish import MAX_LEVEL_CHARACTERS, Publisher, result_fields, topic_level
from edgevoice.testing import Broker, Front, Message, Subscriber
from tests.conftest import wait_until
from tests.results import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Result

REJECTED = replace(ACCEPTED, utterance_id="u2", accepted=False, reason="low_confidence", confidence=0.2)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@contextmanager
def publishing(broker: Broker | Front, site: str = "default", **settings: Any) -> Iterator[Publisher]:
    publisher = Publisher(MqttSettings(broker.host, broker.port, **settings), site)
    try:
        publisher.connect()
        yield publisher
    finally:
        publisher.close()


def with_id(name: str) -> Result:
    return replace(ACCEPTED, utterance_id=name)


def ids(subscriber: Subscriber) -> list[str]:
    """Utterances that came, in order."""
    return [m.json()["utterance_id"] for m in subscriber.messages if "/intent/" in m.topic]


def wait_until_lost(publisher: Publisher) -> None:
    deadline_s = time.monotonic() + 5
    while publisher.connected:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """Something on a port that answers whatever is sent with `answer`, or closes at once with None."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if answer is not None:
                        connection.recv(1000)
                        connection.sendall(answer)
                        connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def packet_id(publish: bytes) -> bytes:
    """Return the identifier of an MQTT PUBLISH packet."""
    start = next(at for at in range(1, 5) if publish[at] < 0x80) + 1  # after its length
    topic_bytes = int.from_bytes(publish[start : start + 2])
    return publish[start + 2 + topic_bytes :][:2]


@contextmanager
def deaf_broker() -> Iterator[int]:
    """A broker that takes connections but acknowledges messages from the second connection on only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            deaf = True
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while data := connection.recv(4096):
                        if data[0] == 0x10:  # CONNECT
                            connection.sendall(b"\x20\x03\0\0\0")
                        elif data[0] & 0xF0 == 0x30 and not deaf:  # PUBLISH, one at a time
                            connection.sendall(b"\x40\x02" + packet_id(data))
                deaf = False

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


class TestResults:
    """What arrives for one utterance."""

    def test_accepted(self, broker: Broker) -> None:
        """An accepted result has its intent's topic, every field, and a time after which it is void."""
        with (
            Subscriber(broker.port, "edgevoice/+/intent/#") as subscriber,
            publishing(broker, "Büro") as publisher,
        ):
            publisher.publish(ACCEPTED)
            assert publisher.flush(5)
            (message,) = subscriber.wait_for(1)
        assert message.topic == "edgevoice/Büro/intent/SetTemperature"
        assert not message.retain
        assert message.expiry_s in {4, 5}  # the broker has counted down what it held
        assert "Küche".encode() in message.payload
        assert message.json() == {
            "utterance_id": "u1",
            "site": "Büro",
            "time": "2026-01-01T12:00:00+01:00",
            "text": "Küche auf zwanzig Grad",
            "intent": "SetTemperature",
            "slots": {"room": "küche", "degrees": 20},
            "slots_raw": {"room": "Küche", "degrees": "zwanzig"},
            "confidence": 0.93,
            "accepted": True,
            "reason": None,
            "heard": None,
            "confirm": False,
            "follows": None,
            "alternatives": [
                {
                    "text": "Küche auf neunzig Grad",
                    "intent": "SetTemperature",
                    "slots": {"degrees": 90},
                    "score": -4.5,
                }
            ],
            "start_s": 1.0,
            "end_s": 2.5,
            "latency_ms": 281.5,
            "timings_ms": {
                "vad": 1,
                "mel": 2,
                "encode": 3,
                "search": 4,
                "match": 5,
                "explain": 6,
                "total": 21,
            },
        }

    def test_rejected(self, broker: Broker) -> None:
        """A refused result never appears under its intent, however likely that was."""
        with Subscriber(broker.port) as subscriber, publishing(broker) as publisher:
            publisher.publish(REJECTED)
            (message,) = subscriber.wait_for(lambda m: m.topic == "edgevoice/default/rejected")
            assert message.json()["reason"] == "low_confidence"
            assert message.expiry_s in {4, 5}
            assert not message.retain
            assert not ids(subscriber)

    def test_published_before_connect(self, broker: Broker) -> None:
        """What was said while the service came up arrives in order when it has."""
        publisher = Publisher(MqttSettings(broker.host, broker.port))
        publisher.publish(with_id("a"))
        publisher.publish(with_id("b"))
        publisher.set_state("listening")
        assert not publisher.flush(0.05)
        with Subscriber(broker.port) as subscriber:
            publisher.connect()
            assert publisher.flush(5)
            subscriber.wait_for(4)
            assert ids(subscriber) == ["a", "b"]
        publisher.close()

    def test_numbers_are_finite(self) -> None:
        """NaN and infinities become null, NumPy's numbers become numbers, the rest becomes text."""
        odd = replace(
            ACCEPTED,
            confidence=math.nan,
            slots={
                "inf": math.inf,
                "f4": np.float32(0.5),
                "i8": np.int64(7),
                "list": [1.5, -math.inf, None, True],
                "path": ValueError("x"),
            },
        )
        fields = json.loads(json.dumps(result_fields(odd), allow_nan=False))
        assert fields["confidence"] is None
        assert fields["site"] == "default"
        assert fields["slots"] == {
            "inf": None,
            "f4": 0.5,
            "i8": 7,
            "list": [1.5, None, None, True],
            "path": "x",
        }

    def test_surrogates(self, broker: Broker) -> None:
        """Text that has no UTF-8 does not stop the engine."""
        with Subscriber(broker.port) as subscriber, publishing(broker) as publisher:
            publisher.publish(replace(ACCEPTED, text="a\ud800b"))
            assert publisher.flush(5)
            assert subscriber.wait_for(lambda m: "intent" in m.topic)[0].json()["text"] == "a?b"


class TestTopics:
    """Names of intents and sites become one level of a topic."""

    @pytest.mark.parametrize(
        ("name", "level"),
        [
            ("HassTurnOn", "HassTurnOn"),
            ("Licht an/aus", "Licht an_aus"),
            ("a+b#c", "a_b_c"),
            ("nul\0tab\tdel\x7f", "nul_tab_del_"),
            ("\ud800\ufffe\U0001ffff", "___"),
            ("", "_"),
            ("é" * 500, "é" * MAX_LEVEL_CHARACTERS),
        ],
    )
    def test_level(self, broker: Broker, name: str, level: str) -> None:
        """What MQTT forbids or reads as structure is replaced, and the broker takes the rest."""
        assert topic_level(name) == level
        with Subscriber(broker.port) as subscriber, publishing(broker, name) as publisher:
            publisher.publish(replace(ACCEPTED, intent=name))
            assert publisher.flush(5)
            (message,) = subscriber.wait_for(lambda m: "/intent/" in m.topic)
            assert message.topic == f"edgevoice/{level}/intent/{level}"


class TestPresence:
    """State and availability, retained."""

    def test_state(self, broker: Broker) -> None:
        """Whoever comes later learns the latest state and that we are there, or have left."""
        with publishing(broker) as publisher:
            publisher.set_state("speech")
            publisher.set_state("listening")
            assert publisher.flush(5)
            with Subscriber(broker.port) as late:
                seen = {m.topic: m for m in late.wait_for(2)}
            assert seen["edgevoice/default/state"].payload == b"listening"
            assert seen["edgevoice/default/availability"].payload == b"online"
            assert all(m.retain and m.expiry_s is None for m in seen.values())
        with Subscriber(broker.port) as later:
            seen = {m.topic: m for m in later.wait_for(2)}
            assert seen["edgevoice/default/availability"].payload == b"offline"

    def test_last_will(self, broker: Broker) -> None:
        """A publisher that is killed is announced as offline by the broker."""
        program = (
            "import sys, time\n"
            "from edgevoice.broker import MqttSettings\nfrom edgevoice.publish import Publisher\n"
            f"publisher = Publisher(MqttSettings('127.0.0.1', {broker.port}))\n"
            "publisher.connect(); publisher.flush(5); print('ready', flush=True); time.sleep(60)\n"
        )
        with (
            Subscriber(broker.port, "edgevoice/default/availability") as subscriber,
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child,
        ):
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            assert [m.payload for m in subscriber.wait_for(1)] == [b"online"]
            child.kill()
            assert [m.payload for m in subscriber.wait_for(2)] == [b"online", b"offline"]
            assert subscriber.messages[1].retain

    def test_close(self, broker: Broker) -> None:
        """close() sends what waits, may be called twice, and ends the publisher for good."""
        with Subscriber(broker.port) as subscriber:
            with publishing(broker) as publisher:
                publisher.publish(with_id("last"))
                publisher.close()
                publisher.close()
                subscriber.wait_for(lambda m: "/intent/" in m.topic)
                with pytest.raises(BrokerError, match="closed"):
                    publisher.publish(ACCEPTED)
                with pytest.raises(BrokerError, match="closed"):
                    publisher.connect()
            subscriber.wait_for(lambda m: m.payload == b"offline")
        assert not [t for t in threading.enumerate() if "edgevoice" in t.name or "paho" in t.name]
        never_connected = Publisher(MqttSettings())
        never_connected.close()
        never_connected.close()

    def test_frozen_broker(self, broker: Broker) -> None:
        """A broker that does not answer holds up neither publish() nor the end, and the will is used."""
        publisher = Publisher(MqttSettings(broker.host, broker.port))
        publisher.connect()
        assert publisher.flush(5)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        start_s = time.monotonic()
        for _ in range(100):
            publisher.publish(ACCEPTED)
        assert time.monotonic() - start_s < 0.5
        assert publisher.counters.overflowed > 0
        publisher.close()
        assert time.monotonic() - start_s < 5
        os.kill(broker.pid, signal.SIGCONT)
        with Subscriber(broker.port, "edgevoice/default/availability") as subscriber:
            subscriber.wait_for(lambda m: m.payload == b"offline")


class TestOutage:
    """The broker goes away and comes back."""

    def test_killed_and_restarted(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What grew stale is dropped and counted, what is fresh arrives once, presence is restored."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MAX_S", 1)  # well within the time of a result
        with publishing(broker, intent_expiry_s=2.0) as publisher:
            publisher.publish(with_id("before"))
            assert publisher.flush(5)
            broker.kill()
            wait_until_lost(publisher)
            start_s = time.monotonic()
            publisher.publish(with_id("stale"))
            publisher.set_state("muted")
            assert time.monotonic() - start_s < 0.2
            assert not publisher.flush(2.1)
            broker.start()
            with Subscriber(broker.port) as subscriber:
                publisher.publish(with_id("fresh"))
                assert not publisher.flush(5)  # because of the stale one
                publisher.publish(with_id("after"))
                assert publisher.flush(5)
                subscriber.wait_for(lambda m: b'"after"' in m.payload)
                assert ids(subscriber) == ["fresh", "after"]
                assert [m.payload for m in subscriber.messages if m.topic.endswith("/state")] == [b"muted"]
                subscriber.wait_for(lambda m: m.payload == b"online")
            assert (publisher.counters.delivered, publisher.counters.stale) == (3, 1)
        assert "lost the MQTT broker" in caplog.text

    def test_short_outage(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was said during an outage shorter than its time arrives, in order and once."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 2)  # so that the subscriber is back first
        with publishing(broker, intent_expiry_s=30) as publisher:
            assert publisher.flush(5)
            broker.kill()
            wait_until_lost(publisher)
            for name in "abc":
                publisher.publish(with_id(name))
            broker.start()
            with Subscriber(broker.port) as subscriber:
                assert publisher.flush(10)
                messages = subscriber.wait_for(4)
                assert ids(subscriber) == ["a", "b", "c"]
                assert all(
                    m.expiry_s is not None and m.expiry_s < 30 for m in messages if "/intent/" in m.topic
                )
            assert (publisher.counters.delivered, publisher.counters.stale) == (3, 0)

    @pytest.mark.parametrize(("expiry_s", "arrives"), [(30.0, ["x"]), (1.0, [])])
    def test_unacknowledged(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch, expiry_s: float, arrives: list[str]
    ) -> None:
        """A message on its way when the broker dies is sent once more while it is fresh, and never later."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 2)
        with publishing(broker, intent_expiry_s=expiry_s) as publisher:
            assert publisher.flush(5)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGSTOP)
            publisher.publish(with_id("x"))
            assert not publisher.flush(0.2)  # handed to paho, never answered
            broker.kill()
            wait_until_lost(publisher)
            broker.start()
            with Subscriber(broker.port) as subscriber:
                assert publisher.flush(10) is bool(arrives)
                subscriber.wait_for(lambda m: m.payload == b"online")
                publisher.publish(with_id("next"))
                subscriber.wait_for(lambda m: b'"next"' in m.payload)
                assert ids(subscriber) == [*arrives, "next"]
            assert publisher.counters.stale == 1 - len(arrives)

    def test_never_acknowledged(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A broker that never acknowledges is left and tried again, counted, logged; the result arrives."""
        monkeypatch.setattr(edgevoice.broker, "_ACKNOWLEDGE_S", 0.3)
        with deaf_broker() as port:
            publisher = Publisher(MqttSettings("127.0.0.1", port, intent_expiry_s=30))
            publisher.connect()
            publisher.publish(ACCEPTED)
            assert publisher.flush(8)
            assert (publisher.counters.unanswered, publisher.counters.delivered) == (1, 1)
            assert publisher.connected
            publisher.close()
        assert "did not acknowledge a message within 0.3 s" in caplog.text

    def test_locked_out_after_restart(self, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that comes back with another password is reported once, without ours."""
        accounts = {"us": "first-secret"}
        with (
            Broker(accounts) as broker,
            publishing(broker, username="us", password="first-secret") as publisher,  # noqa: S106
        ):
            broker.kill()
            accounts["us"] = "second-secret"
            broker.start()
            time.sleep(3.5)  # two attempts
            assert not publisher.connected
        assert caplog.text.count("does not take us: Not authorized; check mqtt username and password") == 1
        assert "secret" not in caplog.text


class TestRefusal:
    """A broker that cannot be used is an error with address, reason and remedy."""

    def error(self, **settings: Any) -> str:
        """What connect() says within one second."""
        publisher = Publisher(MqttSettings(**{"host": "127.0.0.1", "connect_timeout_s": 1, **settings}))
        start_s = time.monotonic()
        with pytest.raises(BrokerError) as caught:
            publisher.connect()
        assert time.monotonic() - start_s < 4
        publisher.close()
        assert not publisher.connected
        assert "secret" not in f"{caught.value!r} {publisher!r}"
        return str(caught.value)

    def test_nobody_there(self) -> None:
        """Nothing listens."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            assert f"127.0.0.1:{port}: connection refused; is the broker running" in self.error(port=port)

    def test_unknown_name(self) -> None:
        """A name that means nothing, and one that cannot be a name."""
        assert "broker.invalid:1883: its name cannot be resolved" in self.error(host="broker.invalid")
        assert "check mqtt host" in self.error(host="x" * 70)

    def test_password(self) -> None:
        """A wrong password, an unknown user and no login at all; the right one is let in."""
        with Broker({"us": "right"}) as broker:
            for login in ({"username": "us", "password": "secret"}, {"username": "you"}, {}):
                assert "Not authorized; check mqtt username and password" in self.error(
                    port=broker.port, **login
                )
            with publishing(broker, username="us", password="right") as publisher:  # noqa: S106
                assert publisher.flush(5)

    def test_no_broker(self) -> None:
        """A port that never answers, one that hangs up, one that talks something else."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            assert "no answer within 1 s" in self.error(port=silent.getsockname()[1])
        with server(None) as port:
            assert "closed the connection; is it an MQTT broker" in self.error(port=port)
        with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            assert f"127.0.0.1:{port}" in self.error(port=port)

    def test_second_attempt(self) -> None:
        """After a failure the same publisher can connect once the broker is there."""
        broker = Broker()
        publisher = Publisher(MqttSettings(broker.host, broker.port))
        with pytest.raises(BrokerError, match="connection refused"):
            publisher.connect()
        with broker:
            publisher.connect()
            publisher.publish(ACCEPTED)
            assert publisher.flush(5)
            publisher.close()

    def test_access_rules(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A message the broker's rules forbid is counted and reported, and the next one goes on."""
        rules = tmp_path / "acl"
        rules.write_text("topic readwrite edgevoice/default/availability\ntopic edgevoice/default/rejected\n")
        with Broker(settings=[f"acl_file {rules}"]) as broker, publishing(broker) as publisher:
            for _ in range(2):
                publisher.publish(ACCEPTED)
                assert not publisher.flush(5)
            publisher.publish(REJECTED)
            assert publisher.flush(5)
            assert (publisher.counters.refused, publisher.counters.delivered) == (2, 1)
        why = "refused a message on edgevoice/default/intent/SetTemperature: Not authorized"
        assert caplog.text.count(why) == 1  # once a topic: it would be said of each command for ever


class TestOldBroker:
    """A broker that knows MQTT 3.1.1 only."""

    @pytest.mark.parametrize("old", ["refuses", "hangs up", "waits"])
    def test_results_and_presence(self, broker: Broker, old: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Whatever it does with MQTT 5, results and presence arrive with 3.1.1, and the log says so."""
        with Front(broker.port, old) as front, Subscriber(broker.port) as subscriber:
            publisher = Publisher(MqttSettings("127.0.0.1", front.port, connect_timeout_s=0.5))
            publisher.connect()
            assert publisher.mqtt_version == "3.1.1"
            publisher.set_state("listening")
            publisher.publish(ACCEPTED)
            publisher.publish(REJECTED)
            assert publisher.flush(5)
            assert front.seen_versions == [5, 4]
            messages = subscriber.wait_for(4)
            assert ids(subscriber) == ["u1"]
            assert all(m.expiry_s is None for m in messages)  # it keeps no time
            publisher.close()
            subscriber.wait_for(lambda m: m.payload == b"offline")
        assert "knows only MQTT 3.1.1" in caplog.text

    def test_our_side_keeps_the_time(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """What grew stale while the broker was away is dropped by us."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MAX_S", 1)
        with Front(broker.port, "refuses") as front:
            publisher = Publisher(MqttSettings("127.0.0.1", front.port, intent_expiry_s=1.0))
            publisher.connect()
            broker.kill()
            wait_until_lost(publisher)
            publisher.publish(with_id("stale"))
            time.sleep(1.1)
            broker.start()
            with Subscriber(broker.port) as subscriber:
                subscriber.wait_for(lambda m: m.payload == b"online")
                publisher.publish(with_id("fresh"))
                subscriber.wait_for(lambda m: "/intent/" in m.topic)
                assert ids(subscriber) == ["fresh"]
            assert publisher.counters.stale == 1
            publisher.close()

    @pytest.mark.parametrize(("old", "versions"), [("refuses", [5, 4, 4]), ("hangs up", [5, 4, 5, 4])])
    def test_remembered(self, broker: Broker, old: Any, versions: list[int]) -> None:
        """Who says that it knows no MQTT 5 is not asked again; who says nothing may have been starting."""
        with Front(broker.port, old) as front:
            publisher = Publisher(MqttSettings("127.0.0.1", front.port))
            publisher.connect()
            broker.kill()
            wait_until_lost(publisher)
            broker.start()
            publisher.connect()
            while publisher.connected and len(front.seen_versions) < len(versions):
                time.sleep(0.01)
            publisher.close()
            assert [each for each in front.seen_versions if each] == versions

    def test_hung_up_on_once(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """A broker that was starting is spoken to in MQTT 5 from the next connection on."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 0.2)
        with Front(broker.port, "hangs up") as front:
            publisher = Publisher(MqttSettings("127.0.0.1", front.port))
            publisher.connect()
            front.old = None
            broker.kill()
            wait_until_lost(publisher)
            broker.start()
            publisher.connect()
            assert publisher.mqtt_version == "5"
            publisher.close()

    def test_last_will(self, broker: Broker) -> None:
        """A publisher whose end the broker does not acknowledge is announced as offline by the broker."""
        with Front(broker.port, "refuses") as front:
            publisher = Publisher(MqttSettings("127.0.0.1", front.port))
            publisher.connect()
            assert publisher.flush(5)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGSTOP)
            publisher.set_state("speech")
            publisher.close()
            os.kill(broker.pid, signal.SIGCONT)
            with Subscriber(broker.port, "edgevoice/default/availability") as subscriber:
                subscriber.wait_for(lambda m: m.payload == b"offline")

    def test_commands(self, broker: Broker) -> None:
        """Commands are carried out; nobody can ask for an answer."""
        taken: list[str] = []
        with Front(broker.port, "refuses") as front, Subscriber(broker.port) as subscriber:
            publisher = Publisher(MqttSettings("127.0.0.1", front.port))
            publisher.serve(lambda name, payload, *, retained: taken.append(f"{name} {payload!r} {retained}"))
            publisher.connect()
            assert publisher.flush(5)
            subscriber.publish("edgevoice/default/set/mute", "ON")
            wait_until(lambda: taken == ["mute b'ON' False"])
            publisher.close()


class TestReconnect:
    """The broker is away, or another client wants our place."""

    def test_down_at_the_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """start() returns at once, says once why there is no broker, and connects when there is."""
        broker = Broker()
        publisher = Publisher(MqttSettings(broker.host, broker.port, intent_expiry_s=30))
        start_s = time.monotonic()
        publisher.start()
        publisher.publish(ACCEPTED)
        assert time.monotonic() - start_s < 0.2
        time.sleep(1.2)  # two attempts
        assert publisher.failure is not None
        assert "connection refused" in publisher.failure
        with broker, Subscriber(broker.port) as subscriber:
            subscriber.wait_for(lambda m: "/intent/" in m.topic, timeout_s=10)
            assert publisher.flush(5)
            assert publisher.failure is None
            publisher.close()
        assert caplog.text.count("connection refused") == 1

    def test_hung_up_on_at_the_first_message(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A broker that takes us and then hangs up, again and again: it is known why, and seldom told."""
        caplog.set_level(logging.INFO)
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 0.02)
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MAX_S", 0.02)
        monkeypatch.setattr(edgevoice.publish, "_SETTLED_S", 0.5)
        with server(b"\x20\x03\0\0\0") as port:
            publisher = Publisher(MqttSettings("127.0.0.1", port))
            publisher.start()
            wait_until(lambda: publisher.counters.reconnects >= 5)
            wait_until(lambda: publisher.failure is not None)
            assert publisher.failure == f"lost the MQTT broker at 127.0.0.1:{port}: the connection broke"
            publisher.close()
        assert caplog.text.count("lost the MQTT broker") == 2
        assert caplog.text.count("connected to the MQTT broker") == 2

    def test_lasts_at_last(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """A connection that was quiet in the log, and then has lasted, is told, and so is the next loss."""
        caplog.set_level(logging.INFO)
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 0.02)
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MAX_S", 0.02)
        monkeypatch.setattr(edgevoice.publish, "_SETTLED_S", 0.5)
        with Broker() as broker, Front(broker.port) as front, publishing(front) as publisher:
            for reconnects in range(1, 5):
                front.cut()
                wait_until(lambda reconnects=reconnects: publisher.counters.reconnects == reconnects)  # type: ignore[misc]
                wait_until(lambda: publisher.connected)
            assert caplog.text.count("connected to the MQTT broker") == 2
            wait_until(lambda: caplog.text.count("connected to the MQTT broker") == 3)
            front.cut()
            wait_until(lambda: caplog.text.count("lost the MQTT broker") == 3)
            wait_until(lambda: publisher.connected)
            assert publisher.failure is None

    def test_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Waits between attempts double up to a bound, and differ by chance."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 0.1)
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MAX_S", 0.4)
        came_s: list[float] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            publisher = Publisher(MqttSettings("127.0.0.1", listener.getsockname()[1]))
            publisher.start()
            listener.settimeout(5)
            for _ in range(12):  # two connections an attempt: MQTT 5, then 3.1.1
                connection, _ = listener.accept()
                came_s.append(time.monotonic())
                connection.close()
            publisher.close()
        waits_s = [b - a for a, b in pairwise(came_s[1::2])]
        for wait_s, most_s in zip(waits_s, (0.1, 0.2, 0.4, 0.4, 0.4), strict=True):
            assert most_s / 2 <= wait_s < most_s + 0.1  # 0.1: a busy machine
        assert len({round(wait_s, 3) for wait_s in waits_s[2:]}) > 1

    def test_taken_over(self, caplog: pytest.LogCaptureFixture) -> None:
        """Who is thrown out by another client of its name yields for a long time, and says where to look."""
        with server(b"\x20\x03\0\0\0" + b"\xe0\x02\x8e\0") as port:  # CONNACK, DISCONNECT of MQTT 5
            publisher = Publisher(MqttSettings("127.0.0.1", port, client_id="same"))
            publisher.start()
            time.sleep(2.5)  # two attempts after any other loss
            publisher.close()
        assert caplog.text.count("another client uses client_id 'same'; give each its own") == 1
        assert publisher.counters.reconnects == 0

    def test_same_client_id(self, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        """Two of one name at a broker that does not say so throw each other out ever more slowly."""
        with publishing(broker, client_id="same") as first, publishing(broker, client_id="same") as second:
            time.sleep(6)  # waits of 1, 2, 4 s, of which chance leaves half at the least
            assert 0 < first.counters.reconnects + second.counters.reconnects <= 6
        assert "does another client use client_id 'same'?" in caplog.text

    def test_reconnects_are_counted(self, broker: Broker) -> None:
        """Connections after the first."""
        with publishing(broker) as publisher:
            assert publisher.counters.reconnects == 0
            broker.kill()
            wait_until_lost(publisher)
            broker.start()
            publisher.connect()
            assert publisher.counters.reconnects == 1

    def test_closed_while_it_connects(self) -> None:
        """close() does not wait for a broker that never answers."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            publisher = Publisher(MqttSettings("127.0.0.1", silent.getsockname()[1], connect_timeout_s=1))
            publisher.start()
            start_s = time.monotonic()
            publisher.close()
            assert time.monotonic() - start_s < 4


class TestTls:
    """Encrypted connections."""

    # paho leaves the sockets of a failed handshake to the garbage collector, also those that wake its thread
    @pytest.mark.filterwarnings("ignore:unclosed <(ssl.SSLSocket|socket.socket):ResourceWarning")
    def test_certificate(self, tmp_path: Path) -> None:
        """The certificate must be of the authority given; a wrong or missing one is explained."""
        command = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        )
        files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
        subprocess.run(
            ["openssl", *command.split(), "-addext", "subjectAltName=IP:127.0.0.1", *files],  # noqa: S607
            check=True,
            capture_output=True,
        )
        error = TestRefusal().error
        with Broker(settings=[f"certfile {tmp_path / 'cert'}", f"keyfile {tmp_path / 'key'}"]) as broker:
            with publishing(broker, tls=True, ca_file=tmp_path / "cert") as publisher:
                publisher.publish(ACCEPTED)
                assert publisher.flush(5)
            assert "its certificate is not trusted" in error(port=broker.port, tls=True)
            assert "does tls fit it?" in error(port=broker.port)
            for name, why in (("none", "No such file"), ("key", "cannot be used")):
                with pytest.raises(ConfigError, match=why):
                    Publisher(MqttSettings(port=broker.port, tls=True, ca_file=tmp_path / name))
        gc.collect()  # while the warning is still expected


class TestSettings:
    """Values that cannot work are refused at once."""

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"host": ""}, "host is empty"),
            ({"port": 0}, "port is 0"),
            ({"port": 70000}, "port is 70000"),
            ({"keepalive_s": 0}, "keepalive_s is 0"),
            ({"intent_expiry_s": 0}, "intent_expiry_s is 0"),
            ({"intent_expiry_s": math.nan}, "intent_expiry_s is nan"),
            ({"password": "secret"}, "password is set without username"),
            ({"ca_file": "ca.pem"}, "tls is off"),
        ],
    )
    def test_refused(self, settings: dict[str, Any], named: str) -> None:
        """The text names the key and never the password."""
        with pytest.raises(ConfigError) as caught:
            MqttSettings(**settings)
        assert named in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_defaults_are_those_of_the_configuration(self) -> None:
        """A program without a configuration file gets the same behaviour."""
        ours, configured = MqttSettings(), Config().mqtt
        assert (ours.port, ours.keepalive_s) == (configured.port, configured.keepalive_s)
        assert ours.intent_expiry_s == configured.intent_expiry_s

    def test_password_is_not_shown(self) -> None:
        """Neither settings nor publisher print it."""
        settings = MqttSettings(username="us", password="secret")  # noqa: S106
        assert "secret" not in f"{settings} {Publisher(settings)}"


class TestStandIns:
    """The broker and the subscriber that ship with the package."""

    def test_broker_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No process and no file is left, in order or not; the port stays the same."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with Broker({"a": "b"}) as broker:
            first = broker.pid
            broker.stop()
            assert broker.pid is None
            broker.start()
            assert broker.pid is not None
            assert list(tmp_path.iterdir()) == []
            second = broker.pid
        for pid in (first, second):
            assert pid is not None
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    def test_broker_dies_with_its_parent(self) -> None:
        """A test run that is killed leaves no broker behind."""
        program = (
            "import time\nfrom edgevoice.testing import Broker\n"
            "with Broker() as broker:\n    print(broker.port, flush=True)\n    time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            socket.create_connection(("127.0.0.1", port)).close()
            child.kill()
        deadline_s = time.monotonic() + 5
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", port)) == 0:
                assert time.monotonic() < deadline_s
                time.sleep(0.02)

    def test_broker_that_cannot_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bad setting is reported in mosquitto's words, a missing program with its package."""
        with pytest.raises(BrokerError, match="nonsense"):
            Broker(settings=["nonsense yes"]).start()
        monkeypatch.setattr("shutil.which", lambda *_args, **_more: None)
        with pytest.raises(BrokerError, match="install the Debian package mosquitto"):
            Broker().start()

    def test_subscriber_says_what_came(self, broker: Broker) -> None:
        """Waiting in vain names the topics that came instead."""
        with Subscriber(broker.port) as subscriber, publishing(broker):
            subscriber.wait_for(1)
            with pytest.raises(BrokerError, match=r"within 0\.1 s; came: edgevoice/default/availability"):
                subscriber.wait_for(lambda _message: False, timeout_s=0.1)
            assert isinstance(subscriber.messages[0], Message)
        with pytest.raises(BrokerError, match=r"no broker at 127\.0\.0\.1:1 "):
            Subscriber(1)
