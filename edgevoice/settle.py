"""Who answers when several edgevoices hear one command: one of them.

    accepted result -> offer() -> bid to the others (edgevoice/<site>/bid) -> wait -> result, or `elsewhere`

1. Who has understood a command tells the others, with a bid: when the speech was, how clearly it was heard.
2. Who knows of a bid for the same speech that is older than half of the wait keeps silent: another one is
   about to answer. Otherwise it bids, too, so that all bids are out within half of the wait.
3. When the wait is over, who heard the speech most clearly answers. All have seen the same bids by then, if
   a message takes less than a quarter of the wait.

Clocks of machines differ, so bids say how long ago something was, and each counts back from when it heard
of it. The same speech is what overlaps by more than half of the shorter one. A bid that comes late, or not at
all, makes two answers, never none, unless the one that has won dies at that moment.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevoice.events import Result

_log = logging.getLogger(__name__)

BID_LIFE_S: Final = 1.0
"""A bid that took longer tells of a time that is over. MQTT 5 counts whole seconds."""

MAX_BID_BYTES: Final = 1000
"""With a site of 64 letters it has some 200."""

_KEPT: Final = 256  # bids; fifty sites make as many with five commands
_FORGOTTEN_S: Final = 30.0  # no utterance is longer than that
_LONGEST_AGO_MS: Final = 60_000.0


@dataclass(frozen=True, slots=True)
class _Bid:
    """Times are of our clock."""

    site: str
    start_s: float
    end_s: float
    clarity_db: float
    known_s: float
    """Since when we know of it."""

    def is_same_speech(self, other: _Bid) -> bool:
        shared_s = min(self.end_s, other.end_s) - max(self.start_s, other.start_s)
        return shared_s > min(self.end_s - self.start_s, other.end_s - other.start_s) / 2

    @property
    def rank(self) -> tuple[float, str]:
        """Higher ones answer; no two sites have the same."""
        return self.clarity_db, self.site


class Settlement:
    """Holds accepted results back until it is settled who answers.

    Args:
        site: ours.
        wait_s: how long.
        bid: sends a bid to the others.
        tell: given each result in the end, some from a thread of our own.
        clock: seconds.
    """

    def __init__(
        self,
        site: str,
        wait_s: float,
        bid: Callable[[str], None],
        tell: Callable[[Result], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._wait_s = wait_s
        self._bid = bid
        self._tell = tell
        self._clock = clock
        self._changed = threading.Condition()  # guards what follows
        self._bids: deque[_Bid] = deque(maxlen=_KEPT)  # of others
        self._offers: deque[tuple[Result, _Bid]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="edgevoice-settle", daemon=True)
        self._thread.start()

    def offer(self, result: Result) -> None:
        """Take a result; returns at once. What nobody else can have heard now is told as it is."""
        if not result.accepted or result.latency_ms is None:
            self._tell(result)
            return
        now_s = self._clock()
        end_s = now_s - result.latency_ms / 1000
        start_s = end_s - (result.end_s - result.start_s)
        clarity_db = round(result.clarity_db, 1)  # all must compare the same numbers
        ours = _Bid(self._site, start_s, end_s, clarity_db, now_s)
        with self._changed:
            older = [bid for bid in self._rivals(ours) if now_s - bid.known_s > self._wait_s / 2]
            if not older:
                self._offers.append((result, ours))
                self._changed.notify_all()
        if older:
            self._tell(_elsewhere(result, max(older, key=lambda bid: bid.rank)))
            return
        self._bid(
            json.dumps(
                {
                    "site": self._site,
                    "utterance_id": result.utterance_id,
                    "start_ms_ago": round(1000 * (now_s - start_s), 1),
                    "end_ms_ago": round(result.latency_ms, 1),
                    "clarity_db": clarity_db,
                },
                ensure_ascii=False,
            )
        )

    def hear(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a bid, ours or of others, from any thread; one that is none is logged and left."""
        if retained:  # of another time, and nobody of us does that
            return
        try:
            bid = self._parsed(payload)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            _log.warning("a bid on %s is not understood (%s): %r", topic, error, payload[:80])
            return
        if bid.site != self._site:
            with self._changed:
                self._bids.append(bid)

    def close(self) -> None:
        """Settle what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _parsed(self, payload: bytes) -> _Bid:
        if len(payload) > MAX_BID_BYTES:
            raise ValueError(f"{len(payload)} bytes, at most {MAX_BID_BYTES} are allowed")
        fields: dict[str, Any] = json.loads(payload)
        site = fields["site"]
        start_ms, end_ms, clarity_db = (
            float(fields[name]) for name in ("start_ms_ago", "end_ms_ago", "clarity_db")
        )
        if not isinstance(site, str):
            raise TypeError(f"site is {site!r}")
        if not (0 <= end_ms <= start_ms <= _LONGEST_AGO_MS and math.isfinite(clarity_db)):
            raise ValueError("times or clarity out of range")
        now_s = self._clock()
        return _Bid(site, now_s - start_ms / 1000, now_s - end_ms / 1000, clarity_db, now_s)

    def _rivals(self, ours: _Bid) -> list[_Bid]:
        """Return bids for the same speech; call with the lock held."""
        while self._bids and ours.known_s - self._bids[0].known_s > _FORGOTTEN_S:
            self._bids.popleft()
        return [bid for bid in self._bids if bid.is_same_speech(ours)]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._offers or self._closed)
                if not self._offers:
                    return
                left_s = self._offers[0][1].known_s + self._wait_s - self._clock()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
            self._settle()

    def _settle(self) -> None:
        """Say who answers the first result that waits."""
        with self._changed:
            result, ours = self._offers.popleft()
            best = max([ours, *self._rivals(ours)], key=lambda bid: bid.rank)
        self._tell(result if best is ours else _elsewhere(result, best))


def _elsewhere(result: Result, best: _Bid) -> Result:
    _log.info("%r was answered by %s", result.text, best.site)
    return replace(result, accepted=False, reason="elsewhere")
