"""What a grammar's network says about a text, by the definitions in csrc/edgevoice.h and csrc/automaton.h.

Every way through the network is walked, one after the other, as long as it takes. It shares no code with the
automaton, and no idea but the definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgevoice.grammar import ACCEPT, BYTE, CALL, EPSILON, GLUE, LABEL, RANGE, RETURN, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

Arc = tuple[int, int, int]
"""Kind, value, target."""

Network = list[list[Arc]]
"""The arcs of each node."""

Config = tuple[int, tuple[int, ...], str]
"""Node, return nodes with the innermost last, and where the text stands between two words (Mode)."""

WRITTEN = {("start", " "): "spaced", ("pending", " "): "spaced", ("pending", "-"): "spaced"} | {
    ("pending", ","): "comma",
    ("comma", " "): "spaced",
}
"""What may be written between two words: mode and character -> mode."""


class TooManyWaysError(Exception):
    """The network has more ways for this text than are worth walking."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way through the network that spells a text."""

    cost: tuple[int, int, int]
    """Free texts, bytes in them, places where words are skipped."""

    accept: int
    labels: tuple[tuple[int, int], ...]
    """Label and bytes of text before it."""


class Reference:
    """All readings of a text.

    Args:
        network: without calls that never end.
        most_steps: after which TooManyWaysError is raised.
    """

    def __init__(self, network: Network, most_steps: int = 20_000) -> None:
        self._network = network
        self._most_steps = most_steps
        self._steps = 0
        self._text = b""

    def best(self, text: str) -> list[Reading]:
        """Return the cheapest readings in the order of the grammar, which counts where none has a cost."""
        self._text = text.encode()
        self._steps = 0
        found = list(self._walk(0, (0, (), "start"), frozenset(), (0, 0, 0), ()))
        least = min((reading.cost for reading in found), default=None)
        return [reading for reading in found if reading.cost == least]

    def _walk(
        self,
        at: int,
        config: Config,
        here: frozenset[Config],
        cost: tuple[int, int, int],
        labels: tuple[tuple[int, int], ...],
    ) -> Iterator[Reading]:
        """Yield what can follow; `here` are the configurations passed since the last byte, so as not to loop.

        At a node the ways that read a byte come before those that do not, otherwise the first arc first.
        """
        self._steps += 1
        if self._steps > self._most_steps:
            raise TooManyWaysError
        if config in here:
            return
        node, stack, mode = config
        ends = [value for kind, value, _ in self._network[node] if kind == ACCEPT and not stack]
        if at == len(self._text):
            if mode in ("word", "pending", "end"):
                for value in ends:
                    yield Reading(cost, value, labels)
        else:
            for after, price in self._read(config, self._text[at], may_end=bool(ends)):
                yield from self._walk(at + 1, after, frozenset(), _sum(cost, price), labels)
        if mode in ("comma", "end"):
            return
        for after, price, label in self._pass(config):
            passed = labels if label is None else (*labels, (label, at))
            yield from self._walk(at, after, here | {config}, _sum(cost, price), passed)

    def _read(
        self, config: Config, byte: int, *, may_end: bool
    ) -> Iterator[tuple[Config, tuple[int, int, int]]]:
        """Where one byte leads, and its price."""
        node, stack, mode = config
        if (written := WRITTEN.get((mode, chr(byte)))) is not None:
            yield (node, stack, written), (0, 0, 0)
        if may_end and mode in ("word", "pending") and chr(byte) in ".?!":
            yield (node, stack, "end"), (0, 0, 0)
        if mode in ("comma", "end"):
            return
        lower = byte + 32 if 65 <= byte <= 90 else byte
        for kind, value, target in self._network[node]:
            low, high = value & 0xFF, value >> 8
            if kind == GLUE or (kind == BYTE and mode != "pending"):
                if low == lower or (high and high == byte):
                    yield (target, stack, "word"), (0, 0, 0)
            elif kind == RANGE and mode != "pending" and low <= byte <= high:
                yield (target, stack, "word"), (0, 1, 0)

    def _pass(self, config: Config) -> Iterator[tuple[Config, tuple[int, int, int], int | None]]:
        """Where no byte leads: configuration, price, and the label passed."""
        node, stack, mode = config
        for kind, value, target in self._network[node]:
            if kind == EPSILON:
                yield (target, stack, mode), (0, 0, 0), None
            elif kind == LABEL:
                yield (target, stack, mode), (0, 0, 0), value
            elif kind == SEPARATOR:
                due = "pending" if mode == "word" else mode
                yield (target, stack, due), (0, 0, 0), None
                if value:
                    yield (value, (*stack, target), due), (0, 0, 1), None
            elif kind == CALL:
                is_free = any(inside[0] == RANGE for inside in self._network[value])
                yield (value, (*stack, target), mode), (int(is_free), 0, 0), None
            elif kind == RETURN and stack:
                yield (stack[-1], stack[:-1], mode), (0, 0, 0), None


def _sum(one: tuple[int, int, int], two: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] + two[0], one[1] + two[1], one[2] + two[2]
