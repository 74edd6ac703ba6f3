"""What is known, from outside or from what is said, decides which sentences mean something, as in hassil."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil import Intents, recognize_best
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice import grammar, grammar_file, match
from edgevoice.errors import GrammarError
from edgevoice.native import Grammar
from tests.examples import examples

if TYPE_CHECKING:
    from pathlib import Path

HOME = """
language: en
skip_words: [please]
intents:
  TurnOn:
    data:
      - sentences: ["turn on [the] {name}", "[the] {name} on"]
        requires_context: {domain: [light, switch]}
      - sentences: ["turn on [the] light"]
        requires_context: {area: {slot: true}}
        slots: {domain: light}
      - sentences: ["turn on (everything|[the] lights) in [the] {area}"]
        requires_context: {floor: {value: upstairs, slot: storey}}
  Open:
    data:
      - sentences: ["open <thing>"]
        requires_context: {domain: cover}
        excludes_context: {device_class: [garage, gate]}
  Where:
    data:
      - sentences: ["where is [the] {name}"]
        excludes_context: {domain: light}
      - sentences: ["say [a] {word:@said} in [the] {area}"]
      - sentences: ["(find|seek|look for) [the] {name}"]
        required_keywords: [find, look]
expansion_rules:
  thing: "[the] {name}"
lists:
  name:
    values:
      - {in: desk lamp, out: light.desk, context: {domain: light}}
      - {in: TV, out: switch.tv, context: {domain: switch}}
      - {in: TV, out: media_player.tv, context: {domain: media_player}}
      - {in: garage door, context: {domain: cover, device_class: garage}}
      - {in: blind, context: {domain: cover}}
      - radio
  area:
    values: [kitchen, {in: bedroom, context: {floor: upstairs}}, {in: attic, context: {floor: roof}}]
  word:
    values: [joke, rhyme]
