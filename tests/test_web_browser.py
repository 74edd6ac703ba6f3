"""The page in a browser, Debian's chromium driven by Playwright: what people see, hear and push.

Neither is installed by `make setup`: `scripts/browser.sh` does that, and runs this.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgevoice.audio import read_audio
from edgevoice.config import Config, WebConfig
from edgevoice.testing import Broker, Subscriber
from edgevoice.web_password import write
from tests.test_end_to_end import room, write_wav
from tests.test_web import service
from tests.web_client import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Sample

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium; scripts/browser.sh installs it", allow_module_level=True)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright; scripts/browser.sh installs it"
)

SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
SCREENSHOTS = os.environ.get("EDGEVOICE_SCREENSHOTS")
"""A folder that pictures are left in, for people to look at."""


@contextmanager
def page(
    port: int,
    size: str = "desktop",
    scheme: str = "light",
    *,
    sound: Path | None = None,
    name: str = "127.0.0.1",
) -> Iterator[Any]:
    """The page, in which nothing may go wrong: no error, no request that fails or goes elsewhere."""
    problems: list[str] = []
    with playwright.sync_playwright() as driver:
        # Who runs tests in a container is root, for whom chromium wants this; the page is our own.
        arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {name} 127.0.0.1"]
        if sound is not None:  # what its microphone hears, from when it is opened on, again and again
            arguments += [
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={sound}",
            ]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        opened = context.new_page()
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        opened.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((f"http://{name}:{port}/", f"ws://{name}:{port}/"))
                else problems.append(asked.url)
            ),
        )
        opened.goto(f"http://{name}:{port}/")
        yield opened
        browser.close()
    # A header that only safe pages can have.
    assert [each for each in problems if "Cross-Origin-Opener-Policy" not in each] == []


def keep(opened: Any, name: str) -> None:
    """Leave a picture."""
    if SCREENSHOTS:
        opened.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def test_what_was_said(
    child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """An accepted and a refused command, with its reason and what to do, and the sound can be played."""
    text = f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
    with service(child_environment, samples, tmp_path / "c.yaml", text) as run:
        run.say("turn-on-desk-lamp")
        run.newest(1)
        with page(run.port) as opened:
            expect = playwright.expect
            entries = opened.locator("#utterances > li")
            expect(entries).to_have_count(1)
            expect(entries.first).to_contain_text("Turn on the desk lamp.")
            expect(entries.first).to_contain_text("HassTurnOn (name desk lamp)")
            run.say("refused-washing-machine")  # comes while one looks
            expect(entries).to_have_count(2, timeout=30_000)
            expect(opened.locator("#last")).to_contain_text("add it to the grammar")
            run.newest(2)
            refused = entries.first
            expect(refused).to_contain_text("refused: no sentence of the grammar")
            refused.locator("summary").focus()
            opened.keyboard.press("Enter")  # no mouse is needed
            expect(refused.locator(".advice")).to_contain_text("What to do:")
            assert refused.locator("svg path.speech-line").get_attribute("d")
            assert refused.locator("svg line.try").count() >= 1
            expect(refused).to_contain_text("Computed in")
            sound = refused.locator("audio")
            length_s = sound.evaluate(
                """async (audio) => {
                    await audio.play();
                    await new Promise((done) => audio.addEventListener("timeupdate", done, {once: true}));
                    audio.pause();
                    return audio.duration;
                }"""
            )
            assert 1 < length_s < 28
            entries.last.locator("summary").click()
            expect(entries.last).to_contain_text("Sentences considered")
            expect(opened.locator("#health")).to_contain_text("2 kept, 0 lost")
        for size in SIZES:
            for scheme in ("light", "dark"):
                with page(run.port, size, scheme) as opened:
                    playwright.expect(opened.locator("#utterances > li")).to_have_count(2)
                    for entry in opened.locator("#utterances > li").all():
                        entry.locator("summary").click()
                    playwright.expect(opened.locator("#utterances svg")).to_have_count(2)
                    wide = opened.evaluate("document.documentElement.scrollWidth")
                    assert wide <= SIZES[size][0]  # nothing is beside the screen
                    keep(opened, f"{size}-{scheme}")


def test_mute_and_state() -> None:
    """A button that says what it does, also by keyboard; and the state, also for who does not see."""
    with served() as web, page(web.port) as opened:
        expect = playwright.expect
        expect(opened.locator("#state")).to_contain_text("starting")
        expect(opened.locator("#utterances")).to_contain_text("Nothing was said yet.")
        expect(opened.locator("#records")).to_contain_text("records.keep: 200")
        button = opened.locator("#mute")
        button.focus()
        opened.keyboard.press("Space")
        expect(button).to_have_attribute("aria-pressed", "true")
        assert web.commands.muted
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")
        web.live.tell("lost")
        expect(opened.locator("#state")).to_contain_text("no microphone")
        assert opened.locator("[role=meter][aria-valuenow]").count() == 3


def test_password(tmp_path: Path) -> None:
    """It is asked for, a wrong one is told, and one can leave again."""
    write(tmp_path / "password", "let me in, please")
    config = Config(web=WebConfig(listen="127.0.0.1:0", password_file=tmp_path / "password"))
    with served(config) as web, page(web.port) as opened:
        expect = playwright.expect
        keep(opened, "login")
        opened.get_by_label("Password").fill("something else")
        opened.keyboard.press("Enter")
        expect(opened.get_by_role("alert")).to_have_text("This was not the password.")
        opened.get_by_label("Password").fill("let me in, please")
        opened.get_by_role("button", name="Log in").click()
        expect(opened.locator("#state")).to_contain_text("starting")
        opened.get_by_role("button", name="Log out").click()
        expect(opened.get_by_label("Password")).to_be_visible()


def test_speaking(child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """The browser's microphone is the microphone: its command is on MQTT, on the page and in the records."""
    sound = tmp_path / "said.wav"
    quiet = room(1.0)
    said = read_audio(next(each for each in samples if each.path.stem == "turn-on-desk-lamp").path)
    write_wav(sound, np.concatenate([quiet, said, room(4.0)]))
    with Broker() as broker, Subscriber(broker.port, "edgevoice/#") as subscriber:
        text = (
            f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\n"
            "audio: {enabled: false}\n"
            f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
        )
        with (
            service(child_environment, samples, tmp_path / "c.yaml", text, source=()) as run,
            page(run.port, sound=sound) as opened,
        ):
            expect = playwright.expect
            expect(opened.locator("#state")).to_contain_text("no microphone")
            button = opened.get_by_role("button", name="Speak")
            button.click()  # once, and what is said ends by itself
            expect(opened.locator("#speak-became")).to_contain_text(
                "HassTurnOn (name desk lamp)", timeout=30_000
            )
            told = subscriber.wait_for(lambda message: message.topic == "edgevoice/default/intent/HassTurnOn")
            assert told[0].json()["slots"] == {"name": "desk lamp"}
            expect(opened.locator("#utterances > li")).to_have_count(1)
            expect(button).to_have_attribute("aria-pressed", "false")
            expect(opened.locator("#state")).to_contain_text("no microphone")
            keep(opened, "spoken")
            button.focus()
            opened.keyboard.down("Space")  # held
            expect(opened.locator("#speak-became")).to_contain_text("desk lamp", timeout=30_000)
            opened.keyboard.up("Space")
            expect(opened.locator("#utterances > li")).to_have_count(2)
            run.newest(2)


def test_no_microphone() -> None:
    """Why a browser gives none, and what to do: it is no safe page, or somebody has said no."""
    config = Config(web=WebConfig(listen="127.0.0.1:0", name="kitchen.local"))
    with served(config) as web:
        with page(web.port, name="kitchen.local") as opened:  # as from another machine
            playwright.expect(opened.locator("#speak")).to_be_disabled()
            playwright.expect(opened.locator("#speak-why-not")).to_contain_text("only over https")
            playwright.expect(opened.locator("#speak-why-not")).to_contain_text("@kitchen.local")
            keep(opened, "insecure")
        with page(web.port) as opened:
            playwright.expect(opened.locator("#speak-why-not")).to_be_hidden()
            opened.get_by_role("button", name="Speak").click()
            # There is nobody to ask, or nothing to hear with.
            playwright.expect(opened.locator("#speak-state")).to_contain_text(
                re.compile("may not use|has no micro")
            )
            playwright.expect(opened.locator("#speak")).to_have_attribute("aria-pressed", "false")
