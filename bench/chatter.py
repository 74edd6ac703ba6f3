"""Everyday talk that is not an order, made up from the templates of chatter.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    import random

_INNERMOST: Final = re.compile(r"\(([^()\[\]{}]*)\)|\[([^()\[\]{}]*)\]")
_LIST: Final = re.compile(r"\{(\w+)\}")


class Chatter:
    """The templates, and a sentence or a scene at a time out of them."""

    def __init__(self) -> None:
        content: dict[str, Any] = yaml.safe_load(
            Path(__file__).with_name("chatter.yaml").read_text(encoding="utf-8")
        )
        self._lists: dict[str, list[str]] = content["lists"]
        self._replies: list[str] = content["replies"]
        self._topics: dict[str, list[str]] = content["topics"]

    def scene(self, chance: random.Random, sentences: int, speakers: int) -> list[tuple[int, str]]:
        """Return sentences about one topic, each with the number of its speaker.

        No template comes again before all were used. One speaker talks, as on television or on the telephone;
        two or more also answer each other.
        """
        topic = chance.choice(list(self._topics))
        left: list[str] = []
        lines: list[tuple[int, str]] = []
        speaker = 0
        while len(lines) < sentences:
            if not left:
                left = chance.sample(self._topics[topic], len(self._topics[topic]))
            lines.append((speaker, self.sentence(chance, left.pop())))
            if speakers > 1 and chance.random() < 0.5:
                speaker = (speaker + chance.randrange(1, speakers)) % speakers
                if chance.random() < 0.5:
                    lines.append((speaker, self.sentence(chance, chance.choice(self._replies))))
        return lines[:sentences]

    def sentence(self, chance: random.Random, template: str) -> str:
        """Return what a template says this time."""
        text = _LIST.sub(lambda name: str(chance.choice(self._lists[name[1]])), template)
        while found := _INNERMOST.search(text):
            one, optional = found.groups()
            chosen = chance.choice(one.split("|")) if optional is None else chance.choice((optional, ""))
            text = text[: found.start()] + chosen + text[found.end() :]
        text = re.sub(r" +(?=[ ,.?!:])", "", text).strip()
        text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        return text[:1].upper() + text[1:]
