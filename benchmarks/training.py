"""Compare tokens a second, MFU and memory of both training stages with those of `SFTTrainer` and the stock model.

    python benchmarks/training.py --threads 2 --save
    python benchmarks/training.py --device cuda --save

Weights are random. On a GPU they have the shape of Qwen2.5-Omni-7B, on the CPU there are about 90 M parameters beside the vocabulary
(`omni_shapes.py`). Each pass has clips of 4, 8 and 16 s in turn (square faces of 224 pixels, 2 frames a second, with sound), the
question and its answer. They are encoded beforehand, so only the steps are timed; the first does not count, and the quickest of the
others does. On a GPU frozen weights are bfloat16 and trained ones float32 (autocast); on the CPU all are float32. Activations are
recomputed in all ways, which is TRL's default and set in the 7B recipes.

- `stock`: the thinker of transformers with `sdpa` in TRL's `SFTTrainer`, with spectra padded to 300 s as the stock processor does.
  Without TRL, this and `ours` run in `transformers.Trainer`; the column `trainer` says which.
- `ours`: the detector in `AVSFTTrainer`: no padding in the language model, one call for all windows of a length, loss on the
  answers' positions only, no backward pass through frozen encoders.
- `cached`: the same with `encoder_cache`, from the second epoch on, in stage 1 only: the encoders are not run, and their operations
  are not counted.

MFU is useful work over time and the device's peak. A pass over N tokens does 2 N of useful work for each weight of a linear layer or
convolution in the forward pass, 2 N more if a gradient passes through it, and 2 N more if it trains. So the frozen encoders of
stage 1 count 2 N, and the frozen language model of stage 2 counts 4 N. Padding and recomputation are not useful and are not
counted (`modeling_avlmm.training.throughput.FlopsCounter`). The peak is the data sheet's, or that of a matrix product timed here.

`loss` is that of the first step. It is the same in all ways, as the weights are.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from omni_shapes import (
    VOCABULARIES,
    build_detector,
    measured,
    parser_for,
    settled,
    stock_arguments,
    stock_thinker,
    synthetic_clip,
)
from peft import get_peft_model
from results import write_results
from transformers import Trainer, TrainerCallback, TrainingArguments
from turns import peak, ratio, reset_peak, rounded, synchronize

from modeling_avlmm import AVLMMConfig, AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.modeling_avlmm import ENCODER_INPUTS
from modeling_avlmm.processing_avlmm import normalize_pixels
from modeling_avlmm.training.recipe_parts import DataRecipe, StageRecipe
from modeling_avlmm.training.recipes import AVLMMRecipe
from modeling_avlmm.training.stage_kinds import KINDS, count_trainable, keep_trained_in_float32
from modeling_avlmm.training.throughput import FlopsCounter, peak_flops

CLIPS = (3, 6)
"""Clips in a step, on the CPU and on a GPU."""
STAGES = ("alignment", "encoders")
STOCK_SPECTRUM = 30_000
"""Frames to which the stock processor pads every spectrum, 300 s."""

WITH_TRL = importlib.util.find_spec("trl") is not None
TRAINERS = {"stock": "trl.SFTTrainer", "ours": "AVSFTTrainer", "cached": "AVSFTTrainer"}
WITHOUT_TRL = "transformers.Trainer (TRL is not installed)"
WHAT = {
    "stock": "stock thinker: padded rows, spectra of 300 s, a call per window",
    "ours": "detector: no padding, a call per length of window, frozen encoders without gradients",
    "cached": "as ours, with the output of the frozen encoders read from the encoder cache",
}
WAYS = {"alignment": ("stock", "ours", "cached"), "encoders": ("stock", "ours")}


@dataclass(frozen=True)
class Setting:
    """
    The training that all ways run.

    Args:
        shape (`str`): Key of `omni_shapes.SHAPES`.
        lengths (`Sequence[float]`): Seconds of each clip in a step.
        steps (`int`): Steps, of which the first is not timed.
        device (`str`): `cpu` or `cuda`.
        vocabulary (`int`, *optional*): Rows of the language head; those of the shape if left out.
        lora_rank (`int`, *optional*, defaults to 64): Rank of LoRA in stage 1.
    """

    shape: str
    lengths: Sequence[float]
    steps: int
    device: str
    vocabulary: int | None = None
    lora_rank: int = 64

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights."""
        return torch.bfloat16 if self.device == "cuda" else torch.float32


class Clock(TrainerCallback):
    """Time all steps but the first, record their peak memory, and end a training that takes too long."""

    def __init__(self, device: str, until: float | None):
        self.device, self.until = device, until
        self.taken: list[float] = []
        self.peak_gib: float | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            reset_peak(self.device)
        synchronize(self.device)
        self.begin = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        synchronize(self.device)
        if state.global_step > 1:
            self.taken.append(time.perf_counter() - self.begin)
            self.peak_gib = peak(self.device)
            if self.until is not None and time.monotonic() > self.until:
                control.should_training_stop = True


