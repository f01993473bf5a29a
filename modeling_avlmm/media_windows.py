"""The windows in which a long file is read, and the mean of their scores over time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

from .media_tracks import EPS

Span = tuple[float, float]

SEAM_SECONDS = 0.1  # the padding that audio codecs leave at the end of a file is shorter; our own choice
SEAM_SHARE = 0.1  # of a window; our own choice


def windows_of(duration: float, window_seconds: float, hop_seconds: float | None = None) -> list[Span]:
    """
    Return the windows of a file as `(start, end)` in seconds.

    Windows start every `hop_seconds` and are `window_seconds` long; the last one ends with the file. With a hop of one
    window they cover the file once. None is longer than `window_seconds`, and none is shorter than half of that unless
    the file is:

    - A rest of at least half a window is a window.
    - A shorter rest and the window before it share their time equally: 7 s in windows of 3 s are 0-3, 3-5 and 5-7.
    - For a rest of at most 0.1 s (and a tenth of a window), such as the padding of an audio codec, the window before is
      shifted to end with the file: 6.016 s are 0-3 and 3.016-6.016. The seam between the two is in no window.
    - Where windows overlap, the window before is shifted in the same way if every moment stays covered.
    - Where the hop leaves gaps, a short last window begins earlier, in the gap.

    Args:
        duration (`float`): Length of the file in seconds.
        window_seconds (`float`): Length of a window in seconds.
        hop_seconds (`float`, *optional*): Time from one start to the next. Defaults to `window_seconds`.

    Raises:
        ValueError: If `window_seconds` or `hop_seconds` is not above 0.

    Example:

    ```python
    >>> windows_of(7.6, 3)
    [(0.0, 3.0), (3.0, 6.0), (6.0, 7.6)]
    ```
    """
    hop = window_seconds if hop_seconds is None else hop_seconds
    if not (window_seconds > 0 and hop > 0):
        raise ValueError(f"window_seconds ({window_seconds}) and hop_seconds ({hop}) must be above 0")
    spans: list[Span] = []
    while not spans or (spans[-1][1] < duration - EPS and len(spans) * hop < duration - EPS):
        start = float(len(spans) * hop)
        spans.append((start, min(start + window_seconds, duration)))
    start, end = spans[-1]
    if len(spans) > 1 and end - start < window_seconds / 2 - EPS:
        spans[-2:] = _without_short_rest(spans, duration, window_seconds)
    return spans


def _without_short_rest(spans: list[Span], duration: float, window_seconds: float) -> list[Span]:
    """Return what replaces the last two windows, of which the last is too short."""
    before_start, before_end = spans[-2]
    if duration - before_end >= window_seconds / 2:  # only where the hop leaves gaps
        return [spans[-2], (max(before_end, duration - window_seconds), duration)]
    covered = spans[-3][1] if len(spans) > 2 else 0.0
    seam = duration - window_seconds - covered
    if seam <= min(SEAM_SECONDS, SEAM_SHARE * window_seconds) + EPS:
        return [(duration - window_seconds, duration)]
    middle = (before_start + duration) / 2
    return [(before_start, middle), (middle, duration)]


class MeanOverTime:
    """
    Mean of the windows' scores, weighted by time, in bounded memory.

    Every moment that a window covers counts once: windows that overlap share it equally.

    Example:

    ```python
    >>> mean = MeanOverTime()
    >>> mean.add(0, 3, 0.2)
    >>> mean.add(3, 4, 0.6)
    >>> round(mean.value, 6)
    0.3
    ```
    """

    def __init__(self) -> None:
        self._mean: float | None = None
        self._seconds = 0.0  # of time in the mean
        self._time = 0.0  # the mean holds everything before
        self._open: list[tuple[float, float]] = []  # end and score of windows that reach further

    def add(self, start: float, end: float, score: float) -> None:
        """Add a window. Windows come in the order of their starts, in seconds."""
        self._advance(start)
        self._time = start
        self._open.append((end, score))

    @property
    def value(self) -> float | None:
        """The mean of all windows so far; None without any."""
        whole = copy.copy(self)
        whole._advance(math.inf)
        return whole._mean

    def _advance(self, time: float) -> None:
        """Take in what lies before `time`."""
        while self._open and self._time < time:
            upto = min(time, min(end for end, _ in self._open))
            score = self._together([score for _, score in self._open])
            seconds, self._time = upto - self._time, upto
            self._seconds += seconds
            share = seconds / self._seconds
            self._mean = score if self._mean is None else self._moved(self._mean, score, share)
            self._open = [window for window in self._open if window[0] > upto]

    def _together(self, scores: list[float]) -> float:
        """Return the mean of scores at one moment."""
        return sum(scores) / len(scores)

    def _moved(self, mean: float, score: float, share: float) -> float:
        """Return a mean with a score that makes up a share of it."""
        return (
            mean + (score - mean) * share
        )  # in this form the mean of equal scores is that score, to the last bit


class _LogMeanOverTime(MeanOverTime):
    """The logarithm of a mean, from logarithms: numbers near 0 keep all their digits."""

    def _together(self, scores: list[float]) -> float:
        largest = max(scores)
        return largest + math.log(sum(math.exp(score - largest) for score in scores) / len(scores))

    def _moved(self, mean: float, score: float, share: float) -> float:
        largest = max(mean, score)
        together = (1 - share) * math.exp(mean - largest) + share * math.exp(score - largest)
        return largest + math.log(together)


class LogOddsOverTime:
    """
    The log-odds of the mean of P(fake) over time, from the log-odds of the windows; see [`MeanOverTime`].

    Example:

    ```python
    >>> mean = LogOddsOverTime()
    >>> mean.add(0, 3, 50.0)
    >>> mean.add(3, 4, 60.0)
    >>> round(mean.value, 4)  # P(fake) is 1 in float64
    50.2877
    ```
    """

    def __init__(self) -> None:
        self._fake, self._real = _LogMeanOverTime(), _LogMeanOverTime()

    def add(self, start: float, end: float, log_odds: float) -> None:
        """Add a window. Windows come in the order of their starts, in seconds."""
        rest = math.log1p(math.exp(-abs(log_odds)))
        self._fake.add(start, end, min(log_odds, 0.0) - rest)
        self._real.add(start, end, min(-log_odds, 0.0) - rest)

    @property
    def value(self) -> float | None:
        """The log-odds of the mean so far; None without any."""
        fake, real = self._fake.value, self._real.value
        return None if fake is None or real is None else fake - real


def mean_over_time(scores: Iterable[float | None], spans: Iterable[Span]) -> float | None:
    """
    Return the [`MeanOverTime`] of windows, leaving out those without a score.

    Args:
        scores (iterable of `float` or `None`): The score of each window.
        spans (iterable of `(start, end)`): The windows in seconds, in the order of their starts.

    Returns:
        `float`: The mean; None where no window has a score.
    """
    mean = MeanOverTime()
    for score, (start, end) in zip(scores, spans, strict=True):
        if score is not None:
            mean.add(start, end, score)
    return mean.value
