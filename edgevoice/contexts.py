"""Contexts of a grammar, as in hassil: which values and sentences of a block count, given what is known.

A value of a list may say more than its words ("desk lamp" is a light), and something may be known before
anything is said (the room the microphone is in). A block can require or exclude such facts, and make slots of
them. What never fits is taken out before the network is built, so that the decoder cannot find it; what
depends on the whole sentence is checked once it was said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from hassil.expression import Alternative, Expression, Group, ListReference, RuleReference
from hassil.intents import TextSlotList, WildcardSlotList
from hassil.util import check_excluded_context, check_required_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgevoice.grammar_file import Block, Context, GrammarFile, Lists, Rules

_SLOT: Final = "slot"


def fits(block: Block, context: Context) -> bool:
    """Whether sentences of a block mean anything, given all that is known."""
    return check_required_context(block.requires, context) and check_excluded_context(block.excludes, context)


def slots(block: Block, context: Context) -> dict[str, object]:
    """Return the slots that a block makes of what is known; it fits()."""
    found: dict[str, object] = {}
    for key, condition in block.requires.items():
        slot = condition.get(_SLOT) if isinstance(condition, dict) else None
        if slot:
            found[key if slot is True else slot] = context[key]
    return found


@dataclass(slots=True, eq=False)
class Scope:
    """Where names are looked up: a block's own rules and lists before those of the file."""

    name: str
    """Of all scopes in which everything means the same."""

    rules: Rules
    lists: Lists
    own_names: frozenset[str]
    """Rules as <rule> and lists as {list} that mean something else than in the file."""

    has_empty_lists: bool = False
    _own: dict[str, bool] = field(default_factory=dict)
    _free: dict[str, bool] = field(default_factory=dict)
    _sayable: dict[str, bool] = field(default_factory=dict)

    def is_own(self, name: str) -> bool:
        """Whether a name means, directly or through others, something else in this scope than in the file."""
        if not self.own_names:
            return False
        if name not in self._own:
            self._own[name] = (
                name in self.own_names
            )  # and of one that uses itself, which is refused elsewhere
            self._own[name] = self._own[name] or any(
                self.is_own(other) for each in self.bodies(name) for other in references(each)
            )
        return self._own[name]

    def has_free_text(self, expression: Expression) -> bool:
        """Whether free text can be said in an expression."""
        return any(map(self._leads_to_free_text, references(expression)))

    def _leads_to_free_text(self, name: str) -> bool:
        if name not in self._free:
            self._free[name] = False  # also of one that uses itself, which is refused elsewhere
            self._free[name] = (
                name[0] == "{" and isinstance(self.lists.get(name[1:-1]), WildcardSlotList)
            ) or any(map(self.has_free_text, self.bodies(name)))
        return self._free[name]

    def can_be_said(self, expression: Expression) -> bool:
        """Whether an expression has a sentence: a list that lost all its values has none."""
        if not self.has_empty_lists:
            return True
        if isinstance(expression, Group):
            parts = (self.can_be_said(item) for item in expression.items)
            return any(parts) if isinstance(expression, Alternative) else all(parts)
        if not isinstance(expression, RuleReference | ListReference):
            return True
        name = next(references(expression))
        if name not in self._sayable:
            self._sayable[name] = True
            slot_list = None if isinstance(expression, RuleReference) else self.lists.get(name[1:-1])
            if isinstance(expression, RuleReference) or isinstance(slot_list, TextSlotList):
                bodies = list(self.bodies(name))
                # A rule that is not defined is refused elsewhere.
                self._sayable[name] = any(map(self.can_be_said, bodies)) or (
                    not bodies and isinstance(expression, RuleReference)
                )
        return self._sayable[name]

    def bodies(self, name: str) -> Iterable[Expression]:
        """What a rule or a list of texts consists of."""
        if name.startswith("<"):
            return [self.rules[name[1:-1]].expression] if name[1:-1] in self.rules else []
        slot_list = self.lists.get(name[1:-1])
        return (value.text_in for value in slot_list.values) if isinstance(slot_list, TextSlotList) else ()


