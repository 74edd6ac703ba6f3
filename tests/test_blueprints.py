"""Blueprints and examples for Home Assistant are YAML as it reads it; templates do what they say."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any, Final

import jinja2
import pytest
import yaml

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLUEPRINTS: Final = sorted((ROOT / "docs" / "blueprints").iterdir())
NAMES: Final = {"light.desk": "Desk Lamp", "light.hall": "Hall", "switch.fan": None}


class Input(str):
    """What `!input NAME` stands for."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Home Assistant's YAML."""


_Loader.add_constructor("!input", lambda _, node: Input(node.value))


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 - a safe one
    return loaded


def each(value: object) -> Iterator[object]:
    """Everything in it."""
    yield value
    if isinstance(value, dict):
        for item in value.values():
            yield from each(item)
    elif isinstance(value, list):
        for item in value:
            yield from each(item)


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_each(path: Path) -> None:
    """It has what a blueprint must have, uses the inputs that it asks for, and its templates parse."""
    whole = read(path)
    head = whole["blueprint"]
    assert head["domain"] == "automation"
    assert head["name"].startswith("edgevoice: ")
    assert whole["triggers"]
    assert whole["actions"]
    used = {str(value) for value in each({**whole, "blueprint": None}) if isinstance(value, Input)}
    assert used == set(head["input"])
    for value in each(whole):
        if isinstance(value, str) and "{" in value:
            jinja2.Environment().parse(value)  # noqa: S701 - no HTML
    assert path.name in (ROOT / "docs" / "home-assistant.md").read_text("utf-8")


def test_all_are_there() -> None:
    assert [path.name for path in BLUEPRINTS] == ["on_intent.yaml", "tell_when_deaf.yaml", "turn_on_off.yaml"]


@pytest.mark.parametrize(
    ("event", "slots", "entities", "action"),
    [
        ("HassTurnOn", {"name": "desk lamp"}, ["light.desk"], "homeassistant.turn_on"),
        ("HassTurnOff", {"name": "Hall"}, ["light.hall"], "homeassistant.turn_off"),
        ("HassTurnOff", {"name": "garage"}, [], None),
        ("StartTimer", {"name": "desk lamp"}, None, None),
        ("HassTurnOn", {"area": "kitchen"}, None, None),
    ],
)
def test_turn_on_off(
    event: str, slots: dict[str, str], entities: list[str] | None, action: str | None
) -> None:
    """It finds what has the name that was said, among what it may turn on and off."""
    whole = read(BLUEPRINTS[-1])
    environment = jinja2.Environment()  # noqa: S701 - no HTML
    environment.globals["state_attr"] = lambda name, _: NAMES[name]
    said = {"event_type": event, "slots": slots, "confirm": False}
    known: dict[str, Any] = {"trigger": {"payload_json": said}, "entities": list(NAMES)}

    def render(template: str) -> Any:
        text = environment.from_string(template).render(known).strip()
        try:
            return ast.literal_eval(text)  # as Home Assistant does
        except (ValueError, SyntaxError):
            return text

    if entities is None:
        assert not render(whole["conditions"][0]["value_template"])
        return
    assert render(whole["conditions"][0]["value_template"])
    known["named"] = render(whole["actions"][0]["variables"]["named"])
    assert known["named"] == entities
    assert render(whole["actions"][1]["value_template"]) == (action is not None)
    if action is not None:
        assert render(whole["actions"][2]["action"]) == action
        assert render(whole["actions"][2]["target"]["entity_id"]) == entities


def test_example_of_the_page() -> None:
    """The automation that the page shows listens to events, and its templates give what was said."""
    text = (ROOT / "docs" / "home-assistant.md").read_text("utf-8")
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    (automation,) = (block for block in shown if "triggers" in block)
    (trigger,) = automation["triggers"]
    value = {"event_type": "StartTimer", "slots": {"minutes": 12, "what": "pizza"}}
    render = jinja2.Environment().from_string  # noqa: S701 - no HTML
    assert trigger["topic"] == "edgevoice/default/event"
    assert render(trigger["value_template"]).render(value_json=value) == trigger["payload"]
    message = automation["actions"][0]["data"]["message"]
    assert render(message).render(trigger={"payload_json": value}) == "12 minutes for pizza"
