"""Grammar files: YAML in Home Assistant's (hassil's) sentence syntax, read with the place of every value.

A file is read in three steps: YAML to plain values with line numbers, a check of every key and type
that names the line, and hassil's own parser for the sentence templates. What this version does not
support is refused by name, never ignored.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import yaml
from hassil.expression import Alternative, Expression, Group, RuleReference, Sentence, TextChunk
from hassil.intents import (
    RangeFractionType,
    RangeSlotList,
    RangeType,
    SlotList,
    TextSlotList,
    TextSlotValue,
    WildcardSlotList,
)
from hassil.parse_expression import parse_sentence
from hassil.parser import ParseError
from hassil.util import is_template, normalize_text

from edgevoice.config import read_regular_file
from edgevoice.errors import GrammarError
from edgevoice.events import FollowUp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_FILE_BYTES: Final = 16_000_000
"""Home Assistant's whole English collection is 1 MB; 2,000 entities add less than that."""

MAX_YAML_NODES: Final = 2_000_000
"""Values after following aliases: stops files that unfold themselves ("billion laughs")."""

MAX_NUMBER: Final = 10**15
"""Larger ones have no words, and lose digits as JSON numbers."""

MAX_YAML_DEPTH: Final = 50
"""A grammar has 8 levels; libyaml composes recursively and would overflow its stack."""

MAX_TEMPLATE_CHARACTERS: Final = 10_000
"""hassil's parser takes time by the square of this; the longest of Home Assistant's has 700."""

MAX_RANGE_NUMBERS: Final = 10_000
"""Numbers in one range; each costs some 50 bytes of automaton."""

FOLLOW_UP_S: Final = 8.0
"""Of a follow-up that does not say: time to hear a question and to begin an answer."""

MAX_FOLLOW_UP_S: Final = 60.0
"""After a minute nobody remembers what "yes" is about."""

EDGE_PUNCTUATION: Final = ".,?!;:"
"""Not spoken; a transcript may have it or not."""

LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")
"""Codes as in "en", "pt-BR", "zh-Hant-TW": a language, a script, a country, a variant."""

KEYS: Final[dict[str, frozenset[str]]] = {
    "grammar": frozenset(
        {
            "language",
            "intents",
            "lists",
            "expansion_rules",
            "skip_words",
            "responses",
            "settings",
            "expected",
            "refused",
        }
    ),
    "intent": frozenset({"data", "description", "metadata"}),
    "block": frozenset(
        {
            "sentences",
            "slots",
            "expansion_rules",
            "lists",
            "response",
            "metadata",
            "required_keywords",
            "settings",
            "requires_context",
            "excludes_context",
        }
    ),
    "list": frozenset({"values", "range", "wildcard"}),
    "value": frozenset({"in", "out", "context", "metadata"}),
    "range": frozenset(
        {"type", "from", "to", "step", "multiplier", "fractions", "digits", "words", "words_language"}
    ),
    "follow-up": frozenset({"intents", "seconds"}),
    "example": frozenset({"say", "intent", "slots"}),
}
Rules = dict[str, Sentence]
Lists = dict[str, SlotList]
Path_ = tuple[object, ...]

Context = dict[str, Any]
"""As in hassil: key -> a value, a list of values, null (any), or {value, slot} to make it a slot, too."""


@dataclass(frozen=True, slots=True)
class Template:
    """One sentence template and the line it stands on."""

    sentence: Sentence
    line: int


