"""A grammar changes while the service runs; a bad one changes nothing, and it is told where it is wrong."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from edgevoice import grammar_file, match
from edgevoice.commands import Commands
from edgevoice.config import Config
from edgevoice.errors import UsageError
from edgevoice.events import SAMPLE_RATE_HZ, Utterance
from edgevoice.recognise import Recogniser
from edgevoice.reload import MAX_KEPT, MAX_LIST_BYTES, WATCH_S, Reloader
from edgevoice.testing import Broker, Subscriber
from tests.conftest import wait_until
from tests.test_network import listening, speak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgevoice.events import Samples
    from edgevoice.grammar_file import GrammarFile
    from edgevoice.recognise import Decoding
    from tests.conftest import Sample

LONG_S = 20.0  # for a busy machine

LAMP = """
language: en
intents:
  On: {data: [{sentences: ["turn on the {thing}"]}]}
lists:
  thing: {values: [radio]}
"""


class Told:
    """What the topic `grammar` would say."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []

    def __call__(self, fields: dict[str, object]) -> None:
        """Take a message."""
        self.fields.append(fields)

    def wait(self, count: int) -> dict[str, Any]:
        """Wait for the count-th message and return it."""
        wait_until(lambda: len(self.fields) >= count, LONG_S)
        return self.fields[count - 1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "lamp.yaml"
    file.write_text(LAMP)
    return file


@pytest.fixture
def recogniser(path: Path, model_path: Path) -> Iterator[Recogniser]:
    assert model_path.is_file()
    opened = Recogniser(Config(), path)
    yield opened
    opened.close()


@contextmanager
def reloading(recogniser: Recogniser, **choices: Path) -> Iterator[tuple[Reloader, Told]]:
    told = Told()
    reloader = Reloader(recogniser, told, choices=choices)
    try:
        yield reloader, told
    finally:
        reloader.close()


def heard(recogniser: Recogniser, samples: Samples) -> str | None:
    """The text of an utterance, if it is accepted."""
    answer = recogniser.recognise(
        Utterance(samples, 0, 0, len(samples), "silence", len(samples) / SAMPLE_RATE_HZ)
    )
    assert answer is not None
    meaning = answer.decision.meaning
    return meaning.text if meaning and answer.decision.reason is None else None


def test_a_changed_file_is_taken_with_the_next_command(
    recogniser: Recogniser, path: Path, speech: Samples
) -> None:
    with reloading(recogniser) as (_, told):
        assert told.wait(1) | {"loaded": ""} == {
            "name": "lamp",
            "names": ["lamp"],
            "file": "lamp.yaml",
            "language": "en",
            "intents": ["On"],
            "only": None,
            "lists": [],
            "loaded": "",
            "error": None,
        }
        assert heard(recogniser, speech) is None
        changed_s = time.monotonic()
        path.write_text(LAMP.replace("[radio]", "[radio, desk lamp]").replace("On:", "Light:"))
        assert told.wait(2)["intents"] == ["Light"]
        assert time.monotonic() - changed_s < 2 * WATCH_S + 1
        assert heard(recogniser, speech) == "Turn on the desk lamp."


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (LAMP.replace("{thing}", "{thingy}"), r"lamp.yaml:4: list \{thingy\} is not defined"),
        ("language: en\nintents: [\n", r"lamp.yaml:\d: not valid YAML"),
        (LAMP.replace("language: en", "language: de"), "model tiny.en knows only English"),
        (None, "lamp.yaml: cannot be read"),
    ],
    ids=["grammar", "yaml", "language", "gone"],
)
def test_a_bad_file_changes_nothing_and_is_told(
    recogniser: Recogniser, path: Path, speech: Samples, broken: str | None, said: str
) -> None:
    path.write_text(LAMP.replace("radio", "desk lamp"))
    with reloading(recogniser) as (reloader, told):
        reloader.reload()
        loaded = told.wait(2)["loaded"]
        path.unlink()
        if broken is not None:
            path.write_text(broken)
        reloader.reload()
        wait_until(lambda: told.fields[-1]["error"] is not None, LONG_S)
        fields = told.fields[-1]
        assert re.search(said, fields["error"])
        assert (fields["loaded"], fields["intents"]) == (loaded, ["On"])
        assert heard(recogniser, speech) == "Turn on the desk lamp."
        path.write_text(LAMP)
        wait_until(lambda: told.fields[-1]["error"] is None, LONG_S)
        assert heard(recogniser, speech) is None


