"""A grammar file as JSGF, the grammar format of pocketsphinx and other classic recognisers.

JSGF's smallest unit is the word, hassil's the character: "minute[s]" and "{percent}[%| percent]" have joints
inside or right after a word. Whatever may hang together without a gap is written out as whole words; the rest
keeps its structure, so lists and rules become JSGF rules and nothing is expanded to sentences.
"""

from __future__ import annotations

import itertools
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

from phrases import Scope, list_of, scope_of, spoken, strings, values

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from edgevoice.grammar_file import GrammarFile

_MAX_PERMUTATION: Final = 5  # as the grammar compiler's; all orders are written out

_Edge = frozenset[str]
_WORD: Final[_Edge] = frozenset({"word"})
_GAP: Final[_Edge] = frozenset({"gap"})
_EMPTY: Final[_Edge] = frozenset({"empty"})


class Jsgf:
    """The conversion of one grammar.

    Args:
        file: the grammar.
        known: the words the recogniser can pronounce; None: all. What needs other words is left out.
    """

    def __init__(self, file: GrammarFile, known: Container[str] | None = None) -> None:
        self._known = known
        self._rules: dict[tuple[str, int | None], tuple[str, str | None]] = {}
        self.unknown: set[str] = set()
        """Words that had to be left out."""

        sentences = _alternatives(
            self._convert(template.sentence.expression, scope_of(file, block))
            for block in file.blocks
            for template in block.templates
        )
        if not sentences:
            raise ValueError(f"{file.path}: no sentence has only words the recogniser knows")
        skipped = _alternatives(self._words(word, file.language) for word in file.skip_words)
        around = f"[{skipped}]" if skipped else ""
        self.text = "#JSGF V1.0;\n\ngrammar edgevoice;\n\n" + "".join(
            f"{line};\n"
            for line in (
                f"public <command> = {around} {sentences} {around}",
                *(f"<{name}> = {body}" for name, body in self._rules.values() if body),
            )
        )

    def _convert(self, part: Expression, scope: Scope) -> str | None:
        """Return a part as JSGF: "" when it says nothing, None when it holds a word that is not known."""
        if isinstance(part, TextChunk):
            return self._words(part.text, scope.language)
        if isinstance(part, Alternative):
            return _alternatives(self._convert(item, scope) for item in part.items)
        if isinstance(part, Permutation):
            if len(part.items) > _MAX_PERMUTATION:
                raise ValueError(f"a permutation of {len(part.items)} items is too large")
            items = [self._convert(item, scope) for item in part.items]
            return _alternatives(_sequence(order) for order in itertools.permutations(items))
        if isinstance(part, Group):
            return _sequence(self._run(run, scope) for run in _runs(part.items, scope))
        if isinstance(part, ListReference):
            return self._list(part, scope)
        if isinstance(part, RuleReference):
            return self._rule(part, scope)
        raise TypeError(f"{part!r} is no part of a template")

    def _run(self, run: list[Expression], scope: Scope) -> str | None:
        if len(run) == 1:
            return self._convert(run[0], scope)
        texts = strings(Group(items=run), scope)
        return _alternatives(self._words(text, scope.language) for text in texts)

    def _words(self, text: str, language: str) -> str | None:
        words = spoken(text, language)
        if self._known is not None:
            unknown = {word for word in words.split() if word not in self._known}
            self.unknown |= unknown
            if unknown:
                return None
        return words

    def _list(self, reference: ListReference, scope: Scope) -> str | None:
        key = (f"{{{reference.list_name}}}", scope.number)
        if key not in self._rules:
            said = dict.fromkeys(words for words, _ in values(list_of(reference, scope), scope))
            body = _alternatives(self._words(words, scope.language) for words in said)
            self._rules[key] = (f"list{len(self._rules)}", body)
        return self._named(key)

    def _rule(self, reference: RuleReference, scope: Scope) -> str | None:
        key = (reference.rule_name, scope.number)
        if key not in self._rules:
            body = self._convert(scope.rules[reference.rule_name].expression, scope)
            self._rules[key] = (f"rule{len(self._rules)}", body)
        return self._named(key)

    def _named(self, key: tuple[str, int | None]) -> str | None:
        name, body = self._rules[key]
        return f"<{name}>" if body else body


def _alternatives(choices: Iterable[str | None]) -> str | None:
    """Return one of several; with an empty one among them it may be left out."""
    found = dict.fromkeys(choice for choice in choices if choice is not None)
    if not found:
        return None
    said = [choice for choice in found if choice]
    if not said:
        return ""
    if "" in found:
        return f"[{' | '.join(said)}]"
    return said[0] if len(said) == 1 else f"({' | '.join(said)})"


def _sequence(parts: Iterable[str | None]) -> str | None:
    found = list(parts)
    return None if None in found else " ".join(part for part in found if part)


def _runs(items: list[Expression], scope: Scope) -> list[list[Expression]]:
    """Split a sequence wherever there is sure to be a gap between words."""
    runs: list[list[Expression]] = []
    for i, item in enumerate(items):
        joined = i > 0 and "word" in _last(items[:i], scope) and "word" in _first(items[i:], scope)
        if joined:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _first(items: list[Expression], scope: Scope) -> _Edge:
    """Return what a sequence may begin with: part of a word, a gap, or nothing at all."""
    return _edge(items, scope, 0)


def _last(items: list[Expression], scope: Scope) -> _Edge:
    return _edge(items[::-1], scope, -1)


def _edge(items: list[Expression], scope: Scope, side: int) -> _Edge:
    found: _Edge = _EMPTY
    for item in items:
        found = (found - _EMPTY) | _edge_of(item, scope, side)
        if "empty" not in found:
            break
    return found


def _edge_of(part: Expression, scope: Scope, side: int) -> _Edge:
    if isinstance(part, TextChunk):
        if not part.text:
            return _EMPTY
        return _WORD if part.text[side].isalnum() or part.text[side] == "'" else _GAP
    if isinstance(part, Permutation | Alternative):
        return frozenset().union(*(_edge_of(item, scope, side) for item in part.items))
    if isinstance(part, Group):
        return _edge(part.items if side == 0 else part.items[::-1], scope, side)
    if isinstance(part, RuleReference):
        return _edge_of(scope.rules[part.rule_name].expression, scope, side)
    return _WORD  # the value of a list
