"""What is to be said about a grammar: how much it says, and what in it is wrong, doubtful or worth knowing.

    grammar file -> plain grammar  -> all its sentences   -> counted; said of two intents; never said
                 -> grammar as run -> those without free text -> taken by free text; two by their spelling
                                   -> its own examples; memory; choices of the decoder
                 -> rules and lists -> used by nobody; said twice; that sound alike

Everything is bounded: a grammar whose sentences cannot be told apart in time is counted from above, and the
report says so.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final, Literal

from hassil.expression import Group, ListReference, RuleReference
from hassil.intents import RangeSlotList, TextSlotList

from edgevoice import grammar_file, match, sounds
from edgevoice.grammar import PLACEHOLDER, FreeText, SlotOpen, compile_traced
from edgevoice.native import Grammar
from edgevoice.numbers import family
from edgevoice.sentences import Derivations, Sentences, Speaker, list_of, overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hassil.expression import Expression
    from hassil.intents import SlotList

    from edgevoice.events import Interpretation
    from edgevoice.grammar_file import Block, Example, GrammarFile
    from edgevoice.native import Model, SentenceGraph

EFFORT: Final = 3_000_000
"""Configurations looked at to tell the sentences apart, at most; 2,000 names in 40 templates have fewer."""

MAX_EXAMPLES: Final = 4
"""Sentences of two blocks whose meanings are compared, for each pair of blocks."""

MAX_VALUE_TEXTS: Final = 50
"""Ways to say a list value that are compared with others."""

MAX_WORDS: Final = 200_000
"""Words looked at, counted anew at each place where they can be said."""

MAX_WORD_PAIRS: Final = 2_000
"""Pairs of sentences that differ in a word, whose meanings are compared."""

MAX_STEPS: Final = 300
"""To find what can be said after both of two words."""

MIN_TOKENS: Final = 4
"""Names and rare words have 3 or fewer."""

MAX_LETTERS_PER_TOKEN: Final = 2.0

SAMPLES: Final = 25
"""Sentences in which the choices of the decoder are counted, word by word."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")

