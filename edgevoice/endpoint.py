"""Endpointing: scored frames in, utterances out.

    silence ── a frame of speech ──> speech ── guess_ms without speech ────────> an Utterance "pause"
                                      │  └──── silence_ms, see expect() ───────> an Utterance "silence", ...
                                      └─────── max_utterance_s ────────────────> an Utterance "too_long", ...

A "pause" is what was said so far, early enough to be recognised before the silence has lasted long enough;
what that says decides how long to wait: expect(). If speech goes on instead, the utterance does, too.

What is kept: pre_roll_ms from before the first frame that may be speech, so that no first sound is lost, and
a short tail after the last. Speech of less than min_speech_ms is a click and is forgotten. What comes after a
pause and is not surely speech is kept, too, but the wait goes on: RESUMED_MS.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, EndReason, Frame, ScoredFrame, Utterance
from edgevoice.levels import QUIETEST, sound_power

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TAIL_MS: Final = 250
"""Kept after the last frame of speech, if no less was handed out in the pause already; more silence would
only cost encoder time."""

HYSTERESIS: Final = 0.15
"""Once in speech, a frame counts as speech down to the threshold less this, as in Silero's own example."""

POSSIBLE: Final = 0.1
"""From this probability on, a frame just before speech may be its beginning, as far back as no more than
POSSIBLE_GAP frames between are less likely. In noise the detector may need half a second to be sure: of 200
orders in a kitchen the first word of 8 was cut at 5 dB without, and of 5 with it; at 0 dB of 15 and 10. Twice
the pre-roll does as much for four times as much audio to recognise."""

LOUDER: Final = 10.0
"""Of a frame's power by that of the room, which a quarter of the frames before speech do not exceed: as much
louder (10 dB), it may be the beginning just as well. Some voices the detector notices three quarters of a
second late. Of 310 orders each at 20, 10 and 5 dB above a kitchen the first sound of 2, 2 and 3 was cut
without this, and of none with it. By the quietest frame, which may be the start of a recording, a click does,
too: then 1 of 23 orders with clicks before them was refused, and 1 of 45 other recordings accepted."""

POSSIBLE_GAP: Final = 3

LOOK_BACK_MS: Final = 1000
"""At most, before the pre-roll."""

SURE: Final = 0.8
"""From this probability on, a frame surely is speech, unless the threshold is low: 96 % of those in clear
orders have it, 90 % of those in orders with kitchen noise at 6 dB, 6 % of those that seem to be speech in the
noise alone."""

RESUMED_MS: Final = 100
"""After a pause, the wait begins anew only with so much of what surely is speech, lest noise joins two
commands. Of 402 times that orders went on after a pause, clear and at 20, 10 and 5 dB, 395 had as much; of 77
times that noise alone did, 2."""

_SURE_ABOVE: Final = 0.3
"""As far above the threshold, it surely is: SURE at the default. Who lowers it has quieter voices."""


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """When speech begins and ends."""

    threshold: float = 0.5
    """Probability from which a frame is speech, 0-1."""

    pre_roll_ms: int = 300
    min_speech_ms: int = 100
    guess_ms: int | None = None
    """Silence after which what was said is handed out as a "pause", less than silence_ms; None: never."""

    silence_ms: int = 500
    """Silence that ends an utterance of which nothing is known."""

    max_utterance_s: float = 15.0
    """Pre-roll included."""


