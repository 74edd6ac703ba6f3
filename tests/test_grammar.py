"""Sentence templates become a network that stays small, in the arcs that C understands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from edgevoice._native import lib

from edgevoice import grammar, grammar_file, match, native
from edgevoice.errors import GrammarError
from edgevoice.grammar import SlotClose, SlotOpen, SlotValue
from edgevoice.recognise import shipped_grammar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeGrammar

COMPILE_LIMIT_S = 1.0  # for 2,000 names in 40 templates


def compile_text(folder: Path, text: str) -> grammar.CompiledGrammar:
    path = folder / "grammar.yaml"
    path.write_text(text, encoding="utf-8")
    return grammar.compile_grammar(grammar_file.load(path))


def house(n_names: int, n_templates: int) -> str:
    """A grammar of many device names, each of which fits each of many templates, and a number."""
    names = "\n".join(f"      - gadget {i} of floor {i % 7}" for i in range(n_names))
    templates = "\n".join(f'          - "verb{i} [the] {{name}} to {{level}}"' for i in range(n_templates))
    return (
        f"language: en\nintents:\n  Act:\n    data:\n      - sentences:\n{templates}\n"
        f"lists:\n  name:\n    values:\n{names}\n  level:\n    range: {{from: 0, to: 100}}\n"
    )


def test_arc_kinds_are_those_of_the_c_header() -> None:
    """The compiler and C number the arcs alike, and neither knows one that the other does not."""
    names = ("BYTE", "GLUE", "EPSILON", "SEPARATOR", "CALL", "RETURN", "LABEL", "ACCEPT", "RANGE")
    ours = [getattr(grammar, name) for name in names]
    assert ours == [getattr(lib, f"EV_ARC_{name}") for name in names]
    assert len(names) == native.ARC_KINDS


def test_tables_are_consistent(tmp_path: Path) -> None:
    """Each arc belongs to one node, targets and called nodes exist, labels and blocks are in their tables."""
    compiled = compile_text(tmp_path, house(50, 5))
    kind, value, target = compiled.arcs.T
    n_nodes = len(compiled.first_arc) - 1
    assert compiled.first_arc[0] == 0
    assert compiled.first_arc[-1] == len(compiled.arcs)
    assert (np.diff(compiled.first_arc.astype(np.int64)) >= 0).all()
    assert (target < n_nodes).all()
    assert (value[kind == grammar.CALL] < n_nodes).all()
    assert (value[kind == grammar.LABEL] < len(compiled.labels)).all()
    assert (value[kind == grammar.ACCEPT] < len(compiled.blocks)).all()
    assert (value[(kind == grammar.BYTE) | (kind == grammar.GLUE)] < 256).all()


def test_size_grows_with_names_plus_templates(tmp_path: Path) -> None:
    """A list exists once, however many templates use it: the network is linear, not a product."""

    def arcs(n_names: int, n_templates: int) -> int:
        return len(compile_text(tmp_path, house(n_names, n_templates)).arcs)

    both = arcs(2000, 40)
    names_alone, templates_alone, neither = arcs(2000, 1), arcs(1, 40), arcs(1, 1)
    assert both == names_alone + templates_alone - neither
    assert names_alone < 2000 * 30  # a name has at most 26 bytes


def test_blocks_with_rules_of_their_own_share_the_lists_of_the_file(tmp_path: Path) -> None:
    """A list that a block does not redefine is not compiled again for that block."""

    def arcs(n_blocks: int) -> int:
        blocks = "\n".join(
            f"      - sentences: ['verb{i} <it>']\n        expansion_rules: {{it: 'the {{name}}'}}"
            for i in range(n_blocks)
        )
        names = "\n".join(f"      - gadget {i}" for i in range(500))
        text = f"language: en\nintents:\n  Act:\n    data:\n{blocks}\nlists:\n  name:\n    values:\n{names}\n"
        return len(compile_text(tmp_path, text).arcs)

    assert arcs(20) < 2 * arcs(1)


def test_large_grammar_compiles_and_loads_in_a_second(tmp_path: Path) -> None:
    """2,000 names, 40 templates and a range of numbers: 8 million sentences, no expansion."""
    path = tmp_path / "grammar.yaml"
    path.write_text(house(2000, 40), encoding="utf-8")
    file = grammar_file.load(path)
    started_s = time.process_time()
    compiled = grammar.compile_grammar(file)
    assert time.process_time() - started_s < COMPILE_LIMIT_S
    with native.Grammar(compiled) as opened:
        (meaning,) = match.interpret(opened, "verb39 the gadget 1999 of floor 4 to fifty-seven")
    assert meaning.slots == {"name": "gadget 1999 of floor 4", "level": 57}


def test_names_that_begin_alike_share_states(tmp_path: Path) -> None:
    """Also when a word of them has a second spelling, "gadget 12"; so a text has few readings in progress."""
    few, many = (len(compile_text(tmp_path, house(n, 1)).arcs) for n in (100, 1100))
    assert (many - few) / 1000 < 20  # most of "of floor 4" with its spellings; whole names have 40


def test_slots_are_labelled_open_value_close(tmp_path: Path) -> None:
    """A list leaves three labels on its path: the slot opens, a value is chosen, the slot closes."""
    compiled = compile_text(
        tmp_path,
        "language: en\nintents: {A: {data: [{sentences: ['on {x:y}']}]}}\n"
        "lists: {x: {values: [lamp, {in: fan, out: 1}, {in: '(tv|telly)'}]}}\n",
    )
    assert set(map(repr, compiled.labels)) == set(
        map(repr, (SlotOpen("y"), SlotClose("y"), SlotValue("lamp"), SlotValue(1), SlotValue(None)))
    )


def test_rules_that_nest_too_deep_are_refused_at_once(tmp_path: Path) -> None:
    """What could not be run is refused when it is compiled, not at every recognition afterwards."""
    rules = "\n".join(f"  r{i}: go <r{i + 1}>" for i in range(100))
    text = (
        "language: en\nintents: {A: {data: [{sentences: ['<r0>']}]}}\n"
        f"expansion_rules:\n{rules}\n  r100: home\n"
    )
    with pytest.raises(GrammarError, match="nest"):
        compile_text(tmp_path, text)


def test_a_block_has_its_own_lists_and_rules(make_grammar: MakeGrammar) -> None:
    """Names local to a block go before those of the file, there and only there."""
    opened = make_grammar(
        "language: en\nintents:\n  A:\n    data:\n"
        "      - sentences: ['local {thing} <way>']\n"
        "        lists: {thing: {values: [cup]}}\n"
        "        expansion_rules: {way: here}\n"
        "      - sentences: ['global {thing} <way>']\n"
        "lists: {thing: {values: [jug]}}\n"
        "expansion_rules: {way: there}\n"
    )
    accepted = [
        text
        for scope in ("local", "global")
        for thing in ("cup", "jug")
        for way in ("here", "there")
        if match.interpret(opened, text := f"{scope} {thing} {way}")
    ]
    assert accepted == ["local cup here", "global jug there"]


def test_rule_of_the_file_that_uses_a_list_of_a_block(make_grammar: MakeGrammar) -> None:
    """As in hassil, a shared rule sees the lists of the block that uses it."""
    opened = make_grammar(
        "language: en\nintents:\n  A:\n    data:\n"
        "      - sentences: ['take <it>']\n        lists: {thing: {values: [cup]}}\n"
        "      - sentences: ['leave <it>']\n"
        "lists: {thing: {values: [jug]}}\n"
        "expansion_rules: {it: 'the {thing}'}\n"
    )
    texts = ("take the cup", "take the jug", "leave the cup", "leave the jug")
    assert [bool(match.interpret(opened, text)) for text in texts] == [True, False, False, True]


@pytest.mark.parametrize(
    "arcs",
    [
        pytest.param([[99, 0, 0]], id="unknown kind"),
        pytest.param([[grammar.BYTE, 97, 7]], id="target outside"),
        pytest.param([[grammar.BYTE, 0x10000, 0]], id="neither one byte nor two"),
        pytest.param([[grammar.CALL, 7, 0]], id="call outside"),
        pytest.param([[grammar.LABEL, 2**31, 0]], id="label above int32"),
    ],
)
def test_c_refuses_tables_that_contradict_themselves(tmp_path: Path, arcs: list[list[int]]) -> None:
    """Whatever the tables say, opening them is an error and not a crash."""
    good = compile_text(tmp_path, house(1, 1))
    bad = grammar.CompiledGrammar(
        good.file, np.array(arcs, np.uint32), np.array([0, len(arcs)], np.uint32), (), good.blocks
    )
    with pytest.raises(GrammarError, match="out of range"):
        native.Grammar(bad)


@pytest.mark.parametrize("first", [[1, 1], [0, 5], [0, 2, 1]], ids=["start", "end", "order"])
def test_c_refuses_a_wrong_index_of_arcs(tmp_path: Path, first: list[int]) -> None:
    """first_arc must run from 0 to the number of arcs without going back."""
    good = compile_text(tmp_path, house(1, 1))
    arcs = np.array([[grammar.EPSILON, 0, 0]], np.uint32)
    bad = grammar.CompiledGrammar(good.file, arcs, np.array(first, np.uint32), (), good.blocks)
    with pytest.raises(GrammarError, match="first_arc"):
        native.Grammar(bad)


def test_network_that_calls_itself_for_ever_is_an_error(tmp_path: Path) -> None:
    """Tables that the compiler would never write end in an error within bounds."""
    good = compile_text(tmp_path, house(1, 1))
    endless = grammar.CompiledGrammar(
        good.file,
        np.array([[grammar.CALL, 0, 0], [grammar.BYTE, ord("a"), 0]], np.uint32),
        np.array([0, 2], np.uint32),
        (),
        good.blocks,
    )
    with native.Grammar(endless) as opened, pytest.raises(GrammarError, match="nests"):
        opened.match("a")


class TestCanGoOn:
    """Whether more words of the grammar can follow decides how long a pause ends a command."""

    TEXT = """
