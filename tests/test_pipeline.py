"""Frames go in at the top and results come out at the bottom, with states on the way."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from edgevoice.audio import frames
from edgevoice.capture import FileSource
from edgevoice.confidence import Evidence
from edgevoice.config import Config, EndpointConfig, ModelConfig, RecognitionConfig, VadConfig
from edgevoice.errors import ConfigError, EngineClosedError, GrammarError, ModelNotFoundError
from edgevoice.events import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Result
from edgevoice.native import Session, SessionOptions
from edgevoice.pipeline import LastAnswer, Pipeline
from edgevoice.recognise import LATER, Answer, Recogniser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples, Utterance
    from edgevoice.publish import State
    from tests.conftest import Sample

DEFAULTS = Config()


def room(duration_s: float) -> Samples:
    """A quiet room, at -80 dBFS as in the sample recordings."""
    chance = np.random.default_rng(3)
    return (chance.standard_normal(round(duration_s * SAMPLE_RATE_HZ)) * 1e-4).astype(np.float32)


def hear(pipeline: Pipeline, samples: Samples) -> list[Result]:
    return list(pipeline.results(frames([samples])))


@pytest.fixture
def pipeline_of() -> Iterator[type[Pipeline]]:
    """Makes pipelines of a configuration and closes them after the test."""
    opened: list[Pipeline] = []

    class Closing(Pipeline):
        def __init__(self, config: Config, grammar: Path | None = None) -> None:
            super().__init__(config, grammar)
            opened.append(self)

    yield Closing
    for pipeline in opened:
        pipeline.close()


def test_every_sample_has_its_answer(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """One result for each recording: intent and slots of the manifest, or a refusal with a true reason."""
    for sample in samples:
        (result,) = pipeline.results(FileSource(sample.path))
        seen = (result.text, result.reason, result.confidence)
        assert result.accepted == sample.accepted, (sample.path.name, seen)
        if sample.accepted:
            assert (result.intent, result.slots) == (sample.intent, sample.slots), sample.path.name
            assert result.reason is None
            assert result.confidence >= DEFAULTS.recognition.min_confidence
        else:
            assert result.reason in sample.reasons, (sample.path.name, seen)


def test_result_is_complete(pipeline: Pipeline, speech: Samples) -> None:
    """Place in the stream, spoken words of the slots, time of each stage, an identity of its own."""
    first, second = hear(pipeline, speech), hear(pipeline, speech)
    (result,) = first
    assert 0 < result.start_s < result.end_s < len(speech) / SAMPLE_RATE_HZ
    assert result.slots_raw == {"name": "desk lamp"}
    timings = result.timings
    assert all(ms > 0 for ms in (timings.vad, timings.mel, timings.encode, timings.search, timings.match))
    assert timings.total == pytest.approx(
        timings.vad + timings.mel + timings.encode + timings.search + timings.match
    )
    assert result.utterance_id != second[0].utterance_id
    assert result.time.count(":") >= 2
    assert result.time[-6] in "+-"


def test_states(pipeline: Pipeline, speech: Samples) -> None:
    """Listening, speech, recognising, and listening again for each utterance."""
    states: list[State] = []
    twice = np.concatenate([speech, room(1), speech, room(1)])
    assert len(list(pipeline.results(frames([twice]), states.append))) == 2
    assert states == ["listening", *["speech", "recognising", "listening"] * 2]


LAMP = """
language: en
intents:
  Lamp: {data: [{sentences: ["turn on the desk lamp SUFFIX"]}]}
