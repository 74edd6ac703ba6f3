"""What the ways to decode have in common and where they differ, with the real model and real pipelines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pytest

from edgevoice.audio import frames
from edgevoice.capture import FileSource
from edgevoice.config import Config, RecognitionConfig
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.pipeline import Pipeline
from edgevoice.publish import result_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Result
    from tests.conftest import Sample

SPELLED_AS_IN_THE_GRAMMAR: Final = ("turn-on-desk-lamp", "pause-music", "turn-off-fan", "volume-up")
"""Samples that tiny.en writes word for word when nothing binds it."""

SHOPPING = """
language: en
intents:
  Add:
    data:
      - sentences: ["add {item} to [the|my] shopping list"]
        metadata: {confirm: true}
  Light:
    data:
      - sentences: ["turn on the {name}"]
        metadata: {min_confidence: 1.0}
lists:
  item: {wildcard: true}
  name: {values: [desk lamp]}
"""


@pytest.fixture(scope="module", params=["free", "prompt"])
def unbound(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    mode: Literal["free", "prompt"] = request.param
    opened = Pipeline(replace(Config(), recognition=RecognitionConfig(mode=mode)))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shopping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path: Path = tmp_path_factory.mktemp("shopping") / "shopping.yaml"
    path.write_text(SHOPPING)
    opened = Pipeline(Config(), path)
    yield opened
    opened.close()


def heard(pipeline: Pipeline, sample: Sample) -> Result:
    (result,) = pipeline.results(FileSource(sample.path))
    return result


def named(samples: tuple[Sample, ...], stem: str) -> Sample:
    return next(sample for sample in samples if sample.path.stem == stem)


@pytest.mark.parametrize("stem", SPELLED_AS_IN_THE_GRAMMAR)
def test_unbound_text_is_looked_up(unbound: Pipeline, samples: tuple[Sample, ...], stem: str) -> None:
    """What Whisper writes freely gets intent and slots from the same grammar."""
    sample = named(samples, stem)
    result = heard(unbound, sample)
    assert (result.intent, result.slots) == (sample.intent, sample.slots), result.text
    assert result.accepted
    assert result.heard is None


def test_unbound_text_that_is_no_sentence(unbound: Pipeline, samples: tuple[Sample, ...]) -> None:
    """It is refused without a meaning, and the refusal tells what was heard."""
    result = heard(unbound, named(samples, "refused-weather-talk"))
    assert (result.accepted, result.intent) == (False, None)
    assert result.heard


def test_refused_command_tells_what_was_heard(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """Bound, too: the washing machine is not in the grammar, but in what Whisper would have written."""
    refused = heard(pipeline, named(samples, "refused-washing-machine"))
    assert not refused.accepted
    assert refused.heard is not None
    assert "washing machine" in refused.heard.lower()
    accepted = heard(pipeline, named(samples, "turn-on-desk-lamp"))
    assert accepted.accepted
    assert accepted.heard is None


def test_free_text_in_a_sentence(shopping: Pipeline, samples: tuple[Sample, ...]) -> None:
    """The slot has the words that were said, the rest is the grammar's, and so is `confirm`."""
    result = heard(shopping, named(samples, "add-oat-milk"))
    assert result.accepted, (result.text, result.confidence)
    assert (result.intent, str(result.slots["item"]).lower()) == ("Add", "oat milk")
    assert result_fields(result)["confirm"] is True


def test_free_text_takes_no_other_command(shopping: Pipeline, samples: tuple[Sample, ...]) -> None:
    """What lacks the words around the free text is no shopping."""
    for stem in ("pause-music", "refused-weather-talk", "set-pizza-timer-twelve"):
        result = heard(shopping, named(samples, stem))
        assert not result.accepted, (stem, result.text, result.confidence)


def test_sentence_is_not_cut_off_where_free_text_begins(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    """Of "add oat milk to the shopping list" the first words are a sentence, too."""
    path = tmp_path / "more.yaml"
    path.write_text(
        "language: en\nintents:\n"
        "  Milk: {data: [{sentences: ['add oat milk']}]}\n"
        "  Add: {data: [{sentences: ['add oat milk to [the|my] {where}']}]}\n"
        "lists: {where: {wildcard: true}}\n"
    )
    opened = Pipeline(Config(), path)
    try:
        result = heard(opened, named(samples, "add-oat-milk"))
    finally:
        opened.close()
    assert result.accepted, (result.text, result.confidence)
    assert (result.intent, str(result.slots["where"]).lower()) == ("Add", "shopping list")


def test_sentence_that_wants_to_be_sure(shopping: Pipeline, samples: tuple[Sample, ...]) -> None:
    """Its own min_confidence counts, the nearest sentence is told all the same."""
    result = heard(shopping, named(samples, "turn-on-desk-lamp"))
    assert (result.accepted, result.reason, result.intent) == (False, "low_confidence", "Light")
    assert result_fields(result)["confirm"] is False


def test_audio_without_words(unbound: Pipeline) -> None:
    """Noise gives one refusal and no invented command."""
    noise = (np.random.default_rng(1).normal(0, 0.05, 3 * SAMPLE_RATE_HZ)).astype(np.float32)
    assert [result.accepted for result in unbound.results(frames([noise]))] == [False]
