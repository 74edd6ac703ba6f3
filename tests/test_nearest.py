"""The nearest sentences are those that cost least, by a reference that tries all; and numbers are sacred.

The reference shares the tables of letters and words with the search, and nothing else: it aligns the words of
a text with those of every sentence of a small grammar, and their letters one by one.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice import small_words
from edgevoice.errors import EngineClosedError, UsageError
from edgevoice.nearest import Near, nearest, words
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgevoice.native import Grammar
    from tests.conftest import MakeGrammar

MOST = 4.0
WORK = 10_000_000
VOCABULARY = (
    "desk",
    "deck",
    "tale",
    "table",
    "pad",
    "bad",
    "lamp",
    "phone",
    "the",
    "to",
    "on",
    "off",
    "tablelamp",
)
NUMBERS = (("two", "2"), ("six", "6"), ("sixty", "60"))
"""In both forms the grammar takes them in."""

Slot = tuple[tuple[str, ...], bool]
"""Words of which one is said, and whether none may be, too."""


# ---- the reference ----


def is_number(word: str) -> bool:
    known = small_words.kept("en")
    return any(c.isdigit() for c in word) or any(n == word or (len(n) >= 4 and n in word) for n in known)


def alone(word: str, i: int) -> float:
    """What a letter costs that the other word has not."""
    begins = 2 if i == 0 else 1
    if word[i] == "'" or (i > 0 and word[i] == word[i - 1]):
        return 0.25 * begins
    unheard = i > 0 and (word[i] in small_words.SILENT or alike(word[i], word[i - 1]))
    return 0.5 if unheard else 1.0 * begins


def alike(one: str, other: str) -> bool:
    return any(one in group and other in group for group in small_words.ALIKE)


@cache
def letters(said: str, meant: str) -> float:  # noqa: C901 - one way after the other
    """What it costs to write one word for the other."""

    @cache
    def rest(i: int, j: int) -> float:
        begins = 2 if i == 0 or j == 0 else 1
        ways = [math.inf]
        if i == len(said) and j == len(meant):
            return 0.0
        if i < len(said):
            ways.append(alone(said, i) + rest(i + 1, j))
        if j < len(meant):
            ways.append(alone(meant, j) + rest(i, j + 1))
        if i < len(said) and j < len(meant):
            a, b = said[i], meant[j]
            ways.append((0.0 if a == b else (0.5 if alike(a, b) else 1.0) * begins) + rest(i + 1, j + 1))
            if a != b and said[i : i + 2] == meant[j : j + 2][::-1] and len(said[i : i + 2]) == 2:
                ways.append(0.5 * begins + rest(i + 2, j + 2))
        left = said[i:] + meant[j:]
        if len(left) == 1 and left in small_words.ENDINGS and max(len(said), len(meant)) > 1:
            ways.append(0.5)
        for one, other in small_words.SPELLINGS:
            for x, y in ((one, other), (other, one)):
                if said.startswith(x, i) and meant.startswith(y, j):
                    ways.append(0.5 * begins + rest(i + len(x), j + len(y)))
        return min(ways)

    return rest(0, 0)


def most(length: int) -> float:
    return 0.0 if length < 3 else min(1.25, length / 4)


def near_letters(said: str, meant: str) -> float:
    cost = letters(said, meant)
    return cost if cost <= most(min(len(said), len(meant))) else math.inf


def reference(text: list[str], sentence: list[str], known: set[str]) -> float:  # noqa: C901 - small parts
    """What it costs to take a text for a sentence."""

    def one_word(said: str, meant: str) -> float:
        if said == meant:
            return 0.0
        if is_number(said) or is_number(meant):
            return math.inf
        return min(3.0, math.inf if said in known else near_letters(said, meant))

    def joined(one: str, other: str, meant: str) -> float:
        if is_number(one) or is_number(other) or is_number(meant):
            return math.inf
        if one in known and other in known:
            return 0.25 if one + other == meant else math.inf
        return 0.25 + near_letters(one + other, meant)

    def parted(said: str, one: str, other: str) -> float:
        right = said == one + other and said not in known and not any(map(is_number, (said, one, other)))
        return 0.25 if right else math.inf

    def small(word: str, which: Callable[[str], list[str]]) -> float:
        return math.inf if is_number(word) else 0.5 if word in which("en") else 3.0

    @cache
    def rest(i: int, j: int) -> float:
        if i == len(text) and j == len(sentence):
            return 0.0
        ways = [math.inf]
        if i < len(text):
            ways.append(small(text[i], small_words.spare) + rest(i + 1, j))
        if j < len(sentence):
            ways.append(small(sentence[j], small_words.missing) + rest(i, j + 1))
        if i < len(text) and j < len(sentence):
            ways.append(one_word(text[i], sentence[j]) + rest(i + 1, j + 1))
            if i + 1 < len(text):
                ways.append(joined(text[i], text[i + 1], sentence[j]) + rest(i + 2, j + 1))
            if j + 1 < len(sentence):
                ways.append(parted(text[i], sentence[j], sentence[j + 1]) + rest(i + 1, j + 2))
        return min(ways)

    return rest(0, 0)


# ---- small grammars and what may be said to them ----


@st.composite
def templates(draw: st.DrawFn) -> list[list[Slot]]:
    """One or two sentences, each of one to three places for words."""
    word = st.sampled_from([(each,) for each in VOCABULARY] + list(NUMBERS))
    place = st.tuples(
        st.lists(word, min_size=1, max_size=2, unique=True).map(lambda each: sum(each, ())), st.booleans()
    )
    made = draw(st.lists(st.lists(place, min_size=1, max_size=3), min_size=1, max_size=2))
    return [[(made[0][0], False), *made[1:]] for made in made]


def sentences(each: list[list[Slot]]) -> set[str]:
    said = (
        " ".join(filter(None, choice))
        for template in each
        for choice in itertools.product(
            *(alternatives + ("",) * optional for alternatives, optional in template)
        )
    )
    return set(said)


def written(each: list[list[Slot]]) -> str:
    """The grammar file."""
    lines = [
        " ".join(
            f"[{'|'.join(words)}]" if optional else f"({'|'.join(words)})" for words, optional in template
        )
        for template in each
    ]
    return "language: en\nintents:\n  Say:\n    data:\n      - sentences:\n" + "".join(
        f'          - "{line}"\n' for line in lines
    )


@st.composite
def texts(draw: st.DrawFn, near: set[str]) -> str:
    """A sentence with mistakes, or words at random."""
    text = draw(
        st.one_of(
            st.sampled_from(sorted(near)), st.lists(st.sampled_from(VOCABULARY), max_size=4).map(" ".join)
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        i = draw(st.integers(0, len(text)))
        letter = draw(st.sampled_from(" aebdptlnmskcfh26'"))
        text = draw(
            st.sampled_from(
                [text[:i] + letter + text[i:], text[:i] + text[i + 1 :], text[:i] + letter + text[i + 1 :]]
            )
        )
    return " ".join(text.split())


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_nearest_are_those_of_the_reference(make_grammar: MakeGrammar, data: st.DataObject) -> None:
    """Costs and sentences, the five best; what is cheapest is never overlooked."""
    made = data.draw(templates())
    every = sentences(made)
    known = {word for sentence in every for word in sentence.split()}
    with make_grammar(written(made)) as grammar:
        for _ in range(3):
            text = data.draw(texts(every))
            found = grammar.nearest(text, MOST, 5, WORK)
            costs = {sentence: reference(text.split(), sentence.split(), known) for sentence in every}
            wanted = sorted(cost for cost in costs.values() if cost <= MOST)[:5] if text else []
            assert [cost for _, cost in found.sentences] == pytest.approx(wanted), (text, found, costs)
            for sentence, cost in found.sentences:
                assert cost == pytest.approx(costs[sentence]), (text, sentence)


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_numbers_are_never_changed(home_grammar: Grammar, data: st.DataObject) -> None:
    """Whatever else is repaired, the digits and number words of a text are those of the sentence."""
    said = data.draw(
        st.sampled_from(
            [
                "set the volume to {}",
                "dim the kitchen lights to {} percent",
                "set a timer for {} minutes",
                "heat the office to {} degrees",
            ]
        )
    )
    number = data.draw(
        st.one_of(
            st.integers(0, 130).map(str),
            st.sampled_from(["fifteen", "fifty", "one hundred", "forty five", "20.5"]),
        )
    )
    text = data.draw(texts({said.format(number)}))
    for near in nearest(home_grammar, text):
        assert _numbers(near.text) == _numbers(text), near


def _numbers(text: str) -> list[str]:
    return [word for word in text.split() if is_number(word)]


# ---- examples ----

HOME = """
language: en
intents:
  On: {data: [{sentences: ["turn on [the|my] {light:name}"]}]}
  Off: {data: [{sentences: ["turn off [the|my] {light:name}"]}]}
  Dim: {data: [{sentences: ["dim [the] {light:name} to {level}[%| percent]"]}]}
  Add: {data: [{sentences: ["add {item} to my shopping list"]}]}