"""
GRAMMARS = {
    "finished": LAMP.replace("SUFFIX", ""),
    "open": LAMP.replace("SUFFIX", "[in the kitchen]"),
    "unfinished": LAMP.replace("turn on the", "play").replace("SUFFIX", "very loud"),
}


class Heard:
    """Frames that remember how many of them were taken."""

    def __init__(self, *pieces: Samples) -> None:
        self._frames = frames(pieces)
        self.length_s = 0.0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.length_s = (frame.start_samples + FRAME_SAMPLES) / SAMPLE_RATE_HZ
            yield frame


@pytest.mark.parametrize("mode", ["grammar", "fixed"])
@pytest.mark.parametrize("outlook", list(GRAMMARS))
def test_what_was_said_decides_how_long_to_wait(
    pipeline_of: type[Pipeline],
    tmp_path: Path,
    speech: Samples,
    outlook: str,
    mode: Literal["grammar", "fixed"],
) -> None:
    """Short after a sentence that no word can follow, longer if one can, longest after no sentence."""
    path = tmp_path / "grammar.yaml"
    path.write_text(GRAMMARS[outlook])
    endpoint = EndpointConfig(mode=mode, finished_ms=224, silence_ms=512, unfinished_ms=1216)
    pipeline = pipeline_of(replace(DEFAULTS, endpoint=endpoint), path)
    stream = Heard(speech, room(2))
    results = pipeline.results(stream)
    result = next(results)
    assert result.accepted == (outlook != "unfinished")
    silence_ms = {"finished": 224, "open": 512, "unfinished": 1216}[outlook] if mode == "grammar" else 512
    assert (stream.length_s - result.end_s) * 1000 == pytest.approx(silence_ms, abs=1)


def test_a_pause_in_a_command(pipeline: Pipeline, speech: Samples) -> None:
    """What is no sentence yet is waited for, longer than after a sentence."""
    words = round(0.62 * SAMPLE_RATE_HZ)  # "turn on"
    for pause_s in (0.3, 0.8):
        (result,) = hear(pipeline, np.concatenate([speech[:words], room(pause_s), speech[words:], room(2)]))
        assert (result.accepted, result.slots) == (True, {"name": "desk lamp"}), result


def test_nothing_is_recognised_twice(pipeline: Pipeline, speech: Samples) -> None:
    """What was recognised in the pause is the answer when the silence is confirmed."""
    calls: list[str] = []

    class Counting(Recogniser):
        def __init__(self) -> None:
            self.active = pipeline.recogniser.active

        def recognise(self, utterance: Utterance) -> Answer | None:
            calls.append(utterance.end_reason)
            return pipeline.recogniser.recognise(utterance)

        def result(self, answer: Answer, utterance: Utterance, *, explain: bool = True) -> Result:
            return pipeline.recogniser.result(answer, utterance, explain=explain)

    counted = copy(pipeline)
    counted.recogniser = Counting()
    assert len(hear(counted, np.concatenate([speech, room(2), speech, room(2)]))) == 2
    assert calls == ["pause", "pause"]


def test_live(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """Commands that are heard as they are spoken have the same results, with the time they took to answer."""
    for sample in [sample for sample in samples if sample.accepted][:3]:
        source = FileSource(sample.path, real_time=True)
        started_s = time.monotonic()
        (result,) = pipeline.results(source, live=source.live)
        assert (result.accepted, result.intent, result.slots) == (True, sample.intent, sample.slots)
        assert result.latency_ms is not None
        assert 100 < result.latency_ms < 5000
        assert result.latency_ms < 1000 * (time.monotonic() - started_s - result.end_s) + 40


def test_nothing_is_joined_over_a_gap(pipeline: Pipeline, speech: Samples) -> None:
    """Half a command before a gap is dropped; the whole one after it is understood, at its place."""
    states: list[State] = []
    half = list(frames([speech[: SAMPLE_RATE_HZ * 9 // 10]]))
    whole = [replace(frame, start_samples=frame.start_samples + 10**6) for frame in frames([speech, room(1)])]
    (alone,) = hear(pipeline, speech)
    (result,) = pipeline.results([*half, *whole], states.append)
    assert result.text == alone.text
    assert result.start_s == pytest.approx(alone.start_s + 10**6 / SAMPLE_RATE_HZ, abs=0.001)
    assert states == ["listening", "speech", "listening", "speech", "recognising", "listening"]


def test_speech_cut_off_by_the_end_of_the_stream(pipeline: Pipeline, speech: Samples) -> None:
    """What was said until then is recognised."""
    states: list[State] = []
    cut = speech[: int(1.2 * SAMPLE_RATE_HZ)]
    assert len(list(pipeline.results(frames([cut]), states.append))) == 1
    assert states[:3] == ["listening", "speech", "recognising"]


def test_commands_in_one_stream(pipeline: Pipeline, samples: tuple[Sample, ...]) -> None:
    """Each has its own result, in order, with its place in the stream."""
    chosen = [sample for sample in samples if sample.accepted][:4]
    pieces = [piece for sample in chosen for piece in (sample.read(), room(0.6))]
    results = hear(pipeline, np.concatenate(pieces))
    assert [(result.intent, result.slots) for result in results] == [(s.intent, s.slots) for s in chosen]
    ends_s = np.cumsum([len(piece) for piece in pieces])[1::2] / SAMPLE_RATE_HZ
    for result, start_s, end_s in zip(results, [0.0, *ends_s], ends_s, strict=False):
        assert start_s < result.start_s < result.end_s < end_s


def test_streams_do_not_hear_each_other(pipeline: Pipeline, speech: Samples) -> None:
    """A stream cut off in a word leaves nothing for the next one."""
    (alone,) = hear(pipeline, speech)
    hear(pipeline, speech[: SAMPLE_RATE_HZ * 9 // 10])
    (again,) = hear(pipeline, speech)
    assert (again.text, again.start_s, again.end_s) == (alone.text, alone.start_s, alone.end_s)
    assert again.confidence == pytest.approx(alone.confidence, abs=1e-3)


def test_abandoned_stream(pipeline: Pipeline, speech: Samples) -> None:
    """Who stops asking for results can start another stream."""
    first = pipeline.results(frames([np.concatenate([speech, room(1), speech])]))
    next(first)
    first.close()  # type: ignore[attr-defined]
    assert len(hear(pipeline, speech)) == 1


@pytest.mark.parametrize("duration_s", [0.01, 0.5, 5.0])
def test_stream_without_speech(pipeline: Pipeline, duration_s: float) -> None:
    """Exactly one result, which says so and covers the stream."""
    (result,) = hear(pipeline, room(duration_s))
    assert (result.accepted, result.reason, result.text, result.intent) == (False, "no_speech", None, None)
    assert result.start_s == 0
    assert duration_s <= result.end_s < duration_s + 0.04
    assert result.timings.vad > 0


def test_stream_without_frames(pipeline: Pipeline) -> None:
    """Nothing at all has no speech either."""
    (result,) = pipeline.results([])
    assert (result.reason, result.end_s) == ("no_speech", 0)


def test_speech_without_end_is_too_long(pipeline_of: type[Pipeline], speech: Samples) -> None:
    """It is refused unrecognised, and the engine listens on."""
    pipeline = pipeline_of(replace(DEFAULTS, endpoint=EndpointConfig(max_utterance_s=1.0)))
    talk = np.concatenate([speech[8000:20000]] * 4 + [room(1)])
    first, *_ = hear(pipeline, talk)
    assert (first.accepted, first.reason, first.intent) == (False, "too_long", None)
    assert first.timings.encode == 0


def test_recognition_that_takes_too_long_is_a_timeout(pipeline_of: type[Pipeline], speech: Samples) -> None:
    """It is a refusal and no error: the service goes on."""
    pipeline = pipeline_of(replace(DEFAULTS, recognition=RecognitionConfig(timeout_s=0.001)))
    for _ in range(2):
        (result,) = hear(pipeline, speech)
        assert (result.accepted, result.reason) == (False, "timeout")
        assert result.timings.total > 0


def test_confidence_that_is_asked_for(pipeline_of: type[Pipeline], speech: Samples) -> None:
    """With 1 nothing is believed, and the refusal still tells the nearest sentence."""
    pipeline = pipeline_of(replace(DEFAULTS, recognition=RecognitionConfig(min_confidence=1.0)))
    (result,) = hear(pipeline, speech)
    assert (result.accepted, result.reason, result.intent) == (False, "low_confidence", "HassTurnOn")


def test_what_is_nearly_sure_is_looked_at_again(pipeline_of: type[Pipeline], speech: Samples) -> None:
    """With less of the room before the first word; what is sure is not."""
    for min_confidence, again in ((0.5, False), (1.0, True)):
        pipeline = pipeline_of(
            replace(DEFAULTS, recognition=RecognitionConfig(min_confidence=min_confidence))
        )
        last = LastAnswer()
        assert [r.intent for r in pipeline.results(frames([speech]), watch=last)] == ["HassTurnOn"]
        assert last.answer
        utterance = last.answer.utterance
        room = min(
            DEFAULTS.endpoint.pre_roll_ms * 16, utterance.speech_start_samples - utterance.start_samples
        )
        assert room > 0
        with Session(pipeline.recogniser.model, pipeline.recogniser.grammar, SessionOptions()) as session:
            looks = [
                Evidence.of(session.recognise(utterance.samples[begin:]).tokens)
                for begin in (0, round(LATER * room))
            ]
        seen, expected = last.answer.decision.evidence, looks[1].mean(looks[0]) if again else looks[0]
        assert seen
        assert astuple(seen) == pytest.approx(astuple(expected), abs=0.01)
        assert looks[0].per_token != pytest.approx(looks[1].per_token, abs=0.01)


def test_vad_threshold_is_used(pipeline_of: type[Pipeline], speech: Samples) -> None:
    """A detector that is never sure hears nothing."""
    pipeline = pipeline_of(replace(DEFAULTS, vad=VadConfig(threshold=1.0)))
    assert [result.reason for result in hear(pipeline, speech)] == ["no_speech"]


def test_grammar_in_place_of_the_configured_one(
    pipeline_of: type[Pipeline], tmp_path: Path, speech: Samples
) -> None:
    """Only its sentences are heard."""
    path = tmp_path / "grammar.yaml"
    path.write_text(
        "language: en\nintents: {Lamp: {data: [{sentences: ['turn on the {what} lamp']}]}}\n"
        "lists: {what: {values: [{in: desk, out: 1}, {in: floor, out: 2}]}}\n"
    )
    (result,) = hear(pipeline_of(DEFAULTS, path), speech)
    assert (result.accepted, result.intent, result.slots) == (True, "Lamp", {"what": 1})


def test_what_cannot_be_loaded_is_an_error_at_once(tmp_path: Path) -> None:
    """Grammar, model and language are checked before anybody speaks."""
    bad = tmp_path / "grammar.yaml"
    bad.write_text("language: en\nintents: {A: {data: [{sentences: ['turn (on']}]}}\n")
    with pytest.raises(GrammarError, match=r"grammar\.yaml:2"):
        Pipeline(DEFAULTS, bad)
    german = tmp_path / "german.yaml"
    german.write_text("language: de\nintents: {A: {data: [{sentences: [hallo]}]}}\n")
    with pytest.raises(ConfigError, match=r"tiny\.en .*only English"):
        Pipeline(DEFAULTS, german)
    with pytest.raises(ModelNotFoundError, match="nosuch"):
        Pipeline(replace(DEFAULTS, model=ModelConfig(name="nosuch")))
    with pytest.raises(ConfigError, match=r"'sv' seen; .* de, en, es, fr, it, nl, pt"):
        Pipeline(replace(DEFAULTS, model=ModelConfig(name="base", language="sv")))


def test_closed(pipeline_of: type[Pipeline], speech: Samples) -> None:
    """A closed pipeline says so, and may be closed again."""
    pipeline = pipeline_of(DEFAULTS)
    pipeline.close()
    with pytest.raises(EngineClosedError):
        hear(pipeline, speech)
