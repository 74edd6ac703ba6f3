"""Text is understood as hassil, which defined the syntax, understands it; only its surface may differ more.

hassil is the oracle. Where the two differ on purpose:

we alone accept       numbers as digits or words in any text ("12 ounce", "channel five", "the 3rd"); "%" and
                      "°" for their words; "minus 5" for "-5", "5 and a half", "5 point five"; contractions
                      and second spellings ("what's", "colour"); a hyphen between words; nothing for an empty
                      alternative: (a|), which hassil takes in [a] only; free text after which a number
                      follows ("add 5 eggs 5 times")
hassil alone accepts  a word run on to the list value before it ("kitchenlights on"); leading zeros ("08")
several readings      hassil gives all, we give the first of each block of sentences, and of these those of
                      which the template itself says most, as hassil's best; with free text only those with
                      fewest and shortest free texts, where hassil counts literal text first, but not that
                      of list values; and only those that skip the fewest words
skip words            that stand in free text stay there; hassil leaves them out, too, if it has to leave out
                      one elsewhere
"""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil import Intents, recognize_all, recognize_best
from hassil.expression import Alternative, Expression, Group, Permutation, RuleReference, TextChunk
from hassil.intents import RangeSlotList, TextSlotList, WildcardSlotList
from hassil.sample import sample_intents
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from edgevoice import grammar_check, match
from edgevoice.numbers import number_words
from edgevoice.surface import spellings
from tests.conftest import open_grammar
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.native import Grammar
    from tests.conftest import MakeGrammar, Sample

ROOT = Path(__file__).parents[1]
SENTENCES = examples(200)  # of each ready-made grammar; in hassil one to six seconds
VARIANTS = examples(50)  # of sentences, likewise
SHIPPED = sorted(path.stem for path in (ROOT / "grammars").glob("*.yaml"))

FREE_WORDS = ["Milk", "ice-cream", "3.5", "Tom's", "U.S. flag", "to", "on", "the", "äpfel"]
"""What is said where anything may be said."""

Meaning = tuple[str, dict[str, object]]


class Oracle:
    """A grammar as hassil reads it, and a source of its sentences."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.language: str = data["language"]
        # Without its filter by regular expressions, which can take for ever and changes no answer.
        self.intents = Intents.from_dict({**data, "settings": {"filter_with_regex": False}})
        self.templates = [
            (intent.name, sentence.expression)
            for intent in self.intents.intents.values()
            for block in intent.data
            for sentence in block.sentences
        ]

    def meanings(self, text: str) -> list[Meaning]:
        """What the text means, in hassil's order, without repetition."""
        found: list[Meaning] = []
        for result in recognize_all(text, self.intents):
            meaning = (
                result.intent.name,
                {name: plain(slot.value) for name, slot in result.entities.items()},
            )
            if meaning not in found:
                found.append(meaning)
        return found

    def best(self, text: str) -> Meaning | None:
        """What hassil would choose."""
        best = self.best_as_written(text)
        return best and (best[0], {name: plain(value) for name, value in best[1].items()})

    def best_as_written(self, text: str) -> Meaning | None:
        """The same, with the case of free text."""
        result = recognize_best(text, self.intents)
        if result is None:
            return None
        return result.intent.name, {name: slot.value for name, slot in result.entities.items()}

    def sentence(self, chance: Random) -> str:
        """A sentence, by walking hassil's own tree of a template."""
        return " ".join(self._say(chance.choice(self.templates)[1], chance).split())

    def _say(self, expression: Expression, chance: Random) -> str:  # noqa: PLR0911 - one a kind
        if isinstance(expression, TextChunk):
            return str(expression.original_text)
        if isinstance(expression, Permutation):
            items = chance.sample(expression.items, len(expression.items))
            return "".join(self._say(item, chance) for item in items)
        if isinstance(expression, Alternative):
            return self._say(chance.choice(expression.items), chance)
        if isinstance(expression, Group):
            return "".join(self._say(item, chance) for item in expression.items)
        if isinstance(expression, RuleReference):
            return self._say(self.intents.expansion_rules[expression.rule_name].expression, chance)
        values = self.intents.slot_lists[expression.list_name]  # type: ignore[attr-defined]
        if isinstance(values, WildcardSlotList):
            return " ".join(chance.choices(FREE_WORDS, k=chance.randint(1, 3)))
        if isinstance(values, RangeSlotList):
            number = chance.choice(list(values.get_numbers()))
            return chance.choice([str(number), *number_words(self.language, number)])
        assert isinstance(values, TextSlotList)
        return self._say(chance.choice(values.values).text_in, chance)


