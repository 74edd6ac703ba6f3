"""Rhasspy's sentences.ini as a grammar of edgevoice.

    lines of the ini file -> Part (a tree of words, groups, tags) -> templates and lists of hassil

In Rhasspy a tag stands behind the words whose text is its value: `(red|green){color}`. In hassil a list has
the words and their values: `{color}`. So what is tagged becomes a list: its `in` is what is spoken, its
`out` what Rhasspy would have given, substitutions and converters applied. What has no counterpart is
refused, with file and line.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from hassil.parse_expression import parse_sentence

from edgevoice.errors import GrammarError
from edgevoice.grammar_file import MAX_TEMPLATE_CHARACTERS, can_be_empty, shown
from edgevoice.grammar_writer import Draft, made_by, plain_template
from edgevoice.import_sentences import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

MAX_VALUES: Final = 10_000
"""Values of one list; what is tagged is taken apart to its different texts."""

MAX_DEPTH: Final = 40
"""Brackets in brackets."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,15}")
_RANGE: Final = re.compile(r"(-?[0-9]{1,15})\.\.(-?[0-9]{1,15})(?:,([0-9]{1,15}))?")
_NUMBER_SLOT: Final = re.compile(r"\$rhasspy/number,(-?[0-9]{1,15}),(-?[0-9]{1,15})(?:,([0-9]{1,15}))?")
_TAG: Final = re.compile(r"[\w.-]+")
_RULE: Final = re.compile(r"[^()<>\[\]{}|;\\]+")
_WORD: Final = re.compile(r"[^\s()\[\]{}<>|:!]*")
_SUBSTITUTE: Final = re.compile(r"[^\s()\[\]{}<>|!]*")
_CONVERTER: Final = re.compile(r"![\w/.-]*")

Value = str | int | float | bool

_CONVERTERS: Final[dict[str, Callable[[Value], Value]]] = {
    "int": int,
    "float": float,
    "bool": lambda value: value != 0 and str(value).lower() != "false",
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
}


@dataclass(frozen=True, slots=True)
class Tag:
    """`{name}`, `{name:value}`, `{name!converter}`."""

    name: str
    value: str | None
    converters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sentence."""

    kind: Literal["word", "sequence", "alternative", "rule", "slot", "range"]
    text: str = ""
    """The word; the name of the rule or slot."""

    items: tuple[Part, ...] = ()
    """Of a sequence or alternative; what may be left out is an alternative with an empty word."""

    numbers: tuple[int, int, int] = (0, 0, 1)
    """Of a range: first, last, step."""

    substitute: str | None = None
    converters: tuple[str, ...] = ()
    tag: Tag | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence, or the body of a rule, and where it stands."""

    part: Part
    place: str


@dataclass(slots=True)
class Section:
    """What the file says of one intent."""

    sentences: list[Line] = field(default_factory=list)
    rules: dict[str, Line] = field(default_factory=dict)


def draft(path: Path, slots: Path | None, language: str) -> Draft:
    """Return the grammar of a sentences.ini.

    Args:
        path: the file.
        slots: the folder of its slot files; None: `slots` beside it.
        language: of the sentences.

    Raises:
        GrammarError: with file, line, what was seen and what to do.
    """
    sections = read(path)
    writer = _Writer(sections, slots or path.parent / "slots")
    try:
        grammar = writer.grammar(language)
    except RecursionError:
        raise GrammarError(f"{path}: brackets and rules are nested too deeply; write some out") from None
    header = [f"Rhasspy's {path}, {made_by()}"]
    if writer.substituted:
        header.append(
            "Substitutions outside of tags (spoken:written) changed the text in Rhasspy, but no slot;"
        )
        header.append("here the text is what was said.")
    return Draft(grammar, tuple(header))


# ---- the ini file ----


