"""The home grammars on synthetic voices and on German people: what is understood, what falsely accepted.

    [EDGEVOICE_EVAL_DATA=DIR] python bench/languages.py OUT [--languages de,fr] [--model base] [--threads 1]

Speaks the `expected` and `refused` sentences of each grammar and the everyday talk of languages.yaml, with
Kokoro's voices where it has some of the language and with espeak-ng's, into OUT, where they are found again;
then recognises all of it as `edgevoice recognize` does, and prints a table in Markdown. What went wrong is on
stderr. Synthetic voices tell what a grammar and its spellings lose, not how well people are
understood.

With read_german_emodb in DIR, 34 German sentences of people are recognised too: by the German home grammar,
which should refuse them, and by a grammar of these ten sentences.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from edgevoice import grammar_file
from edgevoice.audio import frames, read_audio
from edgevoice.config import Config, ModelConfig, RecognitionConfig
from edgevoice.events import SAMPLE_RATE_HZ
from edgevoice.pipeline import Pipeline
from edgevoice.recognise import shipped_grammars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.events import Result

SILENCE_S: Final = 1.5
"""After each sentence, so that it ends as in a stream."""

FOREIGN: Final = 5
"""Orders of each other language that a grammar hears."""

PEOPLE: Final = "read_german_emodb"


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence to be spoken, and what it means."""

    kind: str
    """`order` or `talk`."""

    language: str
    engine: str
    text: str
    intent: str | None
    slots: dict[str, Any]
    audio: Path


def main() -> int:
    """Speak, recognise, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = shipped_grammars()
    parser.add_argument("out", type=Path, help="folder for what is spoken")
    parser.add_argument("--languages", default=",".join(known), help=f"default: {','.join(known)}")
    parser.add_argument("--model", default="base", help="default: base")
    parser.add_argument("--threads", type=int, default=1, help="of speaking and recognising (default: 1)")
    parser.add_argument("--orders-only", action="store_true", help="neither talk nor other languages")
    parser.add_argument("--voices", default="kokoro", help="kokoro, espeak or both (default: kokoro)")
    options = parser.parse_args()
    engines = options.voices.split(",")
    languages = options.languages.split(",")
    talk: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    lines = {
        code: [
            line
            for engine in engines
            for line in lines_of(code, engine, known[code], talk[code], options.out)
        ]
        for code in languages
    }
    if options.orders_only:
        lines = {code: [line for line in each if line.kind == "order"] for code, each in lines.items()}
    speak([line for each in lines.values() for line in each], options.threads)
    print("| | voices | orders right | taken for another | talk accepted | other languages accepted |")
    print("|---|---|---|---|---|---|")
    for code in languages:
        pipeline = open_pipeline(options.model, code, options.threads, known[code])
        try:
            for engine in engines:
                own = [line for line in lines[code] if line.engine == engine]
                if own:
                    foreign = () if options.orders_only else others(lines, code, engine)
                    print(row(pipeline, code, engine, [*own, *foreign]), flush=True)
        finally:
            pipeline.close()
    root = os.environ.get("EDGEVOICE_EVAL_DATA")
    if root and "de" in languages:
        people(Path(root) / PEOPLE, options.model, options.threads, known["de"])
    return 0


def lines_of(language: str, engine: str, grammar: Path, talk: list[str], out: Path) -> Iterator[Line]:
    """Yield every sentence of a language."""
    examples = [each for each in grammar_file.load(grammar).examples if each.intent is not None]
    said = [("order", each.say, each.intent, each.slots) for each in examples]
    said += [("talk", text, None, {}) for text in talk]
    for kind, text, intent, slots in said:
        audio = out / language / engine / f"{zlib.crc32(text.encode()):08x}.flac"
        yield Line(kind, language, engine, text, intent, slots, audio)


def speak(lines: list[Line], threads: int) -> None:
    """Write what is not yet there."""
    wanted = [
        {"audio": str(line.audio), "text": line.text, "language": line.language, "engine": line.engine}
        for line in lines
        if not line.audio.is_file()
    ]
    if not wanted:
        return
    print(f"speaking {len(wanted)} sentences", file=sys.stderr)
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(Path(__file__).with_name("say.py")), "--threads", str(threads)],
        input="\n".join(map(json.dumps, wanted)),
        text=True,
        check=True,
        stdout=sys.stderr,
    )


def others(lines: dict[str, list[Line]], language: str, engine: str) -> Iterator[Line]:
    """Yield some orders of each other language, by the same synthesiser if it has them."""
    for code, each in lines.items():
        if code != language:
            orders = [line for line in each if line.kind == "order"]
            same = [line for line in orders if line.engine == engine] or orders
            yield from same[:: max(1, len(same) // FOREIGN)][:FOREIGN]


def open_pipeline(model: str, language: str, threads: int, grammar: Path) -> Pipeline:
    """Return what recognises by one grammar; a busy machine changes no result."""
    config = Config(
        model=ModelConfig(name=model, language=language, threads=threads),
        recognition=RecognitionConfig(timeout_s=300),
    )
    return Pipeline(config, grammar)


def recognise(pipeline: Pipeline, audio: Path) -> list[Result]:
    """Return the results of a recording."""
    silence = np.zeros(round(SILENCE_S * SAMPLE_RATE_HZ), np.float32)
    return list(pipeline.results(frames([silence, read_audio(audio), silence])))


def row(pipeline: Pipeline, language: str, engine: str, lines: list[Line]) -> str:
    """Recognise, and return a row of the table."""
    of: Counter[str] = Counter()
    right: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for line in lines:
        kind = line.kind if line.language == language else "foreign"
        results = recognise(pipeline, line.audio)
        taken = [result for result in results if result.accepted]
        of[kind] += 1
        if kind == "order" and len(taken) == 1 and is_right(taken[0], line):
            right[kind] += 1
            continue
        accepted[kind] += bool(taken)
        if kind == "order" or taken:
            tell(language, kind, line, taken or results)
    figures = [f"{right['order']} of {of['order']}", str(accepted["order"])]
    figures += [f"{accepted[kind]} of {of[kind]}" if of[kind] else "" for kind in ("talk", "foreign")]
    return f"| {language} | {engine} | {' | '.join(figures)} |"


def is_right(result: Result, line: Line) -> bool:
    """Whether intent and slots are those of the sentence; case is the transcript's."""
    return result.intent == line.intent and folded(result.slots) == folded(line.slots)


