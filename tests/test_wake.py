"""Wake phrases and wake words: who does not say them is not answered, and who does is understood."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hassil.expression import Group, TextChunk

from edgevoice import grammar_file, match, wake
from edgevoice.audio import frames, read_audio
from edgevoice.config import Config, RecognitionConfig, WakeConfig
from edgevoice.errors import ConfigError
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.grammar import ALONE, compile_grammar
from edgevoice.native import Grammar
from edgevoice.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.events import Result, Samples

DATA: Final = os.environ.get("EDGEVOICE_EVAL_DATA", "")
HOME: Final = """
language: en
skip_words: [please]
intents:
  Lamp: {data: [{sentences: ["turn on the {what} lamp", "[the] {what} lamp"]}]}
  Note: {data: [{sentences: ["{text} to my notes"]}]}
lists:
  what: {values: [desk, floor]}
  text: {wildcard: true}
"""
LAMP: Final = """
language: en
intents: {Lamp: {data: [{sentences: ["the {what} lamp"]}]}}
lists: {what: {values: [desk, floor]}}
"""

needs_data = pytest.mark.skipif(not DATA, reason="EDGEVOICE_EVAL_DATA names no folder of recordings")


def room(duration_s: float) -> Samples:
    chance = np.random.default_rng(3)
    return (chance.standard_normal(round(duration_s * SAMPLE_RATE_HZ)) * 1e-4).astype(np.float32)


def hear(pipeline: Pipeline, *pieces: Samples) -> list[Result]:
    return list(pipeline.results(frames([np.concatenate(pieces)])))


class TestPhrase:
    """The words before a sentence."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "[hey]",
            "hey <name>",
            "hey {name}",
            "(hey",
            "[hey] [jarvis]",
            "(hey;jarvis)",
            ".",
            "(" * 150,
            "a" * 201,
        ],
    )
    def test_what_is_none(self, text: str) -> None:
        """Nothing that may be empty, no names of lists and rules."""
        assert wake.parse(text) is None

    def test_words_of_a_model(self) -> None:
        """Each model has some, unless others are configured."""
        for model in ("alexa", "hey_jarvis", "hey_mycroft", "hey_rhasspy", "okay_nabu"):
            assert wake.phrase(WakeConfig(mode="model", model=model)) is not None
        assert wake.phrase(WakeConfig()) is None
        other = wake.phrase(WakeConfig(mode="model", model="alexa", phrase="computer"))
        assert isinstance(other, Group)
        assert [item.text for item in other.items if isinstance(item, TextChunk)] == ["computer"]

    @pytest.fixture
    def grammar(self, tmp_path: Path) -> Iterator[Grammar]:
        """A home with a wake phrase."""
        path = tmp_path / "home.yaml"
        path.write_text(HOME)
        with Grammar(
            compile_grammar(grammar_file.load(path), wake.parse("(hey|ok) [mister] jarvis"))
        ) as opened:
            yield opened

    @pytest.mark.parametrize(
        ("text", "intent", "slots"),
        [
            ("Hey Jarvis, turn on the desk lamp.", "Lamp", {"what": "desk"}),
            ("ok jarvis the floor lamp", "Lamp", {"what": "floor"}),
            ("Ok Mister Jarvis floor lamp", "Lamp", {"what": "floor"}),
            ("hey jarvis please turn on please the desk lamp please", "Lamp", {"what": "desk"}),
            ("Hey Jarvis, buy milk to my notes.", "Note", {"text": "buy milk"}),
            ("Hey Jarvis.", ALONE, {}),
            ("hey jarvis please", ALONE, {}),
        ],
    )
    def test_said(self, grammar: Grammar, text: str, intent: str, slots: dict[str, object]) -> None:
        """Intent and slots as without it; alone it is no intent."""
        (meaning,) = match.interpret(grammar, text)
        assert (meaning.intent, meaning.slots, meaning.woken) == (intent, slots, True)
        ((start, end),) = match.wake_phrase(grammar, text)
        assert text[start:end].lower().rstrip().endswith("jarvis")
        order = match.without_wake_phrase(grammar, text)
        assert "jarvis" not in order.lower()
        assert text.endswith(order)
        assert order[:1].isalnum() or not order

    def test_not_said(self, grammar: Grammar) -> None:
        """Sentences have their meaning without it, and say so; half of it is nothing."""
        (meaning,) = match.interpret(grammar, "turn on the desk lamp")
        assert not meaning.woken
        assert match.wake_phrase(grammar, "turn on the desk lamp") == []
        for text in ("hey turn on the desk lamp", "turn on the desk lamp hey jarvis", "hey please jarvis"):
            assert match.interpret(grammar, text) == []

    @pytest.mark.parametrize("mode", ["grammar", "free"])
    def test_spoken(self, tmp_path: Path, speech: Samples, mode: str) -> None:
        """Who listens for "turn on" hears a lamp in "turn on the desk lamp", and others nothing."""
        path = tmp_path / "lamp.yaml"
        path.write_text(LAMP)
        recognition = RecognitionConfig(mode=mode)  # type: ignore[arg-type]
        for phrase, accepted in (("turn on", True), ("computer", False)):
            config = Config(recognition=recognition, wake=WakeConfig(mode="phrase", phrase=phrase))
            pipeline = Pipeline(config, path)
            try:
                (result,) = hear(pipeline, speech, room(1))
                assert result.accepted == accepted, result
                if accepted:
                    assert (result.intent, result.slots) == ("Lamp", {"what": "desk"})
                    assert (result.text or "").lower().startswith("turn on")
                    assert (result.order or "").rstrip(".") == "the desk lamp"
            finally:
                pipeline.close()

    def test_spoken_alone(self, tmp_path: Path, speech: Samples) -> None:
        """It opens the window for one command without it, and is no result."""
        path = tmp_path / "lamp.yaml"
        path.write_text("language: en\nintents: {Lamp: {data: [{sentences: ['the desk lamp']}]}}\n")
        pipeline = Pipeline(Config(wake=WakeConfig(mode="phrase", phrase="turn on", window_s=5)), path)
        words = round(0.85 * SAMPLE_RATE_HZ)  # "turn on"
        try:
            said = (speech[:words], room(2), speech[words:], room(2))
            assert [result.accepted for result in hear(pipeline, *said, speech[words:], room(2))] == [
                True,
                False,
            ]
            late = (speech[:words], room(7), speech[words:], room(2))
            assert [result.reason for result in hear(pipeline, *late)] == ["out_of_grammar"]
        finally:
            pipeline.close()

    @needs_data
    def test_people(self, speech: Samples) -> None:
        """Without a model, too, the words of several people are enough."""
        check_people(WakeConfig(mode="phrase", phrase="computer"), "computer", speech)


