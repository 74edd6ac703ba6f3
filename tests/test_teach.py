"""Names that are heard otherwise get the spelling they are heard in, where that helps and does no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from edgevoice import audio, recordings
from edgevoice.config import Config, RecordsConfig
from edgevoice.errors import GrammarError, UsageError
from edgevoice.pipeline import Pipeline
from edgevoice.recorder import Recorder
from edgevoice.recordings import Recording
from edgevoice.records import Folder
from edgevoice.replay import replay
from edgevoice.teach import Alias, Lesson, teach, with_alias
from tests.conftest import COMMAND_TIMEOUT_S, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgevoice.records import Record
    from tests.conftest import Edgevoice

DATA: Final = os.environ.get("EDGEVOICE_EVAL_DATA", "")
CONFIG = replace(Config(), records=RecordsConfig(keep=100))
DESK = ROOT / "samples" / "turn-on-desk-lamp.flac"
FAN = ROOT / "samples" / "turn-off-fan.flac"

# The desk lamp is called by a name that nobody would write for what is said.
GRAMMAR: Final = """\
language: en
intents:
  Switch:
    data:
      - sentences: ["turn (on|off) [the] {device:name}"]
lists:
  device:
    values:
      # of the study
      - in: DskLmp   # as on its label
        out: light.desk
      - VT-1000      # in the hall
"""

LISTS: Final = """\
# a comment
lists:
  flow: {values: [Echo B, {in: "fan [one]", out: fan}]}  # behind it
  plain:
    values:
    - Echo B  # of the kitchen
    # above
    - in: (lamp|light)
      context: {domain: light}
      out: 5