def read(path: Path) -> dict[str, Section]:
    """Return the sections of a sentences.ini by intent.

    Raises:
        GrammarError: with file, line, what was seen and what to do.
    """
    sections: dict[str, Section] = {}
    for place, intent, text in _entries(path):
        section = sections.setdefault(intent, Section())
        name, equals, body = text.partition("=")
        part = _Parser((body if equals else text).replace("\\[", "["), place).sentence()
        if not equals:
            section.sentences.append(Line(part, place))
        elif _RULE.fullmatch(name.strip()):
            section.rules[name.strip()] = Line(part, place)
        else:
            raise GrammarError(f"{place}: {shown(name.strip())} is no name of a rule; write: name = words")
    if not any(section.sentences for section in sections.values()):
        raise GrammarError(f"{path}: no sentences; write [Intent] and below it one a line")
    return sections


def _entries(path: Path) -> list[tuple[str, str, str]]:
    """Return place, intent and text of each sentence and rule; what is indented more continues a rule."""
    entries: list[tuple[str, str, str]] = []
    intent, indent = "", 0
    for number, line in enumerate(read_lines(path), 1):
        text, place = line.strip(), f"{path}:{number}"
        if not text or text[0] in "#;":
            continue
        width = len(line) - len(line.lstrip())
        if entries and entries[-1][1] == intent and width > indent and "=" in entries[-1][2]:
            entries[-1] = (*entries[-1][:2], f"{entries[-1][2]} {text}")
        elif text[0] == "[":
            intent = _intent(text, place)
        elif not intent:
            raise GrammarError(f"{place}: {shown(text)} stands before the first [Intent]; add one")
        else:
            indent = width
            entries.append((place, intent, text))
    return entries


def _intent(text: str, place: str) -> str:
    name = text[1:-1].strip()
    if not text.endswith("]") or "]" in name or not name:
        raise GrammarError(f"{place}: {shown(text)} is no [Intent]; a sentence that begins with [ needs \\[")
    if name == "DEFAULT":
        raise GrammarError(f"{place}: [DEFAULT] has a meaning of its own in ini files; rename it")
    return name


