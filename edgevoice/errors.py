"""Every error edgevoice raises on purpose, and the exit code each one ends a command with.

    EdgevoiceError                      exit code
    ├── CheckFailedError                1   a check failed, or output cannot be written
    ├── UsageError (ValueError)         2   wrong arguments
    ├── ConfigError (ValueError)        2   the configuration file
    ├── GrammarError (ValueError)       2   a grammar file
    ├── ModelError                      3   a model file
    │   ├── ModelNotFoundError          3   not pulled yet
    │   └── ModelCorruptError           3   wrong hash, truncated, malformed
    ├── NativeError                     3   the native module
    │   ├── EngineBusyError             3   a second thread used an engine in use
    │   ├── EngineClosedError           3   used after close()
    │   ├── DeadlineError               3   recognition ran out of time
    │   │   └── CancelledError          3   or nobody wants its answer any more
    │   └── InferenceError              3   whisper.cpp failed
    ├── AudioError                      4   devices and streams
    │   └── AudioFormatError (ValueError) 4 a file or array that is no usable audio
    └── NetworkError                    5
        ├── DownloadError               5   a model or source could not be fetched
        ├── ProtocolError               5   a client that does not speak as agreed
        └── BrokerError                 5   MQTT

A message says what happened, the value seen, and what to do:

    try:
        engine.recognise(samples)
    except EdgevoiceError as error:
        print(f"edgevoice: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
"""

from __future__ import annotations

from typing import ClassVar, Final


class EdgevoiceError(Exception):
    """Base of every error raised on purpose; its text is one sentence for the user."""

    exit_code: ClassVar[int] = 1


class CheckFailedError(EdgevoiceError):
    """A check failed."""


class UsageError(EdgevoiceError, ValueError):
    """Arguments that make no sense together or at all."""

    exit_code = 2


class ConfigError(EdgevoiceError, ValueError):
    """The configuration file: text names file, line, key, value seen and values allowed."""

    exit_code = 2


class GrammarError(EdgevoiceError, ValueError):
    """A grammar file: text names file, place, what is wrong and what to do.

    Args:
        text: of it.
        column: in the line that it names, counted from 1; None: it is not known.
    """

    exit_code = 2

    def __init__(self, text: str, column: int | None = None) -> None:
        super().__init__(text)
        self.column = column


class ModelError(EdgevoiceError):
    """A model file cannot be used."""

    exit_code = 3


class ModelNotFoundError(ModelError):
    """The model is not on this machine."""


class ModelCorruptError(ModelError):
    """The model file is truncated, malformed or not the one its name promises."""


_MAX_DETAIL: Final = 400  # characters: what a damaged file says of itself may be as long as the file


def unusable_model(name: str, what: str, remedy: str) -> ModelCorruptError:
    """Return the error for a file: what is wrong with it, cut where that is too long, and what to do."""
    what = what if len(what) <= _MAX_DETAIL else f"{what[:_MAX_DETAIL]} ..."
    return ModelCorruptError(f"{name} is no usable Whisper model: {what}" + (f"; {remedy}" if remedy else ""))


class NativeError(EdgevoiceError):
    """The native module is absent or reported a failure."""

    exit_code = 3


class EngineBusyError(NativeError):
    """Another thread is using this engine; one engine serves one thread at a time."""


class EngineClosedError(NativeError):
    """The engine was used after close()."""


class DeadlineError(NativeError):
    """The deadline of the recognition passed."""


class CancelledError(DeadlineError):
    """The recognition was cancelled."""


class InferenceError(NativeError):
    """whisper.cpp reported a failure."""


class AudioError(EdgevoiceError):
    """A device or stream of audio failed."""

    exit_code = 4


class AudioFormatError(AudioError, ValueError):
    """A file or array that cannot be used as audio."""


class NetworkError(EdgevoiceError):
    """Something over the network failed."""

    exit_code = 5


class DownloadError(NetworkError):
    """A model or source could not be fetched."""


class ProtocolError(NetworkError):
    """What a client of ours sent makes no sense, or is too large."""


class BrokerError(NetworkError):
    """The MQTT broker is absent, refused us or was lost."""
