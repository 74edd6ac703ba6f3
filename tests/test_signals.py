"""A signal that comes at the worst moment is handled all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgevoice.signals import heard
from tests.test_network import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator


class Told(Exception):  # noqa: N818 - what a handler raises
    """The handler ran."""


@pytest.fixture
def told() -> Iterator[None]:
    def tell(*_: object) -> None:
        raise Told

    before = signal.signal(signal.SIGHUP, tell)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("told")
def test_another_thread_gets_it() -> None:
    """The main thread waits for a lock, and is not interrupted by a signal that another thread has taken."""

    def send() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)

    threading.Thread(target=send).start()
    started_s = time.monotonic()
    with heard(), pytest.raises(Told):
        threading.Event().wait(10)
    assert time.monotonic() - started_s < 5


def test_overlooked_without() -> None:
    """Python itself would overlook it, or this module were of no use."""
    program = (
        "import signal, threading, time\n"
        "signal.signal(signal.SIGHUP, lambda *_: exit(1))\n"
        "def send():\n"
        "    time.sleep(0.2); signal.pthread_kill(threading.get_ident(), signal.SIGHUP)\n"
        "threading.Thread(target=send).start()\n"
        "threading.Event().wait(1.5)\n"
        "import os; os._exit(7)"
    )
    started_s = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=False)
    assert time.monotonic() - started_s > 1.4


@pytest.mark.usefixtures("told")
def test_handled_once() -> None:
    """However often it is interrupted, and nothing is left open."""
    files = open_files()
    with heard():
        with pytest.raises(Told):
            signal.raise_signal(signal.SIGHUP)
        time.sleep(1)  # while the main thread is interrupted
    assert open_files() == files
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
