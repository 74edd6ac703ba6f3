"""How alike words sound, by their letters: a rule of thumb for languages in Latin script.

A word becomes a row of sounds ("light" -> lit, "knight" -> nit). Two words differ by what it costs to turn
the one row into the other: 1 for a sound more, less or another one, half as much where a hearer is easily
wrong: a vowel or an h, or two consonants that are made in the same place (b p, d t, f v, m n, ...).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edgevoice.numbers import has_words, number_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_COST: Final = 1.0
"""Words that differ more do not sound alike,"""

MAX_SHARE: Final = 1 / 3
"""nor do those in which a larger share of sounds differs: "light" and "lights" do, "on" and "off" do not."""

_SPELLED: Final = tuple(
    (re.compile(pattern), sounds)
    for pattern, sounds in (
        (r"\bkn", "n"),
        (r"\bwr", "r"),
        (r"\bps", "s"),
        (r"(?<=[aeiou])gh(?!o)", ""),
        (r"tch|ch|cz", "C"),
        (r"sch|sh|sj", "S"),
        (r"th", "T"),
        (r"ph", "f"),
        (r"qu", "kw"),
        (r"dg(?=[eiy])", "j"),
        (r"c(?=[eiy])", "s"),
        (r"[cq]", "k"),
        (r"x", "ks"),
        (r"z", "s"),
        (r"(?<=[b-df-hj-np-tv-z])e(?=s?\b)", ""),
        (r"\by(?=[aeiou])", "j"),
        (r"[aeiouy]*([aeiouy])", r"\1"),
        (r"(.)\1+", r"\1"),
    )
)
"""How sounds are written; each line works on what the ones before it have left. S, T and C are one sound."""

_MOST_IN_BUCKET: Final = 30  # so that thousands of names made alike cost no more; some pairs are then missed

_VOWELS: Final = frozenset("aeiouy")
_SOFT: Final = _VOWELS | {"h"}
_PLACES: Final = ("bp", "dtT", "gk", "fvw", "szSCj", "mn", "lr")


@lru_cache(maxsize=100_000)
def sounds(text: str, language: str) -> str:
    """Return the sounds of a text, a letter each, without spaces."""
    words = (_in_words(word, language) for word in text.lower().split())
    plain = unicodedata.normalize("NFD", " ".join(words))
    plain = "".join(letter for letter in plain if letter.isalnum() or letter == " ")
    for pattern, sound in _SPELLED:
        plain = pattern.sub(sound, plain)
    return plain.replace(" ", "")


def _in_words(word: str, language: str) -> str:
    is_number = word.isascii() and word.isdigit() and len(word) <= 9
    return number_words(language, int(word))[0] if is_number and has_words(language) else word


@lru_cache(maxsize=1000)
def _price(one: str, other: str) -> float:
    """Return what it costs to say one sound for the other; an empty one is silence."""
    if one == other:
        return 0.0
    both = {one, other}
    alike = both <= _SOFT | {""} or any(both <= set(place) for place in _PLACES)
    return 0.5 if alike else 1.0


def cost(one: str, other: str) -> float:
    """Return how much two rows of sounds differ."""
    start, ends = 0, (len(one), len(other))
    while start < min(ends) and one[start] == other[start]:
        start += 1
    while min(ends) > start and one[ends[0] - 1] == other[ends[1] - 1]:
        ends = ends[0] - 1, ends[1] - 1
    one, other = one[start : ends[0]], other[start : ends[1]]
    if len(one) < 2 and len(other) < 2:  # as most that are alike
        return _price(one, other)
    row = [0.0]
    for sound in other:
        row.append(row[-1] + _price("", sound))
    for sound in one:
        above, row = row, [row[0] + _price(sound, "")]
        for i, against in enumerate(other):
            row.append(
                min(
                    above[i] + _price(sound, against),
                    above[i + 1] + _price(sound, ""),
                    row[i] + _price("", against),
                )
            )
    return row[-1]


def alike(texts: Iterable[str], language: str) -> Iterator[tuple[float, str, str]]:
    """Yield pairs of texts that sound alike and their cost, each pair once, in no order."""
    rows = {text: sounds(text, language) for text in dict.fromkeys(texts)}
    buckets: dict[str, list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for text, row in rows.items():
        if not row:
            continue
        for key in _keys(row):
            bucket = buckets.setdefault(key, [])
            for other in bucket:
                if other == text or (other, text) in seen:
                    continue
                seen.add((other, text))
                if abs(len(row) - len(rows[other])) > 2 * MAX_COST:
                    continue
                differ = cost(row, rows[other])
                if differ <= min(MAX_COST, MAX_SHARE * max(len(row), len(rows[other]))):
                    yield differ, other, text
            if len(bucket) < _MOST_IN_BUCKET:
                bucket.append(text)


def _keys(row: str) -> Iterator[str]:
    """Yield keys of which two rows share one if they can differ by 1 at most.

    That is one consonant at most, whatever the vowels, when consonants of one place count as the same: with
    one of them left out of the one, the other or both, they are equal.
    """
    skeleton = "".join(_place(sound) for sound in row if sound not in _SOFT)
    yield skeleton
    yield from dict.fromkeys(skeleton[:i] + skeleton[i + 1 :] for i in range(len(skeleton)))


def _place(sound: str) -> str:
    return next((place[0] for place in _PLACES if sound in place), sound)
