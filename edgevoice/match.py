"""From text to meaning: the grammar's own network reads a sentence and its labels give the slots.

The decoder searched with the same network, so what it found always has a reading, and typed text is
understood exactly as spoken text is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hassil.util import normalize_text, remove_punctuation

from edgevoice import contexts
from edgevoice.events import Interpretation
from edgevoice.grammar import FreeText, SkipClose, SkipOpen, SlotClose, SlotOpen, SlotValue, Woken
from edgevoice.grammar_file import EDGE_PUNCTUATION

if TYPE_CHECKING:
    from edgevoice.grammar import Label
    from edgevoice.grammar_file import Block
    from edgevoice.native import Grammar

_INITIALISM: Final = re.compile(r"(.*\W)?([^\W\d]\.)+[^\W\d]", re.DOTALL)
"""A text whose last word is an initialism short of its last point: "made in the U.S"."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """An interpretation, the block it is of, and how much of it the grammar left free, or to its lists."""

    interpretation: Interpretation
    block: int
    free_texts: int
    free_letters: int
    slot_bytes: int
    """In slots, and skipped: what the words of the template do not say."""

    def same_as(self, other: _Meaning) -> bool:
        one, two = self.interpretation, other.interpretation
        return one.intent == two.intent and one.slots == two.slots


def interpret(grammar: Grammar, text: str, score: float = 0.0) -> list[Interpretation]:
    """Return the meanings of a text, in the order of the grammar; none when it is not in the grammar.

    Same words with the same meaning by another way through the grammar count once. As in hassil, only the
    meanings that need fewest free texts are returned, of these those with the shortest, and of these those of
    which the template itself says most: "all fans off" is rather "all fans off" than "all fans {state}".
    """
    return [interpretation for _, interpretation in with_blocks(grammar, text, score)]


def with_blocks(
    grammar: Grammar, text: str, score: float = 0.0, *, every: bool = False
) -> list[tuple[int, Interpretation]]:
    """Return what interpret() does, each with the number of the block whose sentence the text is.

    With `every`, also those of which the template says less, behind the others.
    """
    as_written = " ".join(text.split())
    meanings = _meanings(grammar, as_written, score)
    if not meanings or meanings[0].free_texts:
        # Punctuation may be all that keeps a text from its literal meaning.
        bare = " ".join(normalize_text(remove_punctuation(as_written)).split())
        # What ends a sentence is no part of it, so without it the text would be read twice.
        same = bare in (as_written, re.sub("[.?!]$", "", as_written))
        others = [] if same else _meanings(grammar, bare, score)
        if others and (not meanings or _freedom(others[0]) < _freedom(meanings[0])):
            meanings = others
    return [
        (meaning.block, meaning.interpretation)
        for meaning in meanings
        if every or meaning.slot_bytes == meanings[0].slot_bytes
    ]


def free_text(grammar: Grammar, text: str) -> list[tuple[int, int]]:
    """Return where free text stands in a text of the grammar, as ranges of UTF-8 bytes."""
    labels = grammar.compiled.labels
    if FreeText() not in labels:
        return []
    spans: list[tuple[int, int]] = []
    for reading in grammar.match(text)[:1]:
        start, is_free = 0, False
        for number, position in reading[:-1]:
            label = labels[number]
            if isinstance(label, SlotOpen):
                start, is_free = position, False
            elif isinstance(label, FreeText):
                is_free = True
            elif isinstance(label, SlotClose) and is_free:
                spans.append((start, position))
                is_free = False
    return spans


def wake_phrase(grammar: Grammar, text: str) -> list[tuple[int, int]]:
    """Return where the wake phrase stands in a text of the grammar, as free_text() does."""
    labels = grammar.compiled.labels
    return [
        (0, position)
        for reading in grammar.match(text)[:1]
        for number, position in reading[:-1]
        if isinstance(labels[number], Woken)
    ]


def without_wake_phrase(grammar: Grammar, text: str) -> str:
    """Return a text of the grammar without the wake phrase: what somebody else may say aloud."""
    data = text.encode()
    return data[max((end for _, end in wake_phrase(grammar, text)), default=0) :].decode().lstrip(" ,.?!")


def _freedom(meaning: _Meaning) -> tuple[int, int]:
    return meaning.free_texts, meaning.free_letters


def _meanings(grammar: Grammar, text: str, score: float) -> list[_Meaning]:
    meanings: list[_Meaning] = []
    for reading in grammar.match(text):
        meaning = _meaning(grammar, text, reading, score)
        if meaning and not any(meaning.same_as(other) for other in meanings):
            meanings.append(meaning)
    return sorted(meanings, key=lambda meaning: meaning.slot_bytes)


def _meaning(grammar: Grammar, text: str, reading: list[tuple[int, int]], score: float) -> _Meaning | None:
    """Follow one reading's labels: open a slot, take the value said inside, close it.

    None when a free text is nothing but punctuation, or the block asks for a context or a keyword that is not
    there.
    """
    data = text.encode()
    compiled = grammar.compiled
    *labels, (block_number, _) = reading
    block = compiled.blocks[block_number]
    filled: dict[str, object] = {}
    context = dict(compiled.file.context)
    raw: dict[str, str] = {}
    started: list[tuple[str, int]] = []
    skipped = _skipped(compiled.labels, labels)
    free_texts: list[str] = []
    slot_bytes = sum(len(data[first:last].replace(b" ", b"")) for first, last in skipped)
    value: object = None
    is_free = False
    for number, position in labels:
        label = compiled.labels[number]
        if isinstance(label, SlotOpen):
            started.append((label.slot, position))
            value, is_free = None, False
        elif isinstance(label, SlotValue):
            value, is_free = label.out, False
            context.update(label.context or {})
        elif isinstance(label, FreeText):
            is_free = True
        elif isinstance(label, SlotClose):
            slot, start = started.pop()
            if not started:  # one within another counts once
                slot_bytes += len(_without(data, start, position, skipped).replace(" ", "").encode())
            said = data[start:position].decode("utf-8", "replace")
            if is_free:
                said = _free_text(said, data[position:])
                free_texts.append(_plain(said))
                value = free_texts[-1]
            elif value is None:
                value = _without(data, start, position, skipped).lower()
            raw[slot] = said if is_free else said.strip(" ,-")
            filled[slot] = value
            value, is_free = None, False
    if not all(free_texts) or not contexts.fits(block, context) or not _has_keyword(block, data, skipped):
        return None
    found = Interpretation(
        text=text,
        intent=block.intent,
        slots=block.slots | contexts.slots(block, context) | filled,
        slots_raw=raw,
        score=score,
        min_confidence=block.min_confidence,
        confirm=block.confirm,
        follow_up=block.follow_up,
        woken=any(isinstance(compiled.labels[number], Woken) for number, _ in labels),
    )
    letters = sum(character.isalnum() for text in free_texts for character in text)
    return _Meaning(found, block_number, len(free_texts), letters, slot_bytes)


def _has_keyword(block: Block, data: bytes, skipped: list[tuple[int, int]]) -> bool:
    """Whether a text has one of the words that its block asks for."""
    if not block.keywords:
        return True
    words = normalize_text(remove_punctuation(_without(data, 0, len(data), skipped))).lower()
    return not block.keywords.isdisjoint(words.split())


def _skipped(known: tuple[Label, ...], labels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where skipped words begin and end."""
    begins = [position for number, position in labels if isinstance(known[number], SkipOpen)]
    ends = [position for number, position in labels if isinstance(known[number], SkipClose)]
    return list(zip(begins, ends, strict=True))


def _without(data: bytes, start: int, end: int, skipped: list[tuple[int, int]]) -> str:
    """Return data[start:end] without the words skipped in it."""
    for first, last in reversed(skipped):
        if start <= first < end:
            data = data[:first] + data[last:]
            end -= last - first
    return data[start:end].decode("utf-8", "replace").strip(" ,-")


def _free_text(said: str, rest: bytes) -> str:
    """Return the words of a free text as they were written, without the punctuation around them."""
    words = said.removeprefix("-").strip(EDGE_PUNCTUATION + " ")
    is_short = (said.endswith(".") or rest.startswith(b".")) and _INITIALISM.fullmatch(words)
    return f"{words}." if is_short else words


def _plain(said: str) -> str:
    """Return the value of a free text as hassil has it: its words in their case, without punctuation."""
    words = " ".join(normalize_text(remove_punctuation(said)).split())
    return f"{words}." if said.endswith(".") and not words.endswith(".") else words
