"""The grammar compiler: sentence templates become one network over bytes, for decoding and matching.

The network is recursive: each list and rule is compiled once and *called* wherever it is used, so
size and time stay linear in the text of the grammar, however many sentences it describes
(2,000 names in 40 templates are 2,000 names and 40 templates). Lists of plain values are tries.
Arcs carry bytes, word separators, calls, and labels that mark slots and values; csrc/automaton.h
says how they are run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import RangeSlotList, TextSlotList, WildcardSlotList
from hassil.parse_expression import parse_sentence

from edgevoice import free_text, grammar_file
from edgevoice.contexts import Scope, Scopes
from edgevoice.errors import GrammarError
from edgevoice.grammar_file import EDGE_PUNCTUATION, MAX_RANGE_NUMBERS, can_be_empty, shown
from edgevoice.numbers import number_texts
from edgevoice.surface import GLUED_SIGNS, LETTERS, closing_marks, opening_marks, spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import numpy.typing as npt

    from edgevoice.grammar_file import Block, Context, GrammarFile, Template

# Arc kinds, as in csrc/edgevoice.h; a test compares them.
BYTE, GLUE, EPSILON, SEPARATOR, CALL, RETURN, LABEL, ACCEPT, RANGE = range(9)

MAX_PERMUTATION: Final = 5
"""Items of (a;b;...): every subset is a state and 2^5 * 5 copies of an item are enough."""

MAX_NODES: Final = 3_000_000
"""Some 300 MB of compiler memory; a grammar of 100,000 values has 2 million."""

MAX_DEPTH: Final = 60
"""Rules and lists within each other; the decoder's call stacks end at 64."""

MAX_CALL_PATHS: Final = 1_000_000
"""Ways down into called rules and lists, each a call stack in the decoder. Rules that name each other twice
double them at every level; Home Assistant's English collection has some thousands."""


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
    context: Context | None = None
    """What is known once it was said."""


@dataclass(frozen=True, slots=True)
class FreeText:
    """Label: the words themselves were said, whatever they are."""


@dataclass(frozen=True, slots=True)
class SkipOpen:
    """Label: words follow that mean nothing."""


@dataclass(frozen=True, slots=True)
class SkipClose:
    """Label: such words end here."""


@dataclass(frozen=True, slots=True)
class Woken:
    """Label: the wake phrase was said."""


Label = SlotOpen | SlotClose | SlotValue | FreeText | SkipOpen | SkipClose | Woken

ALONE: Final = ""
"""Intent of the wake phrase alone; others have names."""


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

    entries: tuple[tuple[int, int], ...] = ()
    """Arc by which each template begins, and its block."""

    unsayable: tuple[Template, ...] = ()
    """Left out, because what they require is not known, or no value of a list fits."""

    def intents(self) -> frozenset[str]:
        """Return what can be said."""
        return frozenset(self.blocks[block].intent for _, block in self.entries)

    def digest(self) -> str:
        """Return what tells one network from another: equal ones mean the same by every sentence."""
        digest = hashlib.sha256(np.ascontiguousarray(self.arcs).tobytes())
        digest.update(np.ascontiguousarray(self.first_arc).tobytes())
        digest.update(repr((self.labels, [block.intent for block in self.blocks])).encode())
        return digest.hexdigest()

    def only(self, intents: Collection[str]) -> CompiledGrammar:
        """Return the network in which nothing but these intents can be said; cheap, nothing is compiled."""
        kept = np.ones(len(self.arcs), bool)
        kept[[arc for arc, block in self.entries if self.blocks[block].intent not in intents]] = False
        gone = np.concatenate([[0], np.cumsum(~kept)])
        return replace(
            self,
            arcs=np.ascontiguousarray(self.arcs[kept]),
            first_arc=(self.first_arc - gone[self.first_arc]).astype(np.uint32),
            entries=tuple((arc - int(gone[arc]), block) for arc, block in self.entries if kept[arc]),
        )


def compile_grammar(file: GrammarFile, wake_phrase: Expression | None = None) -> CompiledGrammar:
    """Compile a grammar file.

    With a wake phrase, sentences may begin with it, and it may be said alone.

    Raises:
        GrammarError: undefined or recursive rules, undefined lists, languages without number words, nothing
            that can be said; with file, line, and what to do.
    """
    return _compiled(_Compiler(file, wake_phrase))


