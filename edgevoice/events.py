"""What travels between the stages: one frozen type per arrow of the pipeline.

    capture -> Frame -> vad -> ScoredFrame -> endpoint -> Utterance -> recognise -> Transcript
            -> match -> Result -> publish -> MQTT

All audio is 16 kHz mono float32 in [-1, 1]; positions count samples from the start of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ: Final = 16_000
"""Whisper and Silero both work at this rate."""

FRAME_SAMPLES: Final = 512
"""32 ms, the window Silero VAD v6 was trained on at 16 kHz."""

Samples = npt.NDArray[np.float32]
"""C-contiguous 1-D float32, 16 kHz mono, finite, nominally in [-1, 1]."""

Reason = Literal[
    "no_speech",
    "out_of_grammar",
    "low_confidence",
    "ambiguous",
    "too_long",
    "timeout",
    "overload",
    "elsewhere",
]
"""Why an utterance was refused; elsewhere: another edgevoice, which heard it better, has answered."""

EndReason = Literal["pause", "silence", "too_long", "end_of_stream", "overload"]
"""Why an utterance ended: "pause" if it may go on, "overload" if others came before it was recognised."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A piece of the stream, exactly FRAME_SAMPLES long (the last of a stream is padded with zeros)."""

    samples: Samples
    """shape (FRAME_SAMPLES,)"""

    start_samples: int
    """Position of the first sample in the stream."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrame:
    """A frame and how likely it holds speech."""

    frame: Frame
    speech_probability: float
    """0-1"""


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """Speech between two silences, with pre-roll and trailing silence."""

    samples: Samples
    start_samples: int
    """Position of samples[0] in the stream."""

    speech_start_samples: int
    """Where the detector first heard speech."""

    speech_end_samples: int
    """Where the detector last heard speech."""

    end_reason: EndReason
    sure_s: float
    """How long the detector was sure that this is speech."""

    addressed: bool = True
    """Whether it is known, before anything is recognised, that this is meant for us."""

    vad_ms: float = 0.0
    """Time the detector took for it."""

    speech_end_clock_s: float | None = None
    """time.monotonic() when the last speech arrived; None if the stream is not heard as it happens."""

    def is_end_of(self, pause: Utterance) -> bool:
        """Whether this has ended, and nothing was said since a pause: it is the same, then."""
        return (
            self.end_reason in ("silence", "end_of_stream")
            and self.speech_start_samples == pause.speech_start_samples
            and self.speech_end_samples == pause.speech_end_samples
        )

    @property
    def end_samples(self) -> int:
        """Position one past the last sample."""
        return self.start_samples + len(self.samples)


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall time of each stage in milliseconds."""

    vad: float = 0.0
    mel: float = 0.0
    encode: float = 0.0
    search: float = 0.0
    match: float = 0.0
    explain: float = 0.0
    """What was refused, written without the grammar."""

    @property
    def total(self) -> float:
        """Sum of the stages."""
        return self.vad + self.mel + self.encode + self.search + self.match + self.explain

    def plus(self, other: Timings) -> Timings:
        """Return both together."""
        return Timings(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One sentence the decoder considered, complete and of the grammar."""

    text: str
    """As Whisper spells it."""

    score: float
    """What the search ranks by, in nats."""

    log_probability: float
    """Sum over tokens, end-of-text included, of the unconstrained log-probability, in nats. Exact for the
    best hypothesis; for the others an upper bound."""

    tokens: int
    """Number of tokens, end-of-text included."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How well one token of the best hypothesis fits the audio, in its place of the whole vocabulary."""

    end_bytes: int
    """UTF-8 bytes of the text up to and with this token; the last one, end-of-text, has all."""

    log_probability: float
    """Nats."""

    best: float
    """Log-probability of the likeliest token at this place, nats."""

    acoustic_gap: float
    """How far the token falls behind the best one there, nats, <= 0, when a share of what the language model
    says of both is taken out: "iced coffee" is likelier as text than "iced mocha", whatever was said."""

    @property
    def gap(self) -> float:
        """How far the token falls behind the likeliest one, nats, <= 0."""
        return self.log_probability - self.best


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the decoder made of one utterance: hypotheses best first, none if nothing of the grammar fits."""

    hypotheses: tuple[Hypothesis, ...]
    tokens: tuple[TokenScore, ...]
    """Of the best hypothesis."""

    no_speech_probability: float
    """Whisper's own, 0-1."""

    timings: Timings
    without_free_text: bool = False
    """The grammar has sentences with free text, which were not looked for."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Intents that can be said for a while after a sentence, dormant or not."""

    intents: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Interpretation:
    """A sentence with its meaning."""

    text: str
    intent: str
    slots: dict[str, object]
    """Slot name -> normalised value (text, number)."""

    slots_raw: dict[str, str]
    """Slot name -> the words that were spoken."""

    score: float = 0.0
    min_confidence: float | None = None
    """What the grammar asks for this sentence, 0-1; None: what is configured."""

    confirm: bool = False
    """The grammar wants the speaker to be asked back before anything is done."""

    woken: bool = False
    """It begins with the wake phrase."""

    follow_up: FollowUp | None = None
    """What can be said for a while after it."""

    cost: float = 0.0
    """Letters that were put right to make this sentence of what was written; 0: nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one utterance: an accepted intent, or a refusal with its reason."""

    utterance_id: str
    time: str
    """When it was decided, ISO 8601 with time zone."""

    start_s: float
    end_s: float
    text: str | None
    intent: str | None
    slots: dict[str, object]
    slots_raw: dict[str, str]
    confidence: float
    """0-1; accepted when at least the threshold."""

    accepted: bool
    reason: Reason | None
    order: str | None = None
    """The text without the wake phrase; None: it does not begin with one."""

    heard: str | None = None
    """What Whisper would have written without the grammar, of what was refused."""

    confirm: bool = False
    """As in Interpretation."""

    follows: str | None = None
    """Id of the utterance whose follow-up this is."""

    alternatives: tuple[Interpretation, ...] = ()
    timings: Timings = field(default_factory=Timings)
    latency_ms: float | None = None
    """From the last speech to this answer; None for a recording."""

    addressed: bool = True
    """Whether it was known, before it was recognised, that this is meant for us."""

    clarity_db: float = 0.0
    """How far the speech is above what else was heard."""
