"""The prompt of a grammar: sentences that may be said, as many different names as fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgevoice import grammar_file, match, prompt

if TYPE_CHECKING:
    from edgevoice.native import Grammar

GRAMMARS = Path(__file__).parents[1] / "grammars"


def built(folder: Path, sentences: str, rest: str = "") -> str:
    path = folder / "grammar.yaml"
    path.write_text(
        f"language: en\nintents: {{A: {{data: [{{sentences: {sentences}}}]}}}}\n{rest}", encoding="utf-8"
    )
    return prompt.build(grammar_file.load(path))


@pytest.mark.parametrize("name", ["home", "coffee"])
def test_prompt_is_short_enough_and_of_sentences(name: str) -> None:
    """Whole sentences, each with a capital letter and a full stop, none of them twice."""
    text = prompt.build(grammar_file.load(GRAMMARS / f"{name}.yaml"))
    sentences = [sentence.strip() for sentence in text.removesuffix(".").split(". ")]
    assert prompt.MAX_CHARACTERS / 2 < len(text) <= prompt.MAX_CHARACTERS
    assert len(set(sentences)) == len(sentences)
    assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in sentences)


def test_sentences_are_of_the_grammar(coffee_grammar: Grammar) -> None:
    """What Whisper is shown is what may be said. coffee.yaml has no free text, which is shown as nothing."""
    text = prompt.build(coffee_grammar.compiled.file)
    for sentence in text.removesuffix(".").split(". "):
        assert match.interpret(coffee_grammar, sentence), sentence


def test_values_take_turns(tmp_path: Path) -> None:
    """Each sentence has the next value of the list, and the next alternative."""
    lists = "lists: {lamp: {values: [desk lamp, fan, tv]}, n: {range: {from: 1, to: 9}}}\n"
    text = built(tmp_path, "['(turn on|dim) {lamp}']", lists)
    assert text.startswith("Turn on desk lamp. Dim fan. Turn on tv. ")
    assert text.count("desk lamp") == 2  # with either verb, and never again
    assert built(tmp_path, "['{n} (a;b)']", lists).startswith("1 a b. 2 a b. ")


def test_rules_and_optional_words(tmp_path: Path) -> None:
    """A rule is said where it is named; what is optional is said at times."""
    text = built(tmp_path, "['<go> [now]']", "expansion_rules: {go: '(go|walk) home'}\n")
    assert set(text.removesuffix(".").split(". ")) <= {"Go home now", "Go home", "Walk home now", "Walk home"}


def test_sentence_longer_than_the_prompt(tmp_path: Path) -> None:
    """It is left out, not cut."""
    long = " ".join(["word"] * 200)
    assert built(tmp_path, f"['{long}']") == ""
