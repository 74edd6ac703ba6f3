"""A list of plain sentences as a grammar: one a line, or `Intent: sentence`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import GrammarError
from edgevoice.grammar_file import EDGE_PUNCTUATION, MAX_TEMPLATE_CHARACTERS, read_text, shown
from edgevoice.grammar_writer import Draft, made_by, plain_template

if TYPE_CHECKING:
    from pathlib import Path

_NAMED: Final = re.compile(r"([A-Za-z][\w.-]*):\s+(.*)")


def draft(path: Path, intent: str | None, language: str) -> Draft:
    """Return the grammar of a file of sentences.

    Args:
        path: blank lines and those that begin with "#" are skipped.
        intent: of every sentence; None: each line has its own, as in "LampOn: turn on the lamp".
        language: of the sentences.

    Raises:
        GrammarError: with file, line, what was seen and what to do.
    """
    intents: dict[str, dict[str, None]] = {}
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name = intent
        if intent is None:
            match = _NAMED.fullmatch(text)
            if match is None:
                raise GrammarError(
                    f"{path}:{number}: {shown(text)} has no intent; write 'Intent: sentence', "
                    "or name the intent of all lines with --intent"
                )
            name, text = match.groups()
        template = plain_template(" ".join(text.split()))
        if not text.strip(EDGE_PUNCTUATION + " ") or len(template) > MAX_TEMPLATE_CHARACTERS:
            raise GrammarError(f"{path}:{number}: {shown(text)} is no sentence; write words, or remove it")
        intents.setdefault(str(name), {})[template] = None
    if not intents:
        raise GrammarError(f"{path}: no sentences; write one a line")
    grammar: dict[str, Any] = {
        "language": language,
        "intents": {name: {"data": [{"sentences": list(texts)}]} for name, texts in intents.items()},
    }
    return Draft(grammar, (f"Sentences of {path}, {made_by()}",))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        GrammarError: as read_text().
    """
    return read_text(path).removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