class Scopes:
    """The scopes of a grammar's blocks."""

    def __init__(self, file: GrammarFile) -> None:
        self._file, self._context = file, file.context
        self._scopes = {"": Scope("", file.rules, file.lists, frozenset())}
        self._keys: dict[str, frozenset[str]] = {}
        self._values = _values(file.lists)

    def of(self, number: int, block: Block) -> Scope | None:
        """Return the scope of a block, None if none of its sentences can ever mean anything."""
        rules, lists = self._file.rules, self._file.lists
        own: set[str] = set()
        name, values, keys = "", self._values, self._keys
        if block.rules or block.lists:
            name, rules, lists = str(number), rules | block.rules, lists | block.lists
            own = {f"<{each}>" for each in block.rules} | {f"{{{each}}}" for each in block.lists}
            keys = {}
            values = {each: known for each, known in values.items() if each not in block.lists}
            values |= _values(block.lists)
        if block.requires or block.excludes:
            unnarrowed = Scope("", rules, lists, frozenset())
            providers = {
                key: frozenset(
                    each
                    for each, known in values.items()
                    if key in known.keys and self._reaches(block, each, unnarrowed, keys)
                )
                for key in block.requires
                if key not in self._context
            }
            if not all(providers.values()) or not self._is_possible(block):
                return None
            for each, known in values.items():
                alone = [key for key, names in providers.items() if names == {each}]
                kept = known.kept(block, alone)
                if len(kept) < len(known.contexts):
                    lists = {**lists, each: known.narrowed(kept)}
                    own.add(f"{{{each}}}")
                    name += f"{{{each}}}{kept}"
        if name not in self._scopes:
            emptied = any(isinstance(each, TextSlotList) and not each.values for each in lists.values())
            self._scopes[name] = Scope(name, rules, lists, frozenset(own), emptied)
        return self._scopes[name]

    def _is_possible(self, block: Block) -> bool:
        """Whether what is known from outside rules nothing out, as hassil looks at it."""
        known = self._context
        return check_required_context(block.requires, known, allow_missing_keys=True) and (
            check_excluded_context(block.excludes, known)
        )

    def _reaches(
        self, block: Block, list_name: str, scope: Scope, reached: dict[str, frozenset[str]]
    ) -> bool:
        """Whether a sentence of the block can name a list."""
        return any(
            f"{{{list_name}}}" in _reached(name, scope, reached)
            for template in block.templates
            for name in references(template.sentence.expression)
        )


def _values(lists: Lists) -> dict[str, _Values]:
    """Return the lists whose values have contexts."""
    return {
        name: _Values.of(slot_list)
        for name, slot_list in lists.items()
        if isinstance(slot_list, TextSlotList) and any(value.context for value in slot_list.values)
    }


@dataclass(frozen=True, slots=True)
class _Values:
    """A list of texts, its values in groups with the same context."""

    slot_list: TextSlotList
    contexts: tuple[Context, ...]
    """Of each group."""

    groups: tuple[int, ...]
    """Of each value."""

    keys: frozenset[str]

    @classmethod
    def of(cls, slot_list: TextSlotList) -> _Values:
        numbers: dict[str, int] = {}
        contexts: list[Context] = []
        groups: list[int] = []
        for value in slot_list.values:
            context = value.context or {}
            number = numbers.setdefault(repr(sorted(context.items())), len(numbers))
            if number == len(contexts):
                contexts.append(context)
            groups.append(number)
        keys = frozenset(key for context in contexts for key in context)
        return cls(slot_list, tuple(contexts), tuple(groups), keys)

    def kept(self, block: Block, alone: list[str]) -> tuple[int, ...]:
        """Return the groups that a block does not rule out.

        Args:
            block: as hassil does, a value that says nothing of what is required is let pass ...
            alone: ... unless nothing else can say it. (Of two values of one list in one sentence hassil takes
                the last one's word; here each must say it.)
        """
        return tuple(
            number
            for number, context in enumerate(self.contexts)
            if check_required_context(block.requires, context, allow_missing_keys=True)
            and check_excluded_context(block.excludes, context)
            and all(key in context for key in alone)
        )

    def narrowed(self, kept: tuple[int, ...]) -> TextSlotList:
        chosen = frozenset(kept)
        return replace(
            self.slot_list,
            values=[
                value
                for value, group in zip(self.slot_list.values, self.groups, strict=True)
                if group in chosen
            ],
        )


def references(expression: Expression) -> Iterator[str]:
    """Yield the rules and lists an expression names, as <rule> and {list}."""
    if isinstance(expression, Group):
        for item in expression.items:
            yield from references(item)
    elif isinstance(expression, RuleReference):
        yield f"<{expression.rule_name}>"
    elif isinstance(expression, ListReference):
        yield f"{{{expression.list_name}}}"


def _reached(name: str, scope: Scope, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """Return a name and all that it leads to."""
    if name not in known:
        known[name] = frozenset({name})
        others = {other for each in scope.bodies(name) for other in references(each)}
        known[name] = frozenset({name}).union(*(_reached(other, scope, known) for other in others))
    return known[name]
