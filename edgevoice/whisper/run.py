"""A transcription in a thread of its own, whose segments are iterated over as they are found."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Self

from edgevoice.errors import NativeError
from edgevoice.whisper.session import CancelToken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgevoice.whisper.options import Options
    from edgevoice.whisper.results import Segment, Transcription
    from edgevoice.whisper.session import Session


class Run:
    """A transcription under way: iterate over it for its segments, once, or ask for its result().

    The session is busy until it ends. Leaving the `with` block, or close(), cancels it and waits.
    """

    def __init__(
        self,
        session: Session,
        samples: npt.NDArray[Any],
        options: Options | None,
        *,
        timeout_s: float | None,
        cancel: CancelToken | None,
    ) -> None:
        self._cancel = cancel or CancelToken()
        self._found: queue.SimpleQueue[Segment | None] = queue.SimpleQueue()
        self._outcome: Transcription | BaseException | None = None
        self.progress = 0.0
        """How much is done, 0-1."""

        self._turn = session._use()  # noqa: SLF001
        pointer = self._turn.__enter__()  # left by the thread
        self._thread = threading.Thread(
            target=self._work,
            args=(session, pointer, samples, options, timeout_s),
            name="edgevoice-whisper",
            daemon=True,
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._turn.__exit__(None, None, None)
            raise NativeError(f"a transcription could not begin: {error}") from None

    def _work(
        self,
        session: Session,
        pointer: Any,
        samples: npt.NDArray[Any],
        options: Options | None,
        timeout_s: float | None,
    ) -> None:
        try:
            self._outcome = session._transcribe(  # noqa: SLF001
                pointer, samples, options, timeout_s=timeout_s, cancel=self._cancel, on_segments=self._take
            )
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._outcome = error
        self._turn.__exit__(None, None, None)
        self._found.put(None)

    def _take(self, done: float, segments: Sequence[Segment]) -> None:
        self.progress = done
        for segment in segments:
            self._found.put(segment)

    def __iter__(self) -> Iterator[Segment]:
        """Yield segments as they are found; raises what transcribe() raised."""
        while (segment := self._found.get()) is not None:
            yield segment
        self._found.put(None)  # for who iterates again
        self.result()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """End it at its next step; result() has what was found until then."""
        self._cancel.cancel()

    def result(self, timeout_s: float | None = None) -> Transcription:
        """Wait for the end and return the whole.

        Raises:
            TimeoutError: it has not ended by then.
            EdgevoiceError: as Session.transcribe.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the transcription has not ended after {timeout_s} s")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None  # noqa: S101 - the thread has ended
        return self._outcome

    def close(self) -> None:
        """Cancel it and wait."""
        self.cancel()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