def stage_recipe(kind: str, setting: Setting) -> StageRecipe:
    """Return a stage as in the 7B recipes, but without dropout, so that all ways have the same loss."""
    return StageRecipe(
        kind=kind,
        max_steps=setting.steps,
        learning_rate=1e-5,
        lora_rank=setting.lora_rank,
        lora_alpha=2 * setting.lora_rank,
        lora_dropout=0.0,
        batch_size=len(setting.lengths),
        gradient_checkpointing=True,
        log_steps=1,
        save_steps=setting.steps + 1,
    )


def training_batch(processor: AVLMMProcessor, lengths: Sequence[float]) -> dict:
    """Return a batch of clips of these lengths in seconds, each with the question and an answer."""
    encoded = [
        processor.encode(synthetic_clip(length, seed=index), [processor.question("overall", index % 2)])
        for index, length in enumerate(lengths)
    ]
    # Floats, as the stock thinker takes them.
    return normalize_pixels(dict(processor.collate(encoded, padding_side="right")))


@torch.no_grad()
def cached_batch(batch: dict, model: AVLMMForDeepfakeDetection) -> dict:
    """Return the batch with the output of the encoders in place of their input, as the encoder cache gives it."""
    media = {name: batch[name].to(model.device) for name in ENCODER_INPUTS}
    sound, picture = model.encode_media(**media)
    rest = {name: value for name, value in batch.items() if name not in ENCODER_INPUTS}
    return {**rest, "audio_embeds": sound.cpu(), "video_embeds": picture.cpu()}


def stock_batch(batch: dict) -> dict:
    """Return the batch as the stock processor would make it, with the same labels."""
    stock = {**stock_arguments(batch), "labels": batch["labels"]}
    for name in ("input_features", "feature_attention_mask"):
        missing = max(0, STOCK_SPECTRUM - stock[name].shape[-1])
        stock[name] = torch.nn.functional.pad(stock[name], (0, missing))
    return stock


def make_trainer(way: str, model, processor, stage, batch: dict, device: str, folder: Path):
    """Return a trainer for one stage, which gets the same batch in every step."""
    bf16, steps = device == "cuda", stage.max_steps
    recipe = AVLMMRecipe(
        name="benchmark", output_dir=str(folder), data=DataRecipe(num_workers=0), stages=[stage]
    )
    KINDS[stage.kind].freeze(model, stage)
    lora = KINDS[stage.kind].lora(model, stage)
    trained = stock_thinker(model) if way == "stock" else model
    rows = [{"index": index} for index in range(steps * stage.batch_size)]
    shared = {"model": trained, "data_collator": lambda _: dict(batch)}
    plain = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "bf16": bf16,
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if WITH_TRL:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        from modeling_avlmm.training.batches import DropList
        from modeling_avlmm.training.trainers import AVSFTTrainer, sft_config

        shared |= {"train_dataset": Dataset.from_list(rows), "peft_config": lora}
        if way != "stock":
            arguments = sft_config(recipe, stage, folder, bf16)
            arguments.use_cpu = device == "cpu"
            drops = DropList(folder / "drops.jsonl")
            more = {"processing_class": processor, "stage": stage, "drops": drops, "max_drops": 0}
            return AVSFTTrainer(args=arguments, **shared, **more)
        arguments = SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, **plain)
        return SFTTrainer(args=arguments, processing_class=processor.tokenizer, **shared)
    arguments = TrainingArguments(gradient_checkpointing=True, **plain)
    if lora is not None:
        shared["model"] = get_peft_model(trained, lora)
        shared["model"].enable_input_require_grads()  # as TRL does
    return Trainer(args=arguments, train_dataset=rows, **shared)


def without_weights(config: AVLMMConfig, stage: StageRecipe) -> AVLMMForDeepfakeDetection:
    """Return the detector as a stage trains it, to count its operations; the useful ones are the same in all ways."""
    with torch.device("meta"):
        model = AVLMMForDeepfakeDetection(config)
        kind = KINDS[stage.kind]
        kind.freeze(model, stage)
        if kind.uses_lora:
            return get_peft_model(model, kind.lora(model, stage)).get_base_model()
    return model


