"""A light shows what the engine does, at once, and whatever becomes of the LED nobody waits for it."""

from __future__ import annotations

import math
import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from edgevoice.config import load
from edgevoice.errors import ConfigError
from edgevoice.light import Light, brightness_of
from edgevoice.testing import FakeLed
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def shining(folder: Path, most: int = 1) -> Iterator[tuple[Light, FakeLed]]:
    with FakeLed(folder / "led", most) as led:
        light = Light(str(led.folder))
        wait_until(lambda: led.brightness == 0)
        led.changes.clear()
        try:
            yield light, led
        finally:
            light.close()


def about(seconds: list[float], wanted: list[float]) -> bool:
    """Whether flashes were as long as they should be, on a busy machine."""
    return len(seconds) == len(wanted) and all(
        math.isclose(seen, meant, abs_tol=0.06) for seen, meant in zip(seconds, wanted, strict=True)
    )


def test_it_shines_as_brightly_as_it_can_while_somebody_is_heard(tmp_path: Path) -> None:
    with shining(tmp_path, 255) as (light, led):
        began_s = time.monotonic()
        light.tell("hearing")
        wait_until(lambda: led.brightness == 255)
        assert led.changes[0][0] - began_s < 0.1
        light.tell("idle")
        wait_until(lambda: led.brightness == 0)


@pytest.mark.parametrize(
    ("kind", "flashes"), [("accepted", [0.4]), ("refused", [0.1] * 3), ("ambiguous", [0.1] * 3)]
)
def test_what_became_of_it_is_seen_after_it(tmp_path: Path, kind: str, flashes: list[float]) -> None:
    with shining(tmp_path) as (light, led):
        light.tell("hearing")
        wait_until(lambda: led.brightness == 1)
        light.tell(kind)
        time.sleep(1.0)
        assert about(led.flashes()[1:], flashes), led.changes
        assert led.brightness == 0


def test_muted_and_lost_are_told_from_each_other_and_stay(tmp_path: Path) -> None:
    with shining(tmp_path) as (light, led):
        light.tell("lost")
        time.sleep(2.2)
        assert about(led.flashes()[:2], [0.5, 0.5]), led.changes
        light.tell("muted")
        wait_until(lambda: len(led.flashes()) >= 3)
        light.tell("accepted")  # what was said before has its answer
        led.changes.clear()
        time.sleep(1.0)
        assert about(led.flashes(), [0.4, 0.1]), led.changes
        light.tell("unmuted")
        time.sleep(0.1)
        assert led.brightness == 0


def test_an_answer_is_seen_to_its_end_when_somebody_goes_on_speaking(tmp_path: Path) -> None:
    with shining(tmp_path) as (light, led):
        for kind in ("hearing", "refused", "hearing"):
            light.tell(kind)
        time.sleep(1.0)
        assert about(led.flashes(), [0.1] * 3), led.changes
        assert led.brightness == 1, "and then that somebody is heard"


def test_it_is_dark_at_the_end(tmp_path: Path) -> None:
    with shining(tmp_path) as (light, led):
        light.tell("hearing")
        wait_until(lambda: led.brightness == 1)
        light.close()
        light.close()
        assert (led.folder / "brightness").read_text() == "0\n"


def test_one_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    for name in ("ACT", "mmc0::"):
        FakeLed(tmp_path / name)
    assert brightness_of("mmc0::", tmp_path) == tmp_path / "mmc0::" / "brightness"
    with pytest.raises(ConfigError, match=r"'PWR' seen; .* this machine has ACT, mmc0::; name one"):
        brightness_of("PWR", tmp_path)
    with pytest.raises(ConfigError, match="this machine has no LED"):
        brightness_of("PWR", tmp_path / "none")


def test_one_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "brightness").symlink_to("/proc/version")  # not even root writes that
    with pytest.raises(ConfigError, match=r"cannot be written \(.*\); give the user"):
        Light(str(tmp_path))


def test_one_that_is_unplugged_is_told_once_and_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with shining(tmp_path) as (light, led):
        away = tmp_path / "away"
        shutil.move(led.folder, away)
        for kind in ("hearing", "accepted", "lost"):
            light.tell(kind)
            time.sleep(0.1)
        wait_until(lambda: "cannot be written any more: No such file" in caplog.text)
        shutil.move(away, led.folder)
        light.tell("hearing")
        wait_until(lambda: "can be written again" in caplog.text)
        assert caplog.text.count("any more") == 1


def test_nobody_waits_for_one_that_hangs(tmp_path: Path) -> None:
    with shining(tmp_path) as (light, led):
        file = led.folder / "brightness"
        file.unlink()
        os.mkfifo(file)  # opening it waits until somebody reads
        began_s = time.monotonic()
        for _ in range(1000):
            light.tell("hearing")
            light.tell("accepted")
        assert time.monotonic() - began_s < 0.5
        light.close()
        assert time.monotonic() - began_s < 2
        os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("led", ["''", "a b", "[]"])
def test_what_is_no_name_is_refused(tmp_path: Path, led: str) -> None:
    path = tmp_path / "edgevoice.yaml"
    path.write_text(f"feedback: {{led: {led}}}\n")
    with pytest.raises(ConfigError, match=r"feedback\.led"):
        load(path)