class TestModel:
    """The library and its model."""

    def test_library_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names the extra that installs it."""
        monkeypatch.setitem(sys.modules, "pyopen_wakeword", None)
        with pytest.raises(ConfigError, match=r"edgevoice\[wake\]"):
            Pipeline(Config(wake=WakeConfig(mode="model", model="alexa")))

    def test_nothing_is_remembered(self) -> None:
        """After reset() the same sound has the same score, whatever was heard before."""
        pytest.importorskip("pyopen_wakeword")
        word = wake.WakeWord("hey_jarvis")
        chance = np.random.default_rng(5)
        sound = chance.uniform(-0.3, 0.3, SAMPLE_RATE_HZ).astype(np.float32)
        scores = []
        for _ in range(2):
            word.reset()
            scores.append([word.score(frame.samples) for frame in frames([sound])])
            word.score(chance.uniform(-1, 1, 3 * SAMPLE_RATE_HZ).astype(np.float32))
        word.close()
        word.close()
        assert scores[0] == scores[1]
        assert max(scores[0]) < wake.THRESHOLD

    def test_commands_without_it_are_not_recognised(self, speech: Samples) -> None:
        """Not for us: no result, no work."""
        pytest.importorskip("pyopen_wakeword")
        pipeline = Pipeline(Config(wake=WakeConfig(mode="model", model="alexa")))
        try:
            (result,) = hear(pipeline, speech, room(1))
            assert result.reason == "no_speech"  # of the whole stream
            assert pipeline.used_ms == pipeline.wasted_ms == 0
        finally:
            pipeline.close()

    @needs_data
    def test_woken(self, speech: Samples) -> None:
        """In one breath or in two, from several people."""
        pytest.importorskip("pyopen_wakeword")
        check_people(WakeConfig(mode="model", model="alexa"), "alexa", speech)


def check_people(config: WakeConfig, keyword: str, speech: Samples) -> None:
    """Each is understood in one breath, and in two, and says nothing with the keyword alone."""
    folder = Path(DATA) / "wakewords_en"
    rows = map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    words = [read_audio(folder / row["audio"]) for row in rows if row["keyword"] == keyword][:3]
    command = speech[round(0.2 * SAMPLE_RATE_HZ) :]  # where it begins
    pipeline = Pipeline(Config(wake=config))
    try:
        for word in words:
            loud = np.flatnonzero(np.abs(word) > 0.1 * np.abs(word).max())
            alone = word[: loud[-1] + 1600] * (np.abs(command).max() / np.abs(word).max())
            for pause_s in (0.0, 2.0):
                (result,) = hear(pipeline, room(0.5), alone, room(pause_s), command, room(1))
                assert (result.accepted, result.slots) == (True, {"name": "desk lamp"}), result
            assert hear(pipeline, room(0.5), alone, room(2)) == []
    finally:
        pipeline.close()
