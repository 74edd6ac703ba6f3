"""A transcript is accepted when one meaning is sure enough; otherwise its refusal has the true reason."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from edgevoice import decide as decide_module
from edgevoice.confidence import Evidence, confidence_model
from edgevoice.decide import AMBIGUOUS_NATS, NO_SPEECH_PROBABILITY, OUT_OF_GRAMMAR_CONFIDENCE, Decision
from edgevoice.events import Hypothesis, Timings, TokenScore, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.native import Grammar
    from tests.conftest import MakeGrammar

MIN_CONFIDENCE = 0.5

GRAMMAR = """
language: en
intents:
  On: {data: [{sentences: ["[please] turn on {thing}"]}]}
  Off: {data: [{sentences: ["turn off {thing}"]}]}
  Colour: {data: [{sentences: ["make it {tone:colour}", "make it {shade:colour}"]}]}
  ColourAgain: {data: [{sentences: ["make it {tone:colour}"], slots: {again: true}}]}
  Twice:
    data:
      - sentences: ["do {thing}"]
      - sentences: ["do {thing:object}"]
  Thrice: {data: [{sentences: ["do {thing:other}"]}]}
lists:
  thing: {values: [lamp, {in: light, out: lamp}, fan]}
  tone: {values: [red, pink]}
  shade: {values: [red, dark red]}
