"""What the scripts of bench/ are made of. The measuring itself needs recordings and is run by hand."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from chatter import Chatter
from edgevoice import grammar_file, match
from edgevoice.grammar import compile_grammar
from edgevoice.native import Grammar
from jsgf import Jsgf
from keywords import Keywords
from ratios import of_medians

HOME = Path(__file__).parent.parent / "grammars" / "home.yaml"


def test_talk_holds_no_order() -> None:
    """No sentence of the synthetic talk is one of the shipped grammar, so accepting it is always wrong."""
    chatter, chance = Chatter(), random.Random(1)  # noqa: S311 (not for secrets)
    with Grammar(compile_grammar(grammar_file.load(HOME))) as grammar:
        for _ in range(50):
            for _, sentence in chatter.scene(chance, 10, 2):
                assert not match.interpret(grammar, sentence), sentence


def test_talk_is_the_same_for_the_same_seed() -> None:
    """A seed names a set of sentences."""
    scenes = [Chatter().scene(random.Random("1/7"), 12, 3) for _ in range(2)]  # noqa: S311
    assert scenes[0] == scenes[1]
    assert len(scenes[0]) == 12
    assert not any(mark in sentence for _, sentence in scenes[0] for mark in "()[]{}|")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("(set|start) [a] {what} timer", "(set | start) [a] <list0> timer"),
        ("{minutes} minute[s]", "<list0> (minutes | minute)"),
        ("living[ ]room", "(living room | livingroom)"),
        ("(now;{what})", "(now <list0> | <list0> now)"),
        ("<at> {minutes}[%| percent]", "<rule0> <list1> [percent]"),
        ("{what}'s timer", "(tea's | hard egg's) timer"),
    ],
)
def test_jsgf_keeps_structure_but_not_joints_inside_words(
    tmp_path: Path, template: str, expected: str
) -> None:
    """Lists and rules stay by name; what may hang together without a gap is written out."""
    text = Jsgf(grammar_file.load(small_grammar(tmp_path, template))).text
    assert f"public <command> = [please] {expected} [please];" in text


def test_jsgf_says_only_sentences_of_the_grammar() -> None:
    """Whatever the JSGF of the shipped grammar allows, the grammar understands."""
    file = grammar_file.load(HOME)
    lines = re.findall(r"^(?:public )?<(\w+)> = (.*);$", Jsgf(file).text, re.MULTILINE)
    chance = random.Random(1)  # noqa: S311
    with Grammar(compile_grammar(file)) as grammar:
        for _ in range(500):
            sentence = said(dict(lines), chance)
            assert match.interpret(grammar, sentence), sentence


def test_jsgf_leaves_out_words_that_are_not_known(tmp_path: Path) -> None:
    """A recogniser with a dictionary gets the rest of the grammar."""
    file = grammar_file.load(small_grammar(tmp_path, "[a] {what}"))
    converted = Jsgf(file, known={"a", "egg", "tea", "please"})
    assert "<list0> = tea;" in converted.text
    assert converted.unknown == {"hard"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A hard-egg timer, 12 minutes!", {"what": "hard egg", "minutes": 12}),
        ("twenty one minutes of tea", {"what": "tea", "minutes": 21}),
        ("Tea, or tea?", {"what": "tea"}),
    ],
)
def test_keywords_fill_slots_from_free_text(tmp_path: Path, text: str, expected: dict[str, object]) -> None:
    """The longest value is found first, each slot once, numbers in either spelling."""
    file = grammar_file.load(small_grammar(tmp_path, "{what} timer [for {minutes} minutes]"))
    assert Keywords(file).parse(text) == ("Start", expected)
    assert Keywords(file).parse("Good evening.") == (None, {})


def test_ratio_of_medians_has_an_interval_around_it() -> None:
    """Paired clips that all take half as long have the ratio 0.5 exactly, unpaired ones about."""
    theirs = [100.0 + i for i in range(50)]
    ours = [ms / 2 for ms in theirs]
    assert of_medians(ours, theirs) == pytest.approx((0.5, 0.5, 0.5))
    ratio, low, high = of_medians(ours, theirs, paired=False)
    assert ratio == pytest.approx(0.5)
    assert low < 0.5 < high


def small_grammar(folder: Path, template: str) -> Path:
    path = folder / "grammar.yaml"
    path.write_text(
        "language: en\n"
        "skip_words: [please]\n"
        f'intents: {{Start: {{data: [{{sentences: ["{template}"]}}]}}}}\n'
        "expansion_rules: {at: (at|to)}\n"
        "lists:\n"
        "  what: {values: [tea, hard egg]}\n"
        "  minutes: {range: {from: 1, to: 60}}\n",
        encoding="utf-8",
    )
    return path


def said(rules: dict[str, str], chance: random.Random) -> str:
    """Say something that a JSGF allows, choosing before looking into the rules that were chosen."""
    text = rules["command"]
    while True:
        if group := re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", text):
            choices = (group[1] if group[1] is not None else f"{group[2]}|").split("|")
            text = text[: group.start()] + f" {chance.choice(choices)} " + text[group.end() :]
        elif name := re.search(r"<(\w+)>", text):
            text = text[: name.start()] + f"({rules[name[1]]})" + text[name.end() :]
        else:
            return " ".join(text.split())
