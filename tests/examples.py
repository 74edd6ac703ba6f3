"""How many examples property tests try: EDGEVOICE_TEST_EXAMPLES=N tries N times as many (`make soak`)."""

from __future__ import annotations

import os


def examples(usual: int) -> int:
    """Return the number for `max_examples`."""
    return usual * int(os.environ.get("EDGEVOICE_TEST_EXAMPLES", "1"))
