"""What a home has to speak of: entities, areas and floors, as the lists that Home Assistant makes of them.

They come from a file that people write, or from a running Home Assistant (home_assistant_api.py).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgevoice.grammar_file import EDGE_PUNCTUATION, Reader, read_yaml, shown
from edgevoice.grammar_writer import plain_value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_NAME_CHARACTERS: Final = 200
"""Longer ones nobody says; Home Assistant's own have 30."""

LISTS: Final = ("name", "area", "floor")
"""What Home Assistant calls its lists of entities, areas and floors."""

_DOMAIN: Final = re.compile(r"[a-z0-9_]{1,64}")

_FILE: Final = ("areas", "floors", "entities")
_PLACE: Final = {"areas": ("name", "aliases", "floor"), "floors": ("name", "aliases")}
_ENTITY: Final = ("name", "domain", "area", "aliases", "device_class")


@dataclass(frozen=True, slots=True)
class Place:
    """An area or a floor, and what else it is called."""

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entity:
    """One thing that can be spoken of."""

    name: str
    domain: str
    """Home Assistant's kind of entity, such as "light"."""

    aliases: tuple[str, ...] = ()
    device_class: str | None = None
    area: str | None = None
    """Where it is: for the reader; which sentences are understood does not depend on it."""


@dataclass(frozen=True, slots=True)
class Home:
    """Everything there is, and where it was found."""

    origin: str
    entities: tuple[Entity, ...] = ()
    areas: tuple[Place, ...] = ()
    floors: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader of the grammar should know of it."""

    def lists(self) -> dict[str, list[dict[str, Any] | str]]:
        """Return the values of the lists {name}, {area} and {floor}; a list without values is left out.

        As in Home Assistant, a name is no template, and `domain` and `device_class` are its context. An
        alias gives the name of what it stands for; only where two entities have that name, which would
        not tell them apart, it gives itself.
        """
        named = Counter(entity.name.casefold() for entity in self.entities)
        names: list[dict[str, Any] | str] = []
        for entity in self.entities:
            context = {"domain": entity.domain}
            if entity.device_class:
                context["device_class"] = entity.device_class
            for text in dict.fromkeys((entity.name, *entity.aliases)):
                out = entity.name if named[entity.name.casefold()] == 1 else text
                names.append({"in": plain_value(text), "out": out, "context": context})
        lists = {
            "name": names,
            "area": [value for area in self.areas for value in _place_values(area)],
            "floor": [value for floor in self.floors for value in _place_values(floor)],
        }
        return {name: values for name, values in lists.items() if values}

    def remarks(self) -> list[str | None]:
        """Return, for each value of {name}, the area of its entity."""
        return [
            entity.area for entity in self.entities for _ in dict.fromkeys((entity.name, *entity.aliases))
        ]


def _place_values(place: Place) -> Iterable[dict[str, Any] | str]:
    for text in dict.fromkeys((place.name, *place.aliases)):
        template = plain_value(text)
        yield text if text == place.name == template else {"in": template, "out": place.name}


def can_be_said(name: str) -> bool:
    """Whether this is words of a usual length."""
    return (
        bool(name.strip(EDGE_PUNCTUATION + " ")) and len(name) <= MAX_NAME_CHARACTERS and name.isprintable()
    )


def read_entities(path: Path) -> Home:
    """Read a file with `areas`, `floors` and `entities`.

    Raises:
        GrammarError: with file, line, what was seen and what to do.
    """
    return _EntityReader(path, *read_yaml(path)).home()


class _EntityReader(Reader):
    """Checks every key and type of such a file."""

    def home(self) -> Home:
        root = self.mapping(self.root, (), _FILE)
        if not any(root.values()):
            raise self.error((), "no areas, floors or entities; add for example: areas: [Kitchen]")
        floors = self.places(root, "floors")
        areas = self.places(root, "areas")
        entities = [
            self.entity(item, ("entities", i), [area.name for area in areas])
            for i, item in enumerate(self.sequence(root.get("entities") or [], ("entities",)))
        ]
        for i, item in enumerate(root.get("areas") or []):
            if isinstance(item, dict) and "floor" in item:
                self.reference(item["floor"], ("areas", i, "floor"), [floor.name for floor in floors])
        return Home(str(self.path), tuple(entities), areas, floors)

    def places(self, root: dict[str, Any], key: str) -> tuple[Place, ...]:
        places: list[Place] = []
        for i, item in enumerate(self.sequence(root.get(key) or [], (key,))):
            at = (key, i)
            if isinstance(item, dict):
                body = self.mapping(item, at, _PLACE[key])
                place = Place(self.spoken(body.get("name"), (*at, "name")), self.aliases(body, at))
            else:
                place = Place(self.spoken(item, at))
            if place.name in (other.name for other in places):
                raise self.error(at, f"{place.name!r} is there twice; leave one out")
            places.append(place)
        return tuple(places)

    def entity(self, value: object, at: tuple[object, ...], areas: list[str]) -> Entity:
        body = self.mapping(value, at, _ENTITY)
        if "name" not in body or "domain" not in body:
            raise self.error(
                at,
                f"an entity needs 'name' and 'domain', such as {{name: Desk lamp, domain: light}}; "
                f"seen: {shown(value)}",
            )
        for key in ("domain", "device_class"):
            if key in body and not _DOMAIN.fullmatch(self.text(body[key], (*at, key))):
                raise self.error(
                    (*at, key),
                    f"{key!r} must be Home Assistant's word, such as light or garage_door; "
                    f"got {shown(body[key])}",
                )
        area = self.reference(body["area"], (*at, "area"), areas) if "area" in body else None
        return Entity(
            name=self.spoken(body["name"], (*at, "name")),
            domain=str(body["domain"]),
            aliases=self.aliases(body, at),
            device_class=str(body["device_class"]) if "device_class" in body else None,
            area=area,
        )

    def aliases(self, body: dict[str, Any], at: tuple[object, ...]) -> tuple[str, ...]:
        where = (*at, "aliases")
        return tuple(
            self.spoken(item, (*where, i))
            for i, item in enumerate(self.sequence(body.get("aliases", []), where))
        )

    def reference(self, value: object, at: tuple[object, ...], names: list[str]) -> str:
        name = self.spoken(value, at)
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "add it there first"
            raise self.error(at, f"{name!r} is not in {at[-1]}s; {hint}")
        return name

    def spoken(self, value: object, at: tuple[object, ...]) -> str:
        name = " ".join(self.text(value, at).split())
        if not can_be_said(name):
            raise self.error(
                at, f"{shown(name)} cannot be said; write up to {MAX_NAME_CHARACTERS} characters in words"
            )
        return name
