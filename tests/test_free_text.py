"""Free-text slots (`wildcard: true`): which words they take, judged by hassil, and what they refuse."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil import recognize_all, recognize_best
from hypothesis import given, note, settings
from hypothesis import strategies as st

from edgevoice import match
from edgevoice.errors import GrammarError
from tests.examples import examples
from tests.test_match import FREE_WORDS, Oracle, seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.native import Grammar
    from tests.conftest import MakeGrammar


def grammar_of(sentences: dict[str, list[str]], skip_words: tuple[str, ...] = ()) -> dict[str, Any]:
    """A grammar with these sentences for each intent; the lists a, b, c are free text."""
    return {
        "language": "en",
        "skip_words": list(skip_words),
        "intents": {intent: {"data": [{"sentences": texts}]} for intent, texts in sentences.items()},
        "lists": {
            **{name: {"wildcard": True} for name in "abc"},
            "n": {"range": {"from": 0, "to": 100}},
            "lamp": {"values": ["desk lamp", {"in": "fan", "out": "switch.fan"}]},
            "wrapped": {"values": [{"in": "the {b} thing", "out": "thing"}]},
        },
    }


def found(grammar: Grammar, text: str) -> list[tuple[str, dict[str, object]]]:
    return [(meaning.intent, meaning.slots) for meaning in match.interpret(grammar, text)]


SENTENCES = {
    "Shop": ["add {a} [to [the|my] [shopping] list]", "(put|write) {a} on [the] list"],
    "Turn": ["turn on {a}", "turn on [the] {lamp}", "turn {lamp} to {a}"],
    "Play": ["play {a}", "play {a} by {b}", "play {a} from {b} to {c}"],
    "Tell": ["{a} is {b}", "remember [that] {a}", "look at {wrapped} now"],
    "Count": ["put {n} {a} in [the] box", "{a} costs {n}", "count {a} {n} times"],
}
TEXTS = [
    "add milk",
    "Add Milk to my shopping list.",
    "add to the list",
    "add to to the list",
    "add milk to the lists",
    "add milk to list to my list",
    "add milk, bread and ice-cream to the list!",
    "add Tom\u2019s 3.5 U.S. beers to the list",
    "add -5 to list",
    "add 'cause to list",
    "add Äpfel, 你好 🎉",
    "add milk...",
    "add   milk\tand  eggs  ",
    "add",
    "add ?!",
    "add ¿",
    "write on the list",
    "write on on the list",
    "turn on the fan",
    "turn on Fan",
    "turn on the desk lamp",
    "turn on the TV",
    "turn fan to low",
    "turn the fan to low",
    "play x",
    "play x by y",
    "play x from y to z to w",
    "the sky is blue",
    "x is y is z",
    "is is is",
    "is is",
    "remember that milk",
    "remember that",
    "look at the red thing now",
    "look at the red thing thing now",
    "put five eggs in the box",
    "put 55 eggs in box",
    "bread costs 5",
    "bread costs nothing",
    "bread. costs, five",
]


@pytest.fixture(scope="module")
def both(make_grammar: MakeGrammar) -> Iterator[tuple[Grammar, Oracle]]:
    """The grammar, and hassil's view of it."""
    data = grammar_of(SENTENCES)
    with make_grammar(yaml.safe_dump(data, sort_keys=False)) as grammar:
        yield grammar, Oracle(data)