def seeded(seed: int) -> Random:
    """The same choices in every run."""
    return Random(seed)  # noqa: S311 - no secret depends on it


def plain(value: object) -> object:
    """Without what carries no meaning: spaces around and the case of words."""
    return value.strip().lower() if isinstance(value, str) else value


def understood(grammar: Grammar, text: str) -> list[Meaning]:
    return [
        (found.intent, {name: plain(value) for name, value in found.slots.items()})
        for found in match.interpret(grammar, text)
    ]


def mutated(text: str, chance: Random, vocabulary: list[str]) -> str:
    """The text with one word gone, added, changed, said twice or moved."""
    words = text.split()
    i, j, word = chance.randrange(len(words)), chance.randrange(len(words)), chance.choice(vocabulary)
    match chance.randrange(5):
        case 0:
            del words[i]
        case 1:
            words.insert(i, word)
        case 2:
            words[i] = word
        case 3:
            words.insert(i, words[i])
        case _:
            words[i], words[j] = words[j], words[i]
    return " ".join(words)


def respelled(text: str, language: str) -> Iterator[str]:
    """The text with words as the grammar may write them: "a" is accepted for the Portuguese "à"."""
    ways = spellings(language)
    for words in itertools.product(*([word, *ways.get((word,), ())] for word in text.split())):
        yield " ".join(words)


def assert_same(grammar: Grammar, oracle: Oracle, text: str) -> None:
    """We understand a text exactly as hassil does, where hassil is told how else it may be written."""
    ours, theirs = understood(grammar, text), oracle.meanings(text)
    if ours and not theirs:
        text = next((other for other in respelled(text, oracle.language) if oracle.meanings(other)), text)
        theirs = oracle.meanings(text)
    assert bool(ours) == bool(theirs), text
    assert all(meaning in theirs for meaning in ours), text
    if len(theirs) == 1:
        assert ours == [oracle.best(text)], text


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Iterator[tuple[Grammar, Oracle, dict[str, Any]]]:
    """A ready-made grammar, its oracle and its text."""
    path = ROOT / "grammars" / f"{request.param}.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    with open_grammar(path) as grammar:
        yield grammar, Oracle(data), data


