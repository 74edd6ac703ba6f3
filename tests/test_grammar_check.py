"""What is found in a grammar: each finding where it should be, with its line, and nowhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, note, settings

from edgevoice import grammar_check, grammar_file, match
from edgevoice.errors import GrammarError
from edgevoice.grammar import compile_grammar
from edgevoice.native import Grammar
from edgevoice.sentences import Derivations
from tests.examples import examples
from tests.test_match import ROOT, grammars

if TYPE_CHECKING:
    from pathlib import Path

    from edgevoice.grammar_check import Finding, Report
    from edgevoice.native import Model

GRAMMAR = """\
language: en
intents:
  TurnOn:
    data:
      - sentences:
          - "turn on [the] {light:name}"
  TurnOff:
    data:
      - sentences:
          - "turn off [the] {light:name}"
lists:
  light:
    values:
      - desk lamp
      - in: "(big|tall) one"
        out: light.big
expected:
  - {say: turn on the desk lamp, intent: TurnOn, slots: {name: desk lamp}}
  - {say: turn off tall one, intent: TurnOff, slots: {name: light.big}}
refused:
  - turn on
"""


def checked(folder: Path, text: str, model: Model | None = None) -> Report:
    path = folder / "grammar.yaml"
    path.write_text(text, encoding="utf-8")
    return grammar_check.check(path, model)


def found(report: Report, kind: str) -> list[tuple[str, int, str]]:
    return [(each.level, each.line, each.text) for each in report.findings if each.kind == kind]


def one(report: Report) -> Finding:
    """The only finding."""
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def with_sentences(*blocks: str, lists: str = "") -> str:
    """A grammar of intents A, B, ... with a sentence each, from line 6 on, every fourth line."""
    text = "language: en\nintents:\n"
    for i, sentence in enumerate(blocks):
        text += f"  {'ABCDEFG'[i]}:\n    data:\n      - sentences:\n          - {sentence}\n"
    return text + lists


class TestInOrder:
    """A grammar in which nothing is wrong."""

    def test_numbers(self, tmp_path: Path) -> None:
        """Sentences, intents, slots and examples are counted."""
        report = checked(tmp_path, GRAMMAR)
        assert report.findings == ()
        assert (report.sentences, report.exact, report.language) == (12, True, "en")
        name = grammar_check.Slot("name", ("values",), 2)
        assert report.intents == (
            grammar_check.Intent("TurnOn", 6, (name,)),
            grammar_check.Intent("TurnOff", 6, (name,)),
        )
        assert (report.expected, report.refused) == (2, 1)
        assert report.cost.memory_bytes == 12 * report.cost.arcs + 4 * (report.cost.nodes + 1)
        assert report.cost.mean_choices is None

    @pytest.mark.parametrize("name", ["home", "coffee"])
    def test_shipped_grammar(self, name: str, model: Model) -> None:
        """Has no errors and no warnings, and is checked in two seconds."""
        started = time.process_time()
        report = grammar_check.check(ROOT / "grammars" / f"{name}.yaml", model)
        assert time.process_time() - started < 2
        assert report.exact
        assert report.count("error") == report.count("warning") == 0, report.findings

    def test_kinds_of_slots(self, tmp_path: Path) -> None:
        """Values, ranges, free text and fixed ones; those of rules and of list values, too."""
        text = """\
language: en
intents:
  Set:
    data:
      - sentences: ["set <what> to {n:level}", "say {text:what}", "{1..3,2:level} times"]
        slots: {kind: a}
      - sentences: ["dim {deep}"]
        slots: {kind: b, level: 7}
expansion_rules:
  what: "[the] {room:what}"
lists:
  room: {values: [hall, attic]}
  n: {range: {from: 0, to: 10, step: 5}}
  text: {wildcard: true}
  deep: {values: ["all of {room}"]}
"""
        (intent,) = checked(tmp_path, text).intents
        assert {(slot.name, slot.kinds, slot.values) for slot in intent.slots} == {
            ("kind", ("fixed",), 2),
            ("what", ("values", "free text"), 2),
            ("level", ("range", "fixed"), 6),
            ("deep", ("values",), 1),
            ("room", ("values",), 2),
        }


class TestExamples:
    """The grammar's own."""

    def test_of_every_kind(self, tmp_path: Path) -> None:
        """What is not understood as written is an error at its line."""
        text = GRAMMAR + "  - turn off the desk lamp\n"
        text = text.replace("say: turn off tall one", "say: turn off tall two")
        text = text.replace("{name: desk lamp}}", "{name: lamp}}")
        assert found(checked(tmp_path, text), "example") == [
            ("error", 18, '"turn on the desk lamp" is TurnOn name=desk lamp, expected is TurnOn name=lamp'),
            (
                "error",
                19,
                '"turn off tall two" is expected, and is no sentence; see: edgevoice grammar explain',
            ),
            ("error", 22, '"turn off the desk lamp" must be refused, and is TurnOff name=desk lamp'),
        ]

    def test_of_two_intents(self, tmp_path: Path) -> None:
        """Is not as expected either."""
        text = (
            with_sentences("go [now]", "go") + "expected: [{say: go, intent: A}, {say: go now, intent: A}]\n"
        )
        assert found(checked(tmp_path, text), "example") == [
            ("error", 11, '"go" is A as expected, but B as well')
        ]