"""

TEXTS = [
    *(
        f"{before}{name}{after}"
        for before, after in (
            ("turn on the ", ""),
            ("", " on"),
            ("open the ", ""),
            ("where is the ", ""),
            ("find ", ""),
            ("seek ", ""),
            ("look for the ", ""),
        )
        for name in ("desk lamp", "TV", "garage door", "blind", "radio")
    ),
    "turn on the light",
    "please turn on light please",
    *(f"turn on everything in the {area}" for area in ("kitchen", "bedroom", "attic")),
    *(f"say a {word} in the {area}" for word in ("joke", "rhyme", "poem") for area in ("kitchen", "attic")),
]

KNOWN: list[dict[str, str]] = [{}, {"area": "kitchen"}, {"domain": "light"}, {"floor": "upstairs"}]


def load(text: str, folder: Path) -> grammar_file.GrammarFile:
    path = folder / "grammar.yaml"
    path.write_text(text)
    return grammar_file.load(path)


def best(intents: Intents, text: str, known: dict[str, str]) -> tuple[str, dict[str, Any]] | None:
    """What hassil makes of a text."""
    result = recognize_best(text, intents, intent_context=known)
    if result is None:
        return None
    values = {name: slot.value for name, slot in result.entities.items()}
    return result.intent.name, {
        name: value.strip() if isinstance(value, str) else value for name, value in values.items()
    }


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_contexts_decide_as_in_hassil(known: dict[str, str], tmp_path: Path) -> None:
    intents = Intents.from_dict(yaml.safe_load(HOME))
    with Grammar(grammar.compile_grammar(replace(load(HOME, tmp_path), context=known))) as opened:
        for text in TEXTS:
            expected = best(intents, text, known)
            found = match.interpret(opened, text)
            assert [(each.intent, each.slots) for each in found[:1]] == [expected] * bool(expected), text


def test_what_never_fits_cannot_be_found_by_the_decoder(tmp_path: Path) -> None:
    with Grammar(grammar.compile_grammar(load(HOME, tmp_path))) as opened:
        assert opened.match("turn on the desk lamp")
        for text in ("turn on the blind", "turn on radio", "open garage door", "where is the desk lamp"):
            assert not opened.match(text), text
        assert not opened.can_go_on("turn on the g")


def test_a_sentence_whose_context_nothing_gives_is_left_out_and_named(tmp_path: Path) -> None:
    file = load(HOME, tmp_path)
    left_out = [template.sentence.text for template in grammar.compile_grammar(file).unsayable]
    assert left_out == ["turn on [the] light"]
    assert not grammar.compile_grammar(replace(file, context={"area": "kitchen"})).unsayable


def test_what_is_known_becomes_a_slot_unless_it_is_said(tmp_path: Path) -> None:
    text = """
    language: en
    intents:
      Set:
        data:
          - sentences: ["(dim|dim in {area})"]
            requires_context: {area: {slot: true}}
            slots: {area: nowhere}
    lists: {area: {values: [kitchen]}}
    """
    with Grammar(
        grammar.compile_grammar(replace(load(text, tmp_path), context={"area": "Office"}))
    ) as opened:
        assert [each.slots for each in match.interpret(opened, "dim")] == [{"area": "Office"}]
        assert [each.slots for each in match.interpret(opened, "dim in kitchen")] == [{"area": "kitchen"}]


def test_a_grammar_of_which_nothing_can_be_said_is_refused(tmp_path: Path) -> None:
    text = """
    language: en
    intents: {A: {data: [{sentences: [go], requires_context: {area: null}}]}}
    """
    with pytest.raises(GrammarError, match="nothing can be said"):
        grammar.compile_grammar(load(text, tmp_path))


def test_a_rule_of_which_nothing_fits_takes_only_its_alternative_away(tmp_path: Path) -> None:
    text = """
    language: en
    intents:
      A:
        data:
          - sentences: ["turn on (<gadget>|all)"]
            requires_context: {domain: fan}
          - sentences: ["<gadget> off"]
    expansion_rules: {gadget: "[the] {name}"}
    lists:
      name: {values: [{in: lamp, context: {domain: light}}]}
      fan: {values: [{in: fan, context: {domain: fan}}]}
    """
    with pytest.raises(GrammarError, match=r"list \{fun\} is not defined"):
        grammar.compile_grammar(load(text.replace("|all)", "|all {fun})"), tmp_path))
    with Grammar(grammar.compile_grammar(load(text.replace("|all)", "|all {fan})"), tmp_path))) as opened:
        assert match.interpret(opened, "turn on all fan")
        assert match.interpret(opened, "the lamp off")
        assert not opened.match("turn on lamp")
        assert not opened.can_go_on("turn on the")


def test_rules_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    """Also where contexts are looked for."""
    rules = "".join(f"  r{i}: '<r{i + 1}>'\n" for i in range(900))
    text = (
        "language: en\n"
        "intents: {A: {data: [{sentences: ['<r0> {name}'], requires_context: {domain: light}}]}}\n"
        f"expansion_rules:\n{rules}  r900: go\n"
        "lists: {name: {values: [{in: lamp, context: {domain: light}}, {in: fan, context: {domain: fan}}]}}\n"
    )
    with pytest.raises(GrammarError, match="nest deeper than"):
        grammar.compile_grammar(load(text, tmp_path))


FACTS = st.dictionaries(st.sampled_from("ab"), st.sampled_from(["x", "y"]), max_size=2)
CONDITIONS = st.dictionaries(
    st.sampled_from("ab"),
    st.sampled_from(["x", "y", None, ["x", "y"], {"value": "x", "slot": "s"}, {"slot": True}]),
    max_size=2,
)


@given(
    blocks=st.lists(st.tuples(CONDITIONS, CONDITIONS), min_size=1, max_size=3),
    values=st.lists(FACTS, min_size=2, max_size=4),
    known=FACTS,
)
@settings(max_examples=examples(100), deadline=None)
def test_any_contexts_decide_as_in_hassil(
    blocks: list[tuple[dict[str, Any], dict[str, Any]]],
    values: list[dict[str, str]],
    known: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    words = [f"thing{'abcd'[i]}" for i in range(len(values))]
    data = {
        "language": "en",
        "intents": {
            f"I{i}": {
                "data": [
                    {
                        "sentences": [f"verb{'abc'[i]} [the] {{one}}", f"verb{'abc'[i]} {{one}} now <other>"],
                        "requires_context": requires,
                        "excludes_context": excludes,
                    }
                ]
            }
            for i, (requires, excludes) in enumerate(blocks)
        }
        | {"Always": {"data": [{"sentences": ["hello"]}]}},
        "expansion_rules": {"other": "(or {two}|then)"},
        "lists": {
            "one": {
                "values": [{"in": word, "context": facts} for word, facts in zip(words, values, strict=True)]
            },
            "two": {"values": [{"in": "later", "context": values[0]}, "sooner"]},
        },
    }
    intents = Intents.from_dict(data)
    file = load(yaml.safe_dump(data), tmp_path_factory.mktemp("grammar"))
    with Grammar(grammar.compile_grammar(replace(file, context=known))) as opened:
        for i, word in itertools.product(range(len(blocks)), words):
            for rest in ("", " now then", " now or later", " now or sooner"):
                text = f"verb{'abc'[i]} {word}{rest}"
                expected = best(intents, text, known)
                found = match.interpret(opened, text)
                assert [(each.intent, each.slots) for each in found] == [expected] * bool(expected), text
