"""The listener's thread hands out utterances in order, whoever is slow, and ends when it is told to."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgevoice.endpoint import EndpointOptions
from edgevoice.errors import AudioError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame
from edgevoice.listen import Listener
from edgevoice.testing import FakeVad

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgevoice.attention import Gate
    from edgevoice.events import Utterance
    from edgevoice.publish import State

OPTIONS = EndpointOptions(guess_ms=128)
PATIENCE_MS = 1200
FRAME_MS = 1000 * FRAME_SAMPLES // SAMPLE_RATE_HZ
LONG_S = 10.0  # for a busy machine


class Speaker:
    """Frames that come when a test says so, without end until close()."""

    def __init__(self) -> None:
        self._frames: queue.SimpleQueue[Frame | BaseException | None] = queue.SimpleQueue()
        self.position_samples = 0

    def say(self, loud_ms: int = 0, quiet_ms: int = 0) -> None:
        """Speak and then be silent."""
        for level, length_ms in ((0.5, loud_ms), (0.0, quiet_ms)):
            for _ in range(-(-length_ms // FRAME_MS)):
                self.put(Frame(np.full(FRAME_SAMPLES, level, np.float32), self.position_samples))

    def put(self, frame: Frame) -> None:
        """The next 32 ms, whatever they are."""
        self._frames.put(frame)
        self.position_samples += FRAME_SAMPLES

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        self._frames.put(error)

    def close(self) -> None:
        """End."""
        self._frames.put(None)

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._frames.get()) is not None:
            if isinstance(frame, BaseException):
                raise frame
            yield frame


class Ear(Listener):
    """A listener with what the tests look at."""

    def __init__(self, frames: Iterable[Frame], *, live: bool, gate: Gate | None = None) -> None:
        self.states: list[State] = []
        self.resumed = 0
        super().__init__(
            frames,
            FakeVad(),
            OPTIONS,
            patience_ms=PATIENCE_MS,
            on_resumed=self._count,
            on_state=self.states.append,
            on_scored=lambda _: None,
            live=live,
            gate=gate,
        )

    def _count(self) -> None:
        self.resumed += 1

    def heard(self, speaker: Speaker) -> None:
        """Wait until all that was said has been heard."""
        deadline_s = time.monotonic() + LONG_S
        while self.length_samples < speaker.position_samples:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)

    def take(self) -> Utterance:
        """The next one."""
        utterance = self.next()
        assert utterance is not None
        return utterance


def reasons(listener: Listener) -> list[str]:
    found: list[str] = []
    while (utterance := listener.next()) is not None:
        found.append(utterance.end_reason)
    return found


def test_pauses_and_ends_of_a_recording() -> None:
    """Each pause, then the whole; the same whatever the speed of who takes them."""
    for delay_s in (0.0, 0.02):
        speaker = Speaker()
        speaker.say(500, 320)
        speaker.say(500, 1500)
        speaker.say(500)
        speaker.close()
        with Ear(speaker, live=False) as ear:
            found = []
            while (utterance := ear.next()) is not None:
                found.append(utterance.end_reason)
                time.sleep(delay_s)
        assert found == ["pause", "pause", "silence", "end_of_stream"]
        assert ear.states == ["listening", *["speech", "recognising", "listening"], "speech", "recognising"]


def test_recording_waits_to_be_taken() -> None:
    """Nothing is read ahead of what is not recognised yet."""
    speaker = Speaker()
    speaker.say(500, 500)
    speaker.close()
    with Ear(speaker, live=False) as ear:
        assert ear.take().end_reason == "pause"
        time.sleep(0.05)
        assert ear.length_samples == (16 + 4) * FRAME_SAMPLES
        assert ear.take().end_reason == "end_of_stream"  # the silence was patient with who did not answer


def test_expected_silence() -> None:
    """What is recognised in the pause decides how long to wait."""
    speaker = Speaker()
    with Ear(speaker, live=True) as ear:
        for silence_ms, ends_at in ((200, 6), (500, 16)):
            begin_samples = speaker.position_samples + 512 * 16
            speaker.say(512, 160)
            ear.expect(ear.take(), silence_ms)
            speaker.say(quiet_ms=1000)
            ended = ear.take()
            assert ended.end_reason == "silence"
            assert ended.speech_end_samples == begin_samples
            assert ended.end_samples == begin_samples + 4 * FRAME_SAMPLES  # what paused
            assert ear.length_samples >= begin_samples + ends_at * FRAME_SAMPLES
        speaker.close()


def test_late_answer_ends_at_once() -> None:
    """Silence that has lasted long enough needs no further frame."""
    speaker = Speaker()
    with Ear(speaker, live=True) as ear:
        speaker.say(500, 640)
        pause = ear.take()
        ear.heard(speaker)
        ear.expect(pause, 500)
        assert ear.take().end_reason == "silence"
        speaker.close()


def test_speech_that_goes_on_takes_its_pause_back() -> None:
    """Who recognises it is told to stop, until it does; the next pause has all that was said."""
    speaker = Speaker()
    with Ear(speaker, live=True) as ear:
        speaker.say(500, 160)
        first = ear.take()
        assert ear.resumed == 0
        speaker.say(500)
        ear.heard(speaker)
        assert ear.resumed > 0
        ear.expect(first, 200)  # what it would have said
        speaker.say(quiet_ms=300)
        second = ear.take()
        assert (second.end_reason, second.start_samples) == ("pause", first.start_samples)
        assert second.speech_end_samples > first.speech_end_samples
        speaker.close()


def test_pause_nobody_has_begun_is_taken_back_silently() -> None:
    """It is never handed out."""
    speaker = Speaker()
    speaker.say(500, 160)
    speaker.say(500, 160)
    with Ear(speaker, live=True) as ear:
        ear.heard(speaker)
        assert ear.resumed == 0
        assert ear.take().speech_end_samples == (16 + 5 + 16) * FRAME_SAMPLES
        speaker.close()


def test_what_has_ended_is_not_cancelled() -> None:
    """A slow engine finishes what ended meanwhile, also when the next command has begun."""
    speaker = Speaker()
    with Ear(speaker, live=True) as ear:
        speaker.say(500, 1500)
        ear.heard(speaker)
        pause = ear.take()
        assert pause.end_reason == "silence"  # nobody took the pause in time
        speaker.say(500, 160)
        again = ear.take()
        assert again.end_reason == "pause"
        speaker.say(quiet_ms=1300)
        ear.heard(speaker)
        speaker.say(500)
        ear.heard(speaker)
        assert ear.resumed == 0
        assert ear.take().speech_end_samples == again.speech_end_samples
        speaker.close()


def test_too_many_at_once() -> None:
    """The oldest are given up and say so; order and places are kept."""
    speaker = Speaker()
    for _ in range(5):
        speaker.say(500, 1500)
    speaker.close()
    with Ear(speaker, live=True) as ear:
        ear.heard(speaker)
        found = []
        while (utterance := ear.next()) is not None:
            found.append(utterance)
    assert [utterance.end_reason for utterance in found] == ["overload"] * 2 + ["silence"] * 3
    starts = [utterance.start_samples for utterance in found]
    assert starts == sorted(set(starts))


def test_what_is_being_recognised_is_not_given_up() -> None:
    """It was taken in its pause and has ended meanwhile: its answer is near."""
    speaker = Speaker()
    with Ear(speaker, live=True) as ear:
        speaker.say(500, 160)
        pause = ear.take()
        speaker.say(quiet_ms=1300)
        for _ in range(3):
            speaker.say(500, 1500)
        ear.heard(speaker)
        found = [ear.take() for _ in range(4)]
        assert [utterance.end_reason for utterance in found] == ["silence"] * 4
        assert found[0].speech_end_samples == pause.speech_end_samples
        speaker.close()


def test_error_of_the_watcher_ends_it() -> None:
    """What is raised by who is told a state comes out of next()."""

    def refuse(_: State) -> None:
        raise RuntimeError("no")

    speaker = Speaker()
    speaker.say(500, 160)
    speaker.close()
    ear = Ear(speaker, live=False)
    ear._on_state = refuse
    with ear, pytest.raises(RuntimeError, match="no"):
        reasons(ear)


def test_error_of_the_stream_comes_last() -> None:
    """What was said before it is still recognised."""
    speaker = Speaker()
    speaker.say(500, 1500)
    speaker.fail(AudioError("gone"))
    for live in (False, True):
        with Ear(speaker, live=live) as ear:
            assert ear.take().end_reason in ("pause", "silence")
            with pytest.raises(AudioError, match="gone"):
                reasons(ear)
        speaker.say(500, 1500)
        speaker.fail(AudioError("gone"))


def test_gap() -> None:
    """What was being said is dropped, and the state is told again: the source may have told another."""
    speaker = Speaker()
    with Ear(speaker, live=True) as ear:
        speaker.say(500, 160)
        assert ear.take().end_reason == "pause"
        speaker.position_samples += 10**6
        speaker.say(quiet_ms=64)
        ear.heard(speaker)
        assert ear.resumed == 1
        speaker.say(500, 1500)
        assert reasons_until_silence(ear) == ["silence"]
        assert ear.states[:3] == ["listening", "speech", "listening"]
        speaker.close()


def reasons_until_silence(ear: Ear) -> list[str]:
    found: list[str] = [ear.take().end_reason]
    while found[-1] == "pause":
        found[-1:] = [ear.take().end_reason]
    return found


@pytest.mark.parametrize("live", [False, True])
def test_leaving_ends_the_thread(live: bool) -> None:
    """Also with speech in flight, and when nobody took what was handed out."""
    before = threading.active_count()
    speaker = Speaker()
    speaker.say(500, 300)
    started_s = time.monotonic()
    with Ear(speaker, live=live) as ear:
        ear.take()
        speaker.say(500)
    assert time.monotonic() - started_s < 1
    speaker.close()
    deadline_s = time.monotonic() + LONG_S
    while threading.active_count() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert threading.active_count() == before