class Endpointer:
    """The state machine; push() takes one frame and returns an utterance when one pauses or ends with it."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._sure = min(SURE, options.threshold + _SURE_ABOVE)
        self._tail_samples = _samples(min(TAIL_MS, options.guess_ms or TAIL_MS))
        self._before: deque[ScoredFrame] = deque(maxlen=_frames(options.pre_roll_ms) + _frames(LOOK_BACK_MS))
        self._kept: list[ScoredFrame] = []
        self._speech_frames = 0
        self._sure_frames = 0
        self._speech_start_samples = 0
        self._speech_end_samples = 0
        self._guessed = False  # in this pause
        self._wait_ms = options.silence_ms  # in this pause
        self._wait_start_samples = 0  # from where on that is counted
        self._resumed_frames: int | None = None  # that surely are speech since a pause; None: no pause

    @property
    def in_speech(self) -> bool:
        """Whether an utterance is under way, long enough to be one."""
        return self._speech_frames >= max(1, _frames(self._options.min_speech_ms))

    @property
    def kept(self) -> list[Frame]:
        """The frames of what is being said, pre-roll included; empty in silence."""
        return [each.frame for each in self._kept]

    @property
    def silent(self) -> bool:
        """Whether not even the beginning of one is."""
        return not self._kept

    @property
    def paused(self) -> bool:
        """Whether what is being said was handed out as a pause, and speech has not gone on."""
        return bool(self._kept) and self._guessed

    @property
    def speech_start_samples(self) -> int:
        """Where speech was heard first."""
        return self._speech_start_samples

    @property
    def speech_end_samples(self) -> int:
        """Where speech was heard last."""
        return self._speech_end_samples

    def push(self, scored: ScoredFrame) -> Utterance | None:
        """Take the next frame of the stream."""
        frame = scored.frame
        end_samples = frame.start_samples + FRAME_SAMPLES
        is_speech = scored.speech_probability >= self._options.threshold - (HYSTERESIS if self._kept else 0.0)
        if not self._kept:
            if not is_speech:
                self._before.append(scored)
                return None
            self._kept = self._led_in()
            self._before.clear()
            self._speech_start_samples = frame.start_samples
        self._kept.append(scored)
        if is_speech:
            self._spoken(end_samples, sure=scored.speech_probability >= self._sure)
        if self._has_waited:
            return self._end("silence")
        if end_samples - self._kept[0].frame.start_samples >= self._options.max_utterance_s * SAMPLE_RATE_HZ:
            return self._end("too_long")
        guess_ms = self._options.guess_ms
        if guess_ms is not None and self.in_speech and not self._guessed and self._has_paused(guess_ms):
            self._guessed = True
            self._resumed_frames = 0
            return self._utterance("pause")
        return None

    def _spoken(self, end_samples: int, *, sure: bool) -> None:
        """Note a frame of speech."""
        self._speech_frames += 1
        self._sure_frames += sure
        self._speech_end_samples = end_samples
        self._guessed = False
        if self._resumed_frames is not None:
            self._resumed_frames += sure
            if self._resumed_frames < _frames(RESUMED_MS):
                return
        self._resumed_frames = None
        self._wait_start_samples = end_samples
        self._wait_ms = self._options.silence_ms

    def expect(self, pause: Utterance, silence_ms: int) -> Utterance | None:
        """Say how long a silence ends what was said up to a pause; nothing if speech has gone on since.

        Returns:
            The utterance, if the silence has lasted for so long already.
        """
        if not self._kept or pause.speech_end_samples != self._speech_end_samples:
            return None
        self._wait_ms = silence_ms
        return self._end("silence") if self._has_waited else None

    def finish(self) -> Utterance | None:
        """Say that the stream is over."""
        return self._end("end_of_stream") if self._kept else None

    def utterances(self, scored: Iterable[ScoredFrame]) -> Iterator[Utterance]:
        """Cut a whole stream."""
        for frame in scored:
            if (utterance := self.push(frame)) is not None:
                yield utterance
        if (utterance := self.finish()) is not None:
            yield utterance

    def _led_in(self) -> list[ScoredFrame]:
        """What is kept from before the first frame of speech."""
        possible = 0
        powers = [sound_power(each.frame.samples) for each in self._before]
        room = sorted(powers)[len(powers) // 4] if powers else 0.0
        loud = LOUDER * max(QUIETEST, room)
        for count, (scored, own) in enumerate(
            zip(reversed(self._before), reversed(powers), strict=True), start=1
        ):
            if scored.speech_probability >= POSSIBLE or own > loud:
                possible = count
            elif count - possible > POSSIBLE_GAP:
                break
        count = min(possible, _frames(LOOK_BACK_MS)) + _frames(self._options.pre_roll_ms)
        return list(self._before)[max(0, len(self._before) - count) :]

    @property
    def _has_waited(self) -> bool:
        """Whether all is silent, and has been for long enough."""
        least_ms = min(self._wait_ms, self._options.guess_ms or self._wait_ms)
        return self._has_paused(least_ms) and self._has_lasted(self._wait_ms, self._wait_start_samples)

    def _has_paused(self, ms: int) -> bool:
        """Whether the silence has lasted so long."""
        return self._has_lasted(ms, self._speech_end_samples)

    def _has_lasted(self, ms: int, since_samples: int) -> bool:
        """Whether so much time has passed, to the nearest frame."""
        passed_samples = self._kept[-1].frame.start_samples + FRAME_SAMPLES - since_samples
        return passed_samples + FRAME_SAMPLES // 2 > _samples(ms)

    @property
    def _tail_end_samples(self) -> int:
        return self._speech_end_samples + self._tail_samples

    def _end(self, reason: EndReason) -> Utterance | None:
        utterance = self._utterance(reason) if self.in_speech else None
        kept, self._kept = self._kept, []
        self._speech_frames = self._sure_frames = 0
        self._resumed_frames = None
        # The silence behind this utterance may be the pre-roll of the next.
        self._before.extend(
            each for each in kept if utterance is None or each.frame.start_samples >= self._tail_end_samples
        )
        return utterance

    def _utterance(self, reason: EndReason) -> Utterance:
        return Utterance(
            samples=np.concatenate(
                [
                    each.frame.samples
                    for each in self._kept
                    if each.frame.start_samples < self._tail_end_samples
                ]
            ),
            start_samples=self._kept[0].frame.start_samples,
            speech_start_samples=self._speech_start_samples,
            speech_end_samples=self._speech_end_samples,
            end_reason=reason,
            sure_s=self._sure_frames * FRAME_SAMPLES / SAMPLE_RATE_HZ,
        )


def _samples(ms: int) -> int:
    return ms * SAMPLE_RATE_HZ // 1000


def _frames(ms: int) -> int:
    """Frames that hold this much time, rounded up."""
    return -(-_samples(ms) // FRAME_SAMPLES)
