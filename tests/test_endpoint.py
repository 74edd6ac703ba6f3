"""Utterances are cut out of a stream with their first sound, and nothing is lost between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.endpoint import (
    HYSTERESIS,
    LOOK_BACK_MS,
    LOUDER,
    POSSIBLE_GAP,
    RESUMED_MS,
    SURE,
    TAIL_MS,
    Endpointer,
    EndpointOptions,
)
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, ScoredFrame, Utterance

if TYPE_CHECKING:
    from collections.abc import Iterable

FRAME_MS = 1000 * FRAME_SAMPLES // SAMPLE_RATE_HZ
OPTIONS = EndpointOptions()
SPEECH, SILENCE = 0.9, 0.02


def stream(probabilities: Iterable[float]) -> list[ScoredFrame]:
    """Frames whose samples are their own positions, so that each can be told from every other."""
    return [
        ScoredFrame(
            Frame(np.arange(i * FRAME_SAMPLES, (i + 1) * FRAME_SAMPLES, dtype=np.float32), i * FRAME_SAMPLES),
            probability,
        )
        for i, probability in enumerate(probabilities)
    ]


def cut(probabilities: Iterable[float], options: EndpointOptions = OPTIONS) -> list[Utterance]:
    return list(Endpointer(options).utterances(stream(probabilities)))


def frames(ms: float) -> int:
    """Whole frames that hold this much time."""
    return -(-int(ms) // FRAME_MS)


def ms(samples: int) -> float:
    return samples * 1000 / SAMPLE_RATE_HZ


def quiet(duration_ms: float) -> list[float]:
    return [SILENCE] * frames(duration_ms)


def loud(duration_ms: float) -> list[float]:
    return [SPEECH] * frames(duration_ms)


def test_one_utterance() -> None:
    """Speech between silences is one utterance, whose positions are those of the stream."""
    (utterance,) = cut(quiet(1000) + loud(800) + quiet(1000))
    assert utterance.end_reason == "silence"
    assert utterance.speech_start_samples == frames(1000) * FRAME_SAMPLES
    assert utterance.speech_end_samples == (frames(1000) + frames(800)) * FRAME_SAMPLES
    assert utterance.samples[0] == utterance.start_samples
    assert (np.diff(utterance.samples) == 1).all()
    assert utterance.samples.dtype == np.float32


def test_pre_roll_is_kept() -> None:
    """Audio from before the first speech is part of the utterance, as much as was asked for and there was."""
    before_ms = [
        ms(utterance.speech_start_samples - utterance.start_samples)
        for quiet_ms in (1000, 96, 0)
        for utterance in cut(quiet(quiet_ms) + loud(500) + quiet(1000))
    ]
    assert OPTIONS.pre_roll_ms <= before_ms[0] < OPTIONS.pre_roll_ms + FRAME_MS
    assert before_ms[1:] == [96, 0]


@pytest.mark.parametrize(
    ("before", "possible"),
    [
        ([0.12] * 8, 8),
        ([0.12, *[SILENCE] * POSSIBLE_GAP, 0.12], 2 + POSSIBLE_GAP),
        ([0.12, *[SILENCE] * (POSSIBLE_GAP + 1), 0.12], 1),
        ([0.12] * 100, LOOK_BACK_MS // FRAME_MS),
        ([0.08] * 8, 0),
    ],
)
def test_what_may_be_speech_is_kept(before: list[float], possible: int) -> None:
    """In noise the detector is sure only after a while: audio from before it guessed so is kept, too."""
    (utterance,) = cut(quiet(3000) + before + loud(500) + quiet(1000))
    kept_frames = (utterance.speech_start_samples - utterance.start_samples) // FRAME_SAMPLES
    assert abs(kept_frames - frames(OPTIONS.pre_roll_ms) - possible) <= 1


@pytest.mark.parametrize(("louder_db", "kept_more"), [(3, False), (6, False), (13, True), (30, True)])
def test_what_is_louder_than_the_room_is_kept(louder_db: float, kept_more: bool) -> None:
    """The detector may notice late that somebody speaks; what rises above the noise before may be speech."""
    scored = stream(quiet(3000) + quiet(512) + loud(500) + quiet(1000))
    room = np.random.default_rng(1).normal(0, 0.01, FRAME_SAMPLES).astype(np.float32)
    for i, each in enumerate(scored):
        louder = 10 ** (louder_db / 20) if i >= frames(3000) else 1
        scored[i] = replace(each, frame=Frame(room * np.float32(louder) + 0.5, each.frame.start_samples))
    (utterance,) = Endpointer(OPTIONS).utterances(scored)
    before_ms = ms(utterance.speech_start_samples - utterance.start_samples)
    assert abs(before_ms - OPTIONS.pre_roll_ms - 512 * kept_more) <= FRAME_MS
    assert 10 * np.log10(LOUDER) == 10


def test_a_quiet_moment_is_not_the_room() -> None:
    """Such as the start of a recording: the noise after it is no beginning."""
    scored = stream(quiet(160) + quiet(1024) + loud(500) + quiet(1000))
    noise = np.random.default_rng(1).normal(0, 0.01, FRAME_SAMPLES).astype(np.float32)
    for i, each in enumerate(scored):
        louder = np.float32(1 if i >= frames(160) else 0.01)
        scored[i] = replace(each, frame=Frame(noise * louder, each.frame.start_samples))
    (utterance,) = Endpointer(OPTIONS).utterances(scored)
    assert ms(utterance.speech_start_samples - utterance.start_samples) <= OPTIONS.pre_roll_ms + FRAME_MS


def test_digital_silence_makes_nothing_loud() -> None:
    """The noise of 16 bits after it is no beginning."""
    scored = stream(quiet(3000) + quiet(512) + loud(500) + quiet(1000))
    noise = np.random.default_rng(1).normal(0, 2**-16, FRAME_SAMPLES).astype(np.float32)
    for i, each in enumerate(scored):
        scored[i] = replace(each, frame=Frame(noise * (i >= frames(3000)), each.frame.start_samples))
    (utterance,) = Endpointer(OPTIONS).utterances(scored)
    assert ms(utterance.speech_start_samples - utterance.start_samples) <= OPTIONS.pre_roll_ms + FRAME_MS


def test_pre_roll_of_zero_keeps_none() -> None:
    """Who asks for nothing gets nothing."""
    (utterance,) = cut(quiet(1000) + loud(500) + quiet(1000), replace(OPTIONS, pre_roll_ms=0))
    assert utterance.start_samples == utterance.speech_start_samples


def test_tail_is_kept() -> None:
    """A little of the silence behind the speech is kept, and no more."""
    (utterance,) = cut(quiet(500) + loud(500) + quiet(2000))
    tail_ms = ms(utterance.end_samples - utterance.speech_end_samples)
    assert TAIL_MS <= tail_ms < TAIL_MS + FRAME_MS


@pytest.mark.parametrize("speech_ms", [32, 64, 96])
def test_click_is_forgotten(speech_ms: int) -> None:
    """Speech shorter than min_speech_ms is none."""
    assert cut(quiet(500) + loud(speech_ms) + quiet(1000)) == []


def test_speech_of_the_least_length_counts() -> None:
    """min_speech_ms of speech is enough, also in pieces."""
    assert len(cut(quiet(500) + loud(128) + quiet(1000))) == 1
    assert len(cut(quiet(500) + (loud(32) + quiet(64)) * 4 + quiet(1000))) == 1


def test_click_before_speech_is_no_part_of_it() -> None:
    """A click long before the speech does not stretch the utterance to it."""
    (utterance,) = cut(quiet(500) + loud(32) + quiet(2000) + loud(500) + quiet(1000))
    assert ms(utterance.speech_start_samples - utterance.start_samples) < OPTIONS.pre_roll_ms + FRAME_MS


@pytest.mark.parametrize(("pause_ms", "count"), [(320, 1), (448, 1), (512, 2), (3000, 2)])
def test_silence_ends(pause_ms: int, count: int) -> None:
    """A pause shorter than silence_ms belongs to the utterance; a longer one ends it."""
    utterances = cut(quiet(500) + loud(500) + quiet(pause_ms) + loud(500) + quiet(1000))
    assert [utterance.end_reason for utterance in utterances] == ["silence"] * count


def test_end_comes_with_the_frame_that_completes_the_silence() -> None:
    """Nobody waits longer than was configured."""
    endpointer = Endpointer(OPTIONS)
    scored = stream(loud(500) + quiet(2000))
    ended = next(i for i, frame in enumerate(scored) if endpointer.push(frame) is not None)
    assert ended + 1 == frames(500) + frames(OPTIONS.silence_ms)


def test_too_long() -> None:
    """Speech that does not end is cut at max_utterance_s; what follows is the next one, without a gap."""
    options = replace(OPTIONS, max_utterance_s=2.0)
    first, second, third = cut(quiet(500) + loud(5000) + quiet(1000), options)
    assert (first.end_reason, second.end_reason, third.end_reason) == ("too_long", "too_long", "silence")
    assert (second.start_samples, third.start_samples) == (first.end_samples, second.end_samples)
    # Pre-roll included: the decoder takes no more than its window.
    assert 2000 <= ms(first.end_samples - first.start_samples) < 2000 + FRAME_MS


def test_stream_that_ends_in_speech() -> None:
    """The last utterance is not lost when the stream is over."""
    (utterance,) = cut(quiet(500) + loud(500))
    assert utterance.end_reason == "end_of_stream"
    assert utterance.end_samples == (frames(500) + frames(500)) * FRAME_SAMPLES


def test_stream_that_ends_in_a_click_or_in_nothing() -> None:
    """There is no utterance then."""
    assert cut(quiet(500) + loud(64)) == []
    assert cut(quiet(500)) == []
    assert cut([]) == []


def test_hysteresis() -> None:
    """What would not start an utterance continues one; below that it is silence."""
    between, below = OPTIONS.threshold - HYSTERESIS + 0.01, OPTIONS.threshold - HYSTERESIS - 0.01
    assert cut([between] * frames(2000)) == []
    assert [u.end_reason for u in cut(loud(500) + [between] * frames(2000))] == ["end_of_stream"]
    assert [u.end_reason for u in cut(loud(500) + [below] * frames(2000))] == ["silence"]


def test_threshold_itself_is_speech() -> None:
    """A probability from the threshold on counts."""
    assert len(cut([OPTIONS.threshold] * frames(500))) == 1
    assert cut([OPTIONS.threshold - 0.01] * frames(500)) == []


def test_in_speech_tells_an_utterance_from_a_click() -> None:
    """It turns true when the speech is long enough and false with the end."""
    endpointer = Endpointer(OPTIONS)
    states = []
    for frame in stream(quiet(64) + loud(320) + quiet(640)):
        endpointer.push(frame)
        states.append(endpointer.in_speech)
    needed = frames(OPTIONS.min_speech_ms)
    first, last = states.index(True), len(states) - 1 - states[::-1].index(True)
    assert first == frames(64) + needed - 1
    assert last == frames(64) + frames(320) + frames(OPTIONS.silence_ms) - 2
    assert all(states[first : last + 1])


def test_finish_twice_gives_one_utterance() -> None:
    """The end of a stream is said once; saying it again is nothing, and another stream may follow."""
    endpointer = Endpointer(OPTIONS)
    for frame in stream(loud(500)):
        endpointer.push(frame)
    assert endpointer.finish() is not None
    assert endpointer.finish() is None
    assert len(list(endpointer.utterances(stream(loud(500))))) == 1


def test_sure_speech_is_counted() -> None:
    """Only frames in which the detector is sure, of this utterance alone."""
    (first, second) = cut(
        loud(320) + [SURE - 0.01] * 10 + [SURE] * 5 + quiet(1000) + [SURE - 0.01] * 10 + quiet(1000)
    )
    assert first.sure_s == pytest.approx((10 + 5) * FRAME_MS / 1000)
    assert second.sure_s == 0


GUESSING = replace(OPTIONS, guess_ms=128)


def test_pause_is_handed_out_early() -> None:
    """What was said so far comes with the frame that completes guess_ms, once in each pause."""
    utterances = cut(quiet(500) + loud(500) + quiet(320) + loud(500) + quiet(1000), GUESSING)
    assert [utterance.end_reason for utterance in utterances] == ["pause", "pause", "silence"]
    first, second, whole = utterances
    assert ms(first.end_samples - first.speech_end_samples) == 128
    assert (first.samples == whole.samples[: len(first.samples)]).all()
    assert (second.samples == whole.samples[: len(second.samples)]).all()
    assert first.speech_end_samples < second.speech_end_samples == whole.speech_end_samples


def test_what_ends_is_what_paused() -> None:
    """The same samples; the silence after them is left to the next utterance, as its pre-roll."""
    endpointer = Endpointer(GUESSING)
    found = []
    for frame in stream(loud(512) + quiet(416) + loud(512) + quiet(1000)):
        utterance = endpointer.push(frame)
        if utterance is None:
            continue
        found.append(utterance)
        if utterance.end_reason == "pause":
            assert endpointer.expect(utterance, 224) is None
    first, first_again, second, _ = found
    assert [utterance.end_reason for utterance in found] == ["pause", "silence"] * 2
    assert (first.samples == first_again.samples).all()
    assert second.start_samples == first.end_samples
    assert ms(second.speech_start_samples - second.start_samples) == 416 - 128


def test_quiet_voices_are_surely_speech_too() -> None:
    """Where the threshold is lowered for them."""
    (utterance,) = cut([0.65] * 20 + quiet(1000), replace(OPTIONS, threshold=0.3))
    assert utterance.sure_s == pytest.approx(20 * FRAME_MS / 1000)


def test_click_is_no_pause() -> None:
    """What is too short to be an utterance is not guessed at."""
    assert cut(quiet(500) + loud(64) + quiet(1000), GUESSING) == []


@pytest.mark.parametrize(("silence_ms", "silent_frames"), [(200, 6), (500, 16), (1200, 38)])
def test_expected_silence_ends(silence_ms: int, silent_frames: int) -> None:
    """What was said decides how long a silence ends it, to the nearest frame."""
    endpointer = Endpointer(GUESSING)
    ended_at = None
    scored = stream(loud(500) + quiet(2000))
    for i, frame in enumerate(scored):
        utterance = endpointer.push(frame)
        if utterance is not None and utterance.end_reason == "pause":
            assert endpointer.expect(utterance, silence_ms) is None
        elif utterance is not None:
            ended_at = i + 1
    assert ended_at == frames(500) + silent_frames


def test_silence_that_has_lasted_already_ends_at_once() -> None:
    """An answer that comes late does not wait for another frame."""
    endpointer = Endpointer(GUESSING)
    (pause,) = [u for frame in stream(loud(500) + quiet(320)) if (u := endpointer.push(frame))]
    ended = endpointer.expect(pause, 200)
    assert ended is not None
    assert (ended.end_reason, ended.speech_end_samples) == ("silence", pause.speech_end_samples)
    assert endpointer.expect(pause, 200) is None  # it is over
    assert endpointer.finish() is None


def test_answer_to_a_pause_that_is_over_means_nothing() -> None:
    """When speech has gone on, the silence after it is waited for in full."""
    endpointer = Endpointer(GUESSING)
    scored = stream(loud(500) + quiet(160) + loud(500) + quiet(1000))
    utterances = []
    for frame in scored:
        utterance = endpointer.push(frame)
        if utterance is not None:
            utterances.append((frame.frame.start_samples // FRAME_SAMPLES + 1, utterance))
        if utterances and frame.speech_probability == SPEECH:
            assert endpointer.expect(utterances[0][1], 100) is None
    assert [utterance.end_reason for _, utterance in utterances] == ["pause", "pause", "silence"]
    assert utterances[-1][0] == sum(map(frames, (500, 160, 500, OPTIONS.silence_ms)))


def ended_after(resumed: list[float], answered_ms: int) -> tuple[int, Utterance]:
    """The frames of silence since the first words after which they end, and what has; pauses are answered."""
    endpointer = Endpointer(GUESSING)
    for i, frame in enumerate(stream(loud(512) + quiet(256) + resumed + quiet(3000))):
        utterance = endpointer.push(frame)
        if utterance is not None and utterance.end_reason == "pause":
            utterance = endpointer.expect(utterance, answered_ms)
        if utterance is not None:
            return i + 1 - frames(512), utterance
    raise AssertionError("nothing ended")


UNSURE = [SURE - 0.01]


@pytest.mark.parametrize("noise", [1, 4, 10])
def test_noise_in_a_pause_does_not_lengthen_it(noise: int) -> None:
    """What nobody is sure to be speech belongs to what was said, but the wait goes on that began before."""
    silent, utterance = ended_after(UNSURE * noise, 700)
    assert silent == max(frames(700), frames(256) + noise + frames(GUESSING.guess_ms or 0))
    assert utterance.speech_end_samples == (frames(512) + frames(256) + noise) * FRAME_SAMPLES


def test_speech_after_a_pause_is_waited_for() -> None:
    """Also when the detector becomes sure only after a while, and only for a tenth of a second."""
    resumed = UNSURE * 10 + [SURE] * frames(RESUMED_MS) + UNSURE * 2
    silent, _ = ended_after(resumed, 704)
    assert silent == frames(256) + len(resumed) + frames(704)


def test_several_noises_in_a_pause() -> None:
    """They do not add up to speech: the silence after the second one ends what was said."""
    noise = [SURE] * (frames(RESUMED_MS) - 1)
    silent, _ = ended_after((noise + quiet(160)) * 3, 704)
    assert silent == frames(256) + len(noise) + frames(160) + len(noise) + frames(GUESSING.guess_ms or 0)


options_of_any_kind = st.builds(
    EndpointOptions,
    threshold=st.floats(0.2, 0.8),
    pre_roll_ms=st.integers(0, 2000),
    min_speech_ms=st.integers(0, 2000),
    silence_ms=st.integers(100, 5000),
    max_utterance_s=st.floats(1, 28),
)
runs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.45, 0.6, 1.0]), st.integers(1, 60)), min_size=1, max_size=30
)
clear_runs = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(4, 60)), min_size=1, max_size=30)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(runs=runs, options=options_of_any_kind)
def test_no_sample_is_lost_or_heard_twice(runs: list[tuple[float, int]], options: EndpointOptions) -> None:
    """For any stream and options: utterances are whole, in order, apart, and complete up to the pre-roll."""
    probabilities = [probability for probability, length in runs for _ in range(length)]
    utterances = cut(probabilities, options)
    end_samples = 0
    for utterance in utterances:
        assert utterance.samples[0] == utterance.start_samples
        assert (np.diff(utterance.samples) == 1).all()
        assert utterance.start_samples <= utterance.speech_start_samples < utterance.speech_end_samples
        assert utterance.speech_end_samples <= utterance.end_samples <= len(probabilities) * FRAME_SAMPLES
        assert utterance.start_samples >= end_samples
        gap = utterance.start_samples - end_samples
        pre_roll_ms = ms(utterance.speech_start_samples - utterance.start_samples)
        assert gap == 0 or pre_roll_ms >= options.pre_roll_ms
        assert pre_roll_ms < options.pre_roll_ms + LOOK_BACK_MS + 2 * FRAME_MS
        length_ms = ms(utterance.end_samples - utterance.speech_start_samples)
        assert length_ms <= 1000 * options.max_utterance_s + TAIL_MS + 2 * FRAME_MS
        heard = probabilities[
            utterance.speech_start_samples // FRAME_SAMPLES : utterance.speech_end_samples // FRAME_SAMPLES
        ]
        loud_ms = FRAME_MS * sum(probability >= options.threshold - HYSTERESIS for probability in heard)
        assert loud_ms >= options.min_speech_ms
        end_samples = utterance.end_samples


@settings(max_examples=200, deadline=None, derandomize=True)
@given(runs=clear_runs, options=options_of_any_kind, guess_ms=st.integers(32, 500))
def test_pauses_change_nothing(
    runs: list[tuple[float, int]], options: EndpointOptions, guess_ms: int
) -> None:
    """Without answers, the same clear speech ends with pauses as without; each pause is a beginning of it.

    The tail is shorter then, and what follows may have more before it: so none is too long here.
    """
    options = replace(options, max_utterance_s=60.0)
    probabilities = [probability for probability, length in runs for _ in range(length)]
    expected = [
        (u.speech_start_samples, u.speech_end_samples, u.end_reason) for u in cut(probabilities, options)
    ]
    ended, pauses = [], []
    for utterance in cut(probabilities, replace(options, guess_ms=guess_ms)):
        if utterance.end_reason == "pause":
            pauses.append(utterance)
            continue
        ended.append((utterance.speech_start_samples, utterance.speech_end_samples, utterance.end_reason))
        assert {pause.start_samples for pause in pauses} <= {utterance.start_samples}
        ends = [pause.speech_end_samples for pause in pauses]
        assert ends == sorted(set(ends))
        pauses.clear()
    assert ended == expected


@settings(max_examples=100, deadline=None, derandomize=True)
@given(runs=runs)
def test_long_speech_is_always_heard(runs: list[tuple[float, int]]) -> None:
    """Every frame of a run of clear speech of min_speech_ms or more is in some utterance."""
    probabilities = [probability for probability, length in runs for _ in range(length)]
    covered = np.zeros(len(probabilities), bool)
    for utterance in cut(probabilities):
        covered[utterance.start_samples // FRAME_SAMPLES : utterance.end_samples // FRAME_SAMPLES] = True
    at = 0
    for probability, length in runs:
        if probability >= OPTIONS.threshold and length * FRAME_MS >= 2 * OPTIONS.min_speech_ms:
            assert covered[at : at + length - frames(OPTIONS.min_speech_ms)].all()
        at += length
