"""Proposals of fake segments from scores of windows, for corpora that mark the fake seconds."""

LEVELS = tuple(level / 20 for level in range(1, 20))
"""0.05, 0.1, ..., 0.95; our own choice."""


def segment_proposals(windows: list[dict]) -> list[list[float]]:
    """
    Propose the runs of neighbouring windows whose scores all reach a level, for many levels.

    This is the watershed grouping of [temporal action detection](https://arxiv.org/abs/1704.06228), with the mean score
    of a run as its confidence. It cannot cut a window: segments shorter than the windows need shorter windows
    (`window_seconds`, `hop_seconds`).

    Args:
        windows (`list[dict]`): Windows in order, with `start` and `end` in seconds and `score`.

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
