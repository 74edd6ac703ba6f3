"""What can be tried on the page, and changed: typed text, the grammar, a record once more."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from edgevoice import web_grammar
from edgevoice.commands import Commands
from edgevoice.config import Config, GrammarConfig, RecordsConfig, WebConfig
from edgevoice.floor import Talk
from edgevoice.recognise import Recogniser, nothing_said, shipped_grammar
from edgevoice.reload import Reloader
from edgevoice.trial import TRIAL_S, Trials
from edgevoice.web_bench import MAX_TEXT
from edgevoice.web_grammar import MAX_GRAMMAR_BYTES
from edgevoice.web_microphone import TAKEN
from tests.conftest import wait_until
from tests.web_client import Answer, Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.events import Result
    from edgevoice.native import Model

LAMP = """language: en
intents:
  On: {data: [{sentences: ["turn on the {thing}"]}]}
  Dim: {data: [{sentences: ["dim the {thing} [to {level}]"]}]}
  Ask:
    data:
      - sentences: ["which lights are on"]
      - sentences: ["shut it"]
        slots: {n: 1}
  Shut: {data: [{sentences: ["shut it"]}]}
  Yes: {metadata: {dormant: true}, data: [{sentences: ["yes please"]}]}
lists:
  thing: {values: [desk lamp, radio]}
  level: {range: {from: 1, to: 10}}
expected:
  - {say: turn on the radio, intent: "On", slots: {thing: radio}}
"""


@dataclass(slots=True)
class House:
    """One with a grammar of its own, of which the page is served."""

    web: Served
    path: Path
    recogniser: Recogniser
    given: list[Result] = field(default_factory=list)

    def post(self, path: str, fields: object) -> Answer:
        """As our page does."""
        return self.web.post(path, json.dumps(fields).encode())

    def ask(self, path: str, fields: object) -> Any:
        """The answer to what can be answered."""
        answer = self.post(path, fields)
        assert answer.status == 200, answer.body
        return answer.json()

    def grammar(self) -> Any:
        """What the page shows of it."""
        return self.web.ask("/api/grammar").json()

    def save(self, text: str, digest: str | None = None) -> Answer:
        """Save another text, by default in place of what is there."""
        return self.post(
            "/api/grammar", {"text": text, "digest": self.grammar()["digest"] if digest is None else digest}
        )


@contextmanager
def house(model: Model, path: Path, *, edit: bool = True, **others: Any) -> Iterator[House]:
    config = replace(
        Config(web=WebConfig(listen="127.0.0.1:0", edit=edit), grammar=GrammarConfig(file=path)), **others
    )
    with closing(Recogniser(config, model=model)) as recogniser:
        commands = Commands(5.0, (recogniser,))
        with closing(Reloader(recogniser)) as commands.reloader, served(config, commands) as web:
            opened = House(web, path, recogniser)
            commands.give = opened.given.append
            yield opened


@pytest.fixture(scope="module")
def home(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    path = tmp_path_factory.mktemp("home") / "lamp.yaml"
    path.write_text(LAMP)
    with house(model, path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each of these, it serves as before, and nobody was given anything that was not asked for."""
    yield
    if "home" in request.fixturenames:
        home: House = request.getfixturevalue("home")
        assert home.ask("/api/text", {"say": "turn on the radio"})["outcome"] == "understood"
        assert home.path.read_text() == LAMP
        assert not home.given