@dataclass(frozen=True, slots=True)
class Block:
    """Sentences of one intent that share fixed slots, rules and lists."""

    intent: str
    templates: tuple[Template, ...]
    slots: dict[str, object]
    rules: Rules
    lists: Lists
    line: int
    min_confidence: float | None = None
    """Below it these sentences are refused, 0-1; None: as configured."""

    confirm: bool = False
    """Whether to ask back before anything is done."""

    dormant: bool = False
    """Whether these sentences can be said only when another one's follow-up names the intent."""

    follow_up: FollowUp | None = None
    """What else can be said for a while after one of these sentences."""

    requires: Context = field(default_factory=dict)
    """What must be known, from outside or from the values said, for these sentences to mean anything."""

    excludes: Context = field(default_factory=dict)
    """What must not be."""

    keywords: frozenset[str] = frozenset()
    """Of which a sentence must have one, in lower case; none: no such condition."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence the grammar must understand this way, or must refuse when `intent` is None."""

    say: str
    intent: str | None
    slots: dict[str, object]
    line: int


@dataclass(frozen=True, slots=True)
class GrammarFile:
    """A grammar as written."""

    path: Path
    language: str
    blocks: tuple[Block, ...]
    rules: Rules
    lists: Lists
    skip_words: tuple[str, ...]
    examples: tuple[Example, ...]
    context: Context = field(default_factory=dict)
    """What is known before anything is said, such as the room."""

    given: Mapping[str, object] = field(default_factory=dict)
    """Values that came from elsewhere in place of those of lists, as they would stand in the file."""

    own: Lists = field(default_factory=dict)
    """The lists of the file in whose place they are."""

    @property
    def intents(self) -> tuple[str, ...]:
        """Names of the intents, in the order of the file."""
        return tuple(dict.fromkeys(block.intent for block in self.blocks))


def load(path: Path, context: Mapping[str, object] | None = None, text: str | None = None) -> GrammarFile:
    """Read a grammar file.

    Args:
        path: of the file.
        context: what is known before anything is said.
        text: to be read in place of the file, which need not be there then.

    Raises:
        GrammarError: with file, line, what was seen and what to do.
    """
    return load_with_lines(path, context, text)[0]


def load_with_lines(
    path: Path, context: Mapping[str, object] | None = None, text: str | None = None
) -> tuple[GrammarFile, Mapping[Path_, int]]:
    """Read a grammar file, and the line of everything in it by keys such as ("lists", "area", "values", 0).

    Raises:
        GrammarError: as load().
    """
    root, lines = read_yaml(path, text)
    return replace(Reader(path, root, lines).grammar(), context=dict(context or {})), lines


def read_list(name: str, values: object) -> SlotList:
    """Read a list that did not come from a file: the values as they would stand under `values`.

    Raises:
        GrammarError: names the list and what is wrong.
    """
    return Reader(Path(f"list {name}"), None, None).list_of(name, {"values": values}, ())


def with_lists(file: GrammarFile, given: Mapping[str, object]) -> GrammarFile:
    """Return a grammar with these values in place of those of its lists, and in all others its own.

    Args:
        file: with or without such values.
        given: the values of each list, as they would stand under `values`; those that the grammar does not
            have are left out.

    Raises:
        GrammarError: names the list and what is wrong.
    """
    own = file.lists | file.own
    fitting = {name: values for name, values in given.items() if name in own}
    return replace(
        file,
        lists=own | {name: read_list(name, values) for name, values in fitting.items()},
        given=fitting,
        own={name: own[name] for name in fitting},
    )


