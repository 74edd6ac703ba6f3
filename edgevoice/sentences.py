"""The sentences of a grammar: how many there are, exactly, and each of them by its number.

    grammar file -> plain grammar -> SentenceGraph -> Sentences

A plain grammar (grammar.compile_traced) has one spelling for each word and number, so that a sentence of the
graph is a sentence that can be said, once, however many templates and branches describe it. The graph has no
cycles, so counting goes from its ends to its start; numbers are Python's, as large as they need be.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
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
from hassil.intents import RangeSlotList, TextSlotList

from edgevoice.errors import UsageError
from edgevoice.grammar import PLACEHOLDER, plain_text
from edgevoice.numbers import number_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from random import Random

    from hassil.intents import SlotList

    from edgevoice.grammar_file import GrammarFile, Rules
    from edgevoice.native import SentenceGraph

_ALL: Final = None
"""In place of an intent: every one."""


class Sentences:
    """The sentences of a graph in the order of their bytes.

    Args:
        graph: complete.
        intents: of each block that the graph names.
    """

    def __init__(self, graph: SentenceGraph, intents: Sequence[str]) -> None:
        self._graph = graph
        self._intents = intents
        self._counts = self._count()

    def count(self, intent: str | None = None) -> int:
        """Return how many there are in all, or of one intent."""
        return self._counts[0].get(intent, 0)

    def text(self, number: int, intent: str | None = None) -> str:
        """Return a sentence by its number, from 0 up to what count() returns."""
        if not 0 <= number < self.count(intent):
            raise UsageError(f"there is no sentence {number}, only {self.count(intent)}")
        graph, state, data = self._graph, 0, bytearray()
        while True:
            if self._ends(state, intent):
                if number == 0:
                    return data.decode()
                number -= 1
            for edge in range(graph.first_edge[state], graph.first_edge[state + 1]):
                behind = self._counts[graph.targets[edge]].get(intent, 0)
                if number < behind:
                    data.append(graph.bytes[edge])
                    state = graph.targets[edge]
                    break
                number -= behind

    def sample(self, n: int, chance: Random, intent: str | None = None) -> list[str]:
        """Return n sentences, all equally likely, none twice; all there are if these are fewer."""
        return [self.text(number, intent) for number in _some(self.count(intent), n, chance)]

    def _count(self) -> list[dict[str | None, int]]:
        """For each state, how many ways to go on each intent has, and all of them have together."""
        graph = self._graph
        counts: list[dict[str | None, int]] = [{}] * (len(graph.first_edge) - 1)
        for state in reversed(range(len(counts))):
            targets = graph.targets[graph.first_edge[state] : graph.first_edge[state + 1]]
            accepts = graph.accepts[graph.first_accept[state] : graph.first_accept[state + 1]]
            if not accepts and len(targets) == 1:  # most of them: inside of words
                counts[state] = counts[targets[0]]
                continue
            own: dict[str | None, int] = {}
            if accepts:
                own = dict.fromkeys([_ALL, *(self._intents[block] for block in accepts)], 1)
            for target in targets:
                for intent, number in counts[target].items():
                    own[intent] = own.get(intent, 0) + number
            counts[state] = own
        return counts

    def _ends(self, state: int, intent: str | None) -> bool:
        graph = self._graph
        accepts = graph.accepts[graph.first_accept[state] : graph.first_accept[state + 1]]
        return any(intent in (_ALL, self._intents[block]) for block in accepts)


class Derivations:
    """Ways through the templates of a grammar.

    Some sentences have several, so there are at most as many sentences; how many is known at once.
    """

    def __init__(self, file: GrammarFile) -> None:
        top = Speaker(file.language, file.rules, file.lists)
        self._templates: list[tuple[str, int, Expression, Speaker]] = []
        for block in file.blocks:
            speaker = top
            if block.rules or block.lists:
                speaker = Speaker(file.language, file.rules | block.rules, file.lists | block.lists)
            for template in block.templates:
                expression = template.sentence.expression
                self._templates.append((block.intent, speaker.count(expression), expression, speaker))

    def count(self, intent: str | None = None) -> int:
        """Return how many there are in all, or of one intent."""
        return sum(count for name, count, _, _ in self._templates if intent in (_ALL, name))

    def text(self, number: int, intent: str | None = None) -> str:
        """Return the sentence of a way by its number, from 0 up to what count() returns."""
        for name, count, expression, speaker in self._templates:
            if intent not in (_ALL, name):
                continue
            if number < count:
                return speaker.text(expression, number)
            number -= count
        raise UsageError(f"there is no such sentence; there are only {self.count(intent)} ways")

    def sample(self, n: int, chance: Random, intent: str | None = None) -> list[str]:
        """Return sentences of n ways, all ways equally likely; each sentence once."""
        texts = [self.text(number, intent) for number in _some(self.count(intent), n, chance)]
        return [text for text in dict.fromkeys(texts) if text]


def _some(count: int, n: int, chance: Random) -> list[int]:
    """Return n different numbers below count, in a random order; all of them if these are fewer."""
    if n >= count // 2:
        numbers = list(range(count))
        chance.shuffle(numbers)
        return numbers[:n]
    chosen: dict[int, None] = {}
    while len(chosen) < n:  # random.sample() takes no more than 2^63
        chosen[chance.randrange(count)] = None
    return list(chosen)


class Speaker:
    """Counts and says expressions in which names mean these rules and lists."""

    def __init__(self, language: str, rules: Rules, lists: Mapping[str, SlotList]) -> None:
        self._language = language
        self._rules, self._lists = rules, lists
        self._known: dict[str, int] = {}

    def text(self, part: Expression, number: int) -> str:
        """Return what a way through an expression says, by its number from 0 up to what count() returns."""
        return plain_text(self._text(part, number))

    def count(self, part: Expression) -> int:
        """Return how many ways lead through an expression."""
        if isinstance(part, TextChunk):
            return 1
        if isinstance(part, Alternative):
            return sum(self.count(item) for item in part.items)
        if isinstance(part, Group):
            several = math.prod(self.count(item) for item in part.items)
            return several * math.factorial(len(part.items)) if isinstance(part, Permutation) else several
        if isinstance(part, RuleReference):
            return self._count_of(f"<{part.rule_name}>", [self._rules[part.rule_name].expression])
        if isinstance(part, ListReference):
            slot_list = list_of(part, self._lists)
            if isinstance(slot_list, TextSlotList):
                return self._count_of(f"{{{part.list_name}}}", [value.text_in for value in slot_list.values])
            return len(_numbers(slot_list)) if isinstance(slot_list, RangeSlotList) else 1
        raise TypeError(part)

    def _count_of(self, name: str, alternatives: list[Expression]) -> int:
        if name not in self._known:
            self._known[name] = sum(self.count(each) for each in alternatives)
        return self._known[name]

    def _text(self, part: Expression, number: int) -> str:  # noqa: PLR0911 - one a kind of expression
        if isinstance(part, TextChunk):
            return str(part.text)
        if isinstance(part, Alternative):
            return self._one_of(part.items, number)
        if isinstance(part, Permutation):
            number, order = divmod(number, math.factorial(len(part.items)))
            items = next(itertools.islice(itertools.permutations(range(len(part.items))), order, None))
            texts = self._texts(part.items, number)
            return "".join(texts[i] for i in items)
        if isinstance(part, Group):
            return "".join(self._texts(part.items, number))
        if isinstance(part, RuleReference):
            return self._text(self._rules[part.rule_name].expression, number)
        if not isinstance(part, ListReference):
            raise TypeError(part)
        slot_list = list_of(part, self._lists)
        if isinstance(slot_list, TextSlotList):
            return self._one_of([value.text_in for value in slot_list.values], number)
        if isinstance(slot_list, RangeSlotList):
            return number_texts(
                slot_list.words_language or self._language,
                _numbers(slot_list)[number],
                digits=slot_list.digits,
                words=slot_list.words,
                fractions=slot_list.fraction_type is not None,
            )[0]
        return PLACEHOLDER

    def _one_of(self, items: list[Expression], number: int) -> str:
        for item in items:
            count = self.count(item)
            if number < count:
                return self._text(item, number)
            number -= count
        raise AssertionError(number)

    def _texts(self, items: list[Expression], number: int) -> list[str]:
        texts = []
        for item in items:
            number, own = divmod(number, self.count(item))
            texts.append(self._text(item, own))
        return texts


def list_of(reference: ListReference, lists: Mapping[str, SlotList]) -> SlotList:
    """Return the list a reference means, which may be a range written into it."""
    if reference.list_name not in lists and (parts := reference.get_inline_range()):
        start, stop, step = parts
        return RangeSlotList(name=reference.list_name, start=start, stop=stop, step=step)
    return lists[reference.list_name]


def _numbers(slot_list: RangeSlotList) -> list[float]:
    return [round(number, 1) for number in slot_list.get_numbers()]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Sentences that are of several blocks."""

    blocks: tuple[int, ...]
    examples: tuple[str, ...]
    """Some of them, shortest first."""