class TestText:
    """What is typed."""

    def test_understood(self, home: House) -> None:
        """With its meaning, and the line of the grammar that says so."""
        told = home.ask("/api/text", {"say": "Turn on the desk lamp."})
        assert told["outcome"] == "understood"
        assert told["meanings"] == [
            {
                "intent": "On", "slots": {"thing": "desk lamp"}, "sentence": "Turn on the desk lamp.",
                "corrected": False, "confirm": False,
            }
        ]  # fmt: skip
        (reading,) = told["readings"]
        assert (reading["line"], reading["template"]) == (3, "turn on the {thing}")

    def test_put_right(self, home: House) -> None:
        """As what comes over Hermes or Wyoming is; and the page says for what it was taken."""
        told = home.ask("/api/text", {"say": "turn on the desk lampe"})
        assert told["outcome"] == "understood"
        assert told["meanings"][0]["corrected"]
        assert told["meanings"][0]["sentence"] == "turn on the desk lamp"

    def test_refused(self, home: House) -> None:
        """How far it gets, what could come next, and the nearest sentences."""
        told = home.ask("/api/text", {"say": "turn on the dask"})
        assert (told["outcome"], told["meanings"]) == ("refused", [])
        assert (told["reached"], told["rest"]) == ("turn on the", "dask")
        assert told["next"][0] == "{thing}"
        near = home.ask("/api/text", {"say": "which light are on kitchen"})
        assert near["outcome"] == "refused"

    def test_several_meanings(self, home: House) -> None:
        """As when it is said, it is refused."""
        told = home.ask("/api/text", {"say": "shut it"})
        assert told["outcome"] == "ambiguous"
        assert {each["intent"] for each in told["meanings"]} == {"Ask", "Shut"}

    def test_not_now(self, home: House) -> None:
        """What answers a question only, or is switched off, is understood, but cannot be said."""
        assert home.ask("/api/text", {"say": "yes please"})["outcome"] == "asleep"
        home.recogniser.active.choose(["Dim"])
        try:
            assert home.ask("/api/text", {"say": "turn on the radio"})["outcome"] == "asleep"
            refused = home.post("/api/do", {"say": "turn on the radio"})
            assert (refused.status, b"switched off" in refused.body) == (409, True)
        finally:
            home.recogniser.active.choose(None)

    def test_done_if_asked_for(self, home: House) -> None:
        """As if it had been said, and only then."""
        told = home.ask("/api/do", {"say": "dim the radio to 3"})["result"]
        (given,) = home.given
        home.given.clear()
        assert (given.intent, given.slots, given.accepted, given.confidence) == (
            *("Dim", {"thing": "radio", "level": 3}),
            *(True, 1.0),
        )
        assert given.utterance_id == told["utterance_id"]
        for text in ("shut it", "yes please", "open the pod bay doors"):
            assert home.post("/api/do", {"say": text}).status == 409

    @pytest.mark.parametrize(
        "fields",
        [
            *({}, [], None, "turn on the radio", {"say": None}, {"say": 1}, {"say": ["a"]}, {"say": ""}),
            *({"say": " \n"}, {"say": "a" * (MAX_TEXT + 1)}, {"say": "a", "do": True}, {"text": "a"}),
        ],
        ids=range(12),
    )
    def test_no_sentence(self, home: House, fields: object) -> None:
        """400, whatever is asked."""
        for path in ("/api/text", "/api/do", "/api/trial"):
            assert home.post(path, fields).status == 400

    @pytest.mark.parametrize(
        "text", ["\0", "\ud800", "\U0001d54f" * 300, "a " * 250, "<>{}()[]|;\\" * 45, "turn on \0 the"],
        ids=range(6),
    )  # fmt: skip
    def test_odd_text(self, home: House, text: str) -> None:
        """Is no sentence, soon."""
        started_s = time.monotonic()
        answer = home.post("/api/text", {"say": text})
        assert answer.status == 400 if not text.strip() else answer.json()["outcome"] == "refused"
        assert time.monotonic() - started_s < 5  # idle machine: 0.05 s

    def test_bodies(self, home: House) -> None:
        """What is no JSON, or too long, is not looked at."""
        for body in (b"", b"\xff", b"[" * 4_000, b'{"say": "a"', b'{"say": NaN'):
            assert home.web.post("/api/text", body).status == 400
        assert home.web.post("/api/text", b'{"say": "' + b"a" * 5_000 + b'"}').status == 413

    def test_before_anything_listens(self) -> None:
        """It says so."""
        with served() as web:
            for path in ("/api/text", "/api/do", "/api/trial"):
                assert web.post(path, b'{"say": "a"}').status == 409
            assert web.ask("/api/grammar").status == 409