# ---- YAML with lines ----


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        GrammarError: it cannot be read, is too large, or no UTF-8 text.
    """
    try:
        data = read_regular_file(path, MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise GrammarError(f"{path}: cannot be read ({reason}); check the path") from None
    if len(data) > MAX_FILE_BYTES:
        raise GrammarError(f"{path}: larger than {MAX_FILE_BYTES} bytes; split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise GrammarError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None


def read_yaml(path: Path, text: str | None = None) -> tuple[object, dict[Path_, int]]:
    """Return the plain values of a file, or of a text, and the line of each, by path from the top."""
    text = read_text(path) if text is None else text
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(path, text, loader_class)
        loader = loader_class(text)
        try:
            root = loader.get_single_node()
            converter = _Converter(path, loader)
            value = converter.convert(root, ()) if root is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        hint = "; use spaces, YAML allows no tabs" if mark and "\t" in _line(text, mark.line) else ""
        column = mark.column + 1 if mark else None
        raise GrammarError(
            f"{place}: not valid YAML ({error.problem or error.context}){hint}", column
        ) from None
    except yaml.YAMLError as error:
        raise GrammarError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    except RecursionError:
        raise GrammarError(f"{path}: nested too deeply to be a grammar") from None
    return value, converter.lines


def _check_depth(path: Path, text: str, loader_class: Any) -> None:
    depth = 0
    events: Any = yaml.parse(text, Loader=loader_class)
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_YAML_DEPTH:
                line = event.start_mark.line + 1  # type: ignore[union-attr] # a loader sets marks
                raise GrammarError(
                    f"{path}:{line}: nested deeper than {MAX_YAML_DEPTH} levels, no grammar is"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(text: str, index: int) -> str:
    lines = text.splitlines()
    return lines[index] if index < len(lines) else ""


@dataclass
class _Converter:
    """Turns YAML nodes into plain values, refusing duplicates and runaway aliases."""

    path: Path
    loader: Any
    lines: dict[Path_, int] = field(default_factory=dict)
    _nodes: int = 0
    _open: set[int] = field(default_factory=set)

    def convert(self, node: Any, at: Path_) -> object:
        line = node.start_mark.line + 1
        self.lines[at] = line
        self._nodes += 1
        if self._nodes > MAX_YAML_NODES or id(node) in self._open:
            raise GrammarError(
                f"{self.path}:{line}: aliases unfold to more than {MAX_YAML_NODES} values; write them out"
            )
        if isinstance(node, yaml.ScalarNode):
            try:
                value: object = self.loader.construct_object(node)
            except ValueError as error:  # an impossible date, a number of thousands of digits
                raise GrammarError(
                    f"{self.path}:{line}: {shown(node.value)} cannot be read ({error}); text goes in quotes"
                ) from None
            if isinstance(value, int) and abs(value) > MAX_NUMBER:
                raise GrammarError(
                    f"{self.path}:{line}: the number {shown(node.value)} is too large to be said"
                )
            return value
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.convert(item, (*at, i)) for i, item in enumerate(node.value)]
            result: dict[object, object] = {}
            for key_node, value_node in node.value:
                key = self.convert(key_node, (*at, "key"))
                if isinstance(key, bool):  # YAML 1.1 reads a bare on/off/yes/no as true or false
                    key = key_node.value
                if isinstance(key, (dict, list)) or key in result:
                    what = "is given twice" if not isinstance(key, (dict, list)) else "is no name"
                    raise GrammarError(f"{self.path}:{key_node.start_mark.line + 1}: key {key!r} {what}")
                result[key] = self.convert(value_node, (*at, key))
            return result
        finally:
            self._open.discard(id(node))


# ---- checked reading ----


@dataclass(frozen=True, slots=True)
class _Metadata:
    """Keys of `metadata` that are ours, as in Block."""

    min_confidence: float | None
    confirm: bool
    dormant: bool
    follow_up: FollowUp | None


class Reader:
    """Turns plain values into a GrammarFile, checking every key and type; other files have subclasses.

    Args:
        path: named in errors.
        root: the plain values.
        lines: of each of them, by path from the top; None: they have no lines.
    """

    def __init__(self, path: Path, root: object, lines: Mapping[Path_, int] | None) -> None:
        self.path, self.root, self.lines = path, root, lines

    def grammar(self) -> GrammarFile:
        """Return the whole grammar."""
        root = self.mapping(self.root, (), KEYS["grammar"])
        self.check_settings(root.get("settings", {}), ("settings",))
        if not root.get("language", ""):
            raise self.error((), "no 'language'; add for example: language: en")
        language = self.language(root["language"], ("language",))
        intents = self.mapping(root.get("intents", {}), ("intents",))
        blocks: list[Block] = []
        for name, intent in intents.items():
            at: Path_ = ("intents", name)
            body = self.mapping(intent, at, KEYS["intent"])
            of_intent = self.mapping(body.get("metadata", {}), (*at, "metadata"))
            self.metadata(of_intent, (*at, "metadata"))
            for i, block in enumerate(self.sequence(body.get("data", []), (*at, "data"))):
                blocks.append(self.block(name, block, (*at, "data", i), of_intent))
        if not any(block.templates for block in blocks):
            raise self.error(
                ("intents",), "no sentences; add at least one under intents: NAME: data: - sentences:"
            )
        if all(block.dormant for block in blocks if block.templates):
            raise self.error(("intents",), "all intents are dormant, so nothing can ever be said; wake one")
        for block in blocks:
            for name in block.follow_up.intents if block.follow_up else ():
                if name not in intents:
                    near = difflib.get_close_matches(name, intents, 1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise GrammarError(
                        f"{self.path}:{block.line}: follow_up names {name!r}, which is no intent here{hint}"
                    )
        return GrammarFile(
            path=self.path,
            language=language,
            blocks=tuple(blocks),
            rules=self.rules(root.get("expansion_rules", {}), ("expansion_rules",)),
            lists=self.lists_of(root.get("lists", {}), ("lists",)),
            skip_words=tuple(self.texts(root.get("skip_words", []), ("skip_words",))),
            examples=self.examples(root),
        )

    def metadata(self, value: dict[str, Any], at: Path_) -> _Metadata:
        """Return our keys; others are anybody's, as in hassil."""
        least = value.get("min_confidence")
        if least is not None and (
            isinstance(least, bool) or not isinstance(least, (int, float)) or not 0 <= least <= 1
        ):
            raise self.error(
                (*at, "min_confidence"), f"'min_confidence' must be a number from 0 to 1, got {shown(least)}"
            )
        confirm, dormant = (self.flag(value, key, at, default=False) for key in ("confirm", "dormant"))
        return _Metadata(least, confirm, dormant, self.follow_up(value, at))

    def follow_up(self, value: dict[str, Any], at: Path_) -> FollowUp | None:
        """Return what `follow_up` of some metadata opens."""
        if value.get("follow_up") is None:
            return None
        where = (*at, "follow_up")
        body = self.mapping(value["follow_up"], where, KEYS["follow-up"])
        seconds = body.get("seconds", FOLLOW_UP_S)
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, (int, float))
            or not 0 < seconds <= MAX_FOLLOW_UP_S
        ):
            raise self.error(
                (*where, "seconds"),
                f"'seconds' must be more than 0, at most {MAX_FOLLOW_UP_S:g}, got {shown(seconds)}",
            )
        intents = tuple(self.texts(body.get("intents", []), (*where, "intents")))
        if not intents:
            raise self.error(where, "a follow_up needs 'intents', the names of those that can be said then")
        return FollowUp(intents, float(seconds))

    def block(self, intent: str, value: object, at: Path_, of_intent: dict[str, Any]) -> Block:
        """Return a block of sentences; its metadata goes before that of its intent."""
        body = self.mapping(value, at, KEYS["block"])
        self.check_settings(body.get("settings", {}), (*at, "settings"))
        where = (*at, "sentences")
        own = self.mapping(body.get("metadata", {}), (*at, "metadata"))
        metadata = self.metadata({**of_intent, **own}, (*at, "metadata"))
        templates = [
            Template(self.sentence(text, (*where, i)), self.line((*where, i)))
            for i, text in enumerate(self.texts(body.get("sentences", []), where))
        ]
        return Block(
            intent=intent,
            templates=tuple(templates),
            slots=self.mapping(body.get("slots", {}), (*at, "slots")),
            rules=self.rules(body.get("expansion_rules", {}), (*at, "expansion_rules")),
            lists=self.lists_of(body.get("lists", {}), (*at, "lists")),
            line=self.line(at),
            min_confidence=metadata.min_confidence,
            confirm=metadata.confirm,
            dormant=metadata.dormant,
            follow_up=metadata.follow_up,
            requires=self.conditions(body, "requires_context", at),
            excludes=self.conditions(body, "excludes_context", at),
            keywords=frozenset(
                normalize_text(text).lower().strip()
                for text in self.texts(body.get("required_keywords", []), (*at, "required_keywords"))
            ),
        )

    def conditions(self, body: dict[str, Any], key: str, at: Path_) -> Context:
        """Return what a block requires or excludes of the context."""
        conditions = self.mapping(body.get(key, {}), (*at, key))
        for name, condition in conditions.items():
            where = (*at, key, name)
            inner = condition
            if isinstance(condition, dict):
                for part in self.mapping(condition, where):
                    if part not in {"value", "slot"}:
                        raise self.error((*where, part), f"unknown key {part!r}; known: slot, value")
                if not isinstance(condition.get("slot", False), (bool, str)):
                    raise self.error(
                        (*where, "slot"),
                        f"'slot' must be true, false or the name of a slot, got {shown(condition['slot'])}",
                    )
                inner = condition.get("value")
            self.plain_values(inner, where)
        return conditions

    def plain_values(self, value: object, at: Path_) -> None:
        """Accept text, numbers, true, false, null, or a list of these."""
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, (str, int, float, NoneType)):
                raise self.error(at, f"{self.name(at)} must be text or a list of texts, got {shown(value)}")

    def rules(self, value: object, at: Path_) -> Rules:
        """Return `expansion_rules`."""
        return {
            name: self.sentence(self.text(body, (*at, name)), (*at, name))
            for name, body in self.mapping(value, at).items()
        }

    def lists_of(self, value: object, at: Path_) -> Lists:
        """Return `lists`."""
        return {name: self.list_of(name, body, (*at, name)) for name, body in self.mapping(value, at).items()}

    def list_of(self, name: str, value: object, at: Path_) -> SlotList:
        """Return one list."""
        body = self.mapping(value, at, KEYS["list"])
        free = self.flag(body, "wildcard", at, default=False)
        if ("values" in body) + ("range" in body) + free != 1:
            raise self.error(at, f"list {name!r} needs either 'values', 'range' or 'wildcard: true'")
        if free:
            return WildcardSlotList(name=name)
        if "range" in body:
            return self.range_of(name, body["range"], (*at, "range"))
        where: Path_ = (*at, "values")
        values = [
            self.value(item, (*where, i)) for i, item in enumerate(self.sequence(body["values"], where))
        ]
        if not values:
            raise self.error(where, f"list {name!r} is empty; a sentence with {{{name}}} could never be said")
        return TextSlotList(name=name, values=values)

    def value(self, value: object, at: Path_) -> TextSlotValue:
        """Return a value of a list: words, or what is said and what it gives."""
        if isinstance(value, dict):
            body = self.mapping(value, at, KEYS["value"])
            if "in" not in body:
                raise self.error(at, f"a value needs 'in', the words to say; seen: {value!r}")
            text = self.text(body["in"], (*at, "in"))
            out = body.get("out")
            context = self.mapping(body.get("context") or {}, (*at, "context"))
            for key, known in context.items():
                self.plain_values(known, (*at, "context", key))
        else:
            text = self.text(value, at)
            out = None if is_template(text) else text
            context = {}
        if not text.strip():
            raise self.error(at, "an empty value; remove it or give it words")
        expression = (
            self.sentence(text, at).expression if is_template(text) else TextChunk(normalize_text(text))
        )
        if can_be_empty(expression, {}):
            raise self.error(at, f"the value {shown(text)} can be empty; give it a word that is always said")
        return TextSlotValue(text_in=expression, value_out=out, context=context or None)

    def range_of(self, name: str, value: object, at: Path_) -> RangeSlotList:
        """Return a list of numbers."""
        body = self.mapping(value, at, KEYS["range"])
        numbers = {}
        for key, default in (("from", None), ("to", None), ("step", 1)):
            number = body.get(key, default)
            if not isinstance(number, int) or isinstance(number, bool):
                raise self.error(
                    (*at, key), f"range {name!r}: '{key}' must be a whole number, got {number!r}"
                )
            numbers[key] = number
        multiplier = body.get("multiplier")
        if multiplier is not None and (
            isinstance(multiplier, bool)
            or not isinstance(multiplier, (int, float))
            or not abs(multiplier) <= MAX_NUMBER  # NaN is not, either
        ):
            raise self.error(
                (*at, "multiplier"),
                f"range {name!r}: 'multiplier' must be a number up to {MAX_NUMBER}, got {multiplier!r}",
            )
        if numbers["from"] > numbers["to"] or numbers["step"] < 1:
            raise self.error(at, f"range {name!r}: 'from' must not exceed 'to', and 'step' must be positive")
        fractions = self.choice(body, "fractions", [kind.value for kind in RangeFractionType], at)
        count = (numbers["to"] - numbers["from"]) // numbers["step"] + 1
        if count * {None: 1, "halves": 2, "tenths": 10}[fractions] > MAX_RANGE_NUMBERS:
            raise self.error(
                at, f"range {name!r} has more than {MAX_RANGE_NUMBERS} numbers; use a larger 'step'"
            )
        digits, words = (self.flag(body, key, at) for key in ("digits", "words"))
        if not digits and not words:
            raise self.error(at, f"range {name!r}: 'digits' and 'words' cannot both be false")
        return RangeSlotList(
            name=name,
            type=RangeType(self.choice(body, "type", [kind.value for kind in RangeType], at) or "number"),
            start=numbers["from"],
            stop=numbers["to"],
            step=numbers["step"],
            fraction_type=RangeFractionType(fractions) if fractions else None,
            multiplier=float(multiplier) if multiplier is not None else None,
            digits=digits,
            words=words,
            words_language=self.language(body["words_language"], (*at, "words_language"))
            if body.get("words_language")
            else None,
        )

    def examples(self, root: dict[str, Any]) -> tuple[Example, ...]:
        """Return `expected` and `refused`."""
        examples: list[Example] = []
        for i, item in enumerate(self.sequence(root.get("expected", []), ("expected",))):
            at: Path_ = ("expected", i)
            body = self.mapping(item, at, KEYS["example"])
            if "say" not in body or "intent" not in body:
                raise self.error(at, "an expected sentence needs 'say' and 'intent'")
            say, intent = (self.text(body[key], (*at, key)) for key in ("say", "intent"))
            slots = self.mapping(body.get("slots", {}), (*at, "slots"))
            examples.append(Example(say, intent, slots, self.line(at)))
        for i, text in enumerate(self.texts(root.get("refused", []), ("refused",))):
            examples.append(Example(text, None, {}, self.line(("refused", i))))
        return tuple(examples)

    def sentence(self, text: str, at: Path_) -> Sentence:
        """Return a sentence template as hassil parses it."""
        if not text.strip():
            raise self.error(at, "an empty sentence; remove it or give it words")
        if len(text) > MAX_TEMPLATE_CHARACTERS:
            raise self.error(
                at,
                f"{len(text)} characters in one sentence, {MAX_TEMPLATE_CHARACTERS} are possible; use lists",
            )
        try:
            return parse_sentence(text, keep_text=True)
        except (ParseError, AssertionError, ValueError, IndexError, RecursionError) as error:
            why = shown(str(error)).strip("'") or type(error).__name__
            raise self.error(
                at, f"{shown(text)} is no sentence template ({why}); check its brackets"
            ) from None

    def check_settings(self, value: object, at: Path_) -> None:
        """Accept hassil's settings that cannot change what is understood here."""
        for key, setting in self.mapping(value, at).items():
            if key != "filter_with_regex" and setting:
                raise self.error((*at, key), f"setting {key!r} is not supported in this version; remove it")

    # -- values of a type, or an error that names the place --

    def mapping(self, value: object, at: Path_, keys: Collection[str] | None = None) -> dict[str, Any]:
        """Return a mapping that has no other keys than these; None: any."""
        if not isinstance(value, dict):
            raise self.error(at, f"{self.name(at)} must be 'key: value' lines, got {shown(value)}")
        for key in value:
            if not isinstance(key, str):
                raise self.error((*at, key), f"key {key!r} must be text; put it in quotes")
            if keys is not None and key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                known = sorted(keys) if isinstance(keys, frozenset) else keys
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise self.error((*at, key), f"unknown key {key!r}; {hint}")
        return value

    def sequence(self, value: object, at: Path_) -> list[Any]:
        """Return a list."""
        if not isinstance(value, list):
            raise self.error(at, f"{self.name(at)} must be a list ('- ...' lines), got {shown(value)}")
        return value

    def texts(self, value: object, at: Path_) -> list[str]:
        """Return a list of texts."""
        return [self.text(item, (*at, i)) for i, item in enumerate(self.sequence(value, at))]

    def text(self, value: object, at: Path_) -> str:
        """Return a text, which may have been written as a number."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            hint = "; put on/off/yes/no in quotes" if isinstance(value, bool) else ""
            raise self.error(at, f"{self.name(at)} must be text, got {shown(value)}{hint}")
        return value

    def language(self, value: object, at: Path_) -> str:
        """Return a language code."""
        code = self.text(value, at)
        if not LANGUAGE.fullmatch(code):
            raise self.error(at, f"{shown(code)} is no language code; write one such as en or pt-BR")
        return code

    def flag(self, body: dict[str, Any], key: str, at: Path_, *, default: bool = True) -> bool:
        """Return true or false."""
        value = body.get(key, default)
        if not isinstance(value, bool):
            raise self.error((*at, key), f"{key!r} must be true or false, got {value!r}")
        return value

    def choice(self, body: dict[str, Any], key: str, known: list[str], at: Path_) -> str | None:
        """Return one of some texts; None if there is none."""
        value = body.get(key)
        if value is not None and value not in known:
            raise self.error((*at, key), f"{key!r} must be one of {', '.join(known)}, got {value!r}")
        return value

    def name(self, at: Path_) -> str:
        """Return what to call a place in an error."""
        return ".".join(str(part) for part in at) or "the file"

    def line(self, at: Path_) -> int:
        """Return the line of a place, or of what it is in."""
        lines = self.lines or {}
        while at and at not in lines:
            at = at[:-1]
        return lines.get(at, 1)

    def place(self, at: Path_) -> str:
        """Return the file, and the line if it has lines."""
        return str(self.path) if self.lines is None else f"{self.path}:{self.line(at)}"

    def error(self, at: Path_, text: str) -> GrammarError:
        """Return an error that names the place."""
        return GrammarError(f"{self.place(at)}: {text}")


def can_be_empty(expression: Expression, rules: Rules) -> bool:
    """Whether a template can be nothing at all; lists and unknown rules are taken as words."""
    known: dict[str, bool] = {}

    def empty(part: Expression) -> bool:
        if isinstance(part, TextChunk):
            return not part.text.strip(EDGE_PUNCTUATION + " ")
        if isinstance(part, Group):
            return (any if isinstance(part, Alternative) else all)(empty(item) for item in part.items)
        if isinstance(part, RuleReference) and part.rule_name in rules:
            if part.rule_name not in known:
                known[part.rule_name] = False  # a rule that uses itself is refused elsewhere
                known[part.rule_name] = empty(rules[part.rule_name].expression)
            return known[part.rule_name]
        return False

    return empty(expression)


def shown(value: object) -> str:
    """Return a value for an error message, cut to a length one can read."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
