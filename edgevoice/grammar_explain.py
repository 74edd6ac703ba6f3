"""Why a sentence is understood, or how far it gets and what could have come next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgevoice import match
from edgevoice.grammar import compile_traced, plain_text
from edgevoice.native import Grammar
from edgevoice.nearest import nearest

if TYPE_CHECKING:
    from edgevoice.events import Interpretation
    from edgevoice.grammar import TracedGrammar
    from edgevoice.grammar_file import GrammarFile, Template
    from edgevoice.nearest import Near

MAX_WORDS: Final = 20
"""Of those that could come next."""

MAX_NEAR: Final = 3
"""Sentences near a text that is none."""

MAX_NEAR_COST: Final = 2.0
"""Letters in which they differ: "teh light" for "the light", not for "the fan"."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sentence means, and the template that says so."""

    meaning: Interpretation
    template: Template


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a grammar makes of a text."""

    text: str
    readings: tuple[Reading, ...]
    """In the order of the grammar; none: it is no sentence."""

    reached: str
    """The part of a text that begins a sentence, whole words in lower case; all of it if more must follow."""

    rest: str
    next_words: tuple[str, ...]
    """After that part, at most MAX_WORDS."""

    next_lists: tuple[str, ...]
    """Names of lists of which a value could be next."""

    more: bool
    """There are more such words."""

    near: tuple[Near, ...]
    """The nearest sentences to a text that is none."""


def explain(file: GrammarFile, text: str) -> Explanation:
    """Look for a text in a grammar.

    Raises:
        GrammarError: the grammar cannot be compiled.
    """
    traced = compile_traced(file)
    with Grammar(traced.compiled) as grammar:
        return explain_with(traced, grammar, text)


def explain_with(traced: TracedGrammar, grammar: Grammar, text: str) -> Explanation:
    """Look for a text in a grammar that is compiled and open."""
    readings = tuple(
        Reading(meaning, traced.templates[block]) for block, meaning in match.with_blocks(grammar, text)
    )
    plain = plain_text(text)
    ahead = grammar.ahead(plain, tuple(traced.lists), MAX_WORDS)
    # Not those that take what was said for free text, which anything can be.
    near = [
        each
        for each in nearest(grammar, text, 2 * MAX_NEAR, MAX_NEAR_COST)
        if not match.free_text(grammar, each.text)
    ]
    return Explanation(
        text=text,
        readings=readings,
        reached=ahead.reached,
        rest=plain[len(ahead.reached) :].strip(),
        next_words=ahead.words,
        next_lists=tuple(dict.fromkeys(traced.lists[network] for network in ahead.networks)),
        more=ahead.more,
        near=() if readings else tuple(near[:MAX_NEAR]),
    )