class _Parser:
    """Reads one sentence."""

    def __init__(self, text: str, place: str) -> None:
        self._text, self._place = text, place
        self._at = 0

    def sentence(self) -> Part:
        if len(self._text) > MAX_TEMPLATE_CHARACTERS:
            raise self.error(
                f"{len(self._text)} characters, {MAX_TEMPLATE_CHARACTERS} are possible; use rules"
            )
        part = self._choice("", 0)
        if self._at < len(self._text):
            raise self.error(f"{self._text[self._at]!r} closes nothing; check the brackets")
        return part

    def error(self, text: str) -> GrammarError:
        return GrammarError(f"{self._place}: {text} (in {shown(self._text.strip())})")

    def _choice(self, end: str, depth: int) -> Part:
        """Read up to the closing bracket, or the end."""
        if depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} brackets in one another; use rules")
        choices: list[list[Part]] = [[]]
        while (character := self._next()) != end:
            if not character:
                raise self.error(f"{end!r} is missing")
            if character in ")]}>":
                raise self.error(f"{character!r} closes nothing; check the brackets")
            if character == "|":
                self._at += 1
                choices.append([])
            elif character == "{":
                if not choices[-1]:
                    raise self.error("a {tag} needs words before it")
                if choices[-1][-1].tag:
                    raise self.error("two {tags} on the same words; put them into brackets")
                choices[-1][-1] = replace(choices[-1][-1], tag=self._tag())
            else:
                choices[-1].append(self._suffixes(self._item(character, depth)))
        self._at += len(end)
        parts = [items[0] if len(items) == 1 else Part("sequence", items=tuple(items)) for items in choices]
        return parts[0] if len(parts) == 1 else Part("alternative", items=tuple(parts))

    def _item(self, character: str, depth: int) -> Part:
        if character in "([":
            self._at += 1
            inner = self._choice(")" if character == "(" else "]", depth + 1)
            changed = bool(inner.tag) or _changed(inner)
            if character == "(":
                # What is behind the bracket belongs to all of it, not to what is alone in it.
                return Part("sequence", items=(inner,)) if changed else inner
            whole = inner.kind == "alternative" and not changed
            return Part("alternative", items=(*(inner.items if whole else (inner,)), Part("word")))
        if character == "<":
            name, self._at = self._up_to(">")
            return Part("rule", name.strip())
        word = self._match(_WORD)
        if match := _RANGE.fullmatch(word) or _NUMBER_SLOT.fullmatch(word):
            return self._range(match)
        return Part("slot", word[1:]) if word.startswith("$") else Part("word", word)

    def _up_to(self, end: str) -> tuple[str, int]:
        """Return the text between the bracket that is next and its end, and the place behind it."""
        at = self._text.find(end, self._at + 1)
        if at < 0:
            raise self.error(f"{end!r} is missing")
        return self._text[self._at + 1 : at], at + 1

    def _range(self, match: re.Match[str]) -> Part:
        first, last, step = (int(group or 1) for group in match.groups())
        if first > last or step < 1:
            raise self.error(f"{match.group()!r} has no numbers; write the smaller one first")
        return Part("range", match.group(), numbers=(first, last, step), converters=("int",))

    def _suffixes(self, part: Part) -> Part:
        """Read what stands directly behind: a substitution, and converters."""
        if self._text[self._at : self._at + 1] == ":":
            self._at += 1
            if self._text[self._at : self._at + 1] == "(":
                text, self._at = self._up_to(")")
                if set(text) & set("([{<|"):
                    raise self.error(f"a substitution is plain words, not {text!r}")
                part = replace(part, substitute=" ".join(text.split()))
            else:
                part = replace(part, substitute=self._match(_SUBSTITUTE))
        converters = part.converters
        while self._text[self._at : self._at + 1] == "!":
            converters += (self._match(_CONVERTER)[1:],)
        return replace(part, converters=converters)

    def _tag(self) -> Tag:
        inner, self._at = self._up_to("}")
        inner, *converters = inner.split("!")
        name, colon, value = inner.partition(":")
        if not _TAG.fullmatch(name.strip()):
            raise self.error(f"{shown(name)} is no name of a tag; use letters, digits and _")
        return Tag(name.strip(), value.strip() if colon else None, tuple(converters))

    def _next(self) -> str:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:  # both patterns match nothing, too
            return ""
        self._at = match.end()
        return match.group()


def _changed(part: Part) -> bool:
    return part.substitute is not None or bool(part.converters)


# ---- templates and lists ----

Words = tuple[Value, ...]
Output = tuple[str, Words]
"""What is said, as a template, and the words that Rhasspy would put into the slot."""