class TestReadyMadeGrammars:
    """The homes of all languages, and coffee.yaml."""

    def test_random_sentences(self, shipped: tuple[Grammar, Oracle, dict[str, Any]]) -> None:
        """A sentence drawn from the grammar has the intent and slots that hassil finds."""
        grammar, oracle, _ = shipped
        chance = seeded(1)
        for _ in range(SENTENCES):
            text = oracle.sentence(chance)
            assert understood(grammar, text), text
            assert_same(grammar, oracle, text)

    def test_sentences_of_the_sampler(self, shipped: tuple[Grammar, Oracle, dict[str, Any]]) -> None:
        """The first sentences of each intent that hassil's own sampler gives are of that intent to us.

        Or of the one that hassil would choose.
        """
        grammar, oracle, _ = shipped
        for intent, text in sample_intents(
            oracle.intents, max_sentences_per_intent=10, language=oracle.language, expand_ranges=True
        ):
            best = oracle.best(text)
            assert {intent, best and best[0]} & {found for found, _ in understood(grammar, text)}, text

    def test_mutated_sentences(self, shipped: tuple[Grammar, Oracle, dict[str, Any]]) -> None:
        """A sentence with one word changed is accepted exactly when hassil accepts it."""
        grammar, oracle, _ = shipped
        chance = seeded(2)
        vocabulary = sorted({word for _ in range(200) for word in oracle.sentence(chance).split()})
        accepted = 0
        for _ in range(VARIANTS):
            text = mutated(oracle.sentence(chance), chance, vocabulary)
            if text.endswith("U.S."):  # hassil takes its last point for the end of the sentence
                continue
            assert_same(grammar, oracle, text)
            accepted += bool(understood(grammar, text))
        assert 0 < accepted < VARIANTS  # else this test would show nothing

    def test_own_examples(self, shipped: tuple[Grammar, Oracle, dict[str, Any]]) -> None:
        """Every `expected` sentence means what is written beside it alone; no `refused` one means a thing."""
        grammar, _, data = shipped
        assert grammar_check.failed_examples(grammar) == []
        assert all(len(understood(grammar, example["say"])) == 1 for example in data["expected"])

    def test_examples_of_the_file_are_those_read(
        self, shipped: tuple[Grammar, Oracle, dict[str, Any]]
    ) -> None:
        """The reader of grammar files sees the same examples."""
        grammar, _, data = shipped
        said = [example.say for example in grammar.compiled.file.examples]
        assert said == [example["say"] for example in data["expected"]] + data["refused"]

    def test_skip_words_between_any_two(self, shipped: tuple[Grammar, Oracle, dict[str, Any]]) -> None:
        """A skip word before, after or inside of a sentence changes as much as it does in hassil."""
        grammar, oracle, data = shipped
        chance, accepted = seeded(4), 0
        for _ in range(VARIANTS):
            words = oracle.sentence(chance).split()
            for _ in range(chance.randint(1, 2)):
                words.insert(chance.randint(0, len(words)), chance.choice(data["skip_words"]))
            text = " ".join(words)
            ours = understood(grammar, text)
            accepted += bool(ours)
            said = " ".join(str(value) for _, slots in ours for value in slots.values())
            if any(word.lower() in said for word in data["skip_words"]):
                assert {intent for intent, _ in ours} <= {intent for intent, _ in oracle.meanings(text)}, text
            else:
                assert_same(grammar, oracle, text)
        assert accepted > 0.9 * VARIANTS  # none where free text is at an edge and words before it are parted

    @pytest.mark.parametrize("ending", [".", "?", "!"])
    def test_shouted_and_punctuated(
        self, shipped: tuple[Grammar, Oracle, dict[str, Any]], ending: str
    ) -> None:
        """Neither upper case nor a final mark changes the meaning."""
        grammar, oracle, _ = shipped
        chance = seeded(3)
        for _ in range(100):
            text = oracle.sentence(chance)
            shouted = "".join(chance.choice((c.upper(), c.lower())) for c in text) + ending
            assert understood(grammar, shouted) == understood(grammar, text), shouted

    def test_nothing_crashes(self, shipped: tuple[Grammar, Oracle, dict[str, Any]]) -> None:
        """Any text at all gives a list."""
        grammar, _, _ = shipped
        for text in (
            "",
            " ",
            ".",
            "?!",
            ",",
            "-",
            "%",
            "\0",
            "turn\0on",
            "🎉",
            "a" * 100_000,
            "turn " * 20_000,
        ):
            assert match.interpret(grammar, text) == []


WORDS = ["turn", "on", "off", "the", "lamp", "fan", "blue", "set", "what", "is"]
"""None that has a second spelling by itself."""

words = st.sampled_from(WORDS)
literals = st.one_of(
    words, words.map("{}[s]".format), words.map("{}(s|ed)".format), words.map("[un]{}".format)
)


def sequences(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, min_size=1, max_size=3).map(" ".join)


