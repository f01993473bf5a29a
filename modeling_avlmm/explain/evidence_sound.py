"""Differences between the sound of a fake and that of its source, by band and time, and the shift between the two.

The levels of the four bands of [`~regions.SOUND_BANDS`] are compared in dB, in the time cells where either sound is loud in
the band. A change of the overall level does not count. The remaining difference of a band has two parts. The constant
part, the colour of the recording chain, counts if it is large; a change that lasts for most of a clip belongs to it. The
part that changes with time counts above a floor that rises with the spread of the clip's own differences, because
re-encoding changes the level of speech in a band by a few dB. All constants are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import stft

from ..media import SAMPLING_RATE
from .regions import SOUND_BANDS, STEP

WINDOW, HOP = 512, 160  # length of a spectrum and step to the next one, samples: 32 and 10 ms
RANGE = 60.0  # this far below the loudest cell of the clip, everything counts as silence; dB
LOUD = (
    25.0  # a cell is compared down to this level below the loudest cell of its band: pauses are only hiss; dB
)
COLOUR_FLOOR = 10.0  # a constant difference of a band from the others counts from here; dB
FLOOR_FACTOR = (
    4.0  # a changing difference counts above this many robust standard deviations of the clip's ...
)
FLOOR_MIN, FLOOR_MAX = 5.0, 10.0  # ... within these limits; dB
# Band -> correlation of two spectrograms of a cell below which they are different sounds. AAC at 16 kbit/s keeps little
# more than the level of the highest band.
ALIKE = {"below_300_hz": 0.4, "300_1000_hz": 0.45, "1_3_khz": 0.45, "3_8_khz": 0.0}
FLAT = 1.0  # below this standard deviation, a spectrogram has no structure; dB
FINE = 20.0  # fine structure is compared down to this level below the loudest cell of its band; dB
ENVELOPE_RATE = 200  # values per second of the envelopes from which shifts are measured
MAX_LAG = 1.0  # largest shift, seconds
SURE = 0.8  # correlation of the envelopes from which a shift counts
OVERLAP = 0.75  # share of the shorter envelope that must overlap: a smaller part is alike by chance
MIN_SECONDS = 0.5  # shortest sound that is compared


@dataclass
class SoundEvidence:
    """
    The result of [`compare_sounds`].

    Attributes:
        differences (`dict[str, np.ndarray]`):
            Band -> level of the fake minus that of the source in each time cell, dB, without the difference of the
            overall level; 0 where neither is loud.
        strengths (`dict[str, np.ndarray]`): The same in units of the floor.
        floor (`float`): Level from which a difference that changes with time counts, dB.
        lag (`float`, *optional*): Seconds by which the fake's sound is later; None if the sounds are too different.
        confidence (`float`): Correlation of the envelopes at that lag.
        warnings (`list[str]`): Reasons for comparisons that were not made.
    """

    differences: dict[str, np.ndarray] = field(default_factory=dict)
    strengths: dict[str, np.ndarray] = field(default_factory=dict)
    floor: float = 0.0
    lag: float | None = None
    confidence: float = 0.0
    warnings: list[str] = field(default_factory=list)


def compare_sounds(fake: np.ndarray, source: np.ndarray) -> SoundEvidence:
    """
    Compare two sounds of the same scene.

    Args:
        fake, source (`np.ndarray` of shape `(samples,)`): Sounds at 16 kHz, each from the start of its clip.
    """
    found = SoundEvidence()
    if min(len(fake), len(source)) < MIN_SECONDS * SAMPLING_RATE:
        found.warnings.append(f"less than {MIN_SECONDS} s of sound: sounds not compared")
        return found
    silent = [name for name, x in (("fake", fake), ("source", source)) if np.abs(x).max() < 2**-12]
    if silent:
        found.warnings.append(f"the sound of the {' and the '.join(silent)} is silence: sounds not compared")
        return found
    lag, found.confidence = shift_of(envelope(fake), envelope(source))
    if found.confidence >= SURE:
        found.lag = lag
    moved = round((found.lag or 0.0) * SAMPLING_RATE)  # fake[n] is like source[n - moved]
    aligned = np.zeros(len(fake), dtype=np.float32)
    first, stop = max(0, moved), min(len(fake), len(source) + moved)
    aligned[first:stop] = source[first - moved : stop - moved]
    cells = int(np.ceil(len(fake) / SAMPLING_RATE / STEP - 1e-6))
    compared = np.arange(cells)
    compared = (compared * STEP >= first / SAMPLING_RATE - STEP / 2) & (
        (compared + 1) * STEP <= stop / SAMPLING_RATE + STEP / 2
    )
    spectra = [spectrum_of(fake), spectrum_of(aligned)]
    mine, theirs = (band_levels(power, cells) for power in spectra)
    if not compared.any():
        found.warnings.append("no part of the sounds overlaps: sounds not compared")
        return found
    active, loud = np.zeros_like(mine, dtype=bool), np.zeros_like(mine, dtype=bool)
    for levels in (mine, theirs):
        loud |= levels > levels[:, compared].max(1, keepdims=True) - FINE
        active |= levels > levels[:, compared].max(1, keepdims=True) - LOUD
        np.maximum(levels, levels[:, compared].max() - RANGE, out=levels)
    active &= compared
    difference = mine - theirs
    colour = np.array(
        [np.median(x[on]) if on.any() else np.nan for x, on in zip(difference, active, strict=True)]
    )
    level = np.nanmedian(colour)
    colour = np.nan_to_num(colour - level)[:, None]
    difference = np.where(active, difference - level, 0.0)
    changing = np.where(active, difference - colour, 0.0)
    spread = 1.4826 * np.median(np.abs(changing[active]))
    found.floor = float(np.clip(FLOOR_FACTOR * spread, FLOOR_MIN, FLOOR_MAX))
    strengths = np.maximum(
        np.abs(changing) / found.floor, np.where(active, np.abs(colour) / COLOUR_FLOOR, 0.0)
    )
    unlike = fine_differences(*spectra, cells) / (1 - np.array(list(ALIKE.values())))[:, None]
    strengths = np.maximum(strengths, np.where(loud & compared, unlike, 0.0))
    found.differences = dict(zip(SOUND_BANDS, difference, strict=True))
    found.strengths = dict(zip(SOUND_BANDS, strengths, strict=True))
    return found


def spectrum_of(sound: np.ndarray) -> np.ndarray:
    """Return the power of short spectra, shape `(frequencies, times)`, of `WINDOW` samples every `HOP`."""
    return np.abs(stft(sound, fs=SAMPLING_RATE, nperseg=WINDOW, noverlap=WINDOW - HOP)[2]) ** 2


def _cells_of(power: np.ndarray, cells: int) -> np.ndarray:
    return np.minimum((np.arange(power.shape[1]) * HOP / SAMPLING_RATE / STEP + 1e-6).astype(int), cells - 1)


def _bands_of(power: np.ndarray) -> list[np.ndarray]:
    frequencies = np.arange(len(power)) * SAMPLING_RATE / WINDOW
    return [(frequencies >= low) & (frequencies < high) for low, high in SOUND_BANDS.values()]


def band_levels(power: np.ndarray, cells: int) -> np.ndarray:
    """Return the level of each band in each time cell in dB, shape `(bands, cells)`."""
    cell = _cells_of(power, cells)
    counts = np.maximum(np.bincount(cell, minlength=cells), 1)
    levels = [np.bincount(cell, power[band].sum(0), minlength=cells) / counts for band in _bands_of(power)]
    return 10 * np.log10(np.stack(levels) + 1e-14)


def fine_differences(fake: np.ndarray, source: np.ndarray, cells: int) -> np.ndarray:
    """Return one minus the correlation of two spectrograms in dB, for each band and time cell: `(bands, cells)`."""
    cell = _cells_of(fake, cells)
    pictures = []
    for power in (fake, source):
        level = 10 * np.log10(power + 1e-14)
        level = np.maximum(level, level.max() - RANGE)
        pictures.append(level - np.median(level, axis=1, keepdims=True))
    unlike = np.zeros((len(SOUND_BANDS), cells))
    for row, band in enumerate(_bands_of(fake)):
        for column in range(cells):
            a, b = (picture[band][:, cell == column].ravel() for picture in pictures)
            # If one of the two has no structure, only the levels can be compared.
            flat = min(a.std(), b.std()) < FLAT
            unlike[row, column] = 0.0 if flat else 1 - _correlation(a, b)
    return unlike


def envelope(sound: np.ndarray) -> np.ndarray:
    """Return the loudness over time at `ENVELOPE_RATE`, in dB and at most 40 dB below the peak, shape `(values,)`."""
    hop = SAMPLING_RATE // ENVELOPE_RATE
    count = len(sound) // hop
    power = (sound[: count * hop].reshape(count, hop).astype(np.float64) ** 2).mean(1)
    level = 10 * np.log10(gaussian_filter1d(power, 2) + 1e-12)
    return np.maximum(level, level.max() - 40)


def shift_of(
    fake: np.ndarray, source: np.ndarray, rate: float = ENVELOPE_RATE, max_lag: float = MAX_LAG
) -> tuple[float, float]:
    """
    Return by how many seconds the first of two tracks is later, and their correlation (-1 to 1) at that shift.

    Args:
        fake, source (`np.ndarray` of shape `(values,)`): The tracks.
        rate (`float`): Values per second.
        max_lag (`float`): Largest shift to try, seconds.
    """
    widest = int(max_lag * rate)
    lags = np.arange(-widest, widest + 1)
    values = np.full(len(lags), -1.0)
    for place, lag in enumerate(lags):
        first, stop = max(0, lag), min(len(fake), len(source) + lag)
        if stop - first >= OVERLAP * min(len(fake), len(source)):
            # Only over the overlap: one of the two may be longer.
            values[place] = _correlation(fake[first:stop], source[first - lag : stop - lag])
    best = int(np.argmax(values))
    fine = 0.0
    if 0 < best < len(values) - 1:  # refined by the top of a parabola through three values
        left, top, right = values[best - 1 : best + 2]
        curve = left - 2 * top + right
        fine = 0.5 * (left - right) / curve if curve < 0 else 0.0
    return float(lags[best] + fine) / rate, float(values[best])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two arrays, -1 to 1; 0 if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    power = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / power) if power > 1e-6 else 0.0
