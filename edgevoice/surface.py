"""How the words of a grammar may look in a transcript: data per language, used by the compiler.

Whisper writes "12-ounce" for "twelve ounce", "50%" for "fifty percent", "what's" for "what is". An
automaton that accepts only the words as written in the grammar throws probability away, so each
phrase below is accepted in all its spellings. Upper and lower case, separators between words and
final punctuation are the automaton's own business (csrc/automaton.h).
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Final

from edgevoice.numbers import family, has_words, number_words, ordinals

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_NUMBER: Final = 100
"""Numbers inside ordinary words ("twelve ounce", "channel 5", "the third"); larger ones use a range."""

_CONTRACTIONS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "en": (
        ("what is", "what's"),
        ("what are", "what're"),
        ("what will", "what'll"),
        ("when is", "when's"),
        ("how is", "how's"),
        ("where is", "where's"),
        ("who is", "who's"),
        ("that is", "that's"),
        ("there is", "there's"),
        ("here is", "here's"),
        ("it is", "it's"),
        ("he is", "he's"),
        ("she is", "she's"),
        ("i would", "i'd"),
        ("i will", "i'll"),
        ("i am", "i'm"),
        ("i have", "i've"),
        ("we are", "we're"),
        ("we have", "we've"),
        ("you are", "you're"),
        ("they are", "they're"),
        ("do not", "don't"),
        ("does not", "doesn't"),
        ("did not", "didn't"),
        ("is not", "isn't"),
        ("are not", "aren't"),
        ("was not", "wasn't"),
        ("will not", "won't"),
        ("can not", "can't"),
        ("cannot", "can't"),
        ("cannot", "can not"),
        ("let us", "let's"),
        ("okay", "ok"),
        ("color", "colour"),
        ("colors", "colours"),
        ("gray", "grey"),
        ("favorite", "favourite"),
        ("center", "centre"),
        ("theater", "theatre"),
    ),
    "de": (
        ("in das", "ins"),
        ("in dem", "im"),
        ("an das", "ans"),
        ("an dem", "am"),
        ("auf das", "aufs"),
        ("für das", "fürs"),
        ("bei dem", "beim"),
        ("von dem", "vom"),
        ("zu dem", "zum"),
        ("zu der", "zur"),
        ("wie geht es", "wie geht's"),
        ("gibt es", "gibt's"),
    ),
    "fr": (
        ("s'il te plaît", "s'il te plait"),
        ("s'il vous plaît", "s'il vous plait"),
        ("et demie", "et demi"),
        ("à", "a"),
    ),
    "es": (
        ("qué", "que"),
        ("cuál", "cual"),
        ("cuánto", "cuanto"),
        ("cuántos", "cuantos"),
    ),
    "it": (("come è", "com'è"), ("dove è", "dov'è"), ("cosa è", "cos'è"), ("quale è", "qual è")),
    "nl": (("zo een", "zo'n"), ("het", "'t")),
    "pt": (("à", "a"),),
}
"""Two ways to write the same, each accepted for the other."""

_SYMBOLS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "en": (
        ("percent", "per cent", "%"),
        ("degrees", "°"),
        ("degree", "°"),
        ("degrees celsius", "°c"),
        ("degrees fahrenheit", "°f"),
    ),
    "de": (("prozent", "%"), ("grad", "°", "°c"), ("grad celsius", "°c")),
    "fr": (
        ("pour cent", "pourcent", "%"),
        ("degrés", "°", "°c"),
        ("degré", "°", "°c"),
        ("degrés celsius", "°c"),
    ),
    "es": (
        ("por ciento", "%"),
        ("grados", "°", "º", "°c", "ºc"),
        ("grado", "°", "º", "°c", "ºc"),
        ("grados celsius", "°c"),
    ),
    "it": (
        ("per cento", "percento", "%"),
        ("gradi", "°", "°c"),
        ("grado", "°", "°c"),
        ("gradi celsius", "°c"),
    ),
    "nl": (("procent", "%"), ("graden", "°", "°c"), ("graad", "°", "°c"), ("graden celsius", "°c")),
    "pt": (
        ("por cento", "%"),
        ("graus", "°", "º", "°c", "ºc"),
        ("grau", "°", "º", "°c", "ºc"),
        ("graus celsius", "°c"),
    ),
}
"""Words and the sign that stands for them directly behind a number, each accepted for the others."""


_OPENING_MARKS: Final[dict[str, tuple[str, ...]]] = {"es": ("¿", "¡")}
_CLOSING_MARKS: Final[dict[str, tuple[str, ...]]] = {"fr": (" ?", " !")}


def opening_marks(language: str) -> tuple[str, ...]:
    """Return the marks that may stand before the first word of a sentence."""
    return _OPENING_MARKS.get(family(language), ())


def closing_marks(language: str) -> tuple[str, ...]:
    """Return the marks after the last word that are not written directly behind it."""
    return _CLOSING_MARKS.get(family(language), ())


@cache
def spellings(language: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return, for each phrase (its words in lower case), the other ways a transcript may write it.

    A spelling that starts with one of GLUED_SIGNS needs no separator before it.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for pair in _pairs(language):
        keys = [tuple(text.replace("-", " ").lower().split()) for text in pair]
        for key, other in zip(keys, reversed(keys), strict=True):
            found.setdefault(key, []).append(" ".join(other))
    return {key: tuple(dict.fromkeys(values)) for key, values in found.items()}


def _pairs(language: str) -> Iterator[tuple[str, str]]:
    yield from _CONTRACTIONS.get(family(language), ())
    for group in _SYMBOLS.get(family(language), ()):
        yield from itertools.combinations(group, 2)
    if not has_words(language):
        return
    for number in range(_LARGEST_NUMBER + 1):
        yield from ((words, str(number)) for words in number_words(language, number))
    for number in range(1, _LARGEST_NUMBER + 1):
        yield from itertools.product(*ordinals(language, number))


LETTERS: Final = {"ß": "ss", "œ": "oe"}
"""Letters that may be written as two."""

GLUED_SIGNS: Final = frozenset({"%", "°", "º"})
"""Signs written directly behind a number."""