def templates(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The template syntax, over leaves."""

    def grow(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        several = st.lists(sequences(items), min_size=2, max_size=3)
        return st.one_of(
            sequences(items).map("[{}]".format),
            several.map(lambda some: f"({'|'.join(some)})"),
            several.map(lambda some: f"[{'|'.join(some)}]"),
            several.map(lambda some: f"({';'.join(some)})"),
        )

    return sequences(st.recursive(leaves, grow, max_leaves=6))


# A value that may be said with no words at all is no value, so each begins with one.
value_texts = st.builds("{} {}".format, words, templates(words)) | words
outs = st.sampled_from(["out", "Other", 1, 2.5, True])
values = st.one_of(value_texts, st.fixed_dictionaries({"in": value_texts, "out": outs}))
ranges = st.builds(
    lambda start, length, step: {"range": {"from": start, "to": start + length, "step": step}},
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([1, 1, 5]),
)
text_lists = st.fixed_dictionaries({"values": st.lists(values, min_size=1, max_size=3)})
references = st.sampled_from(["{a}", "{b}", "{b:a}", "{n}", "{n:other}"])
blocks = st.fixed_dictionaries(
    {
        "sentences": st.lists(
            templates(st.one_of(literals, references, st.sampled_from(["<p>", "<q>"]))),
            min_size=1,
            max_size=2,
        )
    },
    optional={
        "slots": st.dictionaries(st.sampled_from(["a", "fixed"]), st.sampled_from(["f", 7]), max_size=2)
    },
)
intents = st.fixed_dictionaries({"data": st.lists(blocks, min_size=1, max_size=2)})
grammars = st.fixed_dictionaries(
    {
        "language": st.just("en"),
        "intents": st.dictionaries(st.sampled_from(["One", "Two"]), intents, min_size=1, max_size=2),
        "lists": st.fixed_dictionaries({"a": text_lists, "b": text_lists, "n": ranges}),
        "expansion_rules": st.fixed_dictionaries(
            {
                "p": templates(st.one_of(literals, references)),
                "q": templates(st.one_of(literals, st.just("<p>"))),
            }
        ),
    }
)


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(data=grammars, seed=st.integers(0, 2**16))
def test_any_grammar_accepts_its_sentences_as_hassil_does(
    make_grammar: MakeGrammar, data: dict[str, Any], seed: int
) -> None:
    """For whatever grammar: sentences drawn from it, also with one word changed, mean the same to both."""
    oracle, chance = Oracle(data), seeded(seed)
    note(yaml.safe_dump(data))
    with make_grammar(yaml.safe_dump(data)) as grammar:
        for _ in range(4):
            text = oracle.sentence(chance)
            assume(text)
            assert understood(grammar, text), text
            assert_same(grammar, oracle, text)
            other = mutated(text, chance, [*WORDS, "lamps", "fans", "turned", "unset", "5", "fifty"])
            assume(other)
            assert_same(grammar, oracle, other)


def test_every_sentence_of_a_small_grammar(make_grammar: MakeGrammar) -> None:
    """All sentences that hassil's sampler expands are accepted, and nothing in between is lost."""
    data = {
        "language": "en",
        "intents": {
            "A": {
                "data": [
                    {
                        "sentences": [
                            "turn[s|ed] [the] {lamp} (on|off)",
                            "(set {lamp};to {n} [percent])",
                            "<go> [now]",
                        ]
                    }
                ]
            }
        },
        "lists": {
            "lamp": {"values": ["big lamp", "fan[s]"]},
            "n": {"range": {"from": 8, "to": 22, "step": 7}},
        },
        "expansion_rules": {"go": "(go|walk) [{lamp:where}]"},
    }
    oracle = Oracle(data)
    texts = {text for _, text in sample_intents(oracle.intents, language="en")}
    assert len(texts) > 100
    with make_grammar(yaml.safe_dump(data)) as grammar:
        for text in texts:
            assert_same(grammar, oracle, text)


FORMS = """
language: en
skip_words: [please, could you]
intents:
  Order: {data: [{sentences: ["[a] {size} latte"]}]}
  Dim: {data: [{sentences: ["dim {light:name} to {level}[%| percent]", "set channel 5", "channel twelve"]}]}
  Heat: {data: [{sentences: ["heat to {degrees} degrees"]}]}
  Ask: {data: [{sentences: ["what is the (color|temperature)", "I would like tea", "o'clock", "okay"]}]}
lists:
  size: {values: [twelve ounce, "[very] large"]}
  light: {values: [TV, floor lamp]}
  level: {range: {from: 0, to: 100}}
  degrees: {range: {from: 15, to: 25, fractions: halves}}
"""


@pytest.fixture(scope="module")
def forms(make_grammar: MakeGrammar) -> Iterator[Grammar]:
    with make_grammar(FORMS) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "intent", "slots"),
    [
        ("twelve ounce latte", "Order", {"size": "twelve ounce"}),
        ("Twelve-ounce latte", "Order", {"size": "twelve ounce"}),
        ("12-ounce latte", "Order", {"size": "twelve ounce"}),
        ("A 12 ounce latte.", "Order", {"size": "twelve ounce"}),
        ("a very large latte", "Order", {"size": "very large"}),
        ("a Very Large latte", "Order", {"size": "very large"}),
        ("dim the TV", None, {}),
        ("Dim TV to 50%", "Dim", {"name": "TV", "level": 50}),
        ("dim tv to 50 %", "Dim", {"name": "TV", "level": 50}),
        ("dim tv to fifty percent", "Dim", {"name": "TV", "level": 50}),
        ("dim tv to fifty%", "Dim", {"name": "TV", "level": 50}),
        ("dim tv to 50 percent!", "Dim", {"name": "TV", "level": 50}),
        ("dim floor lamp to twenty-one", "Dim", {"name": "floor lamp", "level": 21}),
        ("dim floor lamp to twenty one", "Dim", {"name": "floor lamp", "level": 21}),
        ("dim floor-lamp to 21", "Dim", {"name": "floor lamp", "level": 21}),
        ("dim floor lamp to 101", None, {}),
        ("dim floor lamp to 5 0", None, {}),
        ("set channel five", "Dim", {}),
        ("set channel 5", "Dim", {}),
        ("Channel 12", "Dim", {}),
        ("heat to 20.5 degrees", "Heat", {"degrees": 20.5}),
        ("heat to 20,5 degrees", "Heat", {"degrees": 20.5}),
        ("heat to twenty point five degrees", "Heat", {"degrees": 20.5}),
        ("heat to 20°", "Heat", {"degrees": 20}),
        ("heat to twenty degrees", "Heat", {"degrees": 20}),
        ("What's the color?", "Ask", {}),
        ("what\u2019s the colour", "Ask", {}),
        ("What is the temperature?", "Ask", {}),
        ("I'd like tea", "Ask", {}),
        ("o'clock", "Ask", {}),
        ("OK.", "Ask", {}),
        ("okay, please", "Ask", {}),
        ("Please, could you dim tv to 5, please?", "Dim", {"name": "TV", "level": 5}),
        ("  what   is the\tcolor  ", "Ask", {}),
        ("what is, the color", "Ask", {}),
        ("please", None, {}),
        ("what is the color what is the color", None, {}),
        ("whats the color", None, {}),
    ],
)
def test_surface_forms(forms: Grammar, text: str, intent: str | None, slots: dict[str, object]) -> None:
    """The ways a transcript may write the same words have one meaning; other words have none."""
    found = [(meaning.intent, meaning.slots) for meaning in match.interpret(forms, text)]
    assert found == ([(intent, slots)] if intent else [])


