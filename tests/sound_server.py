"""A PulseAudio of our own, with a microphone that hears what is played to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

_START_S: Final = 20.0  # it is up in 0.2 s; a busy machine is given more
_PROGRAMS: Final = ("pulseaudio", "pactl", "paplay")

MISSING: Final = [program for program in _PROGRAMS if shutil.which(program) is None]


class SoundServer:
    """A sound server in a folder of its own, out of reach of the user's, gone with the block or this process.

    Its only device is a null sink named mic: what is played into it is what the default microphone, ALSA's
    "pulse", records.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgevoice-sound-")
        self._socket = Path(self._folder.name) / "native"
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: Final = {
            "PULSE_SERVER": f"unix:{self._socket}",
            "XDG_RUNTIME_DIR": self._folder.name,  # its files, and no session bus
            "HOME": self._folder.name,
        }
        """What a program needs to find it."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self, *, microphone: bool = True) -> None:
        """Start it and wait until it answers."""
        self._socket.unlink(missing_ok=True)  # a killed one leaves it
        command = [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
            *("--realtime=no", "--high-priority=no", "--disable-shm=yes", "--log-level=error"),
            *("-L", f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}"),
        ]
        if setpriv := shutil.which("setpriv"):  # the kernel ends it when the thread that started it ends
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment, "LC_ALL": "C"},
        )
        deadline_s = time.monotonic() + _START_S
        while self._control("info").returncode:
            assert self._process.poll() is None, "pulseaudio ended"
            assert time.monotonic() < deadline_s, "pulseaudio does not answer"
            time.sleep(0.05)
        if microphone:
            self.plug_in()

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Let it hang, as on a machine that swaps or with a driver that does not return."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def plug_in(self, *, rewinds: bool = False) -> None:
        """Make the microphone.

        Without rewinds it records from the first moment on; with them after 1.8 s, but then in pieces of the
        length that is asked for, like a sound card, not in 50 ms at the longest.
        """
        done = self._control(
            *("load-module", "module-null-sink", "sink_name=mic", "rate=16000", "channels=1"),
            f"norewinds={int(not rewinds)}",
        )
        assert done.returncode == 0, done.stderr

    def unplug(self) -> None:
        """Take the microphone away from whoever records."""
        done = self._control("unload-module", "module-null-sink")
        assert done.returncode == 0, done.stderr

    def play(self, path: Path) -> None:
        """Play a recording into the microphone, and half a second later return."""
        subprocess.run(
            [_path("paplay"), "--device=mic", str(path)],
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            timeout=30,
        )

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [_path("pactl"), *arguments],
            env={**os.environ, **self.environment, "LC_ALL": "C"},
            check=False,
            capture_output=True,
            timeout=30,
        )


def _path(program: str) -> str:
    path = shutil.which(program)
    assert path is not None
    return path
