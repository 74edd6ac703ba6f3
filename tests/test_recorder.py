"""A record says what happened, run again it gives the same to the last bit, and another grammar shows."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import soxr

from edgevoice import audio, events
from edgevoice.config import Config, RecordsConfig
from edgevoice.errors import UsageError
from edgevoice.pipeline import Pipeline
from edgevoice.reasons import REASONS
from edgevoice.recognise import Recogniser
from edgevoice.recorder import Recorder
from edgevoice.records import Folder, Record
from edgevoice.reload import Reloader
from edgevoice.replay import replay
from edgevoice.testing import Broker, Subscriber
from tests.conftest import ROOT, running, wait_until
from tests.test_end_to_end import pcm, write_config
from tests.test_reload import LAMP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgevoice.events import Samples
    from tests.conftest import Edgevoice

CONFIG = replace(Config(), records=RecordsConfig(keep=10))
PAUSE_S = 0.4  # speech goes on before the silence that ends an unfinished sentence


@pytest.fixture(scope="module")
def recogniser(model_path: Path) -> Iterator[Recogniser]:
    assert model_path.is_file()
    opened = Recogniser(CONFIG)
    yield opened
    opened.close()


def recorded(pipeline: Pipeline, *pieces: Samples, config: Config = CONFIG) -> list[Record]:
    kept: list[Record] = []
    recorder = Recorder(config, pipeline.recogniser, kept.append)
    list(pipeline.results(audio.frames(pieces), watch=recorder))
    return kept


def test_a_record_tells_what_happened(pipeline: Pipeline, speech: Samples) -> None:
    [record] = recorded(pipeline, speech)
    fields = json.loads(json.dumps(record.fields, allow_nan=False))
    assert fields["result"]["slots"] == {"name": "desk lamp"}
    assert fields["decision"]["meanings"][0]["intent"] == "HassTurnOn"
    assert fields["decision"]["evidence"].keys() == {"per_token", "worst_gap", "acoustic_gap"}
    track = fields["track"]
    assert len(track["speech"]) == len(track["level_dbfs"])
    assert max(track["speech"]) > 0.9
    assert max(track["level_dbfs"]) > -40
    assert track["start_s"] * 16_000 == fields["utterance"]["start_samples"]
    assert [each["outcome"] for each in fields["recognitions"]] == ["accepted"]
    assert fields["recognitions"][0]["at"] == "pause"
    assert fields["model"]["sha256"]
    assert "HassTurnOn" in fields["grammar"]["intents"]


def test_what_was_begun_in_vain_is_told_too(pipeline: Pipeline, speech: Samples) -> None:
    """Somebody pauses in a sentence: the first recognition came to nothing."""
    middle = int(1.0 * 16_000)  # between "turn on the" and "desk lamp"
    pause = np.zeros(int(PAUSE_S * 16_000), np.float32)
    [record] = recorded(pipeline, speech[:middle], pause, speech[middle:])
    recognitions = record.fields["recognitions"]
    assert len(recognitions) == 2
    assert recognitions[0]["until_s"] < recognitions[1]["until_s"]
    assert recognitions[1]["outcome"] == (record.fields["decision"]["reason"] or "accepted")
    assert recognitions[1]["text"] == record.fields["result"]["text"]


def test_each_stream_has_its_own_track(pipeline: Pipeline, speech: Samples) -> None:
    kept: list[Record] = []
    recorder = Recorder(CONFIG, pipeline.recogniser, kept.append)
    for _ in range(2):
        list(pipeline.results(audio.frames([speech]), watch=recorder))
    first, second = (record.fields["track"] for record in kept)
    assert first == second


def test_without_audio_only_text_is_kept(pipeline: Pipeline, speech: Samples, recogniser: Recogniser) -> None:
    config = replace(CONFIG, records=RecordsConfig(keep=10, audio=False))
    [record] = recorded(pipeline, speech, config=config)
    assert record.samples is None
    with pytest.raises(UsageError, match=r"records\.audio"):
        replay(record, recogniser, CONFIG)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_run_again_it_is_the_same_to_the_last_bit(
    pipeline: Pipeline, recogniser: Recogniser, speech: Samples, rate_hz: int, tmp_path: Path
) -> None:
    """Also after the way through a file, and whatever the microphone's rate was."""
    there = soxr.resample(speech * np.float32(0.37), 16_000, rate_hz)
    converter = audio.Converter(rate_hz, 1, source="test")
    [record] = recorded(pipeline, converter.convert(there), converter.finish())
    folder = Folder(tmp_path, CONFIG.records)
    folder.write(record)
    again = replay(folder.read(record.record_id), recogniser, CONFIG)
    assert again.same, (again.before, again.after)
    assert again.otherwise == ()


