"""Free text in a grammar: the network of a `wildcard: true` list, and where a template may use one.

A free text is one or more words of any characters. It is as short as the rest of the sentence allows
(csrc/automaton.h), so a word of the template must tell where it ends: two of them side by side, or
one as a part of a word, have no such place.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import TextSlotList, WildcardSlotList

from edgevoice.grammar_file import EDGE_PUNCTUATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hassil.intents import SlotList

    from edgevoice.grammar_file import Rules

_WORD_BYTES: Final = (0x21, 0x7E)
"""ASCII without space and control characters."""

_OTHER_CHARACTERS: Final = (
    ((0xC2, 0xC2), (0xA1, 0xBF)),  # from U+00A1: no control character, no-break space is a space
    ((0xC3, 0xDF), (0x80, 0xBF)),
    ((0xE0, 0xE0), (0xA0, 0xBF), (0x80, 0xBF)),
    ((0xE1, 0xEC), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xED, 0xED), (0x80, 0x9F), (0x80, 0xBF)),  # no surrogates
    ((0xEE, 0xEF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF0, 0xF0), (0x90, 0xBF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF1, 0xF3), (0x80, 0xBF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF4, 0xF4), (0x80, 0x8F), (0x80, 0xBF), (0x80, 0xBF)),  # up to U+10FFFF
)
"""Well-formed UTF-8 above ASCII (Unicode 15, table 3-7): the range of each byte."""


class Network(Protocol):
    """What the grammar compiler offers to build with."""

    def node(self) -> int:
        """Return a new node."""

    def epsilon(self, source: int, target: int) -> int:
        """Go on without a byte."""

    def separator(self, source: int, target: int) -> int:
        """Between two words."""

    def byte_range(self, source: int, low: int, high: int, target: int) -> int:
        """Read any byte from `low` to `high`."""


def words(network: Network, start: int) -> int:
    """Build one or more words from `start` on and return where they end.

    A word does not begin with a punctuation mark, so that a text is more than marks. Hyphens and commas
    are separators and bytes of words both: "ice-cream", "1,000".
    """
    word, end = network.node(), network.node()
    network.epsilon(word, end)  # first: rather end than go on
    punctuation = sorted(EDGE_PUNCTUATION.encode())
    low, high = _WORD_BYTES
    for mark, following in itertools.pairwise([low - 1, *punctuation, high + 1]):
        if mark + 1 < following:
            network.byte_range(start, mark + 1, following - 1, word)
    network.byte_range(word, low, high, word)
    tails: dict[tuple[tuple[int, int], ...], int] = {(): word}

    def tail(ranges: tuple[tuple[int, int], ...]) -> int:
        """Return the node from which these bytes lead to `word`."""
        if ranges not in tails:
            tails[ranges] = network.node()
            network.byte_range(tails[ranges], *ranges[0], tail(ranges[1:]))
        return tails[ranges]

    for lead, *rest in _OTHER_CHARACTERS:
        for source in (start, word):
            network.byte_range(source, *lead, tail(tuple(rest)))
    network.separator(word, start)
    return end


def is_reference(expression: Expression, lists: Mapping[str, SlotList]) -> bool:
    """Whether an expression is {list} of free text."""
    return isinstance(expression, ListReference) and isinstance(
        lists.get(expression.list_name), WildcardSlotList
    )


_TEXT: Final = ""
"""In place of the name of a list: words, numbers, values."""


@dataclass(frozen=True, slots=True)
class _Edges:
    """How an expression begins and ends: list names or _TEXT, each with whether a space is outside it."""

    first: frozenset[tuple[str, bool]]
    last: frozenset[tuple[str, bool]]
    empty: frozenset[bool]
    """Whether it can be nothing: without a space, with one."""


_NOTHING: Final = _Edges(frozenset(), frozenset(), frozenset({False}))
_SPACE: Final = _Edges(frozenset(), frozenset(), frozenset({True}))
_WORDS: Final = _Edges(frozenset({(_TEXT, False)}), frozenset({(_TEXT, False)}), frozenset())


class Checker:
    """Finds free text where its end or beginning could not be told."""

    def __init__(self, rules: Rules, lists: Mapping[str, SlotList]) -> None:
        self._rules, self._lists = rules, lists
        self._known: dict[str, _Edges] = {}
        self._problem: str | None = None

    def problem(self, expression: Expression) -> str | None:
        """Return what is wrong with a template, None when nothing is."""
        self._problem = None
        self._edges(expression)
        return self._problem

    def _edges(self, part: Expression) -> _Edges:  # noqa: PLR0911 - one a kind of expression
        if isinstance(part, TextChunk):
            return _edges_of_text(part.text)
        if isinstance(part, Permutation):
            return self._permutation([self._edges(item) for item in part.items])
        if isinstance(part, Alternative):
            return _either(self._edges(item) for item in part.items)
        if isinstance(part, Group):
            edges = _NOTHING
            for item in part.items:
                edges = self._joined(edges, self._edges(item))
            return edges
        if isinstance(part, RuleReference) and part.rule_name in self._rules:
            name = f"<{part.rule_name}>"
            return self._named(name, [self._rules[part.rule_name].expression])
        if isinstance(part, ListReference):
            slot_list = self._lists.get(part.list_name)
            name = f"{{{part.list_name}}}"
            if isinstance(slot_list, WildcardSlotList):
                return _Edges(frozenset({(name, False)}), frozenset({(name, False)}), frozenset())
            if isinstance(slot_list, TextSlotList):
                return self._named(name, (value.text_in for value in slot_list.values))
        return _WORDS

    def _named(self, name: str, bodies: Iterable[Expression]) -> _Edges:
        if name not in self._known:
            self._known[name] = _WORDS  # one that uses itself is refused elsewhere
            self._known[name] = _either(self._edges(body) for body in bodies)
        return self._known[name]

    def _permutation(self, items: list[_Edges]) -> _Edges:
        spaced = [self._joined(self._joined(_SPACE, item), _SPACE) for item in items]
        for one, other in itertools.permutations(spaced, 2):
            self._joined(one, other)
        empty = _SPACE.empty if all(item.empty for item in items) else frozenset[bool]()
        edges = _either(spaced)
        return _Edges(edges.first, edges.last, empty)

    def _joined(self, left: _Edges, right: _Edges) -> _Edges:
        for (one, after), (other, before) in itertools.product(left.last, right.first):
            if one == other == _TEXT:
                continue
            if not (after or before):
                self._problem = (
                    f"free text {one or other} must be words of its own; put a space between it and what is "
                    f"{'after' if one else 'before'} it"
                )
            elif one and other:
                self._problem = (
                    f"free text {one} can stand directly before free text {other}; put a word between them"
                )
        return _Edges(
            left.first | {(name, space or gap) for gap in left.empty for name, space in right.first},
            right.last | {(name, space or gap) for gap in right.empty for name, space in left.last},
            frozenset(one or other for one in left.empty for other in right.empty),
        )


def _either(several: Iterable[_Edges]) -> _Edges:
    first, last, empty = set[tuple[str, bool]](), set[tuple[str, bool]](), set[bool]()
    for edges in several:
        first |= edges.first
        last |= edges.last
        empty |= edges.empty
    return _Edges(frozenset(first), frozenset(last), frozenset(empty))


def _edges_of_text(text: str) -> _Edges:
    if not text.strip(EDGE_PUNCTUATION + " "):
        return _SPACE if " " in text else _NOTHING
    before, after = text.lstrip(EDGE_PUNCTUATION)[0], text.rstrip(EDGE_PUNCTUATION)[-1]
    return _Edges(frozenset({(_TEXT, before.isspace())}), frozenset({(_TEXT, after.isspace())}), frozenset())
