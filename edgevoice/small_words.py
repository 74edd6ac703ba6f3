"""What is known of languages to tell which sentence of a grammar a wrong text was: data per language.

Words that carry no order of their own, the most frequent ones of a language, are what speakers and Whisper
leave out or put in. A preposition may be missing ("set a timer ten minutes"), but one too many speaks of
something that the grammar has not ("a latte with"). Words that turn an order into another one are in neither
table: not, on, off, up, down, out, in German an, aus, auf, zu.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from edgevoice.errors import GrammarError
from edgevoice.numbers import family, has_words, number_words, ordinals

ALIKE: Final = (
    # All vowels: the unstressed ones are one sound in speech, and Whisper and typists take one for the other.
    "aeiouyàáâãäåèéêëìíîïòóôõöøùúûüýæœ",
    "bp",  # voiced and unvoiced consonants of one place in the mouth
    "dt",
    "gk",
    "szç",
    "fv",
    "ckqç",
    "vw",
    "cs",
    "gj",
    "mn",
    "nñ",
    "sß",
)
"""Groups of letters that sound alike."""

SILENT: Final = "eh"
"""Letters often written and not heard: "whole", "rhythm"."""

ENDINGS: Final = "dt"
"""Not heard where a word ends: "ice" for "iced", "roas" for "roast"."""

SPELLINGS: Final = (("f", "ph"), ("k", "ch"), ("ck", "ch"), ("x", "ks"), ("ß", "ss"), ("er", "a"))
"""One sound, two ways to write it; at most two letters each."""

_ARTICLES: Final = {
    "en": "a an the",
    "de": "der die das den dem des",
    "fr": "le la les l'",
    "es": "el la los las",
    "it": "il lo la i gli le",
    "nl": "de het",
    "pt": "o a os as",
}
_LINKS: Final = {
    "en": "to for of with and i",
    "de": "für von mit und im am",
    "fr": "de du des à au pour avec",
    "es": "de del al para con y",
    "it": "di del della al alla per con e",
    "nl": "van met en voor",
    "pt": "de do da para com e",
}
_FILLERS: Final = {
    "en": "um uh er hmm",
    "de": "äh ähm hm",
    "fr": "euh hum",
    "es": "eh em",
    "it": "ehm",
    "nl": "eh uhm",
    "pt": "hum",
}


def missing(language: str) -> list[str]:
    """Return small words that a text may lack; none for a language that is not known."""
    code = family(language)
    return f"{_ARTICLES.get(code, '')} {_LINKS.get(code, '')}".split()


def spare(language: str) -> list[str]:
    """Return small words that a text may have too many."""
    code = family(language)
    return f"{_ARTICLES.get(code, '')} {_FILLERS.get(code, '')}".split()


_NUMBERS: Final = (*range(101), 200, 1000, 2000, 1_000_000, -1, 0.5)
"""Of which all others are made, in languages that write them apart; others hold these in their words."""


_NEGATIONS: Final = {
    "en": "not no never none nothing without don't doesn't didn't can't cannot couldn't won't wouldn't isn't",
    "de": "nicht nichts nie niemals kein keine keinen ohne",
    "fr": "ne n' pas jamais rien aucun sans",
    "es": "no nunca nada ningún sin",
    "it": "non mai niente nessun senza",
    "nl": "niet niets nooit geen zonder",
    "pt": "não nunca nada nenhum sem",
}


@cache
def kept(language: str) -> frozenset[str]:
    """Return what is never taken for anything else, in lower case: words of numbers, and those that deny."""
    return _numbers(language) | frozenset(_NEGATIONS.get(family(language), "").split())


def _numbers(language: str) -> frozenset[str]:
    if not has_words(language):
        return frozenset()
    said: list[str] = []
    for number in _NUMBERS:
        try:
            said += number_words(language, number)
        except GrammarError:  # a language without this one
            continue
    for number in range(1, 101):
        said += ordinals(language, number)[0]
    return frozenset(word for text in said for word in text.lower().replace("-", " ").split())