def _compiled(compiler: _Compiler) -> CompiledGrammar:
    try:
        return compiler.compile()
    except RecursionError:  # before calls are counted, where contexts are looked for
        path = compiler.file.path
        raise GrammarError(
            f"{path}: rules and lists nest deeper than {MAX_DEPTH} levels; write some of them out"
        ) from None


PLACEHOLDER: Final = "\1"
"""In place of free text; no word has it."""


@dataclass(frozen=True, slots=True, eq=False)
class TracedGrammar:
    """A grammar compiled so that it can be told which of its templates a sentence is of."""

    compiled: CompiledGrammar
    """Its ACCEPT values count templates; `blocks` has the block of each."""

    templates: tuple[Template, ...]
    lists: dict[int, str]
    """First node of each list's network -> the list's name."""

    has_free_text: tuple[bool, ...]
    """Of each template."""


def compile_traced(file: GrammarFile, *, plain: bool = False, free: bool = True) -> TracedGrammar:
    """Compile a grammar file to look into it.

    Args:
        file: as read.
        plain: each word in the spelling of the file, each number in digits if it may be, no skip words.
        free: whether free text is free; otherwise it is PLACEHOLDER.

    Raises:
        GrammarError: as compile_grammar().
    """
    compiler = _Compiler(
        replace(file, skip_words=()) if plain else file,
        is_plain=plain,
        is_free=free,
        traced=[],
    )
    compiled = _compiled(compiler)
    traced = compiler.traced or []
    return TracedGrammar(
        replace(compiled, blocks=tuple(block for block, _, _ in traced)),
        templates=tuple(template for _, template, _ in traced),
        lists={
            network.start: name[1:-1] for (name, _), network in compiler.networks.items() if name[0] == "{"
        },
        has_free_text=tuple(has_free_text for _, _, has_free_text in traced),
    )


def plain_text(text: str) -> str:
    """Return a text as a plain grammar has it: words in lower case, signs directly behind their numbers."""
    return _SIGN_APART.sub("", " ".join(_words(text)))


def compile_free_text(language: str) -> CompiledGrammar:
    """Compile the grammar of everything: one intent without a name, one slot "text"."""
    template = grammar_file.Template(parse_sentence("{text}"), 0)
    block = grammar_file.Block(intent="", templates=(template,), slots={}, rules={}, lists={}, line=0)
    return compile_grammar(
        grammar_file.GrammarFile(
            path=Path("free text"),
            language=language,
            blocks=(block,),
            rules={},
            lists={"text": WildcardSlotList(name="text")},
            skip_words=(),
            examples=(),
        )
    )


_ALONE: Final = grammar_file.Block(ALONE, templates=(), slots={}, rules={}, lists={}, line=0)


@dataclass
class _Network:
    """A rule or list, compiled once and called from many places."""

    name: str
    start: int
    depth: int = 0
    """Calls below it, one within the other."""

    paths: int = 1
    """Call stacks that entering it can lead to."""

    complete: bool = False


