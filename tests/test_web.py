"""The page of the real service: what was recognised is on it, and nobody who comes harms recognition."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgevoice.audio import read_audio
from edgevoice.testing import Broker, Subscriber
from tests.conftest import ROOT, running, wait_until
from tests.test_end_to_end import pcm, room
from tests.test_metrics import read
from tests.web_client import Answer, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Sample


@dataclass(slots=True)
class Service:
    """`edgevoice run`, which hears what is said to it."""

    process: subprocess.Popen[bytes]
    samples: dict[str, Sample]
    log: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Of its page, once it says so."""
        wait_until(lambda: any("web: listening" in line for line in self.log), 30)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", "".join(self.log))
        assert found
        return int(found[1])

    def say(self, name: str) -> None:
        """Say what a sample says, and be silent for a while."""
        assert self.process.stdin
        self.process.stdin.write(pcm(read_audio(self.samples[name].path)) + pcm(room(2.0)))
        self.process.stdin.flush()

    def get(self, path: str) -> Any:
        """JSON of its page."""
        answer = ask(self.port, path)
        assert answer.status == 200, answer.body
        return answer.json()

    def post(self, path: str, fields: object) -> Answer:
        """As its page does."""
        origin = {"origin": f"http://127.0.0.1:{self.port}"}
        return ask(self.port, path, "POST", json.dumps(fields).encode(), origin)

    def newest(self, count: int) -> dict[str, Any]:
        """Of so many utterances, once there are."""
        wait_until(lambda: len(self.get("/api/utterances")["utterances"]) == count, 30)
        newest: dict[str, Any] = self.get("/api/utterances")["utterances"][0]
        return newest


@contextmanager
def service(
    environment: dict[str, str],
    samples: tuple[Sample, ...],
    config: Path,
    text: str,
    source: tuple[str, ...] = ("--input", "-"),
) -> Iterator[Service]:
    config.write_text(text if "web:" in text else f"web: {{listen: '127.0.0.1:0'}}\n{text}")
    with running(environment, "run", "--config", config, *source) as process:
        started = Service(process, {sample.path.stem: sample for sample in samples})

        reader = threading.Thread(target=lambda: _collect(process, started.log))
        reader.start()
        yield started
        process.kill()
        reader.join()


def _collect(process: subprocess.Popen[bytes], log: list[str]) -> None:
    assert process.stderr
    for line in process.stderr:
        log.append(line.decode())  # noqa: PERF401 - one at a time, as it comes


