r"""Grammars in llama.cpp's and whisper.cpp's notation (GBNF), checked, and enforced for certain.

    root    ::= " " command "."
    command ::= "lights " ("on" | "off") | "volume " [0-9]{1,2}

As upstream's examples/grammar-parser.cpp, and what llama.cpp added since: "text" and [classes] with the
escapes \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH, `.` for any character, (groups), | between
alternatives, and * + ? {m} {m,} {m,n} behind what they repeat; `#` begins a comment. The text of a
transcription begins with a space, and the grammar says that, too.

What upstream takes and then crashes on or ignores is refused with its line: rules that are not defined,
defined twice, not reachable, begin with themselves, or never come to an end. Where upstream makes a token
that breaks the grammar less likely, and then lets everything pass, here it is impossible (csrc/exact.h).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice.errors import GrammarError
from edgevoice.native import Handle, lib, open_network

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

_MAX_BYTES: Final = 1_000_000
_MAX_NODES: Final = 500_000
"""Of the network, 16 bytes each: repetitions are copied."""

_MAX_REPEAT: Final = 1_000
_MAX_DEPTH: Final = 100
"""Of parentheses."""

_LAST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SPACE = re.compile(r"(?:[ \t]|#[^\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_REPEAT = re.compile(r"\{[ \t]*(\d{1,9})[ \t]*(?:(,)[ \t]*(\d{1,9})?[ \t]*)?\}")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_CODES: Final = {"x": 2, "u": 4, "U": 8}
_PLACE = re.compile(r"[^\n]*")


@dataclass(frozen=True, slots=True)
class _Characters:
    """One character of some ranges."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class _Sequence:
    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    item: _Node
    least: int
    most: int | None


_Node = _Characters | _Reference | _Sequence | _Choice | _Repeat


@dataclass(slots=True)
class _Rule:
    body: _Node
    at: int


