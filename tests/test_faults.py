"""Faults of what delivers the sound. For each: nothing upstream dies, and the next command is understood.

What a source itself does about a fault is tested in test_capture.py, test_microphone.py and test_network.py.
"""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr

import edgevoice
from edgevoice.audio import frames
from edgevoice.capture import CaptureCounters, FileSource, MicrophoneSource
from edgevoice.endpoint import EndpointOptions
from edgevoice.errors import AudioError, AudioFormatError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame
from edgevoice.listen import Listener
from edgevoice.microphone import Microphone
from edgevoice.testing import FakeDevice, FakePortAudio, FakeStream, FakeVad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgevoice.events import Result, Samples, Utterance
    from edgevoice.pipeline import Pipeline
    from edgevoice.publish import State
    from tests.conftest import Sample

    Step = Callable[[FakeStream], object]

HOUR_S = 3600
DAY_S = 24 * HOUR_S
DRIFT = 1e-4  # 100 ppm, as bad as the quartz of a cheap sound card is
MIC = FakeDevice("Mic")


def pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32_767).astype(np.int16).tobytes()


def quiet(duration_s: float) -> Samples:
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.float32)


def at(start_samples: int, samples: Samples) -> list[Frame]:
    """Frames that begin at a position."""
    return [replace(frame, start_samples=frame.start_samples + start_samples) for frame in frames([samples])]


