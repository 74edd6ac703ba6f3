"""Why a sentence is understood, or where it leaves the grammar and what could have come there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgevoice import grammar_file
from edgevoice.grammar_explain import MAX_WORDS, Explanation, explain

if TYPE_CHECKING:
    from pathlib import Path

GRAMMAR = """\
language: en
skip_words: [please]
intents:
  TurnOn:
    data:
      - sentences:
          - "turn on [the] {light:name}"
          - "<lights> on"
  Dim:
    data:
      - sentences:
          - "dim <lights> to {level}[%| percent]"
  Say:
    data:
      - sentences:
          - "say {text} now"
expansion_rules:
  lights: "[all] [the] lights"
lists:
  light: {values: [desk lamp, floor lamp, fan]}
  level: {range: {from: 0, to: 100}}
  text: {wildcard: true}
"""


def explained(folder: Path, text: str, grammar: str = GRAMMAR) -> Explanation:
    path = folder / "grammar.yaml"
    path.write_text(grammar, encoding="utf-8")
    return explain(grammar_file.load(path), text)


class TestUnderstood:
    """Sentences of the grammar."""

    @pytest.mark.parametrize(
        ("text", "intent", "slots", "line"),
        [
            ("Turn on the desk lamp, please.", "TurnOn", {"name": "desk lamp"}, 7),
            ("all lights on", "TurnOn", {}, 8),
            ("dim the lights to fifty per cent", "Dim", {"level": 50}, 12),
            ("Dim lights to 50 %!", "Dim", {"level": 50}, 12),
            ("say Good night now", "Say", {"text": "Good night"}, 16),
        ],
    )
    def test_template(
        self, tmp_path: Path, text: str, intent: str, slots: dict[str, object], line: int
    ) -> None:
        """Intent, slots and the line of the template that says it."""
        (reading,) = explained(tmp_path, text).readings
        assert (reading.meaning.intent, reading.meaning.slots) == (intent, slots)
        assert reading.template.line == line

    def test_two_readings(self, tmp_path: Path) -> None:
        """Both, in the order of the grammar."""
        found = explained(tmp_path, "lights on", GRAMMAR.replace("say {text} now", "lights (on|off)"))
        assert [(each.meaning.intent, each.template.line) for each in found.readings] == [
            ("TurnOn", 8),
            ("Say", 16),
        ]


class TestRefused:
    """Other texts."""

    @pytest.mark.parametrize(
        ("text", "reached", "rest", "following"),
        [
            ("turn on teh light", "turn on", "teh light", (("the",), ("light",))),
            ("Turn on the", "turn on the", "", ((), ("light",))),
            ("turn on the desk", "turn on the desk", "", (("lamp",), ())),
            ("please turn, please on teh", "please turn please on", "teh", (("the",), ("light",))),
            ("hello", "", "hello", (("all", "dim", "lights", "say", "the", "turn"), ())),
            ("", "", "", (("all", "dim", "lights", "say", "the", "turn"), ())),
            ("lights on off", "lights on", "off", ((), ())),
            ("turn on the lamp", "turn on the", "lamp", ((), ("light",))),
            ("dim lights to 200", "dim lights to", "200", ((), ("level",))),
            ("dim lights to 50%%", "dim lights to", "50%%", ((), ("level",))),
            ("say", "say", "", ((), ("text",))),
            ("say good night", "say good night", "", (("now",), ())),
        ],
    )
    def test_how_far_it_gets(
        self, tmp_path: Path, text: str, reached: str, rest: str, following: tuple[tuple[str, ...], ...]
    ) -> None:
        """Whole words that begin a sentence, and the words and lists that go on from there."""
        found = explained(tmp_path, text)
        assert found.readings == ()
        assert (found.reached, found.rest) == (reached, rest)
        assert (found.next_words, found.next_lists) == following
        assert not found.more

    def test_many_words(self, tmp_path: Path) -> None:
        """Not all are listed, which is said."""
        words = "|".join(f"go{letter}{other}" for letter in "abcdef" for other in "abcdef")
        found = explained(tmp_path, "please hello", GRAMMAR.replace("say {text}", f"({words})"))
        assert found.reached == "please"
        assert len(found.next_words) == MAX_WORDS
        assert found.more


class TestNear:
    """Sentences that differ in a letter or two."""

    def test_misspelt(self, tmp_path: Path) -> None:
        """The nearest first, none when it is a sentence, and free text is no explanation."""
        found = explained(tmp_path, "turn on the dsek lamp")
        assert [(each.text, each.interpretation.slots) for each in found.near[:1]] == [
            ("turn on the desk lamp", {"name": "desk lamp"})
        ]
        assert not explained(tmp_path, "turn on the desk lamp").near
        assert not explained(tmp_path, "order a large pizza").near
        assert not explained(tmp_path, "sai turn off everything now").near
