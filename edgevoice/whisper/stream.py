"""Text while it is spoken: audio in pieces of any size in, what is certain and what may still change out.

    audio -> frames -> voice activity -> utterances, cut in pauses -> a run every `step_s` over all of it
        -> what two runs in a row agree on is stable -> Update

Local agreement, as LocalAgreement-2 of Macháček, Dabre and Bojar, "Turning Whisper into Real-Time
Transcription System" (2023), on tokens: text that two runs in a row write is stable, and never changes. Later
runs have to begin with it, so they continue what is shown, and need not be matched with it. Where theirs cut
the audio behind a sentence that is stable, here an utterance ends in a pause, the shorter the longer it is
already; so nothing stable is ever heard twice.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from edgevoice.audio import Framer, check_samples
from edgevoice.errors import UsageError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ
from edgevoice.vad import Vad
from edgevoice.whisper.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from edgevoice.events import Frame, ScoredFrame
    from edgevoice.whisper.session import Session

MOST_S: Final = 28.0
"""Of audio that is kept, and is heard in one run: Whisper's window is 30."""

_PAUSES: Final = ((0.0, 0.7), (8.0, 0.4), (16.0, 0.2), (24.0, 0.1))
"""From how many seconds of an utterance on how long a pause ends it: people breathe for 0.2 to 0.5 s at the
end of a phrase, and what is long takes long to hear again."""

_THRESHOLD: Final = 0.5
_HYSTERESIS: Final = 0.15
"""Of Silero's own example."""

_BEFORE_FRAMES: Final = 10
"""Taken with an utterance: 0.3 s before the detector is sure."""

_LEAST_FRAMES: Final = 6
"""0.2 s: less is no word, but a click."""

_POSITIONS_PER_S: Final = 50
_ALL_POSITIONS: Final = 1500
_LEAST_POSITIONS: Final = 512
_SPARE_POSITIONS: Final = 64
_BLOCK_POSITIONS: Final = 64
"""What the encoder looks at: the audio and 1.3 s of silence, 10 s at least. With less, tiny.en writes things
twice."""

_TOKENS_PER_S: Final = 10
"""Nobody speaks so fast: more is the model repeating itself, which would take it long."""

_SLOWER: Final = 1.25
"""A run is begun when so much more audio is there than the last one took: a slow machine has a fifth of the
time left, in which it catches up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How to transcribe a stream."""

    options: Options = field(default_factory=Options)
    """threads, language, translate, prompt, beam, suppress_*. `timestamps`, `single_segment`, `audio_ctx`,
    `temperature_step` and `logits_filter` are ours."""

    step_s: float = 1.0
    """Of audio between two runs, 0.2-10; more where the machine is slow."""

    full_window: bool = False
    """Let the encoder look at 30 s always: several times slower, docs/transcribe.md tells for how much."""

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            UsageError: step_s is out of its range, or an option that is ours is set.
        """
        if not 0.2 <= self.step_s <= 10:
            raise UsageError(f"step_s must be between 0.2 and 10, got {self.step_s!r}")
        if self.options.logits_filter is not None or self.options.grammar is not None:
            raise UsageError("a stream has no grammar and no logits_filter; leave them out")


@dataclass(frozen=True, slots=True)
class Update:
    """What an utterance is so far."""

    stable: str
    """Its beginning, which does not change any more: the next one's begins with it."""

    tentative: str
    """What may follow; empty when it is final."""

    final: bool
    """The utterance has ended, and `stable` is all of it. All that were final, joined, are the text."""

    start_s: float
    end_s: float
    """Of the audio heard, seconds from the beginning of the stream."""