class _Writer:
    """Collects the rules and lists of a grammar while its sentences are made."""

    def __init__(self, sections: dict[str, Section], slots: Path) -> None:
        self.sections, self.slots = sections, slots
        self.substituted = False
        """Whether a substitution was dropped because it changes no slot."""

        self.known: dict[tuple[str, str], Any] = {}
        """What was found out about rules and slot files, by question and name: rules are used often."""

        self.open: list[str] = []
        """Rules and slot files that are being looked at."""

        self._slot_lines: dict[str, tuple[Line, ...]] = {}
        self._lists: dict[str, dict[str, Any]] = {}
        self._rules: dict[str, str] = {}
        self._rule_names: dict[str, str] = {}

    def grammar(self, language: str) -> dict[str, Any]:
        """Return the grammar as plain values."""
        intents: dict[str, Any] = {}
        places: list[tuple[str, str]] = []
        for name, section in self.sections.items():
            blocks: list[dict[str, Any]] = []
            for line in section.sentences:
                template, slots = _Scope(self, name, line.place).top(line.part)
                places.append((template, line.place))
                same = next((block for block in blocks if repr(block.get("slots", {})) == repr(slots)), None)
                if same is None:
                    blocks.append({"sentences": [template], **({"slots": slots} if slots else {})})
                elif template not in same["sentences"]:
                    same["sentences"].append(template)
            if blocks:
                intents[name] = {"data": blocks}
        rules = {name: parse_sentence(body) for name, body in self._rules.items()}
        for template, place in places:
            if not template or can_be_empty(parse_sentence(template).expression, rules):
                raise GrammarError(f"{place}: the sentence can be empty; add a word that is always said")
        return {
            "language": language,
            "intents": intents,
            "expansion_rules": self._rules,
            "lists": self._lists,
        }

    def slot(self, name: str, place: str) -> tuple[Line, ...]:
        """Return the values of a slot file."""
        if name not in self._slot_lines:
            path = self.slots / name
            if not path.resolve().is_relative_to(self.slots.resolve()) or not path.is_file():
                raise GrammarError(
                    f"{place}: ${name}: there is no file {path}; Rhasspy's own slots and what programs write "
                    "must be put into a file there"
                )
            lines = [(i, text) for i, line in enumerate(read_lines(path), 1) if (text := line.strip())]
            if not lines:
                raise GrammarError(f"{path}: a slot without values; write one a line")
            self._slot_lines[name] = tuple(
                Line(_Parser(text.replace("\\[", "["), f"{path}:{i}").sentence(), f"{path}:{i}")
                for i, text in lines
            )
        return self._slot_lines[name]

    def rule_for(self, key: str, wish: str, body: Callable[[], str], place: str) -> str:
        """Return the reference to the expansion rule for something, which is written when first needed."""
        if key not in self._rule_names:
            name = self._rule_names[key] = _free(wish, self._rule_names.values())
            self._rules[name] = ""  # its place is before what it uses
            text = self._rules[name] = body()
            if not text:
                raise GrammarError(f"{place}: {key} is nothing that can be said; give it words")
            if len(text) > MAX_TEMPLATE_CHARACTERS:
                raise GrammarError(
                    f"{place}: {key} has {len(text)} characters, {MAX_TEMPLATE_CHARACTERS} are possible "
                    "where no {tag} makes it a list; add a tag"
                )
        return f"<{self._rule_names[key]}>"

    def list_for(self, wish: str, slot: str, body: dict[str, Any]) -> str:
        """Return the reference to a list with this content, for this slot."""
        name = next(
            name
            for name in _numbered(wish)
            if name not in self._lists or repr(self._lists[name]) == repr(body)  # 1 is not True here
        )
        self._lists[name] = body
        return f"{{{name}}}" if name == slot else f"{{{name}:{slot}}}"


def _numbered(wish: str) -> Iterator[str]:
    yield wish
    yield from (f"{wish}_{i}" for i in itertools.count(2))


