"""Repair: the meaning of a text that is nearly a sentence of the grammar.

Whisper in the modes "prompt" and "free", and people who type, write "lamb" for "lamp" and "floorlamp" for
"floor lamp". Such a text is taken for the nearest sentence if that is near enough for its length and nothing
that means something else is nearly as near. What is never changed, whatever it costs, is in nearest.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgevoice import match
from edgevoice.nearest import MAX_WORK, same_meaning, words

if TYPE_CHECKING:
    from edgevoice.events import Interpretation
    from edgevoice.native import Grammar

COST_PER_WORD: Final = 0.4
"""Letters that a sentence may be wrong in, for each of its words outside free text. bench/repair.py has what
others would do."""

COST_PER_WORD_AND_FREE_TEXT: Final = 0.2
"""The same where there is free text: anything fits into that, so the rest must fit better."""

MAX_COST: Final = 2.0
"""Letters, however long the sentence is."""

NEAR_TIE: Final = 0.5
"""Letters between the nearest sentence and one that means something else, at least."""

_VARIANTS: Final = 24
"""Sentences looked at; those that mean the same are many, as "the" may be missing anywhere."""


def repair(grammar: Grammar, text: str, score: float = 0.0) -> list[Interpretation]:
    """Return what a text means, or would mean with its mistakes put right; none if that is not clear.

    Meanings of `cost` 0 are the text's own, as match.interpret() has them, in the order of the grammar. Of
    others the first is the nearest; if there are more, they are nearly as near and the text is ambiguous.
    """
    if exact := match.interpret(grammar, text, score):
        return exact
    found = grammar.nearest(words(text), MAX_COST + NEAR_TIE, _VARIANTS, MAX_WORK)
    if not found.sentences:
        return []
    near_text, least = found.sentences[0]
    if least > min(MAX_COST, _allowed(grammar, near_text)):
        return []
    if not _is_called(grammar, text, near_text):
        return []
    if found.searched < least + NEAR_TIE:
        return []  # something as near may not have been found
    meanings: list[Interpretation] = []
    for other_text, cost in found.sentences:
        if cost >= least + NEAR_TIE:
            break
        for meaning in match.interpret(grammar, other_text, score):
            if not any(same_meaning(meaning, known) for known in meanings):
                meanings.append(replace(meaning, cost=cost))
    return meanings


def differ(one: Interpretation, other: Interpretation) -> bool:
    """Whether a text that means both is ambiguous: two intents, or two ways to put its mistakes right."""
    return other.intent != one.intent or other.cost > 0


def _allowed(grammar: Grammar, text: str) -> float:
    """Return what a sentence may cost by its words outside free text."""
    data = text.encode()
    free = match.free_text(grammar, text)
    for start, end in reversed(free):
        data = data[:start] + b" " + data[end:]
    return (COST_PER_WORD_AND_FREE_TEXT if free else COST_PER_WORD) * len(data.split())


def _is_called(grammar: Grammar, text: str, near_text: str) -> bool:
    """Whether the wake phrase, if the sentence has one, was written as it is: nobody is woken by mistake."""
    said = words(text).encode().lower()
    return all(
        said.startswith(near_text.encode()[:end].strip(b" ,-").lower())
        for _, end in match.wake_phrase(grammar, near_text)
    )