class Stream:
    """Transcribes a stream with a session, which nobody else uses meanwhile; for one thread at a time.

    Its memory does not grow. A call of push() takes as long as the runs it begins: whoever feeds it as it is
    spoken saves up what comes meanwhile, and the runs become rarer until it keeps up. That needs a machine
    that transcribes faster than one speaks.

    Args:
        session: its own until close().
        options: how.
        real_time: whether audio comes as it is spoken. Otherwise runs do not become rarer, and the same audio
            always has the same text.
    """

    def __init__(
        self,
        session: Session,
        options: StreamOptions | None = None,
        *,
        real_time: bool = True,
    ) -> None:
        self._session = session
        self._options = options or StreamOptions()
        self._real_time = real_time
        self._vad = Vad()
        self._agreement = Agreement(session.model.token_data)
        self._audio = np.empty(round(MOST_S * SAMPLE_RATE_HZ), np.float32)
        self._before: deque[Frame] = deque(maxlen=_BEFORE_FRAMES)
        self.runs = 0
        """How often Whisper was asked."""

        self.run_s = 0.0
        """How long that took."""

        self.reset()

    def reset(self) -> None:
        """Forget the stream so far, and what has not become final; the next audio begins another."""
        self._framer = Framer()
        self._vad.reset()
        self._before.clear()
        self._language: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._filled = self._heard = 0  # samples of the utterance, and those that a run has heard
        self._speech_frames = self._silent_frames = 0
        self._start_samples = 0
        self._last_run_s = 0.0
        self._shown = False
        self._agreement.reset()

    def push(self, samples: npt.NDArray[Any]) -> list[Update]:
        """Take audio and return what became of it, mostly nothing new.

        Args:
            samples: 1-D, 16 kHz mono, int16 or finite float32, of any length.

        Raises:
            AudioFormatError: other audio; nothing of it was taken.
            EdgevoiceError: as Session.transcribe(); reset() before more is pushed.
        """
        frames = self._framer.push(check_samples(samples))
        return [update for frame in frames for update in self._take(self._vad.score(frame))]

    def finish(self) -> list[Update]:
        """End what is spoken, at the end or before a gap, and return what had not become final."""
        frames = self._framer.finish()
        updates = [update for frame in frames for update in self._take(self._vad.score(frame))]
        updates += self._end()
        self._vad.reset()
        self._before.clear()
        return updates

    def close(self) -> None:
        """Release the detector; the session stays its owner's."""
        self._vad.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, scored: ScoredFrame) -> Iterator[Update]:
        frame = scored.frame
        if not self._filled:
            self._before.append(frame)
            if scored.speech_probability < _THRESHOLD:
                return
            self._start_samples = self._before[0].start_samples
            for each in self._before:
                self._append(each)
            self._before.clear()
            self._speech_frames = 1
            return
        self._append(frame)
        if scored.speech_probability >= _THRESHOLD - _HYSTERESIS:
            self._speech_frames += 1
            self._silent_frames = 0
        else:
            self._silent_frames += 1
        length_s = self._filled / SAMPLE_RATE_HZ
        pause_s = self._silent_frames * FRAME_SAMPLES / SAMPLE_RATE_HZ
        needed_s = next(pause for start, pause in reversed(_PAUSES) if length_s >= start)
        if pause_s >= needed_s or self._filled + FRAME_SAMPLES > len(self._audio):
            yield from self._end()
        elif not self._silent_frames and self._due():
            tokens = self._run()
            self._agreement.push(tokens)
            yield self._update(final=False)

    def _append(self, frame: Frame) -> None:
        self._audio[self._filled : self._filled + FRAME_SAMPLES] = frame.samples
        self._filled += FRAME_SAMPLES

    def _due(self) -> bool:
        new_s = (self._filled - self._heard) / SAMPLE_RATE_HZ
        rest_s = _SLOWER * self._last_run_s if self._real_time else 0.0
        return new_s >= max(self._options.step_s, rest_s)

    def _end(self) -> Iterator[Update]:
        if self._filled and (self._speech_frames >= _LEAST_FRAMES or self._shown):
            self._agreement.finish(self._run())
            if self._shown or self._agreement.stable:
                yield self._update(final=True)
        self._begin()

    def _update(self, *, final: bool) -> Update:
        self._shown = True
        return Update(
            stable=self._agreement.stable,
            tentative=self._agreement.tentative,
            final=final,
            start_s=self._start_samples / SAMPLE_RATE_HZ,
            end_s=(self._start_samples + self._filled) / SAMPLE_RATE_HZ,
        )

    def _run(self) -> tuple[int, ...]:
        """Hear the utterance so far and return the tokens of its text, first those that are stable."""
        options, length_s = self._options.options, self._filled / SAMPLE_RATE_HZ
        special, forced = self._session.model.special, self._agreement.tokens
        most = len(forced) + 16 + math.ceil(_TOKENS_PER_S * length_s)

        def bind(tokens: tuple[int, ...], logits: npt.NDArray[np.float32]) -> None:
            """Write a timestamp, what is stable, and then what is heard."""
            n = len(tokens) - 1
            if n < 0:
                logits[: special.first_timestamp if forced else 0] = -np.inf
            elif n < len(forced) or n >= most:
                logits[:] = -np.inf
                logits[forced[n] if n < len(forced) else special.end_of_text] = 0

        positions = max(_LEAST_POSITIONS, math.ceil(length_s * _POSITIONS_PER_S) + _SPARE_POSITIONS)
        positions = math.ceil(positions / _BLOCK_POSITIONS) * _BLOCK_POSITIONS
        options = replace(
            options,
            language=self._language or options.language,
            timestamps=True,
            single_segment=True,
            temperature_step=0.0,
            audio_ctx=0 if self._options.full_window else min(positions, _ALL_POSITIONS),
            logits_filter=bind,
        )
        started_s = time.perf_counter()
        with self._session.run(self._audio[: self._filled], options) as run:
            found = run.result()
        self._last_run_s = time.perf_counter() - started_s
        self.runs += 1
        self.run_s += self._last_run_s
        self._heard = self._filled
        if found.language_probabilities and self._agreement.tokens:
            self._language = found.language
        tokens = (token.id for segment in found.segments for token in segment.tokens)
        return tuple(token for token in tokens if token < special.end_of_text)


