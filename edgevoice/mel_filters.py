"""Mel filters: the filter bank that every Whisper model carries, computed as librosa does.

OpenAI's `mel_filters.npz` was made by `librosa.filters.mel(sr=16000, n_fft=400, n_mels=...)`, with 80 bands
and, since large-v3, 128. The same come out of this file, bit for bit, on every machine: logarithm and
exponential are those of `decimal`, correctly rounded, as those of C libraries may differ in the last bit.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import TYPE_CHECKING, Final

import numpy as np

from edgevoice.mel import BINS

if TYPE_CHECKING:
    import numpy.typing as npt

_HIGHEST_HZ: Final = 8000.0  # half of 16 kHz
_BIN_HZ: Final = 40.0  # 16 kHz by the 400 samples of a window
_PRECISE: Final = Context(prec=28)  # twelve digits more than a float has
# Slaney's mel scale: linear up to 1 kHz, 27 mels for each 6.4 times of frequency above
_LINEAR_HZ: Final = 200.0 / 3
_LOG_FROM_HZ: Final = 1000.0
_LOG_FROM_MEL: Final = _LOG_FROM_HZ / _LINEAR_HZ
_LOG_STEP: Final = float(Decimal("6.4").ln(_PRECISE)) / 27.0
# The first weight is nothing: 0 in the published models of 80 bands, -0 in OpenAI's later file of 80 and 128
_FIRST: Final = {80: 0.0, 128: -0.0}


def mel_filters(n_mels: int) -> npt.NDArray[np.float32]:
    """Return the triangular filters of 80 or 128 bands, each of the same area: shape (n_mels, BINS)."""
    highest = _LOG_FROM_MEL + float(Decimal(_HIGHEST_HZ / _LOG_FROM_HZ).ln(_PRECISE)) / _LOG_STEP
    corners = np.array([_hertz(float(mel)) for mel in np.linspace(0.0, highest, n_mels + 2)])
    widths = np.diff(corners)
    ramps = np.subtract.outer(corners, _BIN_HZ * np.arange(BINS))
    weights = np.zeros((n_mels, BINS), np.float32)
    for band in range(n_mels):
        up, down = -ramps[band] / widths[band], ramps[band + 2] / widths[band + 1]
        weights[band] = np.maximum(0, np.minimum(up, down))
    weights *= (2.0 / (corners[2:] - corners[:-2]))[:, np.newaxis]
    weights[0, 0] = _FIRST[n_mels]
    return weights


def _hertz(mel: float) -> float:
    if mel < _LOG_FROM_MEL:
        return _LINEAR_HZ * mel
    return _LOG_FROM_HZ * float(Decimal(_LOG_STEP * (mel - _LOG_FROM_MEL)).exp(_PRECISE))
