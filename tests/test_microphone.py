"""A microphone that goes and comes back: nothing upstream ends, and nothing is glued together."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgevoice.capture import CaptureCounters, MicrophoneSource
from edgevoice.errors import AudioError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ
from edgevoice.microphone import Microphone
from edgevoice.testing import FakeDevice, FakePortAudio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.publish import State

    Step = int | bytes | str | Callable[[], object]

BLOCK = bytes(2 * FRAME_SAMPLES)
MIC = FakeDevice("USB Mic")


class World:
    """A sound card, and a clock that only waiting and open_source() move on.

    Args:
        script: what each opening meets: a number of blocks after which the device is gone; bytes that it
            delivers; the reason why it does not open; or what to do before opening and two blocks. The
            microphone is closed when the script ends.
    """

    def __init__(self, *script: Step, device: int | str | None = None) -> None:
        self.card = FakePortAudio(devices=(MIC,))
        self.now_s = 5000.0
        self.waits_s: list[float] = []
        self.states: list[State] = []
        self._device = device
        self._script = iter(script)
        self.microphone = Microphone(
            self._open, self.states.append, clock=lambda: self.now_s, wait=self._wait
        )

    def run(self) -> list[int]:
        """Positions of all frames."""
        return [frame.start_samples for frame in self.microphone]

    def _wait(self, duration_s: float) -> None:
        self.waits_s.append(duration_s)
        self.now_s += duration_s

    def _open(self) -> MicrophoneSource:
        step = next(self._script, None)
        if step is None:
            self.microphone.close()
            raise AudioError("the script is over")
        self.card.open_error = step if isinstance(step, str) else None
        if callable(step):
            step()
        source = MicrophoneSource(self._device, port_audio=self.card, stall_s=0.02, clock=lambda: self.now_s)
        assert self.card.stream is not None
        for block in [step] if isinstance(step, bytes) else [BLOCK] * (step if isinstance(step, int) else 2):
            self.card.stream.feed(block)
        self.card.stream.active = False
        return source


def test_without_loss() -> None:
    """Frames come one after the other from the first on, as from the source itself."""
    world = World(5)
    assert world.run() == [n * FRAME_SAMPLES for n in range(5)]


def test_lost_and_found(caplog: pytest.LogCaptureFixture) -> None:
    """It is opened until it works; the frames go on where the clock is, and each trouble is told once."""
    caplog.set_level(logging.INFO)
    world = World(3, *["Device unavailable"] * 5, 2)
    positions = world.run()
    lost_s = sum(world.waits_s[:6])
    assert positions[:3] == [0, 512, 1024]
    assert positions[3:] == [round(lost_s * SAMPLE_RATE_HZ), round(lost_s * SAMPLE_RATE_HZ) + 512]
    assert world.states == ["lost", "lost"]  # the second when the script ends
    assert world.microphone.counters.losses == 2
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 4
    assert "USB Mic stopped" in warnings[0]
    assert "Device unavailable" in warnings[1]
    assert "works again" in caplog.text
    assert world.card.stream is not None
    assert world.card.stream.closed


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (["Device unavailable", "Invalid device"] * 20, 3),  # one more when the script ends
        ([2] * 20, 4),
    ],
    ids=["by turns", "a loose plug"],
)
def test_seldom_told(script: list[Step], lines: int, caplog: pytest.LogCaptureFixture) -> None:
    """Reasons that come again and again are told once an outage, however long that lasts."""
    caplog.set_level(logging.INFO)
    World(*script).run()
    told = [record for record in caplog.records if record.name == "edgevoice.microphone"]
    assert len(told) == lines, caplog.text
    assert caplog.text.count("listening to") <= 1


def test_patience() -> None:
    """It is tried soon at first, then less often, but always so often that it is back within 3 s."""
    world = World(*["Device unavailable"] * 50)
    assert world.run() == []
    assert all(0.18 < duration_s < 0.26 for duration_s in world.waits_s[:1])
    assert all(1.1 < duration_s <= 1.5 for duration_s in world.waits_s[5:])
    assert len(set(world.waits_s)) > 40  # not in step with another program


def test_not_there_at_the_start() -> None:
    """It begins lost and works when it comes."""
    world = World("Device unavailable", 2)
    positions = world.run()
    assert positions == [
        round(world.waits_s[0] * SAMPLE_RATE_HZ),
        round(world.waits_s[0] * SAMPLE_RATE_HZ) + 512,
    ]
    assert world.states == ["lost", "lost"]


def test_wrong_name(caplog: pytest.LogCaptureFixture) -> None:
    """A name that fits nothing tells once what there is, and waits for it."""
    world = World(
        1, 1, 1, lambda: setattr(world.card, "devices", (MIC, FakeDevice("Webcam"))), device="webcam"
    )
    assert len(world.run()) == 2
    assert caplog.text.count("no microphone whose name contains 'webcam'; devices: 0: USB Mic") == 1


def test_found_by_name() -> None:
    """After it was plugged in elsewhere, it has another number and the same name."""

    def move() -> None:
        world.card.devices = (FakeDevice("HDMI", channels=0), FakeDevice("Webcam"), MIC)

    world = World(1, "Invalid device", move, device="usb")
    positions = world.run()
    assert len(positions) == 3
    assert positions == sorted(positions)


def test_other_format() -> None:
    """It may come back as a device of another rate and with other channels."""

    def change() -> None:
        world.card.devices = (replace(MIC, channels=1, formats=((16_000, 1),)),)

    world = World(48 * b"\0\0\0\0", change)
    world.card.devices = (replace(MIC, channels=2, rate_hz=48_000),)
    assert len(world.run()) >= 2


@pytest.mark.parametrize("rubbish", [b"\0", bytes(1001)])
def test_rubbish(rubbish: bytes) -> None:
    """Bytes that are no audio are a loss, not the end."""
    world = World(2, rubbish, 2)
    assert len(world.run()) == 4
    assert world.microphone.counters.losses == 2


def test_a_day() -> None:
    """Each hour of a day the machine sleeps, and the microphone is gone for a while: all is counted."""

    def sleep() -> None:
        world.now_s += 3590

    hour: list[Step] = [2, "Device unavailable", sleep]
    world = World(*hour * 24)
    positions = world.run()
    assert len(positions) == 4 * 24
    assert positions == sorted(set(positions))
    assert positions[-1] / SAMPLE_RATE_HZ == pytest.approx(24 * 3590, rel=0.01)
    assert world.microphone.counters == CaptureCounters(losses=48)


def test_counters_go_on() -> None:
    """What was counted before a loss is not forgotten."""
    world = World(400, 400)
    before = world.microphone.counters
    world.run()
    assert before == CaptureCounters()
    assert world.microphone.counters.overflows == 2 * (400 - 312)


class Live:
    """A microphone that is fed by hand."""

    def __init__(self) -> None:
        self.card = FakePortAudio(devices=(MIC,))
        self.states: list[State] = []
        self.microphone = Microphone(lambda: MicrophoneSource(port_audio=self.card), self.states.append)
        self.stream = iter(self.microphone)

    def hear(self, block: bytes = BLOCK) -> int:
        """Position of the next frame, which is this block."""
        if self.card.stream is None:
            threading.Timer(0.05, self.feed, [block]).start()  # it opens when it is asked
        else:
            self.feed(block)
        return next(self.stream).start_samples

    def feed(self, block: bytes = BLOCK) -> None:
        """Deliver a block."""
        assert self.card.stream is not None
        self.card.stream.feed(block)


@pytest.fixture
def live() -> Iterator[Live]:
    opened = Live()
    yield opened
    opened.microphone.close()


def test_mute(live: Live) -> None:
    """What is said while it is muted is dropped, also what waits; it is announced, and a gap remains."""
    assert live.hear() == 0
    live.microphone.muted = True
    for _ in range(10):
        live.feed()

    def unmute() -> None:
        live.microphone.muted = False
        live.feed()

    threading.Timer(0.2, unmute).start()
    position = next(live.stream).start_samples
    assert position >= 11 * FRAME_SAMPLES
    assert live.states == ["muted"]
    assert live.hear() == position + FRAME_SAMPLES


def test_muted_during_a_recognition(live: Live) -> None:
    """When nobody takes frames meanwhile, those recorded while it was muted are dropped all the same."""
    assert live.hear() == 0
    live.microphone.muted = True
    for _ in range(10):
        live.feed(b"\1\1" * FRAME_SAMPLES)
    live.microphone.muted = False
    live.feed()
    frame = next(live.stream)
    assert not frame.samples.any()
    assert frame.start_samples == 11 * FRAME_SAMPLES


@pytest.mark.parametrize("plugged_in", [True, False])
def test_close(plugged_in: bool) -> None:
    """close() from another thread ends it within a second, whether it listens or waits for the device."""
    card = FakePortAudio(devices=(MIC,) if plugged_in else ())
    microphone = Microphone(lambda: MicrophoneSource(port_audio=card))
    listener = threading.Thread(target=lambda: list(microphone))
    listener.start()
    time.sleep(0.3)
    start_s = time.monotonic()
    microphone.close()
    listener.join(5)
    assert time.monotonic() - start_s < 1
    microphone.close()
    assert list(microphone) == []


def test_closed_while_it_opens() -> None:
    """A device that opens after close() is closed at once."""
    card = FakePortAudio(devices=(MIC,))

    def open_slowly() -> MicrophoneSource:
        source = MicrophoneSource(port_audio=card)
        microphone.close()  # from another thread, before the source is known
        return source

    microphone = Microphone(open_slowly)
    assert list(microphone) == []
    assert card.stream is not None
    assert card.stream.closed


def test_abandoned() -> None:
    """Who stops listening leaves no open device behind."""
    world = World(10)
    assert len(list(itertools.islice(world.microphone, 3))) == 3
    stream = iter(world.microphone)
    stream.close()  # type: ignore[attr-defined]
    assert world.card.stream is not None
    world.microphone.close()
    assert world.card.stream.closed
