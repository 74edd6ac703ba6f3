"""A text that is nearly a sentence is taken for it; what is unclear, unknown or a number is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgevoice import match, wake
from edgevoice.grammar import compile_grammar
from edgevoice.grammar_file import load
from edgevoice.native import Grammar
from edgevoice.repair import MAX_COST, repair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeGrammar

HOUSE = """
language: en
skip_words: [please]
intents:
  On: {data: [{sentences: ["turn on [the] {name}"]}]}
  Open: {data: [{sentences: ["open [the] {name}"]}]}
  Level: {data: [{sentences: ["set [the] {name} to {level}[%| percent]"]}]}
  Timer: {data: [{sentences: ["set a timer for {level} minutes"]}]}
  Add: {data: [{sentences: ["add {item} to my shopping list"]}]}
  Say: {data: [{sentences: ["announce {item}"]}]}
  Louder: {data: [{sentences: [louder]}]}
lists:
  name:
    values: [desk lamp, desk light, living room blinds, gate, fan, north window, south window, left blade]
  level: {range: {from: 0, to: 100, step: 10}}
  item: {wildcard: true}
"""


@pytest.fixture(scope="module")
def house(make_grammar: MakeGrammar) -> Iterator[Grammar]:
    with make_grammar(HOUSE) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Turn on the desk lamb.", "Turn on the desk lamp"),
        ("please turn on teh fan", "please turn on the fan"),
        ("open the livingroom blinds", "open the living room blinds"),
        ("open the living room blintz", "open the living room blinds"),  # as people say it
        ("open the living room plants", None),  # too many letters are others
        ("set timer for 10 minutes", "set a timer for 10 minutes"),
        ("set a timer for 10 minuets, please", "set a timer for 10 minutes please"),
        ("add oat milk to my shoping list", "add oat milk to my shopping list"),
        ("addd oat milk to my shopping list", "add oat milk to my shopping list"),
        ("ad oat milk to my shopping list", None),  # words of two letters are right or wrong
    ],
)
def test_what_is_nearly_a_sentence(house: Grammar, text: str, sentence: str | None) -> None:
    """It means what the sentence means, and costs something."""
    found = repair(house, text)
    assert [meaning.text for meaning in found] == ([sentence] if sentence else [])
    for meaning in found:
        (meant,) = match.interpret(house, meaning.text)
        assert (meaning.intent, meaning.slots) == (meant.intent, meant.slots)
        assert 0 < meaning.cost <= MAX_COST


def test_sentences_are_left_as_they_are(house: Grammar) -> None:
    """Nothing is repaired that is right."""
    for text in ("Turn on the fan!", "set the fan to 30%", "announce Tom's here"):
        assert repair(house, text) == match.interpret(house, text)
        assert [meaning.cost for meaning in repair(house, text)] == [0.0]


@pytest.mark.parametrize(
    "text",
    [
        "turn off the fan",  # the opposite, which this house does not know
        "turn of the fan",
        "turn the fan on",
        "turn on the washing machine",
        "turn on the tan",
        "unopen the gate",
        "set the fan to 35%",
        "set the fan to thirty five",
        "set a timer for fifteen minutes",  # and not for fifty
        "set a timer for 10 hours",
        "set a timer for",
        "open",
        "louder still",
        "ladder",
        "announced that he would come",  # too little of it is the grammar's
        "at milk to the list",
        "do not turn on the fan",
        "turn on the fan and the desk lamp",
    ],
)
def test_other_orders_stay_unknown(house: Grammar, text: str) -> None:
    """However near they look."""
    assert repair(house, text) == []


def test_two_that_are_as_near_are_both_told(house: Grammar) -> None:
    """So that nobody decides by a letter."""
    found = repair(house, "open the outh window")  # "south" misses a letter, "north" two
    assert [meaning.slots for meaning in found] in ([], [{"name": "south window"}])
    found = repair(house, "turn on the desk laight")
    assert [meaning.slots for meaning in found] == [{"name": "desk light"}]


def test_near_tie(make_grammar: MakeGrammar) -> None:
    """Two names a letter apart, and a text between them."""
    with make_grammar(
        "language: en\nintents:\n  Go: {data: [{sentences: ['move to {place} now']}]}\n"
        "lists: {place: {values: [marlow, harlow, barton]}}\n"
    ) as grammar:
        assert [meaning.slots for meaning in repair(grammar, "move to bartom now")] == [{"place": "barton"}]
        assert repair(grammar, "move to carlow now") == []  # the first letter counts twice
    with make_grammar(
        "language: en\nintents:\n  Go: {data: [{sentences: ['move to {place} now please']}]}\n"
        "lists: {place: {values: [marlin, marlow, barton]}}\n"
    ) as grammar:
        found = repair(grammar, "move to marlon now please")  # i for o, n; or n for w
        assert {meaning.slots["place"] for meaning in found} == {"marlin"} or len(found) == 2


def test_wake_phrase_is_said_as_it_is(tmp_path: Path) -> None:
    """What comes after it may be wrong, not the phrase."""
    path = tmp_path / "house.yaml"
    path.write_text(HOUSE)
    with Grammar(compile_grammar(load(path), wake.parse("hey (jarvis|mycroft)"))) as grammar:
        (meaning,) = repair(grammar, "Hey Jarvis, turn on the desk lamb.")
        assert (meaning.intent, meaning.woken) == ("On", True)
        assert repair(grammar, "Hey Jarvys, turn on the desk lamp.") == []
        assert repair(grammar, "Hey Jarvys") == []


def test_numbers_in_other_languages(make_grammar: MakeGrammar) -> None:
    """One in a long word is a number, too."""
    with make_grammar(
        "language: de\nintents:\n  T: {data: [{sentences: ['heize das wohnzimmer auf {grad} grad']}]}\n"
        "lists: {grad: {range: {from: 10, to: 30, step: 5}}}\n"
    ) as grammar:
        (meaning,) = repair(grammar, "Heize das Wohnzimer auf fünfundzwanzig Grad.")
        assert meaning.slots == {"grad": 25}
        assert repair(grammar, "Heize das Wohnzimmer auf fünfunddreißig Grad.") == []
        assert repair(grammar, "Heize das Wohnzimmer auf fünfundzwansig Grad.") == []
