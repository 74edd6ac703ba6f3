"""How often Home Assistant's own sentences are understood as hassil, the origin of their syntax, has them.

    .venv/bin/pip install 'edgevoice[home-assistant]'
    .venv/bin/python bench/agreement.py [--language en] [--sentences N] [--entities N] [--areas N] [--seed N]

The sentences are those of the package home-assistant-intents, imported as `edgevoice grammar import` does it,
with invented devices of every kind it knows. Each is said by walking a template at random; half of them in a
house in which the room is known. hassil reads them by the package's own data. Printed are those that differ,
the time to load the grammar, what it weighs, and how long reading a sentence takes.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml
from hassil import Intents, recognize_best
from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import IntentData, RangeSlotList, TextSlotList
from home_assistant_intents import get_intents

from edgevoice import grammar, grammar_file, grammar_writer, import_home_assistant, match
from edgevoice.entities import Entity, Home, Place
from edgevoice.native import Grammar
from edgevoice.numbers import has_words, number_words

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM: Final = "kitchen"
"""In which half of the sentences are said."""

_ADJECTIVES: Final = (
    "red blue green big small left right upper lower old new front back main side corner inner outer north "
    "south east west round tall short warm cold dim bright soft"
)
_THINGS: Final = (
    "lamp heater socket speaker blind curtain door gate pump fan printer screen projector charger kettle "
    "toaster radio mixer oven boiler filter sprinkler robot tower panel beamer spot strip chain globe "
    "lantern torch candle mirror shelf desk bed sofa table chair clock plant tank pool shed barn fence hall "
    "porch attic"
)
_ROOMS: Final = (
    "kitchen office garage garden bathroom hallway basement bedroom lounge nursery library workshop pantry "
    "cellar laundry gym study terrace conservatory studio cloakroom larder foyer loft den parlour stable "
    "greenhouse playroom carport"
)
_FREE: Final = ("milk", "two eggs", "the blue book", "wake up", "a song of summer")


def main() -> int:
    """Measure and print; 1 when something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--language", default="en")
    parser.add_argument("--sentences", type=int, default=10_000)
    parser.add_argument("--entities", type=int, default=50)
    parser.add_argument("--areas", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true", help="only load, weigh and read; do not ask hassil")
    options = parser.parse_args()
    choice = random.Random(options.seed)  # noqa: S311 - no secret depends on it
    source = import_home_assistant.package_sentences(options.language)
    asked = get_intents(source.language) or {}
    home = house(asked, options.entities, options.areas)
    text = grammar_writer.render(import_home_assistant.draft(source, home))
    asked = {**asked, "lists": asked.get("lists", {}) | {k: {"values": v} for k, v in home.lists().items()}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "house.yaml"
        path.write_text(text, encoding="utf-8")
        before_kb = _resident_kb()
        started = time.perf_counter()
        file = grammar_file.load(path)
        read_s = time.perf_counter() - started
        known = {"area": ROOM}
        opened = [Grammar(grammar.compile_grammar(replace(file, context=context))) for context in ({}, known)]
        opened_s = time.perf_counter() - started - read_s
        print(
            f"{options.entities} entities, {options.areas} areas: read {read_s:.2f} s, compiled and opened "
            f"twice {opened_s:.2f} s, {(_resident_kb() - before_kb) / 1000:.0f} MB"
        )
    written = yaml.load(text, Loader=yaml.CSafeLoader)
    speakers = [Speaker(written, asked, context, choice) for context in ({}, known)]
    spent_ms, differ = [], Counter[str]()
    for i in range(options.sentences):
        speaker, ours = speakers[i % 2], opened[i % 2]
        text = speaker.sentence()
        started = time.perf_counter()
        found = match.interpret(ours, text)
        spent_ms.append((time.perf_counter() - started) * 1000)
        if options.speed:
            continue
        expected = speaker.understood(text)
        got = [
            (each.intent, {name: _plain(value) for name, value in each.slots.items()}) for each in found[:1]
        ]
        if got != [expected] * bool(expected):
            differ[f"{text!r}: hassil {expected}, edgevoice {got[0] if got else None}"] += 1
    for line in sorted(differ):
        print(line)
    print(f"reading a sentence: p50 {np.median(spent_ms):.2f} ms, p99 {np.percentile(spent_ms, 99):.2f} ms")
    if not options.speed:
        print(f"{options.sentences - differ.total()} of {options.sentences} agree")
    return 1 if differ else 0


def house(data: dict[str, Any], n_entities: int, n_areas: int) -> Home:
    """Return a home with entities of every kind that sentences are for."""
    kinds = sorted(set(_domains(data)))
    adjectives, things = _ADJECTIVES.split(), _THINGS.split()
    names = [" ".join(each) for each in itertools.product(adjectives, things)]
    names += [" ".join(each) for each in itertools.product(adjectives[:5], adjectives[5:], things[:8])]
    random.Random(0).shuffle(names)  # noqa: S311 - no secret depends on it
    return Home(
        "invented",
        tuple(Entity(name, kinds[i % len(kinds)]) for i, name in enumerate(names[:n_entities])),
        tuple(Place(name) for name in _ROOMS.split()[:n_areas]),
        tuple(Place(name) for name in ("ground floor", "first floor", "upstairs")),
    )


def _domains(data: dict[str, Any]) -> Iterator[str]:
    for intent in data["intents"].values():
        for block in intent["data"]:
            domains = block.get("requires_context", {}).get("domain", [])
            yield from [domains] if isinstance(domains, str) else domains


class Speaker:
    """Says sentences of a grammar, and knows what hassil makes of them by what it was imported from."""

    def __init__(
        self, data: dict[str, Any], asked: dict[str, Any], context: dict[str, str], choice: random.Random
    ) -> None:
        # Without its filter by regular expressions, which can take for ever and changes no answer.
        settings = {"settings": {"filter_with_regex": False}}
        self._intents, self._asked = (Intents.from_dict({**each, **settings}) for each in (data, asked))
        self._context, self._choice = context, choice
        self._words = data["language"] if has_words(data["language"]) else None
        self._templates = [
            (block, sentence.expression)
            for intent in self._intents.intents.values()
            for block in intent.data
            for sentence in block.sentences
        ]

    def sentence(self) -> str:
        """Return a sentence of a template drawn at random; it may still lack a context."""
        block, expression = self._choice.choice(self._templates)
        return " ".join(self._say(expression, block).split())

    def understood(self, text: str) -> tuple[str, dict[str, object]] | None:
        """Return what hassil takes for the best meaning."""
        best = recognize_best(text, self._asked, intent_context=self._context)
        if best is None:
            return None
        return best.intent.name, {name: _plain(slot.value) for name, slot in best.entities.items()}

    def _say(self, part: Expression, block: IntentData) -> str:  # noqa: PLR0911 - one a kind of expression
        if isinstance(part, TextChunk):
            return str(part.original_text)
        if isinstance(part, Permutation):
            items = self._choice.sample(part.items, len(part.items))
            return "".join(f" {self._say(item, block)} " for item in items)
        if isinstance(part, Alternative):
            return self._say(self._choice.choice(part.items), block)
        if isinstance(part, Group):
            return "".join(self._say(item, block) for item in part.items)
        if isinstance(part, RuleReference):
            rules = {**self._intents.expansion_rules, **block.expansion_rules}
            return self._say(rules[part.rule_name].expression, block)
        if not isinstance(part, ListReference):
            raise TypeError(part)
        values = {**self._intents.slot_lists, **block.slot_lists}[part.list_name]
        if isinstance(values, RangeSlotList):
            number = self._choice.choice(list(values.get_numbers()))
            words = number_words(self._words, number) if self._words else ()
            return self._choice.choice([f"{number:g}", *words])
        if isinstance(values, TextSlotList):
            return self._say(self._choice.choice(values.values).text_in, block)
        return self._choice.choice(_FREE)


def _plain(value: object) -> object:
    """Without what carries no meaning: spaces around and the case of words; 20.0 is 20."""
    return value.strip().lower() if isinstance(value, str) else value


def _resident_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
