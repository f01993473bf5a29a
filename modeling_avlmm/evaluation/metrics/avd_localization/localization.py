"""
Temporal localization: average precision and recall of proposed fake segments.

This follows the tables of LAV-DF ([paper](https://arxiv.org/abs/2204.06228)) and AV-Deepfake1M
([paper](https://arxiv.org/abs/2311.15308)), and the code that their authors published.
"""

from collections.abc import Hashable, Sequence

import numpy as np

BENCHMARKS = {
    # (IoU thresholds of AP, numbers of proposals of AR), as in the tables; the challenge adds AR@30.
    "lav_df": ((0.5, 0.75, 0.95), (100, 50, 20, 10)),
    "av_deepfake1m": ((0.5, 0.75, 0.9, 0.95), (50, 30, 20, 10, 5)),
}
AR_IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def localization_metrics(
    references: Sequence[Sequence[Sequence[float]]],
    predictions: Sequence[Sequence[Sequence[float]]],
    benchmark: str = "av_deepfake1m",
    ap_iou_thresholds: Sequence[float] | None = None,
    ar_n_proposals: Sequence[int] | None = None,
    sdk_compatible: bool = True,
    groups: Sequence[Hashable | None] | None = None,
    n_resamples: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict:
    """
    Compute AP@IoU and AR@N of proposed fake segments.

    **AP@t** -- In each file every true segment, in the order given, takes the most confident proposal that is still
    free and has an IoU strictly above `t` with it. The proposals of all files are then ranked by confidence. AP is the
    area under precision over recall, where precision is the highest one at this or any greater recall.

    **AR@N** -- Share of the true segments that one of the N most confident proposals of their file meets with an IoU
    strictly above a threshold, averaged over the thresholds 0.5, 0.55, ..., 0.95.

    Args:
        references (list of length `n` of lists of `[start, end]`): The fake segments of each file, in seconds; an
            empty list for a genuine file.
        predictions (list of length `n` of lists of `[confidence, start, end]`):
            The proposals of each file, in seconds. They are ranked by confidence; equal ones stay in their order.
        benchmark (`str`, *optional*, defaults to `"av_deepfake1m"`):
            `"av_deepfake1m"` (AP at 0.5, 0.75, 0.9, 0.95; AR at 50, 30, 20, 10, 5; and `score`) or `"lav_df"` (AP at
            0.5, 0.75, 0.95; AR at 100, 50, 20, 10).
        ap_iou_thresholds (list of `float`, *optional*): IoU thresholds instead of the benchmark's, each in [0, 1).
        ar_n_proposals (list of `int`, *optional*): Numbers of proposals instead of the benchmark's, each at least 1.
        sdk_compatible (`bool`, *optional*, defaults to `True`):
            Count as the authors' code did for the published tables. That code has three habits, which `False` corrects:

            - in AR, segments of a file without any proposal don't count as missed (in AP they do);
            - AP leaves out the step from recall 0 to the first hit, so it is short by 1 / (number of true segments) if
              the most confident proposal of all is right: next to nothing on a corpus, all of AP on a single segment;
            - proposals of equal confidence are ranked by the order of the files; with `False` they are one step.
        groups, n_resamples, confidence, seed:
            Clusters of files and bootstrap intervals, as in `detection_metrics`; they need the package
            `modeling_avlmm`. A resample without a true segment is skipped.

    Returns:
        `dict`:

        - **ap@t**, **ar@N** -- By threshold and number, say `ap@0.5`, `ar@50`, in [0, 1]; None without true segments.
        - **score** -- Mean of the mean AP and the mean AR: the score of the 1M-Deepfakes Detection Challenge
          ([paper](https://arxiv.org/abs/2409.06991)). For `"av_deepfake1m"` with its own thresholds and numbers only.
        - **n_files**, **n_segments**, **n_proposals** -- Numbers of files, true segments and proposals.
        - **n_files_without_proposals** -- Number of files with true segments and no proposal.
        - **benchmark**, **sdk_compatible** -- As given.
        - **undefined** -- The reason if the metrics are None.
        - **ci** and its companions -- With `n_resamples`.

    Raises:
        ValueError: for empty input, unequal lengths, segments that are not finite or end before they start, or
            options out of range.

    As in the authors' code, times, confidences and IoUs have single precision, which decides cases exactly at a
    threshold; sums have double precision.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark must be one of {', '.join(BENCHMARKS)}; got {benchmark!r}.")
    own = ap_iou_thresholds is None and ar_n_proposals is None
    thresholds = BENCHMARKS[benchmark][0] if ap_iou_thresholds is None else tuple(ap_iou_thresholds)
    numbers = BENCHMARKS[benchmark][1] if ar_n_proposals is None else tuple(ar_n_proposals)
    if not all(0 <= threshold < 1 for threshold in thresholds):
        raise ValueError(f"IoU thresholds must be in [0, 1); got {list(thresholds)}.")
    if not all(number == int(number) and number >= 1 for number in numbers):
        raise ValueError(f"Numbers of proposals must be whole numbers of at least 1; got {list(numbers)}.")
    if n_resamples != int(n_resamples) or n_resamples < 0:
        raise ValueError(f"n_resamples must be a whole number, 0 for no intervals; got {n_resamples!r}.")
    if len(references) != len(predictions) or not len(references):
        raise ValueError(
            f"Need as many lists of proposals as of segments, and at least one file; got {len(predictions)} and"
            f" {len(references)}."
        )
    files = [
        (_rows(true, 2, f"Segments of file {i}"), _rows(proposed, 3, f"Proposals of file {i}"))
        for i, (true, proposed) in enumerate(zip(references, predictions, strict=True))
    ]
    with_score = own and benchmark == "av_deepfake1m"
    statistic = _LocalizationStatistic(files, thresholds, numbers, sdk_compatible, with_score)
    values = statistic(np.ones(len(files)))
    metrics = {
        **(values or dict.fromkeys(statistic.names)),
        "n_files": len(files),
        "n_segments": sum(len(true) for true, _ in files),
        "n_proposals": sum(len(proposed) for _, proposed in files),
        "n_files_without_proposals": sum(bool(len(true)) and not len(proposed) for true, proposed in files),
        "benchmark": benchmark,
        "sdk_compatible": sdk_compatible,
    }
    if values is None:
        metrics["undefined"] = f"none of the {len(files)} files has a fake segment"
    if n_resamples:
        metrics |= _cluster_bootstrap()(statistic, len(files), groups, n_resamples, confidence, seed)
    return metrics


def _cluster_bootstrap():
    # Absolute, and only if needed: `evaluate` runs a copy of this folder, which can import nothing beside it.
    try:
        from modeling_avlmm.evaluation.metrics.avd_detection.bootstrap import cluster_bootstrap
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Intervals (n_resamples) need the package modeling_avlmm to be installed; without them this metric does"
            " not.",
            name=error.name,
        ) from error
    return cluster_bootstrap


def _rows(rows: Sequence[Sequence[float]], width: int, what: str) -> np.ndarray:
    """Return `[start, end]` or `[confidence, start, end]` as float32; proposals by falling confidence."""
    if not len(rows):
        return np.zeros((0, width), dtype=np.float32)
    try:
        array = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be lists of {width} numbers: {error}.") from error
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{what} must be lists of {width} numbers; got an array of shape {array.shape}.")
    wrong = ~np.isfinite(array).all(axis=1) | (array[:, -1] < array[:, -2])
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"{what} must be finite and not end before they start; number {first} is {rows[first]}."
        )
    return array if width == 2 else array[np.argsort(-array[:, 0], kind="stable")]


def _overlaps(proposed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the IoU of each proposal with each segment, `(n_proposals, n_segments)`; 0 for two points in time."""
    start, end = proposed[:, 1, None], proposed[:, 2, None]
    inner = np.minimum(end, true[:, 1]) - np.maximum(start, true[:, 0])
    # The span of both is their union if they overlap; if not, the IoU is 0 anyway.
    outer = np.maximum(end, true[:, 1]) - np.minimum(start, true[:, 0])
    return np.divide(np.maximum(inner, 0), outer, out=np.zeros_like(outer), where=outer > 0)


class _LocalizationStatistic:
    """Files matched once; called with a weight for each file, it returns AP and AR of the weighted files."""

    def __init__(
        self,
        files: list[tuple[np.ndarray, np.ndarray]],
        thresholds: tuple[float, ...],
        numbers: tuple[int, ...],
        sdk_compatible: bool,
        with_score: bool,
    ):
        self.ap_names = [f"ap@{threshold:g}" for threshold in thresholds]
        self.ar_names = [f"ar@{int(number)}" for number in numbers]
        self.names = [*self.ap_names, *self.ar_names, *(["score"] if with_score else [])]
        self.sdk_compatible = sdk_compatible
        self.segments = np.array([len(true) for true, _ in files], dtype=float)
        # The segments that AR expects to be found.
        proposing = np.array([len(proposed) > 0 for _, proposed in files])
        self.expected = self.segments * proposing if sdk_compatible else self.segments
        levels = np.array(AR_IOU_THRESHOLDS, dtype=np.float32)
        self.found = np.zeros((len(files), len(numbers), len(levels)))
        hits = []
        for i, (true, proposed) in enumerate(files):
            overlaps = _overlaps(proposed, true)
            hits.append([_matched(overlaps > np.float32(threshold)) for threshold in thresholds])
            if overlaps.size:
                best = np.maximum.accumulate(overlaps, axis=0)
                for j, number in enumerate(numbers):
                    at = best[min(int(number), len(best)) - 1]
                    self.found[i, j] = (at > levels[:, None]).sum(axis=1)
        confidence = np.concatenate([proposed[:, 0] for _, proposed in files])
        order = np.argsort(-confidence, kind="stable")
        confidence = confidence[order]
        self.file = np.repeat(np.arange(len(files)), [len(proposed) for _, proposed in files])[order]
        self.hits = np.concatenate(
            [np.array(h, dtype=bool).reshape(len(thresholds), -1) for h in hits], axis=1
        )
        self.hits = self.hits[:, order]
        self.ends = np.flatnonzero(
            np.append(confidence[1:] != confidence[:-1], [True] * bool(len(confidence)))
        )

    def __call__(self, weights: np.ndarray) -> dict[str, float] | None:
        n_segments = weights @ self.segments
        if not n_segments:
            return None
        of_proposals = weights[self.file]
        aps = [self._average_precision(hit, of_proposals, n_segments) for hit in self.hits]
        # If no file with segments has a proposal, nothing is expected and nothing found: 0 / 1.
        found = np.tensordot(weights, self.found, axes=1) / max(weights @ self.expected, 1)
        ars = found.mean(axis=1)
        values = dict(zip((*self.ap_names, *self.ar_names), map(float, (*aps, *ars)), strict=True))
        if "score" in self.names:
            values["score"] = float((np.mean(aps) + np.mean(ars)) / 2)
        return values

    def _average_precision(self, hit: np.ndarray, weights: np.ndarray, n_segments: float) -> float:
        calls, hits = np.cumsum(weights), np.cumsum(weights * hit)
        if not self.sdk_compatible:
            calls, hits = calls[self.ends], hits[self.ends]
        precision = np.divide(hits, calls, out=np.zeros_like(calls), where=calls > 0)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        area = np.diff(hits, prepend=0) @ precision / n_segments
        if self.sdk_compatible and (counted := weights > 0).any() and hit[np.argmax(counted)]:
            # Up to the first hit precision is 1, and recall one segment's share.
            area -= 1 / n_segments
        return float(area)


def _matched(above: np.ndarray) -> np.ndarray:
    """Return the proposals that are hits, `(n_proposals,)`: each segment takes the first that is free and near enough."""
    taken = np.zeros(len(above), dtype=bool)
    for near in above.T:
        free = near & ~taken
        if free.any():
            taken[np.argmax(free)] = True
    return taken
