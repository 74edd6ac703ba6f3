"""How much longer Home Assistant's sentences for a large house take than a grammar of twenty sentences.

    .venv/bin/pip install 'edgevoice[home-assistant]'
    .venv/bin/python bench/house.py OUT [--sentences 40] [--free-text] [--entities 2000] [--areas 30]

Draws sentences of the house at random and speaks them with Kokoro's voices into OUT, where they are found again.
Each is then recognised under a grammar of twenty of them, itself among these, and under that of the house, in
turns; printed are the medians, their ratio, and how often the intent and slots were right. With --free-text
these are sentences with free text, and there is no small grammar to compare with.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import yaml
from agreement import Speaker, house
from home_assistant_intents import get_intents
from languages import Line, speak
from turns import cut

from edgevoice import grammar_file, grammar_writer, import_home_assistant, match
from edgevoice.audio import read_audio
from edgevoice.config import Config, ModelConfig
from edgevoice.events import SAMPLE_RATE_HZ, Samples, Utterance
from edgevoice.grammar import compile_grammar
from edgevoice.native import Grammar
from edgevoice.recognise import Answer, Recogniser

if TYPE_CHECKING:
    from edgevoice.events import Interpretation

SMALL: Final = 20


def main() -> int:
    """Speak, recognise, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for what is spoken")
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--free-text", action="store_true", help="sentences with free text")
    parser.add_argument("--entities", type=int, default=2000)
    parser.add_argument("--areas", type=int, default=30)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = import_home_assistant.package_sentences("en")
    asked = get_intents("en") or {}
    home = house(asked, options.entities, options.areas)
    text = grammar_writer.render(import_home_assistant.draft(source, home))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "house.yaml"
        path.write_text(text, encoding="utf-8")
        grammar = Grammar(compile_grammar(grammar_file.load(path)))
        speaker = Speaker(yaml.load(text, Loader=yaml.CSafeLoader), asked, {}, random.Random(options.seed))  # noqa: S311
        said: dict[str, Interpretation] = {}
        while len(said) < options.sentences:
            sentence = speaker.sentence()
            meanings = match.interpret(grammar, sentence)
            if len(meanings) == 1 and bool(match.free_text(grammar, sentence)) == options.free_text:
                said[sentence] = meanings[0]
        grammar.close()
        clips = spoken(list(said), options.out)
        config = Config(model=ModelConfig(name=options.model, threads=1))
        grammars = [path]
        if not options.free_text:
            grammars += small_grammars(list(said.items()), Path(folder))
        recognisers = [Recogniser(config, each) for each in grammars]
        ours: list[Answer] = []
        theirs: list[Answer] = []
        for i, clip in enumerate(clips):
            turns = [(recognisers[0], ours)]
            if not options.free_text:
                turns.append((recognisers[1 + i // SMALL], theirs))
            for recogniser, answers in turns if i % 2 else turns[::-1]:
                recogniser.recognise(clip)  # builds what of the grammar it needs; a house says it again
                answers.append(recogniser.recognise(clip) or sys.exit("cancelled"))
        for name, answers in (("house", ours), ("twenty sentences", theirs)):
            if answers:
                print(row(name, answers, list(said.items()), folder if name == "house" else None))
        if theirs:
            ratio = np.median([each.timings.total for each in ours]) / np.median(
                [each.timings.total for each in theirs]
            )
            print(f"house / twenty sentences: {ratio:.2f}")
        for recogniser in recognisers:
            recogniser.close()
    return 0


def spoken(sentences: list[str], out: Path) -> list[Utterance]:
    """Return each sentence as an utterance."""
    lines = [
        Line("order", "en", "kokoro", text, None, {}, out / f"{zlib.crc32(text.encode()):08x}.flac")
        for text in sentences
    ]
    speak(lines, threads=1)
    return [utterance(samples) for samples in cut([read_audio(line.audio) for line in lines])]


def utterance(samples: Samples) -> Utterance:
    """Return samples as an utterance that is speech all over."""
    length = len(samples)
    return Utterance(samples, 0, 0, length, "silence", length / SAMPLE_RATE_HZ)


def small_grammars(said: list[tuple[str, Interpretation]], folder: Path) -> list[Path]:
    """Write grammars of SMALL sentences each, in which their number is the intent."""
    paths = []
    for start in range(0, len(said), SMALL):
        intents = {
            f"S{start + i}": {"data": [{"sentences": [text.translate(_ESCAPED)]}]}
            for i, (text, _) in enumerate(said[start : start + SMALL])
        }
        paths.append(folder / f"small{start}.yaml")
        paths[-1].write_text(yaml.safe_dump({"language": "en", "intents": intents}), encoding="utf-8")
    return paths


_ESCAPED: Final = str.maketrans({c: f"\\{c}" for c in "()[]{}<>|@;\\"})


def row(name: str, answers: list[Answer], said: list[tuple[str, Interpretation]], house: str | None) -> str:
    """Return one line of the table; what went wrong goes to stderr."""
    right = 0
    for i, (answer, (text, wanted)) in enumerate(zip(answers, said, strict=True)):
        meaning = answer.decision.meaning
        accepted = answer.decision.reason is None and meaning is not None
        if house is None:
            good = accepted and meaning is not None and meaning.intent == f"S{i}"
        else:
            good = (
                accepted
                and meaning is not None
                and meaning.intent == wanted.intent
                and plain(meaning.slots) == plain(wanted.slots)
            )
        right += good
        if not good:
            found = meaning and (meaning.intent, meaning.text)
            print(f"{name}: {text!r}: {answer.decision.reason} {found}", file=sys.stderr)
    timings = [answer.timings for answer in answers]
    encode, search, total = (
        np.median([getattr(each, stage) for each in timings]) for stage in ("encode", "search", "total")
    )
    worst = max(each.total for each in timings)
    return (
        f"{name:18} right {right}/{len(answers)}; median ms: encode {encode:.0f}, search {search:.0f}, "
        f"all {total:.0f}; longest {worst:.0f}"
    )


def plain(slots: dict[str, object]) -> dict[str, object]:
    """Return slots without case and punctuation, which free text has as Whisper writes it."""
    return {
        name: re.sub(r"[^a-z0-9]+", " ", value.lower()) if isinstance(value, str) else value
        for name, value in slots.items()
    }


if __name__ == "__main__":
    sys.exit(main())
