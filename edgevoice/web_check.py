"""What a grammar that is being written says, for the page: a program of its own.

    a question as JSON on standard input -> JSON objects, one a line, each with more of the answer

A grammar that somebody types may take any time and memory to compile. Here it takes them from nobody else:
this process goes last when others want the processor, gets no more memory than LIMIT_BYTES, and whoever
started it ends it when it takes too long. What was told until then holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from edgevoice import grammar_check, grammar_explain, grammar_file, match
from edgevoice.cli_grammar import readable
from edgevoice.errors import EdgevoiceError, GrammarError
from edgevoice.grammar import compile_grammar, compile_traced
from edgevoice.native import Grammar
from edgevoice.sentences import Derivations, Sentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgevoice.events import Interpretation
    from edgevoice.grammar_explain import Explanation
    from edgevoice.grammar_file import GrammarFile
    from edgevoice.nearest import Near

LIMIT_BYTES: Final = 250_000_000
"""Of data: a grammar that comes with edgevoice needs 110 MB, most of them never touched, and with 2,000 more
names 155; 55 and 98 are in use then. The service has 400 in all."""

MAX_SHOWN: Final = 400
"""Characters of a text in an answer: a sentence template may have 10,000."""

MAX_FINDINGS: Final = 100
"""What nobody reads to its end."""

MAX_INTENTS: Final = 200

_EFFORT: Final = grammar_check.EFFORT // 4  # to tell sentences apart: some 0.5 s of x86-64


def main() -> None:
    """Answer the question on standard input."""
    _humble()
    question = json.load(sys.stdin)
    try:
        for part in answers(question):
            _tell(part)
    except MemoryError:
        _tell({"findings": [_finding("error", 1, "this needs more memory than there is; make it smaller")]})


def _humble() -> None:
    """Leave memory and processor to others, and be the first to go when there is none left."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    with contextlib.suppress(OSError):  # where that is not allowed, the limits above are still kept
        os.nice(19)
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _tell(part: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(part, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def answers(question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is known of a grammar, the most wanted first.

    Args:
        question: `text` of the grammar, its `name` for messages, what is known (`context`), and what is
            wanted: the meaning of what is said (`say`), so many `samples` chosen by a `seed`.
    """
    name, text = question["name"], question["text"]
    try:
        file = grammar_file.load(Path(name), question["context"], text)
        with Grammar(compile_grammar(file)) as grammar:
            yield {"compiled": True, "language": file.language}
            if question.get("say") is not None:
                yield {"said": told(file, grammar_explain.explain(file, question["say"]))}
            if question.get("samples"):
                yield {"samples": list(_samples(file, grammar, question["samples"], question["seed"]))}
        yield _report(name, question["context"], text)
    except EdgevoiceError as error:
        yield {"compiled": False, "findings": [_problem(error, name, text)]}


def _report(name: str, context: dict[str, Any], text: str) -> dict[str, Any]:
    report = grammar_check.check(Path(name), effort=_EFFORT, context=context, text=text)
    return {
        "sentences": ("" if report.exact else "at most ") + readable(report.sentences),
        "intents": [
            {"name": cut(each.name), "sentences": readable(each.sentences)}
            for each in report.intents[:MAX_INTENTS]
        ],
        "examples": report.expected + report.refused,
        "findings": [
            _finding(each.level, each.line, each.text, _column(text, each.line))
            for each in report.findings[:MAX_FINDINGS]
        ],
        "more": max(0, len(report.findings) - MAX_FINDINGS),
        "whole": True,
    }


def _samples(file: GrammarFile, grammar: Grammar, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield sentences with their meanings, of as many intents as possible."""
    with Grammar(compile_traced(file, plain=True, free=False).compiled) as plain:
        graph = plain.sentences(_EFFORT)
        intents = [block.intent for block in plain.compiled.blocks]
        sentences = Sentences(graph, intents) if graph.complete else Derivations(file)
        chance = Random(seed)  # noqa: S311 - no secret
        names = [name for name in file.intents if sentences.count(name)]
        chance.shuffle(names)
        wanted = names[:count]
        texts = [(text, name) for name in wanted for text in sentences.sample(1, chance, name)]
        if len(texts) < count:
            known = {text for text, _ in texts}
            others = [text for text in sentences.sample(count, chance) if text not in known]
            texts += [(text, "") for text in others[: count - len(texts)]]
        for text, intent in texts:
            said = grammar_check.named(plain, text)
            meanings = match.interpret(grammar, said)
            first = next((each for each in meanings if intent in ("", each.intent)), None)
            yield {"text": cut(said), **(meaning(first) if first else {"intent": intent, "slots": {}})}


def told(file: GrammarFile, found: Explanation) -> dict[str, Any]:
    """Return what a grammar makes of a text, as JSON values."""
    return {
        "text": cut(found.text),
        "readings": [
            {
                **meaning(each.meaning),
                "line": each.template.line,
                "template": cut(each.template.sentence.text or ""),
            }
            for each in found.readings
        ],
        "reached": cut(found.reached),
        "rest": cut(found.rest),
        "next": [cut(each) for each in [*(f"{{{name}}}" for name in found.next_lists), *found.next_words]],
        "more": found.more,
        "nearest": [near(each) for each in found.near],
        "file": file.path.name,
    }


def near(found: Near) -> dict[str, Any]:
    """Return a sentence near a text, as JSON values."""
    return {"text": cut(found.text), **meaning(found.interpretation)}


def meaning(found: Interpretation) -> dict[str, Any]:
    """Return what something means, as JSON values."""
    return {"intent": found.intent, "slots": {name: plain(value) for name, value in found.slots.items()}}


def plain(value: object) -> object:
    """Return a value of a slot as JSON: what YAML has beside it, such as dates, as text."""
    return (
        cut(value)
        if isinstance(value, str)
        else value
        if isinstance(value, (int, float))
        else cut(str(value))
    )


def cut(text: str) -> str:
    """Return a text, or the beginning of a long one."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _problem(error: EdgevoiceError, name: str, text: str) -> dict[str, Any]:
    """Return an error, with its place and without the name of the file."""
    found = re.match(rf"{re.escape(name)}(?::(\d+))?: (.*)", str(error), re.DOTALL)
    line, words = (int(found[1] or 1), found[2]) if found else (1, str(error))
    column = error.column if isinstance(error, GrammarError) else None
    return _finding("error", line, words, column or _column(text, line))


def _finding(level: str, line: int, text: str, column: int = 1) -> dict[str, Any]:
    return {"level": level, "line": line, "column": column, "text": cut(text)}


def _column(text: str, line: int) -> int:
    """Return where a line begins to say something, counted from 1."""
    lines = text.split("\n")
    found = re.match(r"[\s-]*", lines[line - 1]) if 1 <= line <= len(lines) else None
    return found.end() + 1 if found else 1


if __name__ == "__main__":
    main()