class TestMeaning:
    """Against recognize_best."""

    @pytest.mark.parametrize("text", TEXTS)
    def test_is_that_of_hassil(self, both: tuple[Grammar, Oracle], text: str) -> None:
        """The same intent and slots, upper and lower case of the words kept."""
        grammar, oracle = both
        best = recognize_best(text, oracle.intents)
        wanted = [(best.intent.name, {k: v.value for k, v in best.entities.items()})] if best else []
        assert found(grammar, text) == wanted

    @pytest.mark.parametrize(
        ("text", "raw", "value"),
        [
            ("Add Milk, to my list.", "Milk", "Milk"),
            ("add milk, bread to my list", "milk, bread", "milk bread"),
            ("add ice-cream.", "ice-cream", "ice-cream"),
            ("add Tom\u2019s 3.5% beer!", "Tom\u2019s 3.5% beer", "Tom's 3.5% beer"),
            ("add things from the U.S.", "things from the U.S.", "things from the U.S."),
            ("add things from the U.S. to the list", "things from the U.S.", "things from the U.S."),
            ("add 3.5.", "3.5", "3.5"),
            ("add-milk", "milk", "milk"),
            ("add, milk", "milk", "milk"),
        ],
    )
    def test_keeps_the_words_as_written(
        self, both: tuple[Grammar, Oracle], text: str, raw: str, value: str
    ) -> None:
        """slots_raw has the punctuation between words, slots has not; neither has that of the sentence."""
        (meaning,) = match.interpret(both[0], text)
        assert (meaning.slots_raw, meaning.slots) == ({"a": raw}, {"a": value})

    def test_number_after_free_text_with_a_number(self, both: tuple[Grammar, Oracle]) -> None:
        """Hassil looks at the first number only and understands nothing here."""
        grammar, oracle = both
        text = "count 5 eggs 5 times"
        assert recognize_best(text, oracle.intents) is None
        assert found(grammar, text) == [("Count", {"a": "5 eggs", "n": 5})]

    def test_two_intents_with_the_same_free_text(self, make_grammar: MakeGrammar) -> None:
        """Nothing says which is meant, so both are returned and the decision refuses."""
        data = grammar_of({"One": ["buy {a}"], "Two": ["buy {b}"], "Three": ["buy [some] {c} now"]})
        with make_grammar(yaml.safe_dump(data)) as grammar:
            assert sorted(found(grammar, "buy tea")) == [("One", {"a": "tea"}), ("Two", {"b": "tea"})]
            assert found(grammar, "buy tea now") == [("Three", {"c": "tea"})]

    def test_skip_words_beside_free_text(self, make_grammar: MakeGrammar) -> None:
        """They are dropped, except at an edge of the sentence that is free text: there they may be of it."""
        data = grammar_of({"Shop": ["add {a} to list"], "Tell": ["broadcast {a}"]}, ("please", "could you"))
        oracle = Oracle(data)
        with make_grammar(yaml.safe_dump(data)) as grammar:
            for text in (
                "please add milk to list please",
                "add please to list",
                "could you please add some to list",
                "broadcast hello please",
                "please broadcast please hello please",
            ):
                assert found(grammar, text) == [oracle.best_as_written(text)], text


LITERALS = ["put", "the", "to", "list", "on", "add"]
FREE = ["{a}", "{b}", "{c}"]


