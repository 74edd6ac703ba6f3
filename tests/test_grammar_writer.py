"""What the importers write is read back as it was meant, and no file is lost or left half written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil.expression import Sentence, TextChunk
from hassil.intents import TextSlotList
from hassil.parse_expression import parse_sentence
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.errors import CheckFailedError, UsageError
from edgevoice.grammar_writer import Draft, plain_template, plain_value, render, rewrite, write

if TYPE_CHECKING:
    from pathlib import Path

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
"""Without half characters, which no file can hold."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.sampled_from(["on", "No"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def said(sentence: Sentence) -> str:
    """The text of a template that is nothing but text."""
    items = getattr(sentence.expression, "items", [sentence.expression])
    assert all(isinstance(item, TextChunk) for item in items)
    return "".join(item.text for item in items)


class TestRender:
    """The text of a file."""

    @given(slots=st.dictionaries(texts, values, max_size=3), sentence=texts, value=values, comment=texts)
    def test_everything_is_read_back(
        self, slots: dict[str, Any], sentence: str, value: object, comment: str
    ) -> None:
        """Whatever stands in it: YAML reads what was written, and comments change nothing."""
        grammar = {
            "language": "en",
            "skip_words": [sentence],
            "intents": {sentence: {"data": [{"sentences": [sentence], "slots": slots}]}},
            "expansion_rules": {sentence: sentence},
            "lists": {"x": {"values": [value, {"in": sentence, "out": value}]}, "y": {"wildcard": True}},
        }
        place = ("lists", "x", "values", 0)
        text = render(Draft(grammar, (comment,), {place: comment, ("intents", sentence, "data", 0): comment}))
        assert yaml.load(text, Loader=yaml.CSafeLoader) == grammar

    def test_is_read_easily(self) -> None:
        """No quotes where none are needed, one sentence a line, values on one line, comments in place."""
        grammar = {
            "language": "en",
            "intents": {
                "LampOn": {
                    "data": [
                        {"sentences": ["turn on {name}", r"the \(big\) one"], "slots": {"domain": "light"}}
                    ]
                }
            },
            "lists": {"name": {"values": ["Desk lamp", {"in": "on", "out": 5, "context": {"a": None}}]}},
        }
        comments: dict[tuple[object, ...], str] = {
            ("intents", "LampOn", "data", 0): "lights",
            ("lists", "name", "values", 0): "Study",
        }
        assert render(Draft(grammar, ("From a test.", ""), comments)) == (
            "# From a test.\n"
            "#\n"
            "\n"
            "language: en\n"
            "\n"
            "intents:\n"
            "  LampOn:\n"
            "    data:\n"
            "      # lights\n"
            "      - sentences:\n"
            '          - "turn on {name}"\n'
            "          - 'the \\(big\\) one'\n"
            "        slots: {domain: light}\n"
            "\n"
            "lists:\n"
            "  name:\n"
            "    values:\n"
            "      - Desk lamp  # Study\n"
            '      - {in: "on", out: 5, context: {a: null}}\n'
        )


class TestPlain:
    """Text that is no template."""

    @given(st.text("ab ()[]{}<>|;\\@:,", min_size=1).map(str.strip).filter(bool))
    def test_signs_of_templates_are_text(self, text: str) -> None:
        """As a sentence and as a value of a list, hassil reads the text itself."""
        words = " ".join(text.split())
        if set(words) - {"\\"}:
            assert said(parse_sentence(plain_template(words))) == words
        read = TextSlotList.from_tuples([(plain_value(words), words)]).values[0].text_in
        assert said(Sentence(expression=read)) == words


class TestWrite:
    """The file itself."""

    def test_a_file_that_is_there_stays(self, tmp_path: Path) -> None:
        """Unless it is told to go; then it is replaced, and nothing else lies about."""
        path = tmp_path / "grammar.yaml"
        write("old\n", path, force=False)
        with pytest.raises(UsageError, match="--force"):
            write("new\n", path, force=False)
        assert path.read_text() == "old\n"
        write("new\n", path, force=True)
        assert path.read_text() == "new\n"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_cannot_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        """A folder that is missing, and text that breaks off in the middle."""
        with pytest.raises(CheckFailedError, match="cannot be written"):
            write("new\n", tmp_path / "no" / "grammar.yaml", force=False)
        with pytest.raises(UnicodeEncodeError):
            write("half\ud800", tmp_path / "grammar.yaml", force=False)
        assert list(tmp_path.iterdir()) == []

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        """As any file that the user makes: a service of another user reads it."""
        (tmp_path / "usual").touch()
        write("new\n", tmp_path / "grammar.yaml", force=False)
        assert os.stat(tmp_path / "grammar.yaml").st_mode == os.stat(tmp_path / "usual").st_mode  # noqa: PTH116


class TestRewrite:
    """Another text in the place of a file's."""

    def test_what_was_there_lies_beside_it(self, tmp_path: Path) -> None:
        """With its rights; a link stays a link, and one that is called like the copy is not followed."""
        path, link, other = tmp_path / "home.yaml", tmp_path / "link.yaml", tmp_path / "other"
        path.write_text("before")
        path.chmod(0o640)
        link.symlink_to(path)
        other.write_text("another's")
        (tmp_path / "home.yaml.bak").symlink_to(other)
        before = rewrite("after", link)
        assert before == tmp_path / "home.yaml.bak"
        assert (link.read_text(), before.read_text()) == ("after", "before")
        assert link.is_symlink()
        assert not before.is_symlink()
        assert other.read_text() == "another's"
        assert path.stat().st_mode & 0o777 == 0o640
        assert sorted(each.name for each in tmp_path.iterdir()) == [
            *("home.yaml", "home.yaml.bak", "link.yaml", "other")
        ]

    def test_a_folder_that_takes_nothing(self, tmp_path: Path) -> None:
        """Nothing changes, and it is told."""
        path = tmp_path / "home.yaml"
        path.write_text("before")
        (tmp_path / f".home.yaml.{os.getpid()}").mkdir()  # in the way, also of who may write anywhere
        with pytest.raises(CheckFailedError, match="cannot be written"):
            rewrite("after", path)
        assert path.read_text() == "before"
