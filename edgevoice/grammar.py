"""The grammar compiler: sentence templates become one network over bytes, for decoding and matching.

The network is recursive: each list and rule is compiled once and *called* wherever it is used, so
size and time stay linear in the text of the grammar, however many sentences it describes
(2,000 names in 40 templates are 2,000 names and 40 templates). Lists of plain values are tries.
Arcs carry bytes, word separators, calls, and labels that mark slots and values; csrc/automaton.h
says how they are run.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from hassil.errors import MissingListError
from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import RangeSlotList, SlotList, TextSlotList

from edgevoice.errors import GrammarError
from edgevoice.surface import GLUED_SIGNS, number_words, spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from edgevoice.grammar_file import Block, GrammarFile, Rules, Template

# Arc kinds, as in csrc/edgevoice.h; a test compares them.
BYTE, GLUE, EPSILON, SEPARATOR, CALL, RETURN, LABEL, ACCEPT = range(8)

MAX_PERMUTATION: Final = 5
"""Items of (a;b;...): every subset is a state and 2^5 * 5 copies of an item are enough."""

MAX_NODES: Final = 20_000_000
"""Some 500 MB of compiler memory; a grammar of 100,000 values has 2 million."""

_EDGE_PUNCTUATION: Final = ".,?!;:"
"""Not spoken; a transcript may have it or not."""


@dataclass(frozen=True, slots=True)
class SlotOpen:
    """Label: a slot begins here."""

    slot: str


@dataclass(frozen=True, slots=True)
class SlotClose:
    """Label: the slot ends here."""

    slot: str


@dataclass(frozen=True, slots=True)
class SlotValue:
    """Label: this value was said. `out` None stands for the words themselves."""

    out: object


Label = SlotOpen | SlotClose | SlotValue


@dataclass(frozen=True, slots=True, eq=False)
class CompiledGrammar:
    """The network, and what its labels and accepting arcs mean."""

    file: GrammarFile
    arcs: npt.NDArray[np.uint32]
    """shape (n_arcs, 3): kind, value, target; sorted by source node, then by the order of the grammar"""

    first_arc: npt.NDArray[np.uint32]
    """shape (n_nodes + 1,): arcs of node i are first_arc[i] up to first_arc[i + 1]"""

    labels: tuple[Label, ...]
    blocks: tuple[Block, ...]
    """What an ACCEPT value counts."""


def compile_grammar(file: GrammarFile) -> CompiledGrammar:
    """Compile a grammar file.

    Raises:
        GrammarError: undefined or recursive rules, undefined lists, languages without number words;
            with file, line, and what to do.
    """
    return _Compiler(file).compile()


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where names are looked up: a block's own rules and lists before those of the file."""

    name: str
    rules: Rules
    lists: dict[str, SlotList]
    own_names: frozenset[str]


