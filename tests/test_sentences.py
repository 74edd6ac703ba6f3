"""Sentences are counted exactly, each once, and drawn all equally often; hassil's sampler is the oracle."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil import Intents, recognize_all
from hassil.sample import sample_intents
from hypothesis import given, note, settings

from edgevoice import grammar_file, match
from edgevoice.errors import GrammarError, UsageError
from edgevoice.grammar import PLACEHOLDER, compile_grammar, compile_traced, plain_text
from edgevoice.native import Grammar
from edgevoice.sentences import Derivations, Overlap, Sentences, overlaps
from tests.examples import examples
from tests.test_match import ROOT, grammars, seeded

if TYPE_CHECKING:
    from pathlib import Path

    from edgevoice.grammar_file import GrammarFile

EFFORT = 10_000_000
MAX_EXPANDED = 1_000  # ways of a random grammar that hassil expands one by one

HEAD = "language: en\nintents:\n  A:\n    data:\n      - sentences:\n"


def load(folder: Path, text: str) -> GrammarFile:
    path = folder / "grammar.yaml"
    path.write_text(text, encoding="utf-8")
    return grammar_file.load(path)


def sentences_of(file: GrammarFile) -> Sentences:
    plain = compile_traced(file, plain=True, free=False).compiled
    with Grammar(plain) as grammar:
        graph = grammar.sentences(EFFORT)
    assert graph.complete
    return Sentences(graph, [block.intent for block in plain.blocks])


def everything(sentences: Sentences, intent: str | None = None) -> list[str]:
    return [sentences.text(number, intent) for number in range(sentences.count(intent))]


def expanded(data: dict[str, Any]) -> dict[str, set[str]]:
    """What hassil's sampler says, by intent: numbers in digits, words without what is between them."""
    data = copy.deepcopy(data)
    for slot_list in data["lists"].values():
        if "range" in slot_list:
            slot_list["range"]["words"] = False
    found: dict[str, set[str]] = {}
    for intent, text in sample_intents(Intents.from_dict(data), language="en"):
        if plain_text(text):
            found.setdefault(intent, set()).add(plain_text(text))
    return found


