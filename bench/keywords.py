"""From free text to an intent by keyword search: what one would write around a recogniser without a grammar.

Values of the grammar's lists are looked for in the text, the longest first, each word used once and each slot
filled once. Of all blocks of sentences the one that explains most words of the text gives the intent. Numbers
are compared as words on both sides, as in "12-ounce" and "twelve ounce".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hassil.expression import Expression, Group, ListReference, RuleReference, TextChunk

from phrases import Scope, list_of, scope_of, spoken, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.grammar_file import GrammarFile


@dataclass(frozen=True, slots=True)
class _Block:
    intent: str
    fixed: dict[str, object]
    phrases: tuple[tuple[tuple[str, ...], str, object], ...]
    """Words, slot and value; most words first."""

    literals: frozenset[str]
    """Words of the sentences themselves."""


class Keywords:
    """The keywords of one grammar."""

    def __init__(self, file: GrammarFile) -> None:
        self._language = file.language
        self._blocks: list[_Block] = []
        for block in file.blocks:
            scope = scope_of(file, block)
            phrases: dict[tuple[str, tuple[str, ...]], object] = {}
            literals: set[str] = set()
            for template in block.templates:
                for leaf in _leaves(template.sentence.expression, scope):
                    if isinstance(leaf, TextChunk):
                        literals |= set(spoken(leaf.text, file.language).split())
                    else:
                        for words, value in values(list_of(leaf, scope), scope):
                            phrases.setdefault((leaf.slot_name, tuple(words.split())), value)
            ordered = sorted(phrases.items(), key=lambda item: -len(item[0][1]))  # stable: as in the grammar
            self._blocks.append(
                _Block(
                    block.intent,
                    block.slots,
                    tuple((words, slot, value) for (slot, words), value in ordered),
                    frozenset(literals),
                )
            )

    def parse(self, text: str) -> tuple[str | None, dict[str, object]]:
        """Return intent and slots of a text; no intent when none of its words is in the grammar."""
        words = spoken(text, self._language).split()
        best, most = None, 0
        for block in self._blocks:
            slots, left = _search(words, block)
            explained = len(words) - sum(word not in block.literals for word in left)
            if explained > most:
                best, most = (block.intent, {**block.fixed, **slots}), explained
        return best or (None, {})


def _search(words: list[str], block: _Block) -> tuple[dict[str, object], list[str]]:
    """Return the slots found and the words that are in none."""
    left: list[str | None] = list(words)
    slots: dict[str, object] = {}
    for phrase, slot, value in block.phrases:
        if slot in slots:
            continue
        for start in range(len(left) - len(phrase) + 1):
            if tuple(left[start : start + len(phrase)]) == phrase:
                slots[slot] = value
                left[start : start + len(phrase)] = [None] * len(phrase)  # keeps phrases from joining across
                break
    return slots, [word for word in left if word is not None]


def _leaves(part: Expression, scope: Scope) -> Iterator[TextChunk | ListReference]:
    if isinstance(part, TextChunk | ListReference):
        yield part
    elif isinstance(part, Group):
        for item in part.items:
            yield from _leaves(item, scope)
    elif isinstance(part, RuleReference):
        yield from _leaves(scope.rules[part.rule_name].expression, scope)
