"""Scoring by the workers of a Ray cluster: each holds the detector, and gets the paths of files."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..pipeline_inputs import split_source
from .engine_options import RayOptions
from .engines import EngineError, Examine, ended_with_process
from .loading import load_detector
from .provenance import detector_identity
from .reader_process import reader_processes

MISSING = "--engine ray needs Ray: pip install 'modeling-avlmm[ray]'"
PORTION = 50_000
"""Files that are handed to Ray at once: it keeps track of every task in the memory of this process; our own choice."""
FILES_A_TASK = 4
"""Files whose results arrive together, and are lost together when a worker is killed; at least a batch; our own choice."""
TRIES = 2
"""Times a task is begun before its files are tried one by one, and a file before it is given up."""
STORE_BYTES = 128 << 20
"""Shared memory of a cluster that is started here: only paths and results pass through it."""


@dataclass(frozen=True)
class Loading:
    """Arguments of [`load_detector`], for processes that load the same detector."""

    model: str
    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    gate: str | None = None
    gate_band: tuple[float, float] | None = None

    def detector(self) -> AVDeepfakeDetectionPipeline:
        """Load the detector."""
        return load_detector(
            self.model, self.device, self.dtype, self.trust_remote_code, self.gate, self.gate_band
        )[0]


class RayEngine:
    """
    The workers of a Ray cluster. Each loads the detector once and decodes in processes of its own, as a run in one process does.

    A worker that is lost is replaced, and its files are scored again. A file during which workers end twice gets an error in
    place of a verdict. The files have to lie at the same path on every machine; links can be fetched from each.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): The detector in this process, which the workers' must equal.
        loading ([`Loading`]): How a worker loads it.
        options ([`RayOptions`]): The cluster and its workers.
        examine (`Callable`, *optional*): Looks at each file once more, in the worker, see [`~engines.Examine`].

    Raises:
        EngineError: when Ray is not installed, or the cluster cannot be reached or has no room for the workers.
    """

    in_order = False

    def __init__(
        self,
        detector: AVDeepfakeDetectionPipeline,
        loading: Loading,
        options: RayOptions,
        examine: Examine | None = None,
    ):
        self.detector, self.loading, self.options, self.examine = detector, loading, options, examine
        self.address = options.address or os.environ.get("RAY_ADDRESS")
        self._connect()
        self.fit, self.workers = self._room()

    def __str__(self) -> str:
        low, high = self.workers
        workers = f"Ray: {high} workers" if low == high else f"Ray: {low} to {high} workers"
        return workers if self.fit >= low else f"{workers}; the cluster has room for {self.fit} by now"

    def _connect(self) -> None:
        try:
            import ray
            import ray.data
            from ray._private import worker
        except ImportError as error:
            raise EngineError(MISSING) from error
        # Ray tells of lost tasks on standard output, where results go, whatever `log_to_driver` says; its own debugger
        # silences it in this way, and there is no public one.
        worker._worker_logs_enabled = False
        # What the user needs to know of a file is in its result.
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if ray.is_initialized():
            return
        # Its lines would stand between those of a table.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        how = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
        if not self.address:
            how |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
            # By default its workers yield to all other programs: where those kept the machine busy, no worker had loaded its
            # detector after ten minutes.
            os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            ray.init(self.address or "local", **how)
        except Exception as error:  # of many kinds, Ray's own and the system's
            raise EngineError(_not_there(self.address, error)) from error

    def _room(self) -> tuple[int, tuple[int, int]]:
        """Return how many workers fit by now, and the fewest and the most that there shall be."""
        import ray

        there, wanted = ray.cluster_resources(), {"CPU": self.options.cpus, "GPU": self.options.gpus}
        wanted = {name: share for name, share in wanted.items() if share}
        fit = min((int(there.get(name, 0.0) / share + 1e-9) for name, share in wanted.items()), default=1)
        if self.options.workers is None:
            lowest = highest = max(fit, 1)
        else:
            lowest, highest = self.options.workers
        if fit < lowest and not self.address:
            needs = " and ".join(f"{share:g} {name}" for name, share in wanted.items())
            has = " and ".join(f"{there.get(name, 0.0):g} {name}" for name in wanted)
            raise EngineError(
                f"Ray has {has}, and {lowest} workers of {needs} each do not fit: give --ray-workers, --ray-cpus or "
                "--ray-gpus, or a larger cluster, --ray-address"
            )
        return fit, (lowest, highest)

    def results(self, sources: Iterable[Any], **call: Any) -> Iterator[tuple[int, dict]]:
        """Yield the results as they arrive."""
        numbered = enumerate(sources)
        while portion := dict(islice(numbered, PORTION)):
            yield from self._portion(portion, call)

    def _portion(self, portion: dict[int, Any], call: dict) -> Iterator[tuple[int, dict]]:
        texts = {number: _as_text(source) for number, source in portion.items()}
        # Whatever was lost with a worker is tried one file at a time, so that one cannot take others with it.
        for size in (max(FILES_A_TASK, call.get("batch_size", 1)), 1):
            for number, result in self._scored(dict(texts), size, call):
                texts.pop(number, None)
                yield number, result
            if not texts:
                return
        for number, text in texts.items():
            name = str(split_source(json.loads(text))[0])
            yield number, ended_with_process(LOST.format(name), self.detector)

    def _scored(self, texts: dict[int, str], size: int, call: dict) -> Iterator[tuple[int, dict]]:
        import ray

        rows = [{"number": number, "source": text} for number, text in texts.items()]
        lowest, highest = self.workers
        about = (self.loading, self.options, _identities(self.detector), os.getcwd(), call, self.examine)
        with _settings():
            files = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size))
            scored = files.map_batches(
                RayWorker,
                fn_constructor_args=about,
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(min_size=lowest, max_size=highest),
                num_cpus=self.options.cpus,
                num_gpus=self.options.gpus,
                max_task_retries=TRIES - 1,
            )
        try:
            for batch in scored.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                for number, result in zip(batch["number"], batch["result"], strict=True):
                    yield int(number), _checked(json.loads(result))
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise EngineError(f"Ray's workers cannot go on: {_cause(error)}") from error


LOST = (
    "{}: the workers that read it ended twice, so it was left out. It may crash FFmpeg, or take more memory than a worker "
    "has. Name it alone, without --engine ray, to try again."
)


class RayWorker:
    """An actor of Ray: holds a detector and scores batches of files."""

    def __init__(
        self,
        loading: Loading,
        options: RayOptions,
        identities: list[dict],
        folder: str,
        call: dict,
        examine: Examine | None = None,
    ):
        torch.set_num_threads(max(1, int(options.cpus)))
        if os.path.isdir(folder):
            os.chdir(folder)  # to which relative paths are relative
        self._open = contextlib.ExitStack()
        if options.limits is not None:
            self._open.enter_context(reader_processes(options.limits))
        self.detector, self.call, self.examine = loading.detector(), call, examine
        if _identities(self.detector) != identities:
            raise EngineError(
                f"{loading.model} is another detector on {os.uname().nodename} than where the run was started: give every machine "
                "the same files"
            )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray | list[str]]:
        """Score the files of a batch."""
        sources = [json.loads(text) for text in batch["source"]]
        try:
            results = self.detector(sources, on_error="return", **self.call)
            if self.examine is not None:
                results = [self.examine(*pair) for pair in zip(sources, results, strict=True)]
        except Exception as error:  # one file never raises: this is the same for all, as a full disk is
            results = [{"fault": f"{type(error).__name__}: {_first_line(error)}"}] * len(sources)
        return {"number": batch["number"], "result": [json.dumps(result) for result in results]}


def _checked(result: dict) -> dict:
    if "fault" in result:
        raise EngineError(f"a worker cannot go on: {result['fault']}")
    return result


def _identities(detector: AVDeepfakeDetectionPipeline) -> list[dict]:
    """Return the fingerprints of a detector and of its gate."""
    gate = getattr(detector, "gate", None)  # the pipeline of a repository's own code has none
    return [detector_identity(d.model, d.processor) for d in (detector, *([gate.detector] if gate else []))]


def _as_text(source: Any) -> str:
    """Return a path, a link or a dataset's row as text that any machine can read."""
    if isinstance(source, Mapping):
        source = {key: source.get(key) for key in ("video", "audio")}
        for part in source.values():
            if isinstance(part, Mapping) and part.get("bytes") is not None:
                raise EngineError(
                    "Ray's workers read files: rows that hold the media themselves are scored without --engine ray"
                )
    try:
        return json.dumps(source, default=os.fspath)
    except (TypeError, ValueError) as error:
        raise EngineError(f"Ray's workers read files and links, not {type(source).__name__}") from error


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Let datasets made in the context go on after lost tasks, and leave the telling of progress to the run."""
    import ray

    context = ray.data.DataContext.get_current()
    wanted = {"max_errored_blocks": -1, "enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        with warnings.catch_warnings():
            # The named parameters do not have `max_task_retries` yet.
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _not_there(address: str | None, error: BaseException) -> str:
    """Return the message about a cluster that cannot be reached or started."""
    if address:
        return f"there is no Ray cluster at {address}: {_first_line(error)}"
    return (
        f"Ray does not start on this machine: {_first_line(error)} A busy machine may need more time than Ray gives itself: start it with "
        "`ray start --head`, and give --ray-address auto"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cause(error: BaseException) -> str:
    """Return the last line of an error of Ray that says something: the first ones are where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


__all__ = ["Loading", "RayEngine", "RayOptions"]