def train(
    way: str, kind: str, processor: AVLMMProcessor, setting: Setting, until: float | None = None
) -> dict:
    """Run one way through some steps of one stage, and return its row."""
    stage = stage_recipe(kind, setting)
    batch = training_batch(processor, setting.lengths)
    model = build_detector(
        setting.shape, processor, setting.device, setting.dtype, vocabulary=setting.vocabulary
    )
    size = {
        "parameters_m": round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1),
        "vocabulary": model.config.get_text_config().vocab_size,
    }
    error, clock = None, Clock(setting.device, until)
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        given = {"stock": stock_batch, "ours": dict, "cached": partial(cached_batch, model=model)}[way](batch)
        trainer = make_trainer(way, model, processor, stage, given, setting.device, Path(folder))
        flops = FlopsCounter(without_weights(model.config, stage)).step(given if way == "cached" else batch)
        del model
        size["trained_m"] = round(count_trainable(trainer.model) / 1e6, 4)
        keep_trained_in_float32(trainer.model)
        trainer.add_callback(clock)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer.train()
        except torch.cuda.OutOfMemoryError:
            error = "out of memory"
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    del trainer
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    row = training_row(way, kind, setting, batch, clock, flops)
    return {**row, **size, "loss": losses[0] if losses else None, "note": error or WHAT[way]}


def training_row(way: str, kind: str, setting: Setting, batch: dict, clock: Clock, flops: float) -> dict:
    """Return the columns of a row, with the measured rates; size, loss and note are filled in by [`train`]."""
    seconds, clips = min(clock.taken, default=None), len(setting.lengths)
    useful = int(batch["attention_mask"].sum())
    top, source = peak_flops(torch.device(setting.device), setting.dtype)
    return {
        "way": way,
        "stage": kind,
        "trainer": TRAINERS[way] if WITH_TRL else WITHOUT_TRL,
        "clips": clips,
        "seconds": "+".join(f"{length:g}" for length in sorted(set(setting.lengths))),
        "tokens": useful,
        "padded_tokens": batch["attention_mask"].numel(),
        "shape": setting.shape,
        "parameters_m": None,
        "trained_m": None,
        "vocabulary": None,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "steps": len(clock.taken),
        "clips_per_s": None if seconds is None else float(f"{clips / seconds:.4g}"),
        "tokens_per_s": None if seconds is None else float(f"{useful / seconds:.4g}"),
        "tokens_of_stock": None,
        "mfu": None if seconds is None else round(flops / seconds / top, 4),
        "peak_tflops": round(top / 1e12, 3),
        "peak_tflops_from": source,
        "peak_gib": rounded(clock.peak_gib, 3),
        "peak_of_stock": None,
    }


def compare(rows: Sequence[dict]) -> list[dict]:
    """Return the quickest round of each way, with its ratios to `stock`."""
    best: dict[str, dict] = {}
    for row in rows:
        known = best.get(row["way"])
        if known is None or (row["tokens_per_s"] or 0) > (known["tokens_per_s"] or 0):
            best[row["way"]] = row
    stock = best.get("stock", {})
    for row in best.values():
        row["tokens_of_stock"] = ratio(row["tokens_per_s"], stock.get("tokens_per_s"))
        row["peak_of_stock"] = ratio(row["peak_gib"], stock.get("peak_gib"))
    return list(best.values())


def measure(options: argparse.Namespace, processor: AVLMMProcessor) -> Iterator[list[dict]]:
    """Yield the rows of each stage."""
    lengths = [options.seconds[index % len(options.seconds)] for index in range(options.batch_size)]
    shared = {"vocabulary": options.vocabulary, "lora_rank": options.lora_rank}
    setting = Setting(options.shape, lengths, options.steps + 1, options.device, **shared)
    for kind in options.stages:
        rows = [train(way, kind, processor, setting) for _ in range(options.rounds) for way in WAYS[kind]]
        yield compare(rows)


def show(rows: Sequence[dict]) -> None:
    """Print rows."""
    for row in rows:
        print(
            f"{row['stage']:<9} {row['clips']:>2} x {row['seconds']:<7} s  {row['way']:<5} in {row['trainer']:<14.14}  "
            f"{row['tokens_per_s'] or math.nan:8.4g} tokens/s, {row['tokens_of_stock'] or math.nan:5.2f} of stock  "
            f"MFU {row['mfu'] or math.nan:6.1%}  peak {row['peak_gib'] or math.nan:6.2f} GiB, "
            f"{row['peak_of_stock'] or math.nan:5.2f} of stock  loss {row['loss'] or math.nan:.5f}",
            flush=True,
        )


def main() -> None:
    parser = parser_for(__doc__, CLIPS, "a step")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="[both]")
    parser.add_argument("--vocabulary", type=int, help="rows of the language head [the shape's own]")
    parser.add_argument("--lora-rank", type=int, default=64, help="rank of LoRA [%(default)s]")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each round [%(default)s]")
    parser.add_argument(
        "--rounds", type=int, default=2, help="runs of each way, of which the quickest counts [%(default)s]"
    )
    options = settled(parser, CLIPS)
    options.vocabulary = options.vocabulary or VOCABULARIES[options.shape]
    rows = measured(measure, show, options)
    if options.save:
        packages = ("torch", "transformers", "trl")
        name = f"training_{options.shape}"
        write_results(rows, name, packages, vocabulary=options.vocabulary, **options.conditions)


if __name__ == "__main__":
    main()