class Gbnf:
    """A checked grammar; immutable, serves any number of sessions.

    Args:
        text: the grammar.
        root: the rule that a text must be.
        name: what errors call it, e.g. its file.

    Raises:
        GrammarError: says where and what, as `name:line: ...`.
    """

    def __init__(self, text: str, *, root: str = "root", name: str = "grammar") -> None:
        if not isinstance(text, str):
            raise GrammarError(f"{name}: a text is wanted, got {text!r}")
        self.text, self.root, self.name = text, root, name
        if len(text) > _MAX_BYTES:
            raise GrammarError(f"{name}: a grammar has at most {_MAX_BYTES} characters, got {len(text)}")
        self._rules = _Parser(text, name).rules()
        _check(self._rules, root, text, name)
        self._network = _Network(self._rules, root, name)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, root: str = "root") -> Gbnf:
        """Read a file.

        Raises:
            GrammarError: it cannot be read, or is wrong.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GrammarError(f"{path} cannot be read as UTF-8 text: {error}") from None
        return cls(text, root=root, name=str(path))

    def _native(self) -> Handle:
        return self._network


def _error(text: str, at: int, name: str, what: str) -> GrammarError:
    line = text.count("\n", 0, at) + 1
    seen = _PLACE.match(text, at)
    near = seen.group(0)[:30] if seen else ""
    return GrammarError(f"{name}:{line}: {what}" + (f", at {near!r}" if near else ", at the end of the line"))


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name, self._at, self._depth = text, name, 0, 0

    def _fail(self, what: str, at: int | None = None) -> GrammarError:
        return _error(self._text, self._at if at is None else at, self._name, what)

    def _skip(self, *, lines: bool) -> None:
        found = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take_name(self, what: str) -> str:
        found = _NAME.match(self._text, self._at)
        if not found:
            raise self._fail(f"{what} expected")
        self._at = found.end()
        return found.group(0)

    def rules(self) -> dict[str, _Rule]:
        found: dict[str, _Rule] = {}
        self._skip(lines=True)
        while self._at < len(self._text):
            start = self._at
            name = self._take_name("the name of a rule")
            self._skip(lines=False)
            if not self._text.startswith("::=", self._at):
                raise self._fail(f"::= expected behind the rule's name {name}")
            self._at += 3
            self._skip(lines=True)
            if name in found:
                raise self._fail(f"the rule {name} is defined twice; join them with |", start)
            found[name] = _Rule(self._choice(nested=False), start)
            self._skip(lines=False)
            if self._at < len(self._text) and self._peek() not in "\r\n":
                raise self._fail("the rule should end here")
            self._skip(lines=True)
        return found

    def _choice(self, *, nested: bool) -> _Node:
        items = [self._sequence(nested=nested)]
        while self._peek() == "|":
            self._at += 1
            self._skip(lines=True)
            items.append(self._sequence(nested=nested))
        return items[0] if len(items) == 1 else _Choice(tuple(items))

    def _sequence(self, *, nested: bool) -> _Node:
        items: list[_Node] = []
        while True:
            one = self._item()
            if one is None:
                break
            items.append(self._repeated(one))
            self._skip(lines=nested)
        return items[0] if len(items) == 1 else _Sequence(tuple(items))

    def _item(self) -> _Node | None:
        character, start = self._peek(), self._at
        if character == '"':
            self._at += 1
            items: list[_Node] = []
            while self._peek() != '"':
                code = self._character('a text begins with " and must end with one')
                items.append(_Characters(((code, code),)))
            self._at += 1
            return items[0] if len(items) == 1 else _Sequence(tuple(items))
        if character == "[":
            return self._characters()
        if character == ".":
            self._at += 1
            return _Characters(_without([]))
        if character == "(":
            self._at += 1
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise self._fail(f"parentheses are nested deeper than {_MAX_DEPTH} levels", start)
            self._skip(lines=True)
            inside = self._choice(nested=True)
            if self._peek() != ")":
                raise self._fail(") expected")
            self._at += 1
            self._depth -= 1
            return inside
        if _NAME.match(self._text, self._at):
            return _Reference(self._take_name("a name"), start)
        return None

    def _characters(self) -> _Characters:
        start = self._at
        self._at += 1
        inverse = self._peek() == "^"
        self._at += inverse
        ranges: list[tuple[int, int]] = []
        missing = "a class begins with [ and must end with ]"
        while self._peek() != "]":
            low = high = self._character(missing)
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._character(missing)
            if high < low:
                raise self._fail(f"the range {chr(low)!r} to {chr(high)!r} runs backwards", start)
            ranges.append((low, high))
        self._at += 1
        wanted = _without(ranges) if inverse else _without(_without(ranges))
        if not wanted:
            raise self._fail("the class has no character", start)
        return _Characters(tuple(wanted))

    def _character(self, missing: str) -> int:
        character = self._peek()
        if character in ("", "\n"):
            raise self._fail(missing)
        self._at += 1
        if character != "\\":
            return ord(character)
        kind = self._peek()
        self._at += 1
        if kind in _ESCAPES and kind:
            return ord(_ESCAPES[kind])
        digits = self._text[self._at : self._at + _CODES.get(kind, 0)]
        if not kind or kind not in _CODES or not re.fullmatch(f"[0-9A-Fa-f]{{{_CODES[kind]}}}", digits):
            raise self._fail(
                'unknown escape; there are \\n \\r \\t \\\\ \\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH'
            )
        self._at += len(digits)
        code = int(digits, 16)
        if code > _LAST_CHARACTER or _SURROGATES[0] <= code <= _SURROGATES[1]:
            raise self._fail(f"there is no character U+{code:04X}")
        return code

    def _repeated(self, item: _Node) -> _Node:
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        while True:
            mark = self._peek()
            if mark and mark in counts:
                self._at += 1
                least, most = counts[mark]
                item = _Repeat(item, least, most)
            elif mark == "{":
                found = _REPEAT.match(self._text, self._at)
                if not found:
                    raise self._fail("{m}, {m,} or {m,n} expected")
                least = int(found.group(1))
                most = int(found.group(3)) if found.group(3) else (None if found.group(2) else least)
                if least > _MAX_REPEAT or (most is not None and not max(least, 1) <= most <= _MAX_REPEAT):
                    raise self._fail(f"a repetition is of 0 to {_MAX_REPEAT} times, the less first")
                self._at = found.end()
                item = _Repeat(item, least, most)
            else:
                return item


def _without(ranges: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Return all characters but those of some ranges."""
    rest, low = [], 0
    for start, end in sorted([*ranges, _SURROGATES]):
        if start > low:
            rest.append((low, start - 1))
        low = max(low, end + 1)
    if low <= _LAST_CHARACTER:
        rest.append((low, _LAST_CHARACTER))
    return tuple(rest)


