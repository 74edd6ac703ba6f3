"""Home Assistant's sentences as a grammar of edgevoice: those of its package, of a checkout, or one's own.

    package, folder -> Sentences -> with the entities of a home -> Draft

Sentences are taken as they are written. What cannot be said in this home, because it has no such entity,
area or floor, is left out, and the draft says so; lists and rules that nothing needs are left out, too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    Sentence,
    TextChunk,
)
from hassil.intents import TextSlotList
from hassil.util import check_required_context, is_template

from edgevoice import extras, free_text
from edgevoice.entities import LISTS
from edgevoice.errors import GrammarError, UsageError
from edgevoice.grammar_file import KEYS, Reader, read_yaml, shown
from edgevoice.grammar_writer import Draft, made_by, plain_template
from edgevoice.numbers import has_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hassil.intents import SlotList

    from edgevoice.entities import Home

PACKAGE: Final = "home-assistant-intents"

MAX_FILES: Final = 5_000
"""A language of the intents repository has 300 files."""

_OLD_FILE: Final = (
    "language",
    "intents",
    "lists",
    "expansion_rules",
    "skip_words",
    "settings",
    "responses",
)
_NEW_FILE: Final = ("language", "data")
_LISTS_FILE: Final = ("language", "lists")
_RULES_FILE: Final = ("language", "expansion_rules")
_NEW_BLOCK: Final = (
    "sentences",
    "slots",
    "requires_context",
    "metadata",
    "response",
    "example",
    "name_domains",
    "inferred_domain",
    "speech_to_phrase",
)
_ONLY_HASSIL: Final = "filter_with_regex"
"""A setting that makes hassil faster and changes no answer."""

_SETTINGS: Final = ("ignore_whitespace", _ONLY_HASSIL)

_KEPT: Final = (
    "slots",
    "requires_context",
    "excludes_context",
    "required_keywords",
)
"""Keys of a block that go into the grammar as they are; `response` names what Home Assistant would say."""

_OF_ENTITY: Final = ("domain", "device_class")
"""Context that every entity has, or may have."""

_OF_SPEAKER: Final = "area"
"""Context that comes from where the speaker is, not from what was said."""


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence template, or the body of a rule, and where it stands."""

    text: str
    sentence: Sentence
    place: str
    """File and line."""


@dataclass(frozen=True, slots=True)
class SourceList:
    """A list as written, and its templates."""

    body: dict[str, Any]
    templates: tuple[Template, ...]
    parsed: SlotList


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """Sentences that share slots and context."""

    templates: tuple[Template, ...]
    keys: dict[str, Any]
    """What else the block has, as in a grammar file."""

    comment: str
    rules: dict[str, Template]
    lists: dict[str, SourceList]


@dataclass(slots=True)
class Sentences:
    """Sentences of one language, as their authors wrote them."""

    language: str
    origin: str
    intents: dict[str, list[SourceBlock]] = field(default_factory=dict)
    lists: dict[str, SourceList] = field(default_factory=dict)
    rules: dict[str, Template] = field(default_factory=dict)
    skip_words: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)
    """Intents that Home Assistant does not know yet."""

    def add(self, other: Sentences) -> None:
        """Add to these, as Home Assistant adds custom sentences: blocks and values join, rules replace."""
        for intent, blocks in other.intents.items():
            self.intents.setdefault(intent, []).extend(blocks)
        for name, values in other.lists.items():
            self.lists[name] = _joined(self.lists.get(name), values)
        self.rules.update(other.rules)
        self.skip_words += other.skip_words
        self.settings.update(other.settings)


def _joined(old: SourceList | None, new: SourceList) -> SourceList:
    if old is None or "values" not in old.body or "values" not in new.body:
        return new
    body = {**old.body, "values": [*old.body["values"], *new.body["values"]]}
    return SourceList(body, old.templates + new.templates, new.parsed)


# ---- the package ----


