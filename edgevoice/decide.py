"""The decision: a transcript in, an accepted intent or a refusal with its reason out.

Hypotheses that mean the same are one; the best meaning is accepted when its confidence reaches the
threshold and no other intent is as likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgevoice import match
from edgevoice.confidence import Evidence
from edgevoice.nearest import same_meaning
from edgevoice.repair import differ, repair

if TYPE_CHECKING:
    from edgevoice.confidence import ConfidenceModel
    from edgevoice.events import Interpretation, Reason, Transcript
    from edgevoice.native import Grammar

OUT_OF_GRAMMAR_CONFIDENCE: Final = 0.1
"""Below this the words do not fit the grammar at all; between it and the threshold they nearly do."""

AMBIGUOUS_NATS: Final = 0.05
"""Two intents closer than this are a coin toss; texts that the grammar itself reads twice have distance 0."""

REPAIRED_CONFIDENCE: Final = 0.8
"""What is left of the confidence for each letter that was put right."""

NO_SPEECH_PROBABILITY: Final = 0.6
"""Whisper's own threshold (openai/whisper, transcribe.py), used only to name the reason of a refusal."""

MAX_LETTERS_PER_S: Final = 25.0
"""Nobody speaks faster: of 2,480 orders and 509 words of people, the quickest had 20. In noise that the
detector half takes for speech the decoder finds whole sentences, and Whisper likes some of them."""

SPEECH_MARGIN_S: Final = 0.25
"""The detector may miss as much, at a soft beginning and end. Of 762 words and orders that were right, some
in kitchen noise at 6 dB, the worst needed 0.20; of 31 sentences found in that noise alone, the best 0.31."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to make of an utterance."""

    meaning: Interpretation | None
    confidence: float
    reason: Reason | None
    """None: accepted."""

    alternatives: tuple[Interpretation, ...]
    """Other meanings, best first."""

    evidence: Evidence | None = None
    """Behind the confidence."""

    written: str | None = None
    """What Whisper wrote, if that is no sentence of the grammar: it was not bound to it."""


def decide(
    transcript: Transcript,
    grammar: Grammar,
    *,
    sure_s: float,
    min_confidence: float,
    model: ConfidenceModel,
    addressed: bool = True,
    before: Decision | None = None,
) -> Decision:
    """Choose the meaning of a transcript, or the reason to refuse it.

    Args:
        transcript: what the decoder found.
        grammar: gives the sentences their meanings.
        sure_s: how long the detector was sure of speech.
        min_confidence: from which confidence on a sentence is accepted, unless the grammar asks for more.
        model: weighs the evidence.
        addressed: it is known to be meant for us, so the wake phrase need not be said, and proves nothing.
        before: what was decided at another look at the same utterance. It stands unless this one says the
            same; then the mean of their evidence counts.
    """
    meanings = _meanings(transcript, grammar)
    if before and not (meanings and before.meaning and same_meaning(meanings[0], before.meaning)):
        return before
    refusal: Reason = (
        "no_speech" if transcript.no_speech_probability >= NO_SPEECH_PROBABILITY else "out_of_grammar"
    )
    if not meanings:
        # In the modes without a grammar in the decoder, the best text is free text.
        written = transcript.hypotheses[0].text if transcript.hypotheses else None
        return Decision(None, 0.0, refusal, (), written=written)
    first, others = meanings[0], tuple(meanings[1:])
    written = transcript.hypotheses[0].text if first.cost else None
    if is_too_quick(first.text, sure_s):
        return Decision(first, 0.0, "no_speech", others, written=written)
    known: list[tuple[int, int]] = []
    if written is None:  # otherwise the places are those of another text
        known = match.free_text(grammar, first.text)
        if addressed:
            known += match.wake_phrase(grammar, first.text)
    evidence = Evidence.of(transcript.tokens, known)
    if before and before.evidence:
        evidence = evidence.mean(before.evidence)
    confidence = model.confidence(evidence) * REPAIRED_CONFIDENCE**first.cost
    reason: Reason | None = None
    if not addressed and not first.woken:
        reason = "out_of_grammar"
    elif confidence < max(min_confidence, first.min_confidence or 0.0):
        reason = refusal if confidence < OUT_OF_GRAMMAR_CONFIDENCE else "low_confidence"
    elif any(_rivals(first, other) for other in others):
        reason = "ambiguous"
    return Decision(first, confidence, reason, others, evidence, written)


def _rivals(first: Interpretation, other: Interpretation) -> bool:
    """Whether another meaning is as likely."""
    return first.score - other.score < AMBIGUOUS_NATS and differ(first, other)


def _meanings(transcript: Transcript, grammar: Grammar) -> list[Interpretation]:
    """Return each meaning once, best first."""
    meanings: list[Interpretation] = []
    for i, hypothesis in enumerate(transcript.hypotheses):
        if i and not meanings:
            break  # the best text means nothing, so the evidence is of no sentence
        # The decoder is bound to the grammar, or its best text is what there is to make sense of.
        interpret = match.interpret if i else repair
        for meaning in interpret(grammar, hypothesis.text, hypothesis.score):
            if not any(same_meaning(meaning, other) for other in meanings):
                meanings.append(meaning)
    return meanings


def is_too_quick(text: str, sure_s: float) -> bool:
    """Whether nobody can say this in the time that surely was speech."""
    letters = sum(character.isalnum() for character in text)
    return letters > MAX_LETTERS_PER_S * (sure_s + SPEECH_MARGIN_S)