"""


@pytest.fixture(scope="module")
def grammar(make_grammar: MakeGrammar) -> Iterator[Grammar]:
    with make_grammar(GRAMMAR) as opened:
        yield opened


def sure(text: str, score: float = -1.0) -> Hypothesis:
    """A sentence that Whisper would have written itself."""
    return Hypothesis(text=text, score=score, log_probability=-0.1, tokens=6)


def unsure(text: str, score: float = -9.0) -> Hypothesis:
    """A sentence that Whisper was forced into."""
    return Hypothesis(text=text, score=score, log_probability=-60.0, tokens=6)


def scores(text: str, *log_probabilities: float) -> tuple[TokenScore, ...]:
    """Tokens of equal length, each where Whisper would have written another one with probability 0.9."""
    n = len(log_probabilities)
    size = len(text.encode())
    return tuple(
        TokenScore(
            size * (i + 1) // n, log_probability, max(log_probability, -0.1), min(0.0, log_probability + 0.1)
        )
        for i, log_probability in enumerate(log_probabilities)
    )


def transcript(*hypotheses: Hypothesis, no_speech: float = 0.01) -> Transcript:
    tokens = (
        scores(hypotheses[0].text, *[hypotheses[0].log_probability / hypotheses[0].tokens] * 6)
        if hypotheses
        else ()
    )
    return Transcript(hypotheses, tokens, no_speech_probability=no_speech, timings=Timings())


def decide(
    heard: Transcript,
    grammar: Grammar,
    min_confidence: float,
    sure_s: float = 3.0,
    before: Decision | None = None,
) -> Decision:
    """Decide with the shipped weights."""
    return decide_module.decide(
        heard,
        grammar,
        sure_s=sure_s,
        min_confidence=min_confidence,
        model=confidence_model("tiny.en"),
        before=before,
    )


def test_sentence_needs_time_to_be_said(grammar: Grammar) -> None:
    """Ten letters fit into 0.15 seconds of clear speech and the margin, not into a click."""
    heard = transcript(sure("turn on lamp"))
    assert decide(heard, grammar, MIN_CONFIDENCE, sure_s=0.15).reason is None
    click = decide(heard, grammar, MIN_CONFIDENCE, sure_s=0.14)
    assert (click.reason, click.confidence) == ("no_speech", 0.0)


def test_sure_sentence_is_accepted(grammar: Grammar) -> None:
    """Its meaning, confidence and no reason."""
    decision = decide(transcript(sure("Turn on lamp."), sure("turn on lamp", -2)), grammar, MIN_CONFIDENCE)
    assert decision.meaning is not None
    assert (decision.meaning.intent, decision.meaning.slots) == ("On", {"thing": "lamp"})
    assert decision.confidence >= MIN_CONFIDENCE
    assert decision.reason is None


def test_forced_sentence_is_out_of_grammar(grammar: Grammar) -> None:
    """What was heard is no sentence at all, though the nearest one is told."""
    decision = decide(transcript(unsure("turn on lamp")), grammar, MIN_CONFIDENCE)
    assert decision.reason == "out_of_grammar"
    assert decision.confidence < OUT_OF_GRAMMAR_CONFIDENCE
    assert decision.meaning is not None


def test_refusal_is_no_speech_when_whisper_heard_none(grammar: Grammar) -> None:
    """The same refusal has another reason when there was no speech."""
    no_speech = NO_SPEECH_PROBABILITY + 0.1
    for heard in (transcript(unsure("turn on lamp"), no_speech=no_speech), transcript(no_speech=no_speech)):
        assert decide(heard, grammar, MIN_CONFIDENCE).reason == "no_speech"


def test_sure_sentence_is_accepted_whatever_whisper_thinks_of_speech(grammar: Grammar) -> None:
    """no_speech names a refusal; it refuses nothing by itself."""
    assert decide(transcript(sure("turn on fan"), no_speech=0.99), grammar, MIN_CONFIDENCE).reason is None


def test_nothing_found_is_out_of_grammar(grammar: Grammar) -> None:
    """Without a hypothesis there is no meaning and no confidence."""
    decision = decide(transcript(), grammar, MIN_CONFIDENCE)
    assert (decision.meaning, decision.confidence, decision.reason) == (None, 0.0, "out_of_grammar")


def test_threshold_is_the_callers(grammar: Grammar) -> None:
    """The same sentence is accepted below its confidence, refused as low_confidence above."""
    heard = transcript(sure("turn off fan"))
    confidence = decide(heard, grammar, 0.0).confidence
    assert decide(heard, grammar, confidence).reason is None
    assert decide(heard, grammar, min(1.0, confidence + 1e-6)).reason == "low_confidence"


def test_second_look_that_says_the_same_counts_as_much_as_the_first(grammar: Grammar) -> None:
    """However it is spelled: the confidence is that of the mean of what both saw."""
    first = decide(transcript(unsure("turn on lamp")), grammar, MIN_CONFIDENCE)
    alone = decide(transcript(sure("Turn on lamp.")), grammar, MIN_CONFIDENCE)
    both = decide(transcript(sure("Turn on lamp.")), grammar, MIN_CONFIDENCE, before=first)
    assert first.confidence < both.confidence < alone.confidence
    assert first.evidence
    assert alone.evidence
    assert both.evidence == alone.evidence.mean(first.evidence)
    assert both.meaning == alone.meaning


@pytest.mark.parametrize("other", ["turn off lamp", "turn on fan", None])
def test_second_look_that_says_something_else_changes_nothing(grammar: Grammar, other: str | None) -> None:
    """The first one stands, however sure the second is."""
    first = decide(transcript(unsure("turn on lamp")), grammar, MIN_CONFIDENCE)
    heard = transcript(sure(other)) if other else transcript()
    assert decide(heard, grammar, MIN_CONFIDENCE, before=first) is first


def test_two_intents_as_likely_are_ambiguous(grammar: Grammar) -> None:
    """A coin toss is refused; a clear lead is not; nor are two ways to say the same."""
    lead = AMBIGUOUS_NATS * 2
    close = transcript(sure("turn on lamp", -1), sure("turn off lamp", -1 - AMBIGUOUS_NATS / 2))
    clear = transcript(sure("turn on lamp", -1), sure("turn off lamp", -1 - lead))
    same = transcript(sure("turn on lamp", -1), sure("turn on light", -1), sure("turn off fan", -1 - lead))
    assert [decide(heard, grammar, MIN_CONFIDENCE).reason for heard in (close, clear, same)] == [
        "ambiguous",
        None,
        None,
    ]


def test_sentence_that_two_intents_share_is_ambiguous(grammar: Grammar) -> None:
    """The grammar itself reads it twice."""
    decision = decide(transcript(sure("make it pink")), grammar, MIN_CONFIDENCE)
    assert decision.reason == "ambiguous"
    assert {decision.meaning and decision.meaning.intent, decision.alternatives[0].intent} == {
        "Colour",
        "ColourAgain",
    }


def test_other_intent_behind_another_reading_of_the_first_is_ambiguous(grammar: Grammar) -> None:
    """A second reading of the same intent does not hide another intent that is as likely."""
    decision = decide(transcript(sure("do lamp")), grammar, MIN_CONFIDENCE)
    assert {other.intent for other in decision.alternatives} == {"Twice", "Thrice"}
    assert decision.reason == "ambiguous"


def test_meanings_count_once(grammar: Grammar) -> None:
    """Sentences that mean the same are one alternative, with the best one's text and score."""
    heard = transcript(
        sure("turn on lamp", -1),
        sure("turn on light", -2),
        sure("turn off fan", -3),
        sure("Turn off fan.", -4),
    )
    decision = decide(heard, grammar, MIN_CONFIDENCE)
    assert decision.meaning is not None
    assert (decision.meaning.text, decision.meaning.score) == ("turn on lamp", -1)
    assert [(other.text, other.score) for other in decision.alternatives] == [("turn off fan", -3)]


