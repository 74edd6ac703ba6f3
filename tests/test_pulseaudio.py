"""The microphone as users have it: sound through PulseAudio, ALSA, PortAudio and PyAudio into the pipeline.

Also when the device goes, and when the sound server ends or hangs.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgevoice.capture import MicrophoneSource
from edgevoice.errors import AudioError
from edgevoice.microphone import Microphone
from edgevoice.portaudio import list_devices
from edgevoice.testing import Broker, Subscriber
from tests import sound_server
from tests.sound_server import SoundServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgevoice.events import Result
    from edgevoice.pipeline import Pipeline
    from edgevoice.publish import State
    from tests.conftest import Sample

pytestmark = pytest.mark.skipif(
    bool(sound_server.MISSING),
    reason=f"{', '.join(sound_server.MISSING)} not there; see scripts/debian-packages.sh",
)

BACK_S = 3.0  # what is promised
ANSWER_S = 20.0  # a result takes half a second of silence and 0.2 s of work; a busy machine is given more


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SoundServer]:
    with SoundServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


class Listener:
    """A pipeline that listens in a thread of its own, and what came of it."""

    def __init__(self, pipeline: Pipeline, device: str | None = None) -> None:
        self.states: list[tuple[float, State]] = []
        self.results: list[Result] = []
        self.microphone = Microphone(lambda: MicrophoneSource(device, channel=0), self._on_state)
        self._changed = threading.Condition()
        self._pipeline = pipeline
        self._thread = threading.Thread(target=self._listen, daemon=True)  # a failed test ends
        self._thread.start()

    def _listen(self) -> None:
        for result in self._pipeline.results(self.microphone, self._on_state):
            with self._changed:
                self.results.append(result)
                self._changed.notify_all()

    def _on_state(self, state: State) -> None:
        with self._changed:
            self.states.append((time.monotonic(), state))
            self._changed.notify_all()

    def wait_for(self, what: Callable[[], object]) -> None:
        """Wait until it is true."""
        with self._changed:
            assert self._changed.wait_for(what, ANSWER_S), (self.states, self.results)

    def wait_for_state(self, state: State) -> float:
        """Wait until it is the last state that was announced; return when that was."""
        self.wait_for(lambda: self.states and self.states[-1][1] == state)
        return self.states[-1][0]

    def close(self) -> None:
        """End it, in less than a second."""
        start_s = time.monotonic()
        self.microphone.close()
        self._thread.join(ANSWER_S)
        assert time.monotonic() - start_s < 1


@pytest.fixture
def listener(server: SoundServer, pipeline: Pipeline) -> Iterator[Listener]:
    assert server
    opened = Listener(pipeline)
    opened.wait_for_state("listening")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def commands(samples: tuple[Sample, ...]) -> list[Sample]:
    return [sample for sample in samples if sample.accepted]


def understood(listener: Listener, server: SoundServer, sample: Sample) -> None:
    """Say it; it is the next and only result."""
    before = len(listener.results)
    server.play(sample.path)
    listener.wait_for(lambda: len(listener.results) > before)
    (result,) = listener.results[before:]
    assert (result.accepted, result.intent, result.slots) == (True, sample.intent, sample.slots), result


def test_commands(listener: Listener, server: SoundServer, commands: list[Sample]) -> None:
    """What is played to it is understood, one after the other, and nothing is lost on the way."""
    for sample in commands[:3]:
        understood(listener, server, sample)
    counters = listener.microphone.counters
    assert (counters.overflows, counters.gaps, counters.losses) == (0, 0, 0)


def test_unplugged(listener: Listener, server: SoundServer, commands: list[Sample]) -> None:
    """It is lost at once, found again within 3 s of being plugged in, and understands."""
    understood(listener, server, commands[0])
    gone_s = time.monotonic()
    server.unplug()
    assert listener.wait_for_state("lost") - gone_s < 2
    time.sleep(2)  # longer than the longest wait between two attempts
    back_s = time.monotonic()
    server.plug_in()
    assert listener.wait_for_state("listening") - back_s < BACK_S
    understood(listener, server, commands[1])
    assert listener.microphone.counters.losses == 1


def test_server_starts_again(listener: Listener, server: SoundServer, commands: list[Sample]) -> None:
    """So it is when the sound server is killed and started again, in the middle of a sentence."""

    def speak() -> None:
        with pytest.raises(subprocess.CalledProcessError):
            server.play(commands[0].path)

    speaker = threading.Thread(target=speak)
    speaker.start()
    listener.wait_for_state("speech")
    server.kill()
    speaker.join()
    listener.wait_for_state("lost")
    server.start()
    back_s = time.monotonic()
    assert listener.wait_for_state("listening") - back_s < BACK_S
    understood(listener, server, commands[1])  # and nothing of the sentence that was cut off


def test_server_hangs(
    server: SoundServer, pipeline: Pipeline, commands: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that does not answer is a loss, too; what PortAudio does not return from holds nobody up."""
    listener = Listener(pipeline, "pulse")
    listener.wait_for_state("listening")
    server.freeze()
    listener.wait_for_state("lost")
    assert "gave no data for 3 s" in caplog.text
    time.sleep(1)
    assert "does not let it be closed" in caplog.text
    server.thaw()
    back_s = time.monotonic()
    assert listener.wait_for_state("listening") - back_s < BACK_S
    understood(listener, server, commands[0])
    listener.close()