class TestTwoMeanings:
    """Same words, two meanings."""

    def test_two_intents(self, tmp_path: Path) -> None:
        """An error, with the shortest example and both lines."""
        report = checked(tmp_path, with_sentences('"[please] go (home|to bed)"', '"go to (bed|school)"'))
        finding = one(report)
        assert (finding.level, finding.kind, finding.line) == ("error", "ambiguous", 6)
        assert finding.text == '"go to bed" is A, and by line 10 B: refused as ambiguous'

    def test_by_spelling(self, tmp_path: Path) -> None:
        """Words that a transcript may write alike: "five" and 5."""
        report = checked(
            tmp_path,
            with_sentences(
                '"channel five {n}"', '"channel 5 {n}"', lists="lists: {n: {range: {from: 1, to: 9}}}\n"
            ),
        )
        assert one(report).kind == "ambiguous"
        assert '"channel 5 1" is A' in one(report).text

    def test_more_of_the_template(self, tmp_path: Path) -> None:
        """A warning: what the template itself says goes first."""
        lists = "lists: {n: {range: {from: 1, to: 9}}}\n"
        finding = checked(tmp_path, with_sentences('"channel {n}"', '"channel five"', lists=lists)).findings[
            0
        ]
        assert (finding.level, finding.kind) == ("warning", "goes-first")
        assert finding.text.startswith('"channel 5" is not A, but B: line ')

    def test_two_slots(self, tmp_path: Path) -> None:
        """A warning when it is one intent, as one of them is taken."""
        lists = """\
lists:
  a: {values: [{in: fan, out: 1}, {in: lamp, out: 2}]}
  b: {values: [{in: fan, out: 1}, {in: lamp, out: 3}]}
"""
        text = with_sentences('"go {a:x}"').rstrip() + '\n          - "go {b:x} [now]"\n' + lists
        finding = one(checked(tmp_path, text))
        assert (finding.level, finding.kind, finding.line) == ("warning", "slots", 6)
        assert finding.text == '"go lamp" has x=2, by line 7 x=3: the first is taken'

    def test_the_same_twice(self, tmp_path: Path) -> None:
        """Is nobody's business."""
        text = with_sentences('"go [now]"').rstrip() + '\n          - "go"\n'
        assert checked(tmp_path, text).findings == ()

    def test_free_text_of_two(self, tmp_path: Path) -> None:
        """Is ambiguous as well; its place is named."""
        lists = "lists: {what: {wildcard: true}, note: {wildcard: true}}\n"
        report = checked(tmp_path, with_sentences('"add {what}"', '"add {note}"', lists=lists))
        assert one(report).text == '"add {what}" is A, and by line 10 B: refused as ambiguous'