def overlaps(graph: SentenceGraph, most_examples: int) -> Iterator[Overlap]:
    """Yield what sentences of a graph are of several blocks, those with the shortest examples first."""
    n_states = len(graph.first_edge) - 1
    several: dict[tuple[int, ...], list[int]] = {}
    leads_there = [False] * n_states
    for state in reversed(range(n_states)):
        accepts = tuple(graph.accepts[graph.first_accept[state] : graph.first_accept[state + 1]])
        if len(accepts) > 1:
            several.setdefault(accepts, []).append(state)
        targets = graph.targets[graph.first_edge[state] : graph.first_edge[state + 1]]
        leads_there[state] = len(accepts) > 1 or any(leads_there[target] for target in targets)
    begun: list[list[bytes]] = [[] for _ in range(n_states)]
    begun[0].append(b"")
    for state in range(n_states):
        begun[state] = sorted(begun[state], key=lambda text: (len(text), text))[:most_examples]
        for edge in range(graph.first_edge[state], graph.first_edge[state + 1]):
            if leads_there[graph.targets[edge]]:
                begun[graph.targets[edge]] += [text + graph.bytes[edge : edge + 1] for text in begun[state]]
        if graph.first_accept[state + 1] - graph.first_accept[state] < 2:
            begun[state] = []  # not needed again
    found = []
    for blocks, states in several.items():
        texts = sorted(
            (text for state in states for text in begun[state]), key=lambda text: (len(text), text)
        )
        found.append(Overlap(blocks, tuple(text.decode() for text in texts[:most_examples])))
    yield from sorted(found, key=lambda overlap: (len(overlap.examples[0]), overlap.examples[0]))
