"""A grammar as a file that people read: YAML with comments, one sentence a line.

The importers make a Draft; render() gives its text, write() puts it where it belongs.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml
from hassil.util import is_template

from edgevoice import __version__
from edgevoice.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PLAIN: Final = re.compile(r"[^\W\d_](?:[\w' -]*\w)?")
"""Text that YAML needs no quotes for, unless it is one of its words."""

_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

_KEYS: Final = (
    "language",
    "settings",
    "skip_words",
    "intents",
    "expansion_rules",
    "lists",
)
"""Of a grammar, in the order in which they are best read."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A grammar to be written."""

    grammar: dict[str, Any]
    """As it is read from a grammar file."""

    header: tuple[str, ...]
    """Lines of the comment at the top."""

    comments: dict[tuple[object, ...], str] = field(default_factory=dict)
    """By the place in `grammar`: above a block of sentences, behind a value of a list."""


def render(draft: Draft) -> str:
    """Return the text of the file."""
    lines = [_comment(line) for line in draft.header]
    for key in (*_KEYS, *(key for key in draft.grammar if key not in _KEYS)):
        if not (value := draft.grammar.get(key)):
            continue
        if key == "intents":
            lines += ["", "intents:", *_intents(value, draft.comments)]
        elif key == "lists":
            lines += ["", "lists:", *_lists(value, draft.comments, ("lists",), "  ")]
        elif key == "expansion_rules":
            lines += ["", "expansion_rules:", *_rules(value, "  ")]
        else:
            lines += ["", f"{key}: {flow(value)}"]
    return "\n".join([*lines, ""])


def _intents(intents: dict[str, Any], comments: dict[tuple[object, ...], str]) -> Iterator[str]:
    for name, intent in intents.items():
        yield f"  {flow(name)}:"
        for key in intent:
            if key != "data":
                yield f"    {flow(key)}: {flow(intent[key])}"
        yield "    data:"
        for i, block in enumerate(intent["data"]):
            at = ("intents", name, "data", i)
            if at in comments:
                yield f"      {_comment(comments[at])}"
            yield "      - sentences:"
            yield from (f"          - {_quoted(sentence)}" for sentence in block["sentences"])
            for key, value in block.items():
                if key == "lists":
                    yield "        lists:"
                    yield from _lists(value, comments, (*at, "lists"), "          ")
                elif key == "expansion_rules":
                    yield "        expansion_rules:"
                    yield from _rules(value, "          ")
                elif key != "sentences":
                    yield f"        {flow(key)}: {flow(value)}"


def _rules(rules: dict[str, str], indent: str) -> Iterator[str]:
    return (f"{indent}{flow(name)}: {_quoted(body)}" for name, body in rules.items())


def _lists(
    lists: dict[str, Any], comments: dict[tuple[object, ...], str], at: tuple[object, ...], indent: str
) -> Iterator[str]:
    for name, body in lists.items():
        yield f"{indent}{flow(name)}:"
        for key, value in body.items():
            if key != "values":
                yield f"{indent}  {flow(key)}: {flow(value)}"
                continue
            yield f"{indent}  values:"
            for i, item in enumerate(value):
                comment = comments.get((*at, name, "values", i))
                yield f"{indent}    - {flow(item)}" + (f"  {_comment(comment)}" if comment else "")


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in f"# {text}").rstrip()


def flow(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS and value.isprintable():
            return value
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    return str(yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize)).split("\n")[0]


def _quoted(text: str) -> str:
    if "\\" in text and text.isprintable():
        return "'" + text.replace("'", "''") + "'"  # in these a backslash is one
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def made_by() -> str:
    """Return the words for the header that say who wrote a grammar, and when."""
    today = dt.datetime.now().astimezone().date()
    return f"written by edgevoice {__version__} on {today.isoformat()}."


def plain_template(text: str) -> str:
    """Return the sentence template that is nothing but this text."""
    return _escape(text) if ";" in text or "\\" in text else plain_value(text)


def plain_value(text: str) -> str:
    """Return what stands in a list for this text; without signs of templates that is the text itself."""
    return _escape(text) if is_template(text) else text


def _escape(text: str) -> str:
    return re.sub(r"([\\()\[\]{}<>|;])", r"\\\1", text)


def write(text: str, path: Path, *, force: bool) -> None:
    """Write the file at once or not at all.

    Raises:
        UsageError: there is such a file already, and `force` is not set.
        CheckFailedError: it cannot be written.
    """
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; name another file, or replace it with --force")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CheckFailedError(
            f"{path} cannot be written ({error.strerror}); check the folder, and that there is space"
        ) from None


def rewrite(text: str, path: Path) -> Path:
    """Put another text in the place of a file's, at once or not at all; links are followed.

    Returns:
        The file with the text of before, beside it, with `.bak` at its name.

    Raises:
        CheckFailedError: it cannot be written; then it is as it was.
    """
    path = path.resolve()
    before = path.with_name(f"{path.name}.bak")
    temporary = before.with_name(f".{before.name}.{os.getpid()}")
    try:
        try:
            shutil.copy2(path, temporary)
            temporary.replace(before)
        finally:
            temporary.unlink(missing_ok=True)
        write(text, path, force=True)
        shutil.copymode(before, path)
    except OSError as error:
        raise CheckFailedError(f"{before} cannot be written ({error.strerror}); check the folder") from None
    return before