Level = Literal["error", "warning", "note"]
_ABSENT: Final = object()  # in place of the value of a slot
_LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")
Kind = Literal[
    "example",
    "ambiguous",
    "never-said",
    "slots",
    "duplicate",
    "goes-first",
    "swallowed",
    "unused",
    "sounds-alike",
    "spelling",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a grammar."""

    level: Level
    """An error makes commands fail, a warning most likely is not what was meant."""

    kind: Kind
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of an intent and what can be in it."""

    name: str
    kinds: tuple[str, ...]
    """Of "values", "range", "free text", "fixed"."""

    values: int
    """Different ones; free text counts none."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What can be said for an intent."""

    name: str
    sentences: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a grammar takes."""

    nodes: int
    arcs: int
    memory_bytes: int
    """Of the network."""

    mean_choices: float | None = None
    """Tokens of the model the decoder may go on with after a word, on average; None: not known."""

    most_choices: int | None = None
    most_choices_after: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known about a grammar."""

    path: Path
    language: str
    sentences: int
    exact: bool
    """False: there are at most as many sentences; those of several templates were counted several times."""

    intents: tuple[Intent, ...]
    expected: int
    refused: int
    cost: Cost
    findings: tuple[Finding, ...]
    """Worst first."""

    def count(self, level: Level) -> int:
        """Return how many findings there are of a level."""
        return sum(finding.level == level for finding in self.findings)


def check(
    path: Path,
    model: Model | None = None,
    effort: int = EFFORT,
    context: Mapping[str, object] | None = None,
    text: str | None = None,
) -> Report:
    """Check a grammar file.

    Args:
        path: of the file.
        model: counts the choices of its decoder and looks at the spelling of words; both are left out without
            one, and when it does not know the language.
        effort: as for Grammar.sentences().
        context: what is known before anything is said.
        text: in place of what is in the file.

    Raises:
        GrammarError: it cannot be read or compiled.
    """
    view = _View(*grammar_file.load_with_lines(path, context, text), effort)
    if model and not knows(model, view.file.language):
        model = None
    known: set[tuple[int, int]] = set()
    findings = [
        *failed_examples(view.grammar),
        *_two_meanings(view, known),
        *_never_said(view),
        *_swallowed(view),
        *_unused(view),
        *_duplicates(view),
        *_values_alike(view),
        *_words_alike(view, known),
        *(_odd_words(view, model) if model else ()),
    ]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    sentences = Sentences(view.graph, view.intents) if view.graph.complete else Derivations(view.file)
    refused = sum(example.intent is None for example in view.file.examples)
    return Report(
        path=path,
        language=view.file.language,
        sentences=sentences.count(),
        exact=view.graph.complete,
        intents=tuple(Intent(name, sentences.count(name), _slots(view, name)) for name in view.file.intents),
        expected=len(view.file.examples) - refused,
        refused=refused,
        cost=_cost(view, sentences, model),
        findings=tuple(findings),
    )


def knows(model: Model, language: str) -> bool:
    """Whether a model writes the words of a language."""
    return model.info.multilingual or family(language) == "en"


class _View:
    """A grammar, and what is made of it once to be looked at several times."""

    def __init__(self, file: GrammarFile, lines: Mapping[tuple[object, ...], int], effort: int) -> None:
        self.file = file
        self._lines = lines
        self.traced = compile_traced(file)
        self.grammar = Grammar(self.traced.compiled)
        self.plain = Grammar(compile_traced(file, plain=True, free=False).compiled)
        self.graph = self.plain.sentences(effort)
        self.fixed = self.grammar.sentences(
            effort if self.graph.complete else effort // 4, self.traced.has_free_text
        )
        """Sentences of templates without free text, in every spelling."""

        self.words = _words(self.graph)
        """Places in the graph where words begin, and the words, each with the state after it."""

        self.templates = self.traced.templates
        self.intents = [block.intent for block in self.traced.compiled.blocks]
        self.scopes: list[tuple[Block | None, _Scope]] = [(None, _Scope(file, None))]
        self.scopes += [(block, _Scope(file, block)) for block in file.blocks if block.rules or block.lists]
        self._places: dict[int, tuple[object, ...]] = {}
        self._lines_of_words: dict[str, int] = {}
        self._templates_in: dict[int, list[Expression]] = {}
        numbers: dict[str, int] = {}
        for block in file.blocks:
            number = numbers[block.intent] = numbers.get(block.intent, -1) + 1
            self._places[id(block)] = ("intents", block.intent, "data", number)

    def scope(self, block: Block) -> _Scope:
        """Return where the names of a block are looked up."""
        return next((scope for other, scope in self.scopes if other is block), self.scopes[0][1])

    def templates_in(self, slot_list: SlotList) -> list[Expression]:
        """Return the values of a list that are more than words."""
        if not isinstance(slot_list, TextSlotList):
            return []
        if id(slot_list) not in self._templates_in:
            texts: list[Expression] = [value.text_in for value in slot_list.values]
            self._templates_in[id(slot_list)] = [text for text in texts if isinstance(text, Group)]
        return self._templates_in[id(slot_list)]

    def line(self, block: Block | None, *place: object) -> int:
        """Return the line of something in a block, or in the file."""
        return self._lines.get(
            (*(self._places[id(block)] if block else ()), *place), block.line if block else 1
        )

    def named(self, text: str) -> str:
        """Return a sentence with {slot} for its free text."""
        return named(self.plain, text)

    def first_line(self, word: str) -> int:
        """Return the line of the first text that has a word; of the language if it is made of parts."""
        if not self._lines_of_words:
            texts = [(template.sentence.text or "", template.line) for template in self.templates]
            for block, scope in self.scopes:
                for name, rule in (block or self.file).rules.items():
                    texts.append((rule.text or "", self.line(block, "expansion_rules", name)))
                for slot_list in (block or self.file).lists.values():
                    if isinstance(slot_list, TextSlotList):
                        texts += ((v.text, v.line) for v in _values(self, block, scope, slot_list))
            for text, line in texts:
                for found in _WORD.findall(text.lower()):
                    self._lines_of_words.setdefault(found, line)
        return self._lines_of_words.get(word, self.line(None, "language"))


class _Scope:
    """Rules and lists as a block has them."""

    def __init__(self, file: GrammarFile, block: Block | None) -> None:
        self.rules = file.rules | (block.rules if block else {})
        self.lists = file.lists | (block.lists if block else {})
        self.speaker = Speaker(file.language, self.rules, self.lists)


def named(plain: Grammar, text: str) -> str:
    """Return a sentence of a plain grammar with {slot} for its free text."""
    if PLACEHOLDER not in text:
        return text
    labels = plain.compiled.labels
    for reading in plain.match(text)[:1]:
        slot = ""
        for number, _ in reading[:-1]:
            label = labels[number]
            if isinstance(label, SlotOpen):
                slot = label.slot
            elif isinstance(label, FreeText):
                text = text.replace(PLACEHOLDER, f"{{{slot}}}", 1)
    return text


# ---- the grammar's own examples ----


def failed_examples(grammar: Grammar) -> list[Finding]:
    """Return which of the sentences under `expected` and `refused` are not understood as written there."""
    found = []
    for example in grammar.compiled.file.examples:
        wrong = _wrong(grammar, example)
        if wrong:
            found.append(Finding("error", "example", example.line, f'"{example.say}" {wrong}'))
    return found


def _wrong(grammar: Grammar, example: Example) -> str | None:
    meanings = match.interpret(grammar, example.say)
    if example.intent is None:
        return f"must be refused, and is {_meaning(meanings[0])}" if meanings else None
    if not meanings:
        return "is expected, and is no sentence; see: edgevoice grammar explain"
    first = meanings[0]
    if first.intent != example.intent or _plain(first.slots) != _plain(example.slots):
        wanted = " ".join([example.intent, *(f"{slot}={value}" for slot, value in example.slots.items())])
        return f"is {_meaning(first)}, expected is {wanted}"
    others = [meaning.intent for meaning in meanings[1:] if meaning.intent != first.intent]
    return f"is {first.intent} as expected, but {others[0]} as well" if others else None


def _plain(slots: Mapping[str, object]) -> dict[str, object]:
    """Without what carries no meaning: spaces around and the case of words."""
    return {slot: value.strip().lower() if isinstance(value, str) else value for slot, value in slots.items()}


def _meaning(meaning: Interpretation) -> str:
    return " ".join([meaning.intent, *(f"{slot}={value}" for slot, value in meaning.slots.items())])


# ---- sentences ----


def _two_meanings(view: _View, reported: set[tuple[int, int]]) -> Iterator[Finding]:
    """Sentences of two intents, or of one with different slots; adds pairs of templates to `reported`."""
    for graph, grammar in ((view.graph, view.plain), (view.fixed, view.grammar)):
        for overlap in overlaps(graph, MAX_EXAMPLES):
            free = {block for block in overlap.blocks if view.traced.has_free_text[block]}
            if graph is view.fixed and len(overlap.blocks) - len(free) < 2:
                continue
            for text in overlap.examples:
                yield from _of_two(view, grammar, text, reported)


def _of_two(view: _View, grammar: Grammar, text: str, reported: set[tuple[int, int]]) -> Iterator[Finding]:
    (first, meaning), *others = match.with_blocks(grammar, text, every=True)
    equal = len(match.with_blocks(grammar, text))
    for number, (block, other) in enumerate(others, 1):
        if (first, block) in reported:
            continue
        reported.add((first, block))
        said, line = view.named(text), view.templates[first].line
        other_line = view.templates[block].line
        if meaning.intent != other.intent and number >= equal:
            yield Finding(
                "warning",
                "goes-first",
                other_line,
                f'"{said}" is not {other.intent}, but {meaning.intent}: line {line} itself says more of it',
            )
        elif meaning.intent != other.intent:
            yield Finding(
                "error",
                "ambiguous",
                line,
                f'"{said}" is {meaning.intent}, and by line {other_line} {other.intent}: '
                "refused as ambiguous",
            )
        else:
            one, two = _differences(meaning.slots, other.slots)
            yield Finding(
                "warning",
                "slots",
                line,
                f'"{said}" has {one}, by line {other_line} {two}: the first is taken',
            )


def _differences(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[str, str]:
    """Return the slots in which two meanings differ."""
    slots = [slot for slot in {**one, **other} if one.get(slot, _ABSENT) != other.get(slot, _ABSENT)]
    shown = [
        " ".join(f"{slot}={slots_of[slot]}" for slot in slots if slot in slots_of) or f"no {slots[0]}"
        for slots_of in (one, other)
    ]
    return shown[0], shown[1]


def _never_said(view: _View) -> Iterator[Finding]:
    said = set(view.graph.accepts)
    for number, template in enumerate(view.templates):
        if view.graph.complete and number not in said:
            yield Finding(
                "error", "never-said", template.line, "this sentence can never be said: it has no words"
            )
    for template in view.traced.compiled.unsayable:
        text = "this sentence cannot be said here: nothing known or said has the context that it requires"
        yield Finding("warning", "never-said", template.line, text)
    for block in view.file.blocks:
        if not block.templates:
            yield Finding("warning", "never-said", block.line, f"no sentences here for {block.intent}")


def _swallowed(view: _View) -> Iterator[Finding]:
    """Sentences that would be another intent's free text if they were not sentences themselves."""
    free = view.traced.has_free_text
    taken: dict[int, dict[int, str]] = {}
    for overlap in overlaps(view.fixed, 1):
        for block in overlap.blocks:
            if free[block]:
                others = taken.setdefault(block, {})
                for other in overlap.blocks:
                    if not free[other] and view.intents[other] != view.intents[block]:
                        others.setdefault(other, overlap.examples[0])
    for block, others in taken.items():
        if not others:
            continue
        other, text = next(iter(others.items()))
        more = f", as in {len(others) - 1} more" if len(others) > 1 else ""
        yield Finding(
            "warning",
            "swallowed",
            view.templates[block].line,
            f'free text of {view.intents[block]} could be "{text}", but line {view.templates[other].line} '
            f"({view.intents[other]}) goes first{more}",
        )


# ---- rules and lists ----


def _unused(view: _View) -> Iterator[Finding]:
    used = {name for block in view.file.blocks for name in _used(view, block)}
    for block, _ in view.scopes:
        source = block or view.file
        for key, kind, names in (
            ("expansion_rules", "rule <{}>", source.rules),
            ("lists", "list {{{}}}", source.lists),
        ):
            for name in names:
                what = kind.format(name)
                if (id(block) if block else 0, what) not in used:
                    yield Finding(
                        "warning", "unused", view.line(block, key, name), f"no sentence uses the {what}"
                    )


def _used(view: _View, block: Block) -> Iterator[tuple[int, str]]:
    """Yield the rules and lists that sentences of a block use, and whose they are: the block's, or 0."""
    scope = view.scope(block)
    seen: set[str] = set()
    open_ = [template.sentence.expression for template in block.templates]
    while open_:
        part = open_.pop()
        if isinstance(part, Group):
            open_ += part.items
        elif isinstance(part, RuleReference) and (what := f"rule <{part.rule_name}>") not in seen:
            seen.add(what)
            yield id(block) if part.rule_name in block.rules else 0, what
            open_.append(scope.rules[part.rule_name].expression)
        elif isinstance(part, ListReference) and (what := f"list {{{part.list_name}}}") not in seen:
            seen.add(what)
            yield id(block) if part.list_name in block.lists else 0, what
            open_ += view.templates_in(list_of(part, scope.lists))


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of a list, one way it is said."""

    number: int
    text: str
    out: object
    line: int


def _text_lists(view: _View) -> Iterator[tuple[str, list[_Value]]]:
    """Yield each list and the ways to say its values."""
    for block, scope in view.scopes:
        for name, slot_list in (block or view.file).lists.items():
            if isinstance(slot_list, TextSlotList):
                yield name, list(_values(view, block, scope, slot_list))


def _values(view: _View, block: Block | None, scope: _Scope, slot_list: TextSlotList) -> Iterator[_Value]:
    for number, value in enumerate(slot_list.values):
        line = view.line(block, "lists", slot_list.name, "values", number)
        ways = min(scope.speaker.count(value.text_in), MAX_VALUE_TEXTS)
        for way in range(ways):
            text = scope.speaker.text(value.text_in, way)
            yield _Value(number, text, text if value.value_out is None else value.value_out, line)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _duplicates(view: _View) -> Iterator[Finding]:
    for name, values in _text_lists(view):
        known: dict[str, _Value] = {}
        reported: set[tuple[int, int]] = set()
        for value in values:
            first = known.setdefault(value.text, value)
            if not _same(first.out, value.out) and (first.number, value.number) not in reported:
                reported.add((first.number, value.number))
                yield Finding(
                    "warning",
                    "duplicate",
                    value.line,
                    f'"{value.text}" of list {{{name}}} is {first.out} by line {first.line} '
                    f"and not {value.out}",
                )


# ---- sounds ----


def _values_alike(view: _View) -> Iterator[Finding]:
    """Values of a list that sound alike and mean different things."""
    found: list[tuple[float, Finding]] = []
    for name, values in _text_lists(view):
        by_text: dict[str, _Value] = {}
        for value in values:
            by_text.setdefault(value.text, value)
        closest: dict[tuple[int, int], tuple[float, _Value, _Value]] = {}
        for cost, one, other in sounds.alike(by_text, view.file.language):
            first, second = sorted((by_text[one], by_text[other]), key=lambda value: value.number)
            pair = (first.number, second.number)
            if not _same(first.out, second.out) and (pair not in closest or cost < closest[pair][0]):
                closest[pair] = (cost, first, second)
        for cost, first, second in closest.values():
            text = f'"{first.text}" and "{second.text}" of list {{{name}}} sound {_how(cost)}'
            found.append((cost, Finding(_level(cost), "sounds-alike", first.line, text)))
    yield from (finding for _, finding in sorted(found, key=lambda each: each[0]))


def _how(cost: float) -> str:
    return "alike" if cost else "the same"


def _level(cost: float) -> Level:
    return "note" if cost else "warning"


def _words_alike(view: _View, known: set[tuple[int, int]]) -> Iterator[Finding]:
    """Sentences that differ in one word, which sounds alike, and mean different things."""
    lists_of: dict[str, set[str]] = {}
    for name, values in _text_lists(view):
        for word in {word for value in values for word in value.text.split()}:
            lists_of.setdefault(word, set()).add(name)
    found: dict[tuple[str, ...], tuple[float, Finding]] = {}
    for pair in itertools.islice(_word_pairs(view), MAX_WORD_PAIRS):
        texts = (f"{pair.before}{word}{pair.rest}" for word in (pair.one, pair.other))
        readings = [(*match.with_blocks(view.plain, text)[0], view.named(text)) for text in texts]
        (block, one, said), (other_block, other, other_said) = sorted(readings, key=lambda each: each[0])
        if (block, other_block) in known:
            continue
        if one.intent == other.intent and (
            one.slots == other.slots or lists_of.get(pair.one, set()) & lists_of.get(pair.other, set())
        ):
            continue
        text = f'"{said}" ({one.intent}) and "{other_said}" ({other.intent}) sound {_how(pair.cost)}'
        finding = Finding(_level(pair.cost), "sounds-alike", view.templates[block].line, text)
        key = (*sorted((pair.one, pair.other)), *sorted((one.intent, other.intent)))
        found.setdefault(key, (pair.cost, finding))
    yield from (finding for _, finding in sorted(found.values(), key=lambda each: each[0]))


@dataclass(frozen=True, slots=True)
class _WordPair:
    """Two words that sound alike, and what is said before and after both."""

    cost: float
    one: str
    other: str
    before: str
    rest: str


def _word_pairs(view: _View) -> Iterator[_WordPair]:
    """Yield pairs of words that can be said at the same place, with the shortest sentences first."""
    words = dict.fromkeys(word for _, words in view.words for word in words)
    alike: dict[str, list[tuple[float, str]]] = {}
    for cost, one, other in sounds.alike(words, view.file.language):
        if not (any(map(str.isdigit, one)) and any(map(str.isdigit, other))):  # numbers are nobody's choice
            alike.setdefault(one, []).append((cost, other))
    before = _shortest_beginnings(view.graph)
    seen: set[tuple[int, int, str]] = set()
    for place, here in sorted(view.words, key=lambda each: len(before[each[0]])):
        for one in here:
            for cost, other in alike.get(one, ()):
                key = (here[one], here.get(other, -1), f"{one} {other}")
                if other not in here or key in seen:
                    continue
                seen.add(key)
                rest = _common_rest(view.graph, here[one], here[other])
                if rest is not None:
                    yield _WordPair(cost, one, other, before[place].decode(), rest.decode())


def _shortest_beginnings(graph: SentenceGraph) -> list[bytes]:
    before: list[bytes | None] = [None] * (len(graph.first_edge) - 1)
    before[0] = b""
    for state, text in enumerate(before):
        for edge in range(graph.first_edge[state], graph.first_edge[state + 1]):
            known = before[graph.targets[edge]]
            if text is not None and (known is None or len(known) > len(text) + 1):
                before[graph.targets[edge]] = text + graph.bytes[edge : edge + 1]
    return [text or b"" for text in before]


def _words(graph: SentenceGraph) -> list[tuple[int, dict[str, int]]]:
    found: list[tuple[int, dict[str, int]]] = []
    left = MAX_WORDS
    places = {target for target, byte in zip(graph.targets, graph.bytes, strict=True) if byte == ord(" ")}
    for place in sorted(places | {0}):
        words = dict(sorted(itertools.islice(_words_from(graph, place), left)))
        left -= len(words)
        found.append((place, words))
    return found


def _words_from(graph: SentenceGraph, place: int) -> Iterator[tuple[str, int]]:
    """Yield the words that can be said at a place, and the state after each."""
    open_ = [(place, b"")]
    while open_:
        state, word = open_.pop()
        ends = graph.first_accept[state] < graph.first_accept[state + 1]
        for edge in range(graph.first_edge[state], graph.first_edge[state + 1]):
            byte = graph.bytes[edge : edge + 1]
            if byte == b" ":
                ends = True
            else:
                open_.append((graph.targets[edge], word + byte))
        if ends and word and word != PLACEHOLDER.encode():
            yield word.decode(), state


def _common_rest(graph: SentenceGraph, one: int, other: int) -> bytes | None:
    """Return the shortest text that ends a sentence after both of two states, if one is found soon."""
    open_ = [(one, other, b"")]
    seen = {(one, other)}
    for a, b, text in open_:
        if all(graph.first_accept[state] < graph.first_accept[state + 1] for state in (a, b)):
            return text
        edges_b = {
            graph.bytes[e]: graph.targets[e] for e in range(graph.first_edge[b], graph.first_edge[b + 1])
        }
        for edge in range(graph.first_edge[a], graph.first_edge[a + 1]):
            pair = (graph.targets[edge], edges_b.get(graph.bytes[edge], -1))
            if pair[1] >= 0 and pair not in seen and len(seen) < MAX_STEPS:
                seen.add(pair)
                open_.append((*pair, text + graph.bytes[edge : edge + 1]))
    return None


# ---- spelling ----


def _odd_words(view: _View, model: Model) -> Iterator[Finding]:
    """Words that the model writes in many pieces, as it hardly knows them."""
    found: list[tuple[float, Finding]] = []
    for word in dict.fromkeys(word for _, words in view.words for word in words):
        letters = sum(character.isalpha() for character in word)
        if letters < len(word):
            continue
        forms = {word, word.capitalize(), word.upper()}
        tokens = min(model.fewest_tokens(f" {form}") for form in forms)
        if tokens >= MIN_TOKENS and letters / tokens <= MAX_LETTERS_PER_TOKEN:
            text = f'the model spells "{word}" in {tokens} pieces; give it a name of ordinary words as well'
            found.append((letters / tokens, Finding("note", "spelling", view.first_line(word), text)))
    yield from (finding for _, finding in sorted(found, key=lambda each: each[0]))


# ---- what there is, and what it costs ----


def _slots(view: _View, intent: str) -> tuple[Slot, ...]:
    """Return the slots of an intent in the order of the grammar."""
    kinds: dict[str, dict[str, None]] = {}
    sizes: dict[str, dict[object, int]] = {}  # of each slot, what fills it
    for block in view.file.blocks:
        if block.intent != intent:
            continue
        for slot, value in block.slots.items():
            kinds.setdefault(slot, {})["fixed"] = None
            sizes.setdefault(slot, {})[repr(value)] = 1
        for reference, slot_list in _references(view, block):
            kind, size = _size(slot_list)
            whose = id(block) if reference.list_name in block.lists else 0
            kinds.setdefault(reference.slot_name, {})[kind] = None
            sizes.setdefault(reference.slot_name, {})[whose, reference.list_name] = size
    return tuple(Slot(slot, tuple(kinds[slot]), sum(sizes[slot].values())) for slot in kinds)


def _references(view: _View, block: Block) -> Iterator[tuple[ListReference, SlotList]]:
    """Yield the lists a block refers to, each under each of its slots once."""
    scope = view.scope(block)
    seen: set[object] = set()
    open_: list[Expression] = [template.sentence.expression for template in reversed(block.templates)]
    while open_:
        part = open_.pop()
        if isinstance(part, Group):
            open_ += reversed(part.items)
        elif isinstance(part, RuleReference) and part.rule_name not in seen:
            seen.add(part.rule_name)
            open_.append(scope.rules[part.rule_name].expression)
        elif isinstance(part, ListReference) and (part.list_name, part.slot_name) not in seen:
            seen.add((part.list_name, part.slot_name))
            slot_list = list_of(part, scope.lists)
            yield part, slot_list
            open_ += view.templates_in(slot_list)


def _size(slot_list: SlotList) -> tuple[str, int]:
    if isinstance(slot_list, TextSlotList):
        return "values", len(slot_list.values)
    if isinstance(slot_list, RangeSlotList):
        return "range", sum(1 for _ in slot_list.get_numbers())
    return "free text", 0


def _cost(view: _View, sentences: Sentences | Derivations, model: Model | None) -> Cost:
    compiled = view.traced.compiled
    known = Cost(len(compiled.first_arc) - 1, len(compiled.arcs), view.grammar.size_bytes)
    if model is None:
        return known
    begun: dict[str, None] = {}
    for text in sentences.sample(SAMPLES, Random(0)):  # noqa: S311 - no secret depends on it
        words = text.partition(PLACEHOLDER)[0].split()
        begun.update(dict.fromkeys(" ".join(words[:n]) for n in range(len(words))))
    if not begun:
        return known
    choices = {text: view.grammar.choices(model, text) for text in begun}
    after = max(choices, key=lambda text: choices[text])
    return replace(
        known,
        mean_choices=sum(choices.values()) / len(choices),
        most_choices=choices[after],
        most_choices_after=after,
    )
