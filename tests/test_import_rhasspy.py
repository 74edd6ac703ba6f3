"""A sentences.ini means here what it means to Rhasspy, or is refused with file and line."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil import Intents, recognize_best
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import match
from edgevoice.errors import GrammarError
from edgevoice.grammar_writer import render
from edgevoice.import_rhasspy import draft

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeGrammar

QUICK_S = 2.0  # idle machine: 0.1 s

HOUSE = r"""
# what the house understands
[GetTime]
what time is it
tell me the time

; rules, tags and substitutions
[SetLight]
colors = (red | green | dark
  blue)
rooms = ([the:] (den | playroom):den | (living room):lr)
turn (on | off){state} the (living room lamp){name:light_1}
set the <rooms>{room} light to <colors>{color} (:){domain:light}
\[please] set brightness to (0..100){brightness}
dim to (low:10 | medium:50 | 60..90,10){brightness!int} [percent]
make it (0..100 percent:){brightness!float}
paint it ([very] dark){shade!upper}
a lamp (on:true | off:false){state!bool}
channel (5){channel}
fan (one:1 | two:2 | three){speed}
(lights | lamps) (out (:){state:off} | up (:){state:on})

[GetColor]
is it <SetLight.colors>
is it [really] <SetLight.colors>{color}

[Play]
play ($movies){movie}
record $tv/shows{show}
watch $movies
"""

SLOTS = {
    "movies": "Primer\n[the] moon:Moon\nMulholland Drive\n",
    "tv/shows": "(the | a:the) news\nweather:forecast\n",
}

# What is said, intent, slots.
UNDERSTOOD: list[tuple[str, str, dict[str, object]]] = [
    ("what time is it", "GetTime", {}),
    ("turn on the living room lamp", "SetLight", {"state": "on", "name": "light_1"}),
    ("set the playroom light to red", "SetLight", {"room": "den", "color": "red", "domain": "light"}),
    (
        "set the the den light to dark blue",
        "SetLight",
        {"room": "den", "color": "dark blue", "domain": "light"},
    ),
    ("set the living room light to green", "SetLight", {"room": "lr", "color": "green", "domain": "light"}),
    ("please set brightness to forty two", "SetLight", {"brightness": 42}),
    ("set brightness to 7", "SetLight", {"brightness": 7}),
    ("dim to medium", "SetLight", {"brightness": 50}),
    ("dim to seventy percent", "SetLight", {"brightness": 70}),
    ("make it twenty percent", "SetLight", {"brightness": 20.0}),
    ("paint it very dark", "SetLight", {"shade": "VERY DARK"}),
    ("paint it dark", "SetLight", {"shade": "DARK"}),
    ("a lamp off", "SetLight", {"state": False}),
    ("a lamp on", "SetLight", {"state": True}),
    ("channel five", "SetLight", {"channel": 5}),
    ("fan two", "SetLight", {"speed": "2"}),
    ("fan three", "SetLight", {"speed": "three"}),
    ("lamps out", "SetLight", {"state": "off"}),
    ("lights up", "SetLight", {"state": "on"}),
    ("is it dark blue", "GetColor", {}),
    ("is it really green", "GetColor", {"color": "green"}),
    ("play the moon", "Play", {"movie": "the Moon"}),
    ("play mulholland drive", "Play", {"movie": "Mulholland Drive"}),
    ("record a news", "Play", {"show": "the news"}),
    ("record weather", "Play", {"show": "forecast"}),
    ("watch primer", "Play", {}),
]

# (what is wrong, lines below [A], line of the error, words its text must have)
REFUSED = [
    ("bracket that stays open", "turn (on", 2, "')' is missing"),
    ("bracket that closes nothing", "turn on)", 2, "')' closes nothing"),
    ("brackets of two kinds", "turn (on]", 2, "']' closes nothing"),
    ("tag that stays open", "turn (on){state", 2, "'}' is missing"),
    ("tag on nothing", "{state} on", 2, "needs words before it"),
    ("tag without name", "turn (on){:x}", 2, "no name of a tag"),
    ("tag in a tag", "turn ((on){a} now){b}", 2, "stands inside of another tag"),
    ("tag in a tagged rule", "x = (on){a}\nturn <x>{b}", 2, "stands inside of another tag"),
    ("two tags", "turn (on){a}{b}", 2, "two {tags}"),
    ("unknown rule", "turn <it> on", 2, "rule <it> is not defined in [A]"),
    ("rule of another intent", "turn <B.it> on", 2, "rule <it> is not defined in [B]"),
    ("rule that uses itself", "x = a <x>\nturn <x>", 2, "<A.x> -> <A.x> uses itself"),
    ("rules that use each other", "x = a <y>\ny = b <x>\nturn <x>{t}", 3, "uses itself"),
    ("slot without a file", "play ($songs){song}", 2, "slots/songs"),
    ("slot outside of the folder", "play ($../secret){song}", 2, "there is no file"),
    ("slot program", "roll ($dice,6){n}", 2, "what programs write"),
    ("converter of one's own", "turn (on){state!mine}", 2, "!mine is not one of the converters"),
    ("value no converter takes", "turn (on){state!int}", 2, "cannot be converted by !int"),
    ("converter of a range", "set (1..5){n!upper}", 2, "only !int and !float"),
    ("range joined with words", "set (1..5 percent){n}", 2, "tag the range alone"),
    ("range without a tag", "wait 1..5 minutes", 2, "as in 1..5{number}"),
    ("two ranges in one value", "set (1..5 6..9){n}", 2, "tag it alone"),
    ("range in a value", "set (1..5 percent){n:x}", 2, "tag it alone"),
    ("range from large to small", "set (5..1){n}", 2, "the smaller one first"),
    ("value that is not said", "go (up | :down){way}", 2, "that nobody says"),
    ("lonely tag", "go ((up | down) (:){x:y} | left)", 2, "stands on nothing that is said"),
    ("sentence that may be empty", "\\[please] [now]", 2, "can be empty"),
    ("tag that may be empty", "go ([up]:x){way}", 2, "can be left out"),
    ("optional at the beginning", "[the] lamp on", 2, "needs \\["),
    ("section with a meaning of its own", "on\n[DEFAULT]", 3, "[DEFAULT]"),
    ("rule without a name", "= on", 2, "no name of a rule"),
    ("substitution with brackets", "turn (on):((x)) off", 2, "plain words"),
    ("ten thousand values", f"go {'[a] ' * 20}{{x}}\ngo ({'(a | b) ' * 20}){{x}}", 3, "10000 values"),
    ("deep brackets", f"go {'(' * 99}on{')' * 99}", 2, "brackets in one another"),
    ("long line", f"go {'on ' * 9000}", 2, "10000"),
]


def house(tmp_path: Path, text: str = HOUSE) -> Path:
    for name, content in SLOTS.items():
        path = tmp_path / "slots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    path = tmp_path / "sentences.ini"
    path.write_text(text)
    return path


class TestMeaning:
    """What is understood of an imported file."""

    def test_slots_as_rhasspy_gives_them(self, tmp_path: Path, make_grammar: MakeGrammar) -> None:
        """Names are tags, values the substituted and converted text."""
        with make_grammar(render(draft(house(tmp_path), None, "en"))) as grammar:
            found = [
                (text, meaning.intent, meaning.slots)
                for text, _, _ in UNDERSTOOD
                for meaning in match.interpret(grammar, text)
            ]
        assert found == UNDERSTOOD

    def test_hassil_understands_the_same(self, tmp_path: Path) -> None:
        """The file is one in hassil's syntax, and means the same there."""
        intents = Intents.from_dict(yaml.safe_load(render(draft(house(tmp_path), None, "en"))))
        for text, intent, slots in UNDERSTOOD:
            if text == "channel five":  # a digit in a sentence is a word only for us
                continue
            best = recognize_best(text, intents, language="en")
            assert best is not None, text
            found = {name: slot.value for name, slot in best.entities.items()}
            assert (best.intent.name, found) == (intent, slots)
            assert [value is True or value is False for value in found.values()] == [
                isinstance(value, bool) for value in slots.values()
            ]

    def test_what_was_dropped_is_told(self, tmp_path: Path) -> None:
        """A substitution outside of a tag is no slot; the file says so, and only then."""
        assert "Substitutions" in render(draft(house(tmp_path, "[A]\nturn:x on\n"), None, "en"))
        assert "Substitutions" not in render(draft(house(tmp_path, "[A]\nturn (on:x){y}\n"), None, "en"))