def test_another_grammar_is_told_and_so_is_what_it_changes(
    pipeline: Pipeline, speech: Samples, tmp_path: Path
) -> None:
    [record] = recorded(pipeline, speech)
    grammar = tmp_path / "other.yaml"
    grammar.write_text(
        "language: en\nintents:\n  Switch:\n    data:\n      - sentences: ['turn on the desk lamp']\n"
    )
    other = Recogniser(CONFIG, grammar)
    try:
        again = replay(record, other, CONFIG)
    finally:
        other.close()
    assert again.otherwise == ("grammar",)
    assert not again.same
    assert not again.tells_the_same
    assert again.after["intent"] == "Switch"


def test_only_what_could_be_said_then_can_be_said_again(
    pipeline: Pipeline, recogniser: Recogniser, speech: Samples
) -> None:
    pipeline.recogniser.active.choose(["HassNevermind", "HassTurnOff"])
    try:
        [record] = recorded(pipeline, speech)
    finally:
        pipeline.recogniser.active.choose(None)
    assert record.fields["result"]["intent"] != "HassTurnOn"
    assert replay(record, recogniser, CONFIG).same
    blocks = recogniser.compiled.blocks
    assert "HassTurnOn" in recogniser.active.at(blocks, 0.0), "and what comes after it is not bound to that"


GIVEN = ["fan", {"in": "desk [lamp]", "out": "light.desk \U0001f4a1"}]


def test_lists_that_were_set_while_it_ran_are_there_again(
    model_path: Path, speech: Samples, tmp_path: Path
) -> None:
    """Whatever the file says, and whatever other records had; labelled, too."""
    assert model_path.is_file()
    path = tmp_path / "lamp.yaml"
    path.write_text(LAMP)
    folder = Folder(tmp_path / "kept", CONFIG.records)
    with closing(Pipeline(CONFIG, path)) as its, closing(Reloader(its.recogniser)) as reloader:
        [without] = recorded(its, speech)
        reloader.set_list("thing", json.dumps(GIVEN).encode())
        wait_until(lambda: its.recogniser._next is not None)
        [given] = recorded(its, speech)
    assert (without.fields["result"]["accepted"], given.fields["result"]["accepted"]) == (False, True)
    assert given.fields["grammar"]["lists"] == ["thing"]
    for record in (without, given):
        folder.write(record)
    folder.label(given.record_id, "On", {"thing": "light.desk \U0001f4a1"})
    folder.purge([without.record_id])
    folder.write(without)
    (folder.path / f"{given.record_id}.json").unlink()  # it has made room
    with closing(Recogniser(CONFIG, path)) as plain:
        for name in (given.record_id, without.record_id, given.record_id):
            again = replay(folder.read(name), plain, CONFIG)
            assert again.same, (again.before, again.after)
            assert again.otherwise == ()
        assert again.right
        plain.use_lists({})
        path.write_text(LAMP.replace("{thing}", "{toy}").replace("thing:", "toy:"))
        plain.use(plain.prepare(plain.load()))
        again = replay(folder.read(given.record_id), plain, CONFIG)  # a grammar without this list
        assert again.otherwise == ("grammar",)
        assert not again.after["accepted"]
    folder.purge()
    assert not [path for path in folder.path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"{"), gzip.compress(b"[1]"), gzip.compress(b"{}")[:-5]],
    ids=["empty", "bytes", "no JSON", "no lists", "cut"],
)
def test_lists_that_are_damaged_are_told(
    pipeline: Pipeline, recogniser: Recogniser, speech: Samples, tmp_path: Path, content: bytes
) -> None:
    [record] = recorded(pipeline, speech)
    folder = Folder(tmp_path, CONFIG.records)
    folder.write(record)
    (tmp_path / f"{record.record_id}.lists").write_bytes(content)
    name = next(iter(recogniser.compiled.file.lists))
    with pytest.raises(UsageError, match=r"lists of record .* damaged"):
        folder.read(record.record_id)
    with pytest.raises(UsageError, match=r"lists that cannot be used: .*list \w+"):
        replay(replace(record, lists={name: [{"in": "(x"}]}), recogniser, CONFIG)