@dataclass
class _Compiler:
    file: GrammarFile
    wake_phrase: Expression | None = None
    is_plain: bool = False
    is_free: bool = True
    traced: list[tuple[Block, Template, bool]] | None = None
    """Where ACCEPT values count templates: these, and which have free text."""

    sources: list[int] = field(default_factory=list)
    arcs: list[tuple[int, int, int]] = field(default_factory=list)
    entries: list[tuple[int, int]] = field(default_factory=list)
    """As in CompiledGrammar, arcs in the order they were made."""

    n_nodes: int = 1
    labels: dict[Label, int] = field(default_factory=dict)
    values: list[Label] = field(default_factory=list)
    networks: dict[tuple[str, str], _Network] = field(default_factory=dict)
    compiling: list[_Network] = field(default_factory=list)
    spellings: dict[tuple[str, ...], tuple[str, ...]] = field(init=False)
    longest: int = field(init=False)
    """Words of the longest phrase with spellings."""

    template: Template | None = None
    skip_network: int = 0
    """First node of the network of skip words, 0 when there are none."""

    skipping: int = 0
    """The same where words may be skipped: the value of SEPARATOR arcs."""

    top: _Network = field(default_factory=lambda: _Network("", 0))

    def __post_init__(self) -> None:
        self.spellings = {} if self.is_plain else spellings(self.file.language)
        self.longest = max(map(len, self.spellings), default=1)

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

    def epsilon(self, source: int, target: int) -> int:
        return self.arc(source, EPSILON, 0, target)

    def separator(self, source: int, target: int) -> int:
        return self.arc(source, SEPARATOR, 0, target)

    def gap(self, source: int) -> int:
        """A word boundary where words may be skipped."""
        return self.arc(source, SEPARATOR, self.skipping)

    def byte_range(self, source: int, low: int, high: int, target: int) -> int:
        return self.arc(source, RANGE, low | high << 8, target)

    def label(self, label: Label) -> int:
        if label not in self.labels:
            self.labels[label] = len(self.values)
            self.values.append(label)
        return self.labels[label]

    def value_label(self, out: object, context: Context | None = None) -> int:
        # Not shared: `out` may be any YAML value, and 1 == True == 1.0 would share.
        self.values.append(SlotValue(out, context))
        return len(self.values) - 1

    # ---- sentences ----

    def compile(self) -> CompiledGrammar:
        scopes = Scopes(self.file)
        unsayable: list[Template] = []
        self.skip_network = self.skip_words_body()
        begin = self.wake(self.wake_phrase) if self.wake_phrase else 0
        self.skipping = self.skip_network
        skipped = self.opening(begin)
        closing = self.closing()
        checkers: dict[str, free_text.Checker] = {}
        for number, block in enumerate(self.file.blocks):
            scope = scopes.of(number, block)
            if scope is None:
                unsayable += block.templates
                continue
            checker = checkers.setdefault(scope.name, free_text.Checker(scope.rules, scope.lists))
            for template in block.templates:
                self.template = template
                expression = template.sentence.expression
                if not scope.can_be_said(expression):
                    unsayable.append(template)
                    continue
                # As in hassil, free text at an edge of a sentence may hold its skip words.
                edges = expression.items if isinstance(expression, Group) else [expression]
                first, last = (free_text.is_reference(edges[i], scope.lists) for i in (0, -1))
                self.skipping = 0 if first or last else self.skip_network
                accept = number if self.traced is None else len(self.traced)
                start = self.arc(begin if first else skipped, EPSILON)
                self.entries.append((len(self.arcs) - 1, accept))
                end = self.expression(expression, start, scope)
                self.skipping = 0 if last else self.skip_network
                self.arc(self.gap(end) if self.skipping else end, ACCEPT, accept, 0)
                if closing:
                    self.arc(self.arc(end, CALL, closing), ACCEPT, accept, 0)
                has_free_text = scope.has_free_text(expression)
                if self.traced is not None:
                    self.traced.append((block, template, has_free_text))
                if has_free_text and (problem := checker.problem(expression)):
                    raise self.error(problem)
        if unsayable and len(unsayable) == sum(len(block.templates) for block in self.file.blocks):
            raise GrammarError(
                f"{self.file.path}: nothing can be said: every sentence requires a context that no value and "
                "nothing known outside gives; see requires_context"
            )
        return self.tables(tuple(unsayable))

    def opening(self, begin: int) -> int:
        """Compile what may stand before the first word, skipped words and marks, and return where that is."""
        first = self.gap(begin) if self.skipping else self.arc(begin, EPSILON)
        for mark in () if self.is_plain else opening_marks(self.file.language):
            marked = self.raw(begin, BYTE, mark)
            self.epsilon(marked, first)
            if self.skipping:
                self.epsilon(self.arc(marked, CALL, self.skipping), first)
        return first

    def closing(self) -> int:
        """Compile the network of marks that stand apart from the last word; 0 if there are none."""
        marks = () if self.is_plain else closing_marks(self.file.language)
        start = self.node() if marks else 0
        for mark in marks:
            # Also where the space would begin another word.
            self.arc(self.raw(start, GLUE, mark), RETURN, 0, 0)
        return start

    def raw(self, at: int, kind: int, text: str) -> int:
        """Add a text as it is, its first byte of a kind."""
        for arc in _bytes(kind, text.encode()):
            at = self.arc(at, *arc)
        return at

    def wake(self, phrase: Expression) -> int:
        """Compile the wake phrase and return where sentences begin, with it or without."""
        begin = self.node()
        scope = Scope("", {}, {}, frozenset())
        said = self.expression(phrase, self.arc(0, EPSILON), scope)
        said = self.arc(said, LABEL, self.label(Woken()))
        self.arc(self.arc(said, SEPARATOR, self.skip_network), ACCEPT, len(self.file.blocks), 0)
        self.separator(said, begin)
        self.arc(0, EPSILON, 0, begin)
        return begin

    def skip_words_body(self) -> int:
        """Compile the network of one or more skip words and return its first node; 0 without skip words."""
        words = [word for word in self.file.skip_words if word.strip()]
        if not words:
            return 0
        start, end = self.node(), self.node()
        first = self.arc(start, LABEL, self.label(SkipOpen()))
        for word in words:
            self.arc(self.text(word, self.arc(first, EPSILON)), SEPARATOR, 0, end)
        self.arc(end, EPSILON, 0, first)
        self.arc(self.arc(end, LABEL, self.label(SkipClose())), RETURN, 0, 0)
        return start

    def tables(self, unsayable: tuple[Template, ...]) -> CompiledGrammar:
        sources = np.asarray(self.sources, dtype=np.int64)
        arcs = np.asarray(self.arcs, dtype=np.uint32).reshape(-1, 3)
        order = np.argsort(sources, kind="stable")
        first = np.searchsorted(sources[order], np.arange(self.n_nodes + 1)).astype(np.uint32)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return CompiledGrammar(
            file=self.file,
            arcs=np.ascontiguousarray(arcs[order]),
            first_arc=np.ascontiguousarray(first),
            labels=tuple(self.values),
            blocks=self.file.blocks + (_ALONE,) * (self.wake_phrase is not None),
            entries=tuple((int(place[arc]), block) for arc, block in self.entries),
            unsayable=unsayable,
        )

    # ---- expressions: each takes the node it starts from and returns the node it ends at ----

    def expression(self, expression: Expression, at: int, scope: Scope) -> int:
        if isinstance(expression, TextChunk):
            return self.text(expression.text, at)
        if isinstance(expression, Permutation):
            return self.permutation(expression, at, scope)
        if isinstance(expression, Alternative):
            # Each alternative has a first node of its own, so that their order is the order of arcs.
            end = self.node()
            for item in filter(scope.can_be_said, expression.items):
                self.arc(self.expression(item, self.arc(at, EPSILON), scope), EPSILON, 0, end)
            return end
        if isinstance(expression, Group):
            for item in _joined(expression.items):
                at = self.expression(item, at, scope)
            return at
        if isinstance(expression, RuleReference):
            return self.rule(expression.rule_name, at, scope)
        if isinstance(expression, ListReference):
            return self.list_reference(expression, at, scope)
        raise self.error(f"{type(expression).__name__} is not supported in this version")

    def permutation(self, group: Permutation, at: int, scope: Scope) -> int:
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

    def rule(self, name: str, at: int, scope: Scope) -> int:
        if name not in scope.rules:
            raise self.error(
                f"rule <{name}> is not defined; add it under expansion_rules or correct its name"
            )

        def body(start: int) -> int:
            return self.expression(scope.rules[name].expression, start, scope)

        return self.call(f"<{name}>", at, scope, body)

    def list_reference(self, reference: ListReference, at: int, scope: Scope) -> int:
        name = reference.list_name
        slot_list = scope.lists.get(name)
        if slot_list is None and (parts := reference.get_inline_range()):
            slot_list = self.inline_range(name, *parts)
        if slot_list is None:
            raise self.error(f"list {{{name}}} is not defined; add it under lists or correct its name")
        body: Callable[[int], int]
        if isinstance(slot_list, RangeSlotList):
            body = self.range_body(slot_list)
        elif isinstance(slot_list, WildcardSlotList):
            body = self.words_body
        elif isinstance(slot_list, TextSlotList):
            body = self.values_body(slot_list, scope)
        else:
            raise self.error(f"list {{{name}}} is of a kind that is not supported in this version")
        if reference.is_capture:  # said, but no slot: hassil has it for its responses
            return self.call(f"{{{name}}}", at, scope, body)
        opened = self.arc(at, LABEL, self.label(SlotOpen(reference.slot_name)))
        called = self.call(f"{{{name}}}", opened, scope, body)
        return self.arc(called, LABEL, self.label(SlotClose(reference.slot_name)))

    def inline_range(self, name: str, start: int, stop: int, step: int) -> RangeSlotList:
        if start > stop or step < 1 or (stop - start) // step >= MAX_RANGE_NUMBERS:
            raise self.error(
                f"range {{{name}}} must not run backwards, nor have more than {MAX_RANGE_NUMBERS} numbers"
            )
        return RangeSlotList(name=name, start=start, stop=stop, step=step)

    def call(self, name: str, at: int, scope: Scope, body: Callable[[int], int]) -> int:
        """Call a network, which is compiled at its first use."""
        key = (name, scope.name if scope.is_own(name) else "")
        network = self.networks.get(key)
        if network is None:
            if len(self.compiling) >= MAX_DEPTH:
                raise self.error(
                    f"rules and lists nest deeper than {MAX_DEPTH} levels; write some of them out"
                )
            network = self.networks[key] = _Network(name, self.node())
            self.compiling.append(network)
            # It may be called from where words may be skipped.
            skipping, self.skipping = self.skipping, self.skip_network
            self.arc(body(network.start), RETURN, 0, 0)
            self.skipping = skipping
            self.compiling.pop()
            network.complete = True
        elif not network.complete:
            names = [other.name for other in self.compiling]
            circle = " -> ".join([*names[names.index(name) :], name])
            raise self.error(f"{circle}: a rule may not use itself")
        self.count(network)
        return self.arc(at, CALL, network.start)

    def count(self, called: _Network) -> None:
        """Add up what one more call means for the network it is in, and refuse what could not be run."""
        caller = self.compiling[-1] if self.compiling else self.top
        caller.depth = max(caller.depth, called.depth + 1)
        caller.paths += called.paths
        if caller.depth > MAX_DEPTH:
            raise self.error(f"rules and lists nest deeper than {MAX_DEPTH} levels; write some of them out")
        if caller.paths > MAX_CALL_PATHS:
            raise self.error(
                f"rules and lists name each other in more than {MAX_CALL_PATHS} ways; simplify them"
            )

    # ---- lists ----

    def words_body(self, start: int) -> int:
        end = free_text.words(self, start) if self.is_free else self.plain(PLACEHOLDER, start, {})
        return self.arc(end, LABEL, self.label(FreeText()))

    def values_body(self, slot_list: TextSlotList, scope: Scope) -> Callable[[int], int]:
        def body(start: int) -> int:
            end = self.node()
            trie: _Trie = {}
            for value in slot_list.values:
                chunk = value.text_in
                if isinstance(chunk, TextChunk):
                    last = self.text(chunk.text.strip(), start, trie)
                else:
                    last = self.expression(chunk, self.arc(start, EPSILON), scope)
                    if can_be_empty(chunk, scope.rules):
                        raise self.error(
                            f"list {slot_list.name!r} has a value that can be empty, by a rule it names; "
                            "give it a word that is always said"
                        )
                self.arc(last, LABEL, self.value_label(value.value_out, value.context), end)
            return end

        return body

    def range_body(self, numbers: RangeSlotList) -> Callable[[int], int]:
        language = numbers.words_language or self.file.language

        def body(start: int) -> int:
            end = self.node()
            trie: _Trie = {}
            for number in numbers.get_numbers():
                number = round(number, 1)  # noqa: PLW2901 - hassil adds: -1 + 0.7 is not quite -0.3
                try:
                    texts = number_texts(
                        language,
                        number,
                        digits=numbers.digits,
                        words=numbers.words,
                        fractions=numbers.fraction_type is not None,
                    )
                except GrammarError as error:
                    raise self.error(str(error)) from None
                if not texts:
                    raise self.error(
                        f"{number} in range {numbers.name!r} has no words in language {language!r}; "
                        "remove 'digits: false'"
                    )
                if self.is_plain:
                    texts = texts[:1]
                value: float = number if numbers.multiplier is None else number * numbers.multiplier
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                label = self.value_label(value)
                for text in texts:
                    self.arc(self.plain(text, start, trie), LABEL, label, end)
            return end

        return body

    # ---- text ----

    def text(self, text: str, at: int, trie: _Trie | None = None) -> int:
        """Words and the separators around them, each phrase in all its spellings.

        A trie shares what texts begin with.
        """
        trie = {} if trie is None else trie
        words = _words(text)
        # A sign may stand apart from its number, and its words do.
        if text.lstrip(EDGE_PUNCTUATION)[:1].isspace() or (words and words[0][0] in GLUED_SIGNS):
            at = self.step(at, SEPARATOR, self.skipping, trie)
        i = 0
        while i < len(words):
            if i:
                at = self.step(at, SEPARATOR, self.skipping, trie)
            for length in range(min(self.longest, len(words) - i), 0, -1):
                phrase = tuple(words[i : i + length])
                if phrase in self.spellings:
                    at = self.phrase(phrase, at, trie)
                    break
            else:
                at = self.word(phrase[0], at, trie)
            i += length
        if words and text.rstrip(EDGE_PUNCTUATION)[-1:].isspace():
            at = self.gap(at)
        return at

    def phrase(self, phrase: tuple[str, ...], at: int, trie: _Trie) -> int:
        """Add a phrase with its spellings; shared as a whole, so that no part of them means anything else."""
        if (at, phrase) not in trie:
            trie[at, phrase] = end = self.plain(" ".join(phrase), at, {})
            for other in self.spellings[phrase]:
                self.arc(self.plain(other, at, {}), EPSILON, 0, end)
        return trie[at, phrase]

    def plain(self, text: str, at: int, trie: _Trie) -> int:
        """Add a text in one spelling."""
        for i, word in enumerate(_words(text)):
            if i:
                at = self.step(at, SEPARATOR, self.skipping, trie)
            at = self.word(word, at, trie)
        return at

    def word(self, word: str, at: int, trie: _Trie) -> int:
        for forms in _characters(word):
            if len(forms) == 1 or self.is_plain:
                for kind, value in forms[0]:
                    at = self.step(at, kind, value, trie)
                continue
            if (at, forms) not in trie:
                end = trie[at, forms] = self.node()
                for *front, (kind, value) in forms:
                    node = at
                    for symbol in front:
                        node = self.arc(node, *symbol)
                    self.arc(node, kind, value, end)
            at = trie[at, forms]
        return at

    def step(self, at: int, kind: int, value: int, trie: _Trie) -> int:
        """Add an arc unless the trie has it, and return where it leads."""
        key = (at, kind << 32 | value)
        target = trie.get(key)
        if target is None:
            target = trie[key] = self.arc(at, kind, value)
        return target

    def error(self, text: str) -> GrammarError:
        line = self.template.line if self.template else 1
        sentence = (self.template.sentence.text or "") if self.template else ""
        return GrammarError(f"{self.file.path}:{line}: {text} (in sentence {shown(sentence)})")


