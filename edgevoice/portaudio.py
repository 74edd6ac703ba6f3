"""PortAudio through PyAudio: which microphones there are, and a stream from one of them.

PortAudio looks for devices only when it starts, and it is not made for several threads. So everything that
may wait is done under one lock, each attempt starts the library anew, and patiently() bounds the waiting:
a sound server that hangs would hang us. Measured with PortAudio 19.6 and PulseAudio 16.1, through ALSA's
plugin "pulse":

    what happens                callback        is_active()     close()
    server killed or ended      ends at once    False           0 ms
    source unloaded             ends at once    False           0 ms
    server stopped (SIGSTOP)    no more calls   True            blocks while the server does

In the last case starting PortAudio and open() block, too. is_format_supported() even keeps Python's lock,
which stopped the whole program for 30 s; that is why formats are tried by opening. What hangs is left to its
thread: it goes on when the server answers or ends, and then frees what it got.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from edgevoice.errors import AudioError
from edgevoice.events import SAMPLE_RATE_HZ

_log = logging.getLogger(__name__)

# portaudio.h; here so that PyAudio need not be installed to use files
PA_INT16: Final = 0x8
PA_CONTINUE: Final = 0
PA_INPUT_OVERFLOW: Final = 0x2
PA_WRONG_FORMAT: Final = (-9998, -9997, -9994)  # channels, rate, sample format

ANSWER_S: Final = 3.0  # PortAudio starts in 0.1 s here, a small busy machine is given more
_CLOSE_S: Final = 0.5  # closing takes 2 ms, or for ever

AudioCallback = Callable[[bytes | None, int, Mapping[str, float], int], tuple[None, int]]
"""(bytes, frames, times, status flags) -> (None, PA_CONTINUE), called by PortAudio's thread."""

_T = TypeVar("_T")
_in_use = threading.Lock()  # PortAudio is one for the whole process


class PortAudioStream(Protocol):
    """The part of pyaudio.Stream that is used here."""

    def is_active(self) -> bool:
        """Whether the callback is still being called."""

    def close(self) -> None:
        """Stop and free the stream."""


class PortAudio(Protocol):
    """The part of pyaudio.PyAudio that is used here; edgevoice.testing.FakePortAudio is another one."""

    def get_device_count(self) -> int:
        """Number of devices, outputs included."""

    def get_device_info_by_index(self, device_index: int) -> Mapping[str, Any]:
        """PaDeviceInfo as a dictionary."""

    def get_default_input_device_info(self) -> Mapping[str, Any]:
        """PaDeviceInfo as a dictionary; OSError if there is none."""

    def get_host_api_info_by_index(self, host_api_index: int) -> Mapping[str, Any]:
        """PaHostApiInfo as a dictionary."""

    def open(self, **settings: Any) -> PortAudioStream:
        """Open and start a stream; OSError with PortAudio's error number if the device refuses."""

    def terminate(self) -> None:
        """Free PortAudio."""


@dataclass(frozen=True, slots=True)
class Device:
    """One microphone as PortAudio sees it."""

    index: int
    name: str
    host_api: str
    """ALSA, JACK, Core Audio, ..."""

    channels: int
    rate_hz: int
    """Its native sampling rate."""

    is_default: bool

    def __str__(self) -> str:
        return f"{self.index}: {self.name} ({self.channels} channels, {self.rate_hz} Hz)"


def list_devices(port_audio: PortAudio | None = None) -> tuple[Device, ...]:
    """All devices that can record.

    Args:
        port_audio: an open one; None opens PyAudio for the call.

    Raises:
        AudioError: PyAudio or PortAudio is not installed, does not start or does not answer.
    """

    def ask() -> tuple[Device, ...]:
        library = port_audio or _start_port_audio()
        try:
            return _devices(library)
        finally:
            if port_audio is None:
                library.terminate()

    return patiently(ask)