def package_sentences(language: str) -> Sentences:
    """Return the sentences of the installed package.

    Raises:
        UsageError: it is not installed, or has no such language.
        GrammarError: its data has what this version does not know.
    """
    if importlib.util.find_spec("home_assistant_intents") is None:
        raise UsageError(
            f"{PACKAGE} is not installed; name a folder of sentences with --source, or run: "
            f"{extras.remedy('home-assistant')}"
        )
    from home_assistant_intents import get_intents, get_languages  # noqa: PLC0415 - optional

    known = {name.casefold(): name for name in get_languages()}
    wanted = language.replace("_", "-").casefold()
    name = known.get(wanted) or known.get(wanted.split("-", maxsplit=1)[0])
    root = get_intents(name) if name else None
    if name is None or root is None:
        raise UsageError(
            f"{PACKAGE} has no language {shown(language)}; it has {', '.join(sorted(known.values()))}"
        )
    origin = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}, language {name}"
    reader = _SourceReader(Path(f"{PACKAGE}/{name}.json"), root, None)
    sentences = Sentences(name, origin)
    reader.add_old(sentences)
    return sentences


# ---- folders ----


def folder_sentences(folder: Path, language: str, *, complete: bool = True) -> Sentences:
    """Return the sentences of a folder.

    Args:
        folder: a checkout of the intents repository, in its old layout (files with `intents:`) or its new one
            (files with `data:`); Home Assistant's configuration folder with `custom_sentences/LANGUAGE`;
            or one with such files itself.
        language: which of its languages.
        complete: whether to take lists and rules that are no checkout's from the package, if it is installed.

    Raises:
        UsageError: there is nothing of the kind.
        GrammarError: with file, line, what was seen and what to do.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name one with sentences")
    if folder.parent.name == "sentences" and folder.name == language:
        folder = folder.parent.parent
    if (folder / "sentences" / language).is_dir():
        return _checkout(folder, language)
    custom = folder / "custom_sentences" / language
    folder = custom if custom.is_dir() else folder
    sentences = Sentences(language, f"the folder {folder}")
    found = Sentences(language, "")
    for reader in _readers(folder):
        if isinstance(reader.root, dict) and "data" in reader.root:
            raise reader.error(
                ("data",),
                "'data' without 'intents' is the intents repository's layout; name the folder above "
                "'sentences'",
            )
        reader.add_old(found)
    if not found.intents:
        raise UsageError(
            f"{folder} has no sentences in language {language!r}; "
            "name a checkout of the intents repository, or a folder custom_sentences/LANGUAGE"
        )
    if complete and importlib.util.find_spec("home_assistant_intents") is not None:
        base = package_sentences(language)
        sentences.lists, sentences.rules = base.lists, base.rules
        sentences.skip_words, sentences.settings = base.skip_words, base.settings
        sentences.origin += f", with lists and rules of {base.origin}"
    sentences.add(found)
    return sentences


def _readers(folder: Path, *, deep: bool = True) -> Iterator[_SourceReader]:
    if not folder.is_dir():
        return
    found = folder.rglob("*.yaml") if deep else folder.glob("*.yaml")
    paths = list(itertools.islice(found, MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        raise UsageError(f"{folder} has more than {MAX_FILES} YAML files; name another folder")
    for path in sorted(paths):
        if path.is_file():
            yield _SourceReader(path, *read_yaml(path))


def _checkout(root: Path, language: str) -> Sentences:
    """Read the intents repository as its package is made from it.

    An intent that still has sentences in the old layout does not use the new ones.
    """
    folder = root / "sentences" / language
    sentences = Sentences(language, f"the checkout {root}, language {language}")
    for reader in _readers(folder, deep=False):
        reader.add_old(sentences)
    about = _about(root / "intents.yaml")
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if path.name not in sentences.intents:
            combinations = about.get(path.name, {}).get("slot_combinations", {})
            sentences.intents[path.name] = [
                block for reader in _readers(path, deep=False) for block in reader.new_blocks(combinations)
            ]
    for place in (root / "lists", root / "lists" / language):
        for reader in _readers(place, deep=False):
            lists = reader.mapping(reader.root, (), _LISTS_FILE).get("lists", {})
            sentences.lists.update(reader.source_lists(lists, ("lists",)))
    for reader in _readers(root / "rules" / language, deep=False):
        rules = reader.mapping(reader.root, (), _RULES_FILE).get("expansion_rules", {})
        sentences.rules.update(reader.templates(rules, ("expansion_rules",)))
    for name in list(sentences.intents):
        if not about.get(name, {}).get("supported"):
            sentences.unsupported.append(name)
            del sentences.intents[name]
    return sentences


def _about(path: Path) -> dict[str, dict[str, Any]]:
    """Return what intents.yaml says of each intent.

    Raises:
        GrammarError: there is no such file, or it is not what it should be.
    """
    if not path.is_file():
        raise GrammarError(
            f"{path} is missing, which says what the files of {path.parent / 'sentences'} mean; "
            "name a whole checkout of the intents repository"
        )
    reader = Reader(path, *read_yaml(path))
    found = reader.mapping(reader.root, ())
    for name, body in found.items():
        at = (name, "slot_combinations")
        combinations = reader.mapping(reader.mapping(body, (name,)).get("slot_combinations", {}), at)
        for each, combination in combinations.items():
            groups = reader.mapping(combination, (*at, each)).get("name_domain_groups", {})
            reader.mapping(groups, (*at, each, "name_domain_groups"))
    return found


class _SourceReader(Reader):
    """Reads one file of sentences, checking every key and type."""

    def add_old(self, sentences: Sentences) -> None:
        """Add a file with `intents`, or with what all files of a language share."""
        if self.root is None:
            return
        root = self.mapping(self.root, (), _OLD_FILE)
        for name, intent in self.mapping(root.get("intents", {}), ("intents",)).items():
            at: tuple[object, ...] = ("intents", name)
            body = self.mapping(intent, at, ("data",))
            data = self.sequence(body.get("data", []), (*at, "data"))
            blocks = [self.old_block(block, (*at, "data", i)) for i, block in enumerate(data)]
            sentences.intents.setdefault(name, []).extend(blocks)
        for name, source in self.source_lists(root.get("lists", {}), ("lists",)).items():
            sentences.lists[name] = _joined(sentences.lists.get(name), source)
        sentences.rules.update(self.templates(root.get("expansion_rules", {}), ("expansion_rules",)))
        sentences.skip_words += self.texts(root.get("skip_words", []), ("skip_words",))
        sentences.settings.update(self.mapping(root.get("settings", {}), ("settings",), _SETTINGS))

    def old_block(self, value: object, at: tuple[object, ...]) -> SourceBlock:
        body = self.mapping(value, at, KEYS["block"])
        self.mapping(body.get("settings", {}), (*at, "settings"), (_ONLY_HASSIL,))
        return self.source_block(body, at, {})

    def new_blocks(self, combinations: dict[str, dict[str, Any]]) -> list[SourceBlock]:
        """Return the blocks of one combination of slots, whose name is the file's.

        `name_domains` is a requirement on the entity's domain, `inferred_domain` a slot, and
        `context_area` of the combination takes the area from where the speaker is. Blocks marked
        `speech_to_phrase` are a short form of the others, and count only where there are no others.
        """
        name = self.path.stem
        root = self.mapping(self.root, (), _NEW_FILE)
        blocks: list[tuple[bool, SourceBlock]] = []
        for i, value in enumerate(self.sequence(root.get("data", []), ("data",))):
            at = ("data", i)
            body = self.mapping(value, at, _NEW_BLOCK)
            if name not in combinations:
                raise self.error(
                    at, f"intents.yaml has no combination {name!r} for this intent; rename the file"
                )
            short = self.flag(body, "speech_to_phrase", at, default=False)
            block = self.source_block(body, at, self.combination(body, at, combinations[name]))
            if block.templates:
                blocks.append((short, block))
        whole = [block for short, block in blocks if not short]
        return whole or [block for _, block in blocks]

    def combination(
        self, body: dict[str, Any], at: tuple[object, ...], about: dict[str, Any]
    ) -> dict[str, Any]:
        required = dict(self.mapping(body.get("requires_context", {}), (*at, "requires_context")))
        slots = dict(self.mapping(body.get("slots", {}), (*at, "slots")))
        domains = body.get("name_domains")
        if isinstance(domains, str):
            groups = about.get("name_domain_groups", {})
            if domains not in groups:
                raise self.error(
                    (*at, "name_domains"), f"intents.yaml has no group of domains {domains!r}; correct it"
                )
            domains = groups[domains]
        if domains:
            required["domain"] = self.texts(domains, (*at, "name_domains"))
        elif "inferred_domain" in body:
            slots["domain"] = self.text(body["inferred_domain"], (*at, "inferred_domain"))
        if about.get("context_area"):
            required[_OF_SPEAKER] = {"slot": True}
        return {"slots": slots, "requires_context": required}

    def source_block(
        self, body: dict[str, Any], at: tuple[object, ...], changed: dict[str, Any]
    ) -> SourceBlock:
        where = (*at, "sentences")
        keys = {key: value for key in _KEPT if (value := {**body, **changed}.get(key))}
        for key in ("slots", "requires_context", "excludes_context"):
            self.mapping(keys.get(key, {}), (*at, key))
        metadata = dict(self.mapping(body.get("metadata", {}), (*at, "metadata")))
        comment = str(metadata.pop("slot_combination", ""))
        if metadata:
            keys["metadata"] = metadata
        return SourceBlock(
            templates=tuple(
                self.template(text, (*where, i))
                for i, text in enumerate(self.texts(body.get("sentences", []), where))
            ),
            keys=keys,
            comment=comment or (self.path.stem if changed else ""),
            rules=self.templates(body.get("expansion_rules", {}), (*at, "expansion_rules")),
            lists=self.source_lists(body.get("lists", {}), (*at, "lists")),
        )

    def templates(self, value: object, at: tuple[object, ...]) -> dict[str, Template]:
        return {
            name: self.template(self.text(body, (*at, name)), (*at, name))
            for name, body in self.mapping(value, at).items()
        }

    def template(self, text: str, at: tuple[object, ...]) -> Template:
        return Template(text.strip(), self.sentence(text, at), self.place(at))

    def source_lists(self, value: object, at: tuple[object, ...]) -> dict[str, SourceList]:
        found: dict[str, SourceList] = {}
        for name, body in self.mapping(value, at).items():
            where = (*at, name)
            parsed = self.list_of(name, body, where)
            texts = [
                (item["in"] if isinstance(item, dict) else item, (*where, "values", i))
                for i, item in enumerate(body.get("values", []))
            ]
            found[name] = SourceList(
                body,
                tuple(self.template(str(text), place) for text, place in texts if is_template(str(text))),
                parsed,
            )
        return found


# ---- for a home ----


def draft(sentences: Sentences, home: Home | None, *, intents: tuple[str, ...] = ()) -> Draft:
    """Return the grammar of these sentences for a home.

    Args:
        sentences: what can be said.
        home: of what; None leaves out every sentence that names an entity, an area or a floor.
        intents: only these; empty: all.

    Raises:
        GrammarError: a list or rule is missing; with file and line.
        UsageError: there is no such intent, or nothing at all can be said.
    """
    return _Selection(sentences, home, intents).draft()


class _Selection:
    """What of the sentences can be said in one home, and the lists and rules for that."""

    def __init__(self, sentences: Sentences, home: Home | None, intents: tuple[str, ...]) -> None:
        for name in intents:
            if name not in sentences.intents:
                known = ", ".join(sorted(sentences.intents))
                raise UsageError(f"there is no intent {shown(name)}; there are {known}")
        self.sentences, self.home = sentences, home
        self.chosen = intents
        of_home = home.lists() if home else {}
        self.lists: dict[str, SourceList] = {
            **{name: each for name, each in sentences.lists.items() if name not in of_home},
            **{
                name: SourceList({"values": values}, (), TextSlotList(name=name, values=[]))
                for name, values in of_home.items()
            },
        }
        self.contexts: list[dict[str, Any]] = []
        """Every different context that a value can bring."""
        for each in self.lists.values():
            for value in each.body.get("values", ()):
                context = value.get("context") if isinstance(value, dict) else None
                if context and context not in self.contexts:
                    self.contexts.append(context)
        self.checker = self.free_text_checker({}, {})
        self.used_lists: dict[str, None] = {}
        self.used_rules: dict[str, str] = {}
        self.in_digits = False
        """Whether there are numbers whose words nobody knows."""
        self.left_out: dict[str, dict[str, None]] = {}
        """Why something of an intent is left out, by intent."""

    def draft(self) -> Draft:
        comments: dict[tuple[object, ...], str] = {}
        kept = self.kept(comments)
        for name in () if self.chosen else self.sentences.unsupported:
            self.leave_out(name, "Home Assistant does not know this intent yet")
        if not kept:
            raise UsageError("nothing of these sentences can be said; give entities, areas or floors")
        order = sorted(self.used_lists, key=list(self.lists).index)  # those of the home come last
        areas = self.home.remarks() if self.home and "name" in order else []
        comments.update({("lists", "name", "values", i): area for i, area in enumerate(areas) if area})
        settings = self.sentences.settings
        grammar = {
            "language": self.sentences.language,
            "settings": {key: settings[key] for key in settings if settings[key] and key != _ONLY_HASSIL},
            "skip_words": list(dict.fromkeys(self.sentences.skip_words)),
            "intents": kept,
            "expansion_rules": self.used_rules,
            "lists": {name: self.list_body(self.lists[name]) for name in order},
        }
        return Draft(grammar, tuple(self.header(kept)), comments)

    def kept(self, comments: dict[tuple[object, ...], str]) -> dict[str, Any]:
        """Return the intents that can be said, and put the comments on their blocks to the others."""
        kept: dict[str, Any] = {}
        for name in self.chosen or self.sentences.intents:
            blocks: list[dict[str, Any]] = []
            for block in self.sentences.intents[name]:
                if body := self.block(name, block):
                    if block.comment:
                        comments["intents", name, "data", len(blocks)] = block.comment
                    blocks.append(body)
            if blocks:
                kept[name] = {"data": blocks}
        return kept

    def header(self, kept: dict[str, Any]) -> Iterator[str]:
        yield f"Home Assistant's sentences, {made_by()}"
        yield f"Sentences: {self.sentences.origin}"
        yield f"Names:     {self.home.origin if self.home else 'none were given'}"
        for note in self.home.notes if self.home else ():
            yield f"           {note}"
        yield "Made by `edgevoice grammar import home-assistant`: run it again when names change; what is"
        yield "changed here is lost then. Responses are Home Assistant's business and left out."
        if self.in_digits:
            yield "Numbers are understood in digits only: their words in this language are not known."
        if self.left_out:
            yield ""
            yield "Left out, because here nobody can say it:"
            width = max(map(len, self.left_out))
            for name, reasons in self.left_out.items():
                part = "all" if name not in kept else "some"
                yield f"  {name:{width}}  {part}: {', '.join(reasons)}"

    def block(self, intent: str, block: SourceBlock) -> dict[str, Any] | None:
        required = block.keys.get("requires_context", {})
        of_entity = {key: value for key, value in required.items() if key in _OF_ENTITY}
        others = ({key: value} for key, value in required.items() if key not in (*_OF_ENTITY, _OF_SPEAKER))
        for part in (of_entity, *others):
            if part and not any(check_required_context(part, context) for context in self.contexts):
                self.leave_out(intent, _no_entity(part))
                return None
        scope = _Scope(self, intent, block)
        sentences = [text for template in block.templates if (text := scope.spoken(template)) is not None]
        if not sentences:
            return None
        body: dict[str, Any] = {"sentences": sentences, **block.keys}
        if scope.used_rules:
            body["expansion_rules"] = scope.used_rules
        if scope.used_lists:
            body["lists"] = {name: self.list_body(block.lists[name]) for name in scope.used_lists}
        return body

    def list_body(self, source: SourceList) -> dict[str, Any]:
        """Return a list as it is; numbers only in digits, as in hassil, where nobody knows their words."""
        numbers = source.body.get("range")
        if not numbers or has_words(numbers.get("words_language") or self.sentences.language):
            return source.body
        self.in_digits = True
        return {"range": {**numbers, "words": False}}

    def free_text_checker(
        self, rules: dict[str, Template], lists: dict[str, SourceList]
    ) -> free_text.Checker:
        """Return what finds sentences whose free text edgevoice could not tell from words beside it."""
        return free_text.Checker(
            {name: rule.sentence for name, rule in {**self.sentences.rules, **rules}.items()},
            {name: each.parsed for name, each in {**self.sentences.lists, **lists}.items()},
        )

    def leave_out(self, intent: str, reason: str) -> None:
        self.left_out.setdefault(intent, {})[reason] = None


def _no_entity(required: dict[str, Any]) -> str:
    """Return "no scene", "no button or input_button", "no cover with device_class garage"."""
    wanted = {}
    for key, value in required.items():
        each = value.get("value") if isinstance(value, dict) else value
        wanted[key] = " or ".join(map(str, each)) if isinstance(each, list) else str(each)
    kind = wanted.pop("domain", "entity")
    return f"no {kind}" + "".join(f" with {key} {value}" for key, value in wanted.items())


class _Scope:
    """The templates of one block: what of them can be said in this home, and what that uses."""

    def __init__(self, selection: _Selection, intent: str, block: SourceBlock) -> None:
        self.selection, self.intent, self.block = selection, intent, block
        self.used_rules: dict[str, str] = {}
        self.used_lists: dict[str, None] = {}
        self._checker = (
            selection.free_text_checker(block.rules, block.lists)
            if block.rules or block.lists
            else selection.checker
        )
        self._rules: dict[str, Expression | None] = {}
        self._open: list[str] = []
        """Rules that are being looked at."""

    def spoken(self, template: Template) -> str | None:
        """Return a sentence without what cannot be said here; None if nothing is left of it."""
        left = self._left(template.sentence.expression, template)
        if left is None:
            return None
        if self._checker.problem(left):
            self.selection.leave_out(self.intent, "free text that is no word of its own")
            return None
        self._use(left, template)
        return _text(template, left)

    def _left(self, expression: Expression, template: Template) -> Expression | None:
        if isinstance(expression, Group):
            return self._left_of_group(expression, template)
        gone = (isinstance(expression, ListReference) and not self._is_there(expression, template)) or (
            isinstance(expression, RuleReference) and self._rule(expression.rule_name, template) is None
        )
        return None if gone else expression

    def _left_of_group(self, expression: Group, template: Template) -> Expression | None:
        items = [self._left(item, template) for item in expression.items]
        if all(new is old for new, old in zip(items, expression.items, strict=True)):
            return expression
        left = [item for item in items if item is not None]
        if not isinstance(expression, Alternative):
            return type(expression)(items=left) if len(left) == len(items) else None
        if expression.is_optional and len(left) == 1:
            return TextChunk("")
        return Alternative(items=left, is_optional=expression.is_optional) if left else None

    def _is_there(self, reference: ListReference, template: Template) -> bool:
        name = reference.list_name
        if reference.is_inline_range or name in self.block.lists or name in self.selection.lists:
            return True
        if name in LISTS:
            what = {"name": "no entities", "area": "no areas", "floor": "no floors"}[name]
            self.selection.leave_out(self.intent, what)
            return False
        raise GrammarError(
            f"{template.place}: list {{{name}}} is not defined (in {shown(template.text)}); "
            "add it under lists or correct its name"
        )

    def _rule(self, name: str, template: Template) -> Expression | None:
        """Return what is left of a rule."""
        body = self._body(name, template)
        if name in self._open:
            way = " -> ".join(f"<{each}>" for each in (*self._open[self._open.index(name) :], name))
            raise GrammarError(f"{body.place}: the rule uses itself: {way}; rules cannot repeat")
        if name not in self._rules:
            self._open.append(name)
            self._rules[name] = self._left(body.sentence.expression, body)
            self._open.pop()
        return self._rules[name]

    def _body(self, name: str, template: Template) -> Template:
        body = self.block.rules.get(name) or self.selection.sentences.rules.get(name)
        if body is None:
            raise GrammarError(
                f"{template.place}: rule <{name}> is not defined (in {shown(template.text)}); "
                "add it under expansion_rules or correct its name"
            )
        return body

    def _use(self, expression: Expression, template: Template) -> None:
        """Note the lists and rules of an expression, and those that they use."""
        if isinstance(expression, Group):
            for item in expression.items:
                self._use(item, template)
        elif isinstance(expression, ListReference) and not expression.is_inline_range:
            name = expression.list_name
            local = name in self.block.lists
            used = self.used_lists if local else self.selection.used_lists
            if name not in used:
                used[name] = None
                source = self.block.lists[name] if local else self.selection.lists[name]
                for value in source.templates:
                    self._use(value.sentence.expression, value)
        elif isinstance(expression, RuleReference):
            name = expression.rule_name
            left, body = self._rule(name, template), self._body(name, template)
            used_rules = self.used_rules if name in self.block.rules else self.selection.used_rules
            if left is not None and name not in used_rules:
                used_rules[name] = _text(body, left)
                self._use(left, body)


def _text(template: Template, left: Expression) -> str:
    """Return a template as it was written, or what is left of it."""
    if left is template.sentence.expression:
        return template.text
    return " ".join(_template(left).split())


def _template(expression: Expression) -> str:
    if isinstance(expression, TextChunk):
        return plain_template(expression.original_text)
    if isinstance(expression, RuleReference):
        return f"<{expression.rule_name}>"
    if isinstance(expression, ListReference):
        slot = ("@" if expression.is_capture else "") + expression.slot_name
        return "{" + expression.list_name + (f":{slot}" if slot != expression.list_name else "") + "}"
    if not isinstance(expression, Group):
        raise TypeError(expression)  # hassil has no other kind
    items = list(map(_template, expression.items))
    if isinstance(expression, Alternative):
        return f"[{'|'.join(items[:-1])}]" if expression.is_optional else f"({'|'.join(items)})"
    return f"({';'.join(map(str.strip, items))})" if isinstance(expression, Permutation) else "".join(items)
