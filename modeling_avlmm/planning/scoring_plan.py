"""The dry run of an evaluation: what would be scored, written and taken of memory, said before anything is loaded."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from ..configuration_avlmm import BACKBONES, thinker_of
from ..evaluation.evaluation_error import EvaluationError
from ..evaluation.evaluation_options import EvaluationOptions
from ..evaluation.protocols import load_protocol, splits_with
from ..inference.auto import MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING
from ..inference.places import missing_folder
from ..processing_avlmm import AVLMMProcessor
from ..training.clip_shape import clip_shape
from .live_bytes import MemoryNeed
from .memory import predict_scoring
from .phrases import advice, fits, limit_line, memory_limit, memory_line
from .small_plan import SmallScoring

SAMPLING = ("fps", "max_frames", "max_pixels", "max_seconds")


@dataclass(frozen=True)
class Scoring:
    """
    A scoring pass of AV-LMMDetect or of a backbone: everything its memory depends on.

    Args:
        config (`PreTrainedConfig`): The thinker's configuration.
        dtype (`torch.dtype`): Type of the weights.
        prompts (`dict[str, str]`, *optional*): Texts, where they are not the published ones.
        sampling (`dict`): `fps`, `max_frames`, `max_pixels` and `max_seconds` of the processor.
        batch_size (`int`): Windows of a pass.
        seconds (`float`, *optional*): Length of a window; `max_seconds` if left out.
    """

    config: PreTrainedConfig
    dtype: torch.dtype
    prompts: dict | None
    sampling: dict
    batch_size: int = 1
    seconds: float | None = None

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.seconds or self.sampling["max_seconds"]

    def need(self) -> MemoryNeed:
        """Predict the memory of the pass."""
        shape = clip_shape(
            self.config,
            self.window_seconds,
            self.sampling["fps"],
            self.sampling["max_pixels"],
            self.sampling["max_frames"],
            self.prompts,
        )
        return predict_scoring(self.config, shape, self.batch_size, self.dtype)


def plan_scoring(options: EvaluationOptions, memory_gib: float | None = None) -> bool:
    """
    Print what an evaluation would score, and whether a pass fits.

    Args:
        options ([`EvaluationOptions`]): The evaluation.
        memory_gib (`float`, *optional*): Memory of the device in GiB; the device's own if left out.

    Returns:
        `bool`: whether a pass fits.

    Raises:
        EvaluationError: for a model or protocol that cannot be read.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    builder = load_protocol(options.dataset, options.protocol, options.data_dir, options.max_missing)
    splits = splits_with(builder, options.split)
    wanted = [name for name in (options.validation_split, options.split) if name in splits]
    clips = {name: len(splits[name]) for name in dict.fromkeys(wanted)}
    counted = ", ".join(f"{name} {count}" for name, count in clips.items())
    print(f"Dry run: {options.model} on {options.dataset}. Nothing is loaded, scored or written.")
    print(f"  clips: {counted}; processes: {state.num_processes}, windows a pass: {options.batch_size}")
    print("  writes predictions.parquet, report.json, report.md, report.html, run.json")
    scoring = read_scoring(options.model, options.dtype, options.trust_remote_code)
    if scoring is None:
        print("  a detector that this package does not know: its memory is not predicted")
        return True
    scoring = dataclasses.replace(scoring, batch_size=options.batch_size, seconds=options.window_seconds)
    limit, where = memory_limit(memory_gib)
    need = scoring.need()
    print(f"  {limit_line(limit, where)}")
    print(f"  windows of up to {scoring.window_seconds:g} s: {memory_line(need, limit)}")
    if fits(need, limit):
        return True
    for line in advice(scoring, savings(scoring), type(scoring).need, limit):
        print(f"  {line}", flush=True)
    return False


def savings(scoring: Scoring | SmallScoring) -> Iterator[tuple[str, object]]:
    """Yield options that save memory, cheapest for the result first: the words to type, and a function."""
    if scoring.dtype == torch.float32:
        yield "--dtype bfloat16", lambda setting: dataclasses.replace(setting, dtype=torch.bfloat16)
    if scoring.batch_size > 1:
        yield "--batch-size 1", lambda setting: dataclasses.replace(setting, batch_size=1)
    if isinstance(scoring, Scoring):  # a small detector fills its length
        half = scoring.window_seconds / 2
        yield f"--window-seconds {half:g}", lambda setting: dataclasses.replace(setting, seconds=half)


def read_scoring(
    model: str, dtype: str = "auto", trust_remote_code: bool = False
) -> Scoring | SmallScoring | None:
    """
    Read from its configuration files what a pass of a detector, or of an omni backbone, depends on.

    Returns:
        [`Scoring`] or [`SmallScoring`]: a pass of one window of the largest length; None for a detector of a kind that is
        not known.

    Raises:
        EvaluationError: when the configuration cannot be read.
    """
    if absent := missing_folder(model):
        raise EvaluationError(absent)
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{model} cannot be read: {error}") from error
    thinker = thinker_of(config)
    named = None if dtype == "auto" else dtype
    weights = named or config.dtype or thinker.dtype or torch.float32
    weights = getattr(torch, weights) if isinstance(weights, str) else weights
    if thinker.model_type not in BACKBONES:
        known = type(config) in MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING
        return SmallScoring(config, weights) if known else None
    known = inspect.signature(AVLMMProcessor.__init__).parameters
    sampling = {name: known[name].default for name in SAMPLING}
    file = cached_file(model, "processor_config.json", _raise_exceptions_for_missing_entries=False)
    if file is not None and config.model_type == "avlmm":
        stored = json.loads(Path(file).read_text(encoding="utf-8"))
        sampling |= {name: stored[name] for name in SAMPLING if name in stored}
    prompts = config.prompts if config.model_type == "avlmm" else None
    return Scoring(thinker, weights, prompts, sampling)
