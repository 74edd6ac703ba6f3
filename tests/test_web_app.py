"""Who may ask the page for what, and what it answers."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgevoice.config import Config, RecordsConfig, WebConfig
from edgevoice.errors import ConfigError
from edgevoice.events import Frame, ScoredFrame
from edgevoice.records import FORMAT, Folder, Record
from edgevoice.web_door import MAX_SESSIONS
from edgevoice.web_live import PAGE, REMEMBERED
from edgevoice.web_password import write
from tests.test_metrics import read
from tests.web_client import Answer, Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "let me in, please"  # noqa: S105 - of a test
LOCAL = WebConfig(listen="127.0.0.1:0")


@pytest.fixture(scope="module")
def web() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Served]:
    """One with a password."""
    write(tmp_path / "password", PASSWORD)
    with served(Config(web=replace(LOCAL, password_file=tmp_path / "password"))) as running:
        yield running


def login(web: Served, password: str = PASSWORD) -> Answer:
    return web.post("/login", f"password={password.replace(' ', '+')}".encode())


def record(number: int, *, accepted: bool = True, sound: bool = False) -> Record:
    """One as recorder.py makes it, as far as it is looked at here."""
    name = f"20261126-1723{number // 100:02}-{number:03}-abcd"
    result = {
        "time": "2026-11-26T17:23:37+00:00", "text": f"<b>{number}</b>", "heard": None, "intent": "I",
        "slots": {"n": number}, "confidence": 0.9, "accepted": accepted,
        "reason": None if accepted else "ambiguous", "latency_ms": None,
    }  # fmt: skip
    fields = {"format": FORMAT, "id": name, "result": result}
    return Record(name, fields, np.zeros(1600, np.float32) if sound else None)


class TestDoor:
    """Whether who asks means us, and is ours."""

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:80", "127.0.0.2", "", "[::1]", "a b", "0"]
    )
    def test_other_names(self, web: Served, host: str) -> None:
        """A page from elsewhere, to whose name our address was given, gets nothing, not even the page."""
        for path in ("/", "/api/live", "/metrics", "/page.js"):
            assert web.ask(path, host=host).status == 421

    def test_our_names(self, web: Served) -> None:
        """Our address and localhost are ours, on whatever port others reach it."""
        for host in ("127.0.0.1", f"127.0.0.1:{web.port}", "localhost:9000", "LOCALHOST"):
            assert web.ask("/", host=host).status == 200

    def test_a_name_that_is_configured(self) -> None:
        """Is ours, too."""
        with served(Config(web=replace(LOCAL, name="kitchen.local"))) as web:
            assert web.ask("/", host="Kitchen.local:8490").status == 200
            assert web.ask("/", host="kitchen.local.evil.example").status == 421

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": "127.0.0.1"},
        ],
    )
    def test_pages_from_elsewhere_change_nothing(self, web: Served, headers: dict[str, str]) -> None:
        """Nor who does not say where he is from."""
        paths = ("/api/mute", "/api/text", "/api/do", "/api/trial", "/api/grammar", "/api/grammar/check")
        records = [f"/api/utterances/{record(1).record_id}/{name}" for name in ("again", "label")]
        for path in (*paths, *records, "/login", "/logout"):
            assert web.ask(path, "POST", b'{"muted": true}', **headers).status == 403
        assert not web.commands.muted

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_pages_from_elsewhere_do_not_even_listen(self, web: Served, site: str) -> None:
        """A browser says so; a link to us from there is followed."""
        for path in ("/api/live", "/api/utterances", "/page.js"):
            assert web.ask(path, sec_fetch_site=site, sec_fetch_mode="cors").status == 403
        assert web.ask("/", sec_fetch_site=site, sec_fetch_mode="navigate").status == 200

    def test_headers(self, web: Served) -> None:
        """Nothing from elsewhere is loaded, nothing is kept, nobody frames it; also of what is refused."""
        for answer in (
            web.ask("/"),
            web.ask("/absent"),
            web.ask("/", host="evil.example"),
            web.ask("/metrics"),
        ):
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "unsafe" not in policy
            assert "http" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers

    @pytest.mark.parametrize("name", ["/", "/page.js", "/microphone.js", "/page.css", "/icon.svg", "/login"])
    def test_nothing_is_asked_of_others(self, web: Served, name: str) -> None:
        """No address of anybody is in our files, but the name of SVG."""
        text = web.ask(name).body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(^|\s)//.*", "", text)  # but comments


class TestPassword:
    """With one."""

    def test_nothing_without(self, locked: Served) -> None:
        """The page leads to where it is asked for, all else is refused."""
        answer = locked.ask("/")
        assert (answer.status, answer.headers["location"]) == (303, "/login")
        assert b'type="password"' in locked.ask("/login").body
        for path in (
            "/api/live",
            "/api/utterances",
            "/api/utterances/x",
            "/api/utterances/x/sound",
            "/api/grammar",
            "/metrics",
        ):
            assert locked.ask(path).status == 401
        posts = ("mute", "text", "do", "trial", "grammar", "grammar/check", "utterances/x/again")
        for path in (*posts, "utterances/x/label"):
            assert locked.post(f"/api/{path}", b'{"muted": true}').status == 401
        assert not locked.commands.muted

    def test_login(self, locked: Served) -> None:
        """Its cookie opens all, is out of reach of scripts and other pages, and ends with the log-out."""
        answer = login(locked)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)
        assert len(cookie) > 40
        assert locked.ask("/", cookie=cookie).status == 200
        assert locked.ask("/metrics", cookie=cookie).status == 200
        assert locked.post("/api/mute", b'{"muted": true}', cookie=cookie).status == 200
        assert locked.ask("/login", cookie=cookie).headers["location"] == "/"
        assert locked.post("/logout", b"", cookie=cookie).status == 303
        assert locked.ask("/api/utterances", cookie=cookie).status == 401
        assert login(locked).headers["set-cookie"].partition(";")[0] != cookie

    def test_wrong(self, locked: Served) -> None:
        """Costs a second, and is nothing more."""
        begin_s = time.monotonic()
        answer = login(locked, "let me in")
        assert (answer.status, answer.headers["location"]) == (303, "/login#wrong")
        assert "set-cookie" not in answer.headers
        assert time.monotonic() - begin_s >= 1

    def test_what_is_no_password(self, locked: Served) -> None:
        """Nor does what is none."""
        for body in (b"", b"\xff\xfe", b"password=" + b"a" * 300, b"a=b"):
            assert locked.post("/login", body).headers["location"] == "/login#wrong"
        assert locked.post("/login", b"a=b&" * 9).status == 400
        assert locked.post("/login", b"password=" + b"a" * 5000).status == 413

    def test_sessions_are_bounded(self, locked: Served) -> None:
        """The oldest makes room."""
        cookies = [login(locked).headers["set-cookie"].partition(";")[0] for _ in range(MAX_SESSIONS + 1)]
        assert locked.ask("/", cookie=cookies[0]).status == 303
        assert locked.ask("/", cookie=cookies[1]).status == 200
        assert locked.ask("/", cookie=cookies[-1]).status == 200

    def test_prometheus(self, locked: Served) -> None:
        """Has no cookies, but a user and the password; for the metrics alone."""
        right, wrong = (
            "Basic " + base64.b64encode(f"prometheus:{each}".encode()).decode()
            for each in (PASSWORD, "something else")
        )
        assert locked.ask("/metrics", authorization=right).status == 200
        begin_s = time.process_time()
        for _ in range(20):
            assert locked.ask("/metrics", authorization=right).status == 200
        assert time.process_time() - begin_s < 0.6  # what is known is not hashed slowly again, 20 times 50 ms
        answer = locked.ask("/metrics", authorization=wrong)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="edgevoice"')
        assert locked.ask("/metrics", authorization="Basic ???").status == 400
        assert locked.ask("/api/utterances", authorization=right).status == 401

    def test_without_its_file(self, tmp_path: Path) -> None:
        """Nobody is served, with or without."""
        config = Config(web=replace(LOCAL, password_file=tmp_path / "absent"))
        with pytest.raises(ConfigError, match="absent cannot be read"), served(config):
            pass


class TestPage:
    """What is told."""

    def test_mute(self, web: Served) -> None:
        """As over MQTT."""
        assert web.post("/api/mute", b'{"muted": true}').json() == {"muted": True}
        assert web.commands.muted
        assert web.post("/api/mute", b'{"muted": false}').json() == {"muted": False}
        assert not web.commands.muted
        for body in (b"", b"\xff", b"[]", b"{}", b'{"muted": 1}', b'{"muted": "on"}', b"[" * 4000):
            assert web.post("/api/mute", body).status == 400

    def test_metrics(self, web: Served) -> None:
        """In Prometheus' format."""
        answer = web.ask("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert read(answer.body.decode())["edgevoice_uptime_seconds", ()] > 0

    def test_live(self) -> None:
        """What is heard, and that there is something new."""
        with served() as web, web.raw(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as stream:
            lines = stream.makefile("rb")

            def event(kind: str) -> Any:
                """The next one of a kind."""
                for line in lines:
                    if line.strip() == b"event: " + kind.encode():
                        return json.loads(next(lines).removeprefix(b"data: "))
                raise AssertionError

            assert event("about")["records"]["keep"] == 0
            assert event("live") == {
                "state": "starting", "level_dbfs": None, "peak_dbfs": None, "speech": None, "partial": None,
                "muted": False,
            }  # fmt: skip
            assert event("health")["utterances"]["accepted"] == 0
            web.live.scored(ScoredFrame(Frame(np.full(512, 0.1, np.float32), 0), 0.75))
            live = event("live")
            assert (live["state"], live["level_dbfs"], live["speech"]) == ("listening", -20.0, 0.75)
            web.live.keep(record(1))
            assert event("utterance") == 1
            web.live.tell("lost")
            live = event("live")
            assert (live["state"], live["level_dbfs"]) == ("lost", None)

    def test_utterances_of_this_run(self) -> None:
        """Without records, the last ones are told, without their sound; memory is bounded."""
        with served() as web:
            assert web.ask("/api/utterances").json() == {"utterances": [], "more": False}
            for number in range(REMEMBERED + 5):
                web.live.keep(record(number, accepted=number % 2 == 0, sound=True))
            told = web.ask("/api/utterances").json()
            newest = [record(number).record_id for number in range(REMEMBERED + 4, 4, -1)]
            assert [each["id"] for each in told["utterances"]] == newest
            refused = told["utterances"][1]
            assert refused["reason"] == "ambiguous"
            assert "Word one of them differently" in refused["words"]["remedy"]
            whole = web.ask(f"/api/utterances/{newest[0]}").json()
            assert (whole["sound"], whole["result"]["slots"]) == (False, {"n": REMEMBERED + 4})
            assert web.ask(f"/api/utterances/{newest[0]}/sound").status == 404
            assert web.ask(f"/api/utterances/{record(0).record_id}").status == 404

    def test_utterances_that_are_kept(self, tmp_path: Path) -> None:
        """Those of earlier runs, too, page by page, with their sound, any part of it."""
        config = Config(web=LOCAL, records=RecordsConfig(keep=100, folder=tmp_path))
        folder = Folder(tmp_path, config.records)
        for number in range(PAGE + 3):
            folder.write(record(number, sound=number > 0))
        (tmp_path / f"{record(PAGE).record_id}.json").write_text("damaged")
        with served(config) as web:
            web.live.keep(record(500))
            first = web.ask("/api/utterances").json()
            assert first["more"]
            assert first["utterances"][0]["id"] == record(500).record_id
            last = first["utterances"][-1]["id"]
            rest = web.ask(f"/api/utterances?before={last}").json()
            assert not rest["more"]
            told = [each["id"] for each in first["utterances"] + rest["utterances"]]
            assert told == [record(n).record_id for n in (500, 22, 21, *range(19, -1, -1))]
            sound = web.ask(f"/api/utterances/{record(1).record_id}/sound")
            assert (sound.status, sound.headers["content-type"]) == (200, "audio/flac")
            assert sound.body == (tmp_path / f"{record(1).record_id}.flac").read_bytes()
            part = web.ask(f"/api/utterances/{record(1).record_id}/sound", range="bytes=2-5")
            assert (part.status, part.body) == (206, sound.body[2:6])
            assert web.ask(f"/api/utterances/{record(0).record_id}/sound").status == 404
