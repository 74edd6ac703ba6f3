"""Which microphone is meant, and a sound system that does not answer."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgevoice import portaudio
from edgevoice.errors import AudioError
from edgevoice.portaudio import PA_CONTINUE, InputStream, find_device, list_devices
from edgevoice.testing import FakeDevice, FakePortAudio, FakeStream

if TYPE_CHECKING:
    from collections.abc import Iterator

CARD = FakePortAudio(
    devices=(
        FakeDevice("HDMI output", channels=0),
        FakeDevice("USB Mic", rate_hz=48_000),
        FakeDevice("ReSpeaker 4 Mic Array", channels=6),
        FakeDevice("USB Mic Pro"),
        FakeDevice(b"caf\xe9", channels=2),
    ),
    default_index=1,
)


class TestDevices:
    """Choosing a microphone."""

    def test_list(self) -> None:
        """Only what can record is listed, with what the user needs to choose."""
        devices = list_devices(CARD)
        assert [device.index for device in devices] == [1, 2, 3, 4]
        assert [device.is_default for device in devices] == [True, False, False, False]
        assert (devices[1].name, devices[1].channels, devices[1].rate_hz, devices[1].host_api) == (
            "ReSpeaker 4 Mic Array",
            6,
            16_000,
            "Fake",
        )
        assert devices[3].name == "caf�"

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [(None, 1), (3, 3), ("3", 3), ("respeaker", 2), ("usb mic", 1), ("PRO", 3), ("MIC ARRAY", 2)],
    )
    def test_found(self, wanted: int | str | None, index: int) -> None:
        """Default, index, part of a name in any case; a whole name wins over a part."""
        assert find_device(list_devices(CARD), wanted).index == index

    @pytest.mark.parametrize("wanted", ["webcam", 0, 7, "7"])
    def test_absent(self, wanted: int | str) -> None:
        """A device that is not there, or cannot record, lists those that can."""
        with pytest.raises(AudioError, match=r"there is no microphone .*1: USB Mic .*2: ReSpeaker") as caught:
            find_device(list_devices(CARD), wanted)
        assert str(wanted) in str(caught.value)

    def test_ambiguous(self) -> None:
        """Several that fit are listed, without the others."""
        with pytest.raises(AudioError, match="several microphones fit 'usb'") as caught:
            find_device(list_devices(CARD), "usb")
        assert "3: USB Mic Pro" in str(caught.value)
        assert "ReSpeaker" not in str(caught.value)

    def test_none_at_all(self) -> None:
        """A machine without a microphone says so."""
        with pytest.raises(AudioError, match="no default microphone; devices: none"):
            find_device(list_devices(FakePortAudio()), None)

    def test_pyaudio_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without PyAudio or PortAudio the error says what to install."""
        monkeypatch.setitem(sys.modules, "pyaudio", None)
        with pytest.raises(AudioError, match="install the package libportaudio2"):
            list_devices()

    def test_real_portaudio(self) -> None:
        """The real library can be asked on a machine without any card."""
        assert all(device.channels > 0 for device in list_devices())

    def test_devices_that_go_while_they_are_listed(self) -> None:
        """PortAudio's error becomes one of ours."""

        class Vanishing(FakePortAudio):
            def get_device_info_by_index(self, device_index: int) -> Any:
                raise OSError(-9996, f"Invalid device {device_index}")

        with pytest.raises(AudioError, match=r"cannot be listed .*Invalid device 0"):
            list_devices(Vanishing(devices=CARD.devices, default_index=None))


class Hanging(FakePortAudio):
    """A sound system that answers when it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__(devices=(FakeDevice("Mic"),))
        self.go_on = threading.Event()
        self.where = where

    def hang(self, where: str) -> None:
        """Wait, if it is here that it hangs."""
        if where == self.where:
            self.go_on.wait(10)

    def open(self, **settings: Any) -> FakeStream:
        """Like PyAudio's."""
        self.hang("open")
        stream = super().open(**settings)
        plain_close = stream.close

        class Stream(FakeStream):
            def close(_self) -> None:  # noqa: N805 - self is the sound system
                self.hang("close")
                plain_close()

        return Stream(stream.callback, stream.rate_hz, stream.channels, stream.block_samples)


def open_stream(card: FakePortAudio) -> InputStream:
    return InputStream(None, None, lambda *_: (None, PA_CONTINUE), 0.032, card)


class TestHanging:
    """A sound server that does not answer holds nobody up for long."""

    @pytest.fixture(autouse=True)
    def _short_waits(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(portaudio, "ANSWER_S", 0.2)
        yield
        assert portaudio._in_use.acquire(timeout=5)  # nothing hangs any more
        portaudio._in_use.release()

    def test_open(self) -> None:
        """Opening gives up; what comes too late is closed again, and until then nobody else gets in."""
        card = Hanging("open")
        for _ in range(2):
            start_s = time.monotonic()
            with pytest.raises(AudioError, match="no answer"):
                open_stream(card)
            assert time.monotonic() - start_s < 2
        with pytest.raises(AudioError, match="no answer"):
            list_devices(CARD)
        card.go_on.set()
        with_patience_s = time.monotonic() + 5
        while card.stream is None or not card.stream.closed:
            assert time.monotonic() < with_patience_s
            time.sleep(0.01)
        assert list_devices(CARD)

    def test_close(self) -> None:
        """Closing is left to a thread, which finishes when it can."""
        card = Hanging("close")
        stream = open_stream(card)
        start_s = time.monotonic()
        stream.close()
        assert time.monotonic() - start_s < 1
        with pytest.raises(AudioError, match="no answer"):
            open_stream(card)
        card.go_on.set()
        open_stream(card).close()
        assert card.stream is not None
        assert card.stream.closed

    def test_interrupted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C while it hangs ends the waiting, not the program's order: the late stream is closed."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        card = Hanging("open")
        monkeypatch.setattr(portaudio, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_stream(card)
        card.go_on.set()
        with portaudio._in_use:
            assert card.stream is not None
            assert card.stream.closed
