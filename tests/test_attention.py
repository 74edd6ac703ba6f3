"""What is meant for us is heard, and nothing else: our own sounds, windows of time, wake words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgevoice.attention import DECAY_S, MAX_PLAYING_S, Attention, Gate
from edgevoice.events import FRAME_SAMPLES, Frame
from edgevoice.testing import FakeDetector
from tests.test_listen import FRAME_MS, Ear, Speaker, reasons

if TYPE_CHECKING:
    from edgevoice.events import Utterance


class TestAttention:
    """What others tell, in the time of the stream."""

    def test_playing_ends_with_the_room(self) -> None:
        """From when it is told until a little after its end."""
        attention = Attention()
        assert attention.hears(10)
        attention.play()
        assert not attention.hears(10.1)
        assert not attention.hears(20)
        attention.stop()
        assert not attention.hears(20 + DECAY_S / 2)
        assert attention.hears(20 + DECAY_S)

    def test_playing_for_seconds(self) -> None:
        """It ends by itself; a new one counts in place of the old one."""
        attention = Attention()
        attention.play(3)
        assert not attention.hears(3)
        assert attention.hears(3 + DECAY_S)
        attention.play(30)
        attention.play(1)
        assert attention.hears(5 + DECAY_S)

    def test_two_sounds(self) -> None:
        """The end of a chime is not that of the house's reply, nor the other way round."""
        attention = Attention()
        attention.play(whose="feedback")
        attention.play(10)
        attention.stop("feedback")
        assert not attention.hears(9)
        assert attention.hears(10 + DECAY_S)
        attention.play(whose="feedback")
        attention.stop()
        assert not attention.hears(20)

    @pytest.mark.parametrize("duration_s", [MAX_PLAYING_S, 1e9])
    def test_an_end_that_is_lost(self, duration_s: float) -> None:
        """Nothing deafens for ever."""
        attention = Attention()
        attention.play(duration_s)
        assert not attention.hears(MAX_PLAYING_S)
        assert attention.hears(MAX_PLAYING_S + DECAY_S)

    def test_an_end_of_what_did_not_play(self) -> None:
        """It changes nothing."""
        attention = Attention()
        attention.hears(10)
        attention.stop()
        assert attention.hears(10)

    @pytest.mark.parametrize(
        ("start_s", "end_s", "taken"),
        [
            (8.0, 9.9, False),  # before
            (9.0, 10.5, True),  # under way
            (10.5, 11.0, True),
            (15.0, 17.0, True),  # begun in time
            (15.1, 16.0, False),
        ],
    )
    def test_window(self, start_s: float, end_s: float, taken: bool) -> None:
        """It is open for speech that begins in it or is under way."""
        attention = Attention()
        attention.hears(10)
        attention.listen(5)
        assert attention.take(start_s, end_s) == taken

    def test_window_is_for_one(self) -> None:
        """What is heard in it closes it, and so does 0."""
        attention = Attention()
        attention.listen(5)
        assert attention.take(1, 2)
        assert not attention.take(3, 4)
        attention.listen(5)
        attention.listen(0)
        assert not attention.take(1, 2)

    def test_who_is_waited_for(self) -> None:
        """It is told when that begins and ends: by what is said, by time, or because it is taken back."""
        attention = Attention()
        told: list[bool] = []
        attention.on_waits = told.append
        attention.listen(5)
        attention.listen(8)  # still
        attention.hears(8)
        assert told == [True]
        attention.hears(8.1)
        assert told == [True, False]
        assert attention.take(7.9, 9.0), "who began in time is heard all the same"
        for _ in range(2):
            attention.listen(5)
            attention.listen(0)
        assert told == [True, False] * 3

    def test_everything_is_heard_anyway(self) -> None:
        """Even so, nobody is waited for any more when something was said."""
        attention, speaker = Attention(), Speaker()
        told: list[bool] = []
        attention.on_waits = told.append
        with Ear(speaker, live=True, gate=Gate(attention)) as ear:
            attention.listen(5)
            speaker.say(500, 1000)
            ear.heard(speaker)
            assert told == [True, False]
            speaker.close()

    def test_next_stream(self) -> None:
        """What was announced goes on in it."""
        attention = Attention()
        attention.hears(100)
        attention.play(2)
        attention.listen(5)
        attention.hears(101)
        attention.begin()
        assert not attention.hears(1.0)
        assert attention.hears(1.0 + DECAY_S)
        assert attention.take(4.0, 5.0)


