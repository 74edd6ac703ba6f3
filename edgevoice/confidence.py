"""How surely a sentence was said: what the decoder saw of it, weighed into one number from 0 to 1.

Two questions are asked. Would Whisper have written these words (mean log-probability), and where was it
forced into a token it did not hear (the worst gaps)? When that does not settle it, the same audio is
transcribed without the grammar: in noise the free text is as unlikely as the sentence, but where something
else was said clearly it is much likelier. Each question has a logistic function; its weights are fitted on
recordings by bench/fit_confidence.py, for each model, and do not depend on the grammar.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgevoice.events import Hypothesis, TokenScore

WEIGHTS_FILE: Final = Path(__file__).with_name("confidence.json")

SETTLED: Final = 0.98
"""A first confidence from here on is not asked again: near misses hardly get there, and most clear speech
does, so that the second question costs little in the mean."""

WORST: Final = -20.0
"""Nats; gaps and means below are the same to us, and would only pull at the fit."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a sentence and against it, in nats; free-text slots are left out, they always fit."""

    per_token: float
    """Mean log-probability of a token, end-of-text included."""

    worst_gap: float
    """How far the worst token falls behind the likeliest one in its place, <= 0."""

    second_gap: float
    """The next worst."""

    free_per_token: float | None = None
    """Mean log-probability of a token of the transcription without a grammar; None: not asked."""

    free_lead: float | None = None
    """By how much that transcription is likelier than the sentence, for each of the sentence's tokens."""

    @classmethod
    def of(cls, tokens: Sequence[TokenScore], free_text: Iterable[tuple[int, int]] = ()) -> Evidence:
        """Collect the evidence of a sentence's tokens, those within `free_text` (byte ranges) left out."""
        spans = tuple(free_text)
        fixed = [
            token
            for token in tokens
            if token is tokens[-1] or not any(start < token.end_bytes <= end for start, end in spans)
        ]
        gaps = sorted([*(token.gap for token in fixed), 0.0])
        return cls(
            per_token=max(WORST, sum(token.log_probability for token in fixed) / len(fixed)),
            worst_gap=max(WORST, gaps[0]),
            second_gap=max(WORST, gaps[1]),
        )

    def against(self, sentence: Sequence[TokenScore], free: Hypothesis) -> Evidence:
        """Return the evidence with what a transcription without the grammar adds."""
        total = sum(token.log_probability for token in sentence)
        return Evidence(
            self.per_token,
            self.worst_gap,
            self.second_gap,
            free_per_token=max(WORST, free.log_probability / free.tokens),
            free_lead=max(0.0, min(-WORST, (free.log_probability - total) / len(sentence))),
        )


@dataclass(frozen=True, slots=True)
class Weights:
    """A logistic function of evidence."""

    bias: float
    per_evidence: tuple[tuple[str, float], ...]
    """Name of a field of Evidence, weight."""

    def confidence(self, evidence: Evidence) -> float:
        """Return the probability, 0-1."""
        logit = self.bias + sum(
            weight * (getattr(evidence, name) or 0.0) for name, weight in self.per_evidence
        )
        return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, logit))))


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """Both functions for one Whisper model."""

    first: Weights
    """Without the free transcription."""

    second: Weights
    """With it."""

    def confidence(self, evidence: Evidence) -> float:
        """Return how surely the sentence was said, 0-1."""
        weights = self.first if evidence.free_lead is None else self.second
        return weights.confidence(evidence)


@cache
def confidence_model(model: str) -> ConfidenceModel:
    """Return the functions fitted for a model of this name ("tiny.en-q8_0" has those of "tiny.en").

    A model that was not fitted gets those of tiny.en: its numbers are alike, not equal.
    """
    fitted = json.loads(WEIGHTS_FILE.read_text("utf-8"))
    name = max((known for known in fitted if model.startswith(known)), key=len, default="tiny.en")
    first, second = (
        Weights(bias=values.pop("bias"), per_evidence=tuple(values.items()))
        for values in (dict(fitted[name][question]) for question in ("first", "second"))
    )
    return ConfidenceModel(first, second)