def find_device(devices: tuple[Device, ...], wanted: int | str | None) -> Device:
    """Choose a microphone.

    Args:
        devices: from list_devices().
        wanted: index (also as digits), name or part of a name in any case, or None for the system's default.

    Raises:
        AudioError: none or several fit; the text lists what exists.
    """
    exist = (
        "; ".join(map(str, devices)) or "none, so plug in a microphone and check that this user may record"
    )
    if wanted is None:
        found = [device for device in devices if device.is_default]
        what = "no default microphone"
    elif isinstance(wanted, int) or wanted.isdecimal():
        found = [device for device in devices if device.index == int(wanted)]
        what = f"no microphone with index {wanted}"
    else:
        name = wanted.casefold()
        found = [device for device in devices if device.name.casefold() == name]  # the whole name wins
        found = found or [device for device in devices if name in device.name.casefold()]
        what = f"no microphone whose name contains {wanted!r}"
    if not found:
        raise AudioError(f"there is {what}; devices: {exist}")
    if len(found) > 1:
        fitting = "; ".join(map(str, found))
        raise AudioError(f"several microphones fit {wanted!r}; give the index or more of the name: {fitting}")
    return found[0]


class InputStream:
    """An open microphone at 16 kHz with the channels needed if it can do that, else as it is natively.

    Args:
        wanted: see find_device().
        channel: the channel that is needed, counted from 0; None needs one.
        callback: gets blocks of 16-bit samples.
        block_s: how long each is.
        port_audio: an open one, which stays the caller's; None starts PyAudio, and ends it in close().

    Raises:
        AudioError: no such device, it cannot be opened, or PortAudio does not answer.
    """

    def __init__(
        self,
        wanted: int | str | None,
        channel: int | None,
        callback: AudioCallback,
        block_s: float,
        port_audio: PortAudio | None = None,
    ) -> None:
        def start() -> tuple[PortAudio, Device, tuple[PortAudioStream, int, int]]:
            library = port_audio or _start_port_audio()
            try:
                device = find_device(_devices(library), wanted)
                return library, device, _open(library, device, channel, callback, block_s)
            except BaseException:
                if port_audio is None:
                    library.terminate()
                raise

        def undo(started: tuple[PortAudio, Device, tuple[PortAudioStream, int, int]]) -> None:
            library, _, (stream, _, _) = started
            _close(stream, library if port_audio is None else None)

        library, self.device, (stream, self.rate_hz, self.channels) = patiently(start, undo)
        self._owned = library if port_audio is None else None
        self._stream: PortAudioStream | None = stream

    def is_active(self) -> bool:
        """Whether PortAudio still delivers; True as well while another thread opens or closes something."""
        if not _in_use.acquire(blocking=False):
            return True
        try:
            return self._stream is not None and self._stream.is_active()
        except OSError:  # PortAudio's answer for a device that is gone
            return False
        finally:
            _in_use.release()

    def close(self) -> None:
        """Stop and free everything within half a second, or leave it to a thread; may be called twice."""
        stream, self._stream = self._stream, None
        if stream is None:
            return

        def free() -> None:
            with _in_use:
                _close(stream, self._owned)

        closing = threading.Thread(target=free, name="edgevoice-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if closing.is_alive():
            _log.warning("microphone %s: the sound system does not let it be closed", self.device.name)


def patiently(work: Callable[[], _T], undo: Callable[[_T], None] = lambda _: None) -> _T:
    """Let a thread of its own do what may hang in PortAudio, and wait a few seconds for it.

    Args:
        work: what to do.
        undo: gets the result that comes too late.

    Raises:
        AudioError: nothing came in time, or what hung before still hangs.
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
        else:
            if answer.set_running_or_notify_cancel():
                answer.set_result(result)
            else:
                undo(result)
        finally:
            _in_use.release()

    if _in_use.acquire(timeout=ANSWER_S):
        threading.Thread(target=run, name="edgevoice-portaudio", daemon=True).start()
        try:
            wait((answer,), ANSWER_S)
        except BaseException:  # such as Ctrl-C
            answer.cancel()
            raise
        if not answer.cancel():  # it cannot be when it is done
            return answer.result()
    raise AudioError(
        f"the sound system gave no answer for {ANSWER_S:g} s; if that stays so, start the sound server again"
    )


def load_pyaudio() -> Any:
    """Return the module pyaudio.

    Raises:
        AudioError: it or PortAudio is not installed.
    """
    try:
        import pyaudio  # noqa: PLC0415 - needs the system's PortAudio, which files do without
    except ImportError as error:
        raise AudioError(
            f"the microphone needs PyAudio and PortAudio, which cannot be loaded ({error}); "
            "install the package libportaudio2, then: pip install PyAudio"
        ) from error
    return pyaudio


def _start_port_audio() -> PortAudio:
    pyaudio = load_pyaudio()
    if not _log.isEnabledFor(logging.DEBUG):
        _silence()
    try:
        return cast("PortAudio", pyaudio.PyAudio())
    except OSError as error:
        raise AudioError(f"PortAudio does not start ({error}); is the sound system running?") from error


# Starting PortAudio asks ALSA and JACK for everything that could exist, and both write a line to stderr for
# each thing that does not: over a hundred lines, again at each attempt to find a lost microphone. They can be
# given a function that is called instead. (ALSA's takes more arguments, which ours may leave where they are.)
_IGNORE_ALSA: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int)(lambda _file, _line: None)
_IGNORE_JACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _text: None)


def _silence() -> None:
    for library, function, ignore in (
        ("libasound.so.2", "snd_lib_error_set_handler", _IGNORE_ALSA),
        ("libjack.so.0", "jack_set_error_function", _IGNORE_JACK),
        ("libjack.so.0", "jack_set_info_function", _IGNORE_JACK),
    ):
        try:
            getattr(ctypes.CDLL(library), function)(ignore)
        except (OSError, AttributeError):  # a PortAudio without it has nothing to silence
            continue


def _devices(library: PortAudio) -> tuple[Device, ...]:
    try:
        try:
            default_index = int(library.get_default_input_device_info()["index"])
        except OSError:
            default_index = -1  # a machine without a microphone
        infos = [library.get_device_info_by_index(index) for index in range(library.get_device_count())]
        return tuple(
            Device(
                index=int(info["index"]),
                name=_text(info["name"]),
                host_api=_text(library.get_host_api_info_by_index(int(info["hostApi"]))["name"]),
                channels=int(info["maxInputChannels"]),
                rate_hz=round(info["defaultSampleRate"]),
                is_default=int(info["index"]) == default_index,
            )
            for info in infos
            if int(info["maxInputChannels"]) > 0
        )
    except OSError as error:
        raise AudioError(
            f"the sound devices cannot be listed ({error}); is another program resetting them?"
        ) from error


def _open(
    library: PortAudio, device: Device, channel: int | None, callback: AudioCallback, block_s: float
) -> tuple[PortAudioStream, int, int]:
    """Open at the first rate and number of channels that the device takes; what costs least first."""
    needed = 1 if channel is None else channel + 1
    if not 1 <= needed <= device.channels:
        raise AudioError(
            f"microphone {device} has no channel {channel}; choose one from 0 to {device.channels - 1}"
        )
    formats = dict.fromkeys(
        (rate, count) for rate in (SAMPLE_RATE_HZ, device.rate_hz) for count in (needed, device.channels)
    )
    for rate_hz, channels in formats:
        try:
            stream = library.open(
                rate=rate_hz,
                channels=channels,
                format=PA_INT16,
                input=True,
                input_device_index=device.index,
                frames_per_buffer=round(rate_hz * block_s),
                stream_callback=callback,
            )
        except OSError as error:
            if error.errno in PA_WRONG_FORMAT:
                continue
            raise AudioError(
                f"microphone {device} cannot be opened ({error}); is another program using it?"
            ) from error
        return stream, rate_hz, channels
    tried = ", ".join(f"{rate} Hz with {count} channels" for rate, count in formats)
    raise AudioError(
        f"microphone {device} refuses 16-bit audio at {tried}; is another program using it? "
        "If not, choose another device"
    )


def _close(stream: PortAudioStream, owned: PortAudio | None) -> None:
    try:
        stream.close()
    except OSError as error:
        _log.debug("closing: %s", error)  # an unplugged device cannot be stopped
    finally:
        if owned is not None:
            owned.terminate()


def _text(name: str | bytes) -> str:
    """PyAudio hands over names it cannot decode as bytes."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