def _references(node: _Node) -> Iterator[_Reference]:
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, _Reference):
            yield each
        elif isinstance(each, (_Sequence, _Choice)):
            stack.extend(each.items)
        elif isinstance(each, _Repeat):
            stack.append(each.item)


def _check(rules: dict[str, _Rule], root: str, text: str, name: str) -> None:
    """Refuse what no text, or no end of work, would come of."""

    def refuse(at: int, what: str) -> None:
        raise _error(text, at, name, what)

    if root not in rules:
        known = ", ".join(list(rules)[:10]) or "none"
        raise GrammarError(f"{name}: there is no rule {root}, which a text must be; rules are: {known}")
    for rule in rules.values():
        for reference in _references(rule.body):
            if reference.name not in rules:
                refuse(reference.at, f"the rule {reference.name} is not defined")
    uses = {key: {each.name for each in _references(rule.body)} for key, rule in rules.items()}
    reached = {root} | _following(uses, root)
    ending, empty = _grow(rules, _ends), _grow(rules, _is_empty)
    begins = {key: {each.name for each in _leftmost(rule.body, empty)} for key, rule in rules.items()}
    for key, rule in rules.items():
        if key not in reached:
            refuse(rule.at, f"the rule {key} is not reached from {root}; use it or remove it")
        if key not in ending:
            refuse(rule.at, f"a text of the rule {key} never comes to an end")
        if key in _following(begins, key):
            refuse(rule.at, f"the rule {key} begins with itself; let what repeats come first, or use *")


def _following(edges: dict[str, set[str]], start: str) -> set[str]:
    """Return all that is reached from a rule in a step or more."""
    seen, stack = set[str](), list(edges[start])
    while stack:
        each = stack.pop()
        if each not in seen:
            seen.add(each)
            stack.extend(edges[each])
    return seen


def _grow(rules: dict[str, _Rule], holds: Callable[[_Node, set[str]], bool]) -> set[str]:
    """Return the rules of which something holds that follows from its holding of others."""
    found: set[str] = set()
    while True:
        more = {key for key, rule in rules.items() if key not in found and holds(rule.body, found)}
        if not more:
            return found
        found |= more


def _ends(node: _Node, known: set[str]) -> bool:
    """Whether a text of the node may come to an end, if those of the known rules do."""
    return _follows(node, known, of_characters=True)


def _is_empty(node: _Node, known: set[str]) -> bool:
    """Whether a text of the node may be nothing, if those of the known rules may."""
    return _follows(node, known, of_characters=False)


def _follows(node: _Node, known: set[str], *, of_characters: bool) -> bool:
    """Whether what holds of a sequence if of all its items, of a choice if of one, holds of a node."""
    if isinstance(node, _Reference):
        return node.name in known
    if isinstance(node, _Sequence):
        return all(_follows(item, known, of_characters=of_characters) for item in node.items)
    if isinstance(node, _Choice):
        return any(_follows(item, known, of_characters=of_characters) for item in node.items)
    if isinstance(node, _Repeat):
        return node.least == 0 or _follows(node.item, known, of_characters=of_characters)
    return of_characters


def _leftmost(node: _Node, empty: set[str]) -> Iterator[_Reference]:
    if isinstance(node, _Reference):
        yield node
    elif isinstance(node, _Choice):
        for item in node.items:
            yield from _leftmost(item, empty)
    elif isinstance(node, _Repeat):
        yield from _leftmost(node.item, empty)
    elif isinstance(node, _Sequence):
        for item in node.items:
            yield from _leftmost(item, empty)
            if not _is_empty(item, empty):
                return


