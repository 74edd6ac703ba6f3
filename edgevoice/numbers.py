"""How numbers are said and written: the words hassil has, by unicode-rbnf, and other forms of transcripts.

Whisper writes "21.5", "21 and a half", "1,000", "the 3rd" for what was said in words.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from unicode_rbnf import FormatPurpose, RbnfEngine
from unicode_rbnf.engine import NoRuleForNumberError

from edgevoice.errors import GrammarError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HALVES: Final[dict[str, tuple[str, ...]]] = {
    "en": ("{} and a half",),
    "de": ("{}einhalb",),
    "fr": ("{} et demi", "{} et demie"),
    "es": ("{} y medio", "{} y media"),
    "it": ("{} e mezzo", "{} e mezza"),
    "nl": ("{} en een half", "{}eneenhalf"),
    "pt": ("{} e meio", "{} e meia"),
}
"""A whole number and a half; the number is 1 or more, in words or digits."""

_ALSO_SAID: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "en": (("hundred ", "hundred and "), ("one hundred", "a hundred"), ("one thousand", "a thousand")),
    "de": (("einhundert", "hundert"), ("eintausend", "tausend")),
    "nl": (("een", "één"),),
    "pt": (("dezesseis", "dezasseis"), ("dezessete", "dezassete"), ("dezenove", "dezanove")),
}
"""Beginnings and parts of number words, and what people say in their place."""

_ALSO_CALLED: Final = {"nb": "no"}
"""Languages whose words unicode-rbnf has under another code."""

_THOUSANDS: Final = {"en": ","}
"""Between groups of three digits."""

_ENGLISH_ORDINALS: Final = {1: "st", 2: "nd", 3: "rd"}
_TEENS: Final = range(11, 14)


def family(language: str) -> str:
    """Return "en" for "en-US"."""
    return language.split("-", maxsplit=1)[0].split("_", maxsplit=1)[0].lower()


def has_words(language: str) -> bool:
    """Whether number words of a language are known."""
    return _engine(language) is not None


@lru_cache(maxsize=50_000)
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


def number_texts(
    language: str, number: float, *, digits: bool, words: bool, fractions: bool
) -> tuple[str, ...]:
    """Return everything that a transcript may hold for a number of a range.

    Args:
        language: of the words.
        number: rounded to the last digit that counts.
        digits: whether it may be written in digits.
        words: whether it may be written in words, or in digits and words ("minus 5").
        fractions: whether the range has fractions; then 20 may be "20.0".

    Raises:
        GrammarError: when there are no number words for the language.
    """
    texts: list[str] = []
    if digits:
        texts += _in_digits(language, number, fractions=fractions)
    if words:
        texts += [text for said in number_words(language, number) for text in _also(language, said)]
        texts += _in_halves(language, number, digits=digits)
        if digits:
            texts += _in_digits_and_words(language, number)
        if number < 0 and digits and (minus := minus_word(language)):
            texts += [text.replace("-", f"{minus} ", 1) for text in texts if text[0] == "-"]
    return tuple(dict.fromkeys(texts))


def _in_digits(language: str, number: float, *, fractions: bool) -> Iterator[str]:
    digits = str(number)
    yield digits
    if "." in digits:
        yield digits.replace(".", ",")
    elif fractions:
        yield from (f"{digits}.0", f"{digits},0")
    if abs(number) >= 1000 and "." not in digits and (mark := _THOUSANDS.get(family(language))):
        yield f"{number:,}".replace(",", mark)


def _also(language: str, said: str) -> Iterator[str]:
    yield said
    for words, others in _ALSO_SAID.get(family(language), ()):
        if words in said:
            yield said.replace(words, others, 1)


def _in_halves(language: str, number: float, *, digits: bool) -> Iterator[str]:
    whole = int(number)
    if abs(number - whole) != 0.5 or whole == 0:
        return
    for form in _HALVES.get(family(language), ()):
        for said in number_words(language, whole):
            yield form.format(said)
        if digits and " " in form:
            yield form.format(whole)


def _in_digits_and_words(language: str, number: float) -> Iterator[str]:
    """Yield "21 point five" and "21 point 5"."""
    whole, _, fraction = str(number).partition(".")
    point = _point_word(language)
    if not fraction or not point:
        return
    yield f"{whole} {point} {fraction}"
    for said in number_words(language, int(fraction)):
        yield f"{whole} {point} {said}"


@cache
def minus_word(language: str) -> str:
    """Return the word before a negative number, such as "minus"; empty if the language has no such word.

    Raises:
        GrammarError: when there are no number words for the language.
    """
    one, negative = number_words(language, 1)[0], number_words(language, -1)[0]
    return negative.removesuffix(one).strip() if negative.endswith(f" {one}") else ""


@cache
def _point_word(language: str) -> str:
    """Return the word between a whole number and its fraction, such as "point"; empty if there is none."""
    zero, five, half = (number_words(language, number)[0] for number in (0, 5, 0.5))
    if half.startswith(f"{zero} ") and half.endswith(f" {five}"):
        return half[len(zero) : -len(five)].strip()
    return ""


def ordinals(language: str, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return an ordinal in words and in digits: ("third",) and ("3rd",); empty where it is not known."""
    forms: dict[str, tuple[str, ...]] = {
        "en": (_ENGLISH_ORDINALS.get(number % 10, "th") if number % 100 not in _TEENS else "th",),
        "fr": ("er", "re", "ère") if number == 1 else ("e", "ème"),
        "nl": ("e",),
    }
    endings, engine = forms.get(family(language)), _engine(language)
    if endings is None or engine is None:
        return (), ()
    said = engine.format_number(number, FormatPurpose.ORDINAL).text_by_ruleset.values()
    return tuple(dict.fromkeys(said)), tuple(f"{number}{ending}" for ending in endings)


@cache
def _engine(language: str) -> RbnfEngine | None:
    """Return the number engine of a language or its family ("en" for "en-US"), None when there is none."""
    for name in (language, family(language), _ALSO_CALLED.get(family(language), language)):
        try:
            engine = RbnfEngine.for_language(name)
        except (ValueError, OSError):  # OSError: a name too long for the file it would be in
            continue
        if engine.rulesets:  # some languages are there by name only
            return engine
    return None