class TestGrammar:
    """The file of the grammar."""

    def test_read(self, home: House) -> None:
        """With what tells one text from another."""
        told = home.grammar()
        assert (told["text"], told["path"], told["read_only"]) == (LAMP, str(home.path), None)
        assert len(told["digest"]) == 64
        assert told["state"]["intents"] == ["On", "Dim", "Ask", "Shut", "Yes"]

    @pytest.mark.parametrize(
        ("text", "line", "column", "words"),
        [
            ("language: en\nintents: [\n  a: b: c\n]", 3, 7, "not valid YAML"),
            (LAMP.replace("to {level}]", "to {level}"), 4, 1, "check its brackets"),
            (LAMP.replace("{thing}", "{thin}", 1), 3, 3, "thin"),
            (LAMP.replace("lists:", "listen:"), 13, 3, "did you mean 'lists'"),
            (LAMP.replace("language: en", "language: de"), 1, 1, "knows only English"),
            ("", 1, 1, "must be 'key: value' lines"),
            ("\t", 1, 1, "not valid YAML"),
        ],
        ids=range(7),
    )
    def test_errors_have_their_place(
        self, home: House, text: str, line: int, column: int, words: str
    ) -> None:
        """The line, and where it begins, or where YAML stopped."""
        told = home.ask("/api/grammar/check", {"text": text})
        assert not told["compiled"]
        found = told["findings"][0]
        assert found["level"] == "error"
        assert found["line"] == line
        assert words in found["text"]
        assert found["column"] == column or "YAML" in words or "brackets" in words

    def test_findings_samples_and_a_sentence(self, home: House) -> None:
        """What is doubtful is told, and what the text would make of a sentence before it is saved."""
        text = LAMP.replace("desk lamp, radio", "desk lamp, radio, fan, van")
        told = home.ask("/api/grammar/check", {"text": text, "say": "dim the fan", "samples": 9, "seed": 1})
        assert told["compiled"]
        assert told["whole"]
        assert told["sentences"] == "51"
        assert [each["intent"] for each in told["said"]["readings"]] == ["Dim"]
        assert {each["level"] for each in told["findings"]} == {"error", "note"}  # ambiguous; sound alike
        assert len(told["samples"]) == 9
        assert {each["intent"] for each in told["samples"]} == {"On", "Dim", "Ask", "Shut", "Yes"}
        assert home.ask("/api/text", {"say": "dim the fan"})["outcome"] == "refused"  # that is not in use
        again = home.ask("/api/grammar/check", {"text": text, "samples": 9, "seed": 1})
        assert again["samples"] == told["samples"]

    @pytest.mark.parametrize(
        "fields",
        [
            *([], {"text": 1}, {"text": None}, {"text": "\ud800"}, {"path": "/etc/passwd"}, {"samples": "1"}),
            *({"samples": 21}, {"samples": -1}, {"samples": True}, {"samples": 1e3}, {"seed": 2**40}),
            *({"say": 1}, {"say": ""}, {"text": LAMP, "name": "../../x"}),
        ],
        ids=range(14),
    )
    def test_no_question(self, home: House, fields: object) -> None:
        """400; no path is taken from anybody."""
        assert home.post("/api/grammar/check", fields).status == 400

    def test_saved(self, model: Model, tmp_path: Path) -> None:
        """What is saved is in use when the answer comes, and what was there lies beside it."""
        path = tmp_path / "lamp.yaml"
        path.write_text(LAMP)
        path.chmod(0o640)
        with house(model, path) as home:
            text = LAMP.replace("radio]", "radio, größere Lampe]")
            told = home.save(text).json()
            assert told["state"]["error"] is None
            assert told["compiled"]
            assert path.read_text() == told["text"] == text
            assert (tmp_path / "lamp.yaml.bak").read_text() == LAMP
            assert path.stat().st_mode & 0o777 == 0o640
            understood = home.ask("/api/text", {"say": "dim the größere lampe"})
            assert understood["outcome"] == "understood"
            assert sorted(each.name for each in tmp_path.iterdir()) == ["lamp.yaml", "lamp.yaml.bak"]

    def test_changed_meanwhile(self, home: House) -> None:
        """What somebody else has written is not lost."""
        digest = home.grammar()["digest"]
        home.path.write_text(f"{LAMP}# theirs\n")
        try:
            answer = home.save(f"{LAMP}# ours\n", digest)
            assert (answer.status, b"somebody else" in answer.body) == (409, True)
            assert home.path.read_text() == f"{LAMP}# theirs\n"
            home.path.unlink()
            assert home.save(LAMP, digest).status == 409
        finally:
            home.path.write_text(LAMP)

    def test_what_cannot_be_used_is_not_saved(self, home: House) -> None:
        """422, with what is wrong; the one in use goes on."""
        for text in (LAMP.replace("{thing}", "{thin}", 1), "", LAMP.replace("language: en", "language: de")):
            answer = home.save(text)
            assert answer.status == 422
            assert answer.json()["findings"][0]["level"] == "error"
            assert not answer.json()["compiled"]
        for fields in ({}, {"text": LAMP}, {"text": LAMP, "digest": 1}, {"digest": "a"}):
            assert home.post("/api/grammar", fields).status == 400

    def test_by_default_the_page_writes_nothing(self, model: Model, tmp_path: Path) -> None:
        """Nor are texts looked at but the file's own."""
        path = tmp_path / "lamp.yaml"
        path.write_text(LAMP)
        with house(model, path, edit=False) as home:
            assert "web.edit" in home.grammar()["read_only"]
            assert home.save(LAMP).status == 403
            assert home.post("/api/grammar/check", {"text": LAMP}).status == 403
            told = home.ask("/api/grammar/check", {"samples": 3, "say": "dim the radio"})
            assert (told["compiled"], len(told["samples"])) == (True, 3)
            assert [each.name for each in tmp_path.iterdir()] == ["lamp.yaml"]

    def test_what_comes_with_edgevoice_is_not_written(self, model: Model) -> None:
        """It can be tried, and copied."""
        path = shipped_grammar()
        before = path.read_bytes()
        with house(model, path) as home:
            assert "copy it" in home.grammar()["read_only"]
            answer = home.save(home.grammar()["text"])
            assert (answer.status, b"comes with edgevoice" in answer.body) == (403, True)
        assert path.read_bytes() == before

    def test_a_file_for_an_editor(self, home: House) -> None:
        """What is too large, or no text, is not shown; a text too large is not taken."""
        large = f"{LAMP}#{'a' * MAX_GRAMMAR_BYTES}\n"
        try:
            for content, words in ((large.encode(), "larger than"), (b"\xff", "no UTF-8")):
                home.path.write_bytes(content)
                told = home.grammar()
                assert (told["text"], words in told["read_only"]) == (None, True)
                assert home.post("/api/grammar/check", {"samples": 1}).status == 409
        finally:
            home.path.write_text(LAMP)
        assert home.post("/api/grammar/check", {"text": large}).status == 413
        assert home.save(large, "a").status == 413
        assert home.web.post("/api/grammar", b" " * (3 * MAX_GRAMMAR_BYTES)).status == 413