language: en
intents:
  Light:
    data:
      - sentences:
          - "turn (on|off) the {what} [in the <room>]"
          - "set the brightness to {level}[%]"
          - "good night"
          - "add {item} to the list"
lists:
  what: {values: [lamp, lights, "lamp post"]}
  level: {range: {from: 1, to: 100}}
  item: {wildcard: true}
expansion_rules: {room: "(kitchen|living room)"}
skip_words: [please]
"""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", True),
            ("Turn", True),
            ("turn on", True),
            ("Turn on the lights", True),
            ("turn on the lamp", True),  # post
            ("turn on the light", False),  # the rest of a word is no pause
            ("turn on the lights in the living", True),
            ("Turn off the lights in the kitchen", False),
            ("please turn off the lights in the kitchen", False),  # another "please" means nothing
            ("Turn off the lights in the kitchen.", False),
            ("good night", False),
            ("Good", True),
            ("set the brightness to 50", True),  # percent
            ("set the brightness to 50%", False),
            ("set the brightness to twenty", True),
            ("add", True),
            ("add milk", True),
            ("add milk to the list", True),  # of what is still the item
            ("play music", False),
            ("turn on please the", True),
        ],
    )
    def test_texts(self, make_grammar: MakeGrammar, text: str, expected: bool) -> None:
        """Words may follow, or none of the grammar."""
        with make_grammar(self.TEXT) as opened:
            assert opened.can_go_on(text) is expected

    def test_what_goes_on_does(self) -> None:
        """Every beginning of a sentence of the home grammar can go on where its words do."""
        home = grammar_file.load(shipped_grammar())
        with native.Grammar(grammar.compile_grammar(home)) as opened:
            for example in home.examples:
                words = example.say.split()
                skipped = any(word in example.say.lower() for word in home.skip_words)
                if opened.match(example.say) and not skipped:
                    for i in range(1, len(words)):
                        assert opened.can_go_on(" ".join(words[:i]).rstrip(",")), words[:i]