def utf8_ranges(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the ranges of characters as ranges of each byte of their UTF-8.

    As regular expression compilers do: cut where the number of bytes changes, then where a byte before the
    last is not the same or does not run over all of its continuations.
    """
    for last in (0x7F, 0x7FF, 0xFFFF):
        if low <= last < high:
            yield from utf8_ranges(low, last)
            low = last + 1
    for i in (1, 2, 3):
        rest = (1 << (6 * i)) - 1
        if low > 0x7F and low & ~rest != high & ~rest:
            if low & rest:
                yield from utf8_ranges(low, low | rest)
                yield from utf8_ranges((low | rest) + 1, high)
                return
            if high & rest != rest:
                yield from utf8_ranges(low, (high & ~rest) - 1)
                yield from utf8_ranges(high & ~rest, high)
                return
    yield tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))


@dataclass(slots=True)
class _Builder:
    """Arcs by node, in the tables of csrc/edgevoice.h."""

    name: str
    arcs: list[list[tuple[int, int, int]]] = field(default_factory=list)

    def node(self) -> int:
        if len(self.arcs) >= _MAX_NODES:
            raise GrammarError(f"{self.name}: the grammar is too large; repeat less in {{m,n}}")
        self.arcs.append([])
        return len(self.arcs) - 1

    def epsilon(self, source: int, target: int) -> None:
        self.arcs[source].append((lib.EV_ARC_EPSILON, 0, target))

    def characters(self, ranges: tuple[tuple[int, int], ...], source: int, target: int) -> None:
        tails: dict[tuple[tuple[int, int], ...], int] = {(): target}

        def tail(rest: tuple[tuple[int, int], ...]) -> int:
            if rest not in tails:
                tails[rest] = self.node()
                self._byte(tails[rest], rest[0], tail(rest[1:]))
            return tails[rest]

        for low, high in ranges:
            for sequence in utf8_ranges(low, high):
                self._byte(source, sequence[0], tail(sequence[1:]))

    def _byte(self, source: int, span: tuple[int, int], target: int) -> None:
        self.arcs[source].append((lib.EV_ARC_RANGE, span[0] | span[1] << 8, target))


class _Network(Handle):
    """The tables of a grammar, in C."""

    def __init__(self, rules: dict[str, _Rule], root: str, name: str) -> None:
        self._builder = builder = _Builder(name)
        first = builder.node()
        self._starts = {key: builder.node() for key in rules}
        builder.epsilon(first, self._starts[root])
        for key, rule in rules.items():
            end = builder.node()
            # Which of the two it is, the stack of calls tells.
            builder.arcs[end].append((lib.EV_ARC_RETURN, 0, 0))
            builder.arcs[end].append((lib.EV_ARC_ACCEPT, 0, 0))
            self._build(rule.body, self._starts[key], end, last=True)
        counts = [len(arcs) for arcs in builder.arcs]
        arcs = np.array([arc for each in builder.arcs for arc in each], np.uint32)
        first_arc = np.concatenate([[0], np.cumsum(counts)])
        super().__init__(open_network(arcs, first_arc, name), lib.ev_grammar_free)
        del self._builder

    def _build(self, node: _Node, source: int, target: int, *, last: bool = False) -> None:
        """Lead from `source` to `target`, the end of the rule if it is the `last` of one."""
        builder = self._builder
        if isinstance(node, _Characters):
            builder.characters(node.ranges, source, target)
        elif isinstance(node, _Reference):
            start = self._starts[node.name]
            if last:  # its end is ours: no call, so that lists by recursion do not pile up
                builder.epsilon(source, start)
            else:
                builder.arcs[source].append((lib.EV_ARC_CALL, start, target))
        elif isinstance(node, _Choice):
            for item in node.items:
                self._build(item, source, target, last=last)
        elif isinstance(node, _Sequence):
            for i, item in enumerate(node.items):
                final = i == len(node.items) - 1
                following = target if final else builder.node()
                self._build(item, source, following, last=last and final)
                source = following
            if not node.items:
                builder.epsilon(source, target)
        else:
            self._repeat(node, source, target)

    def _repeat(self, node: _Repeat, source: int, target: int) -> None:
        builder = self._builder
        for _ in range(node.least):
            following = builder.node()
            self._build(node.item, source, following)
            source = following
        if node.most is None:
            loop = builder.node()
            builder.epsilon(source, loop)
            self._build(node.item, loop, loop)
            builder.epsilon(loop, target)
            return
        for _ in range(node.most - node.least):
            builder.epsilon(source, target)
            following = builder.node()
            self._build(node.item, source, following)
            source = following
        builder.epsilon(source, target)