def test_alternatives_are_ranked(grammar: Grammar) -> None:
    """Best first, as the search ranked them."""
    heard = transcript(*(sure(f"turn {way} {thing}", -i) for i, (way, thing) in enumerate(
        itertools.product(("on", "off"), ("lamp", "fan"))
    )))  # fmt: skip
    decision = decide(heard, grammar, MIN_CONFIDENCE)
    scores = [other.score for other in decision.alternatives]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_sentence_may_ask_for_more(make_grammar: MakeGrammar) -> None:
    """The grammar's own threshold is used where it is above the configured one; to confirm is told."""
    text = """
language: en
intents:
  Open:
    data:
      - {sentences: ["open the {door} door"], metadata: {min_confidence: 1.0, confirm: true}}
      - {sentences: ["look at the {door} door"], metadata: {min_confidence: 0.1}}
lists: {door: {values: [front, back]}}
"""
    with make_grammar(text) as opened:
        strict = decide(transcript(sure("open the front door")), opened, MIN_CONFIDENCE)
        lax = decide(transcript(unsure("look at the front door")), opened, MIN_CONFIDENCE)
    assert (strict.reason, strict.meaning and strict.meaning.confirm) == ("low_confidence", True)
    assert lax.reason is not None


@pytest.mark.parametrize("model", ["tiny.en", "tiny.en-q8_0", "base", "mine.bin"])
def test_confidence_falls_with_each_doubt(model: str) -> None:
    """It is a probability, higher for likelier tokens and smaller gaps, whatever the model is called."""
    doubts = [(-0.1,) * 5, (-1.0,) * 5, (-1.0, -5.0, -1.0, -1.0, -1.0), (-8.0,) * 5, (-1e6,) * 5]
    confidences = [
        confidence_model(model).confidence(Evidence.of(scores("turn on fan", *doubt))) for doubt in doubts
    ]
    assert confidences == sorted(confidences, reverse=True)
    assert all(0 <= confidence <= 1 for confidence in confidences)
    assert confidences[0] > 0.9
    assert confidences[-1] < 0.01


def test_free_text_is_no_evidence() -> None:
    """Tokens inside a slot of free text are left out: there Whisper is never forced."""
    text = "add milk to it"
    tokens = scores(text, -5.0, -5.0, -0.1, -0.1, -5.0, -5.0, -5.0)  # two bytes each
    whole, without = Evidence.of(tokens), Evidence.of(tokens, [(4, 8)])
    assert whole.per_token == pytest.approx(-25.2 / 7)
    assert without.per_token == pytest.approx(-5.0)
    assert Evidence.of(tokens, [(0, len(text))]).per_token == pytest.approx(-5.0)  # end-of-text alone


def test_repaired_sentence_is_less_sure(grammar: Grammar) -> None:
    """The meaning is the repaired sentence's, what was written is told, and each letter costs confidence."""
    exact = decide(transcript(sure("turn on lamp")), grammar, MIN_CONFIDENCE)
    repaired = decide(transcript(sure("Turn on lamb.")), grammar, MIN_CONFIDENCE)
    assert (exact.written, repaired.written) == (None, "Turn on lamb.")
    assert repaired.meaning is not None
    assert (repaired.meaning.text, repaired.meaning.slots) == ("Turn on lamp", {"thing": "lamp"})
    assert repaired.reason is None
    cost = repaired.meaning.cost
    assert cost > 0
    assert repaired.confidence == pytest.approx(exact.confidence * decide_module.REPAIRED_CONFIDENCE**cost)


def test_texts_that_can_be_repaired_in_two_ways_are_ambiguous(make_grammar: MakeGrammar) -> None:
    """Also when it is the slot in which they differ."""
    with make_grammar(
        "language: en\nintents:\n  Go: {data: [{sentences: ['please move it to {place} now']}]}\n"
        "lists: {place: {values: [marlim, marlit]}}\n"
    ) as places:
        decision = decide(transcript(sure("please move it to marlix now")), places, MIN_CONFIDENCE)
    assert decision.reason == "ambiguous"
    assert {other.slots["place"] for other in decision.alternatives} < {"marlim", "marlit"}
    assert decision.meaning is not None


def test_other_words_are_not_repaired(grammar: Grammar) -> None:
    """What is on must not go off, and a lamp is no radio."""
    for text in ("turn of lamp", "turn on radio", "turn on not lamp", "turn lamp"):
        decision = decide(transcript(sure(text)), grammar, MIN_CONFIDENCE)
        assert (decision.meaning, decision.reason, decision.written) == (None, "out_of_grammar", text)
