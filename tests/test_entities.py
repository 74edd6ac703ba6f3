"""A file of entities becomes the lists that Home Assistant has, or is refused with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgevoice.entities import Entity, Home, Place, read_entities
from edgevoice.errors import GrammarError

if TYPE_CHECKING:
    from pathlib import Path

HOME = """\
floors: [Ground floor, {name: First floor, aliases: [upstairs]}]
areas: [Kitchen, {name: Living Room, aliases: [lounge], floor: Ground floor}]
entities:
  - {name: Desk lamp, domain: light, area: Kitchen, aliases: [work light]}
  - {name: Garage door, domain: cover, device_class: garage}
  - {name: "Fan  (big)", domain: fan}
"""

# (what is wrong, file, line of the error, words its text must have)
REFUSED = [
    ("nothing in it", "areas: []\n", 1, "areas: [Kitchen]"),
    ("no mapping", "- a\n", 1, "key: value"),
    ("unknown key", "areas: [A]\nrooms: [B]\n", 2, "unknown key 'rooms'; known: areas, floors, entities"),
    ("misspelled key", "entities:\n- {name: A, domian: light}\n", 2, "did you mean 'domain'?"),
    ("entity without domain", "entities:\n- {name: A}\n", 2, "needs 'name' and 'domain'"),
    ("entity that is a word", "entities:\n- A\n", 2, "key: value"),
    ("domain with a dot", "entities:\n- {name: A, domain: light.a}\n", 2, "such as light"),
    (
        "unknown area",
        "areas: [Kitchen]\nentities:\n- {name: A, domain: fan, area: Kichen}\n",
        3,
        "'Kitchen'?",
    ),
    ("unknown floor", "areas:\n- {name: A, floor: B}\n", 2, "'B' is not in floors; add it there first"),
    ("area twice", "areas:\n- A\n- {name: A}\n", 3, "'A' is there twice"),
    ("a name that YAML takes for true", "areas: [on]\n", 1, "put on/off/yes/no in quotes"),
    ("a name without words", "areas: ['?!']\n", 1, "cannot be said"),
    ("a name with a bell", 'areas: ["a\\ab"]\n', 1, "cannot be said"),
    ("a name of half a character", 'areas: ["\\ud800"]\n', 1, ""),
    ("a very long name", f"areas: [{'a' * 300}]\n", 1, "cannot be said"),
    ("aliases that are a word", "areas:\n- {name: A, aliases: b}\n", 2, "must be a list"),
    ("area without name", "areas:\n- {aliases: [b]}\n", 2, "must be text"),
]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "entities.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class TestReadEntities:
    """The file."""

    def test_everything_it_can_hold(self, tmp_path: Path) -> None:
        """Areas, floors and entities, in full and in short."""
        home = read_entities(written(tmp_path, HOME))
        assert home.floors == (Place("Ground floor"), Place("First floor", ("upstairs",)))
        assert home.areas == (Place("Kitchen"), Place("Living Room", ("lounge",)))
        assert home.entities == (
            Entity("Desk lamp", "light", ("work light",), area="Kitchen"),
            Entity("Garage door", "cover", device_class="garage"),
            Entity("Fan (big)", "fan"),
        )

    @pytest.mark.parametrize(
        ("text", "line", "words"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
    )
    def test_refused_with_its_line(self, tmp_path: Path, text: str, line: int, words: str) -> None:
        """What is wrong, where, and what to do."""
        path = written(tmp_path, text)
        with pytest.raises(GrammarError) as refused:
            read_entities(path)
        assert str(refused.value).startswith(f"{path}:{line}: ")
        assert words in str(refused.value)


class TestLists:
    """The lists made of a home."""

    def test_as_home_assistant_has_them(self, tmp_path: Path) -> None:
        """Names are no templates; an entity brings its domain and device class as context."""
        lists = read_entities(written(tmp_path, HOME)).lists()
        assert lists == {
            "name": [
                {"in": "Desk lamp", "out": "Desk lamp", "context": {"domain": "light"}},
                {"in": "work light", "out": "Desk lamp", "context": {"domain": "light"}},
                {
                    "in": "Garage door",
                    "out": "Garage door",
                    "context": {"domain": "cover", "device_class": "garage"},
                },
                {"in": r"Fan \(big\)", "out": "Fan (big)", "context": {"domain": "fan"}},
            ],
            "area": ["Kitchen", "Living Room", {"in": "lounge", "out": "Living Room"}],
            "floor": ["Ground floor", "First floor", {"in": "upstairs", "out": "First floor"}],
        }

    def test_two_of_one_name_are_told_apart_by_their_aliases(self) -> None:
        """The name alone would not say which of the two was meant."""
        home = Home("", (Entity("Lamp", "light", ("desk lamp",)), Entity("lamp", "light", ("bed lamp",))))
        outs = [value["out"] for value in home.lists()["name"] if isinstance(value, dict)]
        assert outs == ["Lamp", "desk lamp", "lamp", "bed lamp"]

    def test_empty_lists_are_left_out(self) -> None:
        """A list without values cannot be said."""
        assert Home("").lists() == {}