def _joined(items: Iterable[Expression]) -> Iterable[Expression]:
    """Join neighbouring chunks of text, which hassil cuts at every word, so that phrases are seen whole."""
    text: list[str] = []
    for item in items:
        if isinstance(item, TextChunk):
            text.append(item.text)
            continue
        if text:
            yield TextChunk("".join(text))
            text = []
        yield item
    if text:
        yield TextChunk("".join(text))


_HYPHEN: Final = re.compile(r"(?<=\w)-(?=\w)")
"""A word boundary like a space; the minus before a number is not."""


def _words(text: str) -> list[str]:
    """Split at white space and hyphens, in lower case, without punctuation at the edges of words."""
    text = text.lower()
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    words = (word.strip(EDGE_PUNCTUATION) for word in text.split())
    return [word for word in words if word]


_SIGN_APART: Final = re.compile(rf" (?=[{''.join(sorted(GLUED_SIGNS))}])")
"""The space before a sign that needs none."""

_Symbols = tuple[tuple[int, int], ...]

_Trie = dict[tuple[int, object], int]
"""Where an arc, a character in several forms or a phrase leads from a node."""


@lru_cache(maxsize=20_000)
def _characters(word: str) -> tuple[tuple[_Symbols, ...], ...]:
    """Return each character of a word as the (kind, value) pairs of its bytes, in every form it may have.

    Cases of a letter that differ in their last byte only are one form, with both bytes in its value; ASCII
    letters are folded when the network is run. "é" is C3 A9, "É" C3 89.
    """
    characters: list[tuple[_Symbols, ...]] = []
    for i, character in enumerate(word):
        kind = GLUE if i == 0 and character in GLUED_SIGNS else BYTE
        lower, upper = character.encode(), character.upper().encode()
        if character.isascii() or lower == upper or len(character.upper()) != 1:
            characters.append((_bytes(kind, lower),))
        elif lower[:-1] == upper[:-1]:
            characters.append(((*_bytes(kind, lower[:-1]), (BYTE, lower[-1] | upper[-1] << 8)),))
        else:
            characters.append((_bytes(kind, lower), _bytes(kind, upper)))
        if other := LETTERS.get(character):
            characters[-1] += (_bytes(kind, other.encode()),)
    return tuple(characters)


def _bytes(kind: int, data: bytes) -> _Symbols:
    return tuple((kind if i == 0 else BYTE, byte) for i, byte in enumerate(data))