@settings(max_examples=examples(25), deadline=None, derandomize=True)
@given(data=grammars)
def test_two_intents_of_any_grammar(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    """They are reported exactly when one of its sentences has two, and said of such a sentence."""
    note(yaml.safe_dump(data))
    path = tmp_path_factory.mktemp("check") / "grammar.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    file = grammar_file.load(path)
    reported = [
        each.text.split('"')[1] for each in grammar_check.check(path).findings if each.kind == "ambiguous"
    ]
    ways = Derivations(file)
    texts = {ways.text(number) for number in range(min(ways.count(), 200))} | set(reported)
    with Grammar(compile_grammar(file)) as grammar:
        several = {
            text for text in texts if len({each.intent for each in match.interpret(grammar, text)}) > 1
        }
    assert set(reported) <= several
    assert bool(reported) == bool(several)


class TestFreeText:
    """What free text takes, or would."""

    LISTS = "lists: {text: {wildcard: true}}\n"

    def test_other_intents(self, tmp_path: Path) -> None:
        """A warning that says which goes first."""
        report = checked(
            tmp_path,
            with_sentences('"say {text}"', '"say hello"', '"[do] say good night"', '"go"', lists=self.LISTS),
        )
        finding = one(report)
        assert (finding.level, finding.kind, finding.line) == ("warning", "swallowed", 6)
        assert finding.text == 'free text of A could be "say hello", but line 10 (B) goes first, as in 1 more'

    def test_own_intent(self, tmp_path: Path) -> None:
        """Nothing to say."""
        text = with_sentences('"say {text}"').rstrip() + '\n          - "say hello"\n' + self.LISTS
        assert checked(tmp_path, text).findings == ()


class TestUnused:
    """What no sentence says."""

    def test_rules_and_lists(self, tmp_path: Path) -> None:
        """Also those used by unused ones only, and those a block has of its own."""
        text = """\
language: en
intents:
  A:
    data:
      - sentences: ["<go> {room}"]
        expansion_rules: {go: "<walk>", stop: halt}
        lists:
          here: {values: [here]}
expansion_rules:
  walk: walk
  run: "run {speed}"
  go: "go"
lists:
  room: {values: ["hall [<end>]"]}
  speed: {values: [fast]}
"""
        text = text.replace("  run:", "  end: now\n  run:")
        assert found(checked(tmp_path, text), "unused") == [
            ("warning", 12, "no sentence uses the rule <run>"),
            ("warning", 13, "no sentence uses the rule <go>"),
            ("warning", 16, "no sentence uses the list {speed}"),
            ("warning", 6, "no sentence uses the rule <stop>"),
            ("warning", 8, "no sentence uses the list {here}"),
        ]

    def test_without_words(self, tmp_path: Path) -> None:
        """A sentence that is nothing but a mark is never said."""
        text = with_sentences('"go"', '"..."') + "  Z:\n    data:\n      - sentences: []\n"
        assert found(checked(tmp_path, text), "never-said") == [
            ("error", 10, "this sentence can never be said: it has no words"),
            ("warning", 13, "no sentences here for Z"),
        ]


class TestLists:
    """Values of one list."""

    def report(self, tmp_path: Path, values: str) -> Report:
        """Of a list x with these values, from line 10 on."""
        lists = f"lists:\n  x:\n    values:\n{values}"
        return checked(tmp_path, with_sentences('"use {x}"', lists=lists))

    def test_said_twice(self, tmp_path: Path) -> None:
        """A warning when it means something else the second time."""
        values = """\
      - {in: "[big] lamp", out: one}
      - {in: lamp, out: two}
      - {in: "Lamp!", out: one}
"""
        report = self.report(tmp_path, values)
        assert found(report, "duplicate") == [
            ("warning", 11, '"lamp" of list {x} is one by line 10 and not two')
        ]

    def test_alike(self, tmp_path: Path) -> None:
        """Worth knowing; a warning when they sound the same. Not when they mean the same."""
        values = """\
      - Anna
      - night
      - Hanna
      - {in: knight, out: sir}
      - {in: "(knite|nite)", out: sir}
      - garage
"""
        assert found(self.report(tmp_path, values), "sounds-alike") == [
            ("warning", 11, '"night" and "knight" of list {x} sound the same'),
            ("warning", 11, '"night" and "knite" of list {x} sound the same'),
            ("note", 10, '"anna" and "hanna" of list {x} sound alike'),
        ]


class TestWordsAlike:
    """Sentences that differ in a word."""

    def test_two_intents(self, tmp_path: Path) -> None:
        """A note that shows both."""
        report = checked(tmp_path, with_sentences('"call [my] bill [now]"', '"call [the] phil [now]"'))
        finding = one(report)
        assert (finding.level, finding.kind, finding.line) == ("note", "sounds-alike", 6)
        assert finding.text == '"call bill" (A) and "call phil" (B) sound alike'

    def test_one_meaning(self, tmp_path: Path) -> None:
        """Alternatives that sound alike do no harm, nor do numbers."""
        lists = "lists: {n: {range: {from: 1, to: 100}}}\n"
        assert checked(tmp_path, with_sentences('"(light|lights) on {n}"', lists=lists)).findings == ()

    def test_nothing_in_common_after_it(self, tmp_path: Path) -> None:
        """So that the whole sentences are not alike."""
        assert checked(tmp_path, with_sentences('"light the candle"', '"lights out"')).findings == ()


class TestModel:
    """What a model adds."""

    def test_odd_words(self, tmp_path: Path, model: Model) -> None:
        """Words it has to put together are named, with their line; common ones are not."""
        text = GRAMMAR.replace("desk lamp", "zigbee qwrtzq")
        report = checked(tmp_path, text, model)
        assert [(level, line) for level, line, _ in found(report, "spelling")] == [("note", 14)]
        assert '"qwrtzq"' in found(report, "spelling")[0][2]

    def test_choices(self, tmp_path: Path, model: Model) -> None:
        """Few where one word can come, more where many can."""
        few = checked(tmp_path, with_sentences('"stop"'), model).cost
        assert few.mean_choices is not None
        assert few.most_choices_after == ""
        many = checked(tmp_path, with_sentences('"(stop|go|wait|turn|dim|open|close)"'), model).cost
        assert many.mean_choices is not None
        assert many.mean_choices > few.mean_choices > 1


class TestBounds:
    """Grammars too large to look at every sentence."""

    def test_count_from_above(self, tmp_path: Path) -> None:
        """Says so, and finds what it can."""
        path = tmp_path / "grammar.yaml"
        path.write_text(with_sentences('"go {n} {n} {n}"', '"go {n} [now]"', '"go 5"', lists=self.LISTS))
        report = grammar_check.check(path, effort=2000)
        assert not report.exact
        assert report.sentences == 100**3 + 2 * 100 + 1
        assert [intent.sentences for intent in report.intents] == [100**3, 200, 1]
        assert report.count("warning") == 1
        exact = grammar_check.check(path)
        assert exact.exact
        assert exact.sentences == 100**3 + 2 * 100

    LISTS = "lists: {n: {range: {from: 1, to: 100}}}\n"

    def test_unreadable(self, tmp_path: Path) -> None:
        """Ends in an error that says why."""
        with pytest.raises(GrammarError, match="cannot be read"):
            grammar_check.check(tmp_path / "none.yaml")