intents: {A: {data: [{sentences: ["{flow}"], lists: {own: {values: [x]}}}]}}"""


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (("lists", "flow", "values", 0), "Echo B", "[Echo B, {in: eco bee, out: Echo B}, {in:"),
        (("lists", "flow", "values", 1), "fan", "out: fan}, {in: eco bee, out: fan}]}  # behind it\n"),
        (("lists", "plain", "values", 0), "Echo B", "# of the kitchen\n    - {in: eco bee, out: Echo B}\n"),
        (
            ("lists", "plain", "values", 1),
            5,
            "      out: 5\n    - {in: eco bee, context: {domain: light}, out: 5}\n\nintents",
        ),
        (("intents", "A", "data", 0, "lists", "own", "values", 0), "x", "[x, {in: eco bee, out: x}]"),
    ],
)
def test_a_spelling_is_written_and_all_else_stays_as_it_was(
    at: tuple[object, ...], value: object, expected: str
) -> None:
    changed = with_alias(LISTS, Alias(at, value, "eco bee"))
    assert expected in changed
    lines = changed.splitlines()
    assert len(lines) - len(LISTS.splitlines()) == ("plain" in at)
    assert [part for part in LISTS.split() if part.startswith("#")] == [
        part for part in changed.split() if part.startswith("#")
    ]


def test_where_nothing_can_be_added_by_itself_it_is_said() -> None:
    text = "lists:\n  a:\n    values:\n      - >-\n        x\n  b: {wildcard: true}\n"
    alias = Alias(("lists", "a", "values", 0), "x", "eggs")
    with pytest.raises(GrammarError, match="by hand"):
        with_alias(text, alias)
    with pytest.raises(GrammarError, match="quotes"):
        with_alias("lists:\n  on:\n    values: [x]\n", Alias(("lists", "on", "values", 0), "x", "eggs"))


def test_signs_of_templates_in_a_spelling_are_signs() -> None:
    changed = with_alias(LISTS, Alias(("lists", "flow", "values", 0), "Echo B", "eco (b)"))
    assert yaml.safe_load(changed)["lists"]["flow"]["values"][1]["in"] == r"eco \(b\)"


def labelled(
    config: Config, grammar: Path, *cases: tuple[Path, str | None, dict[str, object]]
) -> list[Record]:
    """Records of files, as the service makes them, labelled."""
    found: list[Record] = []
    with closing(Pipeline(config, grammar)) as pipeline:
        for path, intent, slots in cases:
            kept: list[Record] = []
            recorder = Recorder(config, pipeline.recogniser, kept.append)
            list(pipeline.results(audio.frames([audio.read_audio(path)]), watch=recorder))
            label = {"intent": intent, "slots": slots}
            found += [replace(each, fields=each.fields | {"label": label}) for each in kept]
    return found


def taught(grammar: Path, records: Sequence[Record], negatives: Sequence[Recording] = ()) -> Lesson:
    with closing(Pipeline(CONFIG, grammar)) as pipeline:
        return teach(records, negatives, pipeline, CONFIG)


def judged(
    grammar: Path, records: Sequence[Record], negatives: Sequence[Recording]
) -> tuple[set[str], set[str]]:
    """Records that are right, and negatives in which something is accepted."""
    with closing(Pipeline(CONFIG, grammar)) as pipeline:
        right = {each.record_id for each in records if replay(each, pipeline.recogniser, CONFIG).right}
        wrong = {
            each.name
            for each in negatives
            if any(
                result.accepted for result in pipeline.results(audio.frames([audio.read_audio(each.path)]))
            )
        }
    return right, wrong


@pytest.fixture
def grammar(tmp_path: Path, model_path: Path) -> Path:
    assert model_path.is_file()
    path = tmp_path / "home.yaml"
    path.write_text(GRAMMAR)
    return path


def test_names_that_are_heard_otherwise_are_learnt(grammar: Path) -> None:
    records = labelled(
        CONFIG, grammar, (DESK, "Switch", {"name": "light.desk"}), (FAN, "Switch", {"name": "VT-1000"})
    )
    lesson = taught(grammar, records)
    assert {(each.spelling, each.value) for each in lesson.kept} == {
        ("desk lamp", "light.desk"),
        ("fan", "VT-1000"),
    }
    assert (len(lesson.before.right), len(lesson.after.right)) == (0, 2)
    assert not lesson.after.wrong


def test_what_would_be_accepted_wrongly_is_not_proposed(grammar: Path) -> None:
    """Somebody says of one and the same sound that it is meant, and that it is not."""
    record = labelled(CONFIG, grammar, (DESK, "Switch", {"name": "light.desk"}))[0]
    no_command = replace(
        record, record_id="other", fields=record.fields | {"label": {"intent": None, "slots": {}}}
    )
    for lesson in (
        taught(grammar, [record, no_command]),
        taught(grammar, [record], [Recording(DESK, DESK.name, "samples")]),
    ):
        assert not lesson.kept
        assert lesson.text == GRAMMAR
        assert [why for _, why in lesson.dropped if "is accepted" in why or "not right any more" in why]
        assert lesson.after == lesson.before


@pytest.mark.parametrize(
    ("examples", "why"),
    [
        (
            "refused: [turn on the desk lamp]\n",
            'examples, "turn on the desk lamp" must be refused, and is Switch name=light.desk',
        ),
        # One that fails already says nothing of a new spelling.
        ("refused: [turn on DskLmp]\nexpected: [{say: turn on the moon, intent: Switch}]\n", None),
    ],
    ids=["refused", "failing already"],
)
def test_the_grammars_own_examples_are_kept(grammar: Path, examples: str, why: str | None) -> None:
    grammar.write_text(GRAMMAR + examples)
    records = labelled(CONFIG, grammar, (DESK, "Switch", {"name": "light.desk"}))
    lesson = taught(grammar, records)
    if why is None:
        assert [each.spelling for each in lesson.kept] == ["desk lamp"]
    else:
        assert not lesson.kept
        assert [reason for _, reason in lesson.dropped if why in reason], lesson.dropped


def test_what_is_a_name_of_another_is_not_learnt(grammar: Path) -> None:
    """Who says one thing and labels it as another does not make both mean the same."""
    grammar.write_text(GRAMMAR + "      - fan\n")
    records = labelled(CONFIG, grammar, (FAN, "Switch", {"name": "VT-1000"}))
    lesson = taught(grammar, records)
    assert (lesson.kept, lesson.dropped) == ([], [])
    assert len(lesson.before.wrong) == 1


def test_without_labels_nothing_is_learnt(grammar: Path) -> None:
    with pytest.raises(UsageError, match="records label"):
        taught(grammar, [])


def test_it_is_written_only_with_consent(edgevoice: Edgevoice, tmp_path: Path, grammar: Path) -> None:
    config = tmp_path / "edgevoice.yaml"
    config.write_text("records: {keep: 5, folder: kept}\nmodel: {threads: 1}\ngrammar: {file: home.yaml}\n")
    there = ("--config", config)
    assert edgevoice("run", *there, "--input", DESK).returncode == 0
    assert edgevoice("records", "label", *there, "last", "Switch", "name=light.desk").returncode == 0
    asked = edgevoice("records", "teach", *there)
    assert asked.returncode == 0, asked.stderr
    assert b'proposed: "desk lamp" for light.desk, in lists.device' in asked.stdout
    assert b"1 labelled records: 0 right before, 1 after" in asked.stdout
    assert b"nothing was written" in asked.stdout
    assert grammar.read_text() == GRAMMAR
    grammar.chmod(0o640)
    assert edgevoice("records", "teach", *there, "--apply").returncode == 0
    changed = grammar.read_text()
    assert changed.replace('      - {in: desk lamp, out: "light.desk"}\n', "") == GRAMMAR
    assert (tmp_path / "home.yaml.bak").read_text() == GRAMMAR
    assert grammar.stat().st_mode & 0o777 == 0o640
    again = edgevoice("records", "teach", *there)
    assert b"1 right before, 1 after" in again.stdout
    assert b"nothing to propose" in again.stdout


@pytest.mark.parametrize(("answer", "written"), [(b"y\n", True), (b"\n", False)])
def test_on_a_terminal_it_asks(
    child_environment: dict[str, str], tmp_path: Path, grammar: Path, answer: bytes, written: bool
) -> None:
    config = tmp_path / "edgevoice.yaml"
    config.write_text("records: {keep: 5, folder: kept}\ngrammar: {file: home.yaml}\n")
    record = labelled(CONFIG, grammar, (DESK, "Switch", {"name": "light.desk"}))[0]
    folder = Folder(tmp_path / "kept", CONFIG.records)
    folder.write(record)
    folder.label(record.record_id, "Switch", {"name": "light.desk"})
    terminal, theirs = os.openpty()
    try:
        os.write(terminal, answer)
        done = subprocess.run(
            [sys.executable, "-m", "edgevoice", "records", "teach", "--config", config],
            stdin=theirs,
            stdout=subprocess.PIPE,
            env=child_environment,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
        )
    finally:
        os.close(terminal)
        os.close(theirs)
    assert b"home.yaml? [y/N]" in done.stdout
    assert (grammar.read_text() != GRAMMAR) is written


NAMES: Final = {"snowboy": "SnwBy", "view glass": "VwGlss"}
"""What people say in the recordings, and what a house might call it: as on a label, without vowels."""


@pytest.mark.skipif(not DATA, reason="EDGEVOICE_EVAL_DATA names no folder of recordings")
def test_it_helps_with_people_who_were_not_learnt_from(tmp_path: Path, model_path: Path) -> None:
    assert model_path.is_file()
    grammar = tmp_path / "names.yaml"
    values = "".join(f"      - {name}\n" for name in NAMES.values())
    grammar.write_text(
        "language: en\nintents:\n  Call:\n    data:\n      - sentences: ['[hey] {name}']\n"
        f"lists:\n  name:\n    values:\n{values}"
    )
    folder = Path(DATA) / "wakewords_en"
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    cases: list[tuple[Path, str | None, dict[str, object]]] = [
        (folder / each["audio"], "Call", {"name": NAMES[each["text"]]})
        for each in entries
        if each["text"] in NAMES
    ]
    # A few teach; the others are recordings that were not heard then. Not all, which would take a minute.
    learnt = labelled(CONFIG, grammar, *cases[::6])
    others = labelled(CONFIG, grammar, *cases[1::3])
    negatives = recordings.others(Path(DATA) / "nonwake_speech_precise")
    lesson = taught(grammar, learnt, negatives[:3])
    assert {each.value for each in lesson.kept} == set(NAMES.values())
    grammar_after = tmp_path / "after.yaml"
    grammar_after.write_text(lesson.text)
    before, after = (judged(path, others, negatives[3:10]) for path in (grammar, grammar_after))
    assert len(after[0]) >= len(before[0]) + len(others) // 2
    assert after[1] <= before[1]