@dataclass
class _Compiler:
    file: GrammarFile
    sources: list[int] = field(default_factory=list)
    arcs: list[tuple[int, int, int]] = field(default_factory=list)
    n_nodes: int = 1
    labels: dict[Label, int] = field(default_factory=dict)
    values: list[Label] = field(default_factory=list)
    networks: dict[tuple[str, str, str], int] = field(default_factory=dict)
    compiling: list[str] = field(default_factory=list)
    template: Template | None = None

    # ---- graph ----

    def node(self) -> int:
        if self.n_nodes >= MAX_NODES:
            raise GrammarError(
                f"{self.file.path}: the grammar needs more than {MAX_NODES} states; make it smaller"
            )
        self.n_nodes += 1
        return self.n_nodes - 1

    def arc(self, source: int, kind: int, value: int = 0, target: int | None = None) -> int:
        """Add an arc to `target`, a new node by default, and return the target."""
        if target is None:
            target = self.node()
        self.sources.append(source)
        self.arcs.append((kind, value, target))
        return target

    def label(self, label: Label) -> int:
        if label not in self.labels:
            self.labels[label] = len(self.values)
            self.values.append(label)
        return self.labels[label]

    def value_label(self, out: object) -> int:
        # Not shared: `out` may be any YAML value, and 1 == True == 1.0 would share.
        self.values.append(SlotValue(out))
        return len(self.values) - 1

    # ---- sentences ----

    def compile(self) -> CompiledGrammar:
        top = _Scope("", self.file.rules, self.file.lists, frozenset())
        start = self.skipping(0)
        for number, block in enumerate(self.file.blocks):
            own = frozenset(f"<{name}>" for name in block.rules) | frozenset(
                f"{{{name}}}" for name in block.lists
            )
            scope = top if not own else _Scope(
                str(number), self.file.rules | block.rules, self.file.lists | block.lists, own
            )  # fmt: skip
            for template in block.templates:
                self.template = template
                end = self.expression(template.sentence.expression, start, scope)
                self.arc(self.skipping(end), ACCEPT, number, 0)
        return self.tables()

    def skipping(self, at: int) -> int:
        """Allow any number of the grammar's skip words around a sentence."""
        words = [TextChunk(word) for word in self.file.skip_words if word.strip()]
        if not words:
            return at
        start = self.arc(at, EPSILON)
        before = self.arc(start, SEPARATOR)
        for word in words:
            self.arc(self.text(word.text, before), SEPARATOR, 0, start)
        return start

    def tables(self) -> CompiledGrammar:
        sources = np.asarray(self.sources, dtype=np.int64)
        arcs = np.asarray(self.arcs, dtype=np.uint32).reshape(-1, 3)
        order = np.argsort(sources, kind="stable")
        first = np.searchsorted(sources[order], np.arange(self.n_nodes + 1)).astype(np.uint32)
        return CompiledGrammar(
            file=self.file,
            arcs=np.ascontiguousarray(arcs[order]),
            first_arc=np.ascontiguousarray(first),
            labels=tuple(self.values),
            blocks=self.file.blocks,
        )

    # ---- expressions: each takes the node it starts from and returns the node it ends at ----

    def expression(self, expression: Expression, at: int, scope: _Scope) -> int:
        if isinstance(expression, TextChunk):
            return self.text(expression.text, at)
        if isinstance(expression, Permutation):
            return self.permutation(expression, at, scope)
        if isinstance(expression, Alternative):
            end = self.node()
            for item in expression.items:
                self.arc(self.expression(item, at, scope), EPSILON, 0, end)
            return end
        if isinstance(expression, Group):
            for item in expression.items:
                at = self.expression(item, at, scope)
            return at
        if isinstance(expression, RuleReference):
            return self.rule(expression.rule_name, at, scope)
        if isinstance(expression, ListReference):
            return self.list_reference(expression, at, scope)
        raise self.error(f"{type(expression).__name__} is not supported in this version")

    def permutation(self, group: Permutation, at: int, scope: _Scope) -> int:
        """Every order of the items: one state for each subset already said."""
        n = len(group.items)
        if n > MAX_PERMUTATION:
            raise self.error(f"a permutation has {n} items, at most {MAX_PERMUTATION} are possible; split it")
        states = {0: at}
        for subset in range(1, 1 << n):
            states[subset] = self.node()
        for subset in range((1 << n) - 1):
            for i, item in enumerate(group.items):
                if not subset & 1 << i:
                    end = self.expression(item, states[subset], scope)
                    self.arc(end, EPSILON, 0, states[subset | 1 << i])
        return states[(1 << n) - 1]

    def rule(self, name: str, at: int, scope: _Scope) -> int:
        if name not in scope.rules:
            raise self.error(
                f"rule <{name}> is not defined; add it under expansion_rules or correct its name"
            )

        def body(start: int) -> int:
            return self.expression(scope.rules[name].expression, start, scope)

        return self.arc(at, CALL, self.network(f"<{name}>", scope, body))

    def list_reference(self, reference: ListReference, at: int, scope: _Scope) -> int:
        name = reference.list_name
        if reference.is_capture:
            raise self.error(f"capture {{{name}:@{reference.slot_name}}} is not supported in this version")
        slot_list = scope.lists.get(name)
        if slot_list is None and (parts := reference.get_inline_range()):
            slot_list = RangeSlotList(name=name, start=parts[0], stop=parts[1], step=parts[2])
        if slot_list is None:
            raise self.error(f"list {{{name}}} is not defined; add it under lists or correct its name")
        if isinstance(slot_list, RangeSlotList):
            body = self.range_body(slot_list)
        elif isinstance(slot_list, TextSlotList):
            body = self.values_body(slot_list, scope)
        else:
            raise MissingListError(name)  # unreachable: grammar_file makes only these two
        start = self.network(f"{{{name}}}", scope, body)
        opened = self.arc(at, LABEL, self.label(SlotOpen(reference.slot_name)))
        called = self.arc(opened, CALL, start)
        return self.arc(called, LABEL, self.label(SlotClose(reference.slot_name)))

    def network(self, name: str, scope: _Scope, body: Callable[[int], int]) -> int:
        """Return the first node of a called network, compiled at its first use."""
        key = (name, scope.name, "")
        if key not in self.networks:
            if key[0] in self.compiling:
                raise self.error(f"{' -> '.join([*self.compiling, name])}: a rule may not use itself")
            self.compiling.append(name)
            start = self.node()
            self.arc(body(start), RETURN, 0, 0)
            self.compiling.pop()
            self.networks[key] = start
        return self.networks[key]

    # ---- lists ----

    def values_body(self, slot_list: TextSlotList, scope: _Scope) -> Callable[[int], int]:
        def body(start: int) -> int:
            end = self.node()
            trie: dict[tuple[int, int, int], int] = {}
            for value in slot_list.values:
                chunk = value.text_in
                if isinstance(chunk, TextChunk) and not self.has_spellings(chunk.text):
                    last = self.trie_text(chunk.text, start, trie)
                else:
                    last = self.expression(chunk, start, scope)
                self.arc(last, LABEL, self.value_label(value.value_out), end)
            return end

        return body

    def range_body(self, numbers: RangeSlotList) -> Callable[[int], int]:
        language = numbers.words_language or self.file.language

        def body(start: int) -> int:
            end = self.node()
            trie: dict[tuple[int, int, int], int] = {}
            for number in numbers.get_numbers():
                texts: list[str] = []
                if numbers.digits:
                    digits = str(number)
                    texts += dict.fromkeys((digits, digits.replace(".", ",")))
                if numbers.words:
                    texts += number_words(language, number)
                value: float = number if numbers.multiplier is None else number * numbers.multiplier
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                label = self.value_label(value)
                for text in texts:
                    self.arc(self.trie_text(text, start, trie), LABEL, label, end)
            return end

        return body

    def trie_text(self, text: str, at: int, trie: dict[tuple[int, int, int], int]) -> int:
        """Add a text that shares its beginning with others of the same trie."""
        for kind, value in _symbols(text):
            key = (at, kind, value)
            if key not in trie:
                trie[key] = self.arc(at, kind, value)
            at = trie[key]
        return at

    # ---- text ----

    def text(self, text: str, at: int) -> int:
        """Words and the separators around them, each phrase in all its spellings."""
        known = spellings(self.file.language)
        longest = max((len(phrase) for phrase in known), default=1)
        if text[:1].isspace():
            at = self.arc(at, SEPARATOR)
        words = _words(text)
        i = 0
        while i < len(words):
            if i:
                at = self.arc(at, SEPARATOR)
            for length in range(min(longest, len(words) - i), 0, -1):
                phrase = tuple(words[i : i + length])
                if phrase in known:
                    break
            end = self.plain(" ".join(phrase), at)
            for other in known.get(phrase, ()):
                self.arc(self.plain(other, at), EPSILON, 0, end)
            at, i = end, i + length
        if words and text[-1:].isspace():
            at = self.arc(at, SEPARATOR)
        return at

    def plain(self, text: str, at: int) -> int:
        for kind, value in _symbols(text):
            at = self.arc(at, kind, value)
        return at

    def has_spellings(self, text: str) -> bool:
        known = spellings(self.file.language)
        words = _words(text)
        return any(
            tuple(words[i:j]) in known
            for i, j in itertools.combinations(range(len(words) + 1), 2)
            if j - i <= 3
        )

    def error(self, text: str) -> GrammarError:
        line = self.template.line if self.template else 1
        sentence = self.template.sentence.text if self.template else ""
        return GrammarError(f"{self.file.path}:{line}: {text} (in sentence {sentence!r})")


def _words(text: str) -> list[str]:
    """Split at white space and hyphens, in lower case, without punctuation at the edges of words."""
    words = (word.strip(_EDGE_PUNCTUATION) for word in text.replace("-", " ").lower().split())
    return [word for word in words if word]


def _symbols(text: str) -> Iterable[tuple[int, int]]:
    """Yield (kind, value) of a text's bytes and separators."""
    for i, word in enumerate(_words(text)):
        if i:
            yield SEPARATOR, 0
        kind = GLUE if word[0] in GLUED_SIGNS else BYTE
        for byte in word.encode():
            yield kind, byte
