"""Each reason for a refusal is produced by a test, and explained to people."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args

import pytest

from edgevoice.events import Reason, Utterance
from edgevoice.reasons import REASONS
from tests.conftest import ROOT

if TYPE_CHECKING:
    from edgevoice.events import Samples
    from edgevoice.pipeline import Pipeline

PRODUCED: Final[dict[str, tuple[str, str]]] = {
    "no_speech": ("test_pipeline.py", "test_stream_without_speech"),
    "out_of_grammar": ("test_web.py", "test_what_was_said_is_shown"),
    "low_confidence": ("test_pipeline.py", "test_confidence_that_is_asked_for"),
    "ambiguous": ("test_decide.py", "test_two_intents_as_likely_are_ambiguous"),
    "too_long": ("test_pipeline.py", "test_speech_without_end_is_too_long"),
    "timeout": ("test_pipeline.py", "test_recognition_that_takes_too_long_is_a_timeout"),
    "overload": ("test_reasons.py", "test_what_waited_too_long_is_refused_unrecognised"),
    "elsewhere": ("test_settle.py", "test_two_that_run"),
}


@pytest.mark.parametrize("reason", get_args(Reason))
def test_a_test_produces_it(reason: str) -> None:
    """The test is there, and looks for this reason."""
    file, name = PRODUCED[reason]
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    found = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert len(found) == 1
    assert f'"{reason}"' in (ast.get_source_segment(text, found[0]) or "")


@pytest.mark.parametrize("reason", get_args(Reason))
def test_people_are_told(reason: Reason) -> None:
    """What it means and what to do: sentences, in words that no engineer is needed for."""
    words = REASONS[reason]
    assert 0 < len(words.short) <= 30
    for sentence in (words.meaning, words.remedy):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
    text = f"{words.short} {words.meaning} {words.remedy}".lower()
    for jargon in ("logit", "token", "beam", "decoder", "threshold", "probability", "vad"):
        assert jargon not in text


def test_what_waited_too_long_is_refused_unrecognised(pipeline: Pipeline, speech: Samples) -> None:
    """As listen.py gives it up (test_listen.py): the newer utterance is worth more."""
    utterance = Utterance(
        samples=speech,
        start_samples=0,
        speech_start_samples=0,
        speech_end_samples=len(speech),
        end_reason="silence",
        sure_s=1.0,
    )
    heard = pipeline.recogniser.recognise(utterance)
    waited = pipeline.recogniser.recognise(replace(utterance, end_reason="overload"))
    assert heard is not None
    assert waited is not None
    assert heard.decision.reason is None
    assert (waited.decision.reason, waited.decision.meaning) == ("overload", None)
    assert waited.timings.encode == 0 < heard.timings.encode