def test_a_list_is_set_and_given_back(recogniser: Recogniser, path: Path, speech: Samples) -> None:
    with reloading(recogniser) as (reloader, told):
        reloader.set_list("thing", b'["fan", {"in": "desk [lamp]", "out": "light.desk"}]')
        assert told.wait(2)["lists"] == ["thing"]
        assert heard(recogniser, speech) == "Turn on the desk lamp."
        (meaning,) = match.interpret(recogniser.grammar, "turn on the desk")
        assert meaning.slots == {"thing": "light.desk"}
        path.write_text(LAMP + "skip_words: [please]\n")  # the list stays
        told.wait(3)
        assert heard(recogniser, speech) == "Turn on the desk lamp."
        reloader.set_list("thing", b"")
        assert told.wait(4)["lists"] == []
        assert heard(recogniser, speech) is None
        reloader.set_list("thing", b" ")  # nothing to give back: nothing to do
        reloader.reload()
        told.wait(5)
        assert len(told.fields) == 5


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("things", b"[]", "no list 'things'; its lists are thing"),
        ("thing", b"kitchen", "no JSON .* send a list"),
        ("thing", b"\xff", "no JSON"),
        ("thing", b"[" * 100_000, "no JSON"),
        ("thing", b'{"a": 1}', "must be a list"),
        ("thing", b"[]", "is empty"),
        ("thing", b"[true]", "must be text"),
        ("thing", b'[{"out": 1}]', "needs 'in'"),
        ("thing", b'["(open"]', "no sentence template"),
        ("thing", b'["' + b"x" * MAX_LIST_BYTES + b'"]', "allowed are"),
    ],
)
def test_a_list_that_is_none_is_refused(recogniser: Recogniser, name: str, payload: bytes, said: str) -> None:
    with reloading(recogniser) as (reloader, told):
        with pytest.raises(UsageError, match=said) as caught:
            reloader.set_list(name, payload)
        assert len(str(caught.value)) < 400
        assert len(told.fields) == 1


def test_another_grammar_is_chosen(recogniser: Recogniser, path: Path, speech: Samples) -> None:
    """By its name, with nothing back again; what is set for a list goes on where there is such a list."""
    guests = path.with_name("guests.yaml")
    guests.write_text(LAMP.replace("radio", "desk lamp").replace("On:", "Guest:"))
    with reloading(recogniser, visitors=guests) as (reloader, told):
        assert told.wait(1)["names"] == ["lamp", "visitors"]
        with pytest.raises(UsageError, match="grammar: 'guests' seen; allowed are lamp, visitors"):
            reloader.choose(b"guests")
        reloader.choose(b"visitors")
        assert told.wait(2) | {"loaded": ""} == told.wait(1) | {
            "name": "visitors", "file": "guests.yaml", "intents": ["Guest"], "loaded": "",
        }  # fmt: skip
        assert heard(recogniser, speech) == "Turn on the desk lamp."
        reloader.choose(b"visitors")  # as a retained message does at each connection: nothing to do
        guests.write_text(LAMP.replace("radio", "desk lamp").replace("On:", "Visitor:"))
        assert told.wait(3)["intents"] == ["Visitor"]  # it is the one that is watched
        reloader.choose(b"")
        assert told.wait(4)["name"] == "lamp"
        assert heard(recogniser, speech) is None


def test_a_choice_of_the_same_name(recogniser: Recogniser, path: Path) -> None:
    """The file of the beginning then has its whole name."""
    other = path.with_name("other.yaml")
    other.write_text(LAMP)
    with reloading(recogniser, lamp=other) as (reloader, told):
        assert (told.wait(1)["name"], told.wait(1)["names"]) == ("lamp.yaml", ["lamp.yaml", "lamp"])
        reloader.choose(b"lamp")
        assert told.wait(2)["file"] == "other.yaml"


