"""The commands `edgevoice grammar check|sample|explain`: their arguments, and what they print."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import shutil
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from edgevoice.errors import ModelError, UsageError

if TYPE_CHECKING:
    from edgevoice.config import Config
    from edgevoice.grammar_check import Finding, Report, Slot
    from edgevoice.grammar_explain import Explanation
    from edgevoice.native import Model

MAX_OF_A_KIND: Final = 10
"""Findings of a kind that are printed for people; all are in the JSON."""

MAX_SAMPLES: Final = 1_000_000
MAX_JSON_BITS: Final = 10_000
"""Larger numbers are rounded in the JSON, too: Python does not write them out."""


def add_check(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `grammar check`."""
    _add_file(parser)
    add = parser.add_argument
    add("--strict", action="store_true", help="exit code 1 for warnings, too")
    add("--model", metavar="NAME", help="whose spelling is looked at, in place of the configured one")
    add("--json", action="store_true", help="as JSON")


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `grammar sample`."""
    _add_file(parser)
    add = parser.add_argument
    add("-n", type=_number, default=10, metavar="N", help="how many sentences (default 10)")
    add("--intent", metavar="NAME", help="only of this intent")
    add("--seed", type=int, metavar="N", help="for the same sentences again")
    add("--json", action="store_true", help="one JSON object a line, with intent and slots")


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `grammar explain`."""
    _add_file(parser)
    add = parser.add_argument
    add("text", metavar="TEXT", help="a sentence, in quotes")
    add("--json", action="store_true", help="as JSON")


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: the configured grammar")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_SAMPLES:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_SAMPLES}, got {text[:60]!r}")
    return int(text)


def _path(options: argparse.Namespace, config: Config) -> Path:
    from edgevoice.recognise import shipped_grammar  # noqa: PLC0415 - each command loads only what it needs

    chosen: Path | None = options.file
    return chosen or config.grammar.file or shipped_grammar()


# ---- check ----


def check(options: argparse.Namespace, config: Config) -> int:
    """Check a grammar, print what was found, and return the exit code."""
    from edgevoice import grammar_check  # noqa: PLC0415

    path = _path(options, config)
    name: str = options.model or config.model.name
    model = _model(name, must_exist=options.model is not None)
    report = grammar_check.check(path, model, context=config.grammar.context)
    why_not = None
    if model is None:
        why_not = f"the model {name} is not installed, so the spelling of words was not looked at"
    elif not grammar_check.knows(model, report.language):
        why_not = f"the model {name} knows only English, so the spelling of words was not looked at"
    if options.json:
        print(json.dumps(_report_fields(report, None if why_not else name), ensure_ascii=False))
    else:
        _print_report(report, why_not)
    failed = report.count("error") or (options.strict and report.count("warning"))
    return 1 if failed else 0


def _model(name: str, *, must_exist: bool) -> Model | None:
    from edgevoice import models  # noqa: PLC0415
    from edgevoice.native import Model  # noqa: PLC0415

    try:
        return Model(models.find(name))
    except ModelError:
        if must_exist:
            raise
        return None


def _report_fields(report: Report, model: str | None) -> dict[str, Any]:
    fields = dataclasses.asdict(report)
    fields |= {"path": str(report.path), "model": model, "sentences": _json_number(report.sentences)}
    for intent in fields["intents"]:
        intent["sentences"] = _json_number(intent["sentences"])
    return fields


def _json_number(number: int) -> int | str:
    return number if number.bit_length() <= MAX_JSON_BITS else readable(number)


def readable(number: int) -> str:
    """Return a number for people: 12,345 or 1.3e24."""
    if number < 10**9:
        return f"{number:,}"
    exponent = int(math.log10(number))
    tenths = (
        round(number * 10 / 10**exponent) if exponent < 300 else round(10 ** (math.log10(number) % 1 + 1))
    )
    if tenths >= 100:
        exponent, tenths = exponent + 1, 10
    return f"{tenths / 10:.1f}e{exponent}"


def _print_report(report: Report, why_not: str | None) -> None:
    most = "" if report.exact else "at most "
    print(f"{report.path}: language {report.language}, {most}{readable(report.sentences)} sentences")
    if not report.exact:
        print(
            "(there are too many to tell them apart; those said in several ways were counted several times)"
        )
    print()
    width = max(len(intent.name) for intent in report.intents)
    numbers = [readable(intent.sentences) for intent in report.intents]
    number_width = max(len("sentences"), *map(len, numbers))
    columns = shutil.get_terminal_size().columns
    print(f"{'intent':{width}}  {'sentences':>{number_width}}  slots")
    for intent, number in zip(report.intents, numbers, strict=True):
        slots = ", ".join(map(_slot_text, intent.slots))
        line = f"{intent.name:{width}}  {number:>{number_width}}  {slots}".rstrip()
        print(line if len(line) <= columns or not sys.stdout.isatty() else line[: columns - 3] + "...")
    print()
    print(_cost_text(report))
    if why_not:
        print(why_not)
    if report.expected or report.refused:
        wrong = sum(finding.kind == "example" for finding in report.findings)
        how = "all as written" if not wrong else f"{wrong} not as written"
        print(f"examples  {report.expected} expected, {report.refused} refused: {how}")
    print()
    for finding in _shortened(report):
        print(finding)
    counts = [_several(report.count(level), level) for level in ("error", "warning", "note")]
    found = ", ".join(text for text in counts if text)
    print(f"{report.path}: {found or 'in order'}")


