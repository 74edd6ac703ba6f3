"""A light that shows what the engine does: an LED of the kernel, switched in a thread of its own.

    feedback.py ─> Light ─> /sys/class/leds/NAME/brightness

The kernel's documentation says of that file: 0 is off, and takes the LED from the trigger that had it; up to
the number in `max_brightness` is on.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgevoice.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

LEDS: Final = Path("/sys/class/leds")

Pattern = tuple[tuple[bool, float], ...]
"""On or off, and for how many seconds."""

LASTING: Final[Mapping[str, Pattern]] = {
    # What goes on until something else happens, over and over; what is not here is "idle".
    "idle": ((False, math.inf),),
    "hearing": ((True, math.inf),),
    "muted": ((True, 0.1), (False, 2.9)),  # that somebody is asked not to wonder, seldom enough to be borne
    "lost": ((True, 0.5), (False, 0.5)),
}
PASSING: Final[Mapping[str, Pattern]] = {
    # Once, after light, so each begins with darkness. A tenth of a second is seen well as a flash of its own.
    "accepted": ((False, 0.1), (True, 0.4), (False, 0.1)),
    "refused": ((False, 0.1), (True, 0.1)) * 3 + ((False, 0.1),),
    "ambiguous": ((False, 0.1), (True, 0.1)) * 3 + ((False, 0.1),),
}

_CLOSE_S: Final = 1.0  # an LED behind a slow bus has been switched by then


class Light:
    """Shows what was told last; from any thread, and nobody waits for the LED.

    Args:
        led: its name below LEDS, or the path of a folder like those.

    Raises:
        ConfigError: there is no such LED, or it cannot be written.
    """

    def __init__(self, led: str) -> None:
        self._file = brightness_of(led)
        self._changed = threading.Condition()  # guards what follows
        self._lasting = LASTING["idle"]
        self._passing: Pattern = ()
        self._news = self._closed = False
        self._failed = False
        self._on = _most(self._file)
        try:
            self._write(lit=False)
        except OSError as error:
            raise ConfigError(
                f"feedback.led: {self._file} cannot be written ({error.strerror}); give the user of the "
                "service the right to, see docs/configuration.md"
            ) from None
        self._thread = threading.Thread(target=self._run, name="edgevoice-light", daemon=True)
        self._thread.start()

    def tell(self, kind: str) -> None:
        """Show what happened; what passes is seen to its end, then what lasts."""
        with self._changed:
            if kind not in PASSING:
                self._lasting = LASTING.get(kind, LASTING["idle"])
            else:
                self._passing = PASSING[kind]
                if self._lasting is LASTING["hearing"]:  # that is over, but nothing else
                    self._lasting = LASTING["idle"]
            self._news = True
            self._changed.notify_all()

    def close(self) -> None:
        """Turn it off; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    # ---- in the thread ----

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    break
                self._news = False
                pattern, passing = (self._passing, True) if self._passing else (self._lasting, False)
                self._passing = ()
            self._show(pattern, to_its_end=passing)
        self._switch(lit=False)

    def _show(self, pattern: Pattern, *, to_its_end: bool) -> None:
        """Go through a pattern once; what lasts gives way to news, what passes only to what passes, too."""
        for lit, duration_s in pattern:
            self._switch(lit=lit)
            until_s = time.monotonic() + duration_s
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._passing or (self._news and not to_its_end),
                    None if duration_s == math.inf else max(0.0, until_s - time.monotonic()),
                )
                if self._closed or self._passing or (self._news and not to_its_end):
                    return

    def _switch(self, *, lit: bool) -> None:
        try:
            self._write(lit=lit)
        except OSError as error:
            if not self._failed:
                _log.warning("feedback.led: %s cannot be written any more: %s", self._file, error.strerror)
            self._failed = True
        else:
            if self._failed:
                _log.info("feedback.led: %s can be written again", self._file)
            self._failed = False

    def _write(self, *, lit: bool) -> None:
        # Opened anew each time: a light of a USB device that was unplugged is there again with the device.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, self._on if lit else b"0\n")
        finally:
            os.close(descriptor)


def brightness_of(led: str, leds: Path = LEDS) -> Path:
    """Return the file that switches an LED.

    Raises:
        ConfigError: there is no such LED.
    """
    file = (Path(led) if "/" in led else leds / led) / "brightness"
    if file.is_file():
        return file
    there = sorted(path.name for path in leds.iterdir()) if leds.is_dir() else []
    raise ConfigError(
        f"feedback.led: {led!r} seen; there is no {file}; this machine has {', '.join(there) or 'no LED'}; "
        "name one that is there, or have the kernel make it, see docs/configuration.md"
    )


def _most(file: Path) -> bytes:
    """Return what is written to turn it on: as bright as it can be."""
    try:
        return b"%d\n" % int(file.with_name("max_brightness").read_text("ascii"))
    except (OSError, ValueError):
        return b"1\n"  # on, of any LED
