"""What the scripts of bench/ are made of. The measuring itself needs recordings and is run by hand."""

from __future__ import annotations

import random
from pathlib import Path

from chatter import Chatter
from edgevoice import grammar_file, match
from edgevoice.grammar import compile_grammar
from edgevoice.native import Grammar

HOME = Path(__file__).parent.parent / "grammars" / "home.yaml"


def test_talk_holds_no_order() -> None:
    """No sentence of the synthetic talk is one of the shipped grammar, so accepting it is always wrong."""
    chatter, chance = Chatter(), random.Random(1)  # noqa: S311 (not for secrets)
    with Grammar(compile_grammar(grammar_file.load(HOME))) as grammar:
        for _ in range(300):
            for _, sentence in chatter.scene(chance, 10, 2):
                assert not match.interpret(grammar, sentence), sentence


def test_talk_is_the_same_for_the_same_seed() -> None:
    """A seed names a set of sentences."""
    scenes = [Chatter().scene(random.Random("1/7"), 12, 3) for _ in range(2)]  # noqa: S311
    assert scenes[0] == scenes[1]
    assert len(scenes[0]) == 12
    assert not any(mark in sentence for _, sentence in scenes[0] for mark in "()[]{}|")