class Agreement:
    """What two texts in a row have in common at their beginning is stable."""

    def __init__(self, token_data: Callable[[int], bytes]) -> None:
        self._data = token_data
        self.reset()

    def reset(self) -> None:
        """Begin another text."""
        self.tokens: tuple[int, ...] = ()
        """Those that are stable."""
        self._last: tuple[int, ...] = ()

    def push(self, tokens: Sequence[int]) -> None:
        """Take the next text; what does not begin with what is stable (there was no speech) is left out."""
        tokens = tuple(tokens)
        if tokens[: len(self.tokens)] != self.tokens:
            return
        n = 0
        for now, before in zip(tokens, self._last, strict=False):
            if now != before:
                break
            n += 1
        while n > len(self.tokens) and not self._ends_word(tokens, n):
            n -= 1
        if n > len(self.tokens):
            self.tokens = tokens[:n]
        self._last = tokens

    def finish(self, tokens: Sequence[int]) -> None:
        """Take the last text: all of it is stable."""
        tokens = tuple(tokens)
        if tokens[: len(self.tokens)] == self.tokens:
            self.tokens = tokens
        self._last = self.tokens

    def _ends_word(self, tokens: Sequence[int], n: int) -> bool:
        """Whether tokens can be cut there: not within a character, and not within a word."""
        try:
            before = b"".join(map(self._data, tokens[:n])).decode()
        except UnicodeDecodeError:
            return False
        after = b"".join(map(self._data, tokens[n : n + 4])).decode("utf-8", "replace")
        return not after or not before or not (_joins(before[-1]) and _joins(after[0]))

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self._data, tokens)).decode("utf-8", "replace")

    @property
    def stable(self) -> str:
        """The text that is stable."""
        return self._text(self.tokens)

    @property
    def tentative(self) -> str:
        """What the last text has behind that."""
        return self._text(self._last[len(self.tokens) :])


def _joins(character: str) -> bool:
    """Whether a word may go on over it: letters and digits of scripts with spaces, apostrophes."""
    return character in "'\N{RIGHT SINGLE QUOTATION MARK}-" or (
        character.isalnum() and not _is_without_spaces(character)
    )


def _is_without_spaces(character: str) -> bool:
    code = ord(character)
    thai_lao, burmese, khmer, from_cjk_on = (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), 0x2E80
    return code >= from_cjk_on or any(low <= code <= high for low, high in (thai_lao, burmese, khmer))
