"""Names that are heard in another spelling here: labelled records in, spellings for the grammar out.

    labelled records, run again -> what Whisper writes of those that are not right -> aligned with what was
        meant -> candidates -> each tried on the grammar's own examples, on all records and negatives -> those
        that help and do no harm

Aligned by the grammar itself: words of what was heard that become the sentence that was meant when a spelling
of the labelled value stands in their place are another spelling of that value.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from hassil.errors import HassilError
from hassil.parse_expression import parse_sentence
from hassil.sample import sample_expression

from edgevoice import audio, grammar_check, grammar_file, match
from edgevoice.errors import GrammarError, UsageError
from edgevoice.grammar_writer import flow, plain_value
from edgevoice.replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgevoice.config import Config
    from edgevoice.grammar_file import Path_
    from edgevoice.native import Grammar
    from edgevoice.pipeline import Pipeline
    from edgevoice.recordings import Recording
    from edgevoice.records import Record
    from edgevoice.replay import Replay

_MIN_LETTERS: Final = 3  # with fewer it is a small word or a letter, which are said for other things, too
_MAX_SPELLINGS: Final = (
    20  # of one value that are put in the place of words; the first ones are enough to align
)
_MAX_WORDS: Final = 30  # in what was heard; 15 s of speech have some 40, an order has 10


@dataclass(frozen=True, slots=True)
class Alias:
    """Another spelling of a value of a list."""

    at: Path_
    """Of the value in the file, such as ("lists", "name", "values", 0)."""

    value: object
    """What the slot gets."""

    spelling: str
    """In the words of the one who was heard."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a grammar makes of all that is judged."""

    right: frozenset[str]
    """Records that became what was meant,"""

    wrong: frozenset[str]
    """and what was accepted though it was not meant: records and negatives."""


@dataclass(slots=True)
class Lesson:
    """What came of it."""

    text: str
    """Of the grammar, with the spellings that help."""

    records: int
    """That are labelled and have sound,"""

    no_commands: int
    """and of these, with the negatives, how many must be refused."""

    before: Score
    after: Score
    kept: list[Alias] = field(default_factory=list)
    dropped: list[tuple[Alias, str]] = field(default_factory=list)
    """With the reason."""


def teach(
    records: Sequence[Record],
    negatives: Sequence[Recording],
    pipeline: Pipeline,
    config: Config,
    progress: Callable[[str], None] = lambda _: None,
) -> Lesson:
    """Find the spellings that help.

    Args:
        records: labelled, with sound.
        negatives: recordings of which none may be accepted.
        pipeline: with the grammar to extend; with an extended one afterwards, so use it for nothing else.
        config: of the pipeline.
        progress: told what is done next.

    Raises:
        UsageError: nothing is labelled, or a record is damaged.
        GrammarError: the grammar's file cannot be used.
    """
    path = pipeline.recogniser.grammar_path
    if not records:
        raise UsageError("no record with sound is labelled; see `edgevoice records label`")
    text = grammar_file.read_text(path)
    progress(f"{len(records)} records, {len(negatives)} negatives")
    before, candidates = _hear(records, pipeline, config, _Aligner(path, pipeline))
    before = Score(before.right, before.wrong | _accepted(negatives, pipeline))
    failing = _failing(pipeline.recogniser.grammar)
    none = sum(record.fields["label"]["intent"] is None for record in records) + len(negatives)
    lesson = Lesson(text, len(records), none, before, before)
    for alias in sorted(candidates, key=lambda each: (-len(candidates[each]), str(each))):
        if candidates[alias] <= lesson.after.right:
            continue  # by another spelling, which more are heard in
        progress(f"{alias.spelling!r} for {alias.value!r}")
        try:
            text = with_alias(lesson.text, alias)
            examples = _failing(_use(text, pipeline)) - failing
        except GrammarError as problem:
            lesson.dropped.append((alias, str(problem)))
            continue
        if examples:
            lesson.dropped.append((alias, f"of the grammar's own examples, {min(examples)}"))
            continue
        after, _ = _hear(records, pipeline, config, None)
        why = _worse(before=lesson.after, after=after)
        if why is None:  # else nobody needs to know of the negatives, which take long
            after = Score(after.right, after.wrong | _accepted(negatives, pipeline))
            why = _worse(before=lesson.after, after=after)
        if why is None:
            lesson.text, lesson.after = text, after
            lesson.kept.append(alias)
        else:
            lesson.dropped.append((alias, why))
    return lesson


def _worse(before: Score, after: Score) -> str | None:
    """Return why a grammar is not better; None: it is."""
    if lost := before.right - after.right:
        return f"{min(lost)} is not right any more"
    if wrong := after.wrong - before.wrong:
        return f"{min(wrong)} is accepted, which was not meant"
    return None if after.right - before.right else "nothing more is right"


def _hear(
    records: Sequence[Record], pipeline: Pipeline, config: Config, aligner: _Aligner | None
) -> tuple[Score, dict[Alias, set[str]]]:
    """Judge records, and with an aligner say also what could be learnt, each with the records that say so."""
    right, wrong = set(), set()
    found: dict[Alias, set[str]] = {}
    for record in records:
        replayed = replay(record, pipeline.recogniser, config)
        if replayed.right:
            right.add(record.record_id)
        elif replayed.after["accepted"]:
            wrong.add(record.record_id)
        if aligner is not None and not replayed.right:
            for alias in aligner.aliases(replayed, pipeline):
                found.setdefault(alias, set()).add(record.record_id)
    return Score(frozenset(right), frozenset(wrong)), found


