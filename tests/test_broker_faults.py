"""A real broker with every kind of trouble: it ends in recovery, or in an error that says what to do."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgevoice.publish
from edgevoice.broker import MAX_PACKET_BYTES, Dialer, MqttSettings, Outgoing, tls_context
from edgevoice.commands import Commands
from edgevoice.config import Config
from edgevoice.discovery import Discovery
from edgevoice.errors import BrokerError, ConfigError
from edgevoice.publish import Publisher, State, topic_level
from edgevoice.testing import Broker, Front, Subscriber
from tests.conftest import ROOT, wait_until
from tests.results import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Edgevoice, Sample

SECRET = "s3cret-of-the-house"  # noqa: S105 - of a broker that lives for a second


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority and what it has signed, as PEM files in one folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Its own certificate."""
        return self.folder / "authority.pem"

    def sign(self, name: str, days: int = 2, extensions: str = "subjectAltName=IP:127.0.0.1") -> Path:
        """Make a key, NAME.key, and the certificate for it; a negative number of days has passed."""
        extension_file = self.folder / f"{name}.ext"
        extension_file.write_text(extensions + "\n")
        self._openssl(f"req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} "
                      f"-keyout {name}.key -out {name}.csr")  # fmt: skip
        self._openssl(f"x509 -req -in {name}.csr -CA authority.pem -CAkey authority.key -CAcreateserial "
                      f"-days {days} -extfile {name}.ext -out {name}.pem")  # fmt: skip
        return self.folder / f"{name}.pem"

    def found(self) -> None:
        """Make the authority."""
        self._openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
                      "-subj /CN=authority -keyout authority.key -out authority.pem")  # fmt: skip

    def encrypt(self, name: str) -> Path:
        """Give a key a password."""
        self._openssl(f"ec -in {name}.key -aes128 -passout pass:{SECRET} -out {name}-locked.key")
        return self.folder / f"{name}-locked.key"

    def _openssl(self, arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments.split()],  # noqa: S607 - wherever the system has it
            cwd=self.folder,
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.found()
    for name in ("broker", "client"):
        made.sign(name)
    return made


def tls_broker(certificates: Certificates, name: str = "broker", *more: str) -> Broker:
    folder = certificates.folder
    return Broker(settings=[f"certfile {folder / name}.pem", f"keyfile {folder / name}.key", *more])


@contextmanager
def publishing(port: int, **more: Any) -> Iterator[Publisher]:
    publisher = Publisher(MqttSettings("127.0.0.1", port, **{"connect_timeout_s": 2, **more}))
    try:
        publisher.connect()
        yield publisher
    finally:
        publisher.close()


def refusal(port: int, **more: Any) -> str:
    """Why there is no connection."""
    with pytest.raises(BrokerError) as caught, publishing(port, **more):
        pass
    return str(caught.value)


def deliver(publisher: Publisher, count: int = 3) -> None:
    for number in range(count):
        publisher.publish(replace(ACCEPTED, utterance_id=str(number)))
    assert publisher.flush(5)


def ids(subscriber: Subscriber) -> list[str]:
    return [m.json()["utterance_id"] for m in subscriber.messages if "/intent/" in m.topic]


