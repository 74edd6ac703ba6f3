"""How surely a sentence was said: what the decoder saw of it, weighed into one number from 0 to 1.

Would Whisper have written these words (mean log-probability of a token)? Where was it forced furthest into a
token it did not hear (worst gap)? And where, when what the language model says of both tokens is taken out
(worst acoustic gap)? "Coffee" after "iced" is so likely as text that what was said, "mocha", is hardly ahead
of it. The weights are fitted on recordings by bench/fit_confidence.py, for each model, and do not depend on
the grammar.

What was tried and left out, because it changed nothing on recordings left out of the fit: the lead over the
next sentence, the second-worst gaps, Whisper's no-speech probability, tokens for each second of speech, the
length, and the log-probability of a transcription without the grammar, alone and against the sentence's.
"""

from __future__ import annotations

import json
import math
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgevoice.events import TokenScore

WEIGHTS_FILE: Final = Path(__file__).with_name("confidence.json")

WORST: Final = -20.0
"""Nats; gaps and means below are the same to us, and would only pull at the fit."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a sentence and against it, in nats; free-text slots are left out, they always fit."""

    per_token: float
    """Mean log-probability of a token, end-of-text included."""

    worst_gap: float
    """How far the worst token falls behind the likeliest one in its place, <= 0."""

    acoustic_gap: float
    """The same without the language model (TokenScore.acoustic_gap)."""

    @classmethod
    def of(cls, tokens: Sequence[TokenScore], free_text: Iterable[tuple[int, int]] = ()) -> Evidence:
        """Collect the evidence of a sentence's tokens, those within `free_text` (byte ranges) left out."""
        spans = tuple(free_text)
        fixed = [
            token
            for token in tokens
            if token is tokens[-1] or not any(start < token.end_bytes <= end for start, end in spans)
        ]
        return cls(
            per_token=max(WORST, sum(token.log_probability for token in fixed) / len(fixed)),
            worst_gap=max(WORST, min(token.gap for token in fixed)),
            acoustic_gap=max(WORST, min(token.acoustic_gap for token in fixed)),
        )

    def mean(self, other: Evidence) -> Evidence:
        """Return the mean of what two looks at the same utterance saw."""
        return Evidence(*((a + b) / 2 for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """A logistic function of evidence, fitted for one Whisper model; the fields but bias are its weights."""

    bias: float
    per_token: float
    worst_gap: float
    acoustic_gap: float

    def confidence(self, evidence: Evidence) -> float:
        """Return how surely the sentence was said, 0-1."""
        logit = (
            self.bias
            + self.per_token * evidence.per_token
            + self.worst_gap * evidence.worst_gap
            + self.acoustic_gap * evidence.acoustic_gap
        )
        return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, logit))))


@cache
def confidence_model(model: str) -> ConfidenceModel:
    """Return the function fitted for a model of this name ("tiny.en-q8_0" has that of "tiny.en").

    A model that was not fitted gets that of tiny.en: its numbers are alike, not equal.
    """
    fitted = json.loads(WEIGHTS_FILE.read_text("utf-8"))
    name = max((known for known in fitted if model.startswith(known)), key=len, default="tiny.en")
    return ConfidenceModel(**fitted[name])
