"""How much longer Home Assistant's sentences for a large house take than a grammar of twenty sentences.

    .venv/bin/pip install 'edgevoice[home-assistant]'
    .venv/bin/python bench/house.py OUT [--sentences 40] [--free-text] [--entities 2000] [--areas 30]

Draws sentences of the house at random and speaks them with Kokoro's voices into OUT, where they are found
again. Each is then recognised under a grammar of twenty of them, itself among these, and under that of the
house, in turns; printed are the medians, their ratio, and how often the intent and slots were right. With
--free-text these are sentences with free text, and there is no small grammar to compare with.
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
from home_assistant_intents import get_intents

from agreement import Speaker, house
from edgevoice import grammar_file, grammar_writer, import_home_assistant, match
from edgevoice.audio import read_audio
from edgevoice.config import Config, ModelConfig
from edgevoice.events import SAMPLE_RATE_HZ, Samples, Utterance
from edgevoice.grammar import compile_grammar
from edgevoice.native import Grammar
from edgevoice.recognise import Answer, Recogniser
from languages import Line, speak
from turns import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    asked = get_intents("en") or {}
    home = house(asked, options.entities, options.areas)
    text = grammar_writer.render(
        import_home_assistant.draft(import_home_assistant.package_sentences("en"), home)
    )
    speaker = Speaker(yaml.load(text, Loader=yaml.CSafeLoader), asked, {}, random.Random(options.seed))  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "house.yaml"
        path.write_text(text, encoding="utf-8")
        said = draw(path, speaker, options.sentences, with_free_text=options.free_text)
        small = [] if options.free_text else small_grammars(list(said), Path(folder))
        config = Config(model=ModelConfig(name=options.model, threads=1))
        large, *others = [Recogniser(config, each) for each in (path, *small)]
        ours: list[Answer] = []
        theirs: list[Answer] = []
        for i, clip in enumerate(spoken(list(said), options.out)):
            turns = [(large, ours), *([(others[i // SMALL], theirs)] if others else [])]
            for recogniser, answers in turns if i % 2 else turns[::-1]:
                recogniser.recognise(clip)  # builds what of the grammar it needs; a house says it again
                answers.append(recogniser.recognise(clip) or sys.exit("cancelled"))
        for recogniser in (large, *others):
            recogniser.close()
    print(row("house", ours, said))
    if theirs:
        print(row("twenty sentences", theirs, dict.fromkeys(said)))
        ratio = median_ms(ours, "total") / median_ms(theirs, "total")
        print(f"house / twenty sentences: {ratio:.2f}")
    return 0


def draw(path: Path, speaker: Speaker, n: int, *, with_free_text: bool) -> dict[str, Interpretation]:
    """Return sentences that have one meaning, and that."""
    grammar = Grammar(compile_grammar(grammar_file.load(path)))
    said: dict[str, Interpretation] = {}
    while len(said) < n:
        sentence = speaker.sentence()
        meanings = match.interpret(grammar, sentence)
        if len(meanings) == 1 and bool(match.free_text(grammar, sentence)) == with_free_text:
            said[sentence] = meanings[0]
    grammar.close()
    return said


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


def small_grammars(said: list[str], folder: Path) -> list[Path]:
    """Write grammars of SMALL sentences each, in which their number is the intent."""
    paths = []
    for start in range(0, len(said), SMALL):
        intents = {
            f"S{start + i}": {"data": [{"sentences": [text.translate(_ESCAPED)]}]}
            for i, text in enumerate(said[start : start + SMALL])
        }
        paths.append(folder / f"small{start}.yaml")
        paths[-1].write_text(yaml.safe_dump({"language": "en", "intents": intents}), encoding="utf-8")
    return paths


_ESCAPED: Final = str.maketrans({c: f"\\{c}" for c in "()[]{}<>|@;\\"})


def row(name: str, answers: list[Answer], said: Mapping[str, Interpretation | None]) -> str:
    """Return one line of the table; what went wrong goes to stderr.

    Args:
        name: of the grammar.
        answers: one for each sentence.
        said: each sentence and what it means; None: its number is its intent.
    """
    right = 0
    for i, (answer, (text, wanted)) in enumerate(zip(answers, said.items(), strict=True)):
        meaning = answer.decision.meaning if answer.decision.reason is None else None
        expected = (wanted.intent, plain(wanted.slots)) if wanted else (f"S{i}", {})
        good = meaning is not None and (meaning.intent, plain(meaning.slots)) == expected
        right += good
        if not good:
            nearest = answer.decision.meaning
            found = nearest and (nearest.intent, nearest.text)
            print(f"{name}: {text!r}: {answer.decision.reason} {found}", file=sys.stderr)
    longest_ms = max(answer.timings.total for answer in answers)
    medians = ", ".join(f"{stage} {median_ms(answers, stage):.0f}" for stage in ("encode", "search", "total"))
    return f"{name:18} right {right}/{len(answers)}; median ms: {medians}; longest {longest_ms:.0f}"


def median_ms(answers: list[Answer], stage: str) -> float:
    """Return the median time of a stage."""
    return float(np.median([getattr(answer.timings, stage) for answer in answers]))


def plain(slots: dict[str, object]) -> dict[str, object]:
    """Return slots without case and punctuation, which free text has as Whisper writes it."""
    return {
        name: re.sub(r"[^a-z0-9]+", " ", value.lower()) if isinstance(value, str) else value
        for name, value in slots.items()
    }


if __name__ == "__main__":
    sys.exit(main())