def test_sentence_with_a_skip_word_of_its_own(make_grammar: MakeGrammar) -> None:
    """It goes before one in which the word is skipped, which hassil's best does, too."""
    data = {
        "language": "en",
        "skip_words": ["can you", "please"],
        "intents": {
            "Short": {"data": [{"sentences": ["hear me [now]"]}]},
            "Long": {"data": [{"sentences": ["can you hear me"]}]},
        },
    }
    oracle = Oracle(data)
    with make_grammar(yaml.safe_dump(data)) as grammar:
        for text in ("can you hear me", "please hear me please", "please hear please me"):
            assert understood(grammar, text) == [oracle.best(text)], text
        assert understood(grammar, "hear please can you me now") == [("Short", {})]
        assert understood(grammar, "can hear me") == understood(grammar, "please") == []


def test_spoken_words_of_a_slot_are_kept(forms: Grammar) -> None:
    """Beside the value stands what was said, as it was written."""
    (meaning,) = match.interpret(forms, "Dim Floor Lamp to Twenty-one percent.")
    assert meaning.slots_raw == {"name": "Floor Lamp", "level": "Twenty-one"}


@pytest.mark.parametrize("text", ["öffne die Tür", "Öffne die Tür", "ÖFFNE DIE TÜR"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_case_of_letters_beyond_ascii(make_grammar: MakeGrammar, text: str, form: str) -> None:
    """A sentence may begin with an umlaut in upper case, composed or not."""
    text = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    with make_grammar("language: de\nintents: {Open: {data: [{sentences: ['öffne die Tür']}]}}\n") as grammar:
        assert understood(grammar, text) == [("Open", {})]


@pytest.mark.parametrize(
    ("language", "template", "text"),
    [
        ("de", "stelle auf {n} Prozent", "Stelle auf 50%"),
        ("de", "stelle auf {n} Prozent", "stelle auf fünfzig Prozent."),
        ("de", "gehe in das Haus", "Gehe ins Haus"),
        ("fr", "règle à {n} pour cent", "Règle à cinquante pour cent"),
        ("fr", "règle à {n} pour cent", "règle à 50%"),
        ("en-US", "dim to {n} percent", "dim to 50%"),
        ("es", "pon {n} grados", "pon cincuenta grados"),
    ],
)
def test_other_languages(make_grammar: MakeGrammar, language: str, template: str, text: str) -> None:
    """Number words, signs and contractions are those of the grammar's language."""
    grammar = make_grammar(
        f"language: {language}\nintents: {{A: {{data: [{{sentences: ['{template}']}}]}}}}\n"
        "lists: {n: {range: {from: 0, to: 100}}}\n"
    )
    with grammar:
        (meaning,) = match.interpret(grammar, text)
    assert meaning.slots in ({"n": 50}, {})


def test_language_without_number_words_still_has_digits(make_grammar: MakeGrammar) -> None:
    """`words: false` makes a range usable in any language."""
    with make_grammar(
        "language: tlh\nintents: {A: {data: [{sentences: ['jegh {n}']}]}}\n"
        "lists: {n: {range: {from: 1, to: 9, words: false}}}\n"
    ) as grammar:
        assert understood(grammar, "jegh 5") == [("A", {"n": 5})]


def test_multiplier(make_grammar: MakeGrammar) -> None:
    """A multiplied range gives the product, for digits and words; whole products are whole numbers."""
    with make_grammar(
        "language: en\nintents: {A: {data: [{sentences: ['at {n}']}]}}\n"
        "lists: {n: {range: {from: 0, to: 10, multiplier: 2.5}}}\n"
    ) as grammar:
        texts = ("at 4", "at four", "at 3")
        assert [understood(grammar, text) for text in texts] == [[("A", {"n": n})] for n in (10, 10, 7.5)]
        (ten,) = match.interpret(grammar, "at 4")
        assert isinstance(ten.slots["n"], int)


def test_negative_numbers(make_grammar: MakeGrammar) -> None:
    """The minus sign is part of a number, not a hyphen that may be left out."""
    with make_grammar(
        "language: en\nintents: {A: {data: [{sentences: ['at {n}', 'below {m}']}]}}\n"
        "lists:\n  n: {range: {from: -10, to: 10}}\n  m: {range: {from: -10, to: -1}}\n"
    ) as grammar:
        texts = ("at 4", "at four", "at -4", "at minus four", "below -4", "below minus four")
        assert [understood(grammar, text) for text in texts] == [
            [("A", {"n": 4})], [("A", {"n": 4})], [("A", {"n": -4})], [("A", {"n": -4})],
            [("A", {"m": -4})], [("A", {"m": -4})],
        ]  # fmt: skip
        assert understood(grammar, "below 4") == []


def test_negative_numbers_as_word_and_digits(make_grammar: MakeGrammar) -> None:
    """A transcript may say the sign as a word and the number in digits; only where words are allowed."""
    with make_grammar(
        "language: en\nintents: {A: {data: [{sentences: ['at {n}', 'below {m}']}]}}\n"
        "lists:\n  n: {range: {from: -10, to: 10, fractions: tenths}}\n"
        "  m: {range: {from: -10, to: -1, words: false}}\n"
    ) as grammar:
        for text, number in (("at minus 5", -5), ("at minus 5.5", -5.5), ("at minus 5,5", -5.5)):
            assert understood(grammar, text) == [("A", {"n": number})]
        assert understood(grammar, "below -5") == [("A", {"m": -5})]
        assert understood(grammar, "below minus 5") == []


def test_negative_fractions(make_grammar: MakeGrammar) -> None:
    """Words of a negative fraction mean that number, and the words of a whole one only the whole one."""
    assert number_words("en", -5.9) == ("minus five point nine",)
    assert number_words("en", -0.5) == ("minus zero point five",)
    assert number_words("fr", -0.5)[0] == "moins zéro virgule cinq"
    assert number_words("zh", -0.5) == ()  # the sign is no word of its own
    with make_grammar(
        "language: en\nintents: {A: {data: [{sentences: ['at {n}']}]}}\n"
        "lists:\n  n: {range: {from: -10, to: 10, fractions: tenths}}\n"
    ) as grammar:
        assert understood(grammar, "at minus five") == [("A", {"n": -5})]
        assert understood(grammar, "at minus five point nine") == [("A", {"n": -5.9})]
        assert understood(grammar, "at minus") == []


def test_of_several_meanings(make_grammar: MakeGrammar) -> None:
    """What the template itself says goes before what a list says, then the order of the file."""
    data = {
        "language": "en",
        "skip_words": ["please"],
        "intents": {
            "List": {"data": [{"sentences": ["{colour}", "all fans {state}"]}]},
            "Literal": {"data": [{"sentences": ["red"]}]},
            "Rule": {"data": [{"sentences": ["<red>", "all fans off", "all {colour} fans off"]}]},
        },
        "lists": {"colour": {"values": ["red", "blue"]}, "state": {"values": ["off", "fans off please"]}},
        "expansion_rules": {"red": "red"},
    }
    oracle = Oracle(data)
    with make_grammar(yaml.safe_dump(data, sort_keys=False)) as grammar:
        assert [intent for intent, _ in understood(grammar, "red")] == ["Literal", "Rule"]
        assert [intent for intent, _ in understood(grammar, "all fans off")] == ["Rule"]
        for text in (
            "red",
            "blue",
            "all fans off",
            "please all fans off",
            "all red fans off",
            "all fans off please",
        ):
            assert understood(grammar, text)[0] == oracle.best(text), text


def test_first_alternative_wins(make_grammar: MakeGrammar) -> None:
    """Within one block the reading that the template names first is the one."""
    with make_grammar(
        "language: en\nintents:\n  A: {data: [{sentences: ['go ({x}|red|{y})']}]}\n"
        "lists: {x: {values: [red]}, y: {values: [red]}}\n"
    ) as grammar:
        assert understood(grammar, "go red") == [("A", {"x": "red"})]


def test_slot_said_goes_before_the_fixed_one(make_grammar: MakeGrammar) -> None:
    """A block's fixed slot is a default."""
    with make_grammar(
        "language: en\nintents:\n"
        "  A: {data: [{sentences: ['light [{area}]'], slots: {area: here, kind: a}}]}\n"
        "lists: {area: {values: [kitchen]}}\n"
    ) as grammar:
        assert understood(grammar, "light kitchen") == [("A", {"area": "kitchen", "kind": "a"})]
        assert understood(grammar, "light") == [("A", {"area": "here", "kind": "a"})]


def test_value_with_a_list_inside(make_grammar: MakeGrammar) -> None:
    """A list value may hold a list; both slots are filled, as in hassil."""
    data = {
        "language": "en",
        "intents": {"A": {"data": [{"sentences": ["paint {thing}"]}]}},
        "lists": {
            "thing": {"values": ["the {colour} wall", {"in": "a {colour} door", "out": "door"}]},
            "colour": {"values": ["red", {"in": "sky blue", "out": "blue"}]},
        },
    }
    oracle = Oracle(data)
    with make_grammar(yaml.safe_dump(data)) as grammar:
        for text in ("paint the red wall", "paint a sky blue door", "paint the sky blue wall"):
            assert_same(grammar, oracle, text)


def test_text_with_too_many_readings_ends(make_grammar: MakeGrammar) -> None:
    """A grammar that can read a text in exponentially many ways answers as fast as any other."""
    template = " ".join(["[the] [the]"] * 20)
    with make_grammar(
        f"language: en\nintents: {{A: {{data: [{{sentences: ['{template} end']}}]}}}}\n"
    ) as grammar:
        assert understood(grammar, "the " * 20 + "end") == [("A", {})]


def test_words_of_the_sample_recordings(home_grammar: Grammar, samples: tuple[Sample, ...]) -> None:
    """The text of each recording has the meaning that its manifest promises."""
    for sample in samples:
        wanted = [(sample.intent, {name: plain(value) for name, value in sample.slots.items()})]
        assert understood(home_grammar, sample.text) == (wanted if sample.accepted else []), sample.text