def bomb(levels: int) -> str:
    """Aliases, each nine times the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, "language: en", ""])


HOSTILE = {
    "bomb": bomb(12),
    "itself": "language: &a [*a]\n",
    "deep": "[" * 100_000,
    "deep mappings": "{a: " * 60_000,
    "keys": "language: en\nlists: {" + ", ".join(f"l{i}: {{wildcard: true}}" for i in range(9_000)) + "}\n",
    "values": LAMP.replace("radio]", ", ".join(f"thing {i}" for i in range(20_000)) + "]"),
    "ranges": "language: en\nintents: {A: {data: [{sentences: ['" + " ".join(f"{{r{i}}}" for i in range(60))
    + "']}]}}\nlists: {" + ", ".join(f"r{i}: {{range: {{from: 0, to: 9999}}}}" for i in range(60)) + "}\n",
    "optional": LAMP.replace("shut it", "[a]" * 3_000 + " shut it"),
    "alternatives": LAMP.replace("shut it", " ".join(["(a|b|c|d|e)"] * 800)),
    "orders": LAMP.replace("shut it", " ".join(["(a;b;c;d;e)"] * 300)),
    "rules": LAMP + "expansion_rules: {"
    + ", ".join(f"r{i}: '<r{i + 1}> <r{i + 1}>'" for i in range(58)) + ", r58: a}\n",
    "brackets": LAMP.replace("shut it", "(" * 4_000 + "a" + ")" * 4_000),
    "tags": "language: !!python/object/apply:os.system ['touch /tmp/edgevoice-owned']\n",
    "file": "language: !include /etc/passwd\n",
}  # fmt: skip


class TestHostile:
    """A grammar that is meant to do harm."""

    @pytest.mark.parametrize("name", HOSTILE)
    def test_is_looked_at_within_bounds(
        self, home: House, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In time and memory, with a finding or without; and nobody else waits for it."""
        monkeypatch.setattr(web_grammar, "CHECK_S", 2.0)
        assert len(HOSTILE[name]) <= MAX_GRAMMAR_BYTES
        with ThreadPoolExecutor() as pool:
            started_s = time.monotonic()
            looking = pool.submit(home.ask, "/api/grammar/check", {"text": HOSTILE[name], "samples": 3})
            said = home.ask("/api/text", {"say": "turn on the radio"})
            assert said["outcome"] == "understood"
            assert time.monotonic() - started_s < 3  # idle machine: 0.02 s
            told = looking.result()
        assert time.monotonic() - started_s < 10
        assert told["compiled"] or told["findings"][0]["level"] == "error"
        assert len(json.dumps(told)) < 500_000

    def test_many_at_once(self, home: House) -> None:
        """One is looked at after the other, few wait, and others are told when to come again."""
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: home.post("/api/grammar/check", {"text": LAMP}), range(12)))
        statuses = sorted(answer.status for answer in answers)
        assert set(statuses) == {200, 503}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status == 503)

    def test_who_goes_away_leaves_nothing_behind(self, home: House) -> None:
        """The look ends, and the next one can begin."""
        body = json.dumps({"text": LAMP}).encode()
        head = (
            f"POST /api/grammar/check HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(3):
            home.web.raw(head.encode() + body).close()
        wait_until(lambda: home.post("/api/grammar/check", {"text": LAMP}).status == 200, 15)


def children() -> set[str]:
    """Processes of this one that look at a grammar."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"edgevoice.web_check" in (path / "cmdline").read_bytes():
                found.add(path.name)
    return found


def test_the_end_waits_for_nobody(model: Model, tmp_path: Path) -> None:
    """Nor is a process left that looks at a grammar, or a sentence that somebody is to say."""
    path = tmp_path / "lamp.yaml"
    path.write_text(LAMP)
    with ThreadPoolExecutor() as pool:
        with house(model, path) as home:
            home.web.live.tell("listening")
            saying = pool.submit(home.post, "/api/trial", {"say": "turn on the radio"})
            looking = pool.submit(home.post, "/api/grammar/check", {"text": HOSTILE["ranges"]})
            wait_until(lambda: bool(children()))
            wait_until(lambda: home.web.commands.trials._trial is not None)
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 4  # idle machine: 0.6 s
        assert children() == set()
        for asked in (saying, looking):
            with suppress(OSError, HTTPException):
                assert asked.result().status == 503


class TestTrial:
    """What is said to be tried out."""

    def test_of_what_is_said(self) -> None:
        """Only what begins within its time; what was begun before, or is said later, is meant."""
        now_s = [100.0]
        told: list[Result] = []
        trials = Trials(lambda: now_s[0])
        said = replace(nothing_said(16_000, 0.0), latency_ms=300.0)  # a second of speech, up to 0.3 s ago
        assert not trials.take(said)
        trial = trials.begin(told.append)
        with pytest.raises(ValueError, match="somebody else"):
            trials.begin(told.append)
        assert not trials.take(said)  # it began before
        now_s[0] += 1.5
        fields: dict[str, Any] = {"result": {"latency_ms": 300.0, "start_s": 0.0, "end_s": 1.0}}
        trials.mark(fields)
        assert fields["trial"]
        assert trials.take(said)
        assert told == [said]
        assert not trials.take(said)  # it is over
        trials.end(trial)
        other = trials.begin(told.append)
        trials.end(trial)  # another's
        now_s[0] += TRIAL_S + 2
        assert not trials.take(said)
        trials.end(other)

    def test_of_a_browser(self) -> None:
        """All that is said into it."""
        trials = Trials()
        trials.source = Talk(16_000, trial=True)
        assert trials.take(nothing_said(0, 0.0))
        trials.source = Talk(16_000)
        assert not trials.take(nothing_said(0, 0.0))

    @pytest.mark.parametrize(
        "text", ["", "open the doors", "a" * 3_000, "\ud800", "%00", "shut it"], ids=range(6)
    )
    def test_what_is_no_sentence(self, home: House, text: str) -> None:
        """Nobody need begin to speak."""
        query = urlencode({"rate": 16_000, "trial": text.encode("utf-8", "replace")})
        origin = Origin(f"http://127.0.0.1:{home.web.port}")
        with connect(f"ws://127.0.0.1:{home.web.port}/api/microphone?{query}", origin=origin) as socket:
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(10)
            assert caught.value.rcvd
            assert caught.value.rcvd.code == TAKEN
            assert "this is no command: " in caught.value.rcvd.reason

    def test_into_the_microphone_of_the_house(self, home: House) -> None:
        """Whether it is what was to be said; one at a time; who goes ends it."""
        say = {"say": "turn on the radio"}
        assert home.post("/api/trial", say).status == 409  # nothing hears
        trials = home.web.commands.trials
        home.web.live.tell("listening")
        wanted = nothing_said(0, 0.0)
        right = replace(wanted, accepted=True, reason=None, intent="On", slots={"thing": "radio"}, text="a")
        with ThreadPoolExecutor() as pool:
            for result, is_right in ((right, True), (replace(right, slots={}), False), (wanted, False)):
                asked = pool.submit(home.ask, "/api/trial", say)
                wait_until(lambda: trials._trial is not None)
                assert home.post("/api/trial", say).status == 409
                assert trials.take(result)
                told = asked.result()
                assert told["right"] is is_right
                assert told["wanted"]["slots"] == {"thing": "radio"}
            assert told["result"]["words"]["remedy"]
        body = json.dumps(say).encode()
        head = (
            "POST /api/trial HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        connection = home.web.raw(head.encode() + body)
        wait_until(lambda: trials._trial is not None)
        connection.close()
        wait_until(lambda: trials._trial is None)
        assert home.post("/api/trial", {"say": "open the pod bay doors"}).status == 409


class TestRecords:
    """Of what was said."""

    ID = "20261126-172337-945-abcd"

    def test_what_is_not_there(self, home: House, model: Model, tmp_path: Path) -> None:
        """409 or 404, and no path leads anywhere."""
        asked: dict[str, dict[str, None]] = {"again": {}, "label": {"say": None}}
        for name, fields in asked.items():
            assert home.post(f"/api/utterances/{self.ID}/{name}", fields).status == 409  # none are kept
            for path in ("x", "..%2f..%2fetc", f"{self.ID}%00"):
                assert home.post(f"/api/utterances/{path}/{name}", fields).status == 404
            assert home.post(f"/api/utterances/{self.ID}/{name}", {"path": "/etc"}).status == 400
        for wrong in ({}, {"say": 1}, {"say": ""}, {"say": "a" * 501}, {"intent": "x"}):
            assert home.post(f"/api/utterances/{self.ID}/label", wrong).status == 400
        kept = RecordsConfig(keep=9, folder=tmp_path)
        with house(model, home.path, records=kept) as other:
            (tmp_path / f"{self.ID}.json").write_text("{}")
            for name, fields in asked.items():
                assert other.post(f"/api/utterances/{self.ID}/{name}", fields).status == 409
            assert threading.active_count() < 30
