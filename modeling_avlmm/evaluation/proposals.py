"""From scores of windows to proposals of fake segments, for corpora that mark which seconds are fake."""

LEVELS = tuple(level / 20 for level in range(1, 20))


def segment_proposals(windows: list[dict]) -> list[list[float]]:
    """
    Proposes the runs of neighbouring windows whose scores are all above a level, for many levels.

    The grouping of [temporal action detection](https://arxiv.org/abs/1704.06228) by watershed, with the mean score of a
    run as its confidence; the levels, 0.05 to 0.95, are our own choice. What it cannot do is cut a window: segments
    shorter than the windows need shorter windows (`window_seconds`, `hop_seconds`).

    Args:
        windows (`list[dict]`): `start` and `end` in seconds and `score`, in their order.

    Returns:
        `list[list[float]]`: `[confidence, start, end]`, the most confident first; each span once.
    """
    scored = [window for window in windows if window["score"] is not None]
    found: dict[tuple[float, float], float] = {}
    for level in LEVELS:
        run: list[dict] = []
        for window in [*scored, None]:
            if window is not None and window["score"] >= level:
                run.append(window)
            elif run:
                span = (run[0]["start"], max(member["end"] for member in run))
                found[span] = sum(member["score"] for member in run) / len(run)
                run = []
    return sorted(
        ([confidence, *span] for span, confidence in found.items()), key=lambda p: (-p[0], p[1], p[2])
    )