def test_lists_over_mqtt(
    child_environment: dict[str, str], edgevoice: Edgevoice, tmp_path: Path, speech: Samples
) -> None:
    """Through the program: what Home Assistant has set is in the record, and `replay` needs no more."""
    (tmp_path / "lamp.yaml").write_text(LAMP)
    more = "grammar: {file: lamp.yaml}\nrecords: {keep: 5, folder: kept}\nmodel: {threads: 1}\n"
    with Broker() as broker, Subscriber(broker.port, "edgevoice/flat/#") as subscriber:
        config = write_config(tmp_path, broker.port, more=more)
        subscriber.publish("edgevoice/flat/set/lists/thing", json.dumps(GIVEN), retain=True)
        with running(child_environment, "run", "--config", config, "--input", "-") as run:
            subscriber.wait_for(lambda m: m.topic.endswith("/grammar") and m.json()["lists"] == ["thing"], 30)
            run.communicate(pcm(np.concatenate([speech, np.zeros(16_000, np.float32)])), 30)
        subscriber.wait_for(lambda m: "/intent/On" in m.topic, 5)
    done = edgevoice("replay", "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"1 run again: 1 the same to the last bit" in done.stdout
    assert b"then with other" not in done.stdout


@pytest.mark.parametrize(
    ("label", "right"),
    [
        ({"intent": "HassTurnOn", "slots": {"name": "desk lamp"}}, True),
        ({"intent": "HassTurnOn", "slots": {}}, True),
        ({"intent": "HassTurnOff", "slots": {}}, False),
        ({"intent": "HassTurnOn", "slots": {"name": "fan"}}, False),
        ({"intent": None, "slots": {}}, False),
        (None, None),
    ],
)
def test_a_label_says_whether_it_is_right(
    pipeline: Pipeline,
    recogniser: Recogniser,
    speech: Samples,
    label: dict[str, Any] | None,
    right: bool | None,
) -> None:
    [record] = recorded(pipeline, speech)
    if label is not None:
        record = replace(record, fields=record.fields | {"label": label})
    assert replay(record, recogniser, CONFIG).right is right


def test_what_is_damaged_is_an_error(recogniser: Recogniser, speech: Samples) -> None:
    damaged: tuple[dict[str, Any], ...] = (
        {},
        {"utterance": {}},
        {"utterance": {"nonsense": 1}, "result": {}},
    )
    for fields in damaged:
        with pytest.raises(UsageError, match="damaged"):
            replay(Record("a", fields, speech), recogniser, CONFIG)


def test_a_grammar_has_the_same_name_in_every_process() -> None:
    path = ROOT / "grammars" / "home.yaml"
    code = (
        "import sys; from pathlib import Path; from edgevoice import grammar, grammar_file; "
        "print(grammar.compile_grammar(grammar_file.load(Path(sys.argv[1]))).digest())"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1


def test_every_reason_has_words_for_people() -> None:
    assert REASONS.keys() == set(get_args(events.Reason))
    for words in REASONS.values():
        assert words.meaning.endswith(".")
        assert words.remedy.endswith(".")


def test_a_command_is_kept_looked_at_run_again_and_labelled(edgevoice: Edgevoice, tmp_path: Path) -> None:
    """The way of a user, through the program."""
    config = tmp_path / "edgevoice.yaml"
    config.write_text("records: {keep: 5, folder: kept}\nmodel: {threads: 1}\n")
    files = [ROOT / "samples" / f"{name}.flac" for name in ("turn-on-desk-lamp", "refused-washing-machine")]
    done = edgevoice("run", "--config", config, "--input", *files)
    assert done.returncode == 0, done.stderr
    listed = edgevoice("records", "list", "--config", config).stdout.decode()
    assert "HassTurnOn name=desk lamp" in listed
    assert "refused: out_of_grammar" in listed
    shown = edgevoice("records", "show", "last", "--config", config).stdout.decode()
    assert REASONS["out_of_grammar"].meaning in " ".join(shown.split())
    whole = json.loads(edgevoice("records", "show", "last", "--json", "--config", config).stdout)
    assert whole["result"]["reason"] == "out_of_grammar"
    again = edgevoice("replay", "--config", config)
    assert again.returncode == 0
    assert b"2 run again: 2 the same to the last bit" in again.stdout
    name = listed.split()[0]
    label = ("records", "label", "--config", config)
    assert edgevoice(*label, "last", "none").returncode == 0
    measure = edgevoice(*label, name, "HassTurnOn", "name=desk lamp")
    assert f"edgevoice eval {tmp_path / 'kept' / 'labelled'}" in measure.stdout.decode()
    again = edgevoice("replay", "--config", config)
    assert b"of 2 labelled 2 right" in again.stdout
    assert edgevoice("records", "purge", "--config", config).stdout == b"2 removed\n"
    assert edgevoice("replay", "--config", config).returncode == 2
