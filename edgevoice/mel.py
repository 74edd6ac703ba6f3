"""Mel: samples in, the log-mel spectrogram that Whisper's encoder hears out.

What is computed is what OpenAI's whisper/audio.py defines and whisper.cpp computes: each column is the
spectrum of 25 ms under a Hann window, in the frequency bands of the model's filters, on a logarithmic scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgevoice.events import Samples

Spectrogram = npt.NDArray[np.float32]
"""C-contiguous float32, shape (bands, columns)."""

_WINDOW: Final = 400
BINS: Final = _WINDOW // 2 + 1
"""Frequencies of a window, from 0 to 8 kHz."""

_HOP: Final = 160
_HANN: Final = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)
_FLOOR: Final = np.float32(1e-10)  # what silence is taken for, power
_RANGE: Final = 8  # what is quieter than the loudest by more, powers of ten, is taken for that
# All of them are OpenAI's.

_BLOCK: Final = 16
"""Columns that are computed together: a matrix product of another height may round otherwise, so no column
would be the same twice. OpenBLAS takes one thread for products as small as this one."""

_AT_ONCE: Final = 8
"""Blocks whose spectra are there at the same time, 1 MB with what lies between; those of 8 s are 11."""


class LogMel:
    """Computes spectrograms; columns of samples that are those of the call before are not computed again.

    Args:
        filters: the model's, float32, shape (bands, BINS).
    """

    def __init__(self, filters: npt.NDArray[np.float32]) -> None:
        self._filters = np.ascontiguousarray(filters.T)
        self._samples: Samples = np.zeros(0, np.float32)
        self._columns: Spectrogram = np.zeros((0, len(filters)), np.float32)  # of them, whole blocks

    def __call__(self, samples: Samples, n_columns: int) -> Spectrogram:
        """Return the spectrogram of the samples (at least one) and the silence after them.

        Samples near the limit of float32 give one that is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            columns = self._update(samples)[:n_columns].T
            spectrogram = np.full((len(columns), n_columns), np.log10(_FLOOR), np.float32)
            spectrogram[:, : columns.shape[1]] = columns
            np.maximum(spectrogram, spectrogram.max() - _RANGE, out=spectrogram)
            spectrogram += 4
            spectrogram /= 4
            return spectrogram

    def _update(self, samples: Samples) -> Spectrogram:
        """Return the logarithmic columns of all windows that touch the samples, and of a few after them."""
        n_blocks = -(-((len(samples) + _WINDOW // 2) // _HOP + 1) // _BLOCK)
        known = self._columns[: self._known_blocks(samples) * _BLOCK]
        # The first window is centred on the first sample; before that, the samples are mirrored.
        padded = np.zeros((n_blocks * _BLOCK - 1) * _HOP + _WINDOW, np.float32)
        half = _WINDOW // 2
        padded[half : half + len(samples)] = samples
        padded[:half] = padded[2 * half : half : -1]
        windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[len(known) * _HOP :: _HOP]
        step = _AT_ONCE * _BLOCK
        new = [self._bands(windows[at : at + step]) for at in range(0, len(windows), step)]
        self._columns = np.concatenate([known, *new])
        self._samples = samples.copy()
        return self._columns

    def _bands(self, windows: npt.NDArray[np.float32]) -> Spectrogram:
        """Return the logarithmic columns of whole blocks of windows."""
        spectrum = np.fft.rfft(windows * _HANN)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)  # NumPy 1 transforms in double
        bands = (power.reshape(-1, _BLOCK, BINS) @ self._filters).reshape(len(windows), -1)
        columns: Spectrogram = np.log10(np.maximum(bands, _FLOOR))
        return columns

    def _known_blocks(self, samples: Samples) -> int:
        """How many blocks lie in what the samples have in common with those before."""
        n = min(len(samples), len(self._samples))
        other = np.flatnonzero(samples[:n] != self._samples[:n])
        common = int(other[0]) if len(other) else n
        # The last window of a block ends this much after the block's own samples.
        return max(0, common - (_WINDOW // 2 - _HOP)) // (_BLOCK * _HOP)
