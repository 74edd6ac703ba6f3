"""The schemas of docs/, and what they say of a message."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jsonschema import Draft202012Validator

from edgevoice.commands import NAMES

if TYPE_CHECKING:
    from edgevoice.testing import Message

FOLDER: Final = Path(__file__).parents[1] / "docs" / "schemas"
TEXTS: Final = {"state", "availability", *(f"set-{name}" for name in (*NAMES, "grammar"))}
"""Whose payload is text, no JSON."""


@cache
def validator(name: str) -> Draft202012Validator:
    """Of one schema, which is itself checked; FileNotFoundError if nobody wrote it."""
    schema = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def name_of(topic: str) -> str:
    """Which schema a topic has: that of its level after the site; the device's is not below a site."""
    if topic.endswith("/config"):
        return "device-config"
    level = topic.split("/")[2]
    return f"set-{topic.split('/')[3]}" if level == "set" else level


def accepts(name: str, payload: bytes) -> bool:
    """Whether a payload is as its schema says."""
    try:
        text = payload.decode()
        value = text if name in TEXTS else json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(validator(name).is_valid(value))


def check(message: Message) -> None:
    """Fail unless a message is as the schema of its topic says."""
    name = name_of(message.topic)
    value = message.payload.decode() if name in TEXTS else message.json()
    validator(name).validate(value)
