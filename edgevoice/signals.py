"""Signals that Python would overlook.

    signal ── C handler ──> a byte in a pipe ──> a thread ── SIGURG, some times ──> the main thread looks

Python handles signals in its main thread, between two steps. One that comes when this has just looked, and is
about to wait for a lock, is handled when the wait is over, which may be never: a service in a silent room
would not end when it is told to. So a thread, which costs nothing until then, interrupts the wait.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAITS_S: Final = (0.05, 0.2, 0.5)
"""Between two interruptions: the first is mostly enough, but a busy machine may be as slow again."""

_KNOCK: Final = signal.SIGURG
"""Means nothing to us, and is ignored by whoever does not ask for it."""


@contextmanager
def heard() -> Iterator[None]:
    """Have signals handled soon while a block runs, in the main thread."""
    main = threading.main_thread().ident or 0
    closed = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def knock() -> None:
        while seen := os.read(reading, 64):
            for wait_s in _WAITS_S if any(number != _KNOCK for number in seen) else ():
                if closed.wait(wait_s):
                    return
                signal.pthread_kill(main, _KNOCK)

    thread = threading.Thread(target=knock, name="edgevoice-signals", daemon=True)
    handler = signal.signal(_KNOCK, lambda *_: None)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        closed.set()
        os.close(writing)
        thread.join()
        os.close(reading)
        signal.signal(_KNOCK, handler)
