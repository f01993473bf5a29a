"""Windows of a file, and the mean of their scores."""

import itertools
import random

import pytest

from modeling_avlmm.media_windows import MeanOverTime, mean_over_time, windows_of


@pytest.mark.parametrize(
    ("duration", "window", "hop", "expected"),
    [
        (2, 3, None, [(0, 2)]),
        (3, 3, None, [(0, 3)]),
        (6, 3, None, [(0, 3), (3, 6)]),
        (6.016, 3, None, [(0, 3), (3.016, 6.016)]),  # the padding of a codec
        (3.016, 3, None, [(0.016, 3.016)]),
        (6.5, 3, None, [(0, 3), (3, 4.75), (4.75, 6.5)]),
        (7, 3, None, [(0, 3), (3, 5), (5, 7)]),
        (4, 3, None, [(0, 2), (2, 4)]),
        (7.5, 3, None, [(0, 3), (3, 6), (6, 7.5)]),  # exactly half a window
        (7.6, 3, None, [(0, 3), (3, 6), (6, 7.6)]),
        (0.45, 0.2, None, [(0, 0.2), (0.2, 0.325), (0.325, 0.45)]),  # 0.05 s is much of 0.2 s
        (10, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (10, 4, 3, [(0, 4), (3, 7), (6, 10)]),
        (10.5, 4, 3, [(0, 4), (3, 7), (6.5, 10.5)]),  # shifted: 9 to 10.5 would be short
        (4.5, 4, 3, [(0, 2.25), (2.25, 4.5)]),  # shifted, it would leave out the beginning
        (10, 2, 4, [(0, 2), (4, 6), (8, 10)]),
        (8.5, 2, 4, [(0, 2), (4, 6), (6.5, 8.5)]),  # begins in the gap
        (7.5, 2, 4, [(0, 2), (4, 6)]),  # ends in a gap, as the hop asks
    ],
)
def test_known_windows(duration, window, hop, expected):
    assert windows_of(duration, window, hop) == [pytest.approx(span) for span in expected]


@pytest.mark.parametrize("share", [1, 0.9, 0.75, 0.5, 0.3])
def test_windows_cover_the_file(share):
    rng = random.Random(0)
    for _ in range(300):
        window, duration = rng.choice([0.5, 1, 3, 4.7]), round(rng.uniform(0.1, 30), rng.choice([1, 4]))
        hop = share * window
        seam = min(0.1, 0.1 * window) + 1e-5
        spans = windows_of(duration, window, hop)
        assert spans[0][0] <= seam and spans[-1][1] == pytest.approx(duration, abs=1e-5)
        lengths = [end - start for start, end in spans]
        assert max(lengths) <= window + 1e-6
        assert len(spans) == 1 or min(lengths) >= window / 2 - 1e-5
        for (start, end), (following, _) in itertools.pairwise(spans):
            assert following - end <= seam  # nothing left out
            assert following - start >= min(hop, window / 2) - 1e-5  # no two nearly equal ones
        if share == 1:
            assert sum(lengths) == pytest.approx(duration, abs=seam)  # nothing read twice


def test_windows_need_a_length():
    for window, hop in ((0, None), (3, 0), (-1, 1)):
        with pytest.raises(ValueError, match="above 0"):
            windows_of(10, window, hop)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 5)], [5]),
        ([(0, 3), (3, 6), (6, 7.6)], [3, 3, 1.6]),
        ([(0, 3), (3.016, 6.016)], [3, 3]),
        ([(0, 3), (3, 4.75), (4.75, 6.5)], [3, 1.75, 1.75]),
        ([(0, 4), (2, 6), (4, 8), (6, 10)], [3, 2, 2, 3]),
        ([(0, 3), (1, 4), (2, 5)], [1 + 1 / 2 + 1 / 3, 1 / 2 + 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 1]),
        ([(0, 4), (3, 7), (6.5, 10.5)], [3.5, 3.25, 3.75]),
        ([(0, 2), (4, 6), (6.5, 8.5)], [2, 2, 2]),  # gaps count for nothing
        ([(0, 4), (1, 2)], [3.5, 0.5]),
    ],
)
def test_every_moment_counts_once(spans, expected):
    """Each window's share of the time is the mean with a score of 1 for it and 0 for the others."""
    alone = [[float(index == other) for other in range(len(spans))] for index in range(len(spans))]
    shares = [mean_over_time(scores, spans) for scores in alone]
    assert shares == pytest.approx([seconds / sum(expected) for seconds in expected])


def test_mean_of_one_score_is_that_score():
    for score in (0.1, 1 / 3, 1.0, 0.0, 1e-30):
        assert mean_over_time([score], [(0.0, 0.7)]) == score
        assert mean_over_time([score] * 4, windows_of(10, 2.9)) == score
    assert mean_over_time([], []) is None and mean_over_time([None], [(0, 1)]) is None


def test_windows_without_a_score_leave_their_time_to_the_others():
    spans = [(0, 4), (2, 6), (4, 8)]
    assert mean_over_time([0.2, None, 0.6], spans) == pytest.approx(0.4)
    assert mean_over_time([0.2, 0.6, None], spans) == pytest.approx((0.2 * 3 + 0.6 * 3) / 6)


def test_a_running_mean_is_the_mean_of_what_came():
    rng = random.Random(0)
    spans = windows_of(20, 3, 0.7)
    scores = [rng.random() for _ in spans]
    mean = MeanOverTime()
    for count, (score, (start, end)) in enumerate(zip(scores, spans, strict=True), start=1):
        mean.add(start, end, score)
        # the same integral, summed over small steps
        steps = [(k + 0.5) / 1000 for k in range(round(spans[count - 1][1] * 1000))]
        if count % 9 == 0:
            at = [
                [s for s, (a, b) in zip(scores[:count], spans[:count], strict=True) if a <= t < b]
                for t in steps
            ]
            assert mean.value == pytest.approx(sum(sum(v) / len(v) for v in at) / len(at), abs=1e-3)
        assert mean.value == mean_over_time(scores[:count], spans[:count])
