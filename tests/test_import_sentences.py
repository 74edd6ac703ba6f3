"""Plain sentences become a grammar that understands exactly these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgevoice import match
from edgevoice.errors import GrammarError
from edgevoice.grammar_writer import render
from edgevoice.import_sentences import draft

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeGrammar


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestSentences:
    """A file of sentences."""

    def test_one_intent_for_all(self, tmp_path: Path, make_grammar: MakeGrammar) -> None:
        """Blank lines, comments, a mark at the beginning and the line ends of Windows do not matter."""
        path = written(
            tmp_path, "\ufeff# mine\r\n\r\nTurn on the lamp.\r\n  lamp:  on  \r\nlamp: on\r\n".encode()
        )
        with make_grammar(render(draft(path, "LampOn", "en"))) as grammar:
            for text in ("turn on the lamp", "lamp on"):
                (meaning,) = match.interpret(grammar, text)
                assert meaning.intent == "LampOn"
            assert match.interpret(grammar, "mine") == []

    def test_an_intent_a_line(self, tmp_path: Path) -> None:
        """Sentences of an intent come together, each once, in the order of the file."""
        path = written(tmp_path, "On: lamp on\nOff: lamp off\nOn: light on\nOn: lamp on\n")
        assert draft(path, None, "de").grammar == {
            "language": "de",
            "intents": {
                "On": {"data": [{"sentences": ["lamp on", "light on"]}]},
                "Off": {"data": [{"sentences": ["lamp off"]}]},
            },
        }

    def test_signs_of_templates_are_text(self, tmp_path: Path) -> None:
        """Nothing in a plain sentence is a template."""
        sentences = draft(written(tmp_path, "a (b|c) {d}; <e>\n"), "X", "en").grammar["intents"]["X"]["data"]
        assert sentences == [{"sentences": [r"a \(b\|c\) \{d\}\; \<e\>"]}]

    @pytest.mark.parametrize(
        ("text", "place", "words"),
        [
            ("lamp on\n", ":1: ", "--intent"),
            ("\nOn: lamp\nOn:\n", ":3: ", "no intent"),
            ("On: ?!\n", ":1: ", "no sentence"),
            ("# nothing\n", ": ", "no sentences"),
            (b"On: lamp\nOn: \xff\n", ":2: ", "UTF-8"),
            (f"On: {'a ' * 9000}\n", ":1: ", "no sentence"),
        ],
    )
    def test_refused_with_its_line(self, tmp_path: Path, text: str | bytes, place: str, words: str) -> None:
        """What is wrong, where, and what to do."""
        path = written(tmp_path, text)
        with pytest.raises(GrammarError) as refused:
            draft(path, None, "en")
        assert str(refused.value).startswith(f"{path}{place}")
        assert words in str(refused.value)

    def test_a_file_that_is_missing(self, tmp_path: Path) -> None:
        """Is named."""
        with pytest.raises(GrammarError, match=r"none\.txt: cannot be read"):
            draft(tmp_path / "none.txt", "X", "en")