def _accepted(negatives: Sequence[Recording], pipeline: Pipeline) -> set[str]:
    """Return those in which something is accepted."""
    pipeline.recogniser.use_lists({})
    return {
        str(other.path)
        for other in negatives
        if any(each.accepted for each in pipeline.results(audio.frames([audio.read_audio(other.path)])))
    }


def _failing(grammar: Grammar) -> set[str]:
    """Return which of its own examples a grammar does not understand as it says, and how."""
    return {finding.text for finding in grammar_check.failed_examples(grammar)}


def _use(text: str, pipeline: Pipeline) -> Grammar:
    """Recognise with another text of the grammar from now on, and return what is compiled of it."""
    recogniser = pipeline.recogniser
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / recogniser.grammar_path.name
        path.write_text(text, "utf-8")
        decoding = recogniser.prepare(recogniser.load(path))
    recogniser.use(decoding)
    return decoding.whole


class _Aligner:
    """Knows the values of a grammar's lists, and finds them in what was heard."""

    def __init__(self, path: Path, pipeline: Pipeline) -> None:
        self._grammar: Grammar = pipeline.recogniser.grammar
        root, _ = grammar_file.read_yaml(path)
        self._values = list(_values(root, ()))

    def aliases(self, replayed: Replay, pipeline: Pipeline) -> set[Alias]:
        """Return what would have made a record right."""
        label = replayed.label or {}
        heard = pipeline.recogniser.heard() if replayed.after["accepted"] else replayed.heard
        if label["intent"] is None or not heard:
            return set()
        words = heard.split()
        if len(words) > _MAX_WORDS or match.interpret(self._grammar, heard):
            return set()  # it means something else already: with another spelling it would mean both
        found: dict[Path_, tuple[object, list[str]]] = {}
        for at, value, spellings in self._values:
            if value not in label["slots"].values():
                continue
            for first in range(len(words)):
                for end in range(first + 1, len(words) + 1):
                    said = " ".join(words[first:end]).strip(" " + grammar_file.EDGE_PUNCTUATION).lower()
                    if sum(map(str.isalnum, said)) >= _MIN_LETTERS and any(
                        self._means([*words[:first], spelling, *words[end:]], label) for spelling in spellings
                    ):
                        found.setdefault(at, (value, []))[1].append(said)
        # Of "the eco bee" and "eco bee", where "the" may be left out, the name is the shorter one.
        return {Alias(at, value, min(said, key=len)) for at, (value, said) in found.items()}

    def _means(self, words: list[str], label: dict[str, Any]) -> bool:
        return any(
            meaning.intent == label["intent"]
            and all(meaning.slots.get(name) == value for name, value in label["slots"].items())
            for meaning in match.interpret(self._grammar, " ".join(words))
        )


def _values(node: object, at: Path_) -> Iterator[tuple[Path_, object, list[str]]]:
    """Yield place, slot value and spellings of all that stands in lists of a grammar."""
    if isinstance(node, dict):
        for key, child in node.items():
            if key == "values" and len(at) >= 2 and at[-2] == "lists" and isinstance(child, list):
                for i, item in enumerate(child):
                    yield from _value((*at, key, i), item)
            else:
                yield from _values(child, (*at, key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _values(child, (*at, i))


def _value(at: Path_, item: object) -> Iterator[tuple[Path_, object, list[str]]]:
    said = str(item["in"] if isinstance(item, dict) else item)
    try:
        expression = parse_sentence(said).expression
        spellings = list(islice(sample_expression(expression), _MAX_SPELLINGS))
    except (HassilError, ValueError):  # words from other lists and rules: it has no spelling of its own
        return
    out = item.get("out") if isinstance(item, dict) else None
    for value in [out] if out is not None else spellings:
        yield at, value, spellings if out is not None else [value]


def with_alias(text: str, alias: Alias) -> str:
    """Return the text of a grammar with one more spelling; nothing else of it changes.

    Raises:
        GrammarError: it is written in a way to which nothing can be added like this.
    """
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    was: Any = yaml.safe_load(text)
    values = was
    index: Any = alias.at[-1]
    try:
        for key in alias.at[:-1]:
            node, values = _child(node, key), values[key]
    except (KeyError, StopIteration):  # a name that YAML takes for something else, as a bare "on"
        raise GrammarError(f"{alias.at} cannot be found in the text; put names in quotes") from None
    item, old = node.value[index], values[index]
    new = {"in": plain_value(alias.spelling), "out": alias.value}
    if isinstance(old, dict):
        new = {**old, **new}
    if node.flow_style:
        at, written = item.end_mark.index, f", {flow(new)}"
    else:
        end = text.find("\n", _last(item).index)  # a comment behind it stays with it
        at = end if end >= 0 else len(text)
        written = f"\n{' ' * node.start_mark.column}- {flow(new)}"
    changed = text[:at] + written + text[at:]
    values.insert(index + 1, new)
    try:
        same = yaml.safe_load(changed) == was
    except yaml.YAMLError:
        same = False
    if not same:  # such as with a list that stands in two places by a YAML alias
        raise GrammarError(
            f"line {item.start_mark.line + 1}: nothing can be added there by itself; add by hand: {flow(new)}"
        )
    return changed


def _last(node: Any) -> Any:
    """The end of what is written of a node: that of a block is where the next thing begins."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return node.end_mark
    last = node.value[-1]
    return _last(last[1] if isinstance(last, tuple) else last)


def _child(node: Any, key: object) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return node.value[key]
    return next(value for name, value in node.value if name.value == str(key))