class TestRefusals:
    """What cannot be taken over."""

    @pytest.mark.parametrize(
        ("text", "line", "words"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
    )
    def test_refused_with_its_line(self, tmp_path: Path, text: str, line: int, words: str) -> None:
        """What is wrong, where, and what to do."""
        path = house(tmp_path, f"[A]\n{text}\n\n[B]\nhello\n")
        with pytest.raises(GrammarError) as refused:
            draft(path, None, "en")
        assert str(refused.value).startswith(f"{path}:{line}: ")
        assert words in str(refused.value)

    def test_a_value_of_a_slot_file_is_named(self, tmp_path: Path) -> None:
        """Its own file and line, not where it is used."""
        path = house(tmp_path, "[A]\nplay ($bad){x}\n")
        bad = tmp_path / "slots" / "bad"
        bad.write_text("good\n(bad\n")
        with pytest.raises(GrammarError) as refused:
            draft(path, None, "en")
        assert str(refused.value).startswith(f"{bad}:2: ")

    @pytest.mark.parametrize("body", ["<{}> <{}>", "(<{}> | <{}>)", "(<{}>: | <{}>:)", ":a <{}> <{}>"])
    @pytest.mark.parametrize("use", ["go <r60>{t} now", "go (<r60>):x{t} now", "go <r60> now"])
    def test_rules_that_double_end_quickly(self, tmp_path: Path, body: str, use: str) -> None:
        """Sixty rules that each use the next twice: refused or done, never expanded."""
        rules = [f"r{i} = {body.format(f'r{i - 1}', f'r{i - 1}')}" for i in range(1, 61)]
        path = house(tmp_path, "\n".join(["[A]", "r0 = up", *rules, use, ""]))
        start = time.perf_counter()
        try:
            text = render(draft(path, None, "en"))
        except GrammarError:
            text = ""
        assert time.perf_counter() - start < QUICK_S
        assert len(text) < 100_000

    @given(st.text("ab []()|{}<>$:!\\=.0,\n", max_size=60))
    def test_anything_is_read_or_refused(self, text: str) -> None:
        """No other error; and what comes out is a grammar that hassil reads."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "sentences.ini"
            path.write_text(f"[A]\n{text}\n")
            with contextlib.suppress(GrammarError):
                grammar: dict[str, Any] = yaml.safe_load(render(draft(path, None, "en")))
                Intents.from_dict(grammar)
