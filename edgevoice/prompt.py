"""The prompt of the mode "prompt": sentences of a grammar, which Whisper takes for what was said before.

A prompt biases the spelling and the choice of words, it forces nothing. Whisper follows the style of what it
reads, so the prompt is sentences as they may be said, not a list of words; over the sentences, the values of
the lists take turns, so that as many names as possible are seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hassil.expression import Alternative, Expression, Group, ListReference, RuleReference, TextChunk
from hassil.intents import RangeSlotList, TextSlotList

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.grammar_file import Block, GrammarFile

MAX_CHARACTERS: Final = 600
"""Some 150 tokens: Whisper keeps 223 of a prompt, the last ones, and each costs a row of the first step."""


ROUNDS: Final = 50
"""Sentences asked of each group; after that a short grammar has said all it can."""


def build(grammar: GrammarFile) -> str:
    """Return sentences of a grammar, one of each group in turn, as many as fit."""
    speakers = [_Speaker(grammar, block) for block in grammar.blocks if block.templates]
    said: list[str] = []
    length = 0
    for _ in range(ROUNDS):
        for speaker in speakers:
            sentence = speaker.sentence()
            if sentence and sentence not in said and length + len(sentence) < MAX_CHARACTERS:
                said.append(sentence)
                length += len(sentence) + 1
    return " ".join(said)


class _Speaker:
    """Says the templates of a block, each time with the next choice everywhere."""

    def __init__(self, grammar: GrammarFile, block: Block) -> None:
        self._rules = grammar.rules | block.rules
        self._lists = grammar.lists | block.lists
        self._templates = block.templates
        self._turn = -1

    def sentence(self) -> str:
        """Return the next sentence, with a capital letter and a full stop."""
        self._turn += 1
        template = self._templates[self._turn % len(self._templates)]
        text = " ".join("".join(self._words(template.sentence.expression)).split())
        return f"{text[:1].upper()}{text[1:]}." if text else ""

    def _words(self, expression: Expression) -> Iterator[str]:
        if isinstance(expression, TextChunk):
            yield expression.text
        elif isinstance(expression, Alternative):
            yield from self._words(expression.items[self._turn % len(expression.items)])
        elif isinstance(expression, Group):  # a permutation in the order it is written
            for item in expression.items:
                yield from self._words(item)
        elif isinstance(expression, RuleReference):
            yield from self._words(self._rules[expression.rule_name].expression)
        elif isinstance(expression, ListReference):
            values = self._lists.get(expression.list_name)
            if isinstance(values, TextSlotList):
                yield from self._words(values.values[self._turn % len(values.values)].text_in)
            elif isinstance(values, RangeSlotList):
                numbers = range(values.start, values.stop + 1, values.step)
                yield str(numbers[self._turn % len(numbers)])
            else:  # free text
                yield "something"