def half(speech: Samples) -> Samples:
    """Turn on the d..."""
    return speech[: SAMPLE_RATE_HZ * 9 // 10]


def play(samples: Samples, block_bytes: int = 2 * FRAME_SAMPLES) -> Step:
    """What a sound card does that works."""
    data = pcm(samples)

    def feed(stream: FakeStream) -> None:
        for first in range(0, len(data), block_bytes):
            stream.feed(data[first : first + block_bytes])

    return feed


class Card:
    """A microphone whose sound card does at each opening what a script says, and then nothing more.

    The clock moves on only when it waits for the next opening. The microphone is closed when the script ends.
    """

    def __init__(self, *script: Step | None, device: FakeDevice = MIC) -> None:
        self.now_s = 1000.0
        self.states: list[State] = []
        self._script = iter(script)
        self._card = FakePortAudio(devices=(device,))
        self.microphone = Microphone(
            self._open, self.states.append, clock=lambda: self.now_s, wait=self._wait
        )

    def results(self, pipeline: Pipeline) -> list[Result]:
        """All that is heard."""
        return list(pipeline.results(self.microphone, self.states.append, live=True))

    def _wait(self, duration_s: float) -> None:
        self.now_s += duration_s

    def _open(self) -> MicrophoneSource:
        for step in self._script:
            if step is None:
                raise AudioError("microphone Mic cannot be opened")
            source = MicrophoneSource(port_audio=self._card, stall_s=0.05, clock=lambda: self.now_s)
            assert self._card.stream is not None
            step(self._card.stream)
            return source
        self.microphone.close()
        raise AudioError("the script is over")


def check_command(results: Iterable[Result]) -> Result:
    """It is "turn on the desk lamp", and nothing else was heard."""
    (result,) = results
    assert (result.accepted, result.intent, result.slots) == (True, "HassTurnOn", {"name": "desk lamp"})
    return result


def nothing(_: FakeStream) -> None:
    pass


def stop(stream: FakeStream) -> None:
    stream.active = False


def rubbish(stream: FakeStream) -> None:
    stream.feed(b"\0")


def empty_blocks(stream: FakeStream) -> None:
    for _ in range(100):
        stream.feed(b"")


@pytest.mark.parametrize("fault", [nothing, stop, rubbish, empty_blocks])
def test_device_fails_in_a_command(pipeline: Pipeline, speech: Samples, fault: Step) -> None:
    """It stalls, stops, delivers no audio or nothing but empty blocks; then it does not open for a while."""

    def begin(stream: FakeStream) -> None:
        play(half(speech))(stream)
        fault(stream)

    card = Card(begin, None, None, play(np.concatenate([speech, quiet(1.5)])))
    result = check_command(card.results(pipeline))
    assert result.start_s > 1.5  # after the waiting: the half command before is no part of it
    assert card.states.count("lost") == 2  # the second when the script ends
    assert card.microphone.counters == CaptureCounters(losses=2)


def test_empty_blocks_between(pipeline: Pipeline, speech: Samples) -> None:
    """They are nothing, and change nothing."""
    data = pcm(np.concatenate([speech, quiet(1.5)]))

    def feed(stream: FakeStream) -> None:
        for first in range(0, len(data), 1024):
            stream.feed(b"")
            stream.feed(data[first : first + 1024])

    check_command(Card(feed).results(pipeline))


@pytest.mark.parametrize("block_bytes", [2 * 37, 2 * 1000, 2 * 16_000])
def test_other_blocks(pipeline: Pipeline, speech: Samples, block_bytes: int) -> None:
    """A device that changes the size of its blocks in a command is heard on without a gap."""
    cut = SAMPLE_RATE_HZ

    def feed(stream: FakeStream) -> None:
        play(speech[:cut])(stream)
        play(speech[cut : cut + 3700], block_bytes)(stream)
        play(np.concatenate([speech[cut + 3700 :], quiet(1.5)]))(stream)

    card = Card(feed)
    check_command(card.results(pipeline))
    assert card.microphone.counters == CaptureCounters(losses=1)


@pytest.mark.parametrize("device", [FakeDevice("Phone", 1, 8_000), FakeDevice("Studio", 2, 96_000)])
def test_unusual_devices(pipeline: Pipeline, samples: tuple[Sample, ...], device: FakeDevice) -> None:
    """Commands through 8 kHz mono and 96 kHz stereo are understood."""
    for sample in [sample for sample in samples if sample.accepted][:4]:
        audio = np.concatenate([sample.read(), quiet(1.5)])
        there = soxr.resample(audio, SAMPLE_RATE_HZ, device.rate_hz).astype(np.float32)
        all_channels = np.repeat(there, device.channels)
        block_bytes = 2 * device.channels * device.rate_hz * FRAME_SAMPLES // SAMPLE_RATE_HZ
        (result,) = Card(play(all_channels, block_bytes), device=device).results(pipeline)
        assert (result.intent, result.slots) == (sample.intent, sample.slots), sample.path.name


@pytest.mark.parametrize(
    ("gain", "offset", "most_refused"),
    [
        (1, 0.1, 0),  # no command is lost to an offset: nothing needs to take it out
        (0.02, 0, 1),  # 34 dB too quiet: the detector is not sure of the shortest ones
        (4, 0, 0),  # distorted; at eight, one is taken for another
    ],
)
def test_badly_set_microphone(
    pipeline: Pipeline, samples: tuple[Sample, ...], gain: float, offset: float, most_refused: int
) -> None:
    """An offset, far too quiet, far too loud: what is accepted is right, and nearly everything is."""
    refused = []
    for sample in [sample for sample in samples if sample.accepted and sample.path.suffix == ".flac"]:
        card = Card(play(np.concatenate([sample.read() * gain, quiet(1.5)]) + np.float32(offset)))
        for result in card.results(pipeline):
            if result.accepted:
                assert (result.intent, {name: str(x).lower() for name, x in result.slots.items()}) == (
                    sample.intent,
                    {name: str(x).lower() for name, x in sample.slots.items()},
                )
            else:
                refused.append((sample.text, result.reason))
    assert len(refused) <= most_refused, refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_numbers(pipeline: Pipeline, speech: Samples, tmp_path: Path, value: float) -> None:
    """A recording or a stream with values that are no numbers is an error; the next one is understood."""
    broken = np.concatenate([half(speech), np.full(100, value, np.float32), speech])
    soundfile.write(tmp_path / "broken.wav", broken, SAMPLE_RATE_HZ, subtype="FLOAT")
    for source in (
        FileSource(tmp_path / "broken.wav"),
        [Frame(np.full(FRAME_SAMPLES, value, np.float32), 0)],
    ):
        with pytest.raises(AudioFormatError, match=r"no number|finite"):
            list(pipeline.results(source))
        check_command(pipeline.results(frames([speech])))


def test_absurd_numbers(pipeline: Pipeline, speech: Samples) -> None:
    """Values that are far too large are no command, and the detector does not go deaf of them."""
    thunder = np.full(2048, 3e38, np.float32)
    check_command(pipeline.results(frames([quiet(1), thunder, quiet(1), speech, quiet(1)])))


@pytest.mark.parametrize("position", [10**6, 10**9, 0, 512, SAMPLE_RATE_HZ * 9 // 10])
def test_jump_in_time(pipeline: Pipeline, speech: Samples, position: int) -> None:
    """Forward, back, or one position once more: the command after it is understood, at its own place."""
    (alone,) = pipeline.results(frames([speech]))
    stream = [*at(10**5, half(speech)), *at(position, np.concatenate([speech, quiet(1)]))]
    result = check_command(pipeline.results(stream, live=True))
    assert result.start_s - alone.start_s == pytest.approx(position / SAMPLE_RATE_HZ, abs=1e-6)


def test_position_again_and_again(pipeline: Pipeline, speech: Samples) -> None:
    """A source that does not count is not understood, but does no harm to the next one."""
    stuck = [replace(frame, start_samples=0) for frame in frames([speech])]
    assert not any(result.accepted for result in pipeline.results(stuck, live=True))
    check_command(pipeline.results(frames([speech])))


# ---- a day ----


class Day:
    """Hears loud sound for speech, through the listener's thread, and keeps nothing."""

    def __init__(self, stream: Iterable[Frame]) -> None:
        self._listener = Listener(
            stream,
            FakeVad(),
            EndpointOptions(),
            patience_ms=1200,
            on_resumed=lambda: None,
            on_state=lambda _: None,
            on_scored=lambda _: None,
            live=False,
        )

    def __iter__(self) -> Iterator[Utterance]:
        with self._listener:
            while (utterance := self._listener.next()) is not None:
                yield utterance


def said(loud_from: int, loud_to: int) -> bytes:
    """Some seconds in which somebody speaks, from one sample to another."""
    samples = quiet(10)
    samples[loud_from:loud_to] = 0.5
    return pcm(samples)


@pytest.mark.parametrize("drift", [DRIFT, -DRIFT])
def test_positions_of_a_day(drift: float) -> None:
    """Something is said each hour, to a card whose clock is wrong; each command is where it was said."""
    block_s = FRAME_SAMPLES / SAMPLE_RATE_HZ / (1 + drift)
    now_s = begin_s = 5000.0
    opened_s: list[float] = []
    card = FakePortAudio(devices=(MIC,))
    first, last = 10 * FRAME_SAMPLES, 40 * FRAME_SAMPLES
    data = said(first, last)

    class Hour:
        """The source of some seconds, whose blocks come when the card delivers them."""

        def __init__(self) -> None:
            self.live = True
            self._source = MicrophoneSource(port_audio=card, stall_s=0.01, clock=lambda: now_s)
            self.discard = self._source.discard
            self.close = self._source.close
            opened_s.append(now_s)

        @property
        def counters(self) -> CaptureCounters:
            return self._source.counters

        def __iter__(self) -> Iterator[Frame]:
            nonlocal now_s
            stream = iter(self._source)
            for start in range(0, len(data), 1024):
                assert card.stream is not None
                if start:
                    now_s += block_s
                card.stream.feed(data[start : start + 1024])
                yield next(stream)
            raise AudioError("unplugged")

    def open_source() -> Hour:
        if len(opened_s) == 24:
            microphone.close()
        return Hour()

    def wait(_: float) -> None:
        nonlocal now_s
        now_s = begin_s + len(opened_s) * HOUR_S

    microphone = Microphone(open_source, clock=lambda: now_s, wait=wait)
    found = list(Day(microphone))
    assert len(found) == 24
    for utterance, hour_s in zip(found, opened_s, strict=False):
        opening = round((hour_s - begin_s) * SAMPLE_RATE_HZ)
        assert utterance.speech_start_samples == opening + first
        assert utterance.speech_end_samples == opening + last
    assert microphone.counters == CaptureCounters(losses=24)


class Drifting:
    """A source that delivers for a day without a loss; of its frames only the first and the last are made."""

    live = True
    counters = CaptureCounters()

    def __init__(self, length_samples: int) -> None:
        self._length_samples = length_samples

    def __iter__(self) -> Iterator[Frame]:
        for start in (0, self._length_samples - FRAME_SAMPLES):
            yield Frame(np.zeros(FRAME_SAMPLES, np.float32), start)
        raise AudioError("unplugged")

    def discard(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("drift", [DRIFT, -DRIFT])
def test_drift_of_a_day(drift: float) -> None:
    """After a day without a loss the card is 8.64 s ahead of the clock, or behind; nothing comes twice."""
    day = FRAME_SAMPLES * round(DAY_S * (1 + drift) * SAMPLE_RATE_HZ / FRAME_SAMPLES)
    now_s = 0.0

    def wait(_: float) -> None:
        nonlocal now_s
        now_s = DAY_S + 1.0  # a second later it is back

    microphone = Microphone(lambda: Drifting(day), clock=lambda: now_s, wait=wait)
    positions = [frame.start_samples for frame, _ in zip(microphone, range(4), strict=False)]
    clock_samples = (DAY_S + 1) * SAMPLE_RATE_HZ
    back = max(day + FRAME_SAMPLES, clock_samples)
    assert positions == [0, day - FRAME_SAMPLES, back, back + day - FRAME_SAMPLES]
    assert (back == clock_samples) == (drift < 0)


def test_clock_that_goes_back() -> None:
    """Even if the clock did what none may, positions would not."""
    now_s = 10 * HOUR_S

    def wait(_: float) -> None:
        nonlocal now_s
        now_s -= HOUR_S

    microphone = Microphone(lambda: Drifting(10**6), clock=lambda: now_s, wait=wait)
    positions = [frame.start_samples for frame, _ in zip(microphone, range(8), strict=False)]
    assert all(before < after for before, after in pairwise(positions))


def test_nothing_depends_on_the_time_of_day() -> None:
    """Somebody sets CLOCK_REALTIME: it is asked for times that people read and the age of files alone."""
    asked = {
        path.name
        for path in Path(edgevoice.__file__).parent.glob("*.py")
        if re.search(r"\btime\.time(_ns)?\(|datetime\.now|CLOCK_REALTIME|localtime", path.read_text("utf-8"))
    }
    files = {"records.py", "recorder.py"}
    assert asked - files == {"recognise.py", "cli_eval.py", "reload.py", "grammar_writer.py", "health.py"}


@pytest.mark.parametrize("hours", [23, 24 * 365])
def test_late_commands(pipeline: Pipeline, speech: Samples, hours: int) -> None:
    """A command after a day, or a year, is understood, and its times are right to the sample."""
    position = hours * HOUR_S * SAMPLE_RATE_HZ + 512
    (early,) = pipeline.results(frames([speech]))
    result = check_command(pipeline.results(at(position, speech), live=True))
    for late_s, early_s in ((result.start_s, early.start_s), (result.end_s, early.end_s)):
        assert round(late_s * SAMPLE_RATE_HZ) - position == round(early_s * SAMPLE_RATE_HZ)


def test_memory() -> None:
    """Ten minutes of commands leave nothing behind that the first two have not left."""
    speaking, silent = np.full(FRAME_SAMPLES, 0.5, np.float32), np.zeros(FRAME_SAMPLES, np.float32)
    stream = (
        Frame(speaking if n % 300 < 50 else silent, 23 * HOUR_S * SAMPLE_RATE_HZ + n * FRAME_SAMPLES)
        for n in range(18_750)
    )
    tracemalloc.start()
    used = [tracemalloc.get_traced_memory()[0] for _ in Day(stream)]
    tracemalloc.stop()
    assert len(used) == 63
    assert max(used[13:]) - max(used[:13]) < 20_000  # an utterance is 120 kB
