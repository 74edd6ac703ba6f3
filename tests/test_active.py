"""Some intents can be said only after others, for a while; and others can be left out for a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgevoice import grammar, grammar_file, match
from edgevoice.active import ActiveIntents
from edgevoice.attention import Attention
from edgevoice.audio import frames
from edgevoice.config import Config, WakeConfig
from edgevoice.errors import GrammarError, UsageError
from edgevoice.events import SAMPLE_RATE_HZ, FollowUp, Interpretation
from edgevoice.native import Grammar
from edgevoice.pipeline import Pipeline
from edgevoice.reload import Reloader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Result, Samples
    from tests.conftest import Sample

GRAMMAR = """
language: en
intents:
  On:
    data: [{sentences: ["turn on the desk lamp"]}]
    metadata: {follow_up: {intents: [Time, Never], seconds: 4}}
  Time:
    metadata: {dormant: true}
    data: [{sentences: ["what time is it"]}]
  Never:
    metadata: {dormant: true}
    data: [{sentences: ["never mind"]}]
  Off:
    data: [{sentences: ["turn off the fan"]}]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "house.yaml"
    file.write_text(GRAMMAR)
    return file


@pytest.fixture
def pipeline(path: Path, model_path: Path) -> Iterator[Pipeline]:
    assert model_path.is_file()
    opened = Pipeline(Config(), path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def said(samples: tuple[Sample, ...]) -> dict[str, Samples]:
    return {sample.path.stem: sample.read() for sample in samples}


def hear(pipeline: Pipeline, *pieces: Samples | float) -> list[Result]:
    """The results of a stream of recordings, and of silence that lasts so many seconds."""
    audio = [np.zeros(round(p * SAMPLE_RATE_HZ), np.float32) if isinstance(p, float) else p for p in pieces]
    return list(pipeline.results(frames([np.concatenate([*audio, np.zeros(SAMPLE_RATE_HZ, np.float32)])])))


def short(results: list[Result]) -> list[str | None]:
    return [result.intent if result.accepted else None for result in results]


class TestFollowUp:
    """`follow_up` and `dormant` in the grammar."""

    def test_answer_in_time(self, pipeline: Pipeline, said: dict[str, Samples]) -> None:
        """A dormant intent is the answer after its question, once, and says to what."""
        results = hear(pipeline, said["turn-on-desk-lamp"], said["never-mind"], said["never-mind"])
        assert short(results) == ["On", "Never", None]
        assert results[1].follows == results[0].utterance_id
        assert results[0].follows is results[2].follows is None

    def test_nobody_asked(self, pipeline: Pipeline, said: dict[str, Samples]) -> None:
        """Without its question it is no command, in a new stream, too."""
        assert short(hear(pipeline, said["turn-on-desk-lamp"])) == ["On"]
        assert short(hear(pipeline, said["never-mind"])) == [None]

    def test_too_late(self, pipeline: Pipeline, said: dict[str, Samples]) -> None:
        """After its seconds the question is forgotten."""
        assert short(hear(pipeline, said["turn-on-desk-lamp"], 5.0, said["never-mind"])) == ["On", None]

    def test_something_else(self, pipeline: Pipeline, said: dict[str, Samples]) -> None:
        """Other commands can be said meanwhile, and then the question is forgotten."""
        spoken = ("turn-on-desk-lamp", "turn-off-fan", "never-mind")
        assert short(hear(pipeline, *(said[each] for each in spoken))) == ["On", "Off", None]

    def test_a_refusal_is_no_answer(self, path: Path, said: dict[str, Samples]) -> None:
        """The question goes on waiting."""
        path.write_text(GRAMMAR.replace("seconds: 4", "seconds: 30"))
        opened = Pipeline(Config(), path)
        try:
            spoken = ("turn-on-desk-lamp", "refused-weather-talk", "never-mind")
            assert short(hear(opened, *(said[each] for each in spoken))) == ["On", None, "Never"]
        finally:
            opened.close()

    def test_without_the_wake_word(self, path: Path, said: dict[str, Samples]) -> None:
        """Who was asked need not be called again."""
        config = Config(wake=WakeConfig(mode="push_to_talk"))
        opened = Pipeline(config, path)
        try:
            attention = Attention()
            attention.listen(5.0)
            audio = np.concatenate(
                [said["turn-on-desk-lamp"], said["never-mind"], np.zeros(SAMPLE_RATE_HZ, np.float32)]
            )
            assert short(list(opened.results(frames([audio]), attention=attention))) == ["On", "Never"]
        finally:
            opened.close()

    @pytest.mark.parametrize(
        ("metadata", "line", "what"),
        [
            (
                "{follow_up: {intents: [Neever]}}",
                5,
                "names 'Neever', which is no intent here; did you mean 'Never'",
            ),
            ("{follow_up: {intents: []}}", 6, "a follow_up needs 'intents'"),
            (
                "{follow_up: {intents: [Time], seconds: 0}}",
                6,
                "'seconds' must be more than 0, at most 60, got 0",
            ),
            ("{follow_up: {intents: [Time], seconds: 61}}", 6, "at most 60, got 61"),
            ("{follow_up: {intents: [Time], second: 1}}", 6, "unknown key 'second'; did you mean 'seconds'"),
            ("{follow_up: [Time]}", 6, "must be 'key: value' lines"),
            ("{dormant: 1}", 6, "'dormant' must be true or false, got 1"),
        ],
    )
    def test_mistakes(self, path: Path, metadata: str, line: int, what: str) -> None:
        """They are refused with their line."""
        path.write_text(GRAMMAR.replace("{follow_up: {intents: [Time, Never], seconds: 4}}", metadata))
        with pytest.raises(GrammarError, match=what) as caught:
            grammar_file.load(path)
        assert f"house.yaml:{line}:" in str(caught.value)

    def test_all_asleep(self, path: Path) -> None:
        """A grammar of which nothing can be said is refused."""
        path.write_text(
            "language: en\nintents: {A: {metadata: {dormant: true}, data: [{sentences: [go]}]}}\n"
        )
        with pytest.raises(GrammarError, match="all intents are dormant"):
            grammar_file.load(path)


class TestOnly:
    """A part of a grammar."""

    def test_network(self, path: Path) -> None:
        """It understands as the whole does, but only its intents; nothing is left of the others."""
        whole = grammar.compile_grammar(grammar_file.load(path))
        texts = ["turn on the desk lamp", "what time is it", "never mind", "turn off the fan"]
        for intents in ([], ["On"], ["Time", "Off"], ["On", "Time", "Never", "Off"]):
            with Grammar(whole.only(intents)) as opened:
                for text, intent in zip(texts, ("On", "Time", "Never", "Off"), strict=True):
                    found = [each.intent for each in match.interpret(opened, text)]
                    assert found == [intent] * (intent in intents)
        again = whole.only(["On", "Off"]).only(["Off", "Never"])
        with Grammar(again) as opened:
            assert [bool(opened.match(text)) for text in texts] == [False, False, False, True]
            assert not opened.can_go_on("turn on")


class TestChoice:
    """What somebody chooses."""

    def test_times(self) -> None:
        """What is chosen and what is open add up; what is gone from the grammar does not deafen us."""

        def block(intent: str, *, dormant: bool = False) -> grammar_file.Block:
            return grammar_file.Block(intent, (), {}, {}, {}, 1, dormant=dormant)

        blocks = [block("A"), block("B"), block("Yes", dormant=True)]
        active = ActiveIntents()
        assert active.at(blocks, 0) == {"A", "B"}
        active.choose(["B"])
        assert active.at(blocks, 0) == {"B"}
        meaning = Interpretation("b", "B", {}, {}, follow_up=FollowUp(("Yes",), 5))
        active.accepted(meaning, "id", 10)
        assert active.at(blocks, 15) == {"B", "Yes"}
        assert active.follows("Yes", 15) == "id"
        assert active.follows("B", 15) is active.follows("Yes", 15.1) is None
        assert active.at(blocks, 15.1) == {"B"}
        active.choose(["Gone"])
        assert active.at(blocks, 20) == {"A", "B"}
        active.ask(["Yes"])
        assert active.at(blocks, 20) == {"Yes"}
        active.ask(["Gone"])
        assert active.at(blocks, 20) == {"A", "B"}
        active.ask(None)
        active.choose(None)
        active.begin()
        assert active.at(blocks, 11) == {"A", "B"}

    def test_over_mqtt(self, pipeline: Pipeline, said: dict[str, Samples]) -> None:
        """Only what was chosen is understood; the topic `grammar` tells it."""
        told: list[dict[str, object]] = []
        reloader = Reloader(pipeline.recogniser, told.append)
        try:
            spoken = (said["turn-off-fan"], said["turn-on-desk-lamp"])
            assert short(hear(pipeline, *spoken)) == ["Off", "On"]
            reloader.set_intents(json.dumps(["Off"]).encode())
            assert told[-1]["only"] == ["Off"]
            assert short(hear(pipeline, *spoken)) == ["Off", None]
            reloader.set_intents(b"")
            assert told[-1]["only"] is None
            assert short(hear(pipeline, *spoken)) == ["Off", "On"]
            for payload in (b"Off", b'"Off"', b"[]", b"[1]", b'["Of"]'):
                with pytest.raises(UsageError, match="intent"):
                    reloader.set_intents(payload)
        finally:
            reloader.close()
