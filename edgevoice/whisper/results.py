"""What a transcription is: segments of tokens, with their times and probabilities.

Times are seconds from the beginning of the audio that was given; probabilities 0-1, their logarithms in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Aborted = Literal["cancelled", "deadline"]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text, as Whisper's vocabulary has it, or a special token."""

    id: int
    data: bytes
    """UTF-8, the space before a word included; a token may begin or end within a character."""

    probability: float
    log_probability: float
    start_s: float | None
    """None unless Options.word_times; for special tokens, where upstream has put them."""

    end_s: float | None
    aligned_s: float | None
    """When it was said, by dynamic time warping: with Options.word_times and a model with an alignment."""

    @property
    def text(self) -> str:
        """The data as text; what is no whole character as U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Word:
    """Tokens up to the next one that begins with a space."""

    text: str
    """With the space before it, if there is one: joined, words are the text of the segment."""

    start_s: float
    end_s: float
    probability: float
    """The mean of its tokens'."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of what was said, as long as Whisper made it."""

    text: str
    """As Whisper writes it: usually with a space before the first word."""

    start_s: float
    end_s: float
    tokens: tuple[Token, ...]
    words: tuple[Word, ...]
    """Empty unless Options.word_times."""

    no_speech_probability: float
    """Of the 30 seconds that it is part of."""

    speaker_turn: bool
    """Another speaker follows: only with Options.speaker_turns and a model that was trained for it."""

    language: str = "en"
    """Whisper's code, given or detected: that of the transcription, or of each part (transcribe_parts)."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of wall clock of each stage of one transcription."""

    mel: float = 0.0
    language: float = 0.0
    """Detecting it."""

    encode: float = 0.0
    prompt: float = 0.0
    """What was said before, through the decoder."""

    decode: float = 0.0
    sample: float = 0.0
    """Choosing tokens; filters and grammar included."""

    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcription:
    """What a session made of some audio."""

    segments: tuple[Segment, ...]
    language: str
    """Whisper's code: given or detected."""

    duration_s: float
    """Of the audio."""

    timings: Timings
    language_probabilities: dict[str, float] = field(default_factory=dict)
    """Of all languages, if it was detected; otherwise empty."""

    aborted: Aborted | None = None
    """Why it ended early: `segments` are those before."""

    @property
    def text(self) -> str:
        """Of all segments, without spaces around it."""
        return "".join(segment.text for segment in self.segments).strip()


def retimed(segment: Segment, at: Callable[[float], float]) -> Segment:
    """Return a segment with all its times, and those of its tokens and words, by another clock."""

    def some(time_s: float | None) -> float | None:
        return None if time_s is None else at(time_s)

    return replace(
        segment,
        start_s=at(segment.start_s),
        end_s=at(segment.end_s),
        tokens=tuple(
            replace(
                token, start_s=some(token.start_s), end_s=some(token.end_s), aligned_s=some(token.aligned_s)
            )
            for token in segment.tokens
        ),
        words=tuple(replace(word, start_s=at(word.start_s), end_s=at(word.end_s)) for word in segment.words),
    )
