"""The commands `edgevoice records` and `edgevoice replay`: what was kept of utterances, and run again."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgevoice import recordings, records
from edgevoice.errors import UsageError
from edgevoice.reasons import REASONS

if TYPE_CHECKING:
    import argparse

    from edgevoice.config import Config
    from edgevoice.records import Folder, Record
    from edgevoice.replay import Replay

_BARS: Final = " ▁▂▃▄▅▆▇█"
_QUIET_DBFS: Final = -72.0  # an empty bar; below is no sound card
_WIDTH: Final = 60  # of bars


def list_records(options: argparse.Namespace, config: Config) -> None:
    """Print a line for each record."""
    found = [records.read_fields(path) for path in _all(config)]
    if options.json:
        for fields in found:
            print(json.dumps({"id": fields["id"], **fields["result"]}, ensure_ascii=False))
        return
    if not found:
        print(f"no records in {records.folder(config.records)}; records.keep says how many are kept")
        return
    for fields in found:
        print(f"{fields['id']} {_one_line(fields['result'])}{_label(fields)}")


def show(options: argparse.Namespace, config: Config) -> None:
    """Print a record."""
    record = _find(options.record, config)
    if options.json:
        print(json.dumps(record.fields, ensure_ascii=False))
        return
    console = Console(highlight=False)
    fields, result = record.fields, record.fields["result"]
    over = ", over Wyoming" if fields.get("source") == "wyoming" else ""
    console.print(Text(f"{record.record_id}  {result['time']}{over}", "bold"))
    console.print(_outcome(result), Text(f" {result['text'] or ''}"))
    if result["reason"]:
        words = REASONS[result["reason"]]
        console.print(Text(f"{words.meaning} {words.remedy}"), soft_wrap=True)
    if result["heard"]:
        console.print(Text(f'without the grammar: "{result["heard"]}"'), soft_wrap=True)
    if meant := _label(fields):
        console.print(Text(meant.lstrip(", ")))
    console.print()
    _print_track(console, fields["track"])
    _print_recognitions(console, fields)
    _print_decision(console, fields)
    timings = ", ".join(f"{name} {ms:.0f}" for name, ms in result["timings_ms"].items())
    console.print(Text(f"time, ms: {timings}"), soft_wrap=True)
    for name in ("grammar", "model", "options", "versions"):
        said = ", ".join(f"{key} {value}" for key, value in fields[name].items() if key != "intents")
        console.print(Text(f"{name}: {said}", "dim"), soft_wrap=True)


def _print_track(console: Console, track: dict[str, Any]) -> None:
    """Level and probability of speech over time."""
    levels = [(level - _QUIET_DBFS) / -_QUIET_DBFS for level in track["level_dbfs"]]
    for name, values in (("level", levels), ("speech", track["speech"])):
        console.print(Text(f"{name:7}{_bars(values)}"))
    length_s = len(levels) * track["frame_s"]
    console.print(
        Text(f"{'':7}{track['start_s']:.2f} s".ljust(_WIDTH) + f"{track['start_s'] + length_s:.2f} s\n")
    )


def _print_recognitions(console: Console, fields: dict[str, Any]) -> None:
    table = Table("heard until", "because of", "became", "took ms", "text", box=None, pad_edge=False)
    for each in fields["recognitions"]:
        table.add_row(
            f"{each['until_s']:.2f} s",
            each["at"],
            each["outcome"],
            f"{each.get('spent_ms', 0.0):.0f}",
            Text(each.get("text") or ""),
        )
    console.print(table)
    console.print()


def _print_decision(console: Console, fields: dict[str, Any]) -> None:
    decision = fields["decision"]
    table = Table("score", "intent", "slots", "sentence", box=None, pad_edge=False)
    for each in decision["meanings"]:
        table.add_row(f"{each['score']:.2f}", each["intent"], Text(_slots(each["slots"])), Text(each["text"]))
    console.print(table)
    if evidence := decision["evidence"]:
        said = ", ".join(f"{name} {value:.2f}" for name, value in evidence.items())
        console.print(Text(f"\nconfidence {decision['confidence']:.3f} of {said} (nats)"), soft_wrap=True)


def label(options: argparse.Namespace, config: Config) -> None:
    """Say what was meant."""
    slots: dict[str, object] = {}
    for text in options.slots:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{text!r} is no slot; write NAME=VALUE")
        slots[name] = _value(value)
    intent = None if options.intent == "none" else options.intent
    if intent is None and slots:
        raise UsageError("what is no command has no slots; leave them out")
    folder, record_id = _place(options.record, config)
    labelled = folder.label(record_id, intent, slots)
    commands, others = (labelled / name for name in (recordings.MANIFEST, records.NEGATIVES))
    if not commands.exists():
        print(f"kept in {labelled}; label a command, too, and `edgevoice eval` can measure")
        return
    print(f"measure with: edgevoice eval {labelled}{f' --negatives {others}' if others.exists() else ''}")


def purge(options: argparse.Namespace, config: Config) -> None:
    """Remove records."""
    if options.records:
        count = 0
        for wanted in options.records:
            folder, record_id = _place(wanted, config)
            count += folder.purge([record_id])
    else:
        count = sum(folder.purge() for folder in records.places(config.records))
    print(f"{count} removed")


def replay(options: argparse.Namespace, config: Config) -> int:
    """Run records again and print what has changed; 1 if others would be told something else."""
    from edgevoice.recognise import Recogniser  # noqa: PLC0415 - each command loads only what it needs
    from edgevoice.replay import replay as run_again  # noqa: PLC0415

    wanted = [_find(each, config) for each in options.records] or [
        records.read(path) for path in _all(config)
    ]
    if not wanted:
        raise UsageError(
            f"no records in {records.folder(config.records)}; records.keep says how many are kept"
        )
    found: list[Replay] = []
    with closing(Recogniser(config, options.grammar)) as recogniser:
        for record in wanted:
            if record.samples is None and not options.records:
                continue
            found.append(run_again(record, recogniser, config))
            print(_json(found[-1]) if options.json else _words(found[-1]), flush=True)
    if not options.json:
        print(_sum(found))
    return 0 if all(each.tells_the_same for each in found) else 1


def teach(options: argparse.Namespace, config: Config) -> None:
    """Print the spellings of names that help, and write them into the grammar if that is wanted."""
    from edgevoice import grammar_writer  # noqa: PLC0415 - each command loads only what it needs
    from edgevoice.pipeline import Pipeline  # noqa: PLC0415
    from edgevoice.recognise import shipped_grammars  # noqa: PLC0415
    from edgevoice.teach import teach as learn  # noqa: PLC0415

    negatives = [each for path in options.negatives for each in recordings.others(path)]
    labelled = [path for path in _all(config) if records.read_fields(path).get("label") is not None]
    kept = [record for record in map(records.read, labelled) if record.samples is not None]
    with closing(Pipeline(config, options.grammar)) as pipeline:
        path = pipeline.recogniser.grammar_path
        lesson = learn(kept, negatives, pipeline, config, _say_progress)
    for alias, why in lesson.dropped:
        print(f'not proposed: "{alias.spelling}" for {alias.value}: {why}')
    for alias in lesson.kept:
        print(f'proposed: "{alias.spelling}" for {alias.value}, in {".".join(map(str, alias.at[:-2]))}')
    print(
        f"{lesson.records} labelled records: {len(lesson.before.right)} right before, "
        f"{len(lesson.after.right)} after; accepted though not meant {len(lesson.before.wrong)} before, "
        f"{len(lesson.after.wrong)} after, {lesson.no_commands} of all must be refused"
    )
    if not lesson.kept:
        print("nothing to propose")
        return
    if not options.apply:
        if not sys.stdin.isatty():
            print(f"nothing was written; --apply writes it into {path}")
            return
        if input(f"write this into {path}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was written")
            return
    if path in shipped_grammars().values():
        raise UsageError(f"{path} comes with edgevoice; copy it, name the copy in grammar.file, teach that")
    before = grammar_writer.rewrite(lesson.text, path)
    print(f"written into {path.resolve()}; as it was: {before}")


def _say_progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"trying {what}", file=sys.stderr, flush=True)


def _json(replayed: Replay) -> str:
    return json.dumps(
        {**dataclasses.asdict(replayed), "same": replayed.same, "right": replayed.right}, ensure_ascii=False
    )


def _words(replayed: Replay) -> str:
    before, after = replayed.before, replayed.after
    marks = {None: "", True: ", right", False: ", wrong"}
    how = "same" if replayed.same else "same command" if replayed.tells_the_same else "CHANGED"
    lines = [f"{replayed.record_id}: {how}{marks[replayed.right]}: {_one_line(after)}"]
    if not replayed.same:
        lines.append(f"    was: {_one_line(before)}")
    if replayed.otherwise:
        lines.append(f"    then with other {', '.join(replayed.otherwise)}")
    return "\n".join(lines)


def _sum(found: list[Replay]) -> str:
    labelled = [each for each in found if each.right is not None]
    right = sum(bool(each.right) for each in labelled)
    return (
        f"{len(found)} run again: {sum(each.same for each in found)} the same to the last bit, "
        f"{sum(not each.tells_the_same for each in found)} with another outcome"
        + (f"; of {len(labelled)} labelled {right} right" if labelled else "")
    )


def _one_line(decision: dict[str, Any]) -> str:
    said = f'"{decision["text"]}" ' if decision["text"] else ""
    return f"{said}{_outcome(decision).plain}, confidence {decision['confidence']:.4f}"


def _outcome(result: dict[str, Any]) -> Text:
    if result["accepted"]:
        slots = _slots(result["slots"])
        return Text(f"→ {result['intent']}{' ' if slots else ''}{slots}", "green")
    return Text(f"refused: {result['reason']}", "yellow")


def _label(fields: dict[str, Any]) -> str:
    if (label := fields.get("label")) is None:
        return ""
    meant = f"{label['intent']} {_slots(label['slots'])}" if label["intent"] else "no command"
    return f", meant: {meant.strip()}"


def _slots(slots: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in slots.items())


def _bars(values: list[float]) -> str:
    """The highest value of each part of the time."""
    if not values:
        return ""
    width = min(_WIDTH, len(values))
    parts = [values[i * len(values) // width : (i + 1) * len(values) // width] for i in range(width)]
    return "".join(_BARS[round(max(0.0, min(1.0, max(part))) * (len(_BARS) - 1))] for part in parts)


def _value(text: str) -> object:
    """A number if it is one, as numbers come out of a grammar."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _all(config: Config) -> list[Path]:
    """The JSON of every record, labelled or not, oldest first."""
    found: dict[str, Path] = {}
    for folder in records.places(config.records):
        for record_id in folder.ids(labelled=True):
            found[record_id] = folder.json_of(record_id)
    return [found[record_id] for record_id in sorted(found)]


def _find(wanted: str, config: Config) -> Record:
    if wanted.endswith(".json"):
        return records.read(Path(wanted))
    folder, record_id = _place(wanted, config)
    return folder.read(record_id)


def _place(wanted: str, config: Config) -> tuple[Folder, str]:
    problems = []
    for folder in records.places(config.records):
        try:
            return folder, folder.find(wanted)
        except UsageError as problem:
            problems.append(problem)
    raise problems[0]