def test_a_bad_one_is_chosen(recogniser: Recogniser, path: Path) -> None:
    """The one before goes on, and is what is told; when the file is mended, it is taken."""
    bad = path.with_name("bad.yaml")
    with reloading(recogniser, lamp=path, bad=bad) as (reloader, told):
        reloader.choose(b"bad")
        fields = told.wait(2)
        assert (fields["name"], fields["file"]) == ("lamp", "lamp.yaml")
        assert "bad.yaml: cannot be read" in fields["error"]
        bad.write_text(LAMP)
        assert told.wait(3) | {"loaded": ""} == fields | {
            "name": "bad", "file": "bad.yaml", "error": None, "loaded": "",
        }  # fmt: skip


@pytest.fixture
def guests(path: Path) -> Path:
    """A grammar with a list and an intent that the first one has not."""
    file = path.with_name("guests.yaml")
    file.write_text(LAMP.replace("On:", "Guest:").replace("thing", "toy"))
    return file


def test_retained_for_another_grammar(recogniser: Recogniser, guests: Path, speech: Samples) -> None:
    """What only the chosen grammar has a place for may come before that is there: it is taken then."""
    with reloading(recogniser, guests=guests) as (reloader, told):
        with pytest.raises(UsageError, match=r"has no list 'toy'; .*; kept for a grammar that has it"):
            reloader.set_list("toy", b'["desk lamp"]', retained=True)
        with pytest.raises(UsageError, match=r"has no intent 'Guest'; .*; kept for a grammar that has it"):
            reloader.set_intents(b'["Guest"]', retained=True)
        with pytest.raises(UsageError, match=r"no list 'toys'; its lists are thing$"):
            reloader.set_list("toys", b'["ball"]')  # whoever sends this waits for the answer
        reloader.choose(b"guests")
        assert told.wait(2)["intents"] == ["Guest"]
        assert told.wait(3)["only"] == ["Guest"]
        assert told.wait(4)["lists"] == ["toy"]
        assert heard(recogniser, speech) == "Turn on the desk lamp."
        reloader.choose(b"")
        wait_until(lambda: told.fields[-1]["name"] == "lamp", LONG_S)
    assert "toys" not in str(told.fields)


def test_kept_ones_are_bounded_and_replaced(recogniser: Recogniser, guests: Path) -> None:
    """The newest of each name, some names, and no more of all than one list may have."""
    with reloading(recogniser, guests=guests) as (reloader, told):

        def send(name: str, payload: bytes, *, retained: bool = True) -> None:
            with pytest.raises(UsageError):
                reloader.set_list(name, payload, retained=retained)

        for i in range(MAX_KEPT + 10):
            send(f"l{i}", b'["x"]')
        assert next(iter(reloader._kept)) == "lists/l10"
        send("toy", b"[" + b" " * (MAX_LIST_BYTES - 2) + b"]")
        assert list(reloader._kept) == ["lists/toy"]
        send("toy", b'["ball"]')
        send("toy", b"", retained=False)  # who had it retained takes that back
        assert reloader._kept == {}
        reloader.set_list("thing", b'["desk lamp"]')
        reloader.choose(b"guests")
        wait_until(lambda: told.fields[-1]["name"] == "guests", LONG_S)
        assert told.fields[-1]["only"] is None