def test_devices(server: SoundServer, capfd: pytest.CaptureFixture[str]) -> None:
    """It is listed and is the default; a name that fits nothing is an error at once for who does not wait."""
    assert server
    devices = list_devices()
    assert "pulse" in {device.name for device in devices}
    assert any(device.is_default for device in devices)
    with pytest.raises(AudioError, match=r"contains 'webcam'; devices: .*pulse"):
        MicrophoneSource("webcam")
    assert capfd.readouterr().err == ""  # ALSA's and JACK's chatter is not passed on


def test_device_is_tested(
    server: SoundServer, commands: list[Sample], child_environment: dict[str, str]
) -> None:
    """`edgevoice devices --test` records what is said and tells how it sounds."""
    with subprocess.Popen(
        [sys.executable, "-m", "edgevoice", "devices", "--test"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**child_environment, **server.environment},
    ) as test:
        assert test.stderr is not None
        assert test.stdout is not None
        assert b"say something now" in test.stderr.readline()
        server.play(commands[0].path)
        levels, advice = test.stdout.read().decode().splitlines()
        assert test.wait(10) == 0
    assert levels.startswith("room -")
    assert ", speech -" in levels
    assert advice == "good"


def test_run(
    server: SoundServer, commands: list[Sample], tmp_path: Path, child_environment: dict[str, str]
) -> None:
    """`edgevoice run` without a microphone starts, says lost on MQTT, and works when there is one."""
    server.unplug()
    server.kill()
    with Broker() as broker, Subscriber(broker.port, "edgevoice/#") as subscriber:
        path = tmp_path / "edgevoice.yaml"
        path.write_text(f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\n")
        with subprocess.Popen(
            [sys.executable, "-m", "edgevoice", "run", "--config", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**child_environment, **server.environment},
        ) as run:
            subscriber.wait_for(lambda m: m.payload == b"lost", ANSWER_S)
            server.start()
            subscriber.wait_for(lambda m: m.payload == b"listening", ANSWER_S)
            server.play(commands[0].path)
            (message,) = subscriber.wait_for(lambda m: "/intent/" in m.topic, ANSWER_S)
            assert message.topic.endswith(f"/{commands[0].intent}")
            run.terminate()
            assert run.wait(10) == 0
            assert run.stderr is not None
            log = run.stderr.read().decode()
            assert "no default microphone; devices: none" in log
            assert "Traceback" not in log
            assert "ALSA" not in log
