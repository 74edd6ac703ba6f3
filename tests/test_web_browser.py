"""The page in a browser, Debian's chromium driven by Playwright: what people see, hear and push.

Neither is installed by `make setup`: `scripts/browser.sh` does that, and runs this.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgevoice.audio import read_audio
from edgevoice.config import Config, WebConfig
from edgevoice.testing import Broker, Subscriber
from edgevoice.web_password import write
from tests.conftest import ROOT
from tests.test_end_to_end import room, write_wav
from tests.test_web import Service, service
from tests.test_web_bench import LAMP, house
from tests.web_client import ask, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevoice.native import Model
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
    expected: str = "Cross-Origin-Opener-Policy",
) -> Iterator[Any]:
    """The page, in which nothing may go wrong: no error, no request that fails or goes elsewhere.

    But for what is expected: by default a header that only safe pages can have.
    """
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
    assert [each for each in problems if expected not in each] == []


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
            button = opened.get_by_role("button", name="Speak", exact=True)
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
            opened.get_by_role("button", name="Speak", exact=True).click()
            # There is nobody to ask, or nothing to hear with.
            playwright.expect(opened.locator("#speak-state")).to_contain_text(
                re.compile("may not use|has no micro")
            )
            playwright.expect(opened.locator("#speak")).to_have_attribute("aria-pressed", "false")


NAMED = {
    *("button", "textbox", "link", "radio", "meter", "region", "Audio", "DisclosureTriangle"),
    *("img", "image", "columnheader", "rowheader"),
}
"""Roles of the accessibility tree that need a name."""

CONTRAST = """() => {
    const parse = (text) => {
        const numbers = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
        const whole = text.startsWith("color(") ? numbers.map((n, i) => (i < 3 ? n * 255 : n)) : numbers;
        return [...whole.slice(0, 3), whole[3] ?? 1];
    };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
    const light = (colour) => {
        const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        const layers = [];
        for (let each = element; each; each = each.parentElement) {
            layers.push(parse(getComputedStyle(each).backgroundColor));
        }
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const bad = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        const text = own || element.matches("input, textarea");
        if (!text || element.matches(":disabled, noscript") || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const below = ground(element);
        const colour = element.closest("svg") && !element.closest("button") ? style.fill : style.color;
        const [one, other] = [light(over(parse(colour), below)), light(below)].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (other + 0.05);
        if (ratio < 4.5) bad.push(`${element.outerHTML.slice(0, 90)} ${ratio.toFixed(2)}`);
    }
    return bad;
}"""


def check_access(opened: Any) -> None:
    """Controls have names, headings an order, text has contrast, and the keyboard gets to everything."""
    assert opened.locator("h1").count() == 1
    levels = opened.locator("h1, h2, h3").evaluate_all(
        "all => all.filter(each => each.checkVisibility()).map(each => Number(each.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    session = opened.context.new_cdp_session(opened)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    nameless = [
        each["role"]["value"]
        for each in nodes
        if not each["ignored"] and each["role"]["value"] in NAMED and not each.get("name", {}).get("value")
    ]
    assert nameless == []
    assert opened.evaluate(CONTRAST) == []
    wanted = opened.evaluate(
        """() => [...document.querySelectorAll("a, button, input, textarea, summary, audio, [tabindex='0']")]
            .filter((each) => each.checkVisibility() && !each.disabled)
            .map((each, i) => (each.dataset.number = String(i)))"""
    )
    reached = set()
    for _ in range(3 * len(wanted)):  # a player has several stops
        opened.keyboard.press("Tab")
        number, is_shown = opened.evaluate(
            """() => {
                const at = document.activeElement;
                const frame = at.matches("textarea") ? at.parentElement : at;
                return [at.dataset.number, getComputedStyle(frame).outlineStyle !== "none"];
            }"""
        )
        assert is_shown or number is None or number in reached
        reached.add(number)
    radios = opened.locator("input[type=radio]:not(:checked)").evaluate_all(
        "all => all.map(each => each.dataset.number)"
    )
    assert set(wanted) - set(radios) - reached == set()  # one of several radio buttons; arrows reach the rest


def try_in_vain(opened: Any) -> None:
    """What would it do? Nothing."""
    expect, press, kind = playwright.expect, opened.keyboard.press, opened.keyboard.type
    opened.get_by_label("What would this do?").focus()
    kind("turn on the washing machine")
    press("Enter")
    became = opened.locator("#text-became")
    expect(became).to_contain_text("No sentence of the grammar.")
    expect(became).to_contain_text("does not go on")
    expect(became.get_by_role("button", name="Do it")).to_have_count(0)


def write_grammar(opened: Any, grammar: Path) -> None:
    """Add a sentence to the file, with a mistake first."""
    expect, press, kind = playwright.expect, opened.keyboard.press, opened.keyboard.type
    opened.locator("#editor > summary").focus()
    press("Enter")
    state = opened.locator("#grammar-state")
    expect(state).to_contain_text("It can be used.", timeout=15_000)
    area = opened.get_by_label("Its text")
    save = opened.get_by_role("button", name="Save")
    expect(save).to_be_disabled()
    area.focus()
    at = grammar.read_text().index("- floor lamp\n")
    area.evaluate("(area, at) => area.setSelectionRange(at, at)", at)
    kind("- (washing machine\n      ")
    expect(state).to_contain_text("It cannot be used: 1 error", timeout=15_000)
    finding = opened.locator("#findings button")
    expect(finding).to_contain_text(f"line {grammar.read_text()[:at].count(chr(10)) + 1}, column")
    expect(finding).to_contain_text("check its brackets")
    expect(opened.locator("#grammar-marks .error")).to_have_count(1)
    expect(save).to_be_disabled()
    finding.focus()
    press("Enter")  # goes to its line, and selects it from its beginning on
    kind("washing machine")
    expect(state).to_contain_text("It can be used.", timeout=15_000)
    opened.get_by_label("What would this text make of a sentence?").focus()
    kind("turn the washing machine on")
    press("Enter")
    expect(opened.locator("#grammar-said")).to_contain_text("HassTurnOn", timeout=15_000)
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        check_access(opened)
    save.focus()
    press("Enter")
    expect(state).to_contain_text("Saved and in use.", timeout=15_000)
    assert "- washing machine\n" in grammar.read_text()


def run_again(opened: Any) -> None:
    """What was refused is a command now; and it is what was meant."""
    expect, press, kind = playwright.expect, opened.keyboard.press, opened.keyboard.type
    opened.locator("#utterances summary").first.focus()
    press("Enter")
    opened.get_by_role("button", name="Run again").focus()
    press("Enter")
    outcome = opened.locator("#utterances .outcome")
    expect(outcome).to_contain_text("Now: ", timeout=15_000)
    expect(outcome).to_contain_text("HassTurnOn (name washing machine)")
    opened.get_by_label("What did you mean?").focus()
    kind("turn on the washing machine")
    press("Enter")
    expect(outcome).to_contain_text("meant: HassTurnOn name washing machine")
    expect(opened.locator("#utterances")).to_contain_text("meant: HassTurnOn name washing machine")
    check_access(opened)


def say_and_type(run: Service, opened: Any) -> None:
    """Said once more, it is understood; typed, it is done when that is wanted."""
    expect, press = playwright.expect, opened.keyboard.press
    became = opened.locator("#text-became")
    run.say("refused-washing-machine")
    first = opened.locator("#utterances > li").first
    expect(first).to_contain_text("HassTurnOn (name washing machine)", timeout=15_000)
    opened.get_by_label("What would this do?").focus()
    press("Enter")
    expect(became).to_contain_text("HassTurnOn (name washing machine)")
    became.get_by_role("button", name="Do it").focus()
    press("Enter")
    expect(became).to_contain_text("Done: HassTurnOn")
    expect(opened.locator("#health")).to_contain_text("2", timeout=15_000)
    expect(opened.locator("#times svg").first).to_be_visible()
    expect(opened.locator("#settings")).to_contain_text("home.yaml, 22 intents, en")


def test_grammar(child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """A refused command becomes one: its sentence is written into the grammar, with the keyboard alone."""
    grammar = tmp_path / "home.yaml"
    grammar.write_text((ROOT / "grammars" / "home.yaml").read_text())
    text = (
        f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
        f"grammar: {{file: {grammar}}}\n"
        "web: {listen: '127.0.0.1:0', edit: true}\n"
    )
    expect = playwright.expect
    with service(child_environment, samples, tmp_path / "c.yaml", text) as run:
        run.say("refused-washing-machine")
        with page(run.port) as opened:
            try_in_vain(opened)
            write_grammar(opened, grammar)
            run_again(opened)
            say_and_type(run, opened)
        assert run.process.stdout
        lines = [run.process.stdout.readline().decode() for _ in range(3)]
        assert "refused (out_of_grammar)" in lines[0]
        assert all("-> HassTurnOn name=washing machine" in line for line in lines[1:])
        for size, (width, _) in SIZES.items():
            for scheme in ("light", "dark"):
                with page(run.port, size, scheme) as opened:
                    opened.locator("#editor > summary").click()
                    expect(opened.locator("#grammar-state")).to_contain_text("can be used", timeout=15_000)
                    expect(opened.locator("#times")).to_be_visible()
                    opened.locator("#utterances summary").last.click()
                    expect(opened.locator("#utterances svg")).to_have_count(1)
                    assert opened.evaluate("document.documentElement.scrollWidth") <= width
                    keep(opened, f"grammar-{size}-{scheme}")


def test_changes_from_elsewhere(model: Model, tmp_path: Path) -> None:
    """Another text in the file is shown, unless somebody writes here; then they are told, and can undo it."""
    path = tmp_path / "lamp.yaml"
    path.write_text(LAMP)
    expect = playwright.expect
    with house(model, path) as home, page(home.web.port) as opened:
        opened.locator("#editor > summary").click()
        area, state = opened.get_by_label("Its text"), opened.locator("#grammar-state")
        expect(area).to_have_value(LAMP)
        path.write_text(f"{LAMP}# one\n")
        expect(area).to_have_value(f"{LAMP}# one\n", timeout=20_000)
        area.fill(f"{LAMP}# mine\n")
        path.write_text(f"{LAMP}# two\n")
        expect(state).to_contain_text("The file is another one now.", timeout=20_000)
        expect(area).to_have_value(f"{LAMP}# mine\n")
        opened.get_by_role("button", name="Undo changes").click()
        expect(area).to_have_value(f"{LAMP}# two\n")
        area.fill("<script>alert(1)</script>: [")
        expect(state).to_contain_text("It cannot be used", timeout=15_000)
        opened.get_by_role("button", name="Undo changes").click()
        expect(state).to_contain_text("It can be used", timeout=15_000)
    assert path.read_text() == f"{LAMP}# two\n"


def test_saying_it(child_environment: dict[str, str], samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """A sentence is tried out with the browser's microphone: was it understood? Nobody acts on it."""
    sound = tmp_path / "said.wav"
    said = read_audio(next(each for each in samples if each.path.stem == "turn-on-desk-lamp").path)
    write_wav(sound, np.concatenate([room(1.0), said, room(4.0)]))
    grammar = tmp_path / "lamp.yaml"
    grammar.write_text(
        "language: en\n"
        "intents:\n"
        "  On: {data: [{sentences: ['turn on the desk lamp']}]}\n"
        "  Off: {data: [{sentences: ['turn off the desk lamp']}]}\n"
    )
    text = (
        "audio: {enabled: false}\n"
        f"grammar: {{file: {grammar}}}\n"
        f"records: {{keep: 9, folder: {tmp_path / 'records'}}}\n"
    )
    expect = playwright.expect
    with (
        service(child_environment, samples, tmp_path / "c.yaml", text, source=()) as run,
        page(run.port, sound=sound, expected="409 (Conflict)") as opened,
    ):
        on = opened.locator("#samples > li", has_text="turn on")
        off = opened.locator("#samples > li", has_text="turn off")
        expect(on).to_have_count(1, timeout=15_000)
        on.get_by_role("button").click()
        expect(on).to_contain_text("no microphone of the house hears now")
        opened.get_by_label("into this one").check()
        on.get_by_role("button").click()
        expect(on).to_contain_text("Understood.", timeout=30_000)
        off.get_by_role("button").click()
        expect(off).to_contain_text("Not understood as Off", timeout=30_000)
        entries = opened.locator("#utterances > li")
        expect(entries).to_have_count(2)
        expect(entries.first).to_contain_text("tried out, nobody acted on it")
        expect(opened.locator("#grammar-read-only")).to_be_hidden()
        opened.locator("#editor > summary").click()
        expect(opened.locator("#grammar-read-only")).to_contain_text("web.edit: true")
        expect(opened.get_by_label("Its text")).to_have_attribute("readonly", "")
        expect(opened.get_by_role("button", name="Save")).to_be_hidden()
        assert run.get("/api/utterances")["utterances"][0]["trial"]
        assert ask(run.port, "/metrics").body.decode().count('outcome="accepted"} 0') == 1