lists:
  light: {values: [lamp, living room, café sign, desk light, Äußeres Licht]}
  level: {range: {from: 0, to: 100}}
  item: {wildcard: true}
"""


@pytest.fixture(scope="module")
def home(make_grammar: MakeGrammar) -> Iterator[Grammar]:
    with make_grammar(HOME) as opened:
        yield opened


def best(grammar: Grammar, text: str) -> tuple[str, float] | None:
    found = nearest(grammar, text, 1)
    return (found[0].text, found[0].cost) if found else None


@pytest.mark.parametrize(
    ("text", "sentence", "cost"),
    [
        ("Turn on the lamp.", "Turn on the lamp", 0),
        ("turn on teh lamp", "turn on the lamp", 0.5),  # two letters changed places
        ("turn on the lamb", "turn on the lamp", 0.5),  # b and p sound alike
        ("turn on the lammp", "turn on the lamp", 0.25),
        ("turn on the livingroom", "turn on the living room", 0.25),
        ("turn on the desklight!", "turn on the desk light", 0.25),
        ("turn on a lamp", "turn on lamp", 0.5),  # an article too many
        ("turn on cafe sign", "turn on café sign", 0.5),
        ("turn on äusseres licht", "turn on äußeres licht", 0.5),
        ("Dim ze lamp to 15%", "Dim lamp to 15%", 3),
        ("addd Soy milk to my shopping list", "add Soy milk to my shopping list", 0.27),  # 0.02 for free text
        (
            "ad Soy milk to my shopping list",
            "add Soy milk to my shopping list",
            3.02,
        ),  # short words are right
        ("turn on the washing machine", None, None),  # two wrong words are one too many for one to be missing
    ],
)
def test_costs(home: Grammar, text: str, sentence: str | None, cost: float | None) -> None:
    """A sentence and its cost, in letters."""
    found = best(home, text)
    if sentence is None:
        assert found is None or found[1] >= 3
    else:
        assert found is not None
        assert found[0] == sentence
        assert found[1] == pytest.approx(cost)


def test_known_words_are_not_taken_for_others(home: Grammar) -> None:
    """However alike they are: what is on must not go off."""
    assert nearest(home, "turn of the lamp")[0].cost >= 3
    assert best(home, "turn off the lamp") == ("turn off the lamp", 0)
    for near in nearest(home, "turn off the lamp", 3):
        assert near.interpretation.intent == "Off" or near.cost >= 3


def test_one_for_each_meaning(home: Grammar) -> None:
    """Nearest first; "the" or not is the same."""
    found = nearest(home, "turn on the", 5)
    assert found[0].text in ("turn on the lamp", "turn on lamp")
    assert all(isinstance(near, Near) for near in found)
    assert [near.cost for near in found] == [3.0, *sorted(near.cost for near in found[1:])]
    meanings = [(near.interpretation.intent, str(near.interpretation.slots)) for near in found]
    assert len(found) == len(set(meanings)) == 5


def test_nothing_near_is_nothing(home: Grammar) -> None:
    """Silence, talk, numbers the grammar has not, texts that are too long."""
    for text in (
        "",
        " ... ",
        "\x01",
        "dim the lamp to 150%",
        "dim the lamp to one hundred and fifty",
        "word " * 101,
    ):
        assert nearest(home, text) == [], text
    assert nearest(home, "I was thinking that perhaps we should go", max_cost=3.0) == []


def test_bounds_of_work(home: Grammar) -> None:
    """The search says how far it came, and what it had found till then is right."""
    whole = home.nearest("tirn on ze lampp", 6.0, 10, WORK)
    assert whole.searched > 6.0 or len(whole.sentences) == 10
    for work in (0, 1, 10, 100, 1000):
        part = home.nearest("tirn on ze lampp", 6.0, 10, work)
        sure = [each for each in whole.sentences if each[1] < part.searched]
        assert [cost for _, cost in part.sentences][: len(sure)] == [cost for _, cost in sure]
        assert part.searched <= whole.searched


def test_closed_and_wrong_use(make_grammar: MakeGrammar) -> None:
    """Typed errors, as everywhere."""
    grammar = make_grammar(HOME)
    with pytest.raises(UsageError, match="n_best"):
        grammar.nearest("turn on", 1.0, 0, WORK)
    grammar.close()
    with pytest.raises(EngineClosedError):
        grammar.nearest("turn on", 1.0, 1, WORK)


def test_grammars_of_their_own_are_searched_in_parallel(make_grammar: MakeGrammar) -> None:
    """Searches share nothing."""
    found: list[tuple[str, float] | None] = []

    def search() -> None:
        with make_grammar(HOME) as grammar:
            found.extend(best(grammar, "turn on the lamb") for _ in range(50))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [("turn on the lamp", 0.5)] * 100


def test_words_of_a_text() -> None:
    """Without the punctuation around them, or what cannot be printed."""
    assert words(' "Turn  on", (the)\x00 lamp… ') == "Turn on the lamp"
    assert re.fullmatch(r"\S+( \S+)*", words("30 % of 1,000 at -5°!"))
