"""What the parts of a grammar file say, written out: for peers that know words and lists, not templates."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import RangeSlotList, SlotList, TextSlotList, WildcardSlotList

from edgevoice.numbers import number_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.grammar_file import Block, GrammarFile, Lists, Rules

MAX_STRINGS: Final = 50_000
"""More are not written out; only parts of words and list values are, never whole sentences."""

_SIGNS: Final = {"%": " percent ", "°": " degrees "}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a template's names are looked up: the block's own rules and lists before the file's."""

    rules: Rules
    lists: Lists
    language: str
    number: int | None
    """Of the block, when it has rules or lists of its own."""


def scope_of(file: GrammarFile, block: Block) -> Scope:
    """Return the scope of a block."""
    own = file.blocks.index(block) if block.rules or block.lists else None
    return Scope({**file.rules, **block.rules}, {**file.lists, **block.lists}, file.language, own)


@cache
def spoken(text: str, language: str) -> str:
    """Return the words of a text: lower case, numbers and signs as words, no punctuation but apostrophes."""
    text = text.lower().replace("’", "'")  # noqa: RUF001
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"\d+", lambda number: f" {number_words(language, int(number[0]))[0]} ", text)
    return " ".join(re.sub(r"[^\w']", " ", text).split())


def list_of(reference: ListReference, scope: Scope) -> SlotList:
    """Return the list a template names, or the range it writes out as {1..9}."""
    if (found := scope.lists.get(reference.list_name)) is not None:
        return found
    parts = reference.get_inline_range()
    if parts is None:
        raise ValueError(f"list {{{reference.list_name}}} is not defined")
    return RangeSlotList(name=reference.list_name, start=parts[0], stop=parts[1], step=parts[2])


def values(slot_list: SlotList, scope: Scope) -> Iterator[tuple[str, object]]:
    """Yield each way to say a value of a list, as words, with the value."""
    if isinstance(slot_list, RangeSlotList):
        language = slot_list.words_language or scope.language
        for number in slot_list.get_numbers():
            value = number if slot_list.multiplier is None else number * slot_list.multiplier
            for text in number_words(language, number):
                yield spoken(text, language), int(value) if float(value).is_integer() else value
    elif isinstance(slot_list, TextSlotList):
        for item in slot_list.values:
            for text in strings(item.text_in, scope):
                said = spoken(text, scope.language)
                yield said, said if item.value_out is None else item.value_out
    elif isinstance(slot_list, WildcardSlotList):
        yield "something", "something"  # other engines have no free text; one word keeps the sentence
    else:
        raise TypeError(f"list {slot_list.name!r} is of an unknown kind")


def strings(part: Expression, scope: Scope) -> list[str]:
    """Write out all that a small part of a template can say.

    Raises:
        ValueError: it is more than MAX_STRINGS.
    """
    if isinstance(part, TextChunk):
        found = [part.text]
    elif isinstance(part, Alternative):
        found = [text for item in part.items for text in strings(item, scope)]
    elif isinstance(part, Permutation):
        orders = itertools.permutations(part.items)
        found = [" ".join(texts) for order in orders for texts in _product(list(order), scope)]
    elif isinstance(part, Group):
        found = ["".join(texts) for texts in _product(part.items, scope)]
    elif isinstance(part, ListReference):
        found = [said for said, _ in values(list_of(part, scope), scope)]
    elif isinstance(part, RuleReference):
        found = strings(scope.rules[part.rule_name].expression, scope)
    else:
        raise TypeError(f"{part!r} is no part of a template")
    if len(found) > MAX_STRINGS:
        raise ValueError(f"a part of a template says more than {MAX_STRINGS} things: {part!r}")
    return list(dict.fromkeys(found))


def _product(items: list[Expression], scope: Scope) -> Iterator[tuple[str, ...]]:
    return itertools.islice(
        itertools.product(*(strings(item, scope) for item in items)),
        MAX_STRINGS + 1,  # one too many is enough to refuse it
    )
