"""`evaluate_avd.py --dry-run`: what would be scored, written and taken of memory, told before anything is loaded."""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from ..configuration_avlmm import BACKBONES
from ..evaluation.errors import EvaluationError
from ..evaluation.options import EvaluationOptions
from ..evaluation.protocols import load_protocol, splits_with
from ..processing_avlmm import AVLMMProcessor
from .memory import GIB, MemoryNeed, clip_shape, predict_scoring
from .training_plan import device_memory_gib

SAMPLING = ("fps", "max_frames", "max_pixels", "max_seconds")


@dataclass(frozen=True)
class Scoring:
    """
    A scoring pass: what memory depends on.

    Args:
        config (`PreTrainedConfig`): The thinker's.
        dtype (`torch.dtype`): Type of the weights.
        prompts (`dict`, *optional*): Texts.
        sampling (`dict`): `fps`, `max_frames`, `max_pixels` and `max_seconds` of the processor.
    """

    config: PreTrainedConfig
    dtype: torch.dtype
    prompts: dict | None
    sampling: dict

    def need(self, batch_size: int, seconds: float, dtype: torch.dtype | None = None) -> MemoryNeed:
        """Memory of a pass over so many windows of so many seconds."""
        shape = clip_shape(
            self.config,
            seconds,
            self.sampling["fps"],
            self.sampling["max_pixels"],
            self.sampling["max_frames"],
            self.prompts,
        )
        return predict_scoring(self.config, shape, batch_size, dtype or self.dtype)


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
    batch_size = options.batch_size
    builder = load_protocol(options.dataset, options.protocol, options.data_dir)
    splits = splits_with(builder, options.split)
    wanted = [name for name in (options.validation_split, options.split) if name in splits]
    clips = {name: len(splits[name]) for name in dict.fromkeys(wanted)}
    counted = ", ".join(f"{name} {count}" for name, count in clips.items())
    print(f"Dry run: {options.model} on {options.dataset}. Nothing is loaded, scored or written.")
    print(f"  clips: {counted}; processes: {state.num_processes}, windows a pass: {batch_size}")
    print("  writes predictions.parquet, report.json, report.md, report.html, run.json")
    scoring = read_scoring(options.model, options.dtype, options.trust_remote_code)
    if scoring is None:
        print("  a small detector: its memory is not predicted")
        return True
    limit, where = (memory_gib, "given") if memory_gib is not None else device_memory_gib()
    seconds = options.window_seconds or scoring.sampling["max_seconds"]
    need = scoring.need(batch_size, seconds)
    fits = need.needed <= limit * GIB
    print(
        f"  windows of up to {seconds:g} s: {need.total / GIB:.2f} GiB predicted, not measured (weights "
        f"{need.weights / GIB:.2f}, activations {need.activations / GIB:.2f}), {need.needed / GIB:.2f} with headroom: "
        f"{'fits' if fits else 'does NOT fit'} in {limit:.1f} GiB ({where})"
    )
    if not fits:
        print("  What would help, each by itself:")
        for words, changed in changes(batch_size, seconds, scoring.dtype):
            after = scoring.need(*changed)
            if after.needed < need.needed:
                verdict = "fits" if after.needed <= limit * GIB else "still too much"
                less = (need.needed - after.needed) / GIB
                print(f"    {words}: {less:.2f} GiB less, {after.needed / GIB:.2f} needed: {verdict}")
    return fits


def changes(
    batch_size: int, seconds: float, dtype: torch.dtype
) -> list[tuple[str, tuple[int, float, torch.dtype]]]:
    """Options that take less memory, as words and as what [`Scoring.need`] takes."""
    found = []
    if dtype == torch.float32:
        found.append(("--dtype bfloat16", (batch_size, seconds, torch.bfloat16)))
    if batch_size > 1:
        found.append(("--batch-size 1", (1, seconds, dtype)))
    return [*found, (f"--window-seconds {seconds / 2:g}", (batch_size, seconds / 2, dtype))]


def read_scoring(model: str, dtype: str = "auto", trust_remote_code: bool = False) -> Scoring | None:
    """
    What a pass of a detector, or of an omni backbone, depends on, from its configuration files; None for a small detector.

    Raises:
        EvaluationError: when the configuration cannot be read.
    """
    import modeling_avlmm  # noqa: F401 (registers the configurations)

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{model} cannot be read: {error}") from error
    thinker = getattr(config, "thinker_config", config)
    if thinker.model_type not in BACKBONES:
        return None
    named = None if dtype == "auto" else dtype
    weights = named or getattr(config, "dtype", None) or getattr(thinker, "dtype", None) or torch.float32
    weights = getattr(torch, weights) if isinstance(weights, str) else weights
    known = inspect.signature(AVLMMProcessor.__init__).parameters
    sampling = {name: known[name].default for name in SAMPLING}
    file = cached_file(model, "processor_config.json", _raise_exceptions_for_missing_entries=False)
    if file is not None and config.model_type == "avlmm":
        stored = json.loads(Path(file).read_text(encoding="utf-8"))
        sampling |= {name: stored[name] for name in SAMPLING if name in stored}
    return Scoring(thinker, weights, getattr(config, "prompts", None), sampling)
