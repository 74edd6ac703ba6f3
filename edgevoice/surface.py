"""How the words of a grammar may look in a transcript: data per language, used by the compiler.

Whisper writes "12-ounce" for "twelve ounce", "50%" for "fifty percent", "what's" for "what is". An
automaton that accepts only the words as written in the grammar throws probability away, so each
phrase below is accepted in all its spellings. Upper and lower case, separators between words and
final punctuation are the automaton's own business (csrc/automaton.h).
"""

from __future__ import annotations

from functools import cache
from typing import Final

from unicode_rbnf import RbnfEngine
from unicode_rbnf.engine import NoRuleForNumberError

from edgevoice.errors import GrammarError

_LARGEST_NUMBER: Final = 100
"""Numbers inside ordinary words of a grammar ("twelve ounce", "channel 5"); larger ones use a range."""

_CONTRACTIONS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "en": (
        ("what is", "what's"),
        ("how is", "how's"),
        ("where is", "where's"),
        ("who is", "who's"),
        ("that is", "that's"),
        ("it is", "it's"),
        ("i would", "i'd"),
        ("i will", "i'll"),
        ("i am", "i'm"),
        ("i have", "i've"),
        ("do not", "don't"),
        ("is not", "isn't"),
        ("let us", "let's"),
        ("okay", "ok"),
        ("color", "colour"),
        ("gray", "grey"),
    ),
    "de": (
        ("in das", "ins"),
        ("in dem", "im"),
        ("an das", "ans"),
        ("an dem", "am"),
        ("wie geht es", "wie geht's"),
    ),
    "fr": (("s'il te plaît", "s'il te plait"), ("s'il vous plaît", "s'il vous plait")),
}

_SYMBOLS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "en": (("percent", "%"), ("per cent", "%"), ("degrees", "°"), ("degree", "°")),
    "de": (("prozent", "%"), ("grad", "°")),
    "fr": (("pour cent", "%"), ("degrés", "°"), ("degré", "°")),
    "es": (("por ciento", "%"), ("grados", "°"), ("grado", "°")),
    "it": (("per cento", "%"), ("percento", "%"), ("gradi", "°"), ("grado", "°")),
    "nl": (("procent", "%"), ("graden", "°"), ("graad", "°")),
    "pt": (("por cento", "%"), ("graus", "°"), ("grau", "°")),
}
"""Words and the sign that stands for them directly behind a number."""


@cache
def spellings(language: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return, for each phrase (its words in lower case), the other ways a transcript may write it.

    A spelling that starts with a sign of `glued_signs` needs no separator before it.
    """
    family = language.split("-", maxsplit=1)[0].split("_", maxsplit=1)[0].lower()
    found: dict[tuple[str, ...], list[str]] = {}
    for table in (_CONTRACTIONS, _SYMBOLS):
        for one, other in table.get(family, ()):
            found.setdefault(tuple(one.split()), []).append(other)
            if other not in GLUED_SIGNS:
                found.setdefault(tuple(other.split()), []).append(one)
    if _engine(language) is not None:
        for number in range(_LARGEST_NUMBER + 1):
            for words in number_words(language, number):
                key = tuple(words.replace("-", " ").split())
                found.setdefault(key, []).append(str(number))
                found.setdefault((str(number),), []).append(" ".join(key))
    return {key: tuple(dict.fromkeys(values)) for key, values in found.items()}


GLUED_SIGNS: Final = frozenset({"%", "°"})
"""Signs written directly behind a number."""


def number_words(language: str, number: float) -> tuple[str, ...]:
    """Return the ways to say a number, by unicode-rbnf as hassil uses it; none if they are not known.

    Raises:
        GrammarError: when there are no number words for the language.
    """
    engine = _engine(language)
    if engine is None:
        raise GrammarError(
            f"there are no number words for language {language!r}; set 'words: false' in the range, or "
            "'words_language' to a related language"
        )
    if number < 0 and not float(number).is_integer():  # unicode-rbnf says "minus five" for -5.9
        minus = minus_word(language)
        return tuple(f"{minus} {words}" for words in number_words(language, -number)) if minus else ()
    try:
        return tuple(dict.fromkeys(engine.format_number(number).text_by_ruleset.values()))
    except NoRuleForNumberError:
        raise GrammarError(f"{number} has no words in language {language!r}; set 'words: false'") from None


@cache
def minus_word(language: str) -> str:
    """Return the word before a negative number, such as "minus"; empty if the language has no such word.

    Raises:
        GrammarError: when there are no number words for the language.
    """
    one, negative = number_words(language, 1)[0], number_words(language, -1)[0]
    return negative.removesuffix(one).strip() if negative.endswith(f" {one}") else ""


@cache
def _engine(language: str) -> RbnfEngine | None:
    """Return the number engine of a language or its family ("en" for "en-US"), None when there is none."""
    for name in (language, language.replace("_", "-").split("-", maxsplit=1)[0]):
        try:
            return RbnfEngine.for_language(name)
        except (ValueError, OSError):  # OSError: a name too long for the file it would be in
            continue
    return None
