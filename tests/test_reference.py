"""The automaton in C reads texts as its definition says: against a slow reference, on random networks."""

from __future__ import annotations

from random import Random
from typing import Final

import numpy as np
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from edgevoice import grammar, native
from edgevoice.grammar import ACCEPT, BYTE, CALL, EPSILON, GLUE, LABEL, RANGE, RETURN, SEPARATOR
from tests.examples import examples
from tests.reference import Network, Reading, Reference, TooManyWaysError

FREE_TEXT: Final = grammar.compile_free_text("en")
LETTERS: Final = "ab%"
TEXT: Final = "aaabb%% -,.A\u00e9"
E_ACUTE: Final = (0xC3, 0xA9 | 0x89 << 8)
"""Values of the two BYTE arcs that read "é" in both cases."""


def opened(network: Network) -> native.Grammar:
    """The network as C has it."""
    arcs = np.array([arc for node in network for arc in node], np.uint32).reshape(-1, 3)
    first = np.cumsum([0, *map(len, network)]).astype(np.uint32)
    return native.Grammar(grammar.CompiledGrammar(FREE_TEXT.file, arcs, first, (), ()))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Networks that call each other, each only those after it, with arcs between any two of their nodes."""
    sizes = [draw(st.integers(2, 4)), *draw(st.lists(st.integers(1, 3), max_size=2))]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    network: Network = []
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = st.integers(start, start + size - 1)
        letter_of_one_byte = st.sampled_from([*map(ord, LETTERS)])
        letter = st.one_of(letter_of_one_byte, st.sampled_from(E_ACUTE))
        low, high = st.sampled_from([0x20, ord("a"), 0x80]), st.sampled_from([0x7E, 0xFF])
        kinds = [
            st.tuples(st.just(BYTE), letter, inside),
            st.tuples(st.just(GLUE), letter, inside),
            st.tuples(st.just(EPSILON), st.just(0), inside),
            st.tuples(st.just(SEPARATOR), st.sampled_from([0, 0, *starts[i + 1 :]]), inside),
            st.tuples(st.just(LABEL), st.integers(0, 4), inside),
            st.builds(lambda a, b, to: (RANGE, min(a, b) | max(a, b) << 8, to), low, high, inside),
            st.tuples(st.just(ACCEPT if i == 0 else RETURN), st.integers(0, 2), st.just(0)),
        ]
        if later := starts[i + 1 :]:
            kinds.append(st.tuples(st.just(CALL), st.sampled_from(later), inside))
        arcs = st.lists(st.one_of(kinds[0], *kinds), max_size=4)
        network += [draw(arcs) for _ in range(size)]
        for node in range(start, start + size - 1):  # so that there is a way from the first to the last
            network[node].append((draw(st.sampled_from([BYTE, GLUE])), draw(letter_of_one_byte), node + 1))
        network[-1].append((ACCEPT, 1, 0) if i == 0 else (RETURN, 0, 0))
    return network


def said(network: Network, chance: Random) -> str:
    """A text that the network reads, if one is found by walking it at random; sometimes with a slip."""
    text = next((way for way in (walked(network, chance) for _ in range(50)) if way), bytearray(b"a"))
    if chance.random() < 0.3:
        text[chance.randrange(len(text))] = ord(chance.choice("ab% .A"))
    if chance.random() < 0.2:
        text += chance.choice([b".", b"?", b" "])
    return text.decode("utf-8", "ignore")


def walked(network: Network, chance: Random) -> bytearray:
    """What stands on some way through the network; nothing when it does not end soon."""
    node, text, is_due = 0, bytearray(), False
    stack: list[int] = []
    for _ in range(30):
        if not network[node]:
            break
        kind, value, target = chance.choice(network[node])
        if kind == ACCEPT and not stack:
            return text
        if kind in (BYTE, GLUE, RANGE):
            if is_due and kind != GLUE:
                text += chance.choice([b" ", b" ", b"-", b", "])
            text.append(written(kind, value, chance))
        is_due = kind == SEPARATOR or (is_due and kind not in (BYTE, GLUE, RANGE))
        if kind == CALL or (kind == SEPARATOR and value and chance.random() < 0.5):
            stack.append(target)
            node = value
        elif kind == RETURN and stack:
            node = stack.pop()
        else:
            node = target
    return bytearray()


def written(kind: int, value: int, chance: Random) -> int:
    """A byte that an arc reads."""
    low, high = value & 0xFF, value >> 8
    if kind == RANGE:
        return chance.randint(low, high)
    return high if high and chance.random() < 0.3 else low


def readings(opened_grammar: native.Grammar, text: str) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """What C finds: the block accepted, and the labels on the way."""
    return [(reading[-1][0], tuple(reading[:-1])) for reading in opened_grammar.match(text)]


def test_readings_are_those_of_the_definition() -> None:
    """One reading for each block, of the cheapest; without costs, the first of the grammar, in its order."""
    accepted: list[bool] = []

    @settings(max_examples=examples(200), deadline=None, derandomize=True)
    @given(
        network=networks(),
        texts=st.lists(st.text(TEXT, max_size=6), min_size=3, max_size=3),
        seed=st.integers(0, 2**32),
    )
    def compare(network: Network, texts: list[str], seed: int) -> None:
        reference, chance = Reference(network), Random(seed)  # noqa: S311 - no secret depends on it
        note("\n".join(f"{node}: {arcs}" for node, arcs in enumerate(network)))
        has_costs = any(
            kind == RANGE or (kind == SEPARATOR and value) for arcs in network for kind, value, _ in arcs
        )
        with opened(network) as in_c:
            for text in [*texts, *(said(network, chance) for _ in range(7))]:
                note(repr(text))
                try:
                    wanted = reference.best(text)
                except TooManyWaysError:
                    assume(False)
                found = readings(in_c, text)
                accepted.append(bool(wanted))
                if has_costs:
                    possible = {(reading.accept, reading.labels) for reading in wanted}
                    assert possible.issuperset(found)
                    assert sorted(accept for accept, _ in found) == sorted({accept for accept, _ in possible})
                else:
                    assert found == firsts(wanted)

    compare()
    share = sum(accepted) / len(accepted)
    assert 0.3 < share < 0.7, "the texts must be of both kinds, or little is compared"


def firsts(wanted: list[Reading]) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """The first reading for each block."""
    found: dict[int, tuple[tuple[int, int], ...]] = {}
    for reading in wanted:
        found.setdefault(reading.accept, reading.labels)
    return list(found.items())


def test_reference_reads_as_the_header_says() -> None:
    """Else the two could be wrong in the same way."""
    words: Network = [  # "a b", with "x" to be skipped; blocks 5 and, with free text, 6
        [(BYTE, ord("a"), 1), (CALL, 5, 4)],
        [(SEPARATOR, 7, 2)],
        [(LABEL, 3, 3)],
        [(BYTE, ord("b"), 9)],
        [(ACCEPT, 6, 0)],
        [(RANGE, 0x20 | 0x7E << 8, 6)],
        [(RANGE, 0x20 | 0x7E << 8, 6), (RETURN, 0, 0)],
        [(BYTE, ord("x"), 8)],
        [(SEPARATOR, 0, 10)],
        [(ACCEPT, 5, 0)],
        [(RETURN, 0, 0)],
    ]
    reference = Reference(words)
    for text in ("a b", "A, b.", " a-b"):
        assert {(reading.cost, reading.accept) for reading in reference.best(text)} == {((0, 0, 0), 5)}, text
    # A label stands where it is passed: before the separator is written, or after it.
    assert [reading.labels for reading in reference.best("a b")] == [((3, 2),), ((3, 1),)]
    assert {reading.cost for reading in reference.best("a x b")} == {(0, 0, 1)}
    assert [(reading.cost, reading.accept) for reading in reference.best("ab")] == [((1, 2, 0), 6)]
    assert reference.best("") == []
