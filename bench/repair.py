"""What repair puts right, what it must leave alone, and how long it takes.

    .venv/bin/python bench/repair.py [--sentences N] [--per-word COST] [--near-tie COST]

Sentences of the shipped grammars are written with the mistakes of typists and of Whisper and repaired:
right, wrong (another meaning: the dangerous one), ambiguous, or refused. Then texts that are no order, or one
the grammar has not: each that is taken for a sentence is a false one. The texts of EDGEVOICE_EVAL_DATA are
among them if it is set. Last, a grammar of 2,000 names in 40 templates: the time for exact sentences and for
misses, on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml
from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import RangeSlotList, TextSlotList

import large_grammar
from chatter import Chatter
from edgevoice import grammar as grammar_compiler
from edgevoice import grammar_file, match, repair
from edgevoice.native import Grammar
from edgevoice.nearest import nearest, same_meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgevoice.events import Interpretation
    from edgevoice.grammar_file import Block, GrammarFile

GRAMMARS: Final = Path(__file__).parents[1] / "grammars"

_DATA: Final = yaml.safe_load(Path(__file__).with_name("repair.yaml").read_text(encoding="utf-8"))
SOUNDS: Final[dict[str, list[str]]] = _DATA["sounds"]
UNKNOWN: Final[list[str]] = _DATA["unknown"]
OPPOSITES: Final[list[str]] = _DATA["opposites"]

SMALL: Final = {"the", "a", "an", "to", "for", "of", "with", "and"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sentences", type=int, default=1000, help="of each grammar and kind of mistake")
    parser.add_argument("--per-word", type=float, help="in place of repair.COST_PER_WORD")
    parser.add_argument("--near-tie", type=float, help="in place of repair.NEAR_TIE")
    parser.add_argument("--examples", type=int, default=0, help="of each outcome, to look at")
    options = parser.parse_args()
    if options.per_word is not None:
        repair.COST_PER_WORD = options.per_word  # type: ignore[misc]
    if options.near_tie is not None:
        repair.NEAR_TIE = options.near_tie  # type: ignore[misc]
    chance = random.Random(1)  # noqa: S311 - no secret depends on it
    opened = {name: _open(GRAMMARS / f"{name}.yaml") for name in ("home", "coffee")}
    print(f"{'mistakes':28}{'n':>6}{'right':>8}{'wrong':>8}{'ambig.':>8}{'refused':>8}")
    for name, grammar in opened.items():
        for kind, mistake in MISTAKES.items():
            texts = list(_mistaken(grammar, mistake, options.sentences, chance))
            _show_repaired(f"{name}, {kind}", grammar, texts, options.examples)
    print(f"\n{'no sentence of the grammar':28}{'n':>6}{'taken':>8}{'ambig.':>8}")
    for name, grammar in opened.items():
        for kind, negatives in _negatives(grammar, options.sentences, chance).items():
            _show_taken(f"{name}, {kind}", grammar, negatives, options.examples)
    _opposites(options.examples)
    _speed(chance)


# ---- sentences and mistakes ----


def _open(path: Path) -> Grammar:
    return Grammar(grammar_compiler.compile_grammar(grammar_file.load(path)))


class Speaker:
    """Says sentences of a grammar, each choice as likely as another."""

    def __init__(self, file: GrammarFile, chance: random.Random) -> None:
        self._file, self._chance = file, chance
        self._templates = [(block, template) for block in file.blocks for template in block.templates]

    def sentence(self) -> str:
        """Return the next sentence."""
        block, template = self._chance.choice(self._templates)
        return " ".join(self._say(template.sentence.expression, block).split())

    def _say(self, expression: Expression, block: Block) -> str:  # noqa: PLR0911 - one a kind
        if isinstance(expression, TextChunk):
            return str(expression.text)
        if isinstance(expression, Permutation):
            items = self._chance.sample(expression.items, len(expression.items))
            return " ".join(self._say(item, block) for item in items)
        if isinstance(expression, Alternative):
            return self._say(self._chance.choice(expression.items), block)
        if isinstance(expression, Group):
            return "".join(self._say(item, block) for item in expression.items)
        if isinstance(expression, RuleReference):
            return self._say((self._file.rules | block.rules)[expression.rule_name].expression, block)
        assert isinstance(expression, ListReference)  # noqa: S101 - the compiler knows no other
        values = (self._file.lists | block.lists)[expression.list_name]
        if isinstance(values, TextSlotList):
            return self._say(self._chance.choice(values.values).text_in, block)
        if isinstance(values, RangeSlotList):
            return str(self._chance.randrange(values.start, values.stop + 1, values.step))
        return self._chance.choice(["milk", "dog food", "dinner is ready", "two eggs"])


def _mistaken(
    grammar: Grammar, mistake: Callable[[str, random.Random], str | None], n: int, chance: random.Random
) -> Iterable[tuple[str, list[Interpretation]]]:
    """Yield texts that are no sentence any more, each with what it should mean."""
    speaker = Speaker(grammar.compiled.file, chance)
    for _ in range(20 * n):
        sentence = speaker.sentence()
        meant = match.interpret(grammar, sentence)
        text = mistake(sentence, chance)
        if meant and text and not match.interpret(grammar, text):
            yield text, meant
            n -= 1
            if n == 0:
                return


def _typo(sentence: str, chance: random.Random) -> str | None:
    """One letter more, less, other, or two the other way round."""
    words = sentence.split()
    places = [i for i, word in enumerate(words) if len(word) > 2 and word.isalpha()]
    if not places:
        return None
    i = chance.choice(places)
    word = words[i]
    k = chance.randrange(len(word))
    letter = chance.choice("abcdefghijklmnopqrstuvwxyz")
    words[i] = chance.choice(
        [word[:k] + letter + word[k:], word[:k] + word[k + 1 :], word[:k] + letter + word[k + 1 :],
         word[:k] + word[k + 1 : k + 2] + word[k] + word[k + 2 :], word[:k] + word[k] + word[k:]]
    )  # fmt: skip
    return " ".join(words)


def _sound(sentence: str, chance: random.Random) -> str | None:
    words = sentence.split()
    places = [i for i, word in enumerate(words) if word.lower() in SOUNDS]
    if not places:
        return None
    i = chance.choice(places)
    words[i] = chance.choice(SOUNDS[words[i].lower()])
    return " ".join(words)


def _space(sentence: str, chance: random.Random) -> str | None:
    """A space that is missing, or one too many."""
    words = sentence.split()
    i = chance.randrange(len(words))
    if chance.random() < 0.5 and i + 1 < len(words):
        return " ".join([*words[:i], words[i] + words[i + 1], *words[i + 2 :]])
    if len(words[i]) < 5 or not words[i].isalpha():
        return None
    k = chance.randrange(2, len(words[i]) - 1)
    return " ".join([*words[:i], words[i][:k], words[i][k:], *words[i + 1 :]])


def _small(sentence: str, chance: random.Random) -> str | None:
    """A small word less."""
    words = sentence.split()
    places = [i for i, word in enumerate(words) if word in SMALL]
    if not places:
        return None
    del words[chance.choice(places)]
    return " ".join(words)


def _two(sentence: str, chance: random.Random) -> str | None:
    text: str | None = sentence
    for _ in range(2):
        text = text and chance.choice((_typo, _sound, _space, _small))(text, chance)
    return text


MISTAKES: Final = {
    "a letter": _typo, "a sound": _sound, "a space": _space, "a small word": _small, "two mistakes": _two,
}  # fmt: skip


def _show_repaired(
    title: str, grammar: Grammar, texts: list[tuple[str, list[Interpretation]]], examples: int
) -> None:
    outcomes: Counter[str] = Counter()
    seen: dict[str, list[str]] = {}
    for text, meant in texts:
        found = repair.repair(grammar, text)
        outcome = (
            "refused" if not found
            else "ambiguous" if len(found) > 1 and len(meant) == 1
            else "right" if same_meaning(found[0], meant[0])
            else "wrong"
        )  # fmt: skip
        outcomes[outcome] += 1
        seen.setdefault(outcome, []).append(f"{text!r} -> {[each.text for each in found]}")
    n = max(1, len(texts))
    shares = "".join(f"{outcomes[each] / n:8.1%}" for each in ("right", "wrong", "ambiguous", "refused"))
    print(f"{title:28}{len(texts):6}{shares}")
    _show(seen, examples)


def _show(seen: dict[str, list[str]], examples: int) -> None:
    for outcome, lines in seen.items():
        for line in lines[:examples]:
            print(f"    {outcome}: {line}")


# ---- what is no sentence ----


def _negatives(grammar: Grammar, n: int, chance: random.Random) -> dict[str, list[str]]:
    chatter = Chatter()
    talk = [text for _ in range(n // 5) for _, text in chatter.scene(chance, 5, 2)]
    speaker = Speaker(grammar.compiled.file, chance)
    unknown, halves = [], []
    for _ in range(5 * n):
        words = speaker.sentence().split()
        if len(words) > 2:
            other = chance.choice(UNKNOWN).split()
            i = chance.randrange(1, len(words))
            unknown.append(" ".join([*words[:i], *other, *words[i + len(other) :]]))
            halves.append(" ".join(words[: chance.randrange(1, len(words))]))
    negatives = {
        "talk": talk, "something unknown": unknown, "half a sentence": halves,
        "its own refused": [each.say for each in grammar.compiled.file.examples if each.intent is None],
        "readings, letters, words": _readings(),
    }  # fmt: skip
    return {
        kind: [text for text in dict.fromkeys(texts) if not match.interpret(grammar, text)][:n]
        for kind, texts in negatives.items()
    }


def _readings() -> list[str]:
    """Return what is said in English recordings that are no orders."""
    folder = os.environ.get("EDGEVOICE_EVAL_DATA")
    texts: list[str] = []
    for manifest in sorted(Path(folder).glob("*/manifest.jsonl")) if folder else ():
        rows = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
        texts += [row["text"] for row in rows if row.get("lang") == "en" and row.get("text")]
    return texts


def _show_taken(title: str, grammar: Grammar, texts: list[str], examples: int) -> None:
    outcomes: Counter[str] = Counter()
    seen: dict[str, list[str]] = {}
    for text in texts:
        if found := repair.repair(grammar, text):
            outcome = "taken" if len(found) == 1 else "ambiguous"
            outcomes[outcome] += 1
            seen.setdefault(outcome, []).append(f"{text!r} -> {[(each.text, each.cost) for each in found]}")
    print(f"{title:28}{len(texts):6}{outcomes['taken']:8}{outcomes['ambiguous']:8}")
    _show(seen, examples)


def _opposites(examples: int) -> None:
    """A grammar that knows one of two, and a text with the other."""
    pairs = [(one, other) for line in OPPOSITES for one, other in (line.split(), line.split()[::-1])]
    seen: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for one, other in pairs:
            path = Path(folder) / f"{one}.yaml"
            sentences = [f"please set the living room thing to {one} now", f"{one} the thing", one]
            path.write_text(
                "language: en\nintents:\n  Do:\n    data:\n      - sentences:\n"
                + "".join(f'          - "{sentence}"\n' for sentence in sentences),
                encoding="utf-8",
            )
            with _open(path) as grammar:
                for sentence in sentences:
                    text = sentence.replace(one, other)
                    if found := repair.repair(grammar, text):
                        seen.setdefault("taken", []).append(f"{text!r} -> {found[0].text!r}")
    print(f"{'opposites and near numbers':28}{3 * len(pairs):6}{len(seen.get('taken', [])):8}")
    _show(seen, max(examples, 20))


# ---- time ----


def _speed(chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(large_grammar.house(2000, 40), encoding="utf-8")
        grammar = _open(path)
    started = time.process_time()
    repair.repair(grammar, "ferb7 teh gadget 5 of flor 5 to 30 percent")
    print(f"\n2,000 names, 40 templates: the first miss {1000 * (time.process_time() - started):.1f} ms")
    speaker = Speaker(grammar.compiled.file, chance)
    sentences = [speaker.sentence() for _ in range(1000)]
    chatter = Chatter()
    misses = {
        "exact": sentences,
        "a mistake": [_typo(sentence, chance) or "" for sentence in sentences],
        "two mistakes": [_two(sentence, chance) or "" for sentence in sentences],
        "talk": [text for _ in range(200) for _, text in chatter.scene(chance, 5, 2)],
        "long talk": [" ".join(text for _, text in chatter.scene(chance, 8, 2)) for _ in range(200)],
    }
    print(f"{'ms':28}{'n':>6}{'median':>8}{'p99':>8}{'most':>8}")
    for kind, texts in misses.items():
        for text in texts[:20]:
            repair.repair(grammar, text)
        _show_times(kind, repair.repair, grammar, texts)
    _show_times("nearest(), two mistakes", nearest, grammar, misses["two mistakes"])


def _show_times(
    title: str, run: Callable[[Grammar, str], object], grammar: Grammar, texts: list[str]
) -> None:
    times: list[float] = []
    for text in texts:
        started = time.thread_time()
        run(grammar, text)
        times.append(1000 * (time.thread_time() - started))
    times.sort()
    p99 = times[len(times) * 99 // 100]
    print(f"{title:28}{len(times):6}{statistics.median(times):8.2f}{p99:8.2f}{times[-1]:8.2f}")


if __name__ == "__main__":
    main()