class TestOwnSounds:
    """A sound of our own in the stream."""

    def test_nothing_of_it_is_heard(self) -> None:
        """Neither as speech nor joined to what is said after it."""
        attention = Attention()
        speaker = Speaker()
        with Ear(speaker, live=True, gate=Gate(attention)) as ear:
            attention.play(2)
            speaker.say(2000, round(1000 * DECAY_S))
            begin_samples = speaker.position_samples
            speaker.say(500, 1500)
            speaker.close()
            (ended,) = ended_of(ear)
        assert ended.start_samples >= begin_samples - FRAME_SAMPLES  # where the room was quiet again
        assert ear.states.count("speech") == 1

    def test_what_was_said_before_is_answered(self) -> None:
        """Its silence need not last any longer."""
        attention = Attention()
        speaker = Speaker()
        with Ear(speaker, live=True, gate=Gate(attention)) as ear:
            speaker.say(500, 160)
            pause = ear.take()
            ear.heard(speaker)
            attention.play(1)
            speaker.say(500)
            ended = ear.take()
            speaker.close()
        assert (ended.end_reason, ended.speech_end_samples) == ("end_of_stream", pause.speech_end_samples)
        assert ear.resumed == 0

    def test_what_is_being_said_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody could tell it from the sound."""
        attention = Attention()
        speaker = Speaker()
        with caplog.at_level(logging.INFO), Ear(speaker, live=True, gate=Gate(attention)) as ear:
            speaker.say(500)
            ear.heard(speaker)
            attention.play(1)
            speaker.say(500, 2000)
            speaker.close()
            assert reasons(ear) == []
        assert ear.states[:3] == ["listening", "speech", "listening"]
        assert [record.message for record in caplog.records] == [
            "a sound of ours begins in the middle of what is said, which is dropped"
        ]


class TestPushToTalk:
    """Only what is asked for is heard."""

    def test_one_utterance_for_each_push(self) -> None:
        """The others leave no trace, not even a state."""
        attention = Attention()
        speaker = Speaker()
        with Ear(speaker, live=True, gate=Gate(attention, selective=True, everything=False)) as ear:
            speaker.say(500, 1500)
            ear.heard(speaker)
            assert ear.states == ["listening"]
            attention.listen(5)
            begin_samples = speaker.position_samples
            speaker.say(500, 1500)
            speaker.say(500, 1500)
            speaker.close()
            (ended,) = ended_of(ear)
        assert ended.addressed
        assert ended.speech_start_samples == begin_samples
        assert ear.states.count("speech") == 1

    @pytest.mark.parametrize("selective", [False, True])
    def test_only_what_is_asked_for(self, selective: bool) -> None:
        """For as long as somebody wants that, also where else everything or a wake word counts."""
        attention = Attention()
        speaker = Speaker()
        detector = FakeDetector() if selective else None
        gate = Gate(attention, detector, selective=selective, everything=not selective)
        with Ear(speaker, live=True, gate=gate) as ear:
            attention.only_asked = True
            shout(speaker)
            speaker.say(500, 1500)
            ear.heard(speaker)
            assert ear.states == ["listening"]
            attention.listen(5)
            asked_samples = speaker.position_samples
            speaker.say(500, 1500)
            ear.heard(speaker)
            attention.only_asked = False
            free_samples = speaker.position_samples
            shout(speaker)
            speaker.say(500, 1500)
            speaker.close()
            assert [each.speech_start_samples for each in ended_of(ear)] == [asked_samples, free_samples]

    def test_the_window_closes(self) -> None:
        """Who begins too late has to push again."""
        attention = Attention()
        speaker = Speaker()
        with Ear(speaker, live=True, gate=Gate(attention, selective=True, everything=False)) as ear:
            attention.listen(1)
            speaker.say(quiet_ms=1500)
            speaker.say(500, 1500)
            speaker.close()
            assert ended_of(ear) == []

    def test_in_the_middle_of_a_word(self) -> None:
        """Who pushes late is heard from the beginning."""
        attention = Attention()
        speaker = Speaker()
        with Ear(speaker, live=True, gate=Gate(attention, selective=True, everything=False)) as ear:
            speaker.say(300)
            ear.heard(speaker)
            attention.listen(5)
            speaker.say(300, 1500)
            speaker.close()
            (ended,) = ended_of(ear)
        assert (ended.start_samples, ended.end_samples) == (0, (10 + 10 + 4) * FRAME_SAMPLES)


class TestWakeWord:
    """A detector beside the voice detector."""

    def test_wakes(self) -> None:
        """What has the wake word is ours from its beginning; what has not is nobody's."""
        detector = FakeDetector()
        speaker = Speaker()
        with Ear(speaker, live=False, gate=Gate(None, detector, selective=True, everything=False)) as ear:
            speaker.say(500, 1500)
            begin_samples = speaker.position_samples
            speaker.say(300)
            shout(speaker)
            speaker.say(300, 1500)
            speaker.close()
            (ended,) = ended_of(ear)
        assert ended.addressed
        assert ended.speech_start_samples == begin_samples

    def test_costs_nothing_in_silence(self) -> None:
        """It is asked about speech with its pre-roll and the silence after it, until it wakes."""
        for woken, most_ms in ((False, 300 + 500 + 500), (True, 300 + FRAME_MS)):
            detector = FakeDetector()
            speaker = Speaker()
            speaker.say(quiet_ms=5000)
            if woken:
                shout(speaker)
            speaker.say(500, 5000)
            speaker.close()
            with Ear(speaker, live=False, gate=Gate(None, detector, selective=True, everything=False)) as ear:
                assert len(ended_of(ear)) == woken
            assert 0 < detector.frames <= most_ms / FRAME_MS + 1

    def test_not_selective(self) -> None:
        """All is handed out, with what is known of it."""
        attention = Attention()
        speaker = Speaker()
        with Ear(speaker, live=True, gate=Gate(attention, everything=False)) as ear:
            speaker.say(500, 1500)
            ear.heard(speaker)
            attention.listen(5)
            speaker.say(500, 1500)
            speaker.close()
            assert [each.addressed for each in ended_of(ear)] == [False, True]


def shout(speaker: Speaker) -> None:
    """Say a wake word."""
    speaker.put(Frame(np.ones(FRAME_SAMPLES, np.float32), speaker.position_samples))


def ended_of(ear: Ear) -> list[Utterance]:
    """All that ends, without pauses."""
    found: list[Utterance] = []
    while (utterance := ear.next()) is not None:
        if utterance.end_reason != "pause":
            found.append(utterance)
    return found