@st.composite
def free_sentences(draw: st.DrawFn) -> str:
    """Free texts with literal words between them, an optional word at times, perhaps a list."""
    word = st.sampled_from([*LITERALS, "(to|on)", "go[ing]", "{lamp}"])
    between = st.lists(word, min_size=1, max_size=2).map(" ".join)
    parts: list[str] = []
    if draw(st.booleans()):
        parts += [draw(between), *draw(st.sampled_from([[], ["[the]"]]))]
    for i, name in enumerate(FREE[: draw(st.integers(1, 2))]):
        parts += [draw(between)] if i else []
        parts.append(name)
    tail = draw(st.sampled_from(["", "to list", "[to [the] list]", "[(on;list)]", "{lamp}", "[now]"]))
    return " ".join([*parts, tail]).strip()


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(sentences=st.lists(free_sentences(), min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_random_sentences_with_free_text(make_grammar: MakeGrammar, sentences: list[str], seed: int) -> None:
    """Accepted exactly when hassil accepts; ours is one of its meanings, and none has less free text."""
    data = grammar_of({f"I{i}": [text] for i, text in enumerate(sentences)})
    oracle, chance = Oracle(data), seeded(seed)
    note(yaml.safe_dump(data))
    with make_grammar(yaml.safe_dump(data)) as grammar:
        for _ in range(4):
            words = oracle.sentence(chance).split()
            texts = [" ".join(words)]
            words[chance.randrange(len(words))] = chance.choice([*LITERALS, *FREE_WORDS])
            texts.append(" ".join(words))
            for text in texts:
                note(text)
                ours = found(grammar, text)
                theirs = [
                    (
                        result.intent.name,
                        {name: entity.value for name, entity in result.entities.items()},
                        [entity.text for entity in result.entities_list if entity.is_wildcard],
                    )
                    for result in recognize_all(text, oracle.intents)
                ]
                assert bool(ours) == bool(theirs)
                if theirs:
                    least = min((len(free), letters(free)) for *_, free in theirs)
                    best = [
                        (intent, slots)
                        for intent, slots, free in theirs
                        if (len(free), letters(free)) == least
                    ]
                    assert all(meaning in best for meaning in ours)


def letters(texts: list[str]) -> int:
    return sum(not character.isspace() for text in texts for character in text)


@pytest.mark.parametrize(
    ("sentence", "problem"),
    [
        ("{a} {b}", "{a} can stand directly before free text {b}; put a word between them"),
        ("{a} [and] {b}", "{a} can stand directly before free text {b}"),
        ("say ({a};{b})", "can stand directly before free text"),
        ("<both> {a}", "{b} can stand directly before free text {a}"),
        ("{wrap} {a}", "{b} can stand directly before free text {a}"),
        ("buy {a}s", "{a} must be words of its own; put a space between it and what is after it"),
        ("buy un{a}", "{a} must be words of its own; put a space between it and what is before it"),
        ("buy {a}%", "{a} must be words of its own"),
        ("buy {a}[s]", "{a} must be words of its own"),
        ("buy {a}{n}", "{a} must be words of its own"),
        ("buy {a}{b}", "{a} must be words of its own"),
        ("buy ({a}|{n})s", "{a} must be words of its own"),
    ],
)
def test_free_text_without_an_end_is_refused(make_grammar: MakeGrammar, sentence: str, problem: str) -> None:
    """File, line and sentence are named."""
    text = (
        f"language: en\nintents:\n  A:\n    data:\n      - sentences:\n        - '{sentence}'\n"
        "lists: {a: {wildcard: true}, b: {wildcard: true}, n: {range: {from: 1, to: 2}}, "
        "wrap: {values: ['x {b}']}}\nexpansion_rules: {both: 'x {b} [y]'}\n"
    )
    with pytest.raises(GrammarError) as error:
        make_grammar(text)
    assert f".yaml:6: free text {problem.partition(' ')[0]}" in str(error.value) or problem in str(
        error.value
    )
    assert problem in str(error.value)
    assert f"(in sentence {sentence!r})" in str(error.value)


@pytest.mark.parametrize(
    "sentence", ["{a}", "{a}.", "{a}, then {b}", "[{a}] now", "say ({a};now)", "({a}|{b})", "{a} [x] y {b}"]
)
def test_free_text_with_an_end_is_accepted(make_grammar: MakeGrammar, sentence: str) -> None:
    """Punctuation and alternatives are no obstacle."""
    make_grammar(yaml.safe_dump(grammar_of({"A": [sentence]}))).close()


def test_long_text_is_read_in_milliseconds(make_grammar: MakeGrammar) -> None:
    """200 words against a grammar of many sentences with free text; longer ones in proportion."""
    data = grammar_of({**SENTENCES, "More": [f"verb{i} {{a}} to {{b}} on {{lamp}}" for i in range(100)]})
    with make_grammar(yaml.safe_dump(data)) as grammar:
        text = "verb7 " + "milk to the list on " * 40 + "fan"
        started = time.perf_counter()
        meanings = match.interpret(grammar, text)
        assert time.perf_counter() - started < 0.2  # 5 ms on an idle machine
        assert [meaning.intent for meaning in meanings] == ["More"]
        assert match.interpret(grammar, "verb7 " + "a" * 100_000) == []
        assert match.interpret(grammar, "add " + "to the list " * 10_000) != []


@pytest.mark.parametrize(
    "text", ["add \0", "add a\x07b", "add \x7f", "add \ud800".encode("utf-8", "replace").decode()]
)
def test_control_characters_are_no_words(make_grammar: MakeGrammar, text: str) -> None:
    """They are in no transcript, and have no place in a message."""
    with make_grammar(yaml.safe_dump(grammar_of({"A": ["add {a}"]}))) as grammar:
        assert not found(grammar, text.replace("?", "\x01"))