# paho leaves the socket of a failed handshake to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestTls:
    """Encryption, and certificates on both sides."""

    @pytest.fixture(autouse=True)
    def _collected(self) -> Iterator[None]:
        yield
        gc.collect()  # while the warning is still expected

    def test_authority(self, certificates: Certificates) -> None:
        """A broker whose certificate our authority has signed is let in; of another one the error says so."""
        with tls_broker(certificates) as broker:
            with publishing(broker.port, tls=True, ca_file=certificates.authority) as publisher:
                deliver(publisher)
            why = refusal(broker.port, tls=True, ca_file=certificates.folder / "client.pem")
        assert "its certificate is not trusted" in why
        assert "set mqtt ca_file" in why

    def test_expired(self, certificates: Certificates) -> None:
        """The error says that it has expired, and what to do."""
        certificates.sign("expired", days=-1)
        with tls_broker(certificates, "expired") as broker:
            why = refusal(broker.port, tls=True, ca_file=certificates.authority)
        assert "certificate has expired" in why
        assert "renew it at the broker, and check the clocks" in why

    def test_other_name(self, certificates: Certificates) -> None:
        """A certificate for another machine is no use to who stands in between."""
        certificates.sign("other", extensions="subjectAltName=DNS:broker.example")
        with tls_broker(certificates, "other") as broker:
            why = refusal(broker.port, tls=True, ca_file=certificates.authority)
        assert "not valid for '127.0.0.1'" in why

    def test_mutual(self, certificates: Certificates) -> None:
        """A broker that asks for our certificate gets it; without, or with another, the error says so."""
        folder = certificates.folder
        asks = ("require_certificate true", f"cafile {certificates.authority}")
        ours: dict[str, Any] = {"tls": True, "ca_file": certificates.authority}
        with tls_broker(certificates, "broker", *asks) as broker:
            login = {"cert_file": folder / "client.pem", "key_file": folder / "client.key"}
            with publishing(broker.port, **ours, **login) as publisher:
                deliver(publisher)
            assert "mqtt cert_file" in refusal(broker.port, **ours)
            stranger = Certificates(folder / "strangers")
            stranger.folder.mkdir()
            stranger.found()
            login = {
                "cert_file": stranger.sign("client"),
                "key_file": stranger.folder / "client.key",
            }
            assert "mqtt cert_file" in refusal(broker.port, **ours, **login)

    def test_one_file(self, certificates: Certificates, tmp_path: Path) -> None:
        """Certificate and key may stand in one file."""
        both = tmp_path / "both.pem"
        folder = certificates.folder
        both.write_bytes((folder / "client.pem").read_bytes() + (folder / "client.key").read_bytes())
        tls_context(MqttSettings(tls=True, cert_file=both))

    def test_version(self, certificates: Certificates) -> None:
        """What is older than TLS 1.2 is not spoken."""
        with tls_broker(certificates, "broker", "tls_version tlsv1.2") as broker:
            ours: dict[str, Any] = {"tls": True, "ca_file": certificates.authority}
            with publishing(broker.port, **ours) as publisher:
                deliver(publisher)
        context = tls_context(MqttSettings(**ours))
        assert context.minimum_version >= 0x0303  # TLS 1.2 (RFC 5246)
        assert context.check_hostname

    def test_unusable_files(self, certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
        """A key that is not there, of another certificate or with a password is refused at once, by name."""
        folder = certificates.folder
        for key in (folder / "none", folder / "broker.key", certificates.encrypt("client")):
            with pytest.raises(ConfigError, match="cannot be used") as caught:
                Publisher(MqttSettings(tls=True, cert_file=folder / "client.pem", key_file=key))
            assert str(key) in str(caught.value)
            assert SECRET not in str(caught.value)
        open_key = folder / "open.key"
        shutil.copy(folder / "client.key", open_key)
        open_key.chmod(0o644)
        tls_context(MqttSettings(tls=True, cert_file=folder / "client.pem", key_file=open_key))
        assert f"every user can read {open_key}; run: chmod o-r {open_key}" in caplog.text


class TestAccess:
    """Passwords and access rules."""

    @pytest.fixture
    def rules(self, tmp_path: Path) -> Path:
        """The access rules that the documents show."""
        pages = [(ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("mqtt", "home-assistant")]
        blocks = [block for page in pages for block in re.findall(r"```acl\n(.*?)```", page, re.DOTALL)]
        assert len(blocks) == 2
        path = tmp_path / "acl"
        path.write_text("\n".join(blocks))
        path.chmod(0o600)
        return path

    def test_rules_of_the_documents(
        self, rules: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path, edgevoice: Edgevoice
    ) -> None:
        """With them edgevoice can do all it does; who reads results can give no orders."""
        accounts = dict.fromkeys(("edgevoice", "automations", "house"), SECRET)
        with Broker(accounts, [f"acl_file {rules}"]) as broker:
            reader: dict[str, Any] = {"username": "automations", "password": SECRET}
            with (
                Subscriber(broker.port, "edgevoice/default/#", **reader) as subscriber,
                publishing(broker.port, username="edgevoice", password=SECRET) as publisher,
            ):
                served = Commands(5.0)
                publisher.serve(served.take)
                home = Discovery(Config(), publisher)
                home.set_grammar({"intents": ["SetTemperature"], "names": ["home"]})
                home.tell(ACCEPTED)
                publisher.set_settings({"muted": False, "threshold": 0.5})
                publisher.set_state("listening")
                publisher.set_health({})
                publisher.set_grammar({})
                publisher.publish(replace(ACCEPTED, accepted=False, reason="ambiguous"))
                deliver(publisher, 1)
                assert publisher.counters.refused == 0
                seen = {m.topic.split("/", 2)[2] for m in subscriber.wait_for(9)}
                assert seen == {
                    "state", "settings", "health", "grammar", "availability", "rejected",
                    "intent/SetTemperature", "event", "last",
                }  # fmt: skip
                config = tmp_path / "edgevoice.yaml"
                for user, code in (("house", 0), ("automations", 5)):
                    config.write_text(f"mqtt: {{host: 127.0.0.1, port: {broker.port}, username: {user}}}\n")
                    done = edgevoice(
                        "tell", "listen", "--config", config, environment={"EDGEVOICE_MQTT_PASSWORD": SECRET}
                    )
                    assert done.returncode == code, done.stderr
                done = edgevoice(
                    "ha", "remove", "--config", config, environment={"EDGEVOICE_MQTT_PASSWORD": SECRET}
                )
                assert done.returncode == 5
                assert b"homeassistant/device/edgevoice_default/config: Not authorized" in done.stderr
        assert "refuse" not in caplog.text


class TestTrouble:
    """Brokers that stop, crawl, forget or have no room."""

    def test_forgets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A broker that was killed and has kept nothing has every retained value again."""
        monkeypatch.setattr(edgevoice.publish, "_RECONNECT_MIN_S", 0.2)
        with Broker() as broker, publishing(broker.port) as publisher:
            publisher.set_state("muted")
            publisher.set_grammar({"file": "home.yaml"})
            publisher.set_health({"uptime_s": 1})
            assert publisher.flush(5)
            for _ in range(3):
                broker.kill()
                wait_until(lambda: not publisher.connected)
                broker.start()
                wait_until(lambda: publisher.connected)
                assert publisher.flush(5)
                with Subscriber(broker.port, "edgevoice/#") as late:
                    seen = {m.topic.rsplit("/", 1)[1]: m.payload for m in late.wait_for(4)}
                assert seen == {
                    "state": b"muted",
                    "grammar": b'{"file": "home.yaml"}',
                    "health": b'{"uptime_s": 1}',
                    "availability": b"online",
                }
            assert publisher.counters.reconnects == 3

    def test_paused(self) -> None:
        """A broker that stops for longer than a result is worth gets the state then, but no such result."""
        with (
            Broker() as broker,
            Subscriber(broker.port) as subscriber,
            publishing(broker.port, intent_expiry_s=1.0) as publisher,
        ):
            assert publisher.flush(5)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGSTOP)
            publisher.set_state("recognising")  # as before every result; it waits for its acknowledgement
            publisher.publish(replace(ACCEPTED, utterance_id="stale"))
            time.sleep(1.5)
            os.kill(broker.pid, signal.SIGCONT)
            assert not publisher.flush(5)
            publisher.publish(replace(ACCEPTED, utterance_id="fresh"))
            subscriber.wait_for(lambda m: "/intent/" in m.topic)
            assert ids(subscriber) == ["fresh"]
            assert publisher.counters.stale == 1
            assert publisher.connected

    def test_slow(self) -> None:
        """Over a slow line some results arrive, others expire; nobody waits for it, and the end is soon."""
        with (
            Broker() as broker,
            Front(broker.port, bytes_per_s=2000) as line,
            Subscriber(broker.port) as subscriber,
            publishing(line.port, intent_expiry_s=1.5, connect_timeout_s=5) as publisher,
        ):
            assert publisher.flush(5)
            start_s = time.monotonic()
            for number in range(10):
                publisher.publish(replace(ACCEPTED, utterance_id=str(number)))
            assert time.monotonic() - start_s < 0.1
            assert not publisher.flush(10)
            seen = publisher.counters
            assert seen.delivered + seen.stale == 10
            assert seen.delivered > 0
            assert seen.stale > 0
            wait_until(lambda: ids(subscriber) == [str(number) for number in range(seen.delivered)])
            publisher.set_state("speech")
            start_s = time.monotonic()
            publisher.close()
            assert time.monotonic() - start_s < 6

    def test_full_disk(self, tmp_path: Path) -> None:
        """A broker that cannot save what it retains still passes results on."""
        mount, umount = shutil.which("mount"), shutil.which("umount")
        if mount is None or umount is None or os.geteuid() != 0:
            pytest.skip("a small file system can be mounted by root only")
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=False
        ).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            with pytest.raises(OSError, match="No space"):
                (disk / "full").write_bytes(bytes(1_000_000))
            saves = ["persistence true", f"persistence_location {disk}/", "autosave_on_changes true",
                     "autosave_interval 1"]  # fmt: skip
            with (
                Broker(settings=saves) as broker,
                Subscriber(broker.port) as subscriber,
                publishing(broker.port) as publisher,
            ):
                for state in get_args(State)[:2]:
                    publisher.set_state(state)
                    deliver(publisher, 5)
                wait_until(lambda: len(ids(subscriber)) == 10)
        finally:
            subprocess.run([umount, str(disk)], check=True)


class TestLimits:
    """What others send is bounded."""

    def test_large_message(self, caplog: pytest.LogCaptureFixture) -> None:
        """With MQTT 5 a message that is too large does not even come; with 3.1.1 it is not looked at."""
        taken: list[int] = []

        def take(name: str, payload: bytes, *, retained: bool) -> None:
            assert (name, retained) == ("lists/x", False)
            taken.append(len(payload))

        with Broker() as broker, Subscriber(broker.port, "none") as sender:
            for port, told in ((broker.port, 0), (None, 1)):
                with Front(broker.port, "refuses") as old, publishing(port or old.port) as publisher:
                    publisher.serve(take)
                    sender.publish("edgevoice/default/set/lists/x", "x" * (MAX_PACKET_BYTES + 1))
                    sender.publish("edgevoice/default/set/lists/x", "x" * 1_000_000)
                    wait_until(lambda: len(taken) == 1)
                    assert taken.pop() == 1_000_000
                    assert caplog.text.count(f"allowed are {MAX_PACKET_BYTES}") == told

    def test_small_broker(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is longer than the broker takes is refused by us, once, and everything else goes on."""
        with (
            Broker(settings=["max_packet_size 1000"]) as broker,
            Subscriber(broker.port) as subscriber,
            publishing(broker.port) as publisher,
        ):
            publisher.set_grammar({"intents": ["x" * 1000]})
            publisher.publish(replace(ACCEPTED, text="x" * 1000))
            assert not publisher.flush(5)
            deliver(publisher, 1)
            subscriber.wait_for(lambda m: "/intent/" in m.topic)
            assert ids(subscriber) == ["0"]
            assert (publisher.counters.refused, publisher.counters.reconnects) == (1, 0)
        assert caplog.text.count("it takes 1000 bytes at most, and this has") == 2

    def test_answers_to_ourselves(self, caplog: pytest.LogCaptureFixture) -> None:
        """A command cannot make us say something on a topic of ours, such as a result."""
        from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415
        from paho.mqtt.properties import Properties  # noqa: PLC0415

        with (
            Broker() as broker,
            Subscriber(broker.port) as subscriber,
            publishing(broker.port) as publisher,
        ):
            publisher.serve(Commands(5.0).take)
            for topic in ("edgevoice/default/intent/Open", "edgevoice/default/answer/1"):
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                properties.ResponseTopic = topic
                subscriber._client.publish("edgevoice/default/set/mute", "ON", 1, properties=properties)
            subscriber.wait_for(lambda m: m.topic == "edgevoice/default/answer/1")
            assert ids(subscriber) == []
        assert "'edgevoice/default/intent/Open', which is ours" in caplog.text

    @given(st.text(max_size=300))
    def test_any_name_is_one_level(self, name: str) -> None:
        """Whatever an intent or a site is called, its level is one, and one that MQTT allows."""
        level = topic_level(name)
        assert 1 <= len(level) <= edgevoice.publish.MAX_LEVEL_CHARACTERS
        assert not set(level) & set("+#/\0")
        level.encode()  # no lone surrogate
        assert topic_level(level) == level

    def test_any_name_reaches_a_broker(self) -> None:
        """A real broker takes every such topic, and gives it to who asks for one level."""
        with Broker() as broker, publishing(broker.port) as publisher:
            with Subscriber(broker.port, "edgevoice/default/intent/+") as subscriber:

                @settings(max_examples=100, deadline=None)
                @given(st.text(max_size=40))
                def check(name: str) -> None:
                    before = len(subscriber.messages)
                    publisher.publish(replace(ACCEPTED, intent=name, slots={name: name}, slots_raw={}))
                    assert publisher.flush(5)
                    message = subscriber.wait_for(before + 1)[before]
                    assert message.topic == f"edgevoice/default/intent/{topic_level(name)}"

                check()
            assert publisher.counters.reconnects == 0


class TestSecrets:
    """Neither password nor key is ever told."""

    def test_everywhere(
        self,
        edgevoice: Edgevoice,
        tmp_path: Path,
        samples: tuple[Sample, ...],
        certificates: Certificates,
    ) -> None:
        """Whatever a command prints, and however it fails, the password and the key are not in it."""
        password = tmp_path / "password"
        password.write_text(SECRET + "\n")
        password.chmod(0o644)
        key = (certificates.folder / "client.key").read_text()
        key_line = key.splitlines()[1]
        config = tmp_path / "edgevoice.yaml"
        with Broker({"us": "another"}) as broker:
            config.write_text(
                f"mqtt:\n  host: 127.0.0.1\n  port: {broker.port}\n  username: us\n"
                f"  password_file: password\n  connect_timeout_s: 1\n"
            )
            commands: tuple[tuple[str | Path, ...], ...] = (
                ("config", "show"),
                ("config", "check"),
                ("tell", "mute", "on", "-v"),
                ("run", "-v", "--input", samples[0].path),
            )
            said = b""
            for command in commands:
                done = edgevoice(*command, "--config", config)
                said += done.stdout + done.stderr
            config.write_text(
                f"mqtt:\n  host: 127.0.0.1\n  port: {broker.port}\n  username: us\n"
                f"  password_file: password\n  tls:\n    enabled: true\n"
                f"    cert_file: {certificates.folder / 'broker.pem'}\n"
                f"    key_file: {certificates.folder / 'client.key'}\n"
            )
            done = edgevoice("run", "-v", "--config", config, "--input", samples[0].path)
            assert done.returncode == 2
            said += done.stdout + done.stderr
        assert b"check mqtt username and password" in said
        assert b"every user can read" in said
        assert SECRET.encode() not in said
        assert key_line.encode() not in said

    def test_objects(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nor in what stands for our objects, or in the traceback and the log of a failure."""
        caplog.set_level(logging.DEBUG)
        ours = MqttSettings("127.0.0.1", 1, username="us", password=SECRET)
        publisher = Publisher(ours)
        ignore: Callable[..., None] = lambda *_: None  # noqa: E731
        dialer = Dialer(ours, "x", Outgoing("t", b""), ignore, ignore)
        with pytest.raises(BrokerError) as caught:
            publisher.connect()
        publisher.close()
        shown = f"{ours!r} {publisher!r} {dialer!r} {publisher.figures()} {caught.getrepr(style='native')}"
        assert SECRET not in shown + caplog.text + json.dumps(publisher.figures())