def _free(wish: str, taken: Collection[str]) -> str:
    return next(name for name in _numbered(wish) if name not in taken)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Makes templates of the parts of one line."""

    writer: _Writer
    intent: str
    """Whose rules <name> means."""

    place: str

    def error(self, text: str) -> GrammarError:
        return GrammarError(f"{self.place}: {text}")

    # -- rules and slot files --

    def _named(self, part: Part) -> tuple[str, str, tuple[tuple[_Scope, Part], ...]]:
        """Return what a rule or slot is called at length and in short, and what it stands for."""
        if part.kind == "slot":
            lines = self.writer.slot(part.text, self.place)
            scopes = ((_Scope(self.writer, self.intent, line.place), line.part) for line in lines)
            return f"${part.text}", part.text, tuple(scopes)
        intent, name = self.intent, part.text
        if name not in self.writer.sections[intent].rules and "." in name:
            intent, _, name = name.rpartition(".")
        section = self.writer.sections.get(intent)
        if section is None or name not in section.rules:
            raise self.error(f"rule <{name}> is not defined in [{intent}]; add it there: {name} = words")
        line = section.rules[name]
        return f"<{intent}.{name}>", name, ((_Scope(self.writer, intent, line.place), line.part),)

    def _of_named(self, question: str, part: Part, find: Callable[[_Scope, Part], Any]) -> list[Any]:
        """Return what is found for everything that a rule or slot stands for."""
        name, _, bodies = self._named(part)
        key = (question, name if part.kind == "rule" else f"{name} in {self.intent}")
        if name in self.writer.open:
            way = " -> ".join((*self.writer.open[self.writer.open.index(name) :], name))
            raise self.error(f"{way} uses itself; rules cannot repeat")
        if key not in self.writer.known:
            self.writer.open.append(name)
            self.writer.known[key] = [find(scope, body) for scope, body in bodies]
            self.writer.open.pop()
        found: list[Any] = self.writer.known[key]
        return found

    # -- with tags --

    def top(self, part: Part) -> tuple[str, dict[str, Value]]:
        """Return the template of a sentence, and the slots that do not depend on what is said."""
        slots: dict[str, Value] = {}
        if part.kind == "sequence" and not part.tag:
            fixed = [(item, self._unspoken(item)) for item in part.items]
            slots = dict(slot for _, slot in fixed if slot)
            part = replace(part, items=tuple(item for item, slot in fixed if not slot))
        template = self.template(part)
        if len(template) > MAX_TEMPLATE_CHARACTERS:
            raise self.error(f"{len(template)} characters, {MAX_TEMPLATE_CHARACTERS} are possible; use rules")
        return template, slots

    def template(self, part: Part) -> str:
        """Return the template of a part."""
        if part.tag:
            return self._tagged(replace(part, tag=None), part.tag)
        if part.substitute is not None:
            self.writer.substituted = True
        if part.kind == "word":
            return plain_template(part.text)
        if part.kind == "sequence":
            return " ".join(text for text in self._sequence(part.items) if text)
        if part.kind == "alternative":
            return _alternative([self.template(item) for item in part.items])
        if part.kind == "range":
            raise self.error(f"the range {part.text} has no tag; add one, as in {part.text}{{number}}")
        key, wish, _ = self._named(part)
        find: Callable[[_Scope, Part], Any] = _Scope.template
        if key in self.writer.open:
            self._of_named("template", part, find)  # which refuses it
        return self.writer.rule_for(
            key if part.kind == "rule" else f"{key} in {self.intent}",
            wish,
            lambda: _alternative(self._of_named("template", part, find)),
            self.place,
        )

    def _sequence(self, items: tuple[Part, ...]) -> Iterator[str]:
        """Yield the templates of items; a tag without words is put on a word beside it."""
        unspoken = [slot for item in items if (slot := self._unspoken(item))]
        for item in items:
            if self._unspoken(item):
                continue
            if unspoken and item.kind == "word" and item.text and not item.tag:
                name, value = unspoken.pop(0)
                yield self._list(name, name, [(plain_template(item.text), value)])
            else:
                yield self.template(item)
        if unspoken:
            raise self._lonely(unspoken[0][0])

    def _lonely(self, tag: str) -> GrammarError:
        return self.error(
            f"the tag {tag!r} stands on nothing that is said, and no single word is beside it in its "
            "brackets; move it to the end of the sentence"
        )

    def _unspoken(self, part: Part) -> tuple[str, Value] | None:
        """Return name and value of a tag on nothing, as in (:){domain:light}."""
        if not part.tag or _has_words(part):
            return None
        (_, words), *_ = self._outputs(replace(part, tag=None))
        return part.tag.name, self._value(words, part.tag)

    def _tagged(self, part: Part, tag: Tag) -> str:
        """Return the template of tagged words: a list, or several where one cannot hold it."""
        if part.tag:
            raise self._nested(part.tag)
        if not _has_words(part):
            raise self._lonely(tag.name)
        while (
            part.kind == "sequence" and len(part.items) == 1 and not _changed(part) and not part.items[0].tag
        ):
            part = part.items[0]
        if tag.value is None and part.substitute is None and self._has_range(part):
            return self._number(part, replace(tag, converters=(*part.converters, *tag.converters)))
        outputs = self._outputs(part if tag.value is None else replace(part, substitute=tag.value))
        values = [(said, self._value(words, tag)) for said, words in outputs if said]
        if any(words and not said for said, words in outputs):
            raise self.error(
                f"the tag {tag.name!r} has a value that nobody says, beside others; write two sentences"
            )
        wish = self._named(part)[1] if part.kind in {"rule", "slot"} and tag.value is None else tag.name
        reference = self._list(wish, tag.name, values)
        return reference if len(values) == len(outputs) else f"[{reference}]"

    def _number(self, part: Part, tag: Tag) -> str:
        """Return the template of tagged words with a range of numbers in it."""
        if part.kind == "range":
            return self._range(part, tag)
        if part.kind in {"rule", "slot"}:
            # Not remembered: it depends on the tag.
            return _alternative([scope._tagged(inner, tag) for scope, inner in self._named(part)[2]])  # noqa: SLF001
        if part.kind == "sequence":
            return self._number_in_sequence(part, tag)
        words = tuple(item for item in part.items if not self._has_range(item))
        texts = [self._tagged(item, tag) for item in part.items if item not in words]
        if any(map(_has_words, words)):
            texts.append(self._tagged(Part("alternative", items=words), tag))
        return _alternative([*texts, *("" for word in words if not _has_words(word))])

    def _range(self, part: Part, tag: Tag) -> str:
        first, last, step = part.numbers
        body: dict[str, Any] = {"from": first, "to": last, **({"step": step} if step > 1 else {})}
        for converter in tag.converters:
            if converter == "float":
                body["multiplier"] = 1.0
            elif converter != "int":
                raise self.error(f"!{converter} on a range of numbers; only !int and !float are possible")
        return self.writer.list_for(tag.name, tag.name, {"range": body})

    def _number_in_sequence(self, part: Part, tag: Tag) -> str:
        number = next(item for item in part.items if self._has_range(item))
        texts: list[str] = []
        for item in part.items:
            if item is number:
                texts.append(self._tagged(item, tag))
                continue
            outputs = self._outputs(item)
            if any(words for _, words in outputs):
                raise self.error(
                    f"the tag {tag.name!r} joins a range of numbers with words to one value; tag the range "
                    "alone, or take words out of the value with a colon, as in (0..100 percent:)"
                )
            texts.append(_alternative([said for said, _ in outputs]))
        return " ".join(text for text in texts if text)

    def _has_range(self, part: Part) -> bool:
        if part.kind in {"rule", "slot"}:
            return any(self._of_named("range", part, _Scope._has_range))
        return part.kind == "range" or any(map(self._has_range, part.items))

    def _nested(self, tag: Tag) -> GrammarError:
        return self.error(f"the tag {tag.name!r} stands inside of another tag; only one is possible")

    # -- inside of a tag --

    def _outputs(self, part: Part) -> list[Output]:
        """Return everything that can be said, as templates, each with what Rhasspy makes of it."""
        if part.tag:
            raise self._nested(part.tag)
        if part.substitute is not None:
            words = (part.substitute,) if part.substitute else ()
            found: list[Output] = [(self.spoken(replace(part, substitute=None)), words)]
        else:
            found = self._unchanged(part)
        if len(found) > MAX_VALUES or any(
            len(said) > MAX_TEMPLATE_CHARACTERS or len(words) > MAX_TEMPLATE_CHARACTERS
            for said, words in found
        ):
            raise self.error(
                f"more than {MAX_VALUES} values, or too long ones, in one tag; use fewer brackets"
            )
        if part.converters:
            return [
                (said, (self._convert(words, part.converters),) if words else ()) for said, words in found
            ]
        return found

    def _unchanged(self, part: Part) -> list[Output]:
        if part.kind == "word":
            if not part.text:
                return [("", ())]
            word: Value = int(part.text) if _NUMBER.fullmatch(part.text) else part.text
            return [(plain_template(part.text), (word,))]
        if part.kind == "sequence":
            return self._joined([self._outputs(item) for item in part.items])
        if part.kind == "range":
            raise self.error(f"the range {part.text} is joined with words to one value; tag it alone")
        if part.kind == "alternative":
            found = [self._outputs(item) for item in part.items]
        else:
            found = self._of_named("outputs", part, _Scope._outputs)
        outputs = [output for each in found for output in each]
        if len({repr(words) for _, words in outputs}) == 1:
            return [(_alternative([said for said, _ in outputs]), outputs[0][1])]
        return outputs

    def _joined(self, parts: list[list[Output]]) -> list[Output]:
        joined: list[Output] = [("", ())]
        for outputs in parts:
            if len(joined) * len(outputs) > MAX_VALUES:
                raise self.error(f"more than {MAX_VALUES} values in one tag; use fewer brackets")
            joined = [
                (f"{said} {more}".strip(), words + further)
                for said, words in joined
                for more, further in outputs
            ]
        return joined

    def spoken(self, part: Part) -> str:
        """Return a template of what is said, without tags and lists, for a value of a list."""
        if part.tag:
            raise self._nested(part.tag)
        if part.kind == "word":
            return plain_template(part.text)
        if part.kind == "range":
            raise self.error(f"the range {part.text} stands where its number is not the value; tag it alone")
        if part.kind == "sequence":
            text = " ".join(text for item in part.items if (text := self.spoken(item)))
        elif part.kind == "alternative":
            text = _alternative([self.spoken(item) for item in part.items])
        else:
            text = _alternative(self._of_named("spoken", part, _Scope.spoken))
        if len(text) > MAX_TEMPLATE_CHARACTERS:
            raise self.error(f"more than {MAX_TEMPLATE_CHARACTERS} characters for one value; use fewer words")
        return text

    def _value(self, words: Words, tag: Tag) -> Value:
        return self._convert((tag.value,) if tag.value is not None else words, tag.converters)

    def _convert(self, words: Words, converters: tuple[str, ...]) -> Value:
        """Return one word as it is, several as text, through converters."""
        value: Value = words[0] if len(words) == 1 else " ".join(map(str, words))
        for name in converters:
            if name not in _CONVERTERS:
                known = ", ".join(f"!{known}" for known in _CONVERTERS)
                raise self.error(
                    f"!{name} is not one of the converters {known}; write the value as it should be"
                )
            try:
                value = _CONVERTERS[name](value)
            except (ValueError, OverflowError):
                raise self.error(
                    f"{shown(value)} cannot be converted by !{name}; correct the value"
                ) from None
        return value

    def _list(self, wish: str, slot: str, values: list[tuple[str, Value]]) -> str:
        items: list[Any] = []
        for said, value in values:
            if can_be_empty(parse_sentence(said).expression, {}):
                raise self.error(
                    f"the words of the tag {slot!r} can be left out; add one that is always said"
                )
            item = said if said == value and plain_template(said) == said else {"in": said, "out": value}
            if repr(item) not in map(repr, items[-1:]):
                items.append(item)
        return self.writer.list_for(wish.replace(":", "_"), slot, {"values": items})


def _has_words(part: Part) -> bool:
    return part.kind not in {"word", "sequence"} or bool(part.text) or any(map(_has_words, part.items))


def _alternative(texts: list[str]) -> str:
    """Return `(a|b)`, or `[a|b]` when it may be nothing."""
    said = list(dict.fromkeys(text for text in texts if text))
    if not said:
        return ""
    inner = "|".join(said)
    if "" in texts:
        return f"[{inner}]"
    return f"({inner})" if len(said) > 1 else inner
