"""A small detector before a large one: it answers for the files that it is sure of, and the large one for the rest."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from transformers import Pipeline, pipeline

from ..hub_mixin import PIPELINE_TASK
from ..pipeline_results import NO_VERDICT
from .loading import without_loading_bar
from .places import faults_of_model

BLOCK = 16
"""Files that pass the gate together, per row of a batch or per worker, so that those left over fill batches."""

PREPROCESS = ("on_error", "questions", "private_links")
POSTPROCESS = ("aggregate", "threshold")
"""Call options that also apply to the gate. Windows and temperature are each detector's own."""


class Gate:
    """
    A detector that answers if its score lies outside a band, and otherwise leaves the file to another detector.

    Args:
        detector (`str`, `Path` or pipeline): Folder or Hub id of a detector, or its pipeline.
        band (`tuple[float, float]`, *optional*):
            Scores below the first or above the second are sure. Defaults to the `abstain_band` of the detector's
            configuration, which was fitted on validation data. A threshold outside the band widens it, so that a sure
            score lies on the same side of both.
        device (`torch.device`, *optional*): Device for a detector that is loaded by name.

    Raises:
        ValueError: If there is no valid band, or `detector` is neither a name nor a pipeline of this task.
    """

    def __init__(
        self,
        detector: str | Path | Pipeline,
        band: tuple[float, float] | None = None,
        device: torch.device | None = None,
    ):
        if isinstance(detector, str | Path):
            with faults_of_model(detector), without_loading_bar():
                detector = pipeline(PIPELINE_TASK, model=str(detector), device=device)
        if not isinstance(detector, Pipeline) or detector.task != PIPELINE_TASK:
            raise ValueError(
                f"gate must be a folder, a Hub id or a pipeline({PIPELINE_TASK!r}), not {type(detector).__name__}."
            )
        if band is None:
            band = detector.model.config.abstain_band
        if band is None:
            raise ValueError(
                "The gate has no abstain_band in its configuration, so nothing says when it is sure. Give gate_band=(low, "
                "high), or fit one: `evaluate_avd.py --model GATE --calibrate --coverage 0.95`."
            )
        band = tuple(float(edge) for edge in band)
        if len(band) != 2 or not 0 <= band[0] <= band[1] <= 1:
            raise ValueError(f"gate_band must be (low, high) with 0 <= low <= high <= 1, not {band}.")
        self.detector, self.band = detector, band

    def is_sure(self, result: dict) -> bool:
        """Return True if the gate's own result stands."""
        if (
            result["score"] is None
        ):  # it stands for a file that cannot be read, not for an overflow of the gate's own
            return (result.get("error") or {}).get("type") != NO_VERDICT
        low, high = self.band
        return not min(low, result["threshold"]) <= result["score"] <= max(high, result["threshold"])

    def answers(
        self,
        inputs: Iterable,
        score: Callable[[torch.utils.data.Dataset], Iterable[dict]],
        num_workers: int,
        batch_size: int,
        preprocess_params: Mapping,
        postprocess_params: Mapping,
    ) -> Iterator[dict]:
        """
        Yield a result for each input, in order: the gate's if it is sure, and otherwise that of `score`.

        Args:
            inputs (list, dataset or generator): The inputs of the pipeline's call.
            score (`Callable`): Function from a dataset of inputs to the large detector's results, lazily.
            num_workers, batch_size (`int`): As for the pipeline, for both detectors.
            preprocess_params, postprocess_params (`Mapping`): Options of the call; see `PREPROCESS` and `POSTPROCESS`.

        Yields:
            `dict`: The result, with `decided_by` and `gate_score`.
        """
        own = self.detector
        before = {**own._preprocess_params, **_chosen(preprocess_params, PREPROCESS)}
        after = {**own._postprocess_params, **_chosen(postprocess_params, POSTPROCESS)}
        for block in _blocks(inputs, block_size(batch_size, num_workers)):
            gated = list(own.get_iterator(block, num_workers, batch_size, before, own._forward_params, after))
            unsure = [index for index, result in enumerate(gated) if not self.is_sure(result)]
            looked_at = iter(score(Subset(block, unsure))) if unsure else iter(())
            for result in gated:
                sure = self.is_sure(result)
                answer = result if sure else next(looked_at)
                yield {**answer, "decided_by": "gate" if sure else "model", "gate_score": result["score"]}


def block_size(batch_size: int, num_workers: int) -> int:
    """Return the number of files that pass the gate before the large detector gets those left over."""
    # Without batches or workers to fill, there is no reason to let a file wait for others.
    return 1 if batch_size == 1 and not num_workers else BLOCK * max(batch_size, num_workers)


def _blocks(inputs: Iterable, size: int) -> Iterator[torch.utils.data.Dataset]:
    if isinstance(inputs, torch.utils.data.Dataset) and hasattr(inputs, "__len__"):
        for start in range(0, len(inputs), size):
            yield Subset(inputs, range(start, min(start + size, len(inputs))))
        return
    items = iter(inputs)
    while block := [_readable_twice(item) for item in islice(items, size)]:
        yield Subset(block, range(len(block)))


def _readable_twice(source: Any) -> Any:
    """Return the source, or the bytes of a pipe and the like, which can be read only once."""
    if isinstance(source, Mapping):
        return {name: _readable_twice(part) for name, part in source.items()}
    if hasattr(source, "read") and hasattr(source, "seekable") and not source.seekable():
        return source.read()
    return source


def _chosen(params: Mapping, names: tuple[str, ...]) -> dict:
    return {name: params[name] for name in names if name in params}