@pytest.fixture
def slow(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Compiling has begun; it may go on."""
    begun, go_on = threading.Event(), threading.Event()
    prepare = recogniser.prepare

    def wait(file: GrammarFile) -> Decoding:
        begun.set()
        go_on.wait(LONG_S)
        return prepare(file)

    monkeypatch.setattr(recogniser, "prepare", wait)
    yield begun, go_on
    go_on.set()


def test_no_room(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch, speech: Samples) -> None:
    """A grammar for which there is no memory is told, and the one before goes on."""

    def prepare(_: GrammarFile) -> Decoding:
        raise MemoryError

    with reloading(recogniser) as (reloader, told):
        with monkeypatch.context() as patch:
            patch.setattr(recogniser, "prepare", prepare)
            reloader.reload()
            assert told.wait(2)["error"] == "not enough memory; make the grammar smaller"
            assert heard(recogniser, speech) is None
        reloader.set_list("thing", b'["desk lamp"]')
        assert told.wait(3)["error"] is None
        assert heard(recogniser, speech) == "Turn on the desk lamp."


def test_done_is_told_of_the_reading_that_was_asked_for(
    recogniser: Recogniser, slow: tuple[threading.Event, threading.Event]
) -> None:
    """While another one runs, that one's end is not it, nor is a choice of intents."""
    begun, go_on = slow
    done = threading.Event()
    with reloading(recogniser) as (reloader, told):
        reloader.reload()
        assert begun.wait(LONG_S)
        reloader.reload(done.set)
        begun.clear()
        reloader.set_intents(b'["On"]')
        go_on.set()
        assert begun.wait(LONG_S)
        go_on.clear()
        told.wait(3)
        assert not done.is_set()
        go_on.set()
        assert done.wait(LONG_S)
        assert len(told.fields) == 4


def test_closed_while_it_compiles(
    recogniser: Recogniser, slow: tuple[threading.Event, threading.Event]
) -> None:
    """It ends at once; what was being compiled is taken by nobody, and nobody is told."""
    begun, go_on = slow
    with reloading(recogniser) as (reloader, told):
        reloader.reload()
        assert begun.wait(LONG_S)
        started_s = time.monotonic()
        reloader.close()
        assert time.monotonic() - started_s < 3  # 0.3, and a busy machine
        go_on.set()
        reloader._thread.join(LONG_S)
    assert len(told.fields) == 1
    assert recogniser._next is None


def test_changing_while_recognising(recogniser: Recogniser, path: Path, speech: Samples) -> None:
    """Ten grammars in a row, each as soon as it is there: no command is lost, and the last one stays."""
    path.write_text(LAMP.replace("radio", "desk lamp"))
    file = grammar_file.load(path)
    for _ in range(10):
        recogniser.use(recogniser.prepare(file))
        recogniser.use(recogniser.prepare(file))  # the one before was never used
        recogniser.cancel()
        assert heard(recogniser, speech) == "Turn on the desk lamp."


def test_commands_reach_it(recogniser: Recogniser) -> None:
    taken = Commands(5.0)
    with pytest.raises(UsageError, match="nothing is listening yet"):
        taken.take("reload", b"")
    with reloading(recogniser) as (reloader, told):
        taken.reloader = reloader
        taken.take("reload", b"")
        told.wait(2)
        taken.take("lists/thing", b'["desk lamp"]', retained=True)
        assert told.wait(3)["lists"] == ["thing"]
        taken.take("reload", b"", retained=True)  # meant for another time
        with pytest.raises(UsageError, match="allowed is nothing"):
            taken.take("reload", b"now")
        assert len(told.fields) == 3


def test_the_service(
    child_environment: dict[str, str], path: Path, tmp_path: Path, samples: tuple[Sample, ...]
) -> None:
    """A list that was retained before it started, a changed file and SIGHUP, and a bad file, over MQTT."""
    lamp = next(sample for sample in samples if sample.path.stem == "turn-on-desk-lamp")
    with Broker() as broker, Subscriber(broker.port, "edgevoice/#") as subscriber:
        config = tmp_path / "edgevoice.yaml"
        config.write_text(f"mqtt: {{host: {broker.host}, port: {broker.port}}}\n")
        subscriber.publish("edgevoice/default/set/lists/thing", '["desk lamp"]', retain=True)
        arguments = ("--config", str(config), "--grammar", str(path))
        with listening(child_environment, *arguments) as (child, address):

            def told(fits: Callable[[dict[str, Any]], bool]) -> None:
                subscriber.wait_for(
                    lambda message: (
                        message.topic == "edgevoice/default/grammar" and fits(json.loads(message.payload))
                    ),
                    LONG_S,
                )

            def answer() -> bytes:
                with socket.create_connection(address) as caller:
                    speak(caller, lamp)
                    return child.stdout.readline() if child.stdout else b""

            told(lambda fields: fields["lists"] == ["thing"])
            assert b"-> On thing=desk lamp" in answer()
            path.write_text(LAMP.replace("On:", "Light:"))
            child.send_signal(signal.SIGHUP)
            told(lambda fields: fields["intents"] == ["Light"])
            assert b"-> Light thing=desk lamp" in answer()
            path.write_text("language: en\nintents: {}\n")
            told(lambda fields: fields["error"] is not None)
            assert b"-> Light thing=desk lamp" in answer()
