"""Run edgevoice against a real Home Assistant, and say of each thing whether it works.

    python3.13 -m venv ha && ha/bin/pip install homeassistant==2025.4.4
    .venv/bin/python scripts/home_assistant.py ha/bin/hass          a minute, and some more at first

Home Assistant has its own, new folder, listens on loopback only, and fetches what its integrations need.
Over MQTT it finds the device, gets an event with slots and runs the blueprints of docs/; it sets what can be
set, and forgets the device. Over Wyoming it uses edgevoice as speech to text and as conversation agent. Its
entities are imported into a grammar. A line with `FAILED` makes the exit code 1, as does a warning about any
of this in its log.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import wave
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from websockets.sync.client import connect

from edgevoice.audio import read_audio
from edgevoice.testing import Broker, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgevoice.events import Samples

ROOT: Final = Path(__file__).parents[1]
START_S: Final = 240.0  # the first time it installs what its integrations need
SETTLE_S: Final = 2.0  # for what is not asked for, as automations
EDGEVOICE: Final = (sys.executable, "-m", "edgevoice")
DEVICE: Final = "edgevoice_flat"
PASSWORD: Final = "only-for-this-run"  # noqa: S105 - of a Home Assistant that lives for three minutes

States = dict[str, dict[str, Any]]


class Failures:
    """Prints what was found, and counts what is not as it should be."""

    def __init__(self) -> None:
        self.count = 0

    def check(self, holds: bool, what: str) -> None:
        """Print one line."""
        self.count += not holds
        print(f"{'ok' if holds else 'FAILED'}  {what}", flush=True)


class HomeAssistant:
    """A running one, and its interface for programs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = f"http://127.0.0.1:{port}/"
        self.url = self._client.rstrip("/")
        self.token = ""

    def ask(
        self,
        path: str,
        data: object = None,
        *,
        form: bool = False,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask for something, with the token if there is one."""
        sent = dict(headers or {})
        body = raw
        if data is not None and form:
            body = urllib.parse.urlencode(data).encode()  # type: ignore[arg-type]
        elif data is not None:
            body, sent["Content-Type"] = json.dumps(data).encode(), "application/json"
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, body, sent)  # noqa: S310 - our own
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def log_in(self) -> None:
        """Wait until it runs, and get a token."""
        deadline_s = time.monotonic() + START_S
        start = {"client_id": self._client, "handler": ["homeassistant", None], "redirect_uri": self._client}
        while True:
            try:
                flow = self.ask("/auth/login_flow", start)["flow_id"]
                break
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(1)
        login = {"client_id": self._client, "username": "me", "password": PASSWORD}
        code = self.ask(f"/auth/login_flow/{flow}", login)["result"]
        grant = {"client_id": self._client, "grant_type": "authorization_code", "code": code}
        self.token = self.ask("/auth/token", grant, form=True)["access_token"]
        while self.ask("/api/config")["state"] != "RUNNING":
            time.sleep(1)

    def states(self) -> States:
        """Of all entities, by their ids."""
        return {state["entity_id"]: state for state in self.ask("/api/states")}

    def wait(self, holds: Callable[[States], bool], timeout_s: float = 20.0) -> bool:
        """Wait until something is so; False if it never is."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            try:
                if holds(self.states()):
                    return True
            except KeyError:  # an entity that is not there yet
                pass
            time.sleep(0.2)
        return False

    def tell(self, kind: str, **what: object) -> Any:
        """Send a command that only its pages can send, and return the result."""
        with connect(f"ws://127.0.0.1:{self._port}/api/websocket", max_size=2**24) as there:
            there.recv()
            there.send(json.dumps({"type": "auth", "access_token": self.token}))
            there.recv()
            there.send(json.dumps({"id": 1, "type": kind, **what}))
            return json.loads(there.recv())["result"]

    def triggers(self) -> list[str]:
        """Return the types of the device triggers that can be chosen for our device."""
        devices = self.tell("config/device_registry/list")
        ours = [each["id"] for each in devices if ["mqtt", DEVICE] in each["identifiers"]]
        found = self.tell("device_automation/trigger/list", device_id=ours[0]) if ours else []
        return [each["type"] for each in found if each["domain"] == "mqtt"]


@contextmanager
def home_assistant(hass: Path, folder: Path, broker: Broker, log: Path) -> Iterator[HomeAssistant]:
    """Start it in a folder of its own, with the broker set up as a user would have done."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    blueprints = folder / "blueprints/automation/edgevoice"
    shutil.copytree(ROOT / "docs" / "blueprints", blueprints)
    (folder / ".storage").mkdir()
    (folder / "configuration.yaml").write_text(
        json.dumps(_configuration(port), ensure_ascii=False), encoding="utf-8"
    )
    entry: dict[str, object] = {
        "created_at": "2025-01-01T00:00:00+00:00", "modified_at": "2025-01-01T00:00:00+00:00",
        "data": {"broker": broker.host, "port": broker.port}, "disabled_by": None, "discovery_keys": {},
        "domain": "mqtt", "entry_id": "01JMQTT0000000000000000000", "version": 1, "minor_version": 1,
        "options": {}, "pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user",
        "subentries": [], "title": "broker", "unique_id": None,
    }  # fmt: skip
    stored = {"version": 1, "minor_version": 5, "key": "core.config_entries", "data": {"entries": [entry]}}
    (folder / ".storage/core.config_entries").write_text(json.dumps(stored), encoding="utf-8")
    add_user = [str(hass), "--script", "auth", "-c", str(folder), "add", "me", PASSWORD]
    subprocess.run(add_user, check=True, stdout=subprocess.DEVNULL)
    with log.open("wb") as output:
        process = subprocess.Popen([hass, "-c", folder], stdout=output, stderr=subprocess.STDOUT)
        try:
            home = HomeAssistant(port)
            home.log_in()
            yield home
        finally:
            process.terminate()
            process.wait(60)


def _configuration(port: int) -> dict[str, Any]:
    """JSON is YAML, too."""
    said = "{{ slots.name }}, {{ confidence > 0.5 }}, {{ site }}, {{ text }}"
    publish = {"action": "mqtt.publish", "data": {"topic": "test/on_intent", "payload": said}}
    command, state = f"event.{DEVICE}_command", f"sensor.{DEVICE}_state"
    blueprints: list[tuple[str, dict[str, Any]]] = [
        ("on_intent", {"command": command, "intent": "HassTurnOn", "actions": [publish]}),
        ("turn_on_off", {"entities": ["input_boolean.desk_lamp"]}),
        ("tell_when_deaf", {"state": state, "minutes": 1, "actions": [publish]}),
    ]
    return {
        "homeassistant": {"name": "test", "unit_system": "metric", "time_zone": "UTC"},
        "http": {"server_host": "127.0.0.1", "server_port": port},
        "logger": {"default": "warning"},
        **{name: {} for name in ("api", "auth", "config", "conversation", "assist_pipeline", "stt")},
        "input_boolean": {"desk_lamp": {"name": "Desk lamp"}, "hall": {"name": "Hall"}},
        "automation": [
            {"id": name, "alias": name, "use_blueprint": {"path": f"edgevoice/{name}.yaml", "input": inputs}}
            for name, inputs in blueprints
        ],
    }


def _pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def over_mqtt(home: HomeAssistant, broker: Broker, folder: Path, sound: bytes, failures: Failures) -> None:
    """The device, its events and triggers, what can be set, and its end."""
    (folder / "guests.yaml").write_text(
        "language: en\nintents: {Hello: {data: [{sentences: [hello there]}]}}\n"
    )
    config = folder / "mqtt.yaml"
    config.write_text(
        f"site: flat\nmqtt: {{host: {broker.host}, port: {broker.port}, health_interval_s: 5}}\n"
        "home_assistant: {discovery: true}\nwake: {mode: push_to_talk}\n"
        "grammar: {choices: {guests: guests.yaml}}\n"
    )
    check, wait = failures.check, home.wait
    with (
        Subscriber(broker.port, "test/#") as automations,
        subprocess.Popen(
            [*EDGEVOICE, "run", "--config", config, "--input", "-"], stdin=subprocess.PIPE
        ) as edge,
    ):
        if edge.stdin is None:
            raise AssertionError("it was to be a pipe")
        check(wait(lambda now: now[f"switch.{DEVICE}_mute"]["state"] == "off", 60), "the device is there")
        check("HassTurnOn" in home.triggers(), "its intents are triggers")
        home.ask("/api/services/button/press", {"entity_id": f"button.{DEVICE}_listen"})
        time.sleep(1)
        edge.stdin.write(sound)
        edge.stdin.flush()
        text = f"sensor.{DEVICE}_last_command"
        check(wait(lambda now: now[text]["state"] == "Turn on the desk lamp."), "what was said after a push")
        time.sleep(SETTLE_S)
        now = home.states()
        event = now[f"event.{DEVICE}_command"]["attributes"]
        check(
            (event["event_type"], event["slots"]) == ("HassTurnOn", {"name": "desk lamp"}),
            "the event has intent and slots",
        )
        check(now["input_boolean.desk_lamp"]["state"] == "on", "blueprint turn_on_off")
        payloads = [message.payload for message in automations.messages]
        check(payloads == [b"desk lamp, True, flat, Turn on the desk lamp."], "blueprint on_intent, once")
        for service, entity, value in (
            ("switch/turn_on", f"switch.{DEVICE}_mute", {}),
            ("number/set_value", f"number.{DEVICE}_confidence_threshold", {"value": 0.75}),
            ("select/select_option", f"select.{DEVICE}_grammar", {"option": "guests"}),
        ):
            home.ask(f"/api/services/{service}", {"entity_id": entity, **value})
        check(
            wait(
                lambda now: (
                    now[f"switch.{DEVICE}_mute"]["state"] == "on"
                    and now[f"number.{DEVICE}_confidence_threshold"]["state"] == "0.75"
                    and now[f"select.{DEVICE}_grammar"]["state"] == "guests"
                )
            ),
            "mute, threshold and grammar are set",
        )
        types = f"event.{DEVICE}_command"
        check(wait(lambda now: now[types]["attributes"]["event_types"] == ["Hello"]), "other event types")
        check(home.triggers() == ["Hello"], "intents that are gone are no triggers any more")
        edge.stdin.close()
        check(edge.wait(20) == 0, "edgevoice ends")
    check(wait(lambda now: now[text]["state"] == "unavailable"), "it is seen that it has ended")
    removed = subprocess.run([*EDGEVOICE, "ha", "remove", "--config", config], check=False)
    check(removed.returncode == 0, "edgevoice ha remove")
    check(wait(lambda now: not any(DEVICE in name for name in now)), "nothing of it is left")
    check(home.triggers() == [], "nor a trigger")


def over_wyoming(home: HomeAssistant, folder: Path, sound: bytes, failures: Failures) -> None:
    """Speech to text and a conversation agent, set up as a user does."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    config = folder / "wyoming.yaml"
    config.write_text(f"wyoming: {{listen: 'tcp://127.0.0.1:{port}'}}\naudio: {{enabled: false}}\n")
    with subprocess.Popen([*EDGEVOICE, "run", "--config", config]) as edge:
        try:
            flow = home.ask("/api/config/config_entries/flow", {"handler": "wyoming"})["flow_id"]
            for _ in range(60):  # until it listens
                there = {"host": "127.0.0.1", "port": port}
                step = home.ask(f"/api/config/config_entries/flow/{flow}", there)
                if step["type"] == "create_entry":
                    break
                time.sleep(0.5)
            failures.check(step["type"] == "create_entry", "Wyoming is set up by host and port")
            home.wait(lambda now: "stt.edgevoice" in now)
            file = io.BytesIO()
            with wave.open(file, "wb") as wav:
                wav.setnchannels(1)
                wav.setsampwidth(2)
                wav.setframerate(16000)
                wav.writeframes(sound)
            what = "format=wav; codec=pcm; sample_rate=16000; bit_rate=16; channel=1; language=en"
            heard = home.ask(
                "/api/stt/stt.edgevoice", raw=file.getvalue(), headers={"X-Speech-Content": what}
            )
            failures.check(
                heard == {"text": "Turn on the desk lamp.", "result": "success"}, f"heard: {heard}"
            )
            home.ask("/api/services/input_boolean/turn_off", {"entity_id": "input_boolean.desk_lamp"})
            for said, kind in (("turn on the desk lamp", "action_done"), ("buy the moon", "error")):
                question = {"text": said, "language": "en", "agent_id": "conversation.edgevoice"}
                answer = home.ask("/api/conversation/process", question)["response"]
                failures.check(answer["response_type"] == kind, f"conversation agent: {said!r} is {kind}")
            lamp = home.states()["input_boolean.desk_lamp"]["state"]
            failures.check(lamp == "on", "what was understood is done")
        finally:
            edge.terminate()


def imported(home: HomeAssistant, folder: Path, failures: Failures) -> None:
    """A grammar of its entities."""
    lamp = {"assistants": ["conversation"], "entity_ids": ["input_boolean.desk_lamp"]}
    home.tell("homeassistant/expose_entity", should_expose=True, **lamp)
    token, grammar = folder / "token", folder / "house.yaml"
    token.touch(0o600)
    token.write_text(home.token)
    made = [*EDGEVOICE, "grammar", "import", "home-assistant", "--from-ha", home.url, "--out", str(grammar)]
    done = subprocess.run([*made, "--token-file", str(token)], check=False)
    failures.check(done.returncode == 0, "its entities are imported")
    explain = [*EDGEVOICE, "grammar", "explain", str(grammar), "turn on the desk lamp"]
    said = subprocess.run(explain, capture_output=True, text=True, check=False)
    failures.check(said.returncode == 0 and "HassTurnOn" in said.stdout, f"and can be said: {said.stdout}")


def main() -> int:
    """Do all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hass", type=Path, help="its program")
    hass = parser.parse_args().hass
    os.chdir(ROOT)
    speech = read_audio(ROOT / "samples" / "turn-on-desk-lamp.flac")
    sound = _pcm(np.concatenate([speech, np.zeros(16000, np.float32)]))
    failures = Failures()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log, config = folder / "log", folder / "home"
        config.mkdir()
        broker = stack.enter_context(Broker())
        with home_assistant(hass, config, broker, log) as home:
            print("Home Assistant", home.ask("/api/config")["version"])
            over_mqtt(home, broker, folder, sound, failures)
            over_wyoming(home, folder, sound, failures)
            imported(home, folder, failures)
        about = ("mqtt", "wyoming", "automation", "edgevoice", "conversation")
        for line in log.read_text("utf-8", "replace").splitlines():
            if any(f" {level} " in line for level in ("WARNING", "ERROR")):
                failures.check(not any(word in line for word in about), line)
    return 1 if failures.count else 0


if __name__ == "__main__":
    sys.exit(main())