def _slot_text(slot: Slot) -> str:
    kinds = [kind for kind in slot.kinds if kind not in ("values", "free text")]
    size = f" {slot.values}" if slot.values else ""
    if "free text" in slot.kinds:
        kinds.append("free text")
    return f"{slot.name}{size}" + (f" ({', '.join(kinds)})" if kinds else "")


def _cost_text(report: Report) -> str:
    cost = report.cost
    text = f"network   {cost.arcs:,} arcs, {cost.memory_bytes / 1e6:.2g} MB"
    if cost.mean_choices is not None:
        after = cost.most_choices_after
        text += (
            f"\ndecoder   {cost.mean_choices:.0f} tokens to choose from after a word, on average; "
            f"at most {cost.most_choices} " + (f'after "{after}"' if after else "at the beginning")
        )
    return text


def _shortened(report: Report) -> list[str]:
    lines: list[str] = []
    seen: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        seen.setdefault((finding.level, finding.kind), []).append(finding)
    for (level, kind), findings in seen.items():
        lines += [f"{report.path}:{f.line}: {level}: {f.text}" for f in findings[:MAX_OF_A_KIND]]
        if len(findings) > MAX_OF_A_KIND:
            lines.append(
                f"{report.path}: {level}: {len(findings) - MAX_OF_A_KIND} more of {kind}; see --json"
            )
    return lines


def _several(number: int, level: str) -> str:
    return f"{number} {level}{'s' if number > 1 else ''}" if number else ""


# ---- sample ----


def sample(options: argparse.Namespace, config: Config) -> None:
    """Print sentences of a grammar, all equally likely."""
    from edgevoice import grammar_check, grammar_file, match  # noqa: PLC0415
    from edgevoice.grammar import compile_grammar, compile_traced  # noqa: PLC0415
    from edgevoice.native import Grammar  # noqa: PLC0415
    from edgevoice.sentences import Derivations, Sentences  # noqa: PLC0415

    file = grammar_file.load(_path(options, config), config.grammar.context)
    if options.intent is not None and options.intent not in file.intents:
        near = difflib.get_close_matches(options.intent, file.intents, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(file.intents)}"
        raise UsageError(f"{file.path}: there is no intent {options.intent!r}; {hint}")
    plain = Grammar(compile_traced(file, plain=True, free=False).compiled)
    graph = plain.sentences(grammar_check.EFFORT)
    intents = [block.intent for block in plain.compiled.blocks]
    sentences = Sentences(graph, intents) if graph.complete else Derivations(file)
    if not graph.complete:
        print(
            "edgevoice: too many sentences to tell apart: those said in several ways come more often",
            file=sys.stderr,
        )
    grammar = Grammar(compile_grammar(file)) if options.json else None
    for text in sentences.sample(options.n, Random(options.seed), options.intent):  # noqa: S311 - no secret
        said = grammar_check.named(plain, text)
        if grammar is None:
            print(said)
            continue
        meanings = match.interpret(grammar, said)
        first = next((m for m in meanings if options.intent in (None, m.intent)), None)
        fields = {"text": said, "intent": first and first.intent, "slots": first and first.slots}
        print(json.dumps(fields, ensure_ascii=False))


# ---- explain ----


def explain(options: argparse.Namespace, config: Config) -> None:
    """Print what a grammar makes of a sentence."""
    from edgevoice import grammar_explain, grammar_file  # noqa: PLC0415

    file = grammar_file.load(_path(options, config), config.grammar.context)
    text = options.text.encode("utf-8", "replace").decode()  # what the shell passes may be any bytes
    found = grammar_explain.explain(file, text)
    if options.json:
        print(json.dumps(_explanation_fields(found), ensure_ascii=False))
        return
    for reading in found.readings:
        meaning = reading.meaning
        print(meaning.intent)
        for slot, value in meaning.slots.items():
            raw = meaning.slots_raw.get(slot)
            print(f"  {slot} = {value}" + (f'  from "{raw}"' if raw is not None and raw != value else ""))
        print(f"  {file.path}:{reading.template.line}: {reading.template.sentence.text}")
    if len({reading.meaning.intent for reading in found.readings}) > 1:
        print("refused as ambiguous: these are several intents")
    if not found.readings:
        _print_refusal(found)


def _print_refusal(found: Explanation) -> None:
    if not found.reached:
        where = "it begins like none"
    elif found.rest:
        where = f'"{found.reached}" begins one, "{found.rest}" does not go on'
    else:
        where = f'"{found.reached}" begins one, more must follow'
    print(f"no sentence of the grammar: {where}")
    following = [*(f"{{{name}}}" for name in found.next_lists), *found.next_words]
    if following:
        print("could come next: " + ", ".join(following) + (", ..." if found.more else ""))
    for near in found.near:
        slots = "".join(f" {name}={value}" for name, value in near.interpretation.slots.items())
        print(f'nearest: "{near.text}" -> {near.interpretation.intent}{slots}')


def _explanation_fields(found: Explanation) -> dict[str, Any]:
    return {
        "text": found.text,
        "understood": bool(found.readings),
        "readings": [
            {
                "intent": reading.meaning.intent,
                "slots": reading.meaning.slots,
                "slots_raw": reading.meaning.slots_raw,
                "line": reading.template.line,
                "template": reading.template.sentence.text,
            }
            for reading in found.readings
        ],
        "reached": found.reached,
        "rest": found.rest,
        "next_words": found.next_words,
        "next_lists": found.next_lists,
        "more": found.more,
        "nearest": [
            {
                "text": near.text,
                "cost": near.cost,
                "intent": near.interpretation.intent,
                "slots": near.interpretation.slots,
            }
            for near in found.near
        ],
    }
