"""The sentences of a grammar nearest to a text: what to say of one that is not understood.

csrc/nearest.h has the search and the costs. In short, in letters: 1 for each letter more, less or other, half
of that if both sound alike or two changed places, twice that where a word begins, up to a quarter of the word
and 1.25. A word that would cost more, or that the grammar knows, is another word: 3, and so is one too
many or one missing; articles and the like cost 0.5, a space 0.25. A number, in digits or words, and a "not"
are right or there is no sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgevoice import match
from edgevoice.grammar_file import EDGE_PUNCTUATION

if TYPE_CHECKING:
    from edgevoice.events import Interpretation
    from edgevoice.native import Grammar

MAX_COST: Final = 9.0
"""Three wrong words: what is further away explains nothing."""

MAX_WORK: Final = 20_000
"""Letters compared and steps made: with 2,000 names at most some 0.1 s, mostly far less."""

_VARIANTS: Final = 8
"""Sentences asked for each one wanted: many differ in an article only."""

_MOST: Final = 64
"""Sentences that the search gives."""

_AROUND_WORDS: Final = EDGE_PUNCTUATION + '"“”„«»()[]{}…\u2013\u2014*'


@dataclass(frozen=True, slots=True)
class Near:
    """A sentence near a text."""

    text: str
    """Words that were changed or added are the grammar's, the others as they were written."""

    cost: float
    """Letters; 0: the text itself."""

    interpretation: Interpretation
    """Its meaning; the first, if the grammar gives it several."""


def nearest(grammar: Grammar, text: str, n: int = 3, max_cost: float = MAX_COST) -> list[Near]:
    """Return the nearest sentences, cheapest first, one for each meaning; up to n.

    Fewer, or none, if others cost more than max_cost or more time than MAX_WORK stands for.
    """
    found: list[Near] = []
    for near_text, cost in grammar.nearest(
        words(text), max_cost, min(_MOST, n * _VARIANTS), MAX_WORK
    ).sentences:
        for meaning in match.interpret(grammar, near_text)[:1]:
            if not any(same_meaning(meaning, other.interpretation) for other in found):
                found.append(Near(near_text, cost, meaning))
    return found[:n]


def same_meaning(one: Interpretation, other: Interpretation) -> bool:
    """Whether two sentences ask for the same."""
    return one.intent == other.intent and one.slots == other.slots


def words(text: str) -> str:
    """Return a text as its words and single spaces, without punctuation around them."""
    printable = "".join(
        " " if character.isspace() or not character.isprintable() else character for character in text
    )
    return " ".join(filter(None, (word.strip(_AROUND_WORDS) for word in printable.split())))
