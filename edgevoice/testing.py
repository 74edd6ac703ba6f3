"""Stand-ins for the world around the engine.

A broker on loopback, a subscriber, a PortAudio without a card, a voice detector without a model, an LED. They
ship with the package, for tests of programs that build on edgevoice and for its own demonstration:

    with Broker() as broker, Subscriber(broker.port) as subscriber:
        publisher = Publisher(MqttSettings("127.0.0.1", broker.port))
        publisher.connect()
        print(subscriber.wait_for(1))
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgevoice.errors import BrokerError
from edgevoice.events import Frame, ScoredFrame
from edgevoice.portaudio import PA_INT16, AudioCallback
from edgevoice.vad import Vad

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LOOPBACK: Final = "127.0.0.1"
_START_S: Final = 10.0  # mosquitto is up in 20 ms; a loaded small machine is given more
_STOP_S: Final = 5.0


class Broker:
    """A mosquitto of our own on a free loopback port, gone when the block ends or this process dies.

    Args:
        accounts: user name -> password; None lets everybody in.
        settings: more lines for mosquitto's configuration; they apply to the one listener, and win.

    Raises:
        BrokerError: mosquitto is not installed or does not start.
    """

    host: Final = _LOOPBACK

    def __init__(self, accounts: Mapping[str, str] | None = None, settings: Sequence[str] = ()) -> None:
        self.port = _free_port()
        self._accounts = accounts
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it accepts connections."""
        if self._process is not None:
            return
        program = _find("mosquitto")
        # The files are needed for starting only, so nothing is left behind whatever happens later.
        with (
            tempfile.TemporaryDirectory(prefix="edgevoice-broker-") as folder,
            tempfile.TemporaryFile() as log,
        ):
            command = [program, "-c", str(self._write_files(Path(folder)))]
            if setpriv := shutil.which("setpriv"):  # the kernel ends it when the thread that started it ends
                command = [setpriv, "--pdeathsig", "KILL", *command]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - a fixed program
            try:
                self._await_start(log)
            except BrokerError:
                self.kill()
                raise

    def stop(self) -> None:
        """End it in order: clients are told."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await_start(self, log: IO[bytes]) -> None:
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip()
        raise BrokerError(f"mosquitto did not start on port {self.port}: {said or 'it said nothing'}")

    def _write_files(self, folder: Path) -> Path:
        lines = [f"listener {self.port} {self.host}", "persistence false", "log_dest stderr", *self._settings]
        if os.geteuid() == 0:  # else mosquitto gives up root, and cannot read its files any more
            lines.append(f"user {pwd.getpwuid(0).pw_name}")
        if self._accounts is None:
            lines.append("allow_anonymous true")
        else:
            passwords = folder / "passwords"
            passwords.touch(mode=0o600)
            passwords.write_text(
                "".join(f"{user}:{word}\n" for user, word in self._accounts.items()), "utf-8"
            )
            subprocess.run([_find("mosquitto_passwd"), "-U", str(passwords)], check=True, capture_output=True)  # noqa: S603 - a fixed program
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        path = folder / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path


class Front:
    """A port before a broker, that behaves as an old broker does, or as a slow line.

    Args:
        port: of the broker.
        old: what becomes of a client that speaks MQTT 5: it is refused with the code of MQTT 3.1.1, hung up
            on, or left waiting (brokers that know only 3.1.1 do each of these). Others are passed on. None
            passes all on.
        bytes_per_s: how much is passed on, each way of each connection; None: as it comes.
    """

    host: Final = _LOOPBACK

    def __init__(
        self,
        port: int,
        old: Literal["refuses", "hangs up", "waits"] | None = None,
        bytes_per_s: int | None = None,
    ) -> None:
        self.seen_versions: list[int] = []
        """MQTT version of each client that came: 4 is 3.1.1."""
        self._broker_port = port
        self.old = old
        self._bytes_per_s = bytes_per_s
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((_LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # its other end has closed it
                each.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        for each in (self._listener, *self._sockets):
            each.close()

    def cut(self) -> None:
        """End all connections that stand."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):  # it has ended
                each.shutdown(socket.SHUT_RDWR)

    def _run(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end
                return
            self._sockets.append(client)
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either side has gone
            first = client.recv(4096)
            # CONNECT: 0x10, length, then 0 4 M Q T T and the version (MQTT 5, 3.1.2).
            version = first[first.index(b"MQTT") + 4] if b"MQTT" in first else 0
            self.seen_versions.append(version)
            if version == 5 and self.old is not None:
                if self.old == "refuses":
                    client.sendall(b"\x20\x02\x00\x01")  # CONNACK of MQTT 3.1.1: unacceptable version
                if self.old != "waits":
                    client.shutdown(socket.SHUT_RDWR)
                return
            try:
                broker = socket.create_connection((_LOOPBACK, self._broker_port))
            except OSError:  # it is down
                client.shutdown(socket.SHUT_RDWR)
                return
            self._sockets.append(broker)
            self._run(self._pass_on, broker, client)
            self._send(broker, first)
            self._pass_on(client, broker)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                self._send(target, data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _send(self, target: socket.socket, data: bytes) -> None:
        if self._bytes_per_s is None:
            target.sendall(data)
            return
        step = max(1, self._bytes_per_s // 20)  # every 50 ms
        for start in range(0, len(data), step):
            time.sleep(1 / 20)
            target.sendall(data[start : start + step])


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived."""

    topic: str
    payload: bytes
    retain: bool
    """As it was published, not whether it was stored."""

    expiry_s: int | None
    """What is left of its time, if it has one."""

    def json(self) -> Any:
        """The payload as JSON; ValueError if it is none."""
        return json.loads(self.payload)


class Subscriber:
    """Collects everything below a topic filter, and subscribes again after an outage.

    Args:
        port: of the broker.
        topic_filter: MQTT's, with + and #.
        host: of the broker, loopback by default.
        username: login, if the broker wants one.
        password: login.

    Raises:
        BrokerError: not connected and subscribed within some seconds.
    """

    def __init__(
        self,
        port: int,
        topic_filter: str = "#",
        *,
        host: str = _LOOPBACK,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self._changed = threading.Condition()
        self._subscribed = False
        self._filter = topic_filter
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        if username:
            self._client.username_pw_set(username, password)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        try:
            self._client.connect(host, port, clean_start=True)
        except OSError as error:
            raise BrokerError(f"no broker at {host}:{port} ({error}); start one first") from error
        self._client.loop_start()
        with self._changed:
            subscribed = self._changed.wait_for(lambda: self._subscribed, _START_S)
        if not subscribed:
            self.close()
            raise BrokerError(f"the broker on port {port} accepts no subscription; check user and password")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def wait_for(self, wanted: int | Callable[[Message], bool], timeout_s: float = 5.0) -> list[Message]:
        """Wait for a number of messages in all, or for the first that fits.

        Returns:
            All messages so far, or those that fit.

        Raises:
            BrokerError: time ran out; names the topics that came.
        """

        def found() -> list[Message]:
            if callable(wanted):
                return [message for message in self.messages if wanted(message)]
            return list(self.messages) if len(self.messages) >= wanted else []

        with self._changed:
            messages: list[Message] = self._changed.wait_for(found, timeout_s)
            if not messages:
                topics = ", ".join(message.topic for message in self.messages) or "nothing"
                raise BrokerError(f"what was waited for did not come within {timeout_s:g} s; came: {topics}")
            return messages

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Send a message."""
        self._client.publish(topic, payload, qos=1, retain=retain)

    def close(self) -> None:
        """Disconnect; may be called twice."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        client.subscribe(self._filter, options=SubscribeOptions(qos=1, retainAsPublished=True))

    def _on_subscribe(
        self, _client: Client, _data: Any, _id: int, reasons: list[Any], _properties: Any
    ) -> None:
        with self._changed:
            self._subscribed = not any(reason.is_failure for reason in reasons)
            self._changed.notify_all()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        properties = message.properties or Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        expiry_s = getattr(properties, "MessageExpiryInterval", None)
        with self._changed:
            self.messages.append(Message(message.topic, bytes(message.payload), message.retain, expiry_s))
            self._changed.notify_all()


class FakeVad(Vad):
    """A detector that takes for speech what is loud, and asks no model."""

    def __init__(self) -> None:
        pass

    def score(self, frame: Frame) -> ScoredFrame:
        """Return the frame, surely speech if any of its samples is 0.1 or more, and surely none otherwise."""
        return ScoredFrame(frame, float(np.abs(frame.samples).max() >= 0.1))

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held."""


class FakeDetector:
    """A wake word detector that wakes for what is as loud as it can be, and counts what it is asked."""

    def __init__(self) -> None:
        self.frames = 0

    def reset(self) -> None:
        """Nothing is remembered."""

    def hears(self, frame: Frame) -> bool:
        """Whether all samples are 1."""
        self.frames += 1
        return bool((frame.samples == 1.0).all())


@dataclass(frozen=True, slots=True)
class FakeDevice:
    """A sound device that does not exist."""

    name: str | bytes
    channels: int = 1
    """0 makes it a loudspeaker."""

    rate_hz: int = 16_000
    formats: tuple[tuple[int, int], ...] = ()
    """(rate in Hz, channels) it can do; empty stands for its native one."""


@dataclass(slots=True)
class FakeStream:
    """An open stream; feed() is the sound card."""

    callback: AudioCallback
    rate_hz: int
    channels: int
    block_samples: int
    """Of each channel, that the callback wants at once."""

    active: bool = True
    closed: bool = False

    def feed(self, data: bytes, status: int = 0) -> None:
        """Deliver 16-bit samples as PortAudio's thread would."""
        self.callback(data, len(data) // (2 * self.channels), {}, status)

    def is_active(self) -> bool:
        """Like PyAudio's."""
        if self.closed:
            raise OSError("Stream closed")
        return self.active

    def close(self) -> None:
        """Like PyAudio's."""
        self.closed = True


@dataclass(slots=True)
class FakePortAudio:
    """portaudio.PortAudio without hardware; what was opened last is in `stream`."""

    devices: tuple[FakeDevice, ...] = ()
    default_index: int | None = 0
    open_error: str | None = None
    """With it, open() fails as a busy device does."""

    stream: FakeStream | None = None
    terminated: bool = False

    def get_device_count(self) -> int:
        """Like PyAudio's."""
        return len(self.devices)

    def get_device_info_by_index(self, device_index: int) -> Mapping[str, Any]:
        """Like PyAudio's."""
        device = self.devices[device_index]
        return {
            "index": device_index,
            "name": device.name,
            "hostApi": 0,
            "maxInputChannels": device.channels,
            "defaultSampleRate": float(device.rate_hz),
        }

    def get_default_input_device_info(self) -> Mapping[str, Any]:
        """Like PyAudio's."""
        if self.default_index is None or not self.devices:
            raise OSError("No Default Input Device Available")
        return self.get_device_info_by_index(self.default_index)

    def get_host_api_info_by_index(self, host_api_index: int) -> Mapping[str, Any]:
        """Like PyAudio's."""
        return {"index": host_api_index, "name": "Fake"}

    def open(self, **settings: Any) -> FakeStream:
        """Like PyAudio's."""
        if self.open_error:
            raise OSError(-9985, self.open_error)
        device = self.devices[settings["input_device_index"]]
        formats = device.formats or ((device.rate_hz, device.channels),)
        if settings["format"] != PA_INT16 or (settings["rate"], settings["channels"]) not in formats:
            raise OSError(-9997, "Invalid sample rate")
        self.stream = FakeStream(
            settings["stream_callback"],
            settings["rate"],
            settings["channels"],
            settings["frames_per_buffer"],
        )
        return self.stream

    def terminate(self) -> None:
        """Like PyAudio's."""
        self.terminated = True


class FakeLed:
    """An LED as the kernel shows it: a folder with two files; remembers what it did while the block runs.

    Args:
        folder: to make, and to name in feedback.led.
        most: how bright it can be.
    """

    def __init__(self, folder: Path, most: int = 1) -> None:
        self.folder = folder
        self.changes: list[tuple[float, int]] = []
        """When, by time.monotonic(), and to what brightness."""
        folder.mkdir(parents=True)
        self._file = folder / "brightness"
        self._file.write_text(f"{most}\n", "ascii")  # a trigger has it
        (folder / "max_brightness").write_text(f"{most}\n", "ascii")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def brightness(self) -> int | None:
        """What it is now, as far as that is known."""
        return self.changes[-1][1] if self.changes else None

    def flashes(self) -> list[float]:
        """How long each light was that is over, in seconds."""
        ends = zip(self.changes, self.changes[1:], strict=False)
        return [end_s - start_s for (start_s, lit), (end_s, _) in ends if lit]

    def _look(self) -> None:
        while not self._ended.wait(0.002):
            with contextlib.suppress(OSError, ValueError):  # it is gone, or being written
                if not self._file.is_file():  # a pipe in its place: whoever opens it waits
                    continue
                with open(self._file, "rb", opener=_without_waiting) as file:  # it may be one by now
                    now = int(file.read())
                if now != self.brightness:
                    self.changes.append((time.monotonic(), now))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _find(program: str) -> str:
    """Path of a program of the broker's package; /usr/sbin is not on everybody's PATH."""
    path = shutil.which(
        program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )
    if path is None:
        raise BrokerError(f"the program {program} is not there; install the Debian package mosquitto")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