@settings(max_examples=examples(80), deadline=None, derandomize=True)
@given(data=grammars)
def test_sentences_are_those_of_hassils_sampler(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    """For whatever grammar: those it expands, none twice, also by intent; both understand them."""
    note(yaml.safe_dump(data))
    file = load(tmp_path_factory.mktemp("sentences"), yaml.safe_dump(data))
    sentences, ways = sentences_of(file), Derivations(file)
    intents = Intents.from_dict({**data, "settings": {"filter_with_regex": False}})
    with Grammar(compile_grammar(file)) as grammar:
        for intent in file.intents:
            for text in sentences.sample(3, seeded(1), intent):
                assert intent in {meaning.intent for meaning in match.interpret(grammar, text)}, text
                assert intent in {result.intent.name for result in recognize_all(text, intents)}, text
    if ways.count() > MAX_EXPANDED:
        assert sentences.count() <= ways.count()
        return
    wanted = expanded(data)
    found = everything(sentences)
    assert len(set(found)) == len(found) == sentences.count()
    assert set(found) == set().union(*wanted.values())
    for intent in file.intents:
        assert set(everything(sentences, intent)) == wanted.get(intent, set())
        assert sentences.count(intent) == len(wanted.get(intent, set()))
    assert {ways.text(number) for number in range(ways.count())} - {""} == set(found)


@pytest.mark.parametrize("name", ["home", "coffee"])
def test_sampled_sentences_of_shipped_grammars_are_understood(name: str) -> None:
    """Also by hassil."""
    path = ROOT / "grammars" / f"{name}.yaml"
    file = grammar_file.load(path)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    intents = Intents.from_dict({**data, "settings": {"filter_with_regex": False}})
    sentences = sentences_of(file)
    with Grammar(compile_grammar(file)) as grammar:
        for intent in file.intents:
            for text in sentences.sample(10, seeded(2), intent):
                said = text.replace(PLACEHOLDER, "something")
                assert intent in {meaning.intent for meaning in match.interpret(grammar, said)}, said
                assert intent in {result.intent.name for result in recognize_all(said, intents)}, said


UNEVEN = (
    HEAD
    + """          - "stop"
          - "(stop|halt) [now]"
          - "go [to] [the] {place}"
          - "go {place} [now] [now]"
          - "(a;b;c)"
lists:
  place: {values: [hall, "bed[room]", hall]}
"""
)


class TestSample:
    """Drawing sentences."""

    def test_all_are_equally_likely(self, tmp_path: Path) -> None:
        """However uneven the branches and however often one is described: chi-square of 20,000 draws."""
        sentences = sentences_of(load(tmp_path, UNEVEN))
        count = sentences.count()
        assert count == 4 + 3 * 4 + 3 * 2 + 6  # stop, halt; go ...; go ... now, now now; the orders
        chance, draws = seeded(3), 20_000
        seen = Counter(sentences.sample(1, chance)[0] for _ in range(draws))
        assert set(seen) == set(everything(sentences))
        fair = draws / count
        chi_square = sum((number - fair) ** 2 / fair for number in seen.values())
        # 27 degrees of freedom: the mean is 27, and 1 in 1000 fair draws is above 55.
        assert chi_square < 55

    def test_ways_are_not(self, tmp_path: Path) -> None:
        """A tenth of the draws, by ways through the templates, would fail that test."""
        ways = Derivations(load(tmp_path, UNEVEN))
        chance, draws = seeded(3), 2_000
        seen = Counter(ways.sample(1, chance)[0] for _ in range(draws))
        fair = draws / len(seen)
        assert sum((number - fair) ** 2 / fair for number in seen.values()) > 55

    def test_none_comes_twice(self, tmp_path: Path) -> None:
        """As long as there are others."""
        sentences = sentences_of(load(tmp_path, UNEVEN))
        for n in (1, 5, 20, sentences.count(), 1000):
            drawn = sentences.sample(n, seeded(4))
            assert len(drawn) == len(set(drawn)) == min(n, sentences.count())

    def test_of_one_intent(self, tmp_path: Path) -> None:
        """Only its sentences, those of other intents among them if they are the same."""
        text = HEAD + '          - "[really] stop"\n  B:\n    data:\n      - sentences: ["stop [now]"]\n'
        sentences = sentences_of(load(tmp_path, text))
        assert everything(sentences, "A") == ["really stop", "stop"]
        assert everything(sentences, "B") == ["stop", "stop now"]
        assert everything(sentences) == ["really stop", "stop", "stop now"]

    def test_number_out_of_range(self, tmp_path: Path) -> None:
        """Is told."""
        file = load(tmp_path, UNEVEN)
        for few in (sentences_of(file), Derivations(file)):
            with pytest.raises(UsageError, match="only"):
                few.text(few.count())


class TestCount:
    """How many there are."""

    @pytest.mark.parametrize(
        ("sentences", "wanted"),
        [
            ('"go"', 1),
            ('"[go] [on]"', 3),  # silence is none
            ('"[please]"', 1),
            ('"go {n}"', 101),
            ('"go {n}|go {n} percent|go {n}%"', 303),
            ('"light[s] on"', 2),
            ('"say {what}"', 1),
            ('"say {what} to {other}"', 1),
            ('"(say {what}|say {other})"', 1),
            ('"(a;b;c)"', 6),
            ('"..."', 0),
        ],
    )
    def test_of_a_template(self, tmp_path: Path, sentences: str, wanted: int) -> None:
        """One spelling for each word and number; free text is one word."""
        lists = (
            "lists:\n  n: {range: {from: 0, to: 100}}\n  what: {wildcard: true}\n  other: {wildcard: true}\n"
        )
        assert sentences_of(load(tmp_path, f"{HEAD}          - {sentences}\n{lists}")).count() == wanted

    def test_astronomical(self, tmp_path: Path) -> None:
        """2^200 - 1 sentences are counted at once, and can be drawn."""
        words = [
            "".join(letters) for letters in itertools.islice(itertools.product("abcdefgh", repeat=3), 200)
        ]
        template = " ".join(f"[{word}]" for word in words)
        sentences = sentences_of(load(tmp_path, f'{HEAD}          - "{template}"\n'))
        assert sentences.count() == 2**200 - 1
        chosen = sentences.sample(50, seeded(5))
        assert len(set(chosen)) == 50
        assert all(set(text.split()) <= set(words) for text in chosen)
        assert 80 < sum(len(text.split()) for text in chosen) / 50 < 120

    def test_skip_words_are_not_counted(self, tmp_path: Path) -> None:
        """They may be said without end."""
        text = 'language: en\nskip_words: [please]\nintents: {A: {data: [{sentences: ["go"]}]}}\n'
        assert sentences_of(load(tmp_path, text)).count() == 1

    def test_spellings_count_once(self, tmp_path: Path) -> None:
        """As written in the file."""
        sentences = sentences_of(load(tmp_path, f'{HEAD}          - "what\'s on channel five"\n'))
        assert everything(sentences) == ["what's on channel five"]

    def test_free_text_has_no_end(self, tmp_path: Path) -> None:
        """Unless it is a placeholder, or left out."""
        file = load(
            tmp_path,
            f'{HEAD}          - "say [now] {{a}} now"\n          - "go"\nlists: {{a: {{wildcard: true}}}}\n',
        )
        traced = compile_traced(file)
        assert traced.has_free_text == (True, False)
        with Grammar(traced.compiled) as grammar:
            with pytest.raises(GrammarError, match="circles"):
                grammar.sentences(EFFORT, [False, False])
            assert grammar.sentences(EFFORT, traced.has_free_text).accepts == [1]

    def test_little_effort_is_no_count(self, tmp_path: Path) -> None:
        """What is missing is said."""
        with Grammar(compile_traced(load(tmp_path, UNEVEN), plain=True).compiled) as grammar:
            assert not grammar.sentences(5).complete


class TestOverlaps:
    """Sentences of several templates."""

    def found(self, tmp_path: Path, text: str, most: int = 3) -> list[Overlap]:
        """Of a grammar."""
        with Grammar(compile_traced(load(tmp_path, text), plain=True, free=False).compiled) as grammar:
            return list(overlaps(grammar.sentences(EFFORT), most))

    def test_shortest_examples_first(self, tmp_path: Path) -> None:
        """Each set of templates once."""
        templates = ("[please] go (home|to bed)", "go [to] (bed|home)", "[please] go home")
        text = HEAD + "".join(f'          - "{template}"\n' for template in templates)
        assert self.found(tmp_path, text) == [
            Overlap((0, 1, 2), ("go home",)),
            Overlap((0, 1), ("go to bed",)),
            Overlap((0, 2), ("please go home",)),
        ]

    def test_as_many_as_wanted(self, tmp_path: Path) -> None:
        """Not more examples."""
        text = (
            HEAD
            + '          - "go {n}"\n          - "go {n} [now]"\nlists: {n: {range: {from: 0, to: 50}}}\n'
        )
        assert self.found(tmp_path, text) == [Overlap((0, 1), ("go 0", "go 1", "go 2"))]

    def test_none(self, tmp_path: Path) -> None:
        """Also with words in common."""
        assert self.found(tmp_path, HEAD + '          - "go"\n          - "go on"\n') == []