def folded(slots: dict[str, Any]) -> dict[str, str]:
    """Return slots as text in lower case."""
    return {name: str(value).lower() for name, value in slots.items()}


def tell(language: str, kind: str, line: Line, results: list[Result]) -> None:
    """Print what was made of a sentence to stderr."""
    for result in results:
        found = f"{result.reason or result.intent} {result.confidence:.2f} {result.text!r}"
        print(
            f"{language} {line.engine} {kind}: {line.text!r} -> {found} heard {result.heard!r}",
            file=sys.stderr,
        )


def beginnings(text: str) -> str:
    """Return the template of a sentence that may end after any word from the third on."""
    words = [word.strip(".,?!") for word in text.split()]
    rest = ""
    for word in reversed(words[3:]):
        rest = f" [{word}{rest}]"
    return " ".join(words[:3]) + rest


def people(folder: Path, model: str, threads: int, home: Path) -> None:
    """Recognise what German people say, by the home grammar and by one of their sentences.

    The recordings end after 2 s, some of them in the middle of a sentence: it may end after any word from the
    third on.
    """
    entries = [json.loads(each) for each in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    texts = list(dict.fromkeys(entry["text"] for entry in entries))
    intents = {
        f"Sentence{number}": {"data": [{"sentences": [beginnings(text)]}]}
        for number, text in enumerate(texts)
    }
    right = wrong = accepted = 0
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "sentences.yaml"
        path.write_text(yaml.safe_dump({"language": "de", "intents": intents}), "utf-8")
        pipelines = [open_pipeline(model, "de", threads, grammar) for grammar in (path, home)]
    for entry in entries:
        sentences, at_home = (recognise(pipeline, folder / entry["audio"]) for pipeline in pipelines)
        taken = [result for result in sentences if result.accepted]
        wanted = f"Sentence{texts.index(entry['text'])}"
        if len(taken) == 1 and taken[0].intent == wanted:
            right += 1
        else:
            wrong += bool(taken)
            line = Line("people", "de", "people", entry["text"], wanted, {}, folder)
            tell("de", "people", line, taken or sentences)
        accepted += any(result.accepted for result in at_home)
    for pipeline in pipelines:
        pipeline.close()
    print(
        f"\nPeople, {len(texts)} German sentences: {right} of {len(entries)} right, "
        f"{wrong} taken for another; accepted by the home grammar: {accepted}"
    )


if __name__ == "__main__":
    sys.exit(main())
