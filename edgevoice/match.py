"""From text to meaning: the grammar's own network reads a sentence and its labels give the slots.

The decoder searched with the same network, so what it found always has a reading, and typed text is
understood exactly as spoken text is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hassil.util import normalize_text, remove_punctuation

from edgevoice.events import Interpretation
from edgevoice.grammar import SlotClose, SlotOpen, SlotValue

if TYPE_CHECKING:
    from edgevoice.native import Grammar


def interpret(grammar: Grammar, text: str, score: float = 0.0) -> list[Interpretation]:
    """Return the meanings of a text, in the order of the grammar; none when it is not in the grammar.

    Same words with the same meaning by another way through the grammar count once.
    """
    text = " ".join(text.split())
    readings = grammar.match(text)
    if not readings:
        text = " ".join(remove_punctuation(normalize_text(text)).split())
        readings = grammar.match(text)
    meanings: list[Interpretation] = []
    for reading in readings:
        meaning = _meaning(grammar, text, reading, score)
        if not any(meaning.intent == other.intent and meaning.slots == other.slots for other in meanings):
            meanings.append(meaning)
    return meanings


def _meaning(grammar: Grammar, text: str, reading: list[tuple[int, int]], score: float) -> Interpretation:
    """Follow one reading's labels: open a slot, take the value said inside, close it."""
    data = text.encode()
    compiled = grammar.compiled
    *labels, (block_number, _) = reading
    block = compiled.blocks[block_number]
    slots: dict[str, object] = dict(block.slots)
    raw: dict[str, str] = {}
    started: list[tuple[str, int]] = []
    value: object = None
    for number, position in labels:
        label = compiled.labels[number]
        if isinstance(label, SlotOpen):
            started.append((label.slot, position))
            value = None
        elif isinstance(label, SlotValue):
            value = label.out
        elif isinstance(label, SlotClose):
            slot, start = started.pop()
            said = data[start:position].decode("utf-8", "replace").strip(" ,-")
            raw[slot] = said
            slots[slot] = said.lower() if value is None else value
    return Interpretation(text=text, intent=block.intent, slots=slots, slots_raw=raw, score=score)