def test_what_was_said_is_shown(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """With its reason, why, sound and figures; a clean end by SIGTERM."""
    text = f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
    with service(child_environment, samples, tmp_path / "c.yaml", text) as run:
        run.say("turn-on-desk-lamp")
        accepted = run.newest(1)
        assert (accepted["intent"], accepted["slots"]) == ("HassTurnOn", {"name": "desk lamp"})
        assert accepted["words"] is None
        run.say("refused-washing-machine")
        refused = run.newest(2)
        assert (refused["reason"], refused["accepted"]) == ("out_of_grammar", False)
        assert "add it to the grammar" in refused["words"]["remedy"]
        whole = run.get(f"/api/utterances/{refused['id']}")
        assert whole["recognitions"][-1]["outcome"] == "out_of_grammar"
        assert len(whole["track"]["speech"]) == len(whole["track"]["level_dbfs"]) > 30
        wait_until(lambda: bool(run.get(f"/api/utterances/{refused['id']}")["sound"]))
        sound = ask(run.port, f"/api/utterances/{refused['id']}/sound").body
        assert sound[:4] == b"fLaC"
        found = read(ask(run.port, "/metrics").body.decode())
        assert found["edgevoice_utterances_total", (("outcome", "accepted"),)] == 1
        assert found["edgevoice_utterances_total", (("outcome", "out_of_grammar"),)] == 1
        assert found["edgevoice_stage_seconds_count", (("stage", "encode"),)] == 2
        assert found["edgevoice_records_total", (("outcome", "kept"),)] == 2
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(10) == 0
    assert not [line for line in run.log if "Traceback" in line or "ERROR" in line]


def test_again_with_another_grammar(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """A record is run again, labelled, and what a sentence more in the grammar changes is shown."""
    grammar = tmp_path / "home.yaml"
    shipped = (ROOT / "grammars" / "home.yaml").read_text()
    grammar.write_text(shipped)
    text = (
        f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
        f"grammar: {{file: {grammar}}}\n"
        "web: {listen: '127.0.0.1:0', edit: true}\n"
    )
    with service(child_environment, samples, tmp_path / "c.yaml", text) as run:
        run.say("refused-washing-machine")
        path = f"/api/utterances/{run.newest(1)['id']}"
        wait_until(lambda: bool(run.get(path)["sound"]))
        told = run.post(f"{path}/again", {}).json()
        assert (told["same"], told["after"]["reason"], told["right"]) == (True, "out_of_grammar", None)
        assert "add it to the grammar" in told["words"]["remedy"]
        assert run.post(f"{path}/label", {"say": "turn on the washing machine"}).status == 409
        labelled = run.post(f"{path}/label", {"say": None}).json()
        assert labelled == {"label": {"intent": None, "slots": {}}}
        assert run.post(f"{path}/again", {}).json()["right"]
        read = run.get("/api/grammar")
        washing = shipped.replace("- floor lamp\n", "- floor lamp\n      - washing machine\n", 1)
        assert washing != shipped
        saved = run.post("/api/grammar", {"text": washing, "digest": read["digest"]})
        assert saved.status == 200, saved.body
        told = run.post(f"{path}/again", {}).json()
        assert (told["after"]["intent"], told["after"]["slots"]) == (
            "HassTurnOn",
            {"name": "washing machine"},
        )
        assert (told["same"], told["tells_the_same"], told["right"]) == (False, False, False)
        assert "grammar" in told["otherwise"]
        label = {"intent": "HassTurnOn", "slots": {"name": "washing machine"}}
        assert run.post(f"{path}/label", {"say": "turn on the washing machine"}).json() == {"label": label}
        assert run.newest(1)["label"] == label
        assert run.post(f"{path}/again", {}).json()["right"]
        # Said to try it out, and said: only then somebody acts.
        with ThreadPoolExecutor() as pool:
            trial = pool.submit(run.post, "/api/trial", {"say": "turn on the washing machine"})
            time.sleep(0.5)  # until it is on
            run.say("refused-washing-machine")
            tried = trial.result()
        assert tried.status == 200, tried.body
        assert tried.json()["right"]
        assert run.newest(2)["trial"]
        run.say("turn-on-desk-lamp")
        assert not run.newest(3)["trial"]
        assert run.process.stdout
        lines = [run.process.stdout.readline().decode() for _ in range(2)]
        assert "refused (out_of_grammar)" in lines[0]
        assert "-> HassTurnOn name=desk lamp" in lines[1]
    assert not [line for line in run.log if "Traceback" in line or "ERROR" in line]


def test_a_typed_command_is_published(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """As if it had been said, when that is asked for; and what is only tried is not."""
    with Broker() as broker, Subscriber(broker.port, "edgevoice/#") as subscriber:
        text = f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\naudio: {{enabled: false}}\n"
        with service(child_environment, samples, tmp_path / "c.yaml", text, source=()) as run:
            told = run.post("/api/text", {"say": "turn on the floor lamp"}).json()
            assert (told["outcome"], told["meanings"][0]["slots"]) == ("understood", {"name": "floor lamp"})
            assert run.post("/api/do", {"say": "turn on the washing machine"}).status == 409
            done = run.post("/api/do", {"say": "turn on the desk lamp"}).json()["result"]
            said = subscriber.wait_for(lambda message: message.topic == "edgevoice/default/intent/HassTurnOn")
            assert len(said) == 1
            fields = said[0].json()
            assert fields == done
            assert (fields["slots"], fields["accepted"]) == ({"name": "desk lamp"}, True)
            found = read(ask(run.port, "/metrics").body.decode())
            assert found["edgevoice_utterances_total", (("outcome", "accepted"),)] == 1


def test_who_speaks_goes_first(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """While somebody speaks no record is run again, and one that is run gives way."""
    text = f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
    with service(child_environment, samples, tmp_path / "c.yaml", text) as run:
        run.say("turn-on-desk-lamp")
        path = f"/api/utterances/{run.newest(1)['id']}"
        wait_until(lambda: bool(run.get(path)["sound"]))
        done = threading.Event()
        statuses: list[int] = []

        def again() -> None:
            while not done.is_set():
                statuses.append(run.post(f"{path}/again", {}).status)

        thread = threading.Thread(target=again)
        thread.start()
        try:
            for count in (2, 3, 4):
                run.say("turn-on-desk-lamp")
                assert run.newest(count)["slots"] == {"name": "desk lamp"}
        finally:
            done.set()
            thread.join()
        assert set(statuses) == {200, 503}
    assert not [line for line in run.log if "Traceback" in line or "ERROR" in line]


def test_recognition_goes_on_whoever_comes(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """Hundreds of connections, noise, slow ones, some that do not read: commands are understood."""
    with service(child_environment, samples, tmp_path / "c.yaml", "") as run, ExitStack() as stack:
        address = ("127.0.0.1", run.port)
        closing_time = threading.Event()

        def attack(number: int) -> None:
            while not closing_time.is_set():
                try:
                    with closing(socket.create_connection(address, 5)) as connection:
                        connection.sendall((
                            b"\xff" * 70_000,
                            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200,
                            b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                            b"POST /api/mute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n",
                        )[number])  # fmt: skip
                        closing_time.wait(0.2)
                except OSError:
                    closing_time.wait(0.05)

        threads = [threading.Thread(target=attack, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(150):
                try:
                    stack.enter_context(closing(socket.create_connection(address, 5))).sendall(b"GET / HT")
                except OSError:
                    continue
            names = ("turn-on-desk-lamp", "refused-washing-machine", "pause-music")
            for name in names:
                run.say(name)
            assert run.process.stdout
            lines = [run.process.stdout.readline().decode() for _ in names]
        finally:
            closing_time.set()
            for thread in threads:
                thread.join()
        assert "-> HassTurnOn name=desk lamp" in lines[0]
        assert "refused (out_of_grammar)" in lines[1]
        assert f"-> {run.samples['pause-music'].intent}" in lines[2]
        stack.close()
        wait_until(lambda: _served(run))
        run.newest(3)
        assert run.process.poll() is None
    assert not [line for line in run.log if "Traceback" in line or "ERROR" in line]
    assert len(run.log) < 20  # who attacks does not fill the log


def _served(run: Service) -> bool:
    try:
        return ask(run.port, "/").status == 200
    except OSError:
        return False


def test_who_does_not_want_it_does_not_load_it(child_environment: dict[str, str]) -> None:
    """`edgevoice run` without web.listen is not larger for it."""
    code = (
        "import json, sys; from edgevoice import cli, service; "
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in "
        "('uvicorn', 'starlette', 'anyio', 'h11', 'asyncio')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_without_the_extra(child_environment: dict[str, str], tmp_path: Path) -> None:
    """It says what to install."""
    config = tmp_path / "edgevoice.yaml"
    config.write_text("web: {listen: '127.0.0.1:0'}\n")
    (tmp_path / "uvicorn.py").write_text("raise ImportError(name='uvicorn')\n")
    environment = child_environment | {"PYTHONPATH": f"{tmp_path}:{child_environment['PYTHONPATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "edgevoice", "run", "--config", config, "--input", "-"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert b"pip install 'edgevoice[web]'" in done.stderr
    assert b"Traceback" not in done.stderr
