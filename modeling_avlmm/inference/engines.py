"""Where files are scored: in this process, or by the workers of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ..pipeline_avd import AVDeepfakeDetectionPipeline

Examine = Callable[[Any, dict], dict]
"""Takes a file and its result, and returns the result with what else is known about the file."""


class EngineError(ValueError):
    """An engine that cannot be used as asked; the message says what to change."""


class Engine(Protocol):
    """Scores files for a run, which keeps their results."""

    in_order: bool
    """Whether a file is only begun when the results of those before it are there, but for a batch."""

    def results(self, sources: Iterable[Any], **call: Any) -> Iterator[tuple[int, dict]]:
        """
        Score files.

        Args:
            sources (`Iterable`): Inputs of the pipeline.
            call: Options of the pipeline's call.

        Yields:
            `tuple[int, dict]`: the place of an input among `sources`, and its result.

        Raises:
            EngineError: when the engine cannot go on.
        """


class LocalEngine:
    """
    The detector in this process.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Scores the files.
        examine (`Callable`, *optional*): Looks at each file once more, see `Examine`.
    """

    in_order = True

    def __init__(self, detector: AVDeepfakeDetectionPipeline, examine: Examine | None = None):
        self.detector, self.examine = detector, examine

    def results(self, sources: Iterable[Any], **call: Any) -> Iterator[tuple[int, dict]]:
        """Yield the results in the order of `sources`."""
        if self.examine is None:
            return enumerate(self.detector(sources, on_error="return", **call))
        begun: deque[Any] = deque()

        def noted() -> Iterator[Any]:
            for source in sources:
                begun.append(source)
                yield source

        results = self.detector(noted(), on_error="return", **call)
        return enumerate(self.examine(begun.popleft(), result) for result in results)


def ended_with_process(message: str, detector: AVDeepfakeDetectionPipeline) -> dict:
    """Return the result of a file that seems to end the process that reads it."""
    result = detector.postprocess([{"error": {"type": "ProcessEnded", "message": message}}])
    # The pipeline of a repository's own code has no gate.
    gated = isinstance(detector, AVDeepfakeDetectionPipeline) and getattr(detector, "gate", None) is not None
    return {**result, "decided_by": "gate", "gate_score": None} if gated else result
